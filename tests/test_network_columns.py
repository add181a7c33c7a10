"""What the ranks of network methods did: consensus, participation, ages and traffic against values by hand."""

import io
import math
import sys

import h5py
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from test_analysis import refused, write

from analysis import __main__ as command_line
from analysis import network, plots, races, sheets
from analysis.read import read
from mpibench import campaign, experiment
from mpibench.runner import simulate

AGES = ("source", "destination", "count", "age_sum", "age_max", "seconds_sum", "seconds_max")


def peers(folder, *, seed=0, consensus=None, gradients=(4, 4), sent=(1e6, 3e6), lost=None, ages=(), **different):
    """A result file of a network method whose loss meets 0.1 in its third snapshot, unless `values` say otherwise.

    consensus: at each of the four snapshots; gradients, sent (bytes) and lost (messages, of 100 each) by rank; ages:
    rows of AGES, the last two of which older files have not.
    """
    values = different.pop("values", [2.0, 1.0, 0.1, 0.05])
    path = write(folder, values, seed=seed, ranks=len(gradients), workers=len(gradients), **different)
    with h5py.File(path, "a") as file:
        file["ranks/gradients"] = gradients
        file["ranks/bytes_sent"] = np.array(sent, int)
        file["ranks/messages_sent"] = [100] * len(gradients)
        if lost is not None:
            file["ranks/messages_lost"] = lost
        if consensus is not None:
            file["trace/consensus"] = consensus
            file["trace/consensus"].attrs["direction"] = "lower"
        for name, column in zip(AGES, np.array(ages).T if len(ages) else (), strict=False):
            file[f"ages/{name}"] = column
    return path


def the_network(folder):
    (made,) = network.load(races.load([folder]))
    return made


def row(made, method="r_fast"):
    (found,) = [r for _, r in made.rows.iterrows() if r.method == method]
    return found


def cells(made, method="r_fast", frame=0):
    shown = network.sheet(made).frames[frame]
    return shown[shown["method"] == method].iloc[0].to_dict()


def test_a_run_by_hand(tmp_path):
    """Ranks with 2, 4 and 9 gradients: mean 5. Edges with 10 ages of sum 20 and of sum 5, and one with a single 7."""
    ages = [(0, 1, 10, 20, 5, 2.0, 0.5), (1, 0, 10, 5, 1, 4.0, 0.9), (2, 1, 1, 7, 7, 0.3, 0.3), (1, 2, 0, 0, 0, 0, 0)]
    path = peers(
        tmp_path, algorithm="r_fast", consensus=[0.0, 4.0, 0.5, 0.25], gradients=(2, 4, 9),
        sent=(1e6, 2e6, 6e6), lost=(5, 10, 15), ages=ages,
    )  # fmt: skip
    run = read(path)
    assert network.numbers(run, network.ranks_of(run)) == {
        "consensus_final": 0.25,
        "consensus_at_target": 0.5,
        "gradients_most": 1.8,
        "gradients_least": 0.4,
        "age_mean": 32 / 21,
        "age_worst_edge": 7.0,
        "age_seconds_mean": 6.3 / 21,
        "age_seconds_worst_edge": 0.4,
        "bytes_mean": 3e6,
        "bytes_most": 6e6,
        "messages_lost": 30.0,
        "lost_share": 0.1,
    }
    made = the_network(tmp_path)
    assert cells(made) == {
        "method": "r_fast",
        "n": "1",
        "consensus at the end": "0.25",
        "at loss 0.1": "0.5",
        "gradients, most / mean": "1.8",
        "gradients, least / mean": "0.4",
    }
    worst = {"on the worst edge": "7", "which is": "2 to 1", "max": "7"}
    seconds = {"in seconds, mean": "0.3", "on its worst edge": "0.4", "that is": "1 to 0", "max seconds": "0.9"}
    assert cells(made, frame=1) == {"method": "r_fast", "age, mean": "1.52"} | worst | seconds
    assert cells(made, frame=2) == {
        "method": "r_fast",
        "MB sent by a rank, mean": "3",
        "most": "6",
        "messages lost": "30",
        "of those sent": "0.1",
    }


