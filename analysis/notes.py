"""What is said beside every table and figure of a race: its pace, its failed and replaced runs, its input files."""

import math

from analysis.rounding import number


def provenance(race):
    """Sentences about the runs of `race` that a reader of its numbers must know."""
    if race.clock == "emulated":
        yield pace(race)
    if biased := [method.label for method in race.methods if method.biased]:
        yield (
            f"BIASED: {'; '.join(biased)}. The objectives of workers differ here; these methods are for equal ones: "
            "some workers, mostly the fast ones, weigh more, which shifts the limit unless all workers have the same."
        )
    yield from stated(race)
    if fast := [f"{method.label} seed {run.seed}" for method in race.methods for run in method.runs if run.implausible]:
        yield f"FLAGGED, faster than theory allows: {'; '.join(fast)}. Look for the error before you believe it."
    failed = [(method, run) for method in race.methods for run in method.runs if run.stopped_from_outside]
    if failed:
        yield f"Failed, in no number here: {'; '.join(_failure(method, run) for method, run in failed)}."
    if race.superseded:
        runs = "; ".join(f"{run.name} seed {run.seed} run {run.run_id}" for run in race.superseded)
        yield f"Superseded by a newer run of the same cell and seed, in no number here: {runs}."
    if race.copies:
        yield f"Copies of a file, counted once: {', '.join(run.path.name for run in race.copies)}."


def stated(race):
    """What the experiment says of itself: what is held constant and shown, how targets were fixed, limitations."""
    said = next((run.resolved.get("measuring") or {} for run in race.runs), {})
    if said.get("held_constant"):
        scaling = said.get("scaling", "none")
        of = "" if scaling == "none" else f" ({scaling} scaling)"
        yield f"What is held constant{of}: {'; '.join(said['held_constant'])}."
    if said.get("shown"):
        yield f"Shown: {said['shown']}"
    if said.get("targets_from"):
        yield f"Targets: {said['targets_from']}"
    if said.get("limitations"):
        yield f"Limitations: {' '.join(said['limitations'])}"


def pace(race):
    """How well emulated runs kept their modelled pace."""
    runs = [run for run in race.runs if run.complete]
    scales = sorted({run.fidelity.get("time_scale", math.nan) for run in runs}) or [math.nan]
    worst = max((run.fidelity.get("lateness_max_seconds", math.nan) for run in runs), default=math.nan)
    poor = sum(run.poor_fidelity for run in runs)
    scale = " to ".join(number(scale) for scale in dict.fromkeys((scales[0], scales[-1])))
    said = f"; POOR FIDELITY: {poor} of {len(runs)} runs did not keep the modelled pace" if poor else ""
    return f"Emulated: time_scale {scale}, worst lateness {number(worst * 1e3)} ms{said}."


def inputs(race):
    """The first 12 digits of the SHA-256 of every file behind the race, by method and seed."""
    files = "; ".join(
        f"{method.label} " + ", ".join(f"{run.seed}:{run.digest[:12]}" for run in method.runs)
        for method in race.methods
    )
    return f"SHA-256 of the inputs, by seed: {files}."


def _failure(method, run):
    reason = run.outcome if run.complete else "incomplete file"
    if run.failed_checks:
        reason = f"failed its check: {', '.join(run.failed_checks)}"
    return f"{method.label} seed {run.seed} ({reason}{': ' if run.error else ''}{run.error})"
