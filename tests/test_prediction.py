"""Predictions beside simulated runs, and the constants of problems."""

import importlib.util
import itertools
import math
from dataclasses import dataclass, replace

import numpy
import pytest
import tree_references
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg
from toy import Toy, cells, toy_cell

from mpibench import catalogue, constants, prediction, theory
from mpibench.forms import FORMS
from mpibench.problems.logistic import Logistic, gradient
from mpibench.problems.mlp import MLP
from mpibench.problems.quadratic import Quadratic
from mpibench.runner import simulate

needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")

N = 5  # workers
UPDATES = 150

RAND_1 = {"name": "rand_k", "k": 1}

# Every method, in both semantics where it has two; every kind of rule.
METHODS = [
    ("minibatch_sgd", {}),
    ("m_sync_sgd", {"quorum": 3}),
    ("m_sync_sgd", {"quorum": 3, "stop_stale": True}),
    ("m_sync_sgd", {"quorum": N}),
    ("load_balanced_minibatch", {"batch": 13}),
    ("load_balanced_minibatch", {"batch": 13, "average": "workers"}),
    ("rennala", {"batch": 4}),
    ("rennala", {"batch": 4, "stop_stale": True}),
    ("rennala_all_reduce", {"batch": 4}),
    ("malenia", {"batch": 11}),
    ("malenia", {"batch": 11, "stop_stale": True}),
    ("malenia_parameter_free", {}),
    ("malenia_parameter_free", {"stop_stale": True}),
    ("async_sgd", {}),
    ("async_sgd", {"rule": "delay_adaptive"}),
    ("async_sgd", {"rule": "drop"}),
    ("async_sgd", {"rule": "drop_counted"}),
    ("picky_sgd", {"radius": 1e9}),
    ("naive_optimal_asgd", {"noise_ratio": 2.0}),
    ("ringmaster", {"threshold": 3}),
    ("ringmaster", {"threshold": 3, "stop_stale": True}),
    ("ringmaster", {"threshold": math.inf}),
    ("ia2_sgd", {}),
    ("ringleader", {}),
    ("fedbuff", {"local_stepsize": 1e-3, "local_steps": 3, "buffer": 2}),
    ("fedbuff", {"local_stepsize": 1e-3, "local_steps": 3, "buffer": 2, "max_staleness": 1}),
    ("mindflayer", {"batch": 6, "patience_seconds": 0.5}),
    ("ata", {"batch": 6}),
    ("hogwild", {}),
    ("sdde_asgd", {"active": 3}),
    ("sdde_asgd", {"active": 4, "threshold": 2}),
    ("sdde_asgd", {"active": 3, "period": 50, "curvature": 1.0}),
    ("shadowheart", {"noise_ratio": 3.0, "compressor": RAND_1}),
    ("shadowheart", {"noise_ratio": 3.0, "compressor": RAND_1, "limit": "none"}),
    ("adaptive_shadowheart", {"noise_ratio": 3.0, "compressor": RAND_1}),
    ("sgd_one", {}),
]
BY_NAME = [pytest.param(*m, id="-".join([m[0], *map(str, m[1].values())])) for m in METHODS]
# forms that have a lower bound only: the rest depends on the data, on what was learnt, or on what overlaps
BY_SEED = ["picky_sgd", "ata", "adaptive_shadowheart"]


@dataclass(frozen=True)
class ToyWithConstants(Toy):
    """A toy of which theory knows something."""

    def constants(self):
        return {"smoothness": 1.0, "gap": 2048.0, "variance": 3.0, "minimum": 0.0, "exact": True}


FOUR = ToyWithConstants((64.0,) * 4, (1.0,) * 4)  # for compressors
SLOW = {"vector_seconds": 1.0, "down": {}}


def case(name, parameters, seconds, **settings):
    """The cell of a method on a toy, which makes UPDATES updates."""
    settings = {"stop": {"updates": UPDATES}, "toy": ToyWithConstants()} | settings
    if "compressor" in parameters:
        settings = {"links": SLOW} | settings | {"toy": FOUR}
    return toy_cell(name, {"stepsize": 1e-3} | parameters, seconds, **settings)


def speed_vectors():
    """Ten random ones; every second one of whole seconds, with ties."""
    rng = numpy.random.default_rng(7)
    for number in range(10):
        yield rng.integers(1, 5, N).tolist() if number % 2 else numpy.round(rng.uniform(0.2, 4, N), 9).tolist()


