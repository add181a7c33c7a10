"""Whole numbers of few bits, one close to the other in bytes: lowest bits first, the first number in the first byte.

Eight numbers of b bits are b bytes, so packing many is b operations on columns of a table with a row for each eight;
the rows are taken in blocks that stay in a cache. Of few numbers a table of single bits is made, which is fewer calls.
"""

from functools import cache

import numpy

BLOCK = 1 << 13  # rows of eight numbers
FEW = 1024
WORDS = ((8, numpy.uint8), (16, numpy.uint16), (32, numpy.uint32), (64, numpy.uint64))


def word(bits):
    """The smallest unsigned type of numpy that holds so many bits."""
    return next(kind for size, kind in WORDS if bits <= size)


def size(count, bits):
    """The bytes of `count` numbers of so many bits."""
    return -(-count * bits // 8)


@cache
def overlaps(bits):
    """For each of `bits` bytes the numbers of eight that it holds a part of, and by how much to shift each to the right
    (to the left where negative)."""
    return [[(j, 8 * m - bits * j) for j in range(8 * m // bits, min(8, -(-8 * (m + 1) // bits)))] for m in range(bits)]


def pack(numbers, bits):
    """(n,) whole numbers below 2^bits, of any integer type, as a uint8 array of ceil(bits n / 8); bits from 1 to 64."""
    n = len(numbers)
    if bits == 1:
        return numpy.packbits(numbers.astype(bool, copy=False), bitorder="little")
    kind = word(bits)
    if bits == 8 * kind().itemsize:
        return numbers.astype(kind).view(numpy.uint8)
    if n <= FEW:
        table = numbers.astype(kind).view(numpy.uint8).reshape(n, kind().itemsize)
        table = numpy.unpackbits(table, axis=1, bitorder="little", count=bits)
        return numpy.packbits(table.reshape(-1), bitorder="little")
    packed = numpy.empty((-(-n // 8), bits), numpy.uint8)
    parts = overlaps(bits)
    for start in range(0, len(packed), BLOCK):
        rows = packed[start : start + BLOCK]
        block = numbers[8 * start : 8 * (start + BLOCK)].astype(kind, copy=False)
        if len(block) < 8 * len(rows):
            block = numpy.concatenate([block, numpy.zeros(8 * len(rows) - len(block), kind)])
        columns = block.reshape(-1, 8).T
        for m, pieces in enumerate(parts):
            total = None
            for j, shift in pieces:
                piece = shifted(columns[j], shift)
                total = piece if total is None else total | piece
            rows[:, m] = total
    return packed.reshape(-1)[: size(n, bits)]


def shifted(numbers, by):
    """Shifted to the right, or to the left where `by` is negative; what leaves the type is lost."""
    kind = numbers.dtype.type
    return numbers >> kind(by) if by > 0 else numbers << kind(-by) if by else numbers


def unpack(packed, bits, n):
    """The (n,) numbers of `pack`, in the smallest unsigned type; `packed` is only read."""
    if bits == 1:
        return numpy.unpackbits(packed, bitorder="little", count=n)
    kind = word(bits)
    if bits == 8 * kind().itemsize:
        return numpy.frombuffer(packed, kind, n)
    if n <= FEW:
        table = numpy.unpackbits(packed, bitorder="little", count=bits * n).reshape(n, bits)
        numbers = numpy.zeros((n, kind().itemsize), numpy.uint8)
        numbers[:, : size(1, bits)] = numpy.packbits(table, axis=1, bitorder="little")
        return numbers.reshape(-1).view(kind)
    whole = -(-n // 8)
    if packed.size < whole * bits:
        packed = numpy.concatenate([packed, numpy.zeros(whole * bits - packed.size, numpy.uint8)])
    table = packed[: whole * bits].reshape(whole, bits)
    numbers, mask = numpy.empty((whole, 8), kind), kind((1 << bits) - 1)
    pieces = [[] for _ in range(8)]  # of each number: its bytes and their shifts
    for m, parts in enumerate(overlaps(bits)):
        for j, shift in parts:
            pieces[j].append((m, -shift))
    for start in range(0, whole, BLOCK):
        columns = table[start : start + BLOCK].T.astype(kind)
        for j, parts in enumerate(pieces):
            total = None
            for m, shift in parts:
                piece = shifted(columns[m], shift)
                total = piece if total is None else total | piece
            numbers[start : start + BLOCK, j] = total & mask
    return numbers.reshape(-1)[:n]
