"""SwarmSGD, non-blocking: after some local steps a rank averages with a random neighbour, whose own steps go on.

G. Nadiradze, A. Sabour, P. Davies, S. Li, D. Alistarh, "Asynchronous Decentralized SGD with Quantized and Local
Updates", NeurIPS 2021, arXiv 1910.12308. Rank i has a communication copy X_i, which others average with at any time,
and a live copy of it for H local steps, or geometrically many of mean H. What these add up to, δ_i, enters X_i with the
next average: i asks j, who answers at once, and with what each has told the other

    X_i <- X_i + (Q(X_j) - Q(X_i)) / 2 - δ_i,   X_j <- X_j + (Q(X_i) - Q(X_j)) / 2

As both add differences, what has happened in between is kept, and the mean of X moves by -δ_i / n only, whatever Q is.
Q(X) is X, or with `bits` b its random rounding to a lattice of this `side` (`mpibench.lattice`), decoded with one's own
copy: j's at that time, i's as it was sent. If either is too far away for that, j says so and changes nothing, and i
asks once more in full precision. `bound`, on the distance of copies in any coordinate, gives side 2 bound / (2^b - 2).

Messages per local phase: REQUEST (Q(X_i)) to a neighbour drawn uniformly, ANSWER (Q(X_j)) from it; 2 more, one of them
a number, if they were too far apart. Q takes d numbers, or b d bits and a number. All must arrive. To be asked is an
update, so gradients are delayed by how often it happened since the local steps began. Ages as in `ad_psgd`. On one rank
it is SGD. Homogeneous data, or a limit that is biased by η, H and the heterogeneity.
"""

from dataclasses import dataclass
from enum import IntEnum

from mpibench.algorithm import Count, Decentralized, Positive
from mpibench.lattice import Bits, Codec


class Tag(IntEnum):
    REQUEST = 0  # to a neighbour: Q(X_i)
    ANSWER = 1  # back: Q(X_j) before what was asked is mixed in; or None, ask in full precision


class Process:
    """Process i with its copy X after t updates; `over` ends with the last one."""

    def __init__(self, method, node, x, f, watch):
        self.method, self.node, self.x, self.f, self.watch = method, node, x, f, watch
        self.t, self.codec = 0, Codec(method.bits, method.side, method.bound)
        self.edges = node.join(node.network().graph)
        self.over = node.start(self.forever())
        self.begin()

    async def forever(self):
        await self.node.recv(None)  # never comes

    def begin(self):
        self.node.start(self.answers())
        self.node.start(self.rounds())

    def partner(self):
        return self.edges.destinations[int(self.node.rng.integers(len(self.edges.destinations)))]

    def update(self, x):
        self.t, self.x = self.t + 1, x
        if not (going := self.watch(self.t, x)):
            self.over.cancel()
        return going

    async def local_steps(self):
        """(how many, the model after them)."""
        h, y, η = self.method.local_steps, self.x, self.method.stepsize
        h = int(self.node.rng.geometric(1 / h)) if self.method.geometric else h
        for _ in range(h):
            y = y - η * await self.node.compute(self.f.gradient, y, self.f.sample())
        return h, y

    async def rounds(self):
        going = True
        while going:
            t, X = self.t, self.x
            h, y = await self.local_steps()
            δ = X - y
            half = await self.average(self.partner()) if self.edges.destinations else 0
            self.watch.used(self.node.rank, self.t - t, h)
            going = self.update(self.x + (half - δ))

    async def average(self, j):
        """Rank i's side: (Q(X_j) - Q(X_i)) / 2."""
        t, (request, sent) = self.t, self.codec.encode(self.x, self.node.rng)
        self.edges.send(j, Tag.REQUEST, request)
        _, (answer,) = await self.edges.recv(Tag.ANSWER, source=j)
        if answer is None:
            self.watch.fell_back(j)
            t, sent = self.t, self.x
            self.edges.send(j, Tag.REQUEST, sent)
            _, (answer,) = await self.edges.recv(Tag.ANSWER, source=j)
        self.watch.mixed(j, self.t - t)
        return (self.codec.decode(answer, sent) - sent) / 2

    async def answers(self):
        """Rank j's side."""
        while True:
            i, (request,) = await self.edges.recv(Tag.REQUEST)
            answer, theirs, own = self.codec.answer(request, self.x, self.node.rng)
            self.edges.send(i, Tag.ANSWER, answer)
            if answer is not None:
                self.watch.mixed(i, 0)
                self.update(self.x + (theirs - own) / 2)


@dataclass(frozen=True)
class SwarmSGD(Decentralized):
    stepsize: Positive  # η
    local_steps: Count = 1  # H
    geometric: bool = False  # H is the mean of a random number
    bits: Bits = 0  # b, per coordinate; 0: full precision
    side: Positive | None = None  # s, of the lattice; with bits, or in its place
    bound: Positive | None = None  # B >= |X_i - X_j| in every coordinate
    homogeneous = True
    process = Process

    def check(self, workers, graph=None):
        Codec(self.bits, self.side, self.bound)
        if graph is not None and not graph.undirected:
            raise ValueError("pairs take the mean of both, but the graph has an edge without a way back; add that")

    async def peer(self, node, x, f, watch):
        if watch(0, x):
            await self.process(self, node, x, f, watch).over