def counted_instants(cell, seed=0):
    """The first update instants of a cell, in ns, by its form."""
    form, machine = prediction.form_of(cell, seed)
    counted = []

    def first(workers):
        counted.extend(itertools.islice(form.instants(workers), UPDATES))
        return counted

    machine.count(replace(form, instants=first))
    return counted


def simulated_instants(cell, seed=0):
    """Those that the simulation records, of rank 0."""
    times = simulate(cell, seed).updates["time"]
    assert len(times) >= 20
    return numpy.rint(numpy.array(times) * 1e9).astype(int).tolist()


def agree(cell, seed=0):
    """Whether counting gives what is simulated, which may end sooner where another rank ends the run."""
    simulated = simulated_instants(cell, seed)
    return counted_instants(cell, seed)[: len(simulated)] == simulated


def test_every_algorithm_of_the_server_family_has_its_form_and_a_row_here():
    assert FORMS.keys() - tree_references.METHODS.keys() == {name for name, _ in METHODS}
    assert FORMS.keys() <= set(catalogue.names("algorithm"))


# Beside simulated runs.


@pytest.mark.parametrize(("name", "parameters"), BY_NAME)
def test_a_simulated_update_takes_what_is_predicted(name, parameters):
    for seconds in speed_vectors():
        cell = case(name, parameters, seconds)
        predicted = prediction.predict(cell, 0)["update_seconds"]
        times = numpy.array(simulate(cell, 0).updates["time"])
        begin = len(times) // 3
        mean = (times[-1] - times[begin]) / (len(times) - 1 - begin)
        slack = 2 * N / (UPDATES - begin)  # in a window of time there may be an update more or less of every worker
        assert mean >= predicted["least"] * (1 - slack)
        if predicted["most"] is not None:
            assert mean <= predicted["most"] * (1 + slack)
        if predicted["expected"] is not None:
            assert mean == pytest.approx(predicted["expected"], rel=slack)
        known = [predicted[key] for key in ("least", "expected", "most") if predicted[key] is not None]
        assert all(a <= b * (1 + 1e-12) for a, b in itertools.pairwise(known))


COUNTED = [p for p in BY_NAME if p.values[0] not in BY_SEED and "period" not in p.values[1]]


@pytest.mark.parametrize(("name", "parameters"), COUNTED)
def test_updates_are_counted_to_the_nanosecond(name, parameters):
    for seconds in itertools.islice(speed_vectors(), 3):
        cell = case(name, parameters, seconds)
        assert agree(cell)


STOPPED = [p for p in COUNTED if p.values[1].get("stop_stale") or p.values[0] == "rennala_all_reduce"]
WAITING = [p for p in COUNTED if p not in STOPPED and p.values[0] != "hogwild"]


@pytest.mark.parametrize(
    "links", [{"vector_seconds": 0.3, "latency_seconds": 0.1}, {"vector_seconds": 2.0, "down": {}}]
)
@pytest.mark.parametrize(("name", "parameters"), WAITING)
def test_links_are_counted_to_the_nanosecond_where_nobody_is_stopped(name, parameters, links):
    for seconds in itertools.islice(speed_vectors(), 2):
        cell = case(name, parameters, seconds, links=links)
        assert agree(cell)


@pytest.mark.parametrize(("name", "parameters"), [p for p in STOPPED if p.values[0] != "rennala_all_reduce"])
def test_links_are_counted_nearly_where_stale_work_is_stopped(name, parameters):
    for seconds in itertools.islice(speed_vectors(), 4):
        cell = case(name, parameters, seconds, links={"latency_seconds": 0.4})
        times = simulate(cell, 0).updates["time"]
        expected = prediction.predict(cell, 0)["update_seconds"]["expected"]
        assert (times[-1] - times[49]) / (UPDATES - 50) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize(("name", "parameters"), STOPPED)
def test_what_links_do_not_take_has_no_prediction(name, parameters):
    cell = case(name, parameters, [1, 2, 3, 4, 5], links={"vector_seconds": 1.5, "down": {}})
    predicted = prediction.predict(cell, 0)["update_seconds"]
    assert predicted["least"] > 0
    # m-synchronous workers send one gradient a step: nothing fills up
    assert [predicted["expected"], predicted["most"]] == ([4.5, 4.5] if name == "m_sync_sgd" else [None, None])