def test_runs_are_summarised_by_their_medians(tmp_path):
    """Six runs: the lower median is that of run 2 (from 0), and the interval goes from the first to the last."""
    for seed in range(6):
        k = seed + 1
        # edge (0, 1) has the larger mean in runs 0 to 4, (1, 0) in the last, and by far
        ages = [(0, 1, 10, 20 * k, 5), (1, 0, 10, 10 * k if seed < 5 else 5000, 500 + seed)]
        values = [2.0, 1.0, 0.1 if seed < 4 else 0.5, 0.5]
        consensus = [0.0, 8.0, float(k), k / 10]
        peers(
            tmp_path, algorithm="r_fast", seed=seed, consensus=consensus, gradients=(10 - seed, 10 + seed),
            lost=(0, 2 * k), ages=ages, values=values,
        )  # fmt: skip
    peers(tmp_path, algorithm="r_fast", seed=6, outcome="fault", consensus=[0.0, 9.0, 9.0, 9.0])  # does not count
    made = the_network(tmp_path)
    found = row(made)
    assert (found.n, found.with_consensus_at_target, found.seeds) == (6, 4, "0 1 2 3 4 5")
    for name, expected in {
        "consensus_final": (0.3, 0.1, 0.6),
        "gradients_most": (1.2, 1.0, 1.5),
        "gradients_least": (0.7, 0.5, 1.0),
        "age_mean": (4.5, 1.5, 256.0),
        "age_worst_edge": (6.0, 2.0, 500.0),
        "messages_lost": (6, 2, 12),
        "lost_share": (0.03, 0.01, 0.06),
    }.items():
        assert (found[name], found[f"{name}_low"], found[f"{name}_high"]) == pytest.approx(expected), name
    assert found.consensus_at_target == 2 and math.isnan(found.consensus_at_target_low), "of four runs"
    assert (found.age_max, found.worst_edge) == (505, "1 to 0"), "of all runs together"
    shown = cells(made)
    assert shown["at loss 0.1"] == "2 (4/6 runs)" and shown["consensus at the end"] == "0.3 [0.1, 0.6]"


def test_what_is_not_known_is_not_shown(tmp_path):
    peers(tmp_path, algorithm="hogwild", gradients=(0, 0))
    made = the_network(tmp_path)
    shown = network.sheet(made)
    assert cells(made, "hogwild") == {
        "method": "hogwild", "n": "1", "gradients, most / mean": "", "gradients, least / mean": "",
    }  # fmt: skip
    assert len(shown.frames) == 2 and "messages lost" not in shown.frames[1]
    assert not any(word in note for note in shown.notes for word in ("Consensus", "Age", "server"))
    peers(tmp_path, algorithm="r_fast", consensus=[0.0, 1.0, 2.0, 3.0], ages=[(0, 1, 1, 1, 1)], lost=(0, 0))
    made = the_network(tmp_path)
    assert cells(made, "hogwild")["consensus at the end"] == "" and cells(made, "hogwild", 2)["messages lost"] == ""
    assert list(network.sheet(made).frames[1]["method"]) == ["r_fast"]
    assert cells(made, frame=2)["messages lost"] == "0"


def test_a_method_whose_runs_all_failed_has_its_row(tmp_path):
    peers(tmp_path, algorithm="r_fast", outcome="fault", consensus=[0.0, 1.0, 2.0, 3.0])
    peers(tmp_path, algorithm="sgp")
    made = the_network(tmp_path)
    assert row(made).n == 0 and cells(made)["gradients, most / mean"] == "" and row(made).worst_edge == ""
    assert any("Failed, in no number here: r_fast seed 0 (fault)." in note for note in network.sheet(made).notes)


def test_a_run_that_diverged_counts_as_the_worst(tmp_path):
    for seed, last in enumerate([0.25, math.nan, math.nan]):
        peers(tmp_path, algorithm="r_fast", seed=seed, outcome="diverged", consensus=[0.0, 1.0, 2.0, last])
    assert cells(the_network(tmp_path))["consensus at the end"] == "∞"


def test_where_all_ages_are_equal_no_edge_is_the_worst(tmp_path):
    peers(tmp_path, algorithm="d_psgd", ages=[(0, 1, 5, 0, 0), (1, 0, 5, 0, 0)])
    shown = {"method": "d_psgd", "age, mean": "0", "on the worst edge": "0", "which is": "", "max": "0"}
    assert cells(the_network(tmp_path), "d_psgd", frame=1) == shown


def test_methods_with_a_server_are_named_and_left_out(tmp_path):
    peers(tmp_path, algorithm="r_fast", problem={"name": "quadratic"})
    write(tmp_path, [2.0, 1.0], algorithm="async_sgd", workers=2, ranks=3, problem={"name": "quadratic"})
    write(tmp_path, [2.0, 1.0], algorithm="async_sgd", workers=2, ranks=3, problem={"name": "other"})  # another race
    made = the_network(tmp_path)
    assert list(made.rows["method"]) == ["r_fast"]
    assert "Not shown, because they have a server: async_sgd." in network.sheet(made).notes


