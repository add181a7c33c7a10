"""Objectives: gradients, noise laws, minima, splits of data, and the same bits everywhere."""

import hashlib
import importlib.util
import inspect
import math
import subprocess
import sys

import numpy
import pytest
from scipy import linalg, stats

from mpibench import datasets
from mpibench.errors import InvalidInput
from mpibench.problems.logistic import Logistic
from mpibench.problems.mlp import MLP
from mpibench.problems.quadratic import Quadratic
from mpibench.problems.quadratics import Quadratics
from mpibench.seeds import Purpose, generator

needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")


def numerical_gradient(function, x, step=1e-5):
    """Central differences."""
    return numpy.array([
        (function(x + step * e) - function(x - step * e)) / (2 * step) for e in numpy.eye(len(x))
    ])  # fmt: skip


# ---------------------------------------------------------------- quadratic


def dense(problem):
    """A and b, read off the gradient: A e_j = ∇f(e_j) - ∇f(0), b = -∇f(0)."""
    f = problem.objective(1)
    at_zero = f.gradient(numpy.zeros(problem.dimension), 0.0)
    columns = [f.gradient(e, 0.0) - at_zero for e in numpy.eye(problem.dimension)]
    return numpy.array(columns).T, -at_zero


@pytest.mark.parametrize(("d", "mu"), [(1, 1e-6), (2, 1e-6), (7, 0.1), (40, 1e-6), (40, 0.3)])
def test_quadratic_is_the_tridiagonal_one_with_smallest_eigenvalue_mu(d, mu):
    problem = Quadratic(dimension=d, strong_convexity=mu).prepare(1, 0)
    A, b = dense(problem)
    shift = A[0, 0] - 0.5
    expected = linalg.toeplitz([0.5, -0.25] + [0.0] * (d - 2)) if d > 1 else numpy.array([[0.5]])
    assert pytest.approx(expected + shift * numpy.eye(d), abs=1e-15) == A
    assert linalg.eigvalsh(A)[0] == pytest.approx(mu, abs=1e-15)
    assert b.tolist() == [-0.25] + [0.0] * (d - 1)
    assert problem.start().tolist() == [math.sqrt(d)] + [0.0] * (d - 1)


@pytest.mark.parametrize("d", [1, 2, 6])
def test_quadratic_gradient_is_that_of_its_loss(d):
    problem = Quadratic(dimension=d).prepare(1, 0)
    x = numpy.random.default_rng(0).standard_normal(d)
    g = problem.objective(1).gradient(x, 0.0)
    assert numerical_gradient(lambda y: problem.evaluate(y)["loss"], x) == pytest.approx(g, abs=1e-9)
    assert problem.evaluate(x)["gradient_norm_squared"] == pytest.approx(g @ g)


@pytest.mark.parametrize(("d", "mu"), [(1, 1e-6), (2, 0.2), (30, 1e-6), (30, 1e-2), (300, 1e-6)])
def test_quadratic_minimum_is_that_of_a_dense_solver(d, mu):
    problem = Quadratic(dimension=d, strong_convexity=mu).prepare(1, 0)
    A, b = dense(problem)
    x = linalg.solve(A, b, assume_a="pos")
    assert problem.minimiser == pytest.approx(x, rel=1e-8)
    assert problem.minimum == pytest.approx(x @ A @ x / 2 - b @ x, rel=1e-8)
    at_start = problem.evaluate(problem.start())
    assert at_start["gap"] == pytest.approx(at_start["loss"] - problem.minimum, rel=1e-9)


def test_quadratic_minimum_at_the_published_size():
    problem = Quadratic().prepare(1, 0)
    banded = numpy.array([numpy.full(1729, problem.diagonal), numpy.full(1729, -0.25)])
    b = numpy.zeros(1729)
    b[0] = -0.25
    assert problem.minimiser == pytest.approx(linalg.solveh_banded(banded, b, lower=True), rel=1e-8)
    assert problem.evaluate(problem.minimiser)["gradient_norm_squared"] < 1e-28


