"""Performance profiles: on which fraction of the problems a method needs at most so many times the best one's time.

Problems are the experiments and settings of one clock at their headline targets, or the targets of one of them. The
time of a method on a problem is its median over seeds; the band resamples seeds within each problem, the same for all.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis import statistics
from analysis.errors import Absent
from analysis.notes import provenance
from analysis.races import Race
from analysis.rounding import RELATION, interval, number
from analysis.sheets import Sheet
from analysis.tables import direction
from analysis.time_to_target import time_to_target

LIMIT = 4.0  # of the factor; the score is the mean height from 1 to here
FACTORS = np.linspace(1.0, LIMIT, 121)
SHOWN = (1.0, 1.25, 1.5, 2.0, 3.0, 4.0)  # in the table


@dataclass(frozen=True, eq=False)
class Profiles:
    """The profiles of the methods called `labels` over `problems` (their names) of these races, which share a clock."""

    races: tuple[Race, ...]
    over: str  # "experiments" or "targets"
    labels: tuple[str, ...]
    problems: tuple[str, ...]
    left_out: tuple[str, ...]  # methods that some problem lacks
    repetitions: int  # the fewest of a problem
    profile: statistics.Profile

    @property
    def title(self):
        """What was compared over what."""
        if self.over == "targets":
            return f"the targets of {self.races[0].title}"
        return f"{len(self.problems)} experiments, {self.races[0].clock} clock"


def load(races, over=None, resamples=statistics.RESAMPLES):
    """The `Profiles` of each clock (over "experiments") or race (over "targets"); by default over experiments where a
    clock has several that share methods.

    Raises Absent where no race has targets, or no two methods can be compared.
    """
    races = [race for race in races if race.targets]
    if not races:
        raise Absent("no experiment in these files names targets; a performance profile is over times to them")
    by_clock = {}
    for race in races:
        by_clock.setdefault(race.clock, []).append(race)
    made = []
    for same in by_clock.values():
        common = set.intersection(*({method.label for method in race.methods} for race in same))
        if over == "experiments" or (over is None and len(same) > 1 and len(common) > 1):
            made.append(_profiles(same, "experiments", [(race, race.targets.headline) for race in same], resamples))
        else:
            made += [_profiles([race], "targets", [(race, t) for t in race.targets.values], resamples) for race in same]
    made = [profiles for profiles in made if profiles]
    if not made:
        raise Absent("a performance profile compares two methods at least, on the same problems and seeds")
    return made


def _profiles(races, over, pairs, resamples):
    """`pairs` are the problems: a race and a target. None where fewer than two methods ran all of them."""
    everywhere = [label for label in (m.label for m in races[0].methods) if all(_has(race, label) for race in races)]
    names = dict.fromkeys(method.label for race in races for method in race.methods)
    problems, titles = [], []
    for race, target in pairs:
        runs = [{run.seed: run for run in _method(race, label).counted} for label in everywhere]
        seeds = sorted(set.intersection(*(set(own) for own in runs))) if runs else []
        if len(everywhere) < 2 or not seeds:
            return None
        problems.append(np.array([[time_to_target(own[seed], target).time for seed in seeds] for own in runs]))
        sign = RELATION[direction(race)]
        titles.append(f"{race.targets.metric} {sign} {target:g}" if over == "targets" else race.title)
    return Profiles(
        races=tuple(races),
        over=over,
        labels=tuple(everywhere),
        problems=tuple(titles),
        left_out=tuple(name for name in names if name not in everywhere),
        repetitions=min(times.shape[1] for times in problems),
        profile=statistics.profile(problems, FACTORS, LIMIT, resamples=resamples),
    )


def _has(race, label):
    return any(method.label == label for method in race.methods)


def _method(race, label):
    return next(method for method in race.methods if method.label == label)


def sheet(profiles):
    """What is shown of `Profiles`."""
    heading = f"Performance profile: {profiles.title}"
    race = profiles.races[0]
    return Sheet(race, heading, (_cells(profiles),), tuple(_notes(profiles)), rows(profiles), profiles.races[1:])


def rows(profiles):
    """The frame of the CSV: one row for each method and factor."""
    made = profiles.profile
    return pd.DataFrame(
        {
            "clock": profiles.races[0].clock,
            "over": profiles.over,
            "problems": len(profiles.problems),
            "method": label,
            "factor": factor,
            "share": made.share[a, k],
            "share_low": made.low[a, k],
            "share_high": made.high[a, k],
            "score": made.score[a],
            "score_low": made.score_low[a],
            "score_high": made.score_high[a],
            "repetitions": profiles.repetitions,
        }
        for a, label in enumerate(profiles.labels)
        for k, factor in enumerate(made.factors)
    )


def _cells(profiles):
    made = profiles.profile
    places = [int(np.argmin(np.abs(made.factors - factor))) for factor in SHOWN]
    shown = pd.DataFrame()
    order = sorted(range(len(profiles.labels)), key=lambda a: (-made.score[a], profiles.labels[a]))
    shown["method"] = [profiles.labels[a] for a in order]
    for factor, place in zip(SHOWN, places, strict=True):
        shown[f"within x{factor:g}"] = [_share(made.share, made.low, made.high, (a, place)) for a in order]
    shown["score"] = [_share(made.score, made.score_low, made.score_high, a) for a in order]
    return shown


def _share(middle, low, high, place):
    """A share with its band; 0 is a share like others, not an open end."""
    said = number(float(middle[place]), 2)
    if np.isnan(low[place]):
        return said
    return f"{said} [{number(float(low[place]), 2)}, {number(float(high[place]), 2)}]"


def _notes(profiles):
    yield (
        f"Within xτ: the fraction of the problems on which the method's median time is at most τ times the best "
        f"method's; a miss is beyond any τ. Score: the mean height from 1 to {LIMIT:g}; it depends on the methods "
        "shown, never compare it with that of another report. "
        + (
            f"95 % bands: percentile bootstrap of seeds within each problem, the same for all methods "
            f"({statistics.RESAMPLES} resamples, generator seed 0)."
            if profiles.repetitions >= statistics.BLOCKS
            else f"No bands below {statistics.BLOCKS} seeds a problem."
        )
    )
    yield f"Problems ({len(profiles.problems)}): {'; '.join(profiles.problems)}."
    if profiles.left_out:
        yield f"Left out, because some problem lacks them: {', '.join(profiles.left_out)}."
    for race in profiles.races:
        yield from provenance(race)


def described(profiles):
    """The caption of the figure."""
    best = int(np.argmax(profiles.profile.score))
    ends = interval(profiles.profile.score_low[best], profiles.profile.score_high[best])
    band = "" if np.isnan(profiles.profile.score_low[best]) else f" {ends}"
    return (
        f"Performance profile over {profiles.title}: the fraction of problems on which a method's median time is "
        f"within a factor of the best one's, with its 95 % band. Highest score: {profiles.labels[best]}, "
        f"{number(float(profiles.profile.score[best]), 2)}{band}."
    )
