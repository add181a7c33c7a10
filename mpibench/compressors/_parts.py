"""What several compressors are made of: norms, signs, numbers before packed bits, and long vectors in parts.

A part is what stays in a core's own cache while one operation after another goes over it.
"""

import math

import numpy

from mpibench import packing

PART = 1 << 15  # coordinates
TERNARY = 2  # bits of one of 0, 1 and -1, whose codes are 0, 1 and 2


def parts(d, multiple=1):
    """Slices that cover d coordinates, each a multiple of so many, if these fit into a part, but the last."""
    step = PART // multiple * multiple or PART
    return [slice(start, min(start + step, d)) for start in range(0, d, step)]


def with_numbers(numbers, packed):
    """One uint8 array of numbers in the vector's type and of what has been packed behind them."""
    return numpy.concatenate([numpy.ascontiguousarray(numbers).view(numpy.uint8), packed])


def numbers_and_rest(data, count, like):
    """What `with_numbers` has put together: `count` numbers of the type of `like`, and the packed bytes."""
    end = count * like.itemsize
    return data[:end].view(like.dtype), data[end:]


def norm(x):
    """||x||_2 as a float, however large or small the coordinates are."""
    with numpy.errstate(over="ignore"):
        squared = float(x @ x)
    if 1e-20 < squared < 1e20 or (x.dtype == numpy.float64 and 1e-200 < squared < 1e200):
        return math.sqrt(squared)
    largest = float(numpy.abs(x).max(initial=0))
    if not 0 < largest < math.inf:
        return largest
    y = x.astype(numpy.float64) / largest
    return largest * math.sqrt(float(y @ y))


def norms(x, bucket):
    """(ceil(d / bucket),) of the type of x: ||.||_2 of each bucket of so many coordinates; the last may be shorter."""
    d, whole = len(x), len(x) // bucket * bucket
    if bucket >= PART:
        return numpy.array([norm(x[start : start + bucket]) for start in range(0, d, bucket)]).astype(x.dtype)
    found = numpy.empty(-(-d // bucket))
    for part in parts(whole, bucket):
        rows, unit = x[part].astype(numpy.float64).reshape(-1, bucket), 1.0
        if x.dtype == numpy.float64:  # whose squares may leave its range
            unit = numpy.abs(rows).max(axis=1)
            unit[unit == 0] = 1
            rows /= unit[:, None]
        found[part.start // bucket : part.stop // bucket] = unit * numpy.sqrt(numpy.einsum("ij,ij->i", rows, rows))
    if whole < d:
        found[-1] = norm(x[whole:])
    return found.astype(x.dtype)


def of_buckets(numbers, bucket, part):
    """For each coordinate of this part the number of its bucket."""
    first, last = part.start // bucket, -(-part.stop // bucket)
    if last == first + 1:
        return numbers[first]
    edges = numpy.clip(numpy.arange(first, last + 1) * bucket, part.start, part.stop)
    return numpy.repeat(numbers[first:last], numpy.diff(edges))


def uniform(rng, x):
    """Numbers uniform in [0, 1) of the type and length of x."""
    return rng.random(len(x), dtype=x.dtype)


def pack_signs(x):
    """A bit for each coordinate: 1 where x >= 0, so the sign of 0 is +1."""
    return numpy.packbits(x >= 0, bitorder="little")


def unpack_signs(packed, scale, d):
    """(d,) of scale and -scale, in the type of `scale`."""
    x = numpy.empty(d, scale.dtype)
    for part in parts(d, 8):
        bits = packing.unpack(packed[part.start // 8 :], 1, part.stop - part.start)
        numpy.multiply(bits, scale.dtype.type(2), out=x[part])
        x[part] -= 1
        x[part] *= scale
    return x


def unpack_ternary(packed, scale, d):
    """(d,) of 0, scale and -scale from packed codes; ValueError where one is none."""
    codes = packing.unpack(packed, TERNARY, d)
    if codes.max() > 2:
        raise ValueError("has a code that stands for nothing")
    return numpy.array([0, scale, -scale], scale.dtype)[codes]
