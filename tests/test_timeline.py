"""Timelines, link maps, byte ledgers and performance profiles of files whose answers are known by hand."""

import json
import math

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from test_analysis import meets, write

from analysis import ledger, links, profiles, races, steps, timeline
from analysis.__main__ import main
from analysis.errors import InvalidInput

SENT, LOST, COMPUTED, STOPPED = range(4)
# t, until, rank, kind, peer, tag, bytes: rank 1 computes twice; the second time, a message travels at the same time
EVENTS = [
    (0.0, 1.0, 0, SENT, 1, 0, 800),
    (1.0, 3.0, 1, COMPUTED, -1, -1, 0),
    (3.0, 4.0, 1, SENT, 0, 1, 800),
    (3.5, 6.0, 1, STOPPED, -1, -1, 0),
    (6.0, math.nan, 1, LOST, 0, 1, 800),
]


def record(path, events=EVENTS, tags=("MODEL", "GRADIENT")):
    """Adds these events to a file, and the ledger that they make."""
    columns = dict(zip(timeline.COLUMNS, map(np.array, zip(*events, strict=True)), strict=True))
    with h5py.File(path, "r+") as file:
        group = file.create_group("events")
        for name, column in columns.items():
            group[name] = column
        group.attrs["tags"] = json.dumps(dict(enumerate(tags)))
        file.attrs["seconds"] = 10.0
        edges = file.create_group("bytes/edges")
        for name, column in {"source": [0, 1], "destination": [1, 0], "messages": [1, 2], "lost": [0, 1]}.items():
            edges[name] = column
        edges["bytes"] = [800, 1600]
        for level, each in {"algorithmic": 6400, "serialised": 800, "mpi": 840}.items():
            file[f"bytes/{level}/edges"] = [each, 2 * each]
            file[f"bytes/{level}/down"], file[f"bytes/{level}/up"] = each, 2 * each
        kinds = {"source": [0, 1], "destination": [1, 0], "messages": [1, 2], "lost": [0, 1]}
        kinds |= {"algorithmic": [6400, 12800], "serialised": [800, 1600], "mpi": [840, 1680]}
        for name, column in kinds.items():
            file[f"bytes/kinds/{name}"] = column
        file["bytes/kinds/tag"] = list(tags)


def one_line(folder):
    (line,) = timeline.load(races.load([folder]))
    return line


def test_what_a_rank_did_by_hand(tmp_path):
    record(write(tmp_path, [2.0, 0.1]))
    server, worker = (row for _, row in one_line(tmp_path).rows.iterrows())
    assert (worker.compute_seconds, worker.communicate_seconds) == (4.5, 1.5), "1-3 and 3.5-6; 0-1 and 3-3.5"
    assert worker.idle_seconds == 4.0
    assert (server.compute_seconds, server.communicate_seconds, server.idle_seconds) == (0.0, 2.0, 8.0)
    assert (worker.computations, worker.stopped, worker.messages_sent, worker.messages_lost) == (1, 1, 2, 1)


@pytest.mark.parametrize("seed", range(5))
def test_states_of_a_rank_are_disjoint_and_add_up(tmp_path, seed):
    rng = np.random.default_rng(seed)
    t = np.sort(rng.uniform(0, 9, 60))
    until = t + rng.exponential(0.5, 60)
    kind = rng.integers(4, size=60)
    until[kind == LOST] = math.nan
    events = [(a, b, r, k, 1 - r, 0, 8) for a, b, r, k in zip(t, until, rng.integers(2, size=60), kind, strict=True)]
    record(write(tmp_path, [2.0, 0.1]), events)
    line = one_line(tmp_path)
    for _, row in line.rows.iterrows():
        own = line.spans[line.spans["rank"] == row["rank"]].sort_values("start")
        assert (own["stop"].to_numpy()[:-1] <= own["start"].to_numpy()[1:] + 1e-12).all()
        total = row.compute_seconds + row.communicate_seconds + row.idle_seconds
        assert total == pytest.approx(10.0) and own["stop"].max() <= 10.0


