"""The server methods that collect, aggregate or allocate: runs written out by hand, special cases that must coincide,
invariants, and the references of `references.py`, which know nothing of mpibench.

By hand: one dimension, f(x) = x^2/2, so that a gradient is the point it is computed at, plus a number of its worker
where it matters who made it. A row is (seconds, source, staleness, point after the update).
"""

import math
from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
import references
from hypothesis import given
from hypothesis import strategies as st
from references import Crew
from test_traces import (
    EXACT,
    LINKS,
    NOISELESS,
    NOISY,
    SPEEDS,
    STEPSIZE,
    UPDATES,
    noiseless,
    noisy,
    reference_asynchronous,
    rows,
    run,
    same,
)
from toy import Toy, toy_cell

from mpibench.runner import simulate

STOPS = pytest.mark.parametrize("stop_stale", [False, True])
UP, DOWN = 0.5, 0.25


def links(up, down):
    """Seconds that a vector takes to the server and to a worker."""
    return {"vector_seconds": up, "down": {"vector_seconds": down}}


def of_workers(*numbers):
    """A toy whose gradients are x plus a number of their worker 1, 2, ..."""
    return Toy(sample=lambda i, number: float(numbers[i - 1]))


def counted(result, what="used"):
    """How many gradients of worker 1, 2, ..."""
    return result.ranks[what].tolist()[1:]


# By hand: m-synchronous SGD.


@STOPS
def test_m_sync_by_hand(stop_stale):
    # two of three, workers of 2, 3 and 4 s; g = x + 16 x the number of the job
    toy = Toy(sample=lambda i, number: 16.0 * number)
    parameters = {"stepsize": 0.5, "quorum": 2, "stop_stale": stop_stale}
    result = run("m_sync_sgd", parameters, [2, 3, 4], toy=toy)
    assert rows(result) == [
        (3, 2, 0, 32),  # 64 - (64 + 0)/2
        (6, 2, 0, 8),  # 32 - (32 + 16)/2: each has done one job more
        (9, 2, 0, -12),  # 8 - (8 + 32)/2
        (12, 2, 0, -30),  # -12 - (-12 + 48)/2
        (15, 2, 0, -47),  # -30 - (-30 + 64)/2
    ]
    assert counted(result) == [5, 5, 0]
    if stop_stale:  # the job of worker 3 is stopped at 3, 6, 9 and 12
        assert counted(result, "discarded") == [0, 0, 0] and counted(result, "stopped") == [0, 0, 4]
    else:  # worker 3 reports x^0 at 4, x^1 at 8 and x^2 at 12, each time after the round, and gets the round's point
        assert counted(result, "discarded") == [0, 0, 3] and counted(result, "stopped") == [0, 0, 0]
        assert result.updates["staleness_histogram"].tolist() == [10, 2, 1]  # x^2 comes when x^4 is the point


# By hand: load-balanced minibatch.


def test_load_balanced_by_hand():
    # 1 s and 3 s, four gradients: 3 and 1; both end at 3 s and the higher rank is heard last. g = x + 8 or x - 16
    toy = of_workers(8, -16)
    result = run("load_balanced_minibatch", {"stepsize": 0.5, "batch": 4, "average": "gradients"}, [1, 3], 4, toy=toy)
    # x - (x + (3 * 8 - 16)/4)/2 = x/2 - 1
    assert rows(result) == [(3, 2, 0, 31), (6, 2, 0, 14.5), (9, 2, 0, 6.25), (12, 2, 0, 2.125)]
    assert counted(result) == [12, 4]
    result = run("load_balanced_minibatch", {"stepsize": 0.5, "batch": 4, "average": "workers"}, [1, 3], 4, toy=toy)
    # x - (x + (8 - 16)/2)/2 = x/2 + 2
    assert rows(result) == [(3, 2, 0, 34), (6, 2, 0, 19), (9, 2, 0, 11.5), (12, 2, 0, 7.75)]
    assert counted(result) == [12, 4]


@pytest.mark.parametrize(
    ("seconds", "batch", "average", "shares", "end"),
    [
        ([1, 7], 3, "gradients", [3, 0], (3, 1)),  # quotas 2.625 and 0.375: worker 2 has nothing to do
        ([1, 7], 3, "workers", [2, 1], (7, 2)),  # but its objective counts
        ([2, 2], 3, "gradients", [2, 1], (4, 1)),  # equal remainders: the lower index
        ([4, 2, 1], 7, "workers", [1, 2, 4], (4, 3)),  # no remainders
        ([1, 1, 2], 4, "gradients", [2, 1, 1], (2, 3)),  # quotas 1.6, 1.6, 0.8: the largest remainder first, then index
    ],
)
def test_shares_by_hand(seconds, batch, average, shares, end):
    parameters = {"stepsize": 0.5, "batch": batch, "average": average}
    result = run("load_balanced_minibatch", parameters, seconds, 2)
    assert counted(result) == [2 * share for share in shares]
    assert [row[:2] for row in rows(result)] == [end, (2 * end[0], end[1])]


# By hand: Rennala.


def test_rennala_by_hand():
    result = run("rennala", {"stepsize": 0.5, "batch": 3}, [2, 3], 4)
    assert rows(result) == [
        (4, 1, 0, 32),  # 2: worker 1, 3: worker 2, 4: worker 1, who begins at x^1; worker 2 goes on at x^0
        (9, 2, 0, 16),  # 6: worker 1; worker 2 is dropped and begins at x^1; 8: worker 1, 9: worker 2
        (14, 1, 0, 8),  # 10: worker 1 is dropped; 12: both; 14: worker 1
        (18, 2, 0, 4),  # 15: worker 2 is dropped; 16: worker 1; 18: both
    ]
    assert counted(result) == [8, 4] and counted(result, "discarded") == [1, 2]
    assert result.updates["staleness_histogram"].tolist() == [12, 3]


def test_rennala_with_stops_by_hand():
    # 2: worker 1, 3: worker 2, 4: worker 1; both begin anew
    result = run("rennala", {"stepsize": 0.5, "batch": 3, "stop_stale": True}, [2, 3], 4)
    assert rows(result) == [(4, 1, 0, 32), (8, 1, 0, 16), (12, 1, 0, 8), (16, 1, 0, 4)]
    assert counted(result) == counted(result, "gradients") == [8, 4] and counted(result, "discarded") == [0, 0]
    assert counted(result, "stopped") == [3, 3]  # at 4, 8 and 12; what worker 1 has begun at that instant, too