RANDOM = {
    "afresh": {"profile": "exponential", "unit_seconds": 2.0},
    "kept": {"profile": "lognormal", "sigma": 0.7, "persistent": True},
    "changing": {"profile": "sqrt", "speed": {"form": "sinusoidal", "amplitude": 0.8, "period_seconds": 30.0}},
}


@pytest.mark.parametrize("compute", RANDOM.values(), ids=RANDOM)
@pytest.mark.parametrize(("name", "parameters"), COUNTED)
def test_random_and_changing_times_are_those_of_the_seed(name, parameters, compute):
    (cell,) = cells(
        name,
        {"stepsize": 1e-3} | parameters,
        workers=N,
        stop={"updates": UPDATES},
        heterogeneity={"compute": compute, "links": SLOW if "compressor" in parameters else {}},
        targets={"metric": "x0", "values": [1.0], "headline": 1.0},
    )
    cell = replace(cell, problem=FOUR if "compressor" in parameters else ToyWithConstants())
    assert agree(cell, seed=3)
    predicted = prediction.predict(cell, 0)["update_seconds"]
    bounded = predicted["least"] is not None
    assert bounded == (compute is RANDOM["kept"])  # times that stay as they are have bounds
    assert predicted["expected"] > 0


def changing(name, parameters):
    """Of workers whose speeds change: (simulated update instants in seconds, from 0 on; the gradients that each makes
    between two instants)."""
    compute = {"profile": "sqrt", "speed": {"form": "sinusoidal", "amplitude": 0.8, "period_seconds": 30.0}}
    targets = {"metric": "x0", "values": [1.0], "headline": 1.0}
    (cell,) = cells(
        name,
        {"stepsize": 1e-3} | parameters,
        workers=N,
        stop={"updates": 40},
        heterogeneity={"compute": compute},
        targets=targets,
    )
    until = [cell.compute.work(i, N) for i in range(1, N + 1)]
    work = lambda begin, end: numpy.array([w(end) - w(begin) for w in until])  # noqa: E731
    return [0.0, *simulate(replace(cell, problem=ToyWithConstants()), 0).updates["time"]], work


@pytest.mark.parametrize(
    ("name", "batch", "end"),
    [("rennala", 7, theory.rennala_step_end), ("malenia", 8, theory.malenia_step_end)],
)
def test_steps_under_changing_speeds_end_as_the_universal_model_says(name, batch, end):
    times, work = changing(name, {"batch": batch, "stop_stale": True})
    assert [end(work, batch, start) for start in times[:-1]] == pytest.approx(times[1:], abs=1e-6)


@pytest.mark.parametrize("stop_stale", [False, True])
def test_ringmaster_under_changing_speeds_keeps_its_bound(stop_stale):
    R = 4
    times, work = changing("ringmaster", {"threshold": R, "stop_stale": stop_stale})
    for k in range(len(times) - R):
        assert times[k + R] <= theory.rennala_step_end(work, R, times[k], share=1 / 4)


def test_a_seed_that_draws_the_workers_speeds_has_a_prediction_of_its_own():
    (cell,) = cells("minibatch_sgd", {"stepsize": 0.1}, workers=3, heterogeneity={"compute": RANDOM["kept"]})
    slowest = [simulate(cell, seed).updates["time"][0] for seed in (0, 1)]
    assert [prediction.predict(cell, seed)["update_seconds"]["expected"] for seed in (0, 1)] == pytest.approx(slowest)
    assert slowest[0] != slowest[1]