@pytest.mark.parametrize("size", [1e-3, 1e-6, 1e-9])
def test_gap_keeps_its_digits_where_the_difference_of_losses_has_none(size):
    problem = Quadratic().prepare(1, 0)
    k = numpy.arange(1, 1730)
    eigenvector = numpy.sin(5 * math.pi * k / 1730) * math.sqrt(2 / 1730)
    eigenvalue = math.sin(5 * math.pi / 3460) ** 2 + (problem.diagonal - 0.5)
    gap = problem.evaluate(problem.minimiser + size * eigenvector)["gap"]
    assert gap == pytest.approx(eigenvalue * size**2 / 2, rel=1e-6, abs=0)


def test_additive_scalar_is_one_number_for_all_coordinates():
    f = Quadratic(dimension=20, noise=0.5).prepare(1, 3).objective(1)
    x = numpy.random.default_rng(0).standard_normal(20)
    exact = f.gradient(x, 0.0)
    samples = [f.sample() for _ in range(2000)]
    assert f.gradient(x, samples[0]) - exact == pytest.approx(numpy.full(20, samples[0]))
    assert stats.kstest(samples, stats.norm(scale=0.5).cdf).pvalue > 0.01


def test_additive_vector_is_independent_in_every_coordinate():
    f = Quadratic(dimension=20, noise=0.5, noise_model="additive_vector").prepare(1, 3).objective(1)
    x = numpy.random.default_rng(0).standard_normal(20)
    exact = f.gradient(x, 0.0)
    noise = numpy.array([f.gradient(x, f.sample()) - exact for _ in range(3000)])
    assert stats.kstest(noise.ravel(), stats.norm(scale=0.5).cdf).pvalue > 0.01
    assert abs(numpy.corrcoef(noise.T) - numpy.eye(20)).max() < 0.1


@pytest.mark.parametrize(
    ("x", "behind"),
    [([0, 0, 0, 0], 0), ([2, 0, 0, 0], 1), ([1, 0, -3, 0], 3), ([0, 1e-300, 0, 0], 2), ([1, 2, 3, 4], 4)],
)
def test_progress_noise_multiplies_what_lies_behind_the_last_nonzero(x, behind):
    f = Quadratic(dimension=4, noise_model="progress", probability=0.25).prepare(1, 0).objective(1)
    x = numpy.array(x, dtype=float)
    exact = Quadratic(dimension=4).prepare(1, 0).objective(1).gradient(x, 0.0)
    assert f.gradient(x, 0.0).tolist() == [*exact[:behind], *[0.0] * (4 - behind)]
    assert f.gradient(x, 4.0).tolist() == [*exact[:behind], *(4 * exact[behind:])]
    assert 0.25 * f.gradient(x, 4.0) + 0.75 * f.gradient(x, 0.0) == pytest.approx(exact)  # unbiased


@pytest.mark.parametrize("shift", [0.0, 0.5])
@pytest.mark.parametrize(
    "noise", [{"noise": 0.5}, {"noise": 0.5, "noise_model": "additive_vector"},
              {"noise_model": "progress", "probability": 0.4}]
)  # fmt: skip
def test_gradients_at_a_point_have_the_same_bits_one_by_one_and_together(noise, shift):
    f = Quadratic(dimension=7, shift=shift, **noise).prepare(2, 0).objective(1)
    for x in (numpy.array([0.3, -1.0, 0.1, 0.0, 0.7, 0.0, 0.0]), numpy.zeros(7)):
        at = f.at(x)
        for ξ in (f.sample() for _ in range(20)):
            assert at(ξ).tobytes() == f.gradient(x, ξ).tobytes()