def test_a_job_that_is_stopped_as_it_begins_has_used_its_number():
    # as before. Worker 1 begins job 2 at 4, when x^1 stops it; it reports 0, 1; 3, 4; 6, 7; 9, 10. Worker 2 begins
    # job 1 at 3 and reports 0; 2; 4; 6. g = x + 3 x number: x^{k+1} = x^k - (x^k + sum of the numbers)
    toy = Toy(x=(0.0,), sample=lambda i, number: 3.0 * number)
    result = run("rennala", {"stepsize": 1, "batch": 3, "stop_stale": True}, [2, 3], 4, toy=toy)
    assert [row[3] for row in rows(result)] == [-(0 + 1 + 0), -(3 + 4 + 2), -(6 + 7 + 4), -(9 + 10 + 6)]


def test_rennala_by_hand_with_links():
    # a point takes 0.25 s, a gradient 0.5 s, leave to go on nothing
    result = run("rennala", {"stepsize": 0.5, "batch": 3}, [2, 3], 4, links=links(UP, DOWN))
    assert rows(result) == [
        (5.25, 1, 0, 32),  # heard at 2.75 (1), 3.75 (2), 5.25 (1)
        (11, 2, 0, 16),  # 7.25: worker 2 is dropped; 8.0 (1), 10.5 (1), 11.0 (2)
        (18.25, 1, 0, 8),  # 13.0: worker 1 is dropped; 14.75 (2), 15.75 (1), 18.25 (1)
        (23.5, 1, 0, 4),  # 18.25: worker 2 comes at the same instant and is dropped; 21.0 (1), 22.0 (2), 23.5 (1)
    ]
    assert counted(result) == [8, 4] and counted(result, "discarded") == [1, 2]


@pytest.mark.parametrize(("second", "discarded"), [(2.25, 3), (2.375, 0)])
def test_rennala_with_stops_by_hand_with_links(second, discarded):
    # x^0 is there at 0.25. Heard: worker 1 at 2.75, worker 2 at 3.0 (3.125), worker 1 at 4.75; x^1 is there at 5.0.
    # Worker 2 ends its next job at 4.75, and what was under way is dropped; or at 5.0, and that job is stopped.
    parameters = {"stepsize": 0.5, "batch": 3, "stop_stale": True}
    result = run("rennala", parameters, [2, second], 4, links=links(UP, DOWN))
    assert rows(result) == [(4.75, 1, 0, 32), (9.5, 1, 0, 16), (14.25, 1, 0, 8), (19, 1, 0, 4)]
    assert counted(result) == [8, 4] and counted(result, "discarded") == [0, discarded]
    assert counted(result, "gradients") == [8, 4 + discarded]  # at 19 what arrives comes before what ends
    assert counted(result, "stopped") == [3, 3]


def test_all_reduced_rennala_by_hand_with_links():
    # x^0 is there at 0.25, the third gradient at 4.25; the word of it takes no time. Sums are there at 4.75 and back at
    # 5.0, with their counts, and all ranks have x^1. And again every 4.75 s.
    result = run("rennala_all_reduce", {"stepsize": 0.5, "batch": 3}, [2, 3], 4, links=links(UP, DOWN))
    assert rows(result) == [(5, 1, 0, 32), (9.75, 1, 0, 16), (14.5, 1, 0, 8), (19.25, 1, 0, 4)]
    assert counted(result) == [8, 4] and counted(result, "discarded") == [0, 0]


def test_all_reduced_rennala_divides_by_what_there_is_by_hand():
    # Messages take 0.5 s. One gradient is wanted; the worker, at 0.5, has one at 1.25, which is heard at 1.75, and one
    # more at 2.0 before it hears of that, at 2.25. Its job 2 is stopped, and it reports 3 and 4, then 6 and 7.
    # g = x + number: x^{k+1} = x^k - (x^k + mean of the two)
    toy = Toy(x=(0.0,), sample=lambda i, number: float(number))
    parameters = {"stepsize": 1, "batch": 1}
    result = run("rennala_all_reduce", parameters, [0.75], 3, toy=toy, links={"latency_seconds": 0.5})
    assert [row[3] for row in rows(result)] == [-0.5, -3.5, -6.5]


# By hand: Malenia. g = x + 8 or x - 24, so a step of 1/2 along the mean over workers leads to x/2 + 4.

OF_TWO = of_workers(8, -24)
HALVED = [36, 22, 15, 11.5]


def test_malenia_by_hand():
    # S = 3 of 1 s and 3 s. n^2 = 4 >= 3 (1/B_1 + 1/B_2): not with (2, 1), with (3, 1) at equality, with (2, 2)
    result = run("malenia", {"stepsize": 0.5, "batch": 3}, [1, 3], 4, toy=OF_TWO)
    assert rows(result) == [
        (3, 2, 0, 36),  # worker 1 at 1, 2, 3, worker 2 at 3
        (7, 1, 0, 22),  # 4: worker 1 is dropped; it is heard at 5, 6, 7; worker 2 at 6
        (12, 2, 0, 15),  # 9: worker 2 is dropped; worker 1 at 8, ..., 12, worker 2 at 12
        (16, 1, 0, 11.5),  # 13: worker 1 is dropped; it is heard at 14, 15, 16; worker 2 at 15
    ]
    assert counted(result) == [3 + 3 + 5 + 3, 4] and counted(result, "discarded") == [2, 1]


def test_malenia_with_stops_by_hand():
    result = run("malenia", {"stepsize": 0.5, "batch": 3, "stop_stale": True}, [1, 3], 4, toy=OF_TWO)
    assert rows(result) == [(3 * k, 2, 0, x) for k, x in enumerate(HALVED, 1)]
    assert counted(result) == [12, 4] and counted(result, "discarded") == [0, 0]


def test_malenia_by_hand_with_links():
    result = run("malenia", {"stepsize": 0.5, "batch": 3}, [1, 3], 4, toy=OF_TWO, links=links(UP, DOWN))
    assert rows(result) == [
        (4.75, 1, 0, 36),  # heard: worker 1 at 1.75, 3.25 and 4.75, worker 2 at 3.75
        (11, 2, 0, 22),  # 7.25: worker 2 is dropped; worker 1 at 6.5, 8.0, 9.5 and 11.0, worker 2 at 11.0
        (17.25, 1, 0, 15),  # 12.5: worker 1 is dropped; it is heard at 14.25, 15.75, 17.25; worker 2 at 14.75
        (22, 2, 0, 11.5),  # 18.25: worker 2 is dropped; worker 1 at 19.0, 20.5 and 22.0, worker 2 at 22.0
    ]
    assert counted(result) == [3 + 4 + 3 + 3, 4] and counted(result, "discarded") == [1, 2]


