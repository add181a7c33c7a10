"""Ringleader ASGD: rounds in which every worker triggers one update, with a table that has a row from every worker.

A. Maranjyan, P. Richtárik, "Ringleader ASGD: The First Asynchronous SGD with Optimal Time Complexity under Data
Heterogeneity", ICLR 2026, arXiv 2509.22860. Phase 1 collects until the table has a row from everybody, phase 2 makes
n updates with x^{k+1} = x^k - γ (1/n) Σ G_i/b_i, each triggered by another worker. Nobody is stopped, nobody idles,
nothing is discarded: what a worker sends after its update belongs to the next table. A row's gradients are all at one
point, at most 2n - 2 updates old.

Messages per gradient: one GRADIENT (k' and d numbers) up, and one answer: MODEL (k and d numbers) for the gradient that
triggers its worker's update, CONTINUE (nothing) for every other. At the start n MODEL.

A worker that has died would block phase 1. Heterogeneous data. The step size is per update, of which a round has n.

Differs from the authors' code, which sends a worker the latest point after each of its gradients, so that a row may mix
points; here, as in the paper, a worker goes on at the point it holds until its next update.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from mpibench.algorithm import Centralized, Positive


class Tag(IntEnum):
    MODEL = 0  # server to worker: k, x^k
    CONTINUE = 1  # server to worker: nothing; compute again at the point you hold
    GRADIENT = 2  # worker to server: k', ∇f_i(x^k'; ξ)


@dataclass(frozen=True)
class Row:
    """What the table has of a worker."""

    computed_at: int  # k', the same for all its gradients
    G: Any = 0  # their sum
    b: int = 0  # their number

    def plus(self, g):
        """This row with one gradient more."""
        return Row(self.computed_at, self.G + g, self.b + 1)

    @property
    def mean(self):
        """Its share of the estimate."""
        return self.G / self.b


@dataclass(frozen=True)
class Ringleader(Centralized):
    stepsize: Positive  # γ, per update

    async def server(self, node, x, watch):
        n = len(node.workers)
        k = 0
        rows, next_rows = {}, {}  # (G_i, b_i) and (G+_i, b+_i)
        for i in node.workers:
            node.send(i, Tag.MODEL, k, x)
        if not watch(k, x):
            return x
        while True:
            while len(rows) < n:  # phase 1
                i, (computed_at, g) = await node.recv(Tag.GRADIENT)
                watch.used(i, k - computed_at)
                rows[i] = rows.get(i, Row(computed_at)).plus(g)
                if len(rows) < n:
                    node.send(i, Tag.CONTINUE)
            estimate = sum(rows[j].mean for j in node.workers) / n
            done = set()
            while True:  # phase 2: i is to trigger its update
                watch.reused(k - min(row.computed_at for row in rows.values()))
                x = x - self.stepsize * estimate
                k += 1
                if not watch(k, x):
                    return x
                node.send(i, Tag.MODEL, k, x)
                done.add(i)
                if len(done) == n:
                    break
                while True:
                    i, (computed_at, g) = await node.recv(Tag.GRADIENT)
                    if i not in done:
                        break
                    next_rows[i] = next_rows.get(i, Row(computed_at)).plus(g)
                    node.send(i, Tag.CONTINUE)
                watch.used(i, k - computed_at)
                before, rows[i] = rows[i], rows[i].plus(g)
                estimate = estimate + (rows[i].mean - before.mean) / n
            rows, next_rows = next_rows, {}
            for j, row in rows.items():
                watch.used(j, k - row.computed_at, row.b)

    async def worker(self, node, f):
        _, (k, x) = await node.recv(Tag.MODEL)
        while True:
            job = node.start(self.work(node, f, k, x))
            _, (k, x) = await node.recv(Tag.MODEL)
            job.cancel()

    async def work(self, node, f, k, x):
        while True:
            g = await node.compute(f.gradient, x, f.sample())
            node.send(0, Tag.GRADIENT, k, g)
            await node.recv(Tag.CONTINUE)