def test_the_command_writes_all_forms(tmp_path, monkeypatch):
    peers(tmp_path, algorithm="r_fast", consensus=[0.0, 4.0, 0.5, 0.25], ages=[(0, 1, 2, 3, 2), (1, 0, 2, 1, 1)])
    monkeypatch.setattr(sys, "argv", ["analysis", "network", str(tmp_path)])

    def output(*more):
        result = CliRunner().invoke(command_line.main, ["network", str(tmp_path), *more], catch_exceptions=False)
        assert result.exit_code == 0
        return result.output

    shown = output()
    assert shown.startswith("## Ranks of network methods: race, 2 workers, simulation, virtual clock\n")
    assert "| r_fast | 1         | 1.5               | 0 to 1   | 2   |" in shown
    assert max(map(len, shown.splitlines())) <= sheets.COLUMNS
    frame = pd.read_csv(io.StringIO(output("--format", "csv")))
    assert frame["consensus_final"].tolist() == [0.25] and frame["age_worst_edge"].tolist() == [1.5]
    assert len(frame["inputs_sha256"][0]) == 64
    assert r"r\_fast & 1 & 1.5 & 0 to 1 & 2 \\" in output("--format", "latex")
    output("--out", str(tmp_path / "made.md"))
    assert (tmp_path / "made.md").read_text() == shown


def damage(path, change):
    with h5py.File(path, "a") as file:
        change(file)


def drop(name):
    def change(file):
        del file[name]

    return change


def longer(name):
    def change(file):
        column = file[name][()]
        del file[name]
        file[name] = [*column, 0]

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (drop("ranks/gradients"), "has no /ranks/gradients, which every result file has; the file is damaged"),
        (drop("ages/age_sum"), "must have the columns source, destination, count, age_sum, age_max"),
        (longer("ranks/bytes_sent"), "the columns of /ranks in"),
        (longer("ages/count"), "the columns of /ages in"),
    ],
)
def test_damaged_files_are_refused_in_one_sentence(tmp_path, change, words):
    damage(peers(tmp_path, algorithm="r_fast", ages=[(0, 1, 2, 3, 2)]), change)
    assert words in refused("network", tmp_path)


def test_files_of_server_methods_alone_are_refused(tmp_path):
    write(tmp_path, [2.0, 1.0], algorithm="async_sgd")
    sentence = "no result file is of a network method: all of async_sgd have a server"
    assert sentence in refused("network", tmp_path)


JOB = """
schema = 1
[experiment]
name = "three"
workers = 3
seeds = [0]
stop = { seconds = 40.5 }
snapshot = { seconds = 1.0 }
targets = { metric = "gap", values = [1e-9], headline = 1e-9 }
[problem]
name = "quadratic"
dimension = 5
[heterogeneity]
compute = { profile = "linear", straggler = { workers = [1], factor = 5.0 } }
links = { latency_seconds = 0.25 }
[[algorithm]]
name = "ad_psgd"
stepsize = 0.1
"""


def test_what_a_run_records_is_what_is_shown(tmp_path):
    (tmp_path / "job.toml").write_text(JOB)
    made = experiment.load(tmp_path / "job.toml")
    campaign.Campaign(campaign.Alone(), made, tmp_path / "out", say=lambda text: None).run(made.cells())
    result = simulate(made.cells()[0], seed=0)
    gradients, ages = result.ranks["gradients"], result.ages
    assert gradients[1] > gradients[2] > gradients[0] > 0, "of 2, 3 and 5 seconds"
    found = row(the_network(tmp_path / "out"), "ad_psgd")
    assert found.consensus_final == result.trace["consensus"][-1] > 0
    assert found.gradients_most == gradients[1] / gradients.mean()
    assert found.gradients_least == gradients[0] / gradients.mean()
    assert found.age_mean == ages[:, 3].sum() / ages[:, 2].sum() and found.age_max == ages[:, 4].max() > 0
    assert found.bytes_mean == result.ranks["bytes_sent"].mean() and math.isnan(found.consensus_at_target)


# Curves of the consensus.


def curves(folder):
    return plots.figure(races.load([folder]), "consensus").axes[0]


def test_the_consensus_has_a_logarithmic_axis_though_it_begins_at_0(tmp_path):
    peers(tmp_path, algorithm="r_fast", consensus=[0.0, 4.0, 0.5, 0.01])
    peers(tmp_path, algorithm="sgp", consensus=[0.0, 1.0, 0.0, 0.02])
    axes = curves(tmp_path)
    assert axes.get_yscale() == "log" and axes.get_ylabel() == "consensus (log scale)"
    low, high = axes.get_ylim()
    assert 0.005 < low < 0.01 and 4.0 < high < 8.0, "all that is positive is in view"


def test_a_consensus_that_stays_0_has_an_axis(tmp_path):
    peers(tmp_path, algorithm="ring_all_reduce", consensus=[0.0, 0.0, 0.0, 0.0])
    axes = curves(tmp_path)
    assert axes.get_yscale() == "linear" and axes.get_ylim()[0] < 0 < axes.get_ylim()[1]