def test_malenia_with_stops_by_hand_with_links():
    # 0.5 s and 2 s: worker 1 keeps its link busy and is heard at 1.25, 1.75, 2.25, 2.75; worker 2 at 2.75: (4, 1) is
    # enough. x^1 is there at 3.0; what worker 1 ended at 2.75 is dropped at 3.25. And again every 2.75 s.
    parameters = {"stepsize": 0.5, "batch": 3, "stop_stale": True}
    result = run("malenia", parameters, [0.5, 2], 4, toy=OF_TWO, links=links(UP, DOWN))
    assert rows(result) == [(2.75 * k, 2, 0, x) for k, x in enumerate(HALVED, 1)]
    assert counted(result) == [16, 4] and counted(result, "discarded") == [3, 0]


@STOPS
def test_parameter_free_malenia_by_hand(stop_stale):
    # 1 s and 3 s: an update when worker 2 is heard. Without stops worker 1 goes on at the old point for another second
    result = run("malenia_parameter_free", {"stepsize": 0.5, "stop_stale": stop_stale}, [1, 3], 4, toy=OF_TWO)
    assert rows(result) == [(3 * k, 2, 0, x) for k, x in enumerate(HALVED, 1)]
    assert counted(result) == ([12, 4] if stop_stale else [9, 4])
    assert counted(result, "discarded") == ([0, 0] if stop_stale else [3, 0])  # at 4, 7 and 10


def test_rounding_does_not_decide_when_a_malenia_step_ends():
    # at 6 s all of 5000 workers have 6 gradients, which is enough; 30,000 inverses added one by one would be too many
    parameters, n = {"stepsize": 0.5, "batch": 30_000}, 5000
    result = run("malenia", parameters, [1] * n, 1)
    assert rows(result) == [(6, n, 0, 32)] and sum(counted(result)) == 30_000


# By hand: Ringleader and IA2SGD.


def test_ringleader_by_hand():
    result = run("ringleader", {"stepsize": 0.25}, [1, 3], 6)
    assert rows(result) == [
        (3, 2, 0, 48),  # worker 1 at 1, 2 and 3, then worker 2: everybody has a row. 64 - 64/4; worker 2 begins at x^1
        (4, 1, 1, 32),  # worker 1 adds to its row at x^0: 48 - 64/4; it begins at x^2
        (6, 2, 1, 22),  # rows at x^2 and x^1: 32 - (32 + 48)/8
        (7, 1, 2, 12),  # the same rows: 22 - 10
        (9, 2, 1, 7.75),  # rows at x^4 and x^3: 12 - (12 + 22)/8
        (10, 1, 2, 3.5),
    ]
    assert counted(result) == [10, 3] and counted(result, "discarded") == [0, 0]


@pytest.mark.parametrize("name", ["ringleader", "malenia_parameter_free"])
def test_a_start_that_is_good_enough_ends_the_run(name):
    result = simulate(toy_cell(name, {"stepsize": 0.25}, [1, 3], stop={"x0": 64.0, "updates": 5}), seed=0)
    assert result.trace["time"].tolist() == [0]


def test_ringleader_carries_rows_over_by_hand():
    result = run("ringleader", {"stepsize": 0.125}, [1, 2, 3], 10)
    found = [
        (3, 3, 0, 56),  # all rows at x^0: 64 - 64/8
        (4, 1, 1, 48),
        (4, 2, 2, 40),
        (6, 3, 2, 34),  # rows at x^2, x^3, x^1: 40 - 48/8
        (7, 1, 3, 28),  # worker 1 begins at x^5
        (8, 2, 4, 22),  # worker 1 has come again: its gradient at x^5 is carried over
        (10, 2, 2, 18.5),  # so the round misses worker 3 (9, at x^4) and 2 (10, at x^6): 22 - (28 + 22 + 34)/24
        (11, 1, 3, 15),
        (12, 3, 4, 11.5),  # workers 1 and 2 have come again, at x^8 and x^7, and are carried over
        (15, 3, 2, 9.625),  # worker 3 ends phase 1, at x^9: 11.5 - (15 + 18.5 + 11.5)/24
    ]
    assert [row[:3] for row in rows(result)] == [row[:3] for row in found]
    assert [row[3] for row in rows(result)] == pytest.approx([row[3] for row in found], rel=1e-14)
    assert counted(result) == counted(result, "gradients") == [15, 7, 5]
    assert counted(result, "discarded") == counted(result, "stopped") == [0, 0, 0]


def test_ringleader_by_hand_with_links():
    result = run("ringleader", {"stepsize": 0.25}, [1, 3], 6, links=links(UP, DOWN))
    assert rows(result) == [
        (3.75, 2, 0, 48),  # worker 1 at 1.75 and 3.25
        (4.75, 1, 1, 32),
        (7.5, 2, 1, 22),  # worker 1 at 6.5
        (8, 1, 2, 12),
        (11.25, 2, 1, 7.75),  # worker 1 at 9.75, and at 11.25 before worker 2: it goes on
        (12.75, 1, 2, 3.5),
    ]
    assert counted(result) == [8, 3]


def test_ia2_by_hand():
    result = run("ia2_sgd", {"stepsize": 0.25}, [1, 3])
    assert rows(result) == [
        (4, 1, 0, 48),  # the table is complete at 3, without an update; all of it is at x^0
        (5, 1, 1, 34),  # 48 - (48 + 64)/8
        (6, 1, 2, 21.75),  # 34 - (34 + 64)/8
        (6, 2, 3, 9.5),  # worker 2 has gone on at x^0: its row is 64 again
        (7, 1, 4, -1.21875),  # rows at x^3 and x^0: 9.5 - (21.75 + 64)/8
    ]
    assert counted(result) == [5, 2] and counted(result, "discarded") == [2, 0]  # those of 1 and 2 s were replaced
    # with links that take time: complete at 3.75, worker 1 next at 4.75 (1.75, 3.25), at x^1 at 6.5
    result = run("ia2_sgd", {"stepsize": 0.25}, [1, 3], 4, links=links(UP, DOWN))
    assert rows(result) == [
        (4.75, 1, 0, 48),
        (6.5, 1, 1, 34),
        (7.25, 2, 2, 20),  # worker 2 was let go on at 3.75: rows at x^1 and x^0, 34 - (48 + 64)/8
        (8.25, 1, 3, 7.75),  # worker 1 at x^2: rows at x^2 and x^0, 20 - (34 + 64)/8
    ]


# By hand: asynchronous SGD with a choice.