def test_the_run_with_the_median_time_is_shown(tmp_path):
    meets(tmp_path, [3.0, 1.0, 2.0, None])
    for path in tmp_path.rglob("*.h5"):
        record(path)
    assert one_line(tmp_path).run.seed == 2, "of 2, 4, 6 and a miss the lower middle"
    (line,) = timeline.load(races.load([tmp_path]), seed=3)
    assert line.run.seed == 3
    with pytest.raises(InvalidInput, match=r"of seed 9 has events; run with --set experiment\.record_events=true"):
        timeline.load(races.load([tmp_path]), seed=9)


def test_chrome_trace_has_every_event(tmp_path):
    record(write(tmp_path, [2.0, 0.1]))
    out = tmp_path / "trace.json"
    done = CliRunner().invoke(main, ["timeline", str(tmp_path), "--trace", str(out)])
    assert done.exit_code == 0, done.output
    trace = json.loads(out.read_text())
    of = {phase: [e for e in trace["traceEvents"] if e["ph"] == phase] for phase in "MXsf"}
    assert [e["args"]["name"] for e in of["M"]][1:] == ["rank 0", "rank 1"]
    assert [(e["ts"], e["dur"], e["name"]) for e in of["X"] if e["dur"]] == [
        (1e6, 2e6, "compute"),
        (3.5e6, 2.5e6, "stopped"),
    ]
    assert [(e["ts"], e["tid"]) for e in of["s"]] == [(0.0, 0), (3e6, 1)]
    assert [(e["ts"], e["tid"], e["id"]) for e in of["f"]] == [(1e6, 1, of["s"][0]["id"]), (4e6, 0, of["s"][1]["id"])]
    assert any(e["name"] == "GRADIENT lost" for e in of["X"])


def test_figures_of_timelines_and_link_maps_are_written(tmp_path):
    record(write(tmp_path, [2.0, 0.1]))
    for command in ("timeline", "links"):
        out = tmp_path / f"{command}.pdf"
        done = CliRunner().invoke(main, [command, str(tmp_path), "--figure", str(out)])
        assert done.exit_code == 0, done.output
        assert out.read_bytes().startswith(b"%PDF")


def test_damaged_events_are_refused(tmp_path):
    path = write(tmp_path, [2.0, 0.1])
    record(path)
    with h5py.File(path, "r+") as file:
        del file["events/peer"]
    with pytest.raises(InvalidInput, match="must have the columns t, until, rank"):
        timeline.load(races.load([tmp_path]))


def test_the_ledger_by_hand(tmp_path):
    record(write(tmp_path, [2.0, 0.1]))
    (made,) = ledger.load(races.load([tmp_path]))
    row = made.rows.iloc[0]
    assert (row.algorithmic_up, row.algorithmic_down) == (1.6e-3, 0.8e-3), "bits / 8, in MB"
    assert (row.serialised_edges, row.mpi_edges) == (2.4e-3, 2.52e-3)
    assert row.encoding == pytest.approx(1.0) and row.protocol == pytest.approx(1.05)
    assert math.isnan(row.nic_edges) and math.isnan(row.algorithmic_to_nic), "never estimated"
    assert made.kinds[["tag", "messages", "lost"]].to_numpy().tolist() == [["MODEL", 1, 0], ["GRADIENT", 2, 1]]
    assert "Not counted in these files, and not estimated: d (nic)." in ledger.sheet(made).notes


def test_link_maps_by_hand(tmp_path):
    record(write(tmp_path, [2.0, 0.1]))
    (made,) = links.load(races.load([tmp_path]))
    assert made.rows[["source", "destination", "messages", "lost"]].to_numpy().tolist() == [[0, 1, 1, 0], [1, 0, 2, 1]]
    assert made.rows["seconds"].tolist() == [1.0, 1.0]
    matrix = made.matrix("ringmaster")
    assert matrix[0, 1] == 8e-4 and matrix[1, 0] == 1.6e-3 and np.isnan(matrix[0, 0])


