"""FedBuff: clients send what Q local steps have moved, and the server steps after every K of them.

J. Nguyen, K. Malik, H. Zhan, A. Yousefpour, M. Rabbat, M. Malek, D. Huba, "Federated Learning with Buffered
Asynchronous Aggregation", AISTATS 2022, arXiv 2106.06639 (also D. Huba et al., "Papaya", MLSys 2022, arXiv
2111.04877). A client that gets x^k' makes Q steps of SGD and sends Δ = x^k' - y. Its weight is 1/sqrt(1 + s), s the
server steps since; the server steps by η_g times the weighted sum, divided by K and not by the sum of weights.

Every worker is a client and always runs. The K-th reporter gets the new point. Homogeneous data: under heterogeneous
data fast clients are over-represented.

Messages per client update: one UPDATE (k' and d numbers) up, one MODEL (k and d numbers) down. At the start n MODEL.
Nobody is interrupted.

Differs from the paper: no momentum on the server, no sampling of clients, and Q counts steps instead of epochs.
"""

from dataclasses import dataclass
from enum import IntEnum
from math import inf, sqrt

from mpibench.algorithm import Centralized, Count, Limit, Positive


class Tag(IntEnum):
    MODEL = 0  # server to client: k, x^k
    UPDATE = 1  # client to server: k', Δ = x^k' - y


@dataclass(frozen=True)
class FedBuff(Centralized):
    stepsize: Positive  # η_g, of the server
    local_stepsize: Positive  # η_l, of the clients
    local_steps: Count  # Q
    buffer: Count  # K, client updates per step of the server
    max_staleness: Limit = inf  # in steps of the server; older client updates are dropped

    homogeneous = True

    async def server(self, node, x, watch):
        k = 0
        total, buffered = 0, 0
        for i in node.workers:
            node.send(i, Tag.MODEL, k, x)
        while watch(k, x):
            i, (computed_at, Δ) = await node.recv(Tag.UPDATE)
            s = k - computed_at
            if s > self.max_staleness:
                watch.discarded(i, s, count=self.local_steps)
            else:
                watch.used(i, s, count=self.local_steps)
                total, buffered = total + Δ / sqrt(1 + s), buffered + 1
            if buffered == self.buffer:
                x = x - self.stepsize * (total / self.buffer)
                k += 1
                total, buffered = 0, 0
            node.send(i, Tag.MODEL, k, x)
        return x

    async def worker(self, node, f):
        while True:
            _, (k, x) = await node.recv(Tag.MODEL)
            y = x
            for _ in range(self.local_steps):
                y = y - self.local_stepsize * await node.compute(f.gradient, y, f.sample())
            node.send(0, Tag.UPDATE, k, x - y)