def test_picky_by_hand():
    # as in the trace of asynchronous SGD until 6, when worker 2, at x^2 = 32, comes to 15
    result = run("picky_sgd", {"stepsize": 0.25, "radius": 16}, [2, 3], 6)
    assert rows(result) == [
        (2, 1, 0, 48),
        (3, 2, 1, 32),  # |48 - 64| = 16 is near enough
        (4, 1, 1, 20),
        (6, 1, 0, 15),  # worker 2 comes at the same instant: |15 - 32| = 17 is too far, and it begins at 15
        (8, 1, 0, 11.25),
        (9, 2, 1, 7.5),  # 11.25 - 15/4
    ]
    assert counted(result) == [4, 2] and counted(result, "discarded") == [0, 1]
    result = run("picky_sgd", {"stepsize": 0.25, "radius": 15.9}, [2, 3])
    assert rows(result) == [
        (2, 1, 0, 48),  # 3: worker 2 is dropped
        (4, 1, 0, 36),
        (6, 1, 0, 27),  # 6: worker 2 at 48 is dropped
        (8, 1, 0, 20.25),
        (9, 2, 1, 13.5),  # 20.25 - 27/4
    ]
    assert counted(result, "discarded") == [0, 2]


@pytest.mark.parametrize(("radius", "accepted"), [(25, 1), (24.99, 0)])
def test_picky_measures_in_the_euclidean_norm(radius, accepted):
    toy = Toy(x=(30.0, 40.0), curvature=(1.0, 1.0))  # half a step: from (30, 40) to (15, 20)
    result = run("picky_sgd", {"stepsize": 0.5, "radius": radius}, [2, 3], 2, toy=toy)
    assert counted(result)[1] == accepted


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_picky_comes_to_its_end_when_it_diverges():
    # once the point is no number its distances are none either: they must not be too far, for ever
    stop = {"updates": 60, "gradients": 1000}
    result = simulate(toy_cell("picky_sgd", {"stepsize": 1e30, "radius": 16}, [2, 3], stop=stop), seed=0)
    assert not math.isfinite(result.trace["x0"][-1]) and result.trace["iteration"][-1] == 60


def test_naive_optimal_by_hand():
    # (m + 2) / sum 1/h: 3, 4/1.5, 5/1.625: the two fastest, workers 2 and 3
    result = run("naive_optimal_asgd", {"stepsize": 0.25, "noise_ratio": 2}, [8, 1, 2], 6)
    assert rows(result) == [
        (1, 2, 0, 48),
        (2, 2, 0, 36),  # 48 - 48/4
        (2, 3, 2, 20),  # 36 - 64/4
        (3, 2, 1, 11),  # 20 - 36/4
        (4, 2, 0, 8.25),  # 11 - 11/4
        (4, 3, 2, 3.25),  # 8.25 - 20/4
    ]
    assert counted(result, "gradients") == [0, 4, 2]


@pytest.mark.parametrize(
    ("seconds", "noise_ratio", "chosen"),
    [
        ([8, 1, 2], 1, [2]),  # 2/1, 3/1.5, 4/1.625: of equals the smaller m
        ([8, 1, 2], 100, [1, 2, 3]),  # 101, 68, 63.4
        ([2, 2, 8], 1, [1, 2]),  # 4, 3, 3.6
        ([1, 1, 1], 0.125, [1, 2, 3]),  # 1 + 0.125/m
        ([4, 4, 1, 4], 2, [3]),  # 3, 3.2, 3.3, 3.4
    ],
)
def test_who_takes_part_in_naive_optimal(seconds, noise_ratio, chosen):
    result = run("naive_optimal_asgd", {"stepsize": 0.25, "noise_ratio": noise_ratio}, seconds, 40)
    assert {i for i, busy in enumerate(result.ranks["busy_seconds"]) if busy} == set(chosen)


# By hand: FedBuff. Two local steps of 1/2: from x to x/4, so a difference is 3/4 of the point it began at.

CLIENTS = {"stepsize": 0.5, "local_stepsize": 0.5, "local_steps": 2, "buffer": 2}


def test_fedbuff_by_hand():
    result = run("fedbuff", CLIENTS, [1, 1.5], 4)
    weight = 1 / math.sqrt(2)  # of staleness 1
    x = [64.0, 40.0]  # 64 - (48 + 48)/4
    x.append(40 - (48 * weight + 30) / 4)
    x.append(x[2] - (30 * weight + 0.75 * x[2]) / 4)
    x.append(x[3] - (0.75 * x[2] * weight + 0.75 * x[3]) / 4)
    assert [row[:3] for row in rows(result)] == [
        (3, 2, 0),  # worker 1 at 2 (it gets x^0 again), worker 2 at 3 (it gets x^1)
        (6, 1, 1),  # worker 1 at 4, from x^0, and at 6, from x^1
        (8, 1, 1),  # worker 2 at 6, from x^1; worker 1 at 8, from x^2
        (10, 1, 1),  # worker 2 at 9, from x^2; worker 1 at 10, from x^3
    ]
    assert [row[3] for row in rows(result)] == pytest.approx(x[1:], rel=1e-14)
    assert counted(result) == [2 * 5, 2 * 3] and counted(result, "discarded") == [0, 0]


def test_fedbuff_drops_by_hand():
    # worker 2 takes 9 s; x^2 has been reached when its difference from x^0 comes
    result = run("fedbuff", CLIENTS | {"max_staleness": 1}, [1, 4.5], 3)
    start = [(4, 1, 0, 40), (8, 1, 0, 25)]  # worker 1 at 2 and 4: 64 - (48 + 48)/4; at 6 and 8: 40 - (30 + 30)/4
    assert rows(result) == [*start, (12, 1, 0, 15.625)]  # 9: dropped; worker 1 at 10 and 12: 25 - (18.75 + 18.75)/4
    assert counted(result) == [2 * 6, 0] and counted(result, "discarded") == [0, 2]
    result = run("fedbuff", CLIENTS | {"max_staleness": 2}, [1, 4.5], 3)
    assert rows(result) == [*start, (10, 1, 2, pytest.approx(25 - (48 / math.sqrt(3) + 18.75) / 4, rel=1e-14))]
    assert counted(result) == [2 * 5, 2] and counted(result, "discarded") == [0, 0]


# By hand: MindFlayer and ATA. g = x + 12 or x - 36.

OF_THREE = of_workers(12, -36)