def test_samples_drawn_together_are_those_drawn_one_by_one():
    progress = Quadratic(dimension=4, noise_model="progress", probability=0.4)
    one, other = progress.prepare(2, 3).objective(2), progress.prepare(2, 3).objective(2)
    together = [*other.samples(1), *other.samples(0), *other.samples(200), other.sample(), *other.samples(7)]
    assert together == [one.sample() for _ in range(209)] and set(together) == {0.0, 2.5}
    tossed = numpy.random.default_rng(5).random(200)
    assert numpy.random.default_rng(5).random(64).tolist() == tossed[:64].tolist()  # so blocks change no number


def test_workers_that_share_f_share_what_is_known_at_a_point():
    x, y = numpy.ones(4), numpy.zeros(4)
    problem = Quadratic(dimension=4).prepare(2, 0)
    alike = problem.objective(1), problem.objective(2)
    assert alike[0].at(x) is alike[1].at(x) and alike[0].at(y) is not alike[1].at(x)
    problem = Quadratic(dimension=4, shift=1.0).prepare(2, 0)
    unlike = problem.objective(1), problem.objective(2)
    assert unlike[0].at(x)(0.0).tolist() == unlike[0].gradient(x, 0.0).tolist() != unlike[1].at(x)(0.0).tolist()


def test_progress_coin_is_heads_with_its_probability():
    f = Quadratic(dimension=4, noise_model="progress", probability=0.2).prepare(1, 0).objective(1)
    coins = [f.sample() for _ in range(5000)]
    assert set(coins) == {0.0, 5.0}
    assert stats.binomtest(coins.count(5.0), 5000, 0.2).pvalue > 0.01


def test_shifts_cancel_and_have_their_size():
    problem = Quadratic(dimension=9, shift=0.7).prepare(5, 2)
    plain = Quadratic(dimension=9).prepare(5, 2)
    x = numpy.random.default_rng(0).standard_normal(9)
    shifts = [problem.objective(i).gradient(x, 0.0) - plain.objective(i).gradient(x, 0.0) for i in range(1, 6)]
    assert sum(shifts) == pytest.approx(numpy.zeros(9), abs=1e-14)
    assert math.sqrt(numpy.mean([s @ s for s in shifts])) == pytest.approx(0.7)
    assert len({s.tobytes() for s in shifts}) == 5
    assert problem.evaluate(x) == plain.evaluate(x)
    assert (Quadratic(dimension=9, shift=0.7).prepare(5, 3).shifts != problem.shifts).any()
    alone = Quadratic(dimension=9, shift=0.7).prepare(1, 2)
    assert alone.objective(1).gradient(x, 0.0).tolist() == plain.objective(1).gradient(x, 0.0).tolist()


def test_noise_that_does_not_belong_to_the_model_is_refused():
    with pytest.raises(InvalidInput, match="probability"):
        Quadratic(noise_model="progress", noise=0.01)
    with pytest.raises(InvalidInput, match="noise"):
        Quadratic(probability=0.5)


# ---------------------------------------------------------------- data


def write_libsvm(path, rows=60, classes=(-1, 3, 7), features=5, key=0):
    """A random LIBSVM file; returns its matrix and labels."""
    rng = numpy.random.default_rng(key)
    X = numpy.round(rng.standard_normal((rows, features)), 3) * (rng.random((rows, features)) < 0.8)
    X[:, -1] = 1.5  # so that the last feature is in the file
    y = numpy.array(classes)[rng.integers(len(classes), size=rows)]
    y[: len(classes)] = classes
    values = [" ".join(f"{j + 1}:{v}" for j, v in enumerate(row) if v) for row in X]
    path.write_text("".join(f"{label} {text}\n" for label, text in zip(y, values, strict=True)))
    return X, y


def test_digits_are_scaled_and_cannot_be_written():
    data = datasets.load("digits")
    assert data.features.shape == (1797, 64) and data.classes == tuple(range(10))
    assert (data.features.min(), data.features.max()) == (0.0, 1.0)
    with pytest.raises(ValueError, match="read-only"):
        data.features[0, 0] = 1.0


