"""All of a report: the page, and what lies beside it for a paper."""

import base64
import gzip
import json
import re
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from analysis import (
    agreement,
    charts,
    ledger,
    links,
    network,
    plots,
    predicted,
    profiles,
    sheets,
    staleness,
    tables,
    timeline,
    typeset,
)
from analysis.errors import InvalidInput
from analysis.notes import provenance
from analysis.report import facts, figures, verdict

HERE = Path(__file__).parent
INTERVAL = re.compile(r"^(.*\S)\s+(\[[^\]]*\])$")


@dataclass(frozen=True, eq=False)
class Block:
    """A part of a section: a figure or none, tables, and a sentence for where there is nothing to show."""

    key: str
    heading: str
    figure: figures.Figure | None = None
    sheets: tuple = ()
    lead: str = ""
    folded: bool = False  # whether the tables are shown only when asked for


@dataclass(frozen=True, eq=False)
class Section:
    """All that is said of one race; `verdict` is None where its experiment names no target."""

    key: str
    race: object
    verdict: verdict.Verdict | None
    blocks: tuple[Block, ...]
    limits: tuple[str, ...]
    facts: tuple = ()
    look: dict = field(default_factory=dict)

    @property
    def chips(self):
        """What must be seen at first sight."""
        runs = self.race.runs
        seeds = len({run.seed for run in runs})
        return (
            f"{self.race.clock} clock",
            {"mpi": "real ranks over MPI", "simulation": "simulation"}[self.race.engine],
            f"{runs[0].workers} workers",
            f"{seeds} seed{'s' * (seeds > 1)}",
            f"{len(self.race.methods)} method{'s' * (len(self.race.methods) > 1)}",
        )


def build(races, command, base=None):
    """The page of these races, as text."""
    sections = [_section(f"s{place}", race, base) for place, race in enumerate(races)]
    across = _across(races)
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            title=_title(sections),
            sections=sections,
            across=[*across, *_engines(races)],
            command=command,
            style=Markup((HERE / "style.css").read_text(encoding="utf-8")),
            script=Markup((HERE / "report.js").read_text(encoding="utf-8")),
            plotly=Markup(_plotly()),
            picture=Markup(_picture(races)),
        )
    )


def of_sheets(made, command):
    """A page of tables alone."""
    return (
        _environment()
        .get_template("tables.html.j2")
        .render(
            sheets=made,
            looks=[figures.looks([method.label for method in sheet.race.methods]) for sheet in made],
            command=command,
            style=Markup((HERE / "style.css").read_text(encoding="utf-8")),
        )
    )


def _title(sections):
    names = list(dict.fromkeys(section.race.experiment for section in sections))
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if names[4:] else "")


def _section(key, race, base):
    look = figures.looks([method.label for method in race.methods])
    table = tables.tabulate(race, base=base) if race.targets else None
    said = verdict.of_table(table) if table else None
    blocks = [
        *([_times(key, table, look)] if table else []),
        _curves(key, race, look),
        *([_profile(key, race, look)] if table and len(race.methods) > 1 else []),
        _theory(key, race, base),
        _when(key, race, look),
        _staleness(key, race, look),
        *_traffic(key, race),
        *_ranks(key, race),
    ]
    limits = (
        said.limits if said else (verdict.CLOCKS[race.clock], "This experiment names no target: no time is compared.")
    )
    said_of_runs = [sentence for sentence in provenance(race) if sentence.startswith(("Emulated", "BIASED"))]
    limits = (limits[0], *said_of_runs, *limits[1:])
    return Section(key, race, said, tuple(filter(None, blocks)), tuple(limits), tuple(facts.of_race(race)), look)


def _times(key, table, look):
    sheet = typeset.sheet(table, predicted=bool(table.rows["predicted_seconds"].notna().any()))
    return Block(f"{key}-times", "Time to target", figures.times(f"{key}-times", table, look), (sheet,))


def _curves(key, race, look):
    metric = race.targets.metric if race.targets else next(iter(sorted(race.runs[0].better)), None)
    figure = metric and figures.curves(f"{key}-curves", race, metric, look, race.targets)
    if not figure:
        return Block(f"{key}-curves", "Curves", lead="Every run failed before it was evaluated; there is no curve.")
    return Block(f"{key}-curves", f"{metric.replace('_', ' ').capitalize()} over the run", figure)


def _profile(key, race, look):
    try:
        (made,) = profiles.load([race], "targets")
    except InvalidInput:
        return None
    if len(made.problems) < 2:
        return None
    figure = figures.profile(f"{key}-profile", made, look)
    return Block(f"{key}-profile", "Performance profile over the targets", figure, (profiles.sheet(made),))


def _theory(key, race, base):
    if not any(run.prediction for run in race.runs):
        lead = "These files hold no prediction: there is no formula for these methods, or they are of an older version."
        return Block(f"{key}-theory", "Beside theory", lead=lead)
    return Block(f"{key}-theory", "Beside theory", sheets=(predicted.sheet(predicted.compare(race, base)),))


def _when(key, race, look):
    heading = "Where the time went"
    try:
        lines = timeline.load([race])
    except InvalidInput:
        figure = figures.busy(f"{key}-timeline", race, look)
        lead = "No run recorded events; with --set experiment.record_events=true there is a timeline of each rank here."
        return Block(f"{key}-timeline", heading, figure, lead=lead)
    lines = lines[: figures.MOST_METHODS]
    return Block(
        f"{key}-timeline",
        heading,
        figures.timelines(f"{key}-timeline", lines),
        tuple(timeline.sheets(lines)),
        folded=True,
    )