def test_mindflayer_by_hand():
    # trials of at most 2 s and 4 s, S = 2. t(1) = 3/(1/2) = 6, t(2) = 4/(3/4) = 16/3: both take part, with
    # ceil(8/3 - 1) = 2 trials and ceil(4/3 - 1) = 1. x - (x + (2 * 12 - 36)/3)/2 = x/2 + 2
    result = run("mindflayer", {"stepsize": 0.5, "batch": 2, "patience_seconds": 1}, [1, 3], 4, toy=OF_THREE)
    assert rows(result) == [(3, 2, 0, 34), (6, 2, 0, 19), (9, 2, 0, 11.5), (12, 2, 0, 7.75)]
    assert counted(result) == [8, 4]
    # S = 1: t(1) = t(2) = 4; worker 2 has no trial. x - (x + 12)/2 = x/2 - 6
    result = run("mindflayer", {"stepsize": 0.5, "batch": 1, "patience_seconds": 1}, [1, 3], 4, toy=OF_THREE)
    assert rows(result) == [(1, 1, 0, 26), (2, 1, 0, 7), (3, 1, 0, -2.5), (4, 1, 0, -7.25)]
    assert counted(result, "gradients") == [4, 0]


@dataclass(frozen=True)
class InTurn:
    """Job after job of every worker takes these seconds, in turn; the least is what a worker needs at best."""

    seconds: tuple

    def mean_seconds(self, workers):
        return [sum(self.seconds) / len(self.seconds)] * workers

    def least_seconds(self, workers):
        return [min(self.seconds)] * workers

    def smallest_seconds(self, workers):
        return min(self.seconds)

    def within(self, worker, workers, seconds):
        return sum(h <= seconds for h in self.seconds) / len(self.seconds)

    def durations(self, worker, workers, rng):
        jobs = iter(list(self.seconds) * 100)
        return lambda cost, now_ns: round(cost * next(jobs) * 1e9)


def in_turn(seconds, toy, updates):
    """MindFlayer with one worker, S = 1, and trials that are cut off after 1 + 1 s. p = 1/2, t = 1.5/(0.5/2) = 6:
    B = 6/2 - 1 = 2 trials, of which one is expected to succeed."""
    parameters = {"stepsize": 0.5, "batch": 1, "patience_seconds": 1}
    cell = toy_cell("mindflayer", parameters, [1.0], toy=toy, stop={"updates": updates})
    return simulate(replace(cell, compute=InTurn(seconds)), seed=0)


def test_a_trial_that_is_cut_off_by_hand():
    # jobs of 1, 5, 1, 5, ...: a step has one gradient after 1 s and one job cut off after 2 s more; g = x + number
    result = in_turn((1, 5), Toy(sample=lambda i, number: float(number)), 3)
    assert rows(result) == [(3, 1, 0, 32), (6, 1, 0, 15), (9, 1, 0, 5.5)]  # 64 - 64/2, 32 - (32 + 2)/2, 15 - (15 + 4)/2
    assert counted(result) == counted(result, "gradients") == [3] and counted(result, "stopped") == [3]


def test_a_step_in_which_no_trial_succeeds_by_hand():
    # jobs of 1, 1, 5, 5: two gradients, divided by the one that was expected, then none
    result = in_turn((1, 1, 5, 5), Toy(), 3)
    assert rows(result) == [(2, 1, 0, 0), (6, 1, 0, 0), (8, 1, 0, 0)]  # 64 - (64 + 64)/2
    result = in_turn((5, 5, 1, 1), Toy(), 3)
    assert rows(result) == [(4, 1, 0, 64), (6, 1, 0, 0), (10, 1, 0, 0)]


def test_ata_by_hand():
    # Three jobs a step, 1 s and 3 s; times are known so badly for so long that jobs go to whoever has had fewest:
    # 2 and 1, then 1 and 2. x - (x - 4)/2, x - (x - 20)/2
    result = run("ata", {"stepsize": 0.5, "batch": 3}, [1, 3], 4, toy=OF_THREE)
    assert rows(result) == [(3, 2, 0, 34), (9, 2, 0, 27), (12, 2, 0, 15.5), (18, 2, 0, 17.75)]
    assert counted(result) == [6, 6]


def test_ata_that_trusts_its_means_by_hand():
    # 1 s and 4 s: 2 and 1 jobs while nothing is known, then max a_i h_i is least with 3 and 0. x - (x + 12)/2
    result = run("ata", {"stepsize": 0.5, "batch": 3, "alpha": 1e-6}, [1, 4], 4, toy=OF_THREE)
    assert rows(result) == [(4, 2, 0, 34), (7, 1, 0, 11), (10, 1, 0, -0.5), (13, 1, 0, -6.25)]
    assert counted(result) == [11, 1]


def test_ata_goes_by_the_mean_of_what_it_has_seen_by_hand():
    # Jobs of 1, 4, 1, 4, ... s for each worker. Step 1: 2 jobs (5 s in all) and 1 (1 s), means 2.5 and 1.
    # Step 2: max(2.5 a_1, a_2) is least with 1 (1 s) and 2 (4 + 1 s), means 2 and 2. Step 3: 2 (4 + 1 s) and 1 (4 s)
    cell = toy_cell("ata", {"stepsize": 0.5, "batch": 3, "alpha": 1e-6}, [1.0, 1.0], stop={"updates": 3})
    result = simulate(replace(cell, compute=InTurn((1, 4))), seed=0)
    assert rows(result) == [(5, 1, 0, 32), (10, 2, 0, 16), (15, 1, 0, 8)]
    assert counted(result) == [5, 4]


def test_ata_by_hand_with_links():
    # as the first, each step 0.25 + 0.5 s longer: a worker sends one sum
    result = run("ata", {"stepsize": 0.5, "batch": 3}, [1, 3], 4, toy=OF_THREE, links=links(UP, DOWN))
    assert [row[0] for row in rows(result)] == [3.75, 10.5, 14.25, 21]


def test_ata_explores_more_workers_than_it_has_jobs():
    # two jobs a step: workers 1 and 2, 3 and 1, 2 and 3
    result = run("ata", {"stepsize": 0.5, "batch": 2}, [1, 1, 1], 3)
    assert [row[1] for row in rows(result)] == [2, 3, 3]
    assert counted(result) == [2, 2, 2]


# Every method is its reference.


def agree(result, trace, exact=False):
    """The same updates and counts; points to the last bit, or where sums may be rounded in two ways to 12 digits."""
    found = rows(result)
    assert [row[:3] for row in found] == [row[:3] for row in trace.rows]
    points = [row[3] for row in trace.rows]
    assert [row[3] for row in found] == (points if exact else pytest.approx(points, rel=1e-12, abs=1e-13))
    assert result.ranks["used"].tolist() == trace.used
    assert result.ranks["discarded"].tolist() == trace.discarded
    if trace.messages is not None:
        server, *workers = result.ranks["messages_sent"].tolist()
        assert workers == trace.messages[1:]
        assert server - trace.messages[0] in (0, trace.answers)
    if trace.gradients is not None:
        assert result.ranks["gradients"].tolist() == trace.gradients


