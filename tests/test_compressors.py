"""Every compressor through real bytes: its constants, its bits, its randomness, and what it refuses."""

import math
from dataclasses import dataclass
from enum import IntEnum
from fractions import Fraction

import numpy
import pytest

from mpibench import catalogue
from mpibench.compressors import ErrorFeedback, Memoryless, NotFinite, WrongMessage
from mpibench.compressors._parts import norm, norms
from mpibench.compressors._sparse import places_bits
from mpibench.compressors.flattened_one_bit import flatten, hadamard, padded_length, restore
from mpibench.compressors.low_rank import Factors
from mpibench.compressors.top_k import largest
from mpibench.errors import InvalidInput
from mpibench.node import Packed

SHARED = (7, 6, 0, 3)  # a seed that sender and receiver have in common
TYPES = ("float32", "float64")


def rng(seed=0):
    return numpy.random.default_rng(seed)


def make(name, **parameters):
    return catalogue.load("compressor", name)(**parameters)


def index(d):
    """ceil(log2 d)."""
    return math.ceil(math.log2(d))


def blocks(d, block_bits):
    """The padded lengths of the blocks of flattening, in another way."""
    sizes = [2**block_bits] * (d // 2**block_bits)
    return sizes + ([2 ** math.ceil(math.log2(d % 2**block_bits))] if d % 2**block_bits else [])


@dataclass(frozen=True)
class Case:
    """A compressor, its bits by the formula of its paper for d coordinates of w bits, and its ω and δ for d."""

    compressor: object
    bits: object
    omega: object = lambda d: None
    delta: object = lambda d: None
    atol: float = 0.0  # of a mean of many, where it is not quite unbiased
    square: bool = True  # C(x) for every length of x

    def __str__(self):
        fields = vars(self.compressor)
        return "-".join(str(v) for k, v in sorted(fields.items(), key=lambda item: item[0] != "name") if v is not None)


def near_square(d):
    """(rows, columns) of one matrix for d coordinates."""
    rows = math.ceil(math.sqrt(d))
    return rows, math.ceil(d / rows)


def contraction(omega):
    return lambda d: 1 - omega(d) if omega(d) < 1 else None


def qsgd(s, B):
    size = lambda d: min(B or d, d)  # noqa: E731
    omega = lambda d: min(size(d) / s**2, math.sqrt(size(d)) / s)  # noqa: E731
    bits = lambda d, w: d * (1 + math.ceil(math.log2(s + 1))) + w * math.ceil(d / size(d))  # noqa: E731
    return Case(make("qsgd", levels=s, bucket=B), bits, omega, contraction(omega))


def rand_k(**parameters):
    k = lambda d: parameters.get("k") or max(1, math.floor(parameters["fraction"] * d + 1e-9))  # noqa: E731
    places = (lambda d: 0) if parameters.get("shared") else lambda d: min(k(d) * index(d), d)
    omega, delta = lambda d: d / k(d) - 1, lambda d: k(d) / d
    constants = (omega, contraction(omega)) if parameters.get("scaled", True) else (lambda d: None, delta)
    return Case(make("rand_k", **parameters), lambda d, w: w * k(d) + places(d), *constants)


LEAST = {"float16": 2.0**-22, "bfloat16": 2.0**-16}
CASES = [
    Case(make("identity"), lambda d, w: w * d, lambda d: 0.0, lambda d: 1.0),
    Case(make("top_k", k=1), lambda d, w: w + min(index(d), d), delta=lambda d: 1 / d),
    Case(
        make("top_k", fraction=0.4),
        lambda d, w: (k := max(1, math.floor(0.4 * d + 1e-9))) * w + min(k * index(d), d),
        delta=lambda d: max(1, math.floor(0.4 * d + 1e-9)) / d,
    ),
    rand_k(k=1),
    rand_k(fraction=0.4),
    rand_k(fraction=0.4, shared=True),
    rand_k(fraction=0.4, scaled=False),
    rand_k(fraction=0.7, scaled=True),
    qsgd(1, None),
    qsgd(7, 16),
    qsgd(64, 8),
    qsgd(300, None),
    Case(
        make("terngrad"),
        lambda d, w: 2 * d + w,
        lambda d: (math.sqrt(d) - 1) / 2,
        contraction(lambda d: (d**0.5 - 1) / 2),
    ),
    Case(make("natural"), lambda d, w: {32: 9, 64: 12}[w] * d, lambda d: 1 / 8, lambda d: 7 / 8),
    Case(make("sign"), lambda d, w: d),
    Case(make("scaled_sign"), lambda d, w: d + w, delta=lambda d: 1 / d),
    Case(make("scaled_sign", scale="l2"), lambda d, w: d + w),
    Case(make("dithered_one_bit"), lambda d, w: d + w, lambda d: d - 1, contraction(lambda d: d - 1)),
    Case(
        make("dithered_one_bit", bucket=16),
        lambda d, w: d + w * math.ceil(d / min(16, d)),
        lambda d: min(16, d) - 1,
        contraction(lambda d: min(16, d) - 1),
    ),
    Case(make("dithered_one_bit", level=2.0), lambda d, w: d),
    Case(make("dithered_one_bit", rho=3.0, bucket=32), lambda d, w: d + w * math.ceil(d / min(32, d))),
    *(
        Case(
            make("flattened_one_bit", rho=rho, block_bits=block_bits),
            lambda d, w, b=block_bits: sum(blocks(d, b)) + w * len(blocks(d, b)),
            lambda d, rho=rho: rho**2 - 1,
            atol=0.02,
        )
        for rho, block_bits in ((3.0, 16), (4.0, 4))
    ),
    *(
        Case(
            make("half_precision", type=kind, scaled=scaled, stochastic=stochastic),
            lambda d, w, scaled=scaled: 16 * d + 16 * scaled,
            lambda d, kind=kind, stochastic=stochastic: LEAST[kind] if stochastic else None,
            lambda d, kind=kind: 1 - LEAST[kind],
        )
        for kind, scaled, stochastic in (
            ("float16", False, False),
            ("float16", True, True),
            ("bfloat16", False, False),
            ("bfloat16", False, True),
        )
    ),
    *(
        Case(
            make("laq", bits_per_coordinate=b),
            lambda d, w, b=b: b * d + w,
            delta=lambda d, b=b: δ if (δ := 1 - d / (2**b - 1) ** 2) > 0 else None,
        )
        for b in (1, 4, 11)
    ),
    Case(make("lattice", bits_per_coordinate=16, side=0.01), lambda d, w: 16 * d + 64),
    Case(
        make("low_rank", rank=1),
        lambda d, w: w * min(d, sum(near_square(d))),
    ),
]
THRESHOLD = make("threshold", level=1.5)
ALL = [case.compressor for case in CASES] + [THRESHOLD]
UNBIASED = [case for case in CASES if case.compressor.omega(9) is not None]
CONTRACTIONS = [case for case in CASES if case.compressor.delta(64) is not None]

VECTORS = {
    "normal": lambda d: rng(1).standard_normal(d),
    "sparse": lambda d: numpy.where(numpy.arange(d) % 17 == 1 % d, 3.0, 0.0),
    "heavy": lambda d: numpy.clip(rng(2).standard_cauchy(d), -300, 300),
    "equal": lambda d: numpy.where(numpy.arange(d) % 3 == 0, -0.75, 0.75),
    "zero": lambda d: numpy.zeros(d),
}
each = pytest.mark.parametrize("compressor", ALL, ids=lambda c: str(Case(c, None)))
kinds = pytest.mark.parametrize("kind", TYPES)


def through_bytes(packed):
    """What comes out at the other end: in memory that is not to be written, at an odd address."""
    data = numpy.frombuffer(b"\0" + packed.data.tobytes(), numpy.uint8)[1:]
    assert not data.flags.writeable
    return Packed(data, packed.bits)


def compress(compressor, x, seed=0, shared=SHARED):
    """C(x)."""
    return compressor.decode(compressor.encode(x, rng(seed), shared), x, shared)


# Bytes and bits.


@kinds
@pytest.mark.parametrize("d", [1, 2, 7, 64, 301])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_bits_on_the_wire_are_those_of_the_formula_and_real_bytes_turn_back(case, d, kind):
    compressor = case.compressor
    for name, vector in VECTORS.items():
        x = vector(d).astype(kind)
        before = x.copy()
        packed = compressor.encode(x, rng(3), SHARED)
        assert packed.data.dtype == numpy.uint8 and packed.data.ndim == 1
        assert packed.bits == compressor.bits(d, 8 * x.itemsize) == case.bits(d, 8 * x.itemsize), name
        assert packed.data.size == math.ceil(packed.bits / 8)
        y = compressor.decode(through_bytes(packed), x, SHARED)
        assert y.dtype == x.dtype and y.shape == x.shape and numpy.isfinite(y).all() and y.flags.writeable
        assert y.tolist() == compressor.decode(packed, x, SHARED).tolist()
        assert x.tolist() == before.tolist()
    assert case.compressor.bits(d) == case.bits(d, 32)


@kinds
def test_a_threshold_says_by_its_length_how_many_there_are(kind):
    x = numpy.array([0.0, 1.5, -1.5, 1.499, -7.0], kind)
    packed = THRESHOLD.encode(x, rng())
    assert packed.bits == 8 * packed.data.size == 3 * (8 * x.itemsize + 32) and THRESHOLD.bits(5) is None
    assert THRESHOLD.decode(through_bytes(packed), x).tolist() == [0.0, 1.5, -1.5, 0.0, -7.0]
    nothing = THRESHOLD.encode(numpy.zeros(4, kind), rng())
    assert nothing.data.size == nothing.bits == 0
    assert THRESHOLD.decode(nothing, numpy.ones(4, kind)).tolist() == [0.0] * 4


@kinds
@each
def test_numpy_and_torch_agree_in_every_bit(compressor, kind):
    torch = pytest.importorskip("torch")
    for vector in VECTORS.values():
        x = vector(77).astype(kind)
        y = torch.tensor(x)
        ours, theirs = compressor.encode(x, rng(4), SHARED), compressor.encode(y, rng(4), SHARED)
        assert ours.data.tolist() == theirs.data.tolist() and ours.bits == theirs.bits
        decoded = compressor.decode(theirs, y, SHARED)
        assert decoded.dtype == y.dtype and decoded.device == y.device
        assert decoded.tolist() == compressor.decode(ours, x, SHARED).tolist()
        strided = compressor.encode(numpy.repeat(x, 2)[::2], rng(4), SHARED)
        assert strided.data.tolist() == ours.data.tolist()


@each
def test_long_vectors_are_worked_on_in_parts_that_do_not_show(compressor):
    if getattr(compressor, "k", None) == 1:
        return
    # longer than a part, a block, a bucket; a different value in each place
    d = 3 * (1 << 16) + 4321
    x = (rng(5).standard_normal(d) * 2 + numpy.linspace(-1, 1, d)).astype(numpy.float32)
    y = compress(compressor, x)
    assert y.shape == x.shape
    correlation = float(x @ y) / norm(x) / norm(y)
    low = compressor.name in (
        "low_rank",
        "rand_k",
        "terngrad",
        "dithered_one_bit",
        "top_k",
        "qsgd",
        "flattened_one_bit",
    )
    assert correlation > (0.004 if low else 0.6)
    for part in (slice(0, 1 << 15), slice(d - 4321, d)):  # no part is left out
        assert y[part].any() or compressor.name in ("rand_k", "top_k", "qsgd")


# Constants.


def draws(case, x, number):
    """(number, d): C(x) with fresh randomness, private and shared."""
    private, common = rng(6), rng(7).integers(1 << 62, size=number)
    found = []
    for shared in common:
        message = case.compressor.encode(x, private, (int(shared),))
        found.append(case.compressor.decode(message, x, (int(shared),)))
    return numpy.array(found, float)


@pytest.mark.parametrize("vector", ["normal", "sparse", "heavy", "equal"])
@pytest.mark.parametrize("case", UNBIASED, ids=str)
def test_an_unbiased_compressor_is_unbiased_and_its_variance_within_omega(case, vector):
    d, number = 40, 600
    x = VECTORS[vector](d).astype(numpy.float32)
    omega = case.compressor.omega(d)
    assert omega == pytest.approx(case.omega(d))
    y = draws(case, x, number)
    deviation = y.std(axis=0) / math.sqrt(number) + 3 * numpy.abs(y).max() / number  # of what is drawn a few times only
    assert (numpy.abs(y.mean(axis=0) - x) <= 5 * deviation + case.atol * norm(x) + 1e-6 * numpy.abs(x)).all()
    squares = ((y - x.astype(float)) ** 2).sum(axis=1) / float(norm(x) ** 2)
    assert squares.mean() <= omega * (1 + 1e-6) + 5 * squares.std() / math.sqrt(number) + 1e-14
    assert case.compressor.name == "identity" or y.std() > 0


def test_omegas_are_reached():
    # a vector for each on which its ω is what there is, so that a smaller one would be wrong
    d = 64
    one, signs = numpy.eye(1, d)[0].astype(numpy.float32), VECTORS["equal"](d).astype(numpy.float32)
    ternary = numpy.where(numpy.arange(d) == 0, 1, 1 / (math.sqrt(d) + 1)).astype(numpy.float32)
    third = numpy.full(d, 4 / 3, numpy.float32)  # rounded up to 2 with probability 1/3
    for compressor, x in (
        (make("rand_k", k=8), signs),
        (make("terngrad"), ternary),
        (make("natural"), third),
        (make("dithered_one_bit"), one),
        (make("dithered_one_bit", bucket=16), one),
        (make("flattened_one_bit"), one),
    ):
        squares = ((draws(Case(compressor, None), x, 4000) - x.astype(float)) ** 2).sum(axis=1) / norm(x) ** 2
        assert squares.mean() == pytest.approx(compressor.omega(d), rel=0.05)
    # QSGD's is a bound: 64, 4 and 1. For a Gaussian vector it is d E[f (1 - f)]/s^2, f the fraction of s |x|/||x||
    x = rng(23).standard_normal(4096).astype(numpy.float32)
    for s, measured in ((1, 50.3), (16, 2.26), (64, 0.166)):
        error = (
            numpy.mean([norm(compress(make("qsgd", levels=s), x, seed) - x) ** 2 for seed in range(10)]) / norm(x) ** 2
        )
        assert error == pytest.approx(measured, rel=0.1)


@pytest.mark.parametrize("vector", ["normal", "sparse", "heavy", "equal"])
@pytest.mark.parametrize("case", CONTRACTIONS, ids=str)
def test_a_contraction_brings_nearer_by_delta(case, vector):
    d = 64
    x = VECTORS[vector](d).astype(numpy.float32)
    delta = case.compressor.delta(d)
    assert delta == pytest.approx(case.delta(d)) and 0 < delta <= 1
    y = draws(case, x, 300)
    squares = ((y - x.astype(float)) ** 2).sum(axis=1) / float(norm(x) ** 2)
    assert squares.mean() <= (1 - delta) * (1 + 1e-6) + 5 * squares.std() / math.sqrt(300) + 1e-14


def test_deltas_are_reached():
    d = 64
    one, signs = numpy.eye(1, d)[0], VECTORS["equal"](d)
    for compressor, x in ((make("top_k", k=16), signs), (make("scaled_sign"), one)):
        error = norm(compress(compressor, x) - x) ** 2 / norm(x) ** 2
        assert error == pytest.approx(1 - compressor.delta(d))
    errors = [norm(compress(make("rand_k", k=16, scaled=False), signs, s) - signs) ** 2 for s in range(5)]
    assert errors == pytest.approx([0.75 * norm(signs) ** 2] * 5)


def test_what_has_no_constant_says_so():
    for compressor in (THRESHOLD, make("sign"), make("scaled_sign", scale="l2"), make("low_rank", rank=1)):
        assert compressor.omega(64) is compressor.delta(64) is None
    one = numpy.eye(1, 64)[0]
    assert norm(compress(make("scaled_sign", scale="l2"), one) - one) > 1.2  # longer than the vector
    x = VECTORS["heavy"](500)
    assert norm(compress(THRESHOLD, x) - x) ** 2 <= 500 * 1.5**2
    assert norm(compress(make("low_rank", rank=1), x) - x) < norm(x)


# Values, by hand or in another way.


@kinds
def test_top_k_takes_of_equal_magnitudes_the_first(kind):
    x = numpy.array([1.0, -3.0, 3.0, 0.0, -3.0, 2.0], kind)
    assert compress(make("top_k", k=2), x).tolist() == [0, -3, 3, 0, 0, 0]
    assert compress(make("top_k", k=4), x).tolist() == [0, -3, 3, 0, -3, 2]
    assert compress(make("top_k", k=6), x).tolist() == x.tolist()
    draw = rng(8)
    for d, k in ((10, 3), (1000, 999), (300_000, 3), (300_000, 5000), (300_000, 100_000)):
        y = draw.standard_normal(d).astype(kind)
        y = numpy.round(4 * y) if d % 3 else y
        expected = numpy.sort(numpy.lexsort((numpy.arange(d), -numpy.abs(y)))[:k])
        assert (largest(y, k) == expected).all()
    assert largest(numpy.zeros(300_000, kind), 5).tolist() == [0, 1, 2, 3, 4]


def test_k_is_a_number_or_a_fraction():
    assert make("top_k", fraction=0.29).kept(100) == 29  # 28.999... in floating point
    assert make("rand_k", fraction=0.001).kept(100) == 1
    assert places_bits(10, 1000) == 100 and places_bits(500, 1000) == 1000 and places_bits(1, 1) == 0


def test_rand_k_draws_every_coordinate_alike_and_none_twice():
    x, hits = numpy.ones(10), numpy.zeros(10)
    compressor, draw = make("rand_k", k=3), rng(9)
    for _ in range(3000):
        y = compressor.decode(compressor.encode(x, draw), x)
        assert sorted(y)[-3:] == pytest.approx([10 / 3] * 3) and (y == 0).sum() == 7
        hits += y > 0
    assert (numpy.abs(hits - 900) < 5 * math.sqrt(900 * 0.7)).all()


def test_qsgd_is_its_definition():
    x, s, B = rng(10).standard_normal(37), 5, 8
    y = compress(make("qsgd", levels=s, bucket=B), x)
    for start in range(0, 37, B):
        bucket, found = x[start : start + B], y[start : start + B]
        length = math.sqrt(sum(bucket**2))
        a, z = s * abs(bucket) / length, s * abs(found) / length
        assert z == pytest.approx(numpy.rint(z)) and ((z > a - 1) & (z < a + 1)).all()
        assert (found * bucket >= 0).all()
    # exact multiples are not rounded, zero buckets stay zero
    exact = numpy.array([3.0, -4.0, 0.0, 0.0, 0.0, 0.0, 5.0, 0.0])
    assert compress(make("qsgd", levels=5, bucket=2), exact) == pytest.approx(exact)
    assert not numpy.signbit(compress(make("qsgd", levels=5, bucket=2), exact)[2])


def test_terngrad_and_natural_by_hand():
    x = numpy.array([2.0, -1.0, 0.0, 0.5, -2.0])
    found = [compress(make("terngrad"), x, s) for s in range(50)]
    assert {tuple(numpy.unique(numpy.abs(y))) for y in found} <= {(0.0, 2.0)}
    assert all(y[0] == 2 and y[2] == 0 and y[4] == -2 and y[1] in (0, -2) and y[3] in (0, 2) for y in found)
    x = numpy.array([3.0, -0.625, 4.0, 0.0, 1e-3])
    found = numpy.array([compress(make("natural"), x, s) for s in range(200)])
    for column, values in enumerate(([2, 4], [-1, -0.5], [4], [0], [2**-10, 2**-9])):
        assert numpy.unique(found[:, column]).tolist() == values
    tiny = numpy.array([1e-40, -1e-44, 1.1754944e-38], numpy.float32)  # below the least normal number, but the last
    assert set(numpy.abs(compress(make("natural"), tiny)).tolist()) <= {0.0, float(numpy.finfo("f4").tiny)}


def test_signs_by_hand():
    x = numpy.array([3.0, -1.0, 0.0, -4.0])
    assert compress(make("sign"), x).tolist() == [1, -1, 1, -1]
    assert compress(make("scaled_sign"), x).tolist() == [2, -2, 2, -2]
    assert compress(make("scaled_sign", scale="l2"), x) == pytest.approx(
        math.sqrt(26 / 4) * numpy.array([1, -1, 1, -1])
    )
    assert set(numpy.abs(compress(make("dithered_one_bit"), x))) == {4.0}
    assert compress(make("dithered_one_bit"), x)[3] == -4.0  # the largest never turns
    assert set(numpy.abs(compress(make("dithered_one_bit", bucket=2), x)).tolist()) == {3.0, 4.0}
    y = compress(make("dithered_one_bit", rho=2.0, bucket=2), x)
    assert numpy.abs(y) == pytest.approx([2 * math.sqrt(10 / 2)] * 2 + [2 * math.sqrt(16 / 2)] * 2)
    cut = numpy.mean([compress(make("dithered_one_bit", level=2.0), x, s) for s in range(2000)], axis=0)
    assert cut == pytest.approx([2, -1, 0, -2], abs=0.2)


@pytest.mark.parametrize("b", [1, 2, 5])
def test_the_grid_is_that_of_laq(b):
    x = rng(11).standard_normal(50)
    R, tau = numpy.abs(x).max(), 1 / (2**b - 1)
    level = numpy.floor((x + R) / (2 * tau * R) + 0.5)
    assert compress(make("laq", bits_per_coordinate=b), x) == pytest.approx(2 * tau * R * level - R)
    assert numpy.abs(compress(make("laq", bits_per_coordinate=b), x) - x).max() <= tau * R * (1 + 1e-12)


def test_half_precision_is_what_casts_do():
    torch = pytest.importorskip("torch")
    x = rng(12).standard_normal(500).astype(numpy.float32) * 100
    assert compress(make("half_precision"), x).tolist() == x.astype(numpy.float16).tolist()
    expected = torch.tensor(x).to(torch.bfloat16).tolist()
    assert compress(make("half_precision", type="bfloat16"), x).tolist() == expected
    large = x * 1e6
    with pytest.raises(NotFinite, match="leaves the range of float16"):
        compress(make("half_precision"), large)
    for y in (large, x * 1e-12, numpy.float32(1e-42) * numpy.arange(5, dtype=numpy.float32)):
        scaled = compress(make("half_precision", scaled=True), y)
        assert scaled == pytest.approx(y, rel=2**-11 * (1 + 1e-6), abs=float(numpy.abs(y).max()) * 2**-29)
    for s in range(20):  # at random, to one of the two neighbours
        below, above = (numpy.nextafter(x.astype(numpy.float16), numpy.float16(e)) for e in (-numpy.inf, numpy.inf))
        y = compress(make("half_precision", stochastic=True), x, s)
        assert ((y >= below) & (y <= above) & (numpy.abs(y - x) < above - below)).all()


@pytest.mark.parametrize(("d", "block_bits"), [(1, 16), (3, 16), (64, 16), (100, 16), (100, 5), (70_000, 16), (5, 0)])
def test_flattening_is_a_rotation_by_the_walsh_hadamard_matrix(d, block_bits):
    x = rng(13).standard_normal(d)
    y = flatten(x, block_bits, SHARED)
    assert len(y) == padded_length(d, block_bits) == sum(blocks(d, block_bits))
    assert norm(y) == pytest.approx(norm(x))
    assert restore(y, x, block_bits, SHARED) == pytest.approx(x)
    assert (flatten(x, block_bits, (*SHARED, 1)) != y).any() or d == 1
    if d <= 100:  # against the matrix by its definition, (-1)^(bits that i and j have in common) / sqrt(n)
        z, start = numpy.pad(x, (0, len(y) - d)), 0
        for n in blocks(d, block_bits):
            H = numpy.array([[(-1) ** bin(i & j).count("1") for j in range(n)] for i in range(n)]) / math.sqrt(n)
            assert hadamard(z, block_bits)[start : start + n] == pytest.approx(H @ z[start : start + n])
            start += n


@pytest.mark.parametrize("rho", [1.0, 1.5, 2.0, 3.0, 4.0])
def test_the_clipping_of_flattened_bits_is_that_of_a_gaussian(rho):
    # the relative bias and ω for n = 4096 and a heavy-tailed vector, as tabulated for FO-SGD
    bias = {1.0: 0.149, 1.5: 0.045, 2.0: 0.011, 3.0: 3e-4, 4.0: 6e-6}[rho]
    x = rng(14).standard_t(2, 4096)
    y = flatten(x, 16, SHARED)
    level = rho * norm(x) / math.sqrt(4096)
    clipped = numpy.clip(y, -level, level)
    assert norm(clipped - y) ** 2 / norm(x) ** 2 == pytest.approx(bias, rel=0.15, abs=2e-4)
    errors = [norm(compress(make("flattened_one_bit", rho=rho), x, s) - x) ** 2 / norm(x) ** 2 for s in range(10)]
    measured = {1.0: 0.63, 1.5: 1.5, 2.0: 3.1, 3.0: 8.0, 4.0: 15.0}[rho]
    assert numpy.mean(errors) == pytest.approx(measured, rel=0.03)
    one = numpy.eye(1, 4096)[0]
    assert rho < 3 or norm(compress(make("flattened_one_bit", rho=rho), one) - one) ** 2 == pytest.approx(
        rho**2 - 1, rel=0.1
    )


def test_low_rank_has_the_shapes_of_the_tensors():
    draw = rng(15)
    A, b, D = draw.standard_normal((6, 5)), draw.standard_normal(6), draw.standard_normal((4, 3, 2, 2))
    low = numpy.outer(draw.standard_normal(6), draw.standard_normal(5))
    shapes = ((6, 5), (6,), (4, 3, 2, 2))
    compressor = make("low_rank", rank=1, shapes=shapes)
    x = numpy.concatenate([A.ravel(), b, D.ravel()])
    assert compressor.bits(len(x)) == 32 * ((6 + 5) + 6 + (4 + 12))
    y = compress(compressor, x)
    assert y[30:36].tolist() == b.tolist()
    for part, shape in ((y[:30], (6, 5)), (y[36:], (4, 12))):
        assert numpy.linalg.matrix_rank(part.reshape(shape)) == 1
    x[:30] = low.ravel()  # what is of this rank stays
    assert compress(compressor, x)[:30] == pytest.approx(low.ravel(), rel=1e-6)
    with pytest.raises(InvalidInput, match="have 84 numbers, and the vector has 83"):
        compressor.check(83)
    full = make("low_rank", rank=5, shapes=shapes)
    assert full.bits(len(x)) == 32 * len(x) and compress(full, x).tolist() == x.tolist()
    assert make("low_rank", rank=1).bits(35) == 32 * (6 + 6)  # 6 x 6, of which one number is padding


def test_gram_and_schmidt():
    factors = Factors(84, 2, ((7, 12),))
    P = factors.orthonormal(rng(16).standard_normal(14))
    p = P.reshape(7, 2)
    assert p.T @ p == pytest.approx(numpy.eye(2), abs=1e-7)
    assert factors.orthonormal(numpy.zeros(14)).tolist() == [0.0] * 14
    for seed in range(10):  # a matrix of lower rank than its factors: what is left of a column is rounding
        draw = rng(seed)
        x = numpy.outer(draw.standard_normal(20), 1e4 * draw.standard_normal(30)).ravel().astype(numpy.float32)
        assert norm(compress(make("low_rank", rank=3, shapes=((20, 30),)), x, seed) - x) < 1e-5 * norm(x)


def test_norms_however_long_and_short_vectors_are():
    for scale in (1e-300, 1e-160, 1e-30, 1.0, 1e30, 1e160, 1e300):
        x = rng(17).standard_normal(1000) * scale
        with numpy.errstate(over="ignore"):
            assert norm(x) == pytest.approx(scale * norm(x / scale), rel=1e-12)
            assert norms(x, 64) == pytest.approx(scale * norms(x / scale, 64), rel=1e-12)
        if 1e-37 < scale < 1e37:
            y = x.astype(numpy.float32)
            assert norms(y, 64) == pytest.approx(norms(y.astype(float), 64), rel=1e-6)
    assert norm(numpy.zeros(3)) == 0 and norms(numpy.zeros(70), 32).tolist() == [0.0] * 3
    for compressor in ALL:
        if compressor.name not in ("lattice", "half_precision", "threshold", "low_rank"):  # their errors are absolute
            x = (rng(18).standard_normal(50) * 1e-30).astype(numpy.float32)
            y = compress(compressor, x)
            assert y.any() and numpy.isfinite(y).all()


# Randomness.


def test_shared_subsets_are_those_of_the_seed_and_private_ones_are_not():
    x = numpy.arange(1.0, 101)
    shared, private = make("rand_k", k=10, shared=True, scaled=False), make("rand_k", k=10, scaled=False)
    ranks = [compress(shared, x, seed, SHARED).tolist() for seed in (1, 2)]
    assert ranks[0] == ranks[1] != compress(shared, x, 1, (7, 6, 0, 4)).tolist()
    assert compress(private, x, 1).tolist() != compress(private, x, 2).tolist()
    for name in ("rand_k", "flattened_one_bit"):
        compressor = shared if name == "rand_k" else make(name)
        with pytest.raises(InvalidInput, match="needs a seed that sender and receiver have in common"):
            compressor.encode(x, rng())
    assert compress(make("flattened_one_bit"), x, 1).tolist() != compress(make("flattened_one_bit"), x, 2).tolist()


def test_a_constant_generator_is_not_needed_by_what_is_not_random():
    for compressor in (make("top_k", k=3), make("scaled_sign"), make("laq", bits_per_coordinate=4), make("identity")):
        assert compressor.encode(numpy.arange(9.0), None).data.size > 0


# Errors.


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@each
def test_nan_and_infinity_are_errors(compressor, bad):
    x = numpy.linspace(-1, 1, 50)
    x[17] = bad
    with pytest.raises(NotFinite, match=f"{compressor.name} cannot compress NaN or infinity: coordinate 17 is {bad}"):
        compressor.encode(x, rng(), SHARED)


def test_what_leaves_the_range_of_its_type_is_an_error_too():
    x = numpy.full(4, 3e38, numpy.float32)
    for compressor in (make("rand_k", k=1), make("qsgd", levels=1), make("natural"), make("scaled_sign", scale="l2")):
        if compressor.name == "scaled_sign":
            assert compress(compressor, x)[0] == pytest.approx(3e38)  # the norm does, its share does not
            continue
        with pytest.raises(NotFinite, match="leaves the range of float32"):
            compressor.encode(x, rng())


class Tag(IntEnum):
    GRADIENT = 1


@each
def test_a_message_of_the_wrong_length_or_kind_names_sender_and_tag(compressor):
    x = numpy.linspace(-3, 3, 64, dtype=numpy.float32)
    packed = compressor.encode(x, rng(), SHARED)
    cut, longer = packed.data[:-1], numpy.append(packed.data, numpy.uint8(0))
    wrong = [Packed(cut, packed.bits - 8), Packed(longer, packed.bits + 8), x, None, 3.0, packed.data]
    if compressor.bits(64) is not None:
        wrong.append(Packed(packed.data, packed.bits + 1))
    for message in wrong:
        with pytest.raises(WrongMessage, match=f"message GRADIENT from rank 3, to {compressor.name}, has ") as refusal:
            compressor.decode(message, x, SHARED, source=3, tag=Tag.GRADIENT)
        assert "\n" not in str(refusal.value) and len(str(refusal.value)) < 200
    for receiver in (numpy.zeros(65, numpy.float32), numpy.zeros(64), numpy.zeros(20, numpy.float32)):
        same = compressor.bits(64) == compressor.bits(len(receiver), 8 * receiver.itemsize)
        if not (
            same or compressor.bits(64) is None
        ):  # where bits do not depend on the type, a message may be read as it
            with pytest.raises(WrongMessage):
                compressor.decode(packed, receiver, SHARED)


def test_a_message_that_names_what_there_is_not():
    x = numpy.arange(5, dtype=numpy.float32)
    packed = make("top_k", k=1).encode(x, rng())
    data = packed.data.copy()
    data[-1] = 7  # three bits, of five places
    with pytest.raises(WrongMessage, match="a message, to top_k, names places that 1 of 5 coordinates cannot have"):
        make("top_k", k=1).decode(Packed(data, packed.bits), x)
    packed = THRESHOLD.encode(x, rng())
    with pytest.raises(WrongMessage, match="names places"):
        THRESHOLD.decode(packed, x[:4])
    packed = make("terngrad").encode(x, rng())
    data = numpy.append(packed.data[:4], numpy.array([255, 255], numpy.uint8))
    with pytest.raises(WrongMessage, match="code that stands for nothing"):
        make("terngrad").decode(Packed(data, packed.bits), x)
    lattice = make("lattice", bits_per_coordinate=4, side=0.01)
    with pytest.raises(WrongMessage, match="too far away"):
        lattice.decode(lattice.encode(x, rng()), x + 1)


@pytest.mark.parametrize(
    ("name", "parameters", "text"),
    [
        ("top_k", {}, "needs `k` or `fraction`, and not both"),
        ("rand_k", {"k": 3, "fraction": 0.1}, "needs `k` or `fraction`, and not both"),
        ("dithered_one_bit", {"level": 1.0, "bucket": 3}, "a fixed `level`, or one of each bucket"),
    ],
)
def test_parameters_that_make_no_sense_together(name, parameters, text):
    with pytest.raises(InvalidInput, match=text):
        make(name, **parameters)


def test_more_than_there_is_cannot_be_kept():
    for name in ("top_k", "rand_k"):
        with pytest.raises(InvalidInput, match=f"{name} with k = 4 cannot keep more than the 3 coordinates there are"):
            make(name, k=4).encode(numpy.ones(3), rng())
        make(name, fraction=1.0).check(3)


@each
def test_only_vectors_of_floats_with_something_in_them(compressor):
    for bad in (numpy.arange(4), numpy.ones((2, 2)), 1.0, [1.0, 2.0], numpy.ones(3, numpy.float16)):
        with pytest.raises(InvalidInput, match="compressors take vectors of float32 or float64 with one axis, not"):
            compressor.encode(bad, rng(), SHARED)
    with pytest.raises(InvalidInput, match="at least one coordinate"):
        compressor.encode(numpy.empty(0), rng(), SHARED)


# Senders.


def test_error_feedback_is_its_recursion():
    compressor, gradients = make("top_k", k=2), rng(19).standard_normal((20, 8))
    sender, e = ErrorFeedback(compressor), numpy.zeros(8)
    for g in gradients:
        q = sender.decode(sender.encode(g, rng()), g)
        u = g + e
        expected = compress(compressor, u)
        e = u - expected
        assert q.tolist() == expected.tolist() and sender.e.tolist() == e.tolist()
    # nothing is lost: what was sent and what is still owed is what there was
    sender, sent = ErrorFeedback(compressor), 0
    for g in gradients:
        sent = sent + sender.decode(sender.encode(g, rng()), g)
    assert sent + sender.e == pytest.approx(gradients.sum(axis=0))


def test_errors_of_an_unbiased_compressor_do_not_grow_without_end():
    g = rng(20).standard_normal(30)
    for compressor in (make("rand_k", k=2), make("terngrad"), make("qsgd", levels=1), make("flattened_one_bit")):
        sender, draw = ErrorFeedback(compressor), rng(21)
        for k in range(300):
            sender.encode(g, draw, (k,))
        omega = compressor.omega(30)
        assert norm(sender.e) < 4 * (1 + omega) * norm(g)
    scaled, unscaled = make("rand_k", k=2), make("rand_k", k=2, scaled=False)
    one, other = ErrorFeedback(scaled), ErrorFeedback(unscaled)
    for k in range(50):
        a = one.decode(one.encode(g, rng(k)), g)
        assert a == pytest.approx(other.decode(other.encode(g, rng(k)), g))


@pytest.mark.parametrize("sender", [Memoryless, ErrorFeedback])
def test_a_vector_without_a_code_goes_as_it_is(sender):
    x = numpy.array([1.0, numpy.inf])
    one = sender(make("top_k", k=1))
    with numpy.errstate(invalid="ignore"):
        assert one.encode(x, rng()).tolist() == one.decode(x, x).tolist() == x.tolist()
    with pytest.raises(WrongMessage, match="message 5 from rank 1, to top_k, has no packed vector but ndarray"):
        one.decode(numpy.ones(2), x, source=1, tag=5)
    with pytest.raises(WrongMessage):
        one.decode(numpy.array([math.nan]), x)


@pytest.mark.parametrize("sender", [Memoryless, ErrorFeedback])
def test_identity_is_nothing(sender):
    one = sender(make("identity"))
    for g in rng(22).standard_normal((5, 7)).astype(numpy.float32):
        assert one.decode(one.encode(g, rng()), g).tobytes() == g.tobytes()


def test_fractions_of_bits_are_none():
    for case in CASES:
        assert all(isinstance(case.compressor.bits(d), int) for d in (1, 5, 64)), case
    assert Fraction(make("qsgd", levels=3, bucket=4).bits(10)) == 10 * 3 + 3 * 32
