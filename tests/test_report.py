"""The report: its verdicts, its numbers, what it refuses, and how it looks to a browser."""

import html
import json
import math
import re
import shlex
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import h5py
import numpy as np
import pytest
from browser import CHROMIUM, Browser
from click.testing import CliRunner
from test_analysis import meets, refused, write
from test_timeline import record

from analysis import races, tables
from analysis.__main__ import main
from analysis.report import figures, page, verdict
from analysis.rounding import number

ROOT = Path(__file__).parent.parent
TIMES = [1.0, 1.3, 1.1, 1.9, 1.5, 1.2, 1.7, 1.4, 1.6, 1.8]
EMULATED = {
    "engine": "mpi",
    "clock": "emulated",
    "fidelity": {"good": 1, "time_scale": 2.0, "lateness_max_seconds": 0.001},
}


class Cells(HTMLParser):
    """The cells of all tables of a page: a list of tables of rows of texts."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.open = [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag == "table":
            self.tables.append([])
        elif tag == "tr" and self.tables:
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self.open = True

    def handle_endtag(self, tag):
        self.open = self.open and tag not in ("td", "th")

    def handle_data(self, data):
        if self.open:
            self.tables[-1][-1][-1] += data


def race(folder, hits, others=None, **different):
    meets(folder, hits, algorithm="ringmaster", **different)
    if others is not None:
        meets(folder, others, algorithm="minibatch_sgd", **different)


def the_verdict(folder):
    (only,) = races.load([folder])
    return verdict.of_table(tables.tabulate(only))


def built(folder, allow_poor_fidelity=False):
    """The page of the files in a folder."""
    return page.build(page.Material(races.load([folder], allow_poor_fidelity)), "the command")


def text_of(page_text):
    """What can be read of a page."""
    without = re.sub(r"(?s)<(script|style)\b.*?</\1>", "", page_text)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", without)).split())


# verdicts


def test_who_is_first_is_said(tmp_path):
    race(tmp_path, TIMES, [3 * t for t in TIMES])
    said = the_verdict(tmp_path)
    assert said.question == "Which of 2 methods is first to reach loss ≤ 0.1 with 8 workers?"
    assert said.answer == "ringmaster is first."
    assert said.because == (
        "ringmaster against minibatch_sgd: x3 [3, 3], wins 10 of 10, p = 0.002 (Holm, m = 1), n = 10 pairs.",
    )


def test_no_difference_is_a_verdict(tmp_path):
    race(tmp_path, TIMES, TIMES[::-1])
    assert "no difference to any other method is shown" in the_verdict(tmp_path).answer


def test_who_is_ahead_of_some(tmp_path):
    race(tmp_path, TIMES, [3 * t for t in TIMES])
    meets(tmp_path, TIMES[::-1], algorithm="async_sgd")
    answer = the_verdict(tmp_path).answer
    assert answer.endswith("are ahead; between them no difference is shown.")
    assert "async_sgd" in answer and "ringmaster" in answer and "minibatch_sgd" not in answer


@pytest.mark.parametrize(
    ("n", "answer", "limit"),
    [
        (1, "Not to be said from one seed. ringmaster was first in them.", "One run: no median"),
        (4, "Not to be said from 4 seeds.", "4 runs: no median"),
        (5, "Not to be said from 5 seeds. ringmaster has the lowest median.", "no 95 % interval of a median exists"),
        (6, "ringmaster is first.", "no interval of a ratio of medians"),
    ],
)
def test_few_seeds_say_what_cannot_be_claimed(tmp_path, n, answer, limit):
    race(tmp_path, TIMES[:n], [3 * t for t in TIMES[:n]])
    said = the_verdict(tmp_path)
    assert said.answer.startswith(answer)
    assert any(limit in sentence for sentence in said.limits)
    assert limit in text_of(built(tmp_path)).replace("\u00a0", " ")


def test_no_run_reached_the_target(tmp_path):
    race(tmp_path, [None] * 10, [None] * 10)
    assert the_verdict(tmp_path).answer == "None: no run reached loss ≤ 0.1."
    shown = text_of(built(tmp_path))
    assert "0/10 [0, 0.31]" in shown and "> 100" in shown, "success and what an expected running time exceeds"


def test_with_misses_success_and_survival_are_printed(tmp_path):
    race(tmp_path, [*TIMES[:7], None, None, None], TIMES)
    shown = text_of(built(tmp_path))
    assert "survival median" in shown and "7/10" in shown and "Misses count: ringmaster 3 of 10" in shown


def test_every_run_failed(tmp_path):
    for seed in range(3):
        write(tmp_path, [2.0], [0.0], seed=seed, outcome="fault", error="the node went away")
    assert the_verdict(tmp_path).answer == "Nothing can be said: every run was stopped from outside."
    assert "the node went away" in text_of(built(tmp_path))


def test_an_experiment_without_targets_has_a_page(tmp_path):
    write(tmp_path, [2.0, 0.1], targets=None)
    assert "no race to decide" in text_of(built(tmp_path))


def test_marks_that_coincide_are_set_apart_inside_their_lane():
    for count in (2, 11, 100):
        heights = figures._apart([1.0] * count, 3)
        assert len(set(heights)) == count and max(abs(height - 3) for height in heights) <= 0.25
    assert figures._apart([1.0, 2.0], 0) == [0.0, 0.0]


def test_no_median_is_drawn_of_four_runs(tmp_path):
    for n in (4, 5):
        race(tmp_path / str(n), TIMES[:n])
        (only,) = races.load([tmp_path / str(n)])
        made = figures.times("x", tables.tabulate(only), figures.looks(["ringmaster"])).views[0]
        medians = [trace for trace in made["data"] if trace.get("marker", {}).get("symbol") == "line-ns-open"]
        assert len(medians) == (n == 5) and (" s, " in made["layout"]["annotations"][0]["text"]) == (n == 5)


# numbers


def test_the_printed_command_makes_the_same_page_to_the_last_byte(tmp_path):
    race(tmp_path, TIMES, [2 * t for t in TIMES])
    for path in tmp_path.rglob("*.h5"):
        record(path)
    arguments = ["report", str(tmp_path), "--ungated", "--out", str(tmp_path / "page.html")]
    done = subprocess.run([sys.executable, "-m", "analysis", *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ends = (".html", "-table.tex", "-table.csv", "-curves.pdf", "-profile.pdf", "-timeline.pdf")
    names = [f"page{end}" for end in ends]
    first = {name: (tmp_path / name).read_bytes() for name in names}
    command = html.unescape(re.search(r'<code id="command">(.*?)</code>', first["page.html"].decode())[1])
    for name in names:
        (tmp_path / name).unlink()
    subprocess.run([sys.executable, *shlex.split(command)[1:]], cwd=ROOT, check=True, capture_output=True)
    assert {name: (tmp_path / name).read_bytes() for name in names} == first


def test_every_time_in_the_table_is_that_of_the_files(tmp_path):
    """Read without `analysis`: first snapshot at or past the target, lower median, order statistics 2 and 9 of 10."""
    race(tmp_path, TIMES, [None if k == 3 else 2.3 * t for k, t in enumerate(TIMES)])
    shown = {}
    times_table = Cells(built(tmp_path)).tables[0]
    target = None
    for row in times_table[1:]:
        target, row = (row[0], row[1:]) if len(row) == len(times_table[0]) else (target, row)
        shown[target, row[0].strip()] = row[1]
    assert len(shown) == 6
    for label in ("ringmaster", "minibatch_sgd"):
        for value in (1.0, 0.1, 0.01):
            found = []
            for path in tmp_path.rglob(f"{label}-*/*.h5"):
                with h5py.File(path, "r") as file:
                    met = np.flatnonzero(file["trace/loss"][()] <= value)
                    found.append(file["trace/time"][met[0]] if met.size else math.inf)
            t = sorted(found)
            star = " *" if value == 0.1 else ""
            high = number(t[8]) if math.isfinite(t[8]) else "open"
            assert shown[f"≤ {value:g}{star}", label] == f"{number(t[4])} [{number(t[1])}, {high}]"


def test_the_page_carries_the_hash_of_every_input(tmp_path):
    race(tmp_path, TIMES[:3], TIMES[:3])
    text = built(tmp_path)
    for run in races.load([tmp_path])[0].runs:
        assert run.digest in text and run.path.name in text


def test_a_page_needs_nothing_else(tmp_path):
    race(tmp_path, TIMES, TIMES)
    text = built(tmp_path)
    own = text.replace(page._plotly(), "")
    assert "default-src 'none'" in own
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", own) and "@import" not in own
    for data in re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', own, re.DOTALL):
        assert all(view["data"] for view in json.loads(data))
    assert len(text) < 4e6


def test_names_are_escaped(tmp_path):
    write(tmp_path, [2.0, 0.1], label="<script>alert(1)</script>")
    text = built(tmp_path)
    assert "<script>alert" not in text and "&lt;script&gt;alert(1)" in text


def test_clocks_are_labelled_and_never_pooled(tmp_path):
    race(tmp_path, TIMES, [2 * t for t in TIMES])
    race(tmp_path, TIMES, [2 * t for t in TIMES], **EMULATED)
    text = built(tmp_path)
    assert text.count('class="clock virtual"') >= 2 and text.count('class="clock emulated"') >= 2
    heads = [cells[0] for cells in Cells(text).tables]
    assert any("virtual seconds" in head for head in heads) and any("emulated seconds" in head for head in heads)
    both = [head for head in heads if "virtual seconds" in head and "emulated seconds" in head]
    assert len(both) == 1 and "same events" in both[0], "side by side, labelled, in the one table about that"


def test_poor_fidelity_is_refused_unless_told(tmp_path):
    poor = EMULATED | {"fidelity": {"good": 0, "time_scale": 1.0}}
    race(tmp_path, TIMES, **poor)
    assert "did not keep their emulated pace" in refused("report", tmp_path, "--out", tmp_path / "x.html")
    assert not (tmp_path / "x.html").exists()
    assert "POOR FIDELITY" in text_of(built(tmp_path, allow_poor_fidelity=True))


def test_what_an_experiment_says_of_itself_is_on_the_page(tmp_path):
    with h5py.File(write(tmp_path, [2.0, 0.1]), "r+") as file:
        said = {"limitations": ["the network is shared"], "shown": "all there are", "held_constant": ["8 workers"]}
        file["config/measuring"] = json.dumps(said)
    text = text_of(built(tmp_path))
    limits = text[text.index("What cannot be claimed") : text.index("Time to target")]
    assert "the network is shared" in limits
    assert "why these, and no others all there are" in text and "held constant 8 workers" in text


def test_results_that_do_not_pass_the_gates_carry_the_reason(tmp_path):
    race(tmp_path, TIMES, TIMES)
    out = tmp_path / "x.html"
    assert "may not be published" in refused("report", tmp_path, "--out", out)
    done = CliRunner().invoke(main, ["report", str(tmp_path), "--ungated", "--out", str(out)])
    assert done.exit_code == 0 and 'role="alert">UNGATED' in out.read_text(encoding="utf-8")


def test_a_failed_check_stands_beside_the_verdict(tmp_path):
    with h5py.File(write(tmp_path, [2.0, 0.1]), "r+") as file:
        file["checks/name"], file["checks/passed"] = ["oracle", "mass", "band"], [1, 0, -1]
    assert "CHECKS of runs: 1 passed, 1 not decided, FAILED: mass." in text_of(built(tmp_path))


def test_pages_of_tables_alone(tmp_path):
    race(tmp_path, TIMES, [2 * t for t in TIMES])
    done = CliRunner().invoke(main, ["table", str(tmp_path), "--ungated", "--format", "html"])
    assert done.exit_code == 0, done.output
    assert Cells(done.output).tables[0][0][:3] == ["target", "method", "virtual seconds"]


# wrong input


def test_wrong_files_are_refused_in_a_sentence(tmp_path):
    good = write(tmp_path / "good", [2.0, 0.1])
    cases = {}
    cases["cannot be read as an HDF5 file"] = tmp_path / "truncated.h5"
    cases["cannot be read as an HDF5 file"].write_bytes(good.read_bytes()[:3000])
    cases["is no result file of mpibench"] = tmp_path / "foreign.h5"
    with h5py.File(cases["is no result file of mpibench"], "w") as file:
        file["x"] = 1
    cases["newer than 1"] = write(tmp_path / "newer", [2.0, 0.1], schema=2)
    for sentence, path in cases.items():
        said = refused("report", path, "--out", tmp_path / "x.html")
        assert sentence in said and str(path) in said
        assert not list(tmp_path.glob("x*"))


def test_copies_count_once_and_impostors_are_refused(tmp_path):
    path = write(tmp_path, [2.0, 0.1])
    shutil.copy(path, tmp_path / "copy.h5")
    (only,) = races.load([tmp_path])
    assert len(only.runs) == 1 and len(only.copies) == 1
    assert "Copies of a file, counted once" in text_of(built(tmp_path))
    with h5py.File(tmp_path / "copy.h5", "r+") as file:
        file.attrs["seconds"] = 7.0
    assert "claim to be the same run" in refused("report", tmp_path, "--out", tmp_path / "x.html")


def test_a_page_has_the_end_of_its_name(tmp_path):
    write(tmp_path, [2.0, 0.1])
    assert "must end in .html" in refused("report", tmp_path, "--out", tmp_path / "x.pdf")


def test_without_plotly_a_sentence(tmp_path, monkeypatch):
    write(tmp_path, [2.0, 0.1])
    page._plotly.cache_clear()
    monkeypatch.setattr(page, "find_spec", lambda name: None)
    assert "pip install plotly" in refused("report", tmp_path, "--ungated", "--out", tmp_path / "x.html")
    page._plotly.cache_clear()


# in a browser

PROBE = """(async () => {
  const wait = (ms) => new Promise((done) => setTimeout(done, ms));
  while (document.documentElement.dataset.ready !== "true") await wait(20);
  for (const place of document.querySelectorAll(".plot")) {
    place.scrollIntoView();
    while (!place.querySelector(".main-svg")) await wait(20);
  }
  for (const button of document.querySelectorAll(".views button")) { button.click(); await wait(10); }
  for (const details of document.querySelectorAll("details")) details.open = true;
  await wait(100);
  const all = (which) => [...document.querySelectorAll(which)];
  return {
    width: innerWidth,
    page: document.documentElement.scrollWidth,
    plots: all(".plot").length,
    wide: all(".plot .svg-container").filter((e) => e.getBoundingClientRect().right > innerWidth).length,
    unnamed: all(".plot, .scroll, button").filter((e) => !(e.getAttribute("aria-label") || e.textContent)).length,
    pressed: all(".views").every((e) => e.querySelectorAll("[aria-pressed=true]").length === 1),
    small: all(".views button").filter((e) => e.getBoundingClientRect().height < 34).length,
  };
})()"""
WINDOWS = {"phone": (390, 844), "desktop": (1280, 900)}


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """What a browser says of a page with all kinds of figures in each window, its console, and the page's text."""
    if CHROMIUM is None:
        pytest.skip("no Chromium here; `make chromium` installs it where apt-get and root are")
    folder = tmp_path_factory.mktemp("seen")
    race(folder, TIMES, [*(2 * t for t in TIMES[:8]), None, None])
    race(folder, TIMES, [2 * t for t in TIMES], **EMULATED)
    for path in folder.rglob("*.h5"):
        record(path)
        with h5py.File(path, "r+") as file:
            file["updates/staleness_histogram"] = [5, 3, 1]
            file["updates/staleness_histogram"].attrs["open"] = 0
    text = built(folder)
    (folder / "page.html").write_text(text, encoding="utf-8")
    said = {}
    with Browser(folder / "profile") as browser:
        for name, size in WINDOWS.items():
            browser.show((folder / "page.html").as_uri(), *size, dark=name == "desktop", phone=name == "phone")
            said[name] = browser.evaluate(PROBE)
        return said, browser.console, text


def test_the_console_of_a_browser_stays_empty(seen):
    _, console, _ = seen
    assert console == []


@pytest.mark.parametrize("window", WINDOWS)
def test_nothing_is_wider_than_the_window(seen, window):
    said = seen[0][window]
    assert said["width"] == WINDOWS[window][0], "the viewport is not widened to what does not fit"
    assert said["page"] <= said["width"] and said["wide"] == 0


@pytest.mark.parametrize("window", WINDOWS)
def test_every_figure_is_drawn_and_named(seen, window):
    said = seen[0][window]
    assert said["plots"] == seen[2].count('class="plot"') >= 10
    assert said["unnamed"] == said["small"] == 0 and said["pressed"]
