"""Whole numbers of few bits: dense, lowest bits first, and back again."""

import numpy
import pytest

from mpibench import packing


@pytest.mark.parametrize("bits", [*range(1, 34), 40, 63, 64])
def test_packing_is_dense_and_turns_back(bits):
    draw = numpy.random.default_rng(bits)
    for n in (0, 1, 7, 8, 9, 100, packing.FEW, packing.FEW + 1, 8 * packing.BLOCK + 3):
        numbers = draw.integers(0, 2**bits, n, dtype=numpy.uint64)
        packed = packing.pack(numbers, bits)
        assert packed.dtype == numpy.uint8 and packed.size == packing.size(n, bits) == -(-n * bits // 8)
        assert (packing.unpack(packed, bits, n) == numbers).all()
        if n <= 100:
            number = sum(int(c) << (bits * place) for place, c in enumerate(numbers))
            assert int.from_bytes(packed.tobytes(), "little") == number


def test_what_has_been_handed_over_can_be_read():
    packed = packing.pack(numpy.arange(20, dtype=numpy.uint8), 5)
    packed.setflags(write=False)
    part = numpy.concatenate([numpy.zeros(3, numpy.uint8), packed])[3:]  # of a longer message, at any address
    assert packing.unpack(part, 5, 20).tolist() == list(range(20))