def test_libsvm_file_is_read_exactly(tmp_path):
    path = tmp_path / "three.svm"
    X, y = write_libsvm(path)
    data = datasets.load(str(path))
    assert data.features.tolist() == X.tolist()
    assert data.classes == (-1, 3, 7)
    assert numpy.array(data.classes)[data.labels].tolist() == y.tolist()
    assert data.checksum == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_rewritten_file_is_read_again(tmp_path):
    path = tmp_path / "three.svm"
    write_libsvm(path, rows=60)
    first = datasets.load(str(path))
    assert datasets.load(str(path)) is first
    write_libsvm(path, rows=61, key=1)
    assert len(datasets.load(str(path)).labels) == 61


@pytest.mark.parametrize("split", ["even", "label", "dirichlet"])
@pytest.mark.parametrize("workers", [1, 2, 7, 97])
@pytest.mark.parametrize("alpha", [1e-3, 0.1, 100.0])
def test_splits_give_every_sample_to_one_worker_in_equal_parts(split, workers, alpha):
    labels = datasets.load("digits").labels[:500]
    parts = datasets.divide(labels, workers, split, alpha, numpy.random.default_rng(0))
    assert sorted(numpy.concatenate(parts).tolist()) == list(range(500))
    assert sorted({len(part) for part in parts} - {500 // workers, -(-500 // workers)}) == []
    again = datasets.divide(labels, workers, split, alpha, numpy.random.default_rng(0))
    assert all((a == b).all() for a, b in zip(parts, again, strict=True))
    if workers > 1:
        other = datasets.divide(labels, workers, split, alpha, numpy.random.default_rng(1))
        assert any(set(a) != set(b) for a, b in zip(parts, other, strict=True))


def test_splits_differ_in_how_many_classes_a_worker_has():
    labels = datasets.load("digits").labels

    def classes(split, alpha=None):
        parts = datasets.divide(labels, 20, split, alpha, numpy.random.default_rng(0))
        effective = [1 / ((numpy.bincount(labels[part], minlength=10) / len(part)) ** 2).sum() for part in parts]
        return float(numpy.median(effective))  # as many equally frequent classes would be as mixed

    assert classes("even") > 8.5
    assert classes("dirichlet", 1000.0) > 8.5
    assert 3.0 < classes("dirichlet", 1.0) < 8.0
    assert classes("dirichlet", 0.05) < 2.0
    assert classes("label") < 2.0


def test_dirichlet_does_not_leave_the_rests_to_the_last_worker():
    labels = datasets.load("digits").labels
    largest = []  # share of the most frequent class at the first and at the last worker
    for seed in range(60):
        parts = datasets.divide(labels, 30, "dirichlet", 1.0, numpy.random.default_rng(seed))
        largest.append([numpy.bincount(labels[part]).max() / len(part) for part in (parts[0], parts[-1])])
    assert stats.wilcoxon(*numpy.transpose(largest)).pvalue > 0.01


def test_label_split_is_sorted():
    labels = datasets.load("digits").labels
    parts = datasets.divide(labels, 10, "label", None, numpy.random.default_rng(0))
    runs = numpy.concatenate([labels[part] for part in parts])
    assert (numpy.diff(runs) >= 0).all()


def test_shared_data_are_those_of_every_worker():
    of = datasets.Classification(split="shared")
    assert not of.heterogeneous
    everything = datasets.share(of, 2000, 0)  # more workers than samples
    assert len(everything.parts) == 2000 and everything.weight(3) == 1
    assert all(part.tolist() == list(range(len(everything.labels))) for part in everything.parts[::500])
    problem = Logistic(split="shared", batch=1000).prepare(3, 0)
    one, other = problem.objective(1), problem.objective(2)
    x, ξ = problem.start() + 0.1, numpy.arange(100)
    assert (one.gradient(x, ξ) == other.gradient(x, ξ)).all()
    assert one.sample().tolist() != other.sample().tolist()


def test_held_out_part_is_stratified_and_the_same_for_every_seed():
    labels = datasets.load("digits").labels
    train, test = datasets.hold_out(labels, 0.2)
    assert sorted([*train, *test]) == list(range(1797))
    assert numpy.bincount(labels[test]).tolist() == [round(0.2 * m) for m in numpy.bincount(labels)]
    one, other = (datasets.share(datasets.Classification(), 4, seed) for seed in (0, 1))
    assert (one.test_features == other.test_features).all() and (one.features == other.features).all()
    assert set(one.parts[0]) != set(other.parts[0])
    rare = numpy.array([0] * 50 + [1])
    assert datasets.hold_out(rare, 0.9)[0].tolist()[-1] == 50  # a class of one sample stays in training


def test_provenance_says_what_every_worker_has(tmp_path):
    path = tmp_path / "three.svm"
    write_libsvm(path)
    of = datasets.Classification(data=str(path), test_fraction=0.25, split="dirichlet", alpha=0.3)
    shared = datasets.share(of, 4, 11)
    told = shared.provenance
    assert told["labels"] == [[int((shared.labels[part] == c).sum()) for c in range(3)] for part in shared.parts]
    assert (told["name"], told["partition"], told["seed"]) == ("three.svm", "dirichlet(0.3)", 11)
    assert told["classes"] == [-1, 3, 7]
    assert told.keys() >= {"version", "licence", "checksum"}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("text.svm", b"not a number 1:2\n", "is not in LIBSVM format"),
        ("colon.svm", b"1 1:\n", "is not in LIBSVM format"),
        ("pair.svm", b"1 1:2 3\n", "is not in LIBSVM format"),
        ("order.svm", b"1 2:1 1:3\n", "is not in LIBSVM format"),
        ("index.svm", b"1 -5:1\n", "is not in LIBSVM format"),
        ("large.svm", b"1 99999999999999999999:1\n", "is not in LIBSVM format"),
        ("binary.svm", b"\xff\xfe\x00\x01", "is not in LIBSVM format"),
        ("empty.svm", b"", "holds no sample"),
        ("comment.svm", b"# nothing\n", "holds no sample"),
        ("nan.svm", b"1 1:nan\n2 1:1\n", "infinite or not a number"),
        ("inf.svm", b"1 1:inf\n2 1:1\n", "infinite or not a number"),
        ("label.svm", b"nan 1:1\n1 1:1\n", "not whole numbers"),
        ("regression.svm", b"0.5 1:1\n1.5 1:1\n", "not whole numbers"),
        ("single.svm", b"1 1:1\n1 1:2\n", "one class only (1)"),
        ("wide.svm", b"1 2000000000:1\n2 1:1\n", "GiB as a dense matrix"),
        ("packed.svm.gz", b"plain text", "cannot be read"),
        ("cut.svm.gz", b"\x1f\x8b\x08\x00aaaaaaaaaaaaaa", "cannot be read"),
        ("absent.svm", None, "cannot be read (No such file or directory)"),
    ],
)
def test_unusable_files_are_refused_in_one_sentence(tmp_path, name, content, said):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidInput) as error:
        Logistic(data=str(path)).prepare(1, 0)
    assert said in str(error.value) and name in str(error.value) and "\n" not in str(error.value)