WAYS = st.sampled_from([(0, 0), (0.5, 0.25), (0.25, 0.5), (0.125, 0), (0, 1.5)])  # seconds of a vector up and down
SLOWER = st.lists(st.integers(2, 12).map(lambda quarter: quarter / 4), min_size=1, max_size=5)  # than the way up
BATCH = st.integers(1, 12)


def crew(seconds, way, stop_stale=False):
    up, down = way
    return Crew(seconds, noisy, goes_on=stop_stale, up=up, down=down)


@STOPS
@given(seconds=SPEEDS, way=WAYS, data=st.data())
@EXACT
def test_m_sync_is_its_reference(stop_stale, seconds, way, data):
    quorum = data.draw(st.integers(1, len(seconds)))
    parameters = {"stepsize": STEPSIZE, "quorum": quorum, "stop_stale": stop_stale}
    result = run("m_sync_sgd", parameters, seconds, UPDATES, toy=NOISY, links=links(*way))
    agree(result, references.m_sync_sgd(crew(seconds, way), 3.0, STEPSIZE, UPDATES, quorum, stop_stale), exact=True)


@STOPS
@pytest.mark.parametrize("name", ["rennala", "malenia"])
@given(seconds=SLOWER, way=WAYS, batch=BATCH)
@EXACT
def test_rennala_and_malenia_are_their_references(name, stop_stale, seconds, way, batch):
    parameters = {"stepsize": STEPSIZE, "batch": batch, "stop_stale": stop_stale}
    result = run(name, parameters, seconds, UPDATES, toy=NOISY, links=links(*way))
    reference = getattr(references, name)
    agree(result, reference(crew(seconds, way, stop_stale), 3.0, STEPSIZE, UPDATES, batch))


@STOPS
@given(seconds=SLOWER, way=WAYS)
@EXACT
def test_parameter_free_malenia_is_its_reference(stop_stale, seconds, way):
    parameters = {"stepsize": STEPSIZE, "stop_stale": stop_stale}
    result = run("malenia_parameter_free", parameters, seconds, UPDATES, toy=NOISY, links=links(*way))
    agree(result, references.malenia_parameter_free(crew(seconds, way, stop_stale), 3.0, STEPSIZE, UPDATES))


@pytest.mark.parametrize("name", ["ringleader", "ia2_sgd"])
@given(seconds=SPEEDS, way=WAYS)
@EXACT
def test_ringleader_and_ia2_are_their_references(name, seconds, way):
    result = run(name, {"stepsize": STEPSIZE}, seconds, UPDATES, toy=NOISY, links=links(*way))
    agree(result, getattr(references, name)(crew(seconds, way), 3.0, STEPSIZE, UPDATES))


@given(seconds=SPEEDS, way=WAYS, radius=st.sampled_from([0.03, 0.1, 0.3, 1.0]))
@EXACT
def test_picky_is_its_reference(seconds, way, radius):
    result = run("picky_sgd", {"stepsize": STEPSIZE, "radius": radius}, seconds, UPDATES, toy=NOISY, links=links(*way))
    agree(result, references.picky_sgd(crew(seconds, way), 3.0, STEPSIZE, UPDATES, radius), exact=True)


@given(seconds=SPEEDS, way=WAYS, noise_ratio=st.sampled_from([0.03, 0.7, 2.1, 6.3, 50.1]))
@EXACT
def test_naive_optimal_is_its_reference(seconds, way, noise_ratio):
    parameters = {"stepsize": STEPSIZE, "noise_ratio": noise_ratio}
    result = run("naive_optimal_asgd", parameters, seconds, UPDATES, toy=NOISY, links=links(*way))
    trace = references.naive_optimal_asgd(crew(seconds, way), 3.0, STEPSIZE, UPDATES, noise_ratio)
    agree(result, trace, exact=True)


@given(
    seconds=SPEEDS,
    way=WAYS,
    local_steps=st.integers(1, 3),
    buffer=st.integers(1, 6),
    most=st.sampled_from([{}, {"max_staleness": 1}, {"max_staleness": 2}]),
)
@EXACT
def test_fedbuff_is_its_reference(seconds, way, local_steps, buffer, most):
    local = {"local_stepsize": 0.3, "local_steps": local_steps, "buffer": buffer} | most
    result = run("fedbuff", {"stepsize": STEPSIZE} | local, seconds, UPDATES, toy=NOISY, links=links(*way))
    trace = references.fedbuff(seconds, noisy, 3.0, STEPSIZE, updates=UPDATES, **local, up=way[0], down=way[1])
    jobs, trace.gradients = trace.gradients, None
    agree(result, trace)
    for finished, done in zip(result.ranks["gradients"], jobs, strict=True):  # local steps of a job under way count
        assert local_steps * done <= finished < local_steps * (done + 1)


@pytest.mark.parametrize("average", ["gradients", "workers"])
@given(seconds=SPEEDS, more=st.integers(0, 9))
@EXACT
def test_load_balanced_is_its_reference(average, seconds, more):
    batch = len(seconds) + more if average == "workers" else 1 + more
    parameters = {"stepsize": STEPSIZE, "batch": batch, "average": average}
    result = run("load_balanced_minibatch", parameters, seconds, UPDATES, toy=NOISY)
    agree(result, references.load_balanced_minibatch(seconds, noisy, 3.0, STEPSIZE, UPDATES, batch, average))


@given(seconds=SPEEDS, batch=BATCH, patience=st.sampled_from([0.125, 0.5, 1.0, 10.0]))
@EXACT
def test_mindflayer_is_its_reference(seconds, batch, patience):
    parameters = {"stepsize": STEPSIZE, "batch": batch, "patience_seconds": patience}
    result = run("mindflayer", parameters, seconds, UPDATES, toy=NOISY)
    agree(result, references.mindflayer(seconds, noisy, 3.0, STEPSIZE, UPDATES, batch, patience))


@given(seconds=SPEEDS, batch=BATCH, alpha=st.sampled_from([{}, {"alpha": 0.1}, {"alpha": 0.01}, {"alpha": 1e-4}]))
@EXACT
def test_ata_is_its_reference(seconds, batch, alpha):
    result = run("ata", {"stepsize": STEPSIZE, "batch": batch} | alpha, seconds, UPDATES, toy=NOISY)
    agree(result, references.ata(seconds, noisy, 3.0, STEPSIZE, UPDATES, batch, **alpha))


