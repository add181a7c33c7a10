"""The lattice code: exact inside its bound, unbiased, honest beyond, and the same for numpy, torch and the wire."""

import math

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpibench.errors import InvalidInput
from mpibench.lattice import Codec, Lattice, is_packed
from mpibench.node import Node
from mpibench.packing import pack, unpack

SEEDED = settings(deadline=None, derandomize=True, database=None, max_examples=100)


def rng(seed=0):
    return numpy.random.default_rng(seed)


class Fixed:
    """A generator whose dither is given."""

    def __init__(self, u):
        self.u = u

    def random(self, shape):
        return numpy.full(shape, self.u)


def test_by_hand():
    # two bits, side 1/2: x/s = (0.2, -1.4, 6.8), u = 1/2: z = (0, -1, 7) and the colours are 0, 3, 3
    lattice = Lattice(bits=2, side=0.5)
    message, point = lattice.encode(numpy.array([0.1, -0.7, 3.4]), Fixed(0.5))
    assert point.tolist() == [0.0, -0.5, 3.5]
    assert message[0].tolist() == [0b11_11_00] and message[0].dtype == numpy.uint8
    near = numpy.array([0.4, -0.9, 3.1])  # y/s = (0.8, -1.8, 6.2): nearest of colour 0, 3, 3 are 0, -1, 7
    assert lattice.decode(message, near).tolist() == [0.0, -0.5, 3.5]
    # y/s = 2.2 in the first coordinate: 4 is nearer than 0, and the hash says that it is wrong
    assert lattice.decode(message, numpy.array([1.1, -0.9, 3.1])) is None


@SEEDED
@given(st.integers(1, 16), st.integers(0, 40), st.integers(0, 1000))
def test_packing_is_dense_and_turns_back(bits, dimension, seed):
    colours = rng(seed).integers(0, 2**bits, dimension)
    packed = pack(colours, bits)
    assert packed.dtype == numpy.uint8 and packed.size == math.ceil(bits * dimension / 8)
    assert packed.size == Lattice(bits, 1.0).bytes(dimension)
    number = sum(int(c) << (bits * place) for place, c in enumerate(colours))  # lowest bits first
    assert int.from_bytes(packed.tobytes(), "little") == number
    assert unpack(packed, bits, dimension).tolist() == colours.tolist()


@SEEDED
@given(st.integers(2, 16), st.sampled_from([1e-4, 0.03, 1.0, 50.0]), st.integers(0, 1000))
def test_no_wrong_colour_inside_the_bound(bits, bound, seed):
    lattice, draw = Lattice.within(bits, bound), rng(seed)
    y = 100 * draw.normal(size=30)
    x = y + bound * draw.choice([-1, 1, -0.999, 0.5, 0.0, 1], size=30) * (1 - 1e-9)  # mostly on its edge
    message, point = lattice.encode(x, draw)
    assert numpy.abs(point - x).max() <= lattice.side * (1 + 1e-9)
    decoded = lattice.decode(message, y)
    assert decoded is not None and decoded.tolist() == point.tolist()


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_wrong_colours_beyond_the_bound_are_detected(bits):
    lattice, draw, x = Lattice(bits, 0.01), rng(1), rng(2).normal(size=50)
    period = 0.01 * 2**bits
    for shift in (0.51, 1.0, -1.0, 0.9, 3.0, -7.3):
        message, point = lattice.encode(x, draw)
        y = point.copy()
        y[17] += shift * period  # one coordinate of fifty
        colours, q = unpack(message[0], bits, 50), 2**bits
        silent = 0.01 * (colours + q * numpy.rint((y / 0.01 - colours) / q))  # what it would be without the hash
        assert abs(silent[17] - point[17]) >= period * (1 - 1e-9) and (silent != point).sum() == 1
        assert lattice.decode(message, y) is None


def test_wrong_colours_set_in_at_half_the_period():
    lattice, points = Lattice(6, 1.0), rng(3).normal(size=(200, 1))
    wrong = {}
    for distance in (20.0, 30.9, 31.5, 32.5, 33.1, 40.0):
        draw = rng(4)
        wrong[distance] = sum(lattice.decode(lattice.encode(x, draw)[0], x + distance) is None for x in points)
    assert wrong[20.0] == wrong[30.9] == 0 and wrong[33.1] == wrong[40.0] == 200
    assert 0 < wrong[31.5] < wrong[32.5] < 200


def test_it_is_unbiased_with_an_error_that_does_not_know_how_long_the_vector_is():
    draws = 4000
    for offset in (0.0, 1e6):
        lattice, draw = Lattice(8, 0.1), rng(5)
        x = offset + rng(6).random(40)
        errors = numpy.array([lattice.encode(x, draw)[1] - x for _ in range(draws)])
        assert numpy.abs(errors).max() <= 0.1 * (1 + 1e-6)
        deviation = errors.std(axis=0) / math.sqrt(draws)
        assert (numpy.abs(errors.mean(axis=0)) < 5 * deviation + 1e-9).all()
        assert errors.var(axis=0).mean() == pytest.approx(0.1**2 / 6, rel=0.15)  # s^2 p (1 - p), over uniform p
    rounded = numpy.array([0.1 * numpy.rint(x / 0.1) - x for _ in range(2)])  # plain rounding is not
    assert (numpy.abs(rounded.mean(axis=0)) > 5 * deviation).any()