def test_more_workers_than_samples_and_empty_tests_are_refused(tmp_path):
    with pytest.raises(InvalidInput, match="1438 training samples, too few for 2000 workers"):
        Logistic().prepare(2000, 0)
    with pytest.raises(InvalidInput, match="test_fraction = 0.0001"):
        Logistic(test_fraction=1e-4).prepare(2, 0)


@pytest.mark.parametrize("problem", [Logistic, MLP])
def test_alpha_belongs_to_dirichlet(problem):
    with pytest.raises(InvalidInput, match="needs its concentration"):
        problem(split="dirichlet")
    with pytest.raises(InvalidInput, match="belongs to"):
        problem(alpha=0.1)


# ---------------------------------------------------------------- logistic


@pytest.fixture
def small(tmp_path):
    """A LIBSVM file of 60 samples, 3 classes and 5 features."""
    path = tmp_path / "small.svm"
    write_libsvm(path)
    return str(path)


def test_logistic_gradient_is_that_of_its_loss(small):
    problem = Logistic(data=small, l2=0.05).prepare(1, 0)
    x = numpy.random.default_rng(0).standard_normal(problem.dimension)
    g = problem.objective(1).gradient(x, numpy.arange(len(problem.features)))
    assert numerical_gradient(lambda y: problem.evaluate(y)["loss"], x) == pytest.approx(g, abs=1e-8)
    assert problem.evaluate(x)["gradient_norm_squared"] == pytest.approx(g @ g)


