"""Hogwild!: one model in shared memory, on its two clocks."""

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import Toy, cells, toy_cell

from mpibench.errors import InvalidInput
from mpibench.runner import simulate
from mpibench.shared_memory import SharedModel

SPEEDS = st.lists(st.integers(1, 12).map(lambda quarter: quarter / 4), min_size=1, max_size=5)
TOY = Toy(x=(3.0,), curvature=(0.7,), sample=lambda i, number: ((7 * i + 3 * number) % 11 - 5) / 16)


def models(*libraries):
    """Two ranks' views of one model (1, 2, 3), numpy or torch."""
    for library in libraries:
        vector = pytest.importorskip(library)
        vector = (vector.array if library == "numpy" else vector.tensor)([1.0, 2.0, 3.0])
        counts = numpy.zeros(2, numpy.int64)
        yield SharedModel(vector, counts, 0), SharedModel(vector, counts, 1)


def test_what_one_rank_adds_the_other_reads():
    for one, other in models("numpy", "torch"):
        k, x = other.read()
        one.add(x * 2)
        other.add(x * 1)
        assert k == 0 and x.tolist() == [1, 2, 3], "a copy: it does not change with the model"
        k, x = one.read()
        assert k == 2 and x.tolist() == [4, 8, 12]
        assert one.counts.tolist() == [1, 1]


class Whole(numpy.ndarray):
    """A vector that says when all of it is written."""

    def __getitem__(self, place):
        return numpy.asarray(self)[place]

    def __iadd__(self, v):
        raise AssertionError("all components were written")


def test_components_that_do_not_change_are_not_written():
    vector = numpy.array([1.0, 2.0, 3.0]).view(Whole)
    model = SharedModel(vector, numpy.zeros(1, numpy.int64), 0)
    model.add(numpy.array([0.0, 5.0, 0.0]))
    assert vector.tolist() == [1, 7, 3]
    with pytest.raises(AssertionError):
        model.add(numpy.array([1.0, 1.0, 1.0]))


@given(seconds=SPEEDS)
@settings(deadline=None, derandomize=True, database=None, max_examples=40)
def test_in_the_simulation_it_is_asynchronous_sgd_on_links_that_take_no_time(seconds):
    stop = {"seconds": 12.125}  # nothing ends at this instant
    hogwild = simulate(toy_cell("hogwild", {"stepsize": 0.1}, seconds, toy=TOY, stop=stop), seed=0)
    server = simulate(toy_cell("async_sgd", {"stepsize": 0.1}, seconds, toy=TOY, stop=stop), seed=0)
    assert hogwild.ranks["gradients"].tolist() == server.ranks["gradients"][1:].tolist()
    assert hogwild.ranks["used"].tolist() == server.ranks["used"][1:].tolist()
    assert hogwild.updates["staleness_histogram"].tolist() == server.updates["staleness_histogram"].tolist()
    # rank 0 is worker 1, and sees the model when it has added to it: there the server's is the same, bit for bit
    rows = zip(server.updates["source"], server.trace["time"][1:], server.trace["x0"][1:], strict=False)
    seen = [(t, x) for source, t, x in rows if source == 1]
    assert len(seen) == int(12.125 / seconds[0])
    assert list(zip(hogwild.updates["time"], hogwild.trace["x0"][1:], strict=False)) == seen


def test_it_is_refused_on_the_emulated_clock():
    settings_ = {"engine": "mpi", "heterogeneity": {"compute": {"profile": "equal"}}, "workers": 2}
    with pytest.raises(InvalidInput, match=r"hogwild cannot run on the emulated clock, only on: native or virtual"):
        cells("hogwild", {"stepsize": 0.1}, **settings_)
    assert cells("hogwild", {"stepsize": 0.1}, clock="native", **settings_)