def test_empirical_ata_learns_who_is_fast():
    # the bonus of the empirical form is below the mean after some 10,000 jobs of a worker: at first all get alike
    seconds, batch = [1.0, 4.0], 2000
    result = run("ata", {"stepsize": 0.5, "batch": batch}, seconds, 20)
    trace = references.ata(seconds, noiseless, 64.0, 0.5, 20, batch)
    assert [row[:2] for row in rows(result)] == [row[:2] for row in trace.rows]
    assert result.ranks["used"].tolist() == trace.used
    assert counted(result)[0] > counted(result)[1] * 1.2


# Where a ratio is a whole number or two are equal, rounding must not decide.


@pytest.mark.parametrize(
    ("seconds", "batch", "patience", "shares"),
    [
        ([3.5, 5], 13, 7, [7, 6]),  # t = 15/(1/10.5 + 1/12) = 84: 84/10.5 - 1 and 84/12 - 1
        ([0.25, 0.5], 2, 0.5, [2, 1]),  # t = 4/(4/3 + 1) = 12/7: 16/7 - 1 and 12/7 - 1
        ([6, 0.75, 2], 19, 1, [2, 11, 6]),  # t = 22/(1/7 + 4/7 + 1/3) = 21: 21/7 - 1, 21/1.75 - 1, 21/3 - 1
    ],
)
def test_trials_at_exact_ratios(seconds, batch, patience, shares):
    result = run("mindflayer", {"stepsize": 0.1, "batch": batch, "patience_seconds": patience}, seconds, 1)
    assert counted(result) == shares == references.trials(seconds, batch, patience)[1:]


@pytest.mark.parametrize(
    ("seconds", "noise_ratio", "chosen"),
    [
        ([2.5, 5], 1, [1]),  # 2 x 2.5 = 3/(1/2.5 + 1/5)
        ([3.5, 1, 3, 0.75], 5, [2, 4]),  # 7/(4/3 + 1) = 8/(4/3 + 1 + 1/3)
    ],
)
def test_of_equally_good_numbers_of_workers_the_smaller(seconds, noise_ratio, chosen):
    result = run("naive_optimal_asgd", {"stepsize": 0.1, "noise_ratio": noise_ratio}, seconds, 20)
    assert {i for i, busy in enumerate(result.ranks["busy_seconds"]) if busy} == set(chosen)


# Special cases that must coincide, bit for bit.


@STOPS
@given(seconds=SLOWER, way=LINKS)
@EXACT
def test_ringmaster_with_threshold_one_is_rennala_with_batch_one(stop_stale, seconds, way):
    both = {"stepsize": STEPSIZE, "stop_stale": stop_stale}
    one = run("ringmaster", both | {"threshold": 1}, seconds, UPDATES, toy=NOISY, links=way)
    other = run("rennala", both | {"batch": 1}, seconds, UPDATES, toy=NOISY, links=way)
    assert same(one, other) and one.attrs["model_hash"] == other.attrs["model_hash"]
    for name in ("used", "discarded", "gradients", "stopped", "messages_sent"):
        assert one.ranks[name].tolist() == other.ranks[name].tolist(), name


@STOPS
@given(seconds=SPEEDS, way=LINKS)
@EXACT
def test_m_sync_that_waits_for_all_is_minibatch(stop_stale, seconds, way):
    parameters = {"stepsize": STEPSIZE, "quorum": len(seconds), "stop_stale": stop_stale}
    one = run("m_sync_sgd", parameters, seconds, UPDATES, toy=NOISY, links=way)
    other = run("minibatch_sgd", {"stepsize": STEPSIZE}, seconds, UPDATES, toy=NOISY, links=way)
    assert same(one, other) and one.attrs == other.attrs


@pytest.mark.parametrize("name", ["rennala", "malenia"])
@pytest.mark.parametrize("n", [1, 2, 3, 5, 8])
def test_rennala_and_malenia_on_equal_speeds_with_stops_are_minibatch(name, n):
    for seconds in (1.0, 0.3):
        parameters = {"stepsize": STEPSIZE, "batch": n, "stop_stale": True}
        one = run(name, parameters, [seconds] * n, UPDATES, toy=NOISELESS)
        other = run("minibatch_sgd", {"stepsize": STEPSIZE}, [seconds] * n, UPDATES, toy=NOISELESS)
        assert same(one, other) and one.attrs["model_hash"] == other.attrs["model_hash"]


def test_rennala_and_malenia_on_equal_speeds_without_stops_are_not_minibatch():
    # all but the last to report go on at x^0 and are dropped at 2 s: only the last has begun at x^1
    for name in ("rennala", "malenia"):
        result = run(name, {"stepsize": 0.5, "batch": 2}, [1, 1], 2)
        assert counted(result, "discarded") == [1, 0]
        assert [row[0] for row in rows(result)] == [1, 3]


@STOPS
@given(seconds=SLOWER, way=LINKS, data=st.data())
@EXACT
def test_malenia_with_a_batch_of_at_most_n_is_parameter_free(stop_stale, seconds, way, data):
    both = {"stepsize": STEPSIZE, "stop_stale": stop_stale}
    batch = data.draw(st.integers(1, len(seconds)))
    one = run("malenia", both | {"batch": batch}, seconds, UPDATES, toy=NOISY, links=way)
    other = run("malenia_parameter_free", both, seconds, UPDATES, toy=NOISY, links=way)
    assert same(one, other) and one.attrs == other.attrs


def test_fedbuff_of_one_client_and_one_step_is_sequential_sgd():
    one = run("fedbuff", {"stepsize": 0.25, "local_stepsize": 1, "local_steps": 1, "buffer": 1}, [2])
    other = run("async_sgd", {"stepsize": 0.25}, [2])
    assert same(one, other) and one.attrs["model_hash"] == other.attrs["model_hash"]


@given(seconds=SPEEDS)
@EXACT
def test_fedbuff_without_a_buffer_is_asynchronous_sgd_with_weighted_steps(seconds):
    parameters = {"stepsize": STEPSIZE, "local_stepsize": 1, "local_steps": 1, "buffer": 1}
    result = run("fedbuff", parameters, seconds, UPDATES, toy=NOISY)
    step = lambda delay: STEPSIZE / math.sqrt(1 + delay)  # noqa: E731
    expected, *_ = reference_asynchronous(seconds, 3.0, noisy, step, UPDATES)
    assert [row[:3] for row in rows(result)] == [row[:3] for row in expected]
    assert [row[3] for row in rows(result)] == pytest.approx([row[3] for row in expected], rel=1e-12, abs=1e-13)


@pytest.mark.parametrize("average", ["gradients", "workers"])
@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_load_balanced_on_equal_speeds_with_one_gradient_each_is_minibatch(average, n):
    parameters = {"stepsize": STEPSIZE, "batch": n, "average": average}
    one = run("load_balanced_minibatch", parameters, [0.7] * n, UPDATES, toy=NOISY)
    other = run("minibatch_sgd", {"stepsize": STEPSIZE}, [0.7] * n, UPDATES, toy=NOISY)
    assert same(one, other) and one.attrs["model_hash"] == other.attrs["model_hash"]