def test_logistic_values_by_hand(tmp_path):
    path = tmp_path / "two.svm"
    path.write_text("-1 1:2\n-1 1:2\n1 1:3\n1 1:3\n")  # one of each is held out
    problem = Logistic(data=str(path), test_fraction=0.5, l2=0.2).prepare(1, 0)
    assert (problem.dimension, problem.model_bytes) == (4, 32)
    assert problem.evaluate(problem.start())["loss"] == pytest.approx(math.log(2))
    x = numpy.array([1.0, 0.0, 0.0, 2.0])  # scores of a: a for class -1, and 2 for class 1
    expected = (math.log(1 + math.exp(0)) + math.log(1 + math.exp(1))) / 2 + 0.1 * 5
    assert problem.evaluate(x)["loss"] == pytest.approx(expected)
    assert problem.evaluate(x)["accuracy"] == 0.5  # a tie goes to the first class, and 3 > 2


def check_mean_over_all_samples_is_the_full_gradient(parameters, workers, x):
    """(1/n) sum_i E g_i = ∇f, exactly: every sample of every worker once, as a batch of one."""
    problem = parameters.prepare(workers, 0)
    mean = 0.0
    for i in range(1, workers + 1):
        f = problem.objective(i)
        mean = mean + sum(f.gradient(x, f.part[j : j + 1]) for j in range(len(f.part))) / len(f.part) / workers
    whole = parameters.prepare(1, 0).objective(1)
    assert float(abs(mean - whole.gradient(x, whole.part)).max()) < 1e-12


@pytest.mark.parametrize("workers", [2, 7])
def test_logistic_samples_are_unbiased(small, workers):
    x = numpy.random.default_rng(0).standard_normal(18)
    check_mean_over_all_samples_is_the_full_gradient(Logistic(data=small, batch=1), workers, x)


def check_samples_come_from_the_own_part(problem, i):
    f = problem.objective(i)
    part = set(numpy.asarray(f.part).tolist())
    samples = numpy.array([numpy.asarray(f.sample()) for _ in range(3000)])
    stream = generator(problem.seed, Purpose.SAMPLING, i)
    assert samples[0].tolist() == f.part[stream.integers(len(part), size=problem.parameters.batch)].tolist()
    assert samples.shape[1] == problem.parameters.batch
    assert set(samples.ravel().tolist()) == part
    counts = numpy.unique(samples, return_counts=True)[1]
    assert stats.chisquare(counts).pvalue > 0.01


def test_logistic_draws_uniformly_from_the_own_part(small):
    check_samples_come_from_the_own_part(Logistic(data=small, batch=3, split="label").prepare(4, 1), 2)