@pytest.mark.parametrize(
    ("name", "parameters", "expected"),
    [
        ("minibatch_sgd", {}, [8, 8, 8]),
        ("m_sync_sgd", {"quorum": 2, "stop_stale": True}, [2, 2, 2]),
        ("rennala", {"batch": 3, "stop_stale": True}, [2, 2, 2]),  # 2, 1, 0, 0 gradients
        ("malenia", {"batch": 4, "stop_stale": True}, [8, 8, 8]),
        ("async_sgd", {}, [8 / 15] * 3),
        ("ringmaster", {"threshold": math.inf}, [8 / 15] * 3),
        # two workers make 0.75 gradients a second: H_2 (1 + 1/2) = 2, H_1 (1 + 1) = 2 is as good and has fewer
        ("naive_optimal_asgd", {"noise_ratio": 1.0}, [1, 1, 1]),
        ("naive_optimal_asgd", {"noise_ratio": 1.5}, [2 / 3] * 3),
        ("fedbuff", {"local_stepsize": 0.1, "local_steps": 2, "buffer": 3}, [3 * 16 / 15] * 3),
        # quotas 8, 4, 2, 1 of 15
        ("load_balanced_minibatch", {"batch": 15}, [8, 8, 8]),
        ("sdde_asgd", {"active": 2}, [2 / 3] * 3),
        ("hogwild", {}, [1, 1, 1]),
        ("sgd_one", {}, [1, 1, 1]),
        # t* = 8/1.75: 4, 2 and 1 gradients, and a second for a vector
        ("shadowheart", {"noise_ratio": 4.0, "compressor": {"name": "identity"}}, [5, 5, 5]),
    ],
)
def test_seconds_per_update_by_hand(name, parameters, expected):
    predicted = prediction.predict(case(name, parameters, [1, 2, 4, 8]), 0)["update_seconds"]
    assert [predicted[key] for key in ("least", "expected", "most")] == pytest.approx(expected)


def test_bounds_by_hand():
    def both(name, parameters):
        predicted = prediction.predict(case(name, parameters, [1, 2, 4, 8]), 0)["update_seconds"]
        return [predicted["least"], predicted["most"]]

    assert both("m_sync_sgd", {"quorum": 3}) == [4, 8]
    assert both("rennala", {"batch": 3}) == [2, pytest.approx(20 / 3)]
    assert both("malenia", {"batch": 8}) == [8, 31]  # 2 (8 + 3.75 * 8/4)
    assert both("malenia_parameter_free", {}) == [8, 16]
    assert both("ringmaster", {"threshold": 3}) == pytest.approx([8 / 15, 20 / 9])
    assert both("ringleader", {}) == [2, 4]
    # each sum is sent once and takes 1 s: at 4 the first has 3, the second 1, and 4 = σ²/ε is enough
    adaptive = {"noise_ratio": 4.0, "compressor": {"name": "identity"}}
    assert both("adaptive_shadowheart", adaptive) == [4, None]
    assert both("ata", {"batch": 3}) == [2, None]
    # t(m) = 2 * 1.5, 3 / (1/1.5 + 1/2.5) = 2.8125, ...: one trial each of workers 1 and 2
    assert both("mindflayer", {"batch": 1, "patience_seconds": 0.5}) == [2, 2.5]


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from([m for m in METHODS if m[0] not in BY_SEED]),
    st.lists(st.integers(1, 20), min_size=N, max_size=N),
)
def test_least_expected_and_most_are_in_this_order(method, h):
    name, parameters = method
    predicted = prediction.predict(case(name, parameters, h), 0)["update_seconds"]
    known = [predicted[key] for key in ("least", "expected", "most") if predicted[key] is not None]
    assert all(a <= b * (1 + 1e-12) for a, b in itertools.pairwise(known))


# Targets and constants.


def test_targets_by_hand():
    targets = {"metric": "gap", "values": [0.5, 0.25], "headline": 0.25}
    cell = case("rennala", {"batch": 3, "stop_stale": True}, [1, 2, 4, 8], targets=targets)
    # L = 1, D = 2048, σ² = 3; ε = 2Lv; 8 LD/ε + 16 σ² LD / (3 ε²)
    assert prediction.predict(cell, 0) | {"source": ""} == {
        "update_seconds": {"least": 2, "expected": 2, "most": 2},
        "targets": [
            {"value": 0.5, "eps": 1.0, "updates": 8 * 2048 + 16 * 2048, "seconds": 2 * 24 * 2048},
            {"value": 0.25, "eps": 0.5, "updates": 16 * 2048 + 64 * 2048, "seconds": 2 * 80 * 2048},
        ],
        "constants": {"smoothness": 1.0, "gap": 2048.0, "variance": 3.0, "exact": True},
        "source": "",
    }


@pytest.mark.parametrize(
    ("metric", "value", "eps"),
    [
        ("gradient_norm_squared", 0.3, 0.3),
        ("gap", 0.3, 2.4),  # 2Lv
        ("loss", 0.3, 10.4),  # f* = -1
        ("loss", -1.0, None),
        ("loss", -2.0, None),
        ("gap", -0.1, None),
        ("accuracy", 0.9, None),
    ],
)
def test_what_a_target_means_for_the_gradient(metric, value, eps):
    known = {"smoothness": 4.0, "minimum": -1.0}
    assert prediction.eps_of(metric, value, known) == (eps and pytest.approx(eps))
    assert prediction.eps_of(metric, value, prediction.UNKNOWN) is None


