"""Shadowheart SGD: in a step's time t* each worker computes as many gradients, and sends their sum as often, as it can.

A. Tyurin, M. Pozzi, I. Ilin, P. Richtárik, "Shadowheart SGD: Distributed Asynchronous SGD with Optimal Time Complexity
Under Arbitrary Computation and Communication Heterogeneity", NeurIPS 2024, arXiv 2402.04785. Worker i adds up b_i
gradients at x^k, and then sends m_i messages of the unbiased compressor C, all of this sum, each with randomness of its
own. The step is that of the estimate Σ w_i (C_i1 + .. + C_im) / Z. How b_i, m_i and w_i follow from the equilibrium
time t* is in `mpibench.schedule`; a worker that needs longer for a gradient, or for a message, sits out. A step takes
2 t* at most, and what the way down and latencies take. All times must be known, by the model of the cluster.

Messages per step: one MODEL (k, b_i, m_i and d numbers) down and one MESSAGES (k and what is packed) up for each worker
that takes part. The m_i messages are packed into one, with their sum; its link is charged m_i τ_i seconds, τ_i those of
the K numbers of one message of RandK. The places of these numbers are free, as in the authors' code.

`limit` says what becomes of m_i messages that are as long as the vector, or longer: with "dense" the vector itself is
sent, which has no error (derived); with "clip" m_i is cut, as in the authors' experiments; with "none" all are sent.

With the identity and "dense" it is load-balanced Minibatch with a batch of Σ b_i. Homogeneous data.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

from mpibench.algorithm import Centralized, NonNegative, Positive
from mpibench.compressors import Compressor
from mpibench.compressors._repeated import charged_bytes, check_unbiased, sender
from mpibench.schedule import schedule


class Tag(IntEnum):
    MODEL = 0  # server to worker: k, b_i, m_i or 0 for the vector itself, x^k
    MESSAGES = 1  # worker to server: k, C_1(G) + .. + C_m(G) of the sum G of its b_i gradients at x^k


@dataclass(frozen=True)
class Shadowheart(Centralized):
    stepsize: Positive  # γ, per step
    noise_ratio: NonNegative  # σ²/ε, variance of a gradient over the squared gradient norm that is aimed at
    compressor: Compressor  # C; of RandK K = 1 is optimal up to a constant
    limit: Literal["dense", "clip", "none"] = "dense"

    homogeneous = True
    needs_link_times = True
    clocks = Centralized.clocks - {"native"}

    def check_dimension(self, d, workers):
        super().check_dimension(d, workers)
        check_unbiased(self.compressor, d)

    def plan(self, h, link_seconds, d, vector_bytes):
        """The Schedule of workers of h_i seconds per gradient, and link_seconds(i, bytes) to the server."""
        each = charged_bytes(self.compressor, d, vector_bytes)
        tau = [link_seconds(i, each) for i in range(1, len(h) + 1)]
        return schedule(self.compressor.omega(d), self.noise_ratio, h, tau, vector_bytes / each, self.limit)

    def size(self, m, d, vector_bytes):
        """Bytes that a link is charged for m messages; for 0, which is the vector itself."""
        return m * charged_bytes(self.compressor, d, vector_bytes) if m else vector_bytes

    async def server(self, node, x, watch):
        h = [node.speed(i).mean_seconds for i in node.workers]
        plan = self.plan(h, lambda i, size: node.link_seconds(i, 0, size), len(x), x.nbytes)
        b, m, w = (dict(enumerate(column.tolist(), 1)) for column in (plan.b, plan.messages, plan.w / plan.w.max()))
        active = [i for i in node.workers if b[i]]
        Z = sum(w[i] * max(m[i], 1) * b[i] for i in active)  # the scale of the weights cancels
        k = 0
        while watch(k, x):
            for i in active:
                node.send(i, Tag.MODEL, k, b[i], m[i], x)
            C = {}
            while len(C) < len(active):
                i, (_, packed) = await node.recv(Tag.MESSAGES)
                watch.used(i, delay=0, count=b[i])
                C[i] = sender(self.compressor, m[i]).decode(packed, x, source=i, tag=Tag.MESSAGES)
            x = x - self.stepsize * (sum(w[i] * C[i] for i in active) / Z)
            k += 1
        return x

    async def worker(self, node, f):
        while True:
            _, (k, b, m, x) = await node.recv(Tag.MODEL)
            G = 0
            for _ in range(b):
                G = G + await node.compute(f.gradient, x, f.sample())
            packed = sender(self.compressor, m).encode(G, node.rng)
            node.send(0, Tag.MESSAGES, k, packed, size=self.size(m, len(x), x.nbytes))
