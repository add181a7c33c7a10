"""The command line: `python -m analysis COMMAND FILES_OR_DIRS...`. Heavy imports wait until they are needed."""

import os
import shlex
import sys
from pathlib import Path

import click

from analysis.errors import InvalidInput

paths = click.argument("paths", metavar="FILES_OR_DIRS...", nargs=-1, required=True)
allow_poor_fidelity = click.option(
    "--allow-poor-fidelity", is_flag=True, help="Show emulated runs that did not keep their modelled pace, too."
)

against = click.option(
    "--base", metavar="NAME", help="Method that the others are compared with.  [default: minibatch_sgd]"
)
form = click.option(
    "--format", "form", type=click.Choice(["markdown", "latex", "csv", "html"]), default="markdown", show_default=True
)
to_file = click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="File to write.  [default: the terminal]"
)

ungated = click.option("--ungated", is_flag=True, help="Show results that do not pass the gates, and say so.")

images = click.option(
    "--figure",
    "figures",
    type=click.Path(dir_okay=False, path_type=Path),
    multiple=True,
    help="File for the figure, .png or .pdf; repeatable.  [default: none]",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main():
    """Tables and figures from result files, and from nothing else."""


@main.command()
@paths
@against
@click.option("--target", "targets", type=float, multiple=True, help="A target to show; repeatable.  [default: all]")
@click.option("--predicted", is_flag=True, help="Add a column with the times that theory predicts.")
@form
@to_file
@allow_poor_fidelity
@ungated
def table(paths, base, targets, predicted, form, out, allow_poor_fidelity, ungated):
    """Time to target of every method: median, interval, success, ratio to a base.

    One table for each experiment, engine and clock in the result files. Results that do not pass the gates of
    `python -m analysis grade` are refused.
    """
    from analysis import grade, tables, typeset
    from analysis.predicted import require as require_predictions
    from analysis.races import load

    races = load(paths, allow_poor_fidelity)
    if predicted:
        require_predictions(races)
    made = [tables.tabulate(race, targets, base) for race in races]
    _refuse_unknown_base(base, made, races)
    warning = grade.refuse(races, made, ungated)
    _show([grade.marked(typeset.sheet(table, predicted), warning) for table in made], form, out)


@main.command("grade")
@paths
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def score(paths, as_json):
    """Score results on the 60 items that make a number credible, with the evidence found for each.

    Exit code 1 where a gate is not passed.
    """
    import json
    from dataclasses import asdict

    from analysis import grade
    from analysis.races import load

    parts = [part for path in map(Path, paths) if path.is_dir() for part in path.rglob("*.h5.part")]
    scores = grade.grade(load(paths, allow_poor_fidelity=True), parts)
    if as_json:
        rows = [asdict(score) for score in scores]
        click.echo(json.dumps({"total": grade.total(scores), "of": grade.MOST, "items": rows}, indent=1))
    else:
        click.echo(grade.markdown(scores), nl=False)
    if any(score.closed for score in scores):
        sys.exit(1)


@main.command()
@click.argument("old", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path))
@allow_poor_fidelity
def drift(old, new, allow_poor_fidelity):
    """What has changed from the results in folder OLD to those in folder NEW, with drift flagged.

    Exit code 1 where something has drifted.
    """
    from analysis import drift
    from analysis.races import load

    found = drift.compare(load([old], allow_poor_fidelity), load([new], allow_poor_fidelity))
    click.echo(drift.markdown(found), nl=False)
    if found.drifted:
        sys.exit(1)


@main.command()
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@paths
@form
@to_file
@allow_poor_fidelity
def compare(a, b, paths, form, out, allow_poor_fidelity):
    """How many times as fast method A is as method B, seed by seed.

    One table for each experiment, engine and clock in the result files that has both.
    """
    from analysis import pairs
    from analysis.races import load

    _show([pairs.sheet(pair) for pair in pairs.load(load(paths, allow_poor_fidelity), a, b)], form, out)


@main.command()
@paths
@against
@form
@to_file
@allow_poor_fidelity
def predicted(paths, base, form, out, allow_poor_fidelity):
    """Seconds per update and times to targets, measured and as theory predicts them.

    One table for each experiment, engine and clock in the result files.
    """
    from analysis import predicted
    from analysis.races import load

    races = load(paths, allow_poor_fidelity)
    predicted.require(races)
    made = [predicted.compare(race, base) for race in races]
    _refuse_unknown_base(base, [comparison.table for comparison in made if comparison.table], races)
    _show([predicted.sheet(comparison) for comparison in made], form, out)