@pytest.mark.parametrize(
    ("name", "parameters"), [("picky_sgd", {"radius": 1e100}), ("naive_optimal_asgd", {"noise_ratio": 1e12})]
)
@given(seconds=SPEEDS, way=LINKS)
@EXACT
def test_without_a_choice_it_is_asynchronous_sgd(name, parameters, seconds, way):
    one = run(name, {"stepsize": STEPSIZE} | parameters, seconds, UPDATES, toy=NOISY, links=way)
    other = run("async_sgd", {"stepsize": STEPSIZE}, seconds, UPDATES, toy=NOISY, links=way)
    assert same(one, other) and one.attrs["model_hash"] == other.attrs["model_hash"]


@given(seconds=SPEEDS, batch=BATCH)
@EXACT
def test_all_reduced_rennala_is_rennala_with_stops_where_links_take_no_time(seconds, batch):
    one = run("rennala_all_reduce", {"stepsize": STEPSIZE, "batch": batch}, seconds, UPDATES, toy=NOISY)
    parameters = {"stepsize": STEPSIZE, "batch": batch, "stop_stale": True}
    other = run("rennala", parameters, seconds, UPDATES, toy=NOISY)
    assert [row[:3] for row in rows(one)] == [row[:3] for row in rows(other)]
    points = [row[3] for row in rows(other)]
    assert [row[3] for row in rows(one)] == pytest.approx(points, rel=1e-12, abs=1e-13)
    for name in ("used", "discarded", "gradients"):
        assert one.ranks[name].tolist() == other.ranks[name].tolist(), name


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("m_sync_sgd", {"quorum": 1}),
        ("load_balanced_minibatch", {"batch": 1, "average": "gradients"}),
        ("load_balanced_minibatch", {"batch": 1, "average": "workers"}),
        ("rennala", {"batch": 1}),
        ("malenia", {"batch": 1}),
        ("malenia_parameter_free", {}),
        ("ringleader", {}),
        ("picky_sgd", {"radius": 0.01}),
        ("naive_optimal_asgd", {"noise_ratio": 1}),
        ("mindflayer", {"batch": 1, "patience_seconds": 1}),
        ("ata", {"batch": 1}),
    ],
)
def test_with_one_worker_it_is_sequential_sgd(name, parameters):
    one = run(name, {"stepsize": STEPSIZE} | parameters, [2], 20, toy=NOISY)
    other = run("minibatch_sgd", {"stepsize": STEPSIZE}, [2], 20, toy=NOISY)
    assert same(one, other) and one.attrs["model_hash"] == other.attrs["model_hash"]


# Invariants.


@given(seconds=SPEEDS, way=WAYS)
@EXACT
def test_ringleader_updates_once_for_each_worker_in_a_round(seconds, way):
    n, rounds = len(seconds), 8
    result = run("ringleader", {"stepsize": 0.01}, seconds, rounds * n, toy=NOISY, links=links(*way))
    sources = list(result.updates["source"])
    for r in range(rounds):
        assert sorted(sources[r * n : r * n + n]) == list(range(1, n + 1))
    assert max(result.updates["staleness"]) <= 2 * n - 2  # of all rows of the table
    assert result.ranks["discarded"].sum() == 0 and result.ranks["stopped"].sum() == 0
    # a round waits at most for a job that is under way and for the next one, each with its ways
    ends = [0, *result.updates["time"][n - 1 :: n]]
    longest = 2 * (max(seconds) + sum(way))
    assert max(after - before for before, after in pairwise(ends)) <= longest
    if way == (0, 0):  # nobody idles
        busy = result.ranks["busy_seconds"][1:]
        assert all(result.attrs["seconds"] - b <= h for b, h in zip(busy, seconds, strict=True))


@given(seconds=SPEEDS)
@EXACT
def test_ringleader_counts_what_it_carries_over(seconds):
    n = len(seconds)
    found = run("ringleader", {"stepsize": 0.01}, seconds, 8 * n + 1, toy=NOISY)
    sent = found.ranks["messages_sent"][1:].tolist()
    assert counted(found) == sent  # at the first update of a round nothing waits in the next table
    assert found.updates["staleness_histogram"].sum() == sum(sent)


@STOPS
@given(seconds=SLOWER, way=WAYS, batch=BATCH)
@EXACT
def test_rennala_uses_exactly_its_batch_and_nothing_stale(stop_stale, seconds, way, batch):
    parameters = {"stepsize": STEPSIZE, "batch": batch, "stop_stale": stop_stale}
    result = run("rennala", parameters, seconds, UPDATES, toy=NOISY, links=links(*way))
    assert set(result.updates["staleness"]) == {0}
    assert result.ranks["used"].sum() == batch * UPDATES == result.updates["staleness_histogram"][0]
    if stop_stale and way == (0, 0):
        assert result.ranks["discarded"].sum() == 0
    # the step behind an update begins at the one before, a worker's first gradient of it at most a job later
    assert result.updates["time"][-1] >= UPDATES * references.rennala_seconds(seconds, batch)


# What theory says.


@pytest.mark.parametrize("name", ["rennala", "malenia"])
@given(seconds=SPEEDS, batch=BATCH)
@EXACT
def test_times_of_updates_with_stops_are_the_formula(name, seconds, batch):
    result = run(name, {"stepsize": STEPSIZE, "batch": batch, "stop_stale": True}, seconds, 10, toy=NOISY)
    step = getattr(references, f"{name}_seconds")(seconds, batch)
    assert result.updates["time"].tolist() == [k * step for k in range(1, 11)]


@given(seconds=SPEEDS, batch=BATCH)
@EXACT
def test_a_step_of_rennala_or_malenia_is_within_its_bounds(seconds, batch):
    h, n = sorted(seconds), len(seconds)
    of_rennala = 2 * min((batch + m) / sum(1 / x for x in h[:m]) for m in range(1, n + 1))
    of_malenia = 2 * (h[-1] + sum(h) / n * batch / n)
    for name, bound in (("rennala", of_rennala), ("malenia", of_malenia)):
        for stop_stale in (False, True):
            parameters = {"stepsize": STEPSIZE, "batch": batch, "stop_stale": stop_stale}
            times = [0, *run(name, parameters, seconds, 20, toy=NOISY).updates["time"]]
            steps = [after - before for before, after in pairwise(times)]
            assert max(steps) <= bound * (1 + 1e-12)