def test_logistic_learns_the_digits():
    problem = Logistic(l2=1e-3).prepare(1, 0)
    f, x = problem.objective(1), problem.start()
    everything = numpy.arange(len(problem.features))
    losses = []
    for _ in range(150):
        losses.append(problem.evaluate(x)["loss"])
        x = x - 0.5 * f.gradient(x, everything)
    assert (numpy.diff(losses) < 0).all()  # 0.5 is below 2/L
    assert problem.evaluate(x)["accuracy"] > 0.9


# ---------------------------------------------------------------- mlp


@needs_torch
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_mlp_gradient_is_that_of_its_formula(small, activation):
    import torch

    problem = MLP(data=small, hidden=4, activation=activation, precision="float64").prepare(1, 0)
    x = problem.start()
    rows = problem.objective(1).part
    g = problem.objective(1).gradient(x, rows).numpy()

    def loss(values):
        """The docstring's formula in numpy."""
        U, u, V, v = numpy.split(values, [20, 24, 36])
        hidden = problem.features.numpy() @ U.reshape(4, 5).T + u
        hidden = numpy.maximum(hidden, 0) if activation == "relu" else numpy.tanh(hidden)
        scores = hidden @ V.reshape(3, 4).T + v
        chosen = scores[numpy.arange(len(scores)), problem.labels.numpy()]
        return (numpy.log(numpy.exp(scores).sum(axis=1)) - chosen).mean()

    assert problem.dimension == 39 and problem.model_bytes == 8 * 39
    assert problem.evaluate(x)["loss"] == pytest.approx(loss(x.numpy()))
    assert numerical_gradient(loss, x.numpy()) == pytest.approx(g, abs=1e-8)
    assert problem.evaluate(x)["gradient_norm_squared"] == pytest.approx(g @ g)
    assert problem.evaluate(torch.full_like(x, math.nan))["loss"] != problem.evaluate(x)["loss"]


@needs_torch
@pytest.mark.parametrize("workers", [2, 7])
def test_mlp_samples_are_unbiased(small, workers):
    parameters = MLP(data=small, hidden=4, batch=1, precision="float64")
    check_mean_over_all_samples_is_the_full_gradient(parameters, workers, parameters.prepare(1, 0).start())


@needs_torch
def test_mlp_draws_uniformly_from_the_own_part(small):
    check_samples_come_from_the_own_part(MLP(data=small, batch=3, split="label").prepare(4, 1), 2)


@needs_torch
def test_mlp_start_follows_the_seed_and_not_the_precision(small):
    single = MLP(data=small, precision="float32").prepare(3, 5).start()
    double = MLP(data=small, precision="float64").prepare(3, 5).start()
    assert (single.element_size(), double.element_size()) == (4, 8)
    assert (single == double.float()).all()
    assert (MLP(data=small).prepare(3, 6).start() != single).any()
    assert float(abs(single[: 32 * 5]).max()) <= 1 / math.sqrt(5) < 2 * float(abs(single[: 32 * 5]).max())


@needs_torch
def test_mlp_never_writes_and_returns_plain_vectors(small):
    import torch

    problem = MLP(data=small).prepare(2, 0)
    x, f = problem.start(), problem.objective(1)
    before, version = x.clone(), x._version
    g = f.gradient(x, f.sample())
    problem.evaluate(x)
    assert x._version == version and (x == before).all() and not x.requires_grad
    assert torch.get_num_threads() == 1
    assert (g.shape, g.dtype, g.requires_grad) == (x.shape, x.dtype, False)


def test_mlp_without_torch_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(InvalidInput, match="needs torch, which is not installed"):
        MLP().prepare(2, 0)


# ---------------------------------------------------------------- all of them

PROBLEMS = {
    "scalar": Quadratic(dimension=50, noise=0.1, shift=0.3),
    "vector": Quadratic(dimension=50, noise=0.1, noise_model="additive_vector"),
    "progress": Quadratic(dimension=50, noise_model="progress", probability=0.5),
    "quadratics": Quadratics(dimension=50, heterogeneity=3.0, noise=0.1),
    "interpolation": Quadratics(dimension=50, heterogeneity=3.0, noise=0.1, interpolation=True),
    "logistic": Logistic(split="dirichlet", alpha=0.3),
    "mlp32": MLP(batch=24),
    "mlp64": MLP(precision="float64", activation="tanh", split="label"),
}
NAMES = [pytest.param(name, marks=needs_torch if name.startswith("mlp") else ()) for name in PROBLEMS]