@main.command()
@paths
@click.option("--metric", help="What to draw.  [default: the metric of the targets]")
@click.option(
    "--against",
    "spent",
    type=click.Choice(["seconds", "bytes", "gradients"]),
    default="seconds",
    show_default=True,
    help="What a run spends, on the horizontal axis.",
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    multiple=True,
    default=["curves.png"],
    show_default=True,
    help="File to write, .png or .pdf; repeatable.",
)
@allow_poor_fidelity
def curves(paths, metric, spent, out, allow_poor_fidelity):
    """A metric against time, bytes or gradients: every seed, the median over seeds, and when each run met the target.

    Prints the caption that goes with the figure. One row of panels for each experiment, engine and clock.
    """
    _refuse_other_images(out, "--out")
    from analysis import plots
    from analysis.races import load

    races = load(paths, allow_poor_fidelity)
    figure = plots.figure(races, metric, spent)
    description = plots.description(races, metric, _command(), spent)
    for path in out:
        _write(path, plots.image(figure, path.suffix[1:], description))
        click.echo(f"wrote {path}")
    click.echo(plots.caption(races, metric, spent))


@main.command()
@paths
@form
@to_file
@click.option(
    "--figure",
    "figures",
    type=click.Path(dir_okay=False, path_type=Path),
    multiple=True,
    default=["staleness.png"],
    show_default=True,
    help="File for the histograms, .png or .pdf; repeatable.",
)
@allow_poor_fidelity
def staleness(paths, form, out, figures, allow_poor_fidelity):
    """How stale gradients were: histograms of every method, and a table.

    The table goes to the terminal or to --out, the histograms to --figure; their caption is printed beside (stderr).
    """
    _refuse_other_images(figures, "--figure")
    from analysis import histograms, plots, staleness
    from analysis.races import load

    made = staleness.load(load(paths, allow_poor_fidelity))
    figure = histograms.figure(made)
    description = histograms.description(made, _command())
    for path in figures:
        _write(path, plots.image(figure, path.suffix[1:], description))
        click.echo(f"wrote {path}", err=True)  # the table alone is the output
    click.echo(histograms.caption(made), err=True)
    _show([staleness.sheet(each) for each in made], form, out)


@main.command()
@paths
@click.option(
    "--over",
    type=click.Choice(["experiments", "targets"]),
    help="What the problems are.  [default: experiments, where there are several with the same methods]",
)
@form
@to_file
@images
@allow_poor_fidelity
def profile(paths, over, form, out, figures, allow_poor_fidelity):
    """Performance profiles: on which fraction of the problems a method is within a factor of the best one.

    One table for each clock, or for each experiment where its targets are the problems.
    """
    _refuse_other_images(figures, "--figure")
    from analysis import charts, profiles
    from analysis.races import load

    made = profiles.load(load(paths, allow_poor_fidelity), over)
    caption = "\n".join(map(profiles.described, made))
    races = [race for each in made for race in each.races]
    _draw(figures, lambda: charts.profile_figure(made), races, caption)
    _show([profiles.sheet(each) for each in made], form, out)


@main.command("timeline")
@paths
@click.option("--seed", type=int, help="Whose run to show.  [default: the one with the median time to the target]")
@click.option(
    "--trace",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File for the events as Chrome trace JSON, to open in Perfetto or chrome://tracing.",
)
@form
@to_file
@images
@allow_poor_fidelity
def when(paths, seed, trace, form, out, figures, allow_poor_fidelity):
    """When each rank computed, communicated and was idle, from the events of one run of each method.

    Runs record events with record_events = true in their experiment; of others the table has the seconds of steps.
    """
    _refuse_other_images(figures, "--figure")
    import json

    from analysis import charts, steps, timeline
    from analysis.races import load

    races = load(paths, allow_poor_fidelity)
    if not (trace or figures or seed is not None) and not any(map(timeline.has_events, races)):
        _show([steps.sheet(each) for each in steps.load(races)], form, out)
        click.echo("no events: with --set experiment.record_events=true there is a timeline of each rank", err=True)
        return
    lines = timeline.load(races, seed)
    if trace:
        _write(trace, json.dumps(timeline.chrome(lines) | {"command": _command()}).encode())
        click.echo(f"wrote {trace}", err=True)
    races = list(dict.fromkeys(line.race for line in lines))
    _draw(figures, lambda: charts.timeline_figure(lines), races, charts.timeline_caption(lines))
    _show([*timeline.sheets(lines), *(steps.sheet(each) for each in steps.load(races))], form, out)


