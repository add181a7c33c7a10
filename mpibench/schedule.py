"""The schedule of Shadowheart SGD: how many gradients each worker computes a step, and how often it sends their sum.

A. Tyurin, M. Pozzi, I. Ilin, P. Richtárik, "Shadowheart SGD: Distributed Asynchronous SGD with Optimal Time Complexity
Under Arbitrary Computation and Communication Heterogeneity", NeurIPS 2024, arXiv 2402.04785. Throughout

h            (n,) seconds per gradient of each worker, in any order
tau          (n,) seconds in which a worker sends one compressed message, τ_i; inf for a worker that cannot
omega        ω of the compressor C: E C(x) = x and E||C(x) - x||^2 <= ω ||x||^2
noise_ratio  σ²/ε, variance of a gradient over the squared gradient norm that is aimed at

In the equilibrium time t* workers can compute b_i = floor(t*/h_i) gradients and send m_i = floor(t*/τ_i) messages, so a
step takes at most 2 t*. The estimate Σ w_i (C_i1 + .. + C_im) / Z of compressed sums of b_i gradients is unbiased, its
variance is at most (||∇f||^2 + ε)/Z, and t* is such that Z >= 1.
"""

import math
from bisect import bisect_left
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy

from mpibench.errors import InvalidInput

ROUNDING = 1 + 1e-12  # so that 0.3/0.1 is 3 whole ones


def equilibrium_seconds(omega, noise_ratio, h, tau, down=0.0):
    """t* = min_j max{max(h_j, τ_j), s*(j)}, workers sorted by max(h_i, τ_i), with s*(j) the s >= 0 that solves

    Σ_{i<=j} s² / ((2 τ_i ω + 2 h_i σ²/ε) s + 4 τ_i h_i ω σ²/ε) = 1, or 0 where a denominator is zero.

    By bisection, to double precision. The sum grows with s and with j, so s*(j) falls while max(h_j, τ_j) rises: the
    minimum is where they meet. h and τ may be 0 here, of which no schedule follows. down: (n,) seconds that a point
    needs to each worker, none in the paper; then it is max(h_i, τ_i, down_i), as nobody is useful who needs longer than
    t* for one of them (derived).
    """
    h, tau = numpy.asarray(h, float), numpy.asarray(tau, float)
    refuse_negative(omega=omega, noise_ratio=noise_ratio)
    reached = numpy.maximum(numpy.maximum(h, tau), down)
    order = numpy.argsort(reached, kind="stable")[: int(numpy.isfinite(reached).sum())]
    if not len(order):
        raise InvalidInput("no worker has finite seconds both for a gradient and for a message")
    h, tau, reached = h[order], tau[order], reached[order].tolist()
    a, c = 2 * tau * omega + 2 * h * noise_ratio, 4 * tau * h * omega * noise_ratio
    instant = numpy.minimum.accumulate(a + c) == 0

    def enough(s, j):
        """Whether s*(j) <= s, for s > 0."""
        with numpy.errstate(over="ignore"):  # next to no noise and no error
            return bool(instant[j - 1] or (s * s / (a[:j] * s + c[:j])).sum() >= 1)

    def root(j):
        low, high = 0.0, reached[j - 1]
        while not enough(high, j):
            low, high = high, 2 * high
        while low < (middle := (low + high) / 2) < high:
            low, high = (low, middle) if enough(middle, j) else (middle, high)
        return high

    prefixes = range(1, len(order) + 1)
    place = bisect_left(prefixes, True, key=lambda j: enough(reached[j - 1], j))  # here they have met
    met = reached[place] if place < len(order) else math.inf
    return min(met, root(place)) if place else met


@dataclass(frozen=True)
class Schedule:
    """What each worker does in a step; arrays are (n,), zero for workers that sit out."""

    seconds: float  # t*
    b: Any  # gradients, whose sum is compressed
    m: Any  # messages, each with randomness of its own
    dense: Any  # whether the vector itself is sent, once, in place of messages
    omega: float  # ω
    noise_ratio: float  # σ²/ε

    @property
    def messages(self):
        """(n,) m_i, or 0 for the vector itself."""
        return numpy.where(self.dense, 0, self.m)

    @property
    def errors(self):
        """(n,) ω_i, which is zero where the vector itself is sent."""
        return numpy.where(self.dense, 0.0, self.omega)

    @cached_property
    def w(self):
        """(n,) w_i = 1/(b_i ω_i + ω_i σ²/ε + m_i σ²/ε), 1 for estimates without an error."""
        ω = self.errors
        errors = self.b * ω + ω * self.noise_ratio + self.m * self.noise_ratio
        return (self.b > 0) / numpy.where(errors == 0, 1.0, errors)

    @cached_property
    def Z(self):
        """Σ w_i m_i b_i."""
        return float((self.w * self.m * self.b).sum())

    @property
    def parts(self):
        """(n,) share of each worker in the estimate, w_i m_i b_i / Z."""
        return self.w * self.m * self.b / self.Z

    @property
    def variance(self):
        """(κ, ν): the estimate's variance is at most κ ||∇f||^2 + ν σ²."""
        active = self.b > 0
        p, b, left = self.parts[active] ** 2, self.b[active], self.errors[active] / self.m[active]
        return float((p * left).sum()), float((p * (left + 1) / b).sum())


def schedule(omega, noise_ratio, h, tau, whole=None, limit="none"):
    """The Schedule for these times, which must be above 0; InvalidInput where they are not.

    whole: how many messages are as long as the vector itself, d/K for K of d coordinates. `limit` says what becomes of
    m_i that are not below it:

    none   they stay, as in the theory
    clip   m_i = ceil(whole), as in the authors' experiments; the weights are those of the clipped m_i, and Z may be < 1
    dense  the vector itself in place of messages, with ω_i = 0 and m_i = 1: no longer, and exact (derived). Where
           gradients have no noise, such workers do not need the others.
    """
    h, tau = numpy.asarray(h, float), numpy.asarray(tau, float)
    for what, seconds in (("a gradient", h), ("a message", tau)):
        if not (seconds > 0).all():
            i = int((~(seconds > 0)).argmax())
            raise InvalidInput(f"worker {i + 1} takes {seconds[i]:g} s for {what}; a schedule needs more than 0 s")
    t = equilibrium_seconds(omega, noise_ratio, h, tau)
    b, m = (numpy.floor(t / seconds * ROUNDING).astype(int) for seconds in (h, tau))
    active = (b > 0) & (m > 0)
    long = active & (m * ROUNDING >= whole) if limit != "none" else numpy.zeros(len(h), bool)
    dense = long & (limit == "dense")
    m = numpy.where(dense, 1, numpy.where(long, math.ceil((whole or 0) / ROUNDING), m))
    if noise_ratio == 0 and dense.any():
        active = dense
    return Schedule(t, numpy.where(active, b, 0), numpy.where(active, m, 0), dense, omega, noise_ratio)


def refuse_negative(**numbers):
    """Refuse what is not a finite number >= 0."""
    for name, number in numbers.items():
        if not 0 <= number < math.inf:
            raise InvalidInput(f"{name} = {number} must be a finite number >= 0")
