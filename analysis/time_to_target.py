"""When a run first met a target, and what it counts for where it never did.

T(ε, run) is the time stamp of the first snapshot at or past the target ε; nothing is interpolated, and a target that
is lost again later stays met. A run that never met it is data too: a miss, with the time up to which that is known.
"""

import math
from dataclasses import dataclass

import numpy as np

ENDED = "ended"  # reason of a miss: the run met its headline and ended as planned before it met this target


@dataclass(frozen=True)
class TimeToTarget:
    """One run and one target.

    `seconds` is T, or for a miss (`censored`) the time stored for it; `time`, `gradients` and `bytes` are what it cost,
    +inf for a miss. `granularity_seconds` is the spacing of the snapshots around the hit, within which T is known.
    """

    seconds: float
    censored: bool
    reason: str  # "reached", "budget", "diverged", "walltime", "fault", "watchdog", "ended"
    gradients: float = math.inf
    bytes: float = math.inf
    granularity_seconds: float = math.nan
    target_lost: bool = False

    @property
    def time(self):
        """T in seconds, +inf for a miss."""
        return math.inf if self.censored else self.seconds


def time_to_target(run, target):
    """`TimeToTarget` of this run and this value of its targets' metric."""
    if target not in run.hits:
        run.hits[target] = _time_to_target(run, target)
    return run.hits[target]


def _time_to_target(run, target):
    metric = run.targets.metric
    if metric not in run.trace:  # cut short before its first snapshot was evaluated
        return _miss(run)
    values = run.trace[metric].to_numpy()
    met = values <= target if run.better[metric] == "lower" else values >= target  # nan meets nothing
    if not met.any():
        return _miss(run)
    hit = int(np.argmax(met))
    time = run.trace["time"].to_numpy()
    return TimeToTarget(
        seconds=float(time[hit]),
        censored=False,
        reason="reached",
        gradients=float(run.trace["gradients"].iloc[hit]),
        bytes=float(run.trace["bytes"].iloc[hit]),
        granularity_seconds=float(time[hit] - time[hit - 1]) if hit else 0.0,
        target_lost=not met[hit:].all(),
    )


def _miss(run):
    if run.outcome == "diverged":
        # the whole budget: stored at the instant of divergence it would say that the run might still have succeeded
        return TimeToTarget(run.budget_seconds, True, "diverged")
    stop = run.resolved.get("experiment", {}).get("stop", {})
    if run.outcome == "budget" and math.isfinite(run.budget_seconds) and not stop.keys() & {"updates", "gradients"}:
        return TimeToTarget(run.budget_seconds, True, "budget")
    if run.outcome == "reached":
        return TimeToTarget(run.seconds, True, "budget" if run.seconds >= run.budget_seconds else ENDED)
    return TimeToTarget(run.seconds, True, run.outcome)