def _staleness(key, race, look):
    try:
        (made,) = staleness.load([race])
    except InvalidInput:
        return None
    figure = figures.staleness(f"{key}-staleness", made, look)
    return Block(f"{key}-staleness", "Staleness of gradients", figure, (staleness.sheet(made),))


def _traffic(key, race):
    try:
        (made,) = ledger.load([race])
        yield Block(f"{key}-bytes", "Bytes", sheets=(ledger.sheet(made),))
        (made,) = links.load([race])
    except InvalidInput:
        return
    yield Block(f"{key}-links", "Links", figures.link_map(f"{key}-links", made), (links.sheet(made),), folded=True)


def _ranks(key, race):
    try:
        (made,) = network.load([race])
    except InvalidInput:
        return
    yield Block(f"{key}-network", "Ranks of network methods", sheets=(network.sheet(made),))


def _across(races):
    """Profiles over several experiments of one clock, where there are such."""
    if len(races) < 2:
        return []
    try:
        made = [each for each in profiles.load(races) if each.over == "experiments"]
    except InvalidInput:
        return []
    return [
        Block(
            f"across-{each.races[0].clock}",
            f"Performance profile: {each.title}",
            figures.profile(f"across-{each.races[0].clock}", each, figures.looks(each.labels)),
            (profiles.sheet(each),),
        )
        for each in made
    ]


def _engines(races):
    """What the simulation says of an experiment beside what real ranks did, where files hold both."""
    same = {}
    for race in races:
        same.setdefault((race.experiment, race.setting), {})[race.clock] = race
    for place, by_clock in enumerate(same.values()):
        virtual = by_clock.pop("virtual", None)
        for other in by_clock.values():
            rows = agreement.rows(virtual, other) if virtual else ()
            if len(rows):
                yield Block(
                    f"engines-{place}-{other.clock}",
                    f"Simulation beside real ranks: {virtual.experiment}",
                    sheets=(agreement.sheet(virtual, other),),
                )


def _environment():
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"cell": _cell, "json": _json, "slug": _slug, "groups": _groups, "tied": _tied}
    return environment


def _cell(text):
    """A cell, its interval set apart."""
    parts = INTERVAL.match(str(text))
    if not parts:
        return escape(text)
    return Markup('{} <span class="interval">{}</span>').format(parts[1], parts[2])


def _tied(text):
    """A sentence whose relations, numbers with units, and intervals no line breaks."""
    text = re.sub(r"\[[^\]]*\]", lambda bracket: bracket[0].replace(" ", "\u00a0"), text)
    text = re.sub(r"(?<=\d) (?=(s|ms|MB|%|pairs|runs|seeds|workers)\b)", "\u00a0", text)
    return re.sub(r" ([=≤≥]) ", "\u00a0\\1\u00a0", text)


def _slug(name):
    """A column's name as a class."""
    return re.sub(r"[^a-z0-9]+", "-", str(name).lower()).strip("-")


def _groups(frame):
    """The rows of a frame as lists of dicts, one list for each target, or one for all."""
    if "target" not in frame:
        return [frame.to_dict("records")]
    return [group.to_dict("records") for _, group in frame.groupby("target", sort=False)]


def _json(value):
    """JSON that may stand in a script element."""
    return Markup(json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False).replace("<", "\\u003c"))


@cache
def _plotly():
    """plotly's script, packed; its Python package brings it, and nothing else of that is used."""
    found = find_spec("plotly")
    script = Path(found.submodule_search_locations[0], "package_data", "plotly.min.js") if found else None
    if script is None or not script.is_file():
        raise InvalidInput("a report needs plotly's script; install it with `pip install plotly`")
    return base64.b64encode(gzip.compress(script.read_bytes(), 9, mtime=0)).decode()


def _picture(races):
    """The curves as a picture, for readers without scripts, as the data of an image; empty where there is none."""
    try:
        content = plots.image(plots.figure(races[:4]), "png", "curves", dpi=110)
    except InvalidInput:
        return ""
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def beside(races, command, base=None):
    """What a paper needs, {suffix: bytes}: the table as LaTeX and CSV, and the figures as PDF."""
    made = [tables.tabulate(race, base=base) for race in races if race.targets]
    files = {}
    if made:
        shown = [typeset.sheet(table, bool(table.rows["predicted_seconds"].notna().any())) for table in made]
        files["-table.tex"] = sheets.latex(shown, command).encode()
        files["-table.csv"] = sheets.csv(shown, command).encode()
    for name, draw in {"curves": _curves_figure, "profile": _profile_figure, "timeline": _timeline_figure}.items():
        try:
            figure, text = draw(races, command)
        except InvalidInput:
            continue
        files[f"-{name}.pdf"] = plots.image(figure, "pdf", text)
    return files


def _curves_figure(races, command):
    return plots.figure(races), plots.description(races, None, command)


def _profile_figure(races, command):
    made = profiles.load(races)
    of = [race for each in made for race in each.races]
    return charts.profile_figure(made), charts.description(of, "\n".join(map(profiles.described, made)), command)


def _timeline_figure(races, command):
    lines = timeline.load(races)[: figures.MOST_METHODS]
    of = list(dict.fromkeys(line.race for line in lines))
    return charts.timeline_figure(lines), charts.description(of, charts.timeline_caption(lines), command)
