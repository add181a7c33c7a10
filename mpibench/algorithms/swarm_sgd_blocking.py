"""SwarmSGD, blocking: two neighbours that have both finished their local steps take the mean of their models.

G. Nadiradze, A. Sabour, P. Davies, S. Li, D. Alistarh, "Asynchronous Decentralized SGD with Quantized and Local
Updates", NeurIPS 2021, arXiv 1910.12308. Who is faster waits. With what each has told the other, in full precision or
from a lattice as in `swarm_sgd`, X_i <- (Q(X_i) + Q(X_j)) / 2 + X_i - Q(X_i), whose last part is 0 in full precision.

Differs from the paper, where pairs just happen. Here a rank that has finished its local steps is ready. It calls a rank
that wished so, the first; if there is none, it wishes for a neighbour, drawn uniformly, and waits. Who is ready and
calls nobody accepts a call; who computes refuses it. Who calls lets higher-numbered callers wait for its own answer,
and refuses lower ones, but notes their wish. No deadlock: callers wait for lower-numbered callers only, so all calls
are answered, and if all were ready and none called, the last wish would be with a rank that does call. Nor refusals for
ever: of all ready ranks that call ready ones the highest finds a pair.

Messages: WISH (none); CALL (Q(X_i)), and to each CALL one of ANSWER (Q(X_j)), BUSY (none) and FAR (none), after which
there is a CALL in full precision. A pair has one ANSWER. Q takes d numbers, or b d bits and a number. All must arrive.
A pair is an update of both. Gradients have no delay, what is mixed in has no age. On one rank it is SGD.
"""

from dataclasses import dataclass
from enum import IntEnum

from mpibench.algorithms import swarm_sgd


class Tag(IntEnum):
    WISH = 0  # to a neighbour: call me
    CALL = 1  # Q(X_i)
    ANSWER = 2  # to a call: Q(X_j), and both are a pair
    BUSY = 3  # to a call: no
    FAR = 4  # to a call: call in full precision


class Process(swarm_sgd.Process):
    """Process i; `ready` is the number of its local steps when they are behind it, else 0."""

    def begin(self):
        self.ready, self.called, self.wished = 0, None, False  # whom it is calling; whether it waits to be called
        self.wishes, self.kept = {}, {}  # ranks that wish a call, the first first; caller -> what it told
        for tag in Tag:
            self.node.start(self.listen(tag, getattr(self, f"on_{tag.name.lower()}")))
        self.node.start(self.local_phase())

    async def listen(self, tag, on):
        while True:
            i, body = await self.edges.recv(tag)
            on(i, *body)

    async def local_phase(self):
        self.ready, self.x = await self.local_steps()
        if self.edges.destinations:
            self.look()
        else:
            self.end_phase(self.x)

    def look(self):
        if not self.ready or self.called is not None:
            return
        if self.wishes:
            self.called = next(iter(self.wishes))
            del self.wishes[self.called]
            request, self.sent = self.codec.encode(self.x, self.node.rng)
            self.edges.send(self.called, Tag.CALL, request)
        elif not self.wished:
            self.wished = True
            self.edges.send(self.partner(), Tag.WISH)

    def on_wish(self, i):
        self.wishes[i] = None
        self.look()

    def on_call(self, i, request):
        if self.ready and self.called is None:
            answer, theirs, own = self.codec.answer(request, self.x, self.node.rng)
            if answer is None:
                self.edges.send(i, Tag.FAR)
                return
            self.edges.send(i, Tag.ANSWER, answer)
            self.pair(i, theirs, own)
        elif self.ready and i > self.node.rank:
            self.kept[i] = request
        else:
            self.edges.send(i, Tag.BUSY)
            if self.ready:
                self.wishes[i] = None

    def on_answer(self, j, answer):
        self.pair(j, self.codec.decode(answer, self.sent), self.sent)

    def on_busy(self, j):
        self.hang_up()
        self.look()

    def on_far(self, j):
        self.watch.fell_back(j)
        self.sent = self.x
        self.edges.send(j, Tag.CALL, self.x)

    def pair(self, j, theirs, own):
        self.watch.mixed(j, 0)
        self.wishes.pop(j, None)
        self.end_phase((theirs + own) / 2 + (self.x - own))

    def end_phase(self, x):
        self.watch.used(self.node.rank, 0, self.ready)
        self.ready = 0
        if self.update(x):
            self.hang_up()
            self.node.start(self.local_phase())

    def hang_up(self):
        """Nobody is called any more, and who was kept waiting has its turn."""
        self.called, self.wished, kept, self.kept = None, False, self.kept, {}
        for i, request in kept.items():
            self.on_call(i, request)


@dataclass(frozen=True)
class SwarmSGDBlocking(swarm_sgd.SwarmSGD):
    process = Process