@pytest.mark.parametrize(
    ("name", "parameters", "delay", "batch"),
    [
        ("minibatch_sgd", {}, 1, 4),
        ("m_sync_sgd", {"quorum": 2}, 1, 2),
        ("rennala", {"batch": 7}, 1, 7),
        ("malenia", {"batch": 7}, 1, 7),
        ("malenia", {"batch": 2}, 1, 4),  # a gradient from everybody
        ("malenia_parameter_free", {}, 1, 4),
        ("load_balanced_minibatch", {"batch": 15}, 1, 15),
        ("load_balanced_minibatch", {"batch": 15, "average": "workers"}, 1, 16 / (1 / 8 + 1 / 4 + 1 / 2 + 1)),
        ("async_sgd", {}, 4, 1),
        ("ringmaster", {"threshold": 3}, 3, 1),
        ("ringmaster", {"threshold": 30}, 4, 1),  # no more than without a threshold
        ("naive_optimal_asgd", {"noise_ratio": 1.5}, 2, 1),
        ("ringleader", {}, 4, 8 / 7.5),
        ("ia2_sgd", {}, 15, 4 / 15),  # while the slowest computes there are 15 updates
        ("hogwild", {}, 4 * 8 / 15, 15 / 8),  # of 15/8 additions rank 0 counts one
        ("sdde_asgd", {"active": 2}, 2, 1),
        ("ata", {"batch": 6}, 1, 6),
        ("shadowheart", {"noise_ratio": 4.0, "compressor": {"name": "identity"}}, 1, 7),
        # s² Σ 1/((1.5 + 8 h_i) s + 12 h_i) is 1 for the first three at s = 6.293: 6, 3 and 1 gradients, and 25 messages
        # each, in place of which the vector goes
        ("shadowheart", {"noise_ratio": 4.0, "compressor": RAND_1}, 1, 10),
        ("adaptive_shadowheart", {"noise_ratio": 4.0, "compressor": RAND_1}, None, None),
        ("sgd_one", {}, 1, 1),
        ("fedbuff", {"local_stepsize": 0.1, "local_steps": 2, "buffer": 3}, None, None),
        ("picky_sgd", {"radius": 1.0}, None, None),
    ],
)
def test_staleness_and_noise_behind_an_update(name, parameters, delay, batch):
    form, _ = prediction.form_of(case(name, parameters, [1, 2, 4, 8]), 0)
    assert (form.delay, form.batch) == (delay and pytest.approx(delay), batch and pytest.approx(batch))


def test_all_methods_get_the_time_of_their_bound_up_to_one_constant():
    """L = 1, D = 2048, σ² = 3, ε = 1: 8 to 16 times the bound, which has 1 in place of the constants 8 and 16."""
    h = numpy.array([1.0, 2, 4, 8])
    targets = {"metric": "gap", "values": [0.5], "headline": 0.5}
    own = {
        "minibatch_sgd": ({}, 8 * (1 + 3 / 4)),
        "m_sync_sgd": ({"quorum": 2, "stop_stale": True}, 2 * (1 + 3 / 2)),
        "async_sgd": ({}, 4 / (15 / 8) * (1 + 3 / 4)),
        "malenia": ({"batch": 4, "stop_stale": True}, 8 + 3.75 * 3 / 4),
        "ringleader": ({}, 8 + 3.75 * 3 / 4),
        "ia2_sgd": ({}, 8 * (1 + 3 / 4)),
        "hogwild": ({}, 4 / (15 / 8) * (1 + 3 / 4)),
    }
    for name, (parameters, bound) in own.items():
        seconds = prediction.predict(case(name, parameters, h, targets=targets), 0)["targets"][0]["seconds"]
        assert 4 <= seconds / (2048 * bound) <= 32, name


def test_a_problem_may_leave_its_constants_out():
    cell = case("ringleader", {}, [1, 2], toy=Toy())
    predicted = prediction.predict(cell, 0)
    assert predicted["update_seconds"]["least"] == 1
    assert predicted["constants"] == {"smoothness": None, "gap": None, "variance": None, "exact": False}
    assert [target["seconds"] for target in predicted["targets"]] == [None]