@main.command("bytes")
@paths
@form
@to_file
@allow_poor_fidelity
def traffic(paths, form, out, allow_poor_fidelity):
    """The byte ledger: bits as papers count them, serialised bytes, bytes for MPI, and of the network card.

    One table for each experiment, engine and clock in the result files.
    """
    from analysis import ledger
    from analysis.races import load

    _show([ledger.sheet(each) for each in ledger.load(load(paths, allow_poor_fidelity))], form, out)


@main.command("links")
@paths
@form
@to_file
@images
@allow_poor_fidelity
def link_map(paths, form, out, figures, allow_poor_fidelity):
    """The link map: what went over each directed edge, and how long messages were under way there."""
    _refuse_other_images(figures, "--figure")
    from analysis import charts, links
    from analysis.races import load

    made = links.load(load(paths, allow_poor_fidelity))
    races = [each.race for each in made]
    _draw(figures, lambda: charts.links_figure(made), races, charts.links_caption(made))
    _show([links.sheet(each) for each in made], form, out)


@main.command()
@paths
@form
@to_file
@allow_poor_fidelity
def network(paths, form, out, allow_poor_fidelity):
    """What the ranks of network methods did: consensus, participation, ages of what they heard, traffic.

    One table for each experiment, engine and clock in the result files.
    """
    from analysis import network
    from analysis.races import load

    _show([network.sheet(each) for each in network.load(load(paths, allow_poor_fidelity))], form, out)


def _draw(paths, figure, races, caption):
    """Write the figure that `figure` makes to these paths, and say its caption beside the table (stderr)."""
    if not paths:
        return
    from analysis import charts, plots

    drawn, description = figure(), charts.description(races, caption, _command())
    for path in paths:
        _write(path, plots.image(drawn, path.suffix[1:], description))
        click.echo(f"wrote {path}", err=True)  # the table alone is the output
    click.echo(caption, err=True)


@main.command()
@paths
@against
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default="report.html",
    show_default=True,
    help="The page; beside it <name>-table.tex, -table.csv, -curves.pdf, -profile.pdf and -timeline.pdf.",
)
@allow_poor_fidelity
@ungated
def report(paths, base, out, allow_poor_fidelity, ungated):
    """One HTML file with all of it: question and verdict, tables, figures to zoom, provenance, how to make it again.

    It needs no network and no other file. Beside it lie the table for LaTeX and the figures as PDF.
    """
    if out.suffix not in (".html", ".htm"):
        raise InvalidInput(f"--out {out} must end in .html")
    from analysis import grade
    from analysis.races import load
    from analysis.report import page

    races = load(paths, allow_poor_fidelity)
    if base:
        _refuse_unknown_method(base, races)
    made = page.Material(races, base)
    warning = grade.refuse(races, list(made.tables.values()), ungated)
    text, beside = page.build(made, _command(), warning), page.beside(made, _command())
    for suffix, content in beside.items():
        _write(out.with_name(out.stem + suffix), content)
    _write(out, text.encode())
    click.echo(f"wrote {out} and beside it {', '.join(out.stem + suffix for suffix in beside)}")


def _refuse_other_images(paths, option):
    for path in paths:
        if path.suffix not in (".png", ".pdf"):
            raise InvalidInput(f"{option} {path} must end in .png or .pdf")


def _refuse_unknown_base(base, made, races):
    """`made` are the tables of the races."""
    if base and not any(table.base for table in made):
        _refuse_unknown_method(base, races)


def _refuse_unknown_method(base, races):
    from analysis import tables

    if not any(tables.named(race, base) for race in races):
        labels = sorted({method.label for race in races for method in race.methods})
        raise InvalidInput(f"{base} is no method in these files; they hold {'; '.join(labels)}")


def _show(made, form, out):
    """The sheets in this form, in the file `out` or on the terminal."""
    from analysis import sheets

    text = sheets.FORMS[form](made, _command())
    if out:
        _write(out, text.encode())
    else:
        click.echo(text, nl=False)


def _command():
    """The command as it was given, to be typed again."""
    return shlex.join(["python", "-m", "analysis", *sys.argv[1:]])


def _write(path, content):
    """Write all of it or nothing; what a former call wrote is replaced."""
    beside = path.with_name(path.name + ".new")
    try:
        beside.write_bytes(content)
        os.replace(beside, path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        if isinstance(error, (FileNotFoundError, NotADirectoryError, PermissionError)):
            raise InvalidInput(f"cannot write {path}: {error.strerror}; give --out a folder that exists") from error
        raise click.ClickException(f"cannot write {path}: {error.strerror}") from error  # exit code 1: a full disk


def run():
    """The command line with its exit codes: 0, 1 for a failure, 2 for wrong usage or unreadable files."""
    try:
        main(prog_name="python -m analysis")
    except InvalidInput as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    run()