@pytest.mark.parametrize("bits", [1, 3, 8, 13, 16])
def test_numpy_and_torch_have_the_same_points(bits):
    torch = pytest.importorskip("torch")
    lattice = Lattice(bits, 0.05)
    x, y = rng(7).normal(size=33), rng(8).normal(size=33) * 1e-3
    for kind in ("float64", "float32"):
        ours, theirs = x.astype(kind), torch.tensor(x, dtype=getattr(torch, kind))
        (message, point), (other, same) = lattice.encode(ours, rng(9)), lattice.encode(theirs, rng(9))
        assert message[0].tolist() == other[0].tolist() and message[1] == other[1]
        assert point.dtype == kind and same.dtype == theirs.dtype and point.tolist() == same.tolist()
        near = point + y.astype(kind)
        if bits > 1:
            decoded = lattice.decode(message, torch.tensor(near))
            assert decoded.dtype == theirs.dtype and decoded.tolist() == point.tolist()
            assert lattice.decode(message, near).tolist() == point.tolist()


@pytest.mark.parametrize("bits", range(1, 17))
def test_through_real_bytes(bits):
    wire = pytest.importorskip("mpibench.engines.wire")
    lattice, x = Lattice(bits, 0.01), rng(10).normal(size=21)
    message, point = lattice.encode(x, rng(11))
    numbers, vectors = [], []
    signature = wire.describe((message,), numbers, vectors)
    payload = b"".join(vector.tobytes() for vector in vectors)
    assert len(payload) + 8 * len(numbers) == lattice.bytes(21) + 8 == math.ceil(bits * 21 / 8) + 8
    layout = wire.Layout(signature)
    for vector in layout.vectors:
        vector.start = 0
    (received,) = layout.build(layout.parts, iter(numbers), iter([bytearray(payload)]))
    assert lattice.decode(received, point + 1e-4).tolist() == point.tolist()
    assert Node.freeze(None, message)[:2] == (lattice.bytes(21), 8)  # what modelled links charge


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e18])
def test_what_is_no_number_or_too_large_is_refused_in_one_sentence(bad):
    x = numpy.array([0.0, bad, 1.0])
    lattice = Lattice(8, 1e-3)
    assert not lattice.holds(x) and lattice.holds(numpy.array([1.0]))
    with pytest.raises(InvalidInput, match="all coordinates must be finite") as refusal:
        lattice.encode(x, rng())
    assert "\n" not in str(refusal.value) and len(str(refusal.value)) < 200
    message, _ = lattice.encode(numpy.zeros(3), rng())
    assert lattice.decode(message, x) is None  # a receiver that has diverged cannot read
    assert Codec(8, 1e-3).encode(x, rng())[0] is x  # it goes as it is


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ((8, None, None), "needs the lattice's side"),
        ((8, 0.1, 0.1), "not both"),
        ((0, 0.1, None), "a side or a bound"),
        ((0, None, 0.1), "a side or a bound"),
        ((1, None, 0.1), "from 2 on"),
        ((17, 0.1, None), "from 1 to 16"),
        ((8, 0.0, None), "the side is > 0"),
    ],
)
def test_a_codec_that_makes_no_sense_is_refused(parameters, text):
    with pytest.raises(InvalidInput, match=text):
        Codec(*parameters)


def test_an_answer_is_of_the_kind_of_the_message():
    codec, x, y = Codec(8, bound=1.0), numpy.array([0.3, 0.7]), numpy.array([0.1, 0.9])
    answer, theirs, own = codec.answer(y, x, rng())
    assert answer is own is x and theirs is y
    message, value = codec.encode(y, rng(1))
    answer, theirs, own = codec.answer(message, x, rng(2))
    assert is_packed(answer) and theirs.tolist() == value.tolist()
    assert codec.decode(answer, value).tolist() == own.tolist()
    assert codec.answer(message, x + 2.0, rng(3)) == (None, None, None)
    plain = Codec(0)
    assert plain.encode(x, None) == (x, x) and plain.answer(y, x, None)[1] is y


def test_an_answer_that_could_not_be_read_is_not_given():
    # side 1, 2 bits: the message is 2, and read with 3.99; its answer is 3, or 4, which one with 2 would read as 0
    codec, x = Codec(2, side=1.0), numpy.array([3.99])
    message, value = codec.encode(numpy.array([1.6]), Fixed(0.5))
    assert value.tolist() == codec.decode(message, x).tolist() == [2.0]
    assert [part.tolist() for part in codec.answer(message, x, Fixed(0.0))[1:]] == [[2.0], [3.0]]
    assert codec.answer(message, x, Fixed(0.5)) == (None, None, None)