def test_files_without_a_ledger_are_refused(tmp_path):
    write(tmp_path, [2.0, 0.1])
    made = races.load([tmp_path])
    for load in (ledger.load, links.load, timeline.load, steps.load):
        with pytest.raises(InvalidInput, match=r"no result file .*"):
            load(made)


def test_profiles_over_targets_by_hand(tmp_path):
    hits = [1.0 + 0.1 * k for k in range(10)]
    meets(tmp_path, hits, algorithm="ringmaster")
    meets(tmp_path, [2 * hit for hit in hits], algorithm="minibatch_sgd")
    (made,) = profiles.load(races.load([tmp_path]), resamples=99)
    assert made.over == "targets" and made.labels == ("minibatch_sgd", "ringmaster")
    share = dict(zip(made.labels, made.profile.share, strict=True))
    assert set(share["ringmaster"]) == {1.0}
    assert set(share["minibatch_sgd"][made.profile.factors < 2]) == {0.0}
    assert set(share["minibatch_sgd"][made.profile.factors >= 2.01]) == {1.0}
    assert made.profile.score.tolist() == pytest.approx([2 / 3, 1.0])


def test_profiles_over_experiments_never_mix_clocks(tmp_path):
    for name in ("one", "two"):
        for clock in ({}, {"engine": "mpi", "clock": "emulated", "fidelity": {"good": 1, "time_scale": 1.0}}):
            for algorithm in ("ringmaster", "minibatch_sgd"):
                meets(tmp_path / name, [1.0, 2.0], algorithm=algorithm, experiment=name, **clock)
    made = profiles.load(races.load([tmp_path]))
    assert [(each.over, len(each.problems), each.races[0].clock) for each in made] == [
        ("experiments", 2, "emulated"),
        ("experiments", 2, "virtual"),
    ]
    assert "No bands below 10 seeds" in profiles.sheet(made[0]).notes[0]


def test_a_profile_of_one_method_is_refused(tmp_path):
    meets(tmp_path, [1.0])
    with pytest.raises(InvalidInput, match="two methods at least"):
        profiles.load(races.load([tmp_path]))


def test_percentiles_of_steps_by_hand(tmp_path):
    record(write(tmp_path, [2.0, 0.1]))
    (made,) = steps.load(races.load([tmp_path]))
    row = made.rows.iloc[0]
    assert (row.compute_p50, row.message_p50) == (2.0, 1.0), "a stopped computation is none"
    assert math.isnan(row.wait_p50), "one computation has nothing after it"


def test_waiting_is_between_computations_of_a_rank(tmp_path):
    spans = [(0.0, 1.0, 1), (0.0, 2.0, 2), (1.5, 3.0, 1), (7.0, 8.0, 2), (3.25, 4.0, 1)]
    events = sorted((a, b, rank, COMPUTED, -1, -1, 0) for a, b, rank in spans)
    record(write(tmp_path, [2.0, 0.1]), events)
    row = steps.load(races.load([tmp_path]))[0].rows.iloc[0]
    assert (row.wait_p50, row.wait_p99) == (0.5, 5.0), "0.25 and 0.5 on rank 1, 5 on rank 2"


def test_without_events_the_percentiles_of_steps_are_shown(tmp_path):
    with h5py.File(write(tmp_path, [2.0, 0.1]), "r+") as file:
        file["steps/rank"] = [0]
        file["steps"].attrs.update({"compute_p50_seconds": 0.5, "wait_p99_seconds": 3.0})
    row = steps.load(races.load([tmp_path]))[0].rows.iloc[0]
    assert (row.compute_p50, row.wait_p99) == (0.5, 3.0) and math.isnan(row.message_p50)
    done = CliRunner().invoke(main, ["timeline", str(tmp_path)])
    assert done.exit_code == 0 and "virtual seconds of" in done.output