def digest(parameters, seed):
    """Hash of the points and metrics of 20 steps, two workers in turn."""
    problem = parameters.prepare(2, seed)
    f, x, text = [problem.objective(1), problem.objective(2)], problem.start(), hashlib.sha256()
    for k in range(20):
        x = x - 0.1 * f[k % 2].gradient(x, f[k % 2].sample())
        text.update(numpy.asarray(x).tobytes() + repr(problem.evaluate(x)).encode())
    return text.hexdigest()


@pytest.mark.parametrize("name", NAMES)
def test_the_seed_decides(name):
    one, same, other = (digest(PROBLEMS[name], seed) for seed in (0, 0, 1))
    assert one == same != other


def test_same_bits_in_another_process():
    torch = importlib.util.find_spec("torch") is not None
    chosen = [parameters for name, parameters in PROBLEMS.items() if torch or not name.startswith("mlp")]
    imports = [f"from {type(parameters).__module__} import {type(parameters).__name__}" for parameters in chosen]
    prints = [f"print(digest({parameters!r}, 7))" for parameters in chosen]
    program = "\n".join(["import hashlib, numpy", *imports, inspect.getsource(digest), *prints])
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert other.stdout.split() == [digest(parameters, 7) for parameters in chosen]


@pytest.mark.parametrize("name", NAMES)
def test_workers_draw_from_streams_of_their_own(name):
    problem = PROBLEMS[name].prepare(2, 0)
    first, second, first_again = (problem.objective(i) for i in (1, 2, 1))
    paths = [[numpy.asarray(f.sample()).tolist() for _ in range(20)] for f in (first, second, first_again)]
    assert paths[0] == paths[2] != paths[1]


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_fresh_pure_and_the_same_wherever_x_lies(name):
    problem = PROBLEMS[name].prepare(2, 0)
    f, start = problem.objective(2), problem.start()
    x, ξ = start + 0.01, f.sample()
    if isinstance(x, numpy.ndarray):
        x.flags.writeable = False
    g = f.gradient(x, ξ)
    bits = numpy.asarray(g).tobytes()
    g += 1.0  # the caller's own
    size = x.nbytes // len(x)
    for offset in range(0, 64, size):
        buffer = bytearray(x.nbytes + 128)
        base = numpy.frombuffer(buffer, dtype=numpy.uint8).ctypes.data % 64
        first = (64 - base) % 64 + offset
        buffer[first : first + x.nbytes] = numpy.asarray(x).tobytes()
        moved = numpy.frombuffer(buffer, numpy.asarray(x).dtype, len(x), first)
        if not isinstance(x, numpy.ndarray):
            import torch

            moved = torch.from_numpy(moved)
        assert numpy.asarray(f.gradient(moved, ξ)).tobytes() == bits


@pytest.mark.parametrize("name", NAMES)
def test_metrics_are_those_announced_and_quiet_where_x_has_diverged(name, recwarn):
    problem = PROBLEMS[name].prepare(2, 0)
    x = problem.start()
    values = problem.evaluate(x)
    assert values.keys() == problem.metrics.keys()
    assert all(type(value) is float and math.isfinite(value) for value in values.values())
    assert set(problem.metrics.values()) <= {"lower", "higher"}
    assert (len(x), x.nbytes) == (problem.dimension, problem.model_bytes)
    diverged = problem.evaluate(x + math.inf)
    assert not math.isfinite(diverged["loss"]) and not math.isfinite(diverged["gradient_norm_squared"])
    assert not recwarn.list