def test_what_is_not_modelled_is_not_predicted():
    cell = case("rennala", {"batch": 2}, [1, 2])
    assert prediction.predict(cell, 0) is not None
    assert prediction.predict(replace(cell, clock="native"), 0) is None
    assert prediction.predict(replace(cell, compute=None), 0) is None
    assert prediction.predict(replace(cell, algorithm_name="d_psgd"), 0) is None


@pytest.mark.parametrize("d", [1, 2, 30])
def test_constants_of_the_quadratic_are_exact(d):
    problem = Quadratic(dimension=d, noise=0.2, strong_convexity=0.01).prepare(1, 0)
    f, zero = problem.objective(1), numpy.zeros(d)
    A = numpy.array([f.gradient(e, 0.0) - f.gradient(zero, 0.0) for e in numpy.eye(d)])
    known = problem.constants()
    assert known["smoothness"] == pytest.approx(linalg.eigvalsh(A)[-1])
    assert known["gap"] == problem.evaluate(problem.start())["gap"]
    assert known["minimum"] == pytest.approx(problem.evaluate(problem.minimiser)["loss"])
    assert known["variance"] == pytest.approx(0.04 * d)
    assert known["exact"] is True


@pytest.mark.parametrize("noise_model", ["additive_scalar", "additive_vector", "progress"])
def test_the_variance_of_the_quadratic_is_that_of_its_gradients(noise_model):
    of = {"noise": 0.5} if noise_model != "progress" else {"probability": 0.25}
    problem = Quadratic(dimension=9, noise_model=noise_model, **of).prepare(1, 0)
    x, f = problem.start(), problem.objective(1)
    g = numpy.array([f.gradient(x, f.sample()) for _ in range(20_000)])
    assert problem.constants()["variance"] == pytest.approx(g.var(axis=0).sum(), rel=0.05)
    assert problem.constants()["exact"] == (noise_model != "progress")


def test_constants_of_logistic_regression_are_those_of_its_start():
    problem = Logistic(batch=8, l2=0.01).prepare(5, 3)
    known, x = problem.constants(), problem.start()
    assert known == Logistic(batch=8, l2=0.01).prepare(5, 3).constants()
    assert known["gap"] == pytest.approx(math.log(10)) and known["minimum"] == 0 and known["exact"] is False
    # at W = 0 the Hessian is (I/C - 11'/C²) ⊗ (features' features / N) + l2, of largest eigenvalue λ/C + l2
    largest = linalg.eigvalsh(problem.features.T @ problem.features / len(problem.features))[-1]
    assert known["smoothness"] == pytest.approx(largest / 10 + 0.01, rel=1e-3)
    every = [
        gradient(x.reshape(problem.shape), problem.features[[j]], problem.one_hot[[j]], 0.01)
        for j in range(len(problem.features))
    ]
    assert known["variance"] == pytest.approx(numpy.var(every, axis=0).sum() / 8, rel=0.15)  # in batches of 8


@needs_torch
def test_constants_of_the_network():
    problem = MLP(precision="float64", activation="tanh", hidden=3, batch=4).prepare(3, 1)
    known, x = problem.constants(), problem.start()
    assert known == MLP(precision="float64", activation="tanh", hidden=3, batch=4).prepare(3, 1).constants()
    full = lambda y: problem.loss_and_gradient(y, problem.features, problem.labels)[1].numpy()  # noqa: E731
    basis = x.new_ones(len(x)).diag()
    hessian = numpy.array([(full(x + 1e-4 * e) - full(x - 1e-4 * e)) / 2e-4 for e in basis])
    eigenvalues = linalg.eigvalsh((hessian + hessian.T) / 2)
    assert known["smoothness"] == pytest.approx(abs(eigenvalues).max(), rel=0.05)
    assert known["gap"] == pytest.approx(problem.evaluate(x)["loss"]) and known["exact"] is False
    f = problem.objective(1)
    g = numpy.array([f.gradient(x, f.sample()).numpy() for _ in range(2000)])
    assert known["variance"] == pytest.approx(g.var(axis=0).sum(), rel=0.2)


def test_estimating_does_not_touch_a_run():
    problem = Logistic().prepare(2, 0)
    before = problem.objective(1).sample()
    constants.estimated(problem, lambda x: x)
    assert problem.objective(1).sample().tolist() == before.tolist()
