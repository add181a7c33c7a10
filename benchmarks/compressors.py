"""CPU time of a compressor on one core: a vector of 10 million float32 into bytes and back.

    python benchmarks/compressors.py

Seconds are of encode and decode together, and GB/s the vector's bytes over them; the peer is the copy of the vector
into new memory, in the same run. The vector is heavy-tailed, as gradients are: Student's t with three degrees of
freedom.
"""

import gc
import time

from harness import Figure, Row, arguments, in_turn, ratio, show

COMPRESSORS = {  # name in the table: the compressor, and the most CPU seconds
    "identity": ({"name": "identity"}, None),
    "top_k, 1 %": ({"name": "top_k", "fraction": 0.01}, 0.3),
    "rand_k, 1 %": ({"name": "rand_k", "fraction": 0.01}, 0.15),
    "rand_k, 1 %, shared": ({"name": "rand_k", "fraction": 0.01, "shared": True}, 0.15),
    "threshold": ({"name": "threshold", "level": 6.0}, None),
    "qsgd, s = 7, B = 512": ({"name": "qsgd", "levels": 7, "bucket": 512}, 0.4),
    "qsgd, s = 127, one bucket": ({"name": "qsgd", "levels": 127}, 0.4),
    "terngrad": ({"name": "terngrad"}, None),
    "natural": ({"name": "natural"}, None),
    "sign": ({"name": "sign"}, 0.15),
    "scaled_sign, l1": ({"name": "scaled_sign"}, 0.15),
    "scaled_sign, l2": ({"name": "scaled_sign", "scale": "l2"}, 0.15),
    "dithered_one_bit": ({"name": "dithered_one_bit"}, None),
    "flattened_one_bit": ({"name": "flattened_one_bit"}, None),
    "half_precision, float16": ({"name": "half_precision"}, None),
    "half_precision, bfloat16": ({"name": "half_precision", "type": "bfloat16"}, None),
    "laq, 4 bits": ({"name": "laq", "bits_per_coordinate": 4}, None),
    "lattice, 8 bits": ({"name": "lattice", "bits_per_coordinate": 8, "side": 0.1}, None),
    "low_rank, r = 2": ({"name": "low_rank", "rank": 2}, None),
}
SHARED = (0, 6, 0, 0)  # a seed that sender and receiver have in common


def timed(compressor, x, rng):
    """CPU seconds of (encode, decode)."""
    gc.collect()
    start = time.process_time()
    packed = compressor.encode(x, rng, SHARED)
    between = time.process_time()
    compressor.decode(packed, x, SHARED)
    return between - start, time.process_time() - between


def copied(x):
    """CPU seconds of a copy."""
    gc.collect()
    start = time.process_time()
    x.copy()
    return time.process_time() - start


def main():
    dimension = (int, 10_000_000, "coordinates of the vector (default: %(default)s)")
    given = arguments(__doc__, repetitions=7, dimension=dimension)
    import numpy

    from mpibench import catalogue

    rng = numpy.random.default_rng(0)
    x = rng.standard_t(3, given.dimension).astype(numpy.float32)
    cases = {"copy": lambda: copied(x)}
    for case, (parameters, _) in COMPRESSORS.items():
        values = {key: value for key, value in parameters.items() if key != "name"}
        compressor = catalogue.load("compressor", parameters["name"])(**values)
        cases[case] = lambda compressor=compressor: timed(compressor, x, rng)
    in_turn(cases, 1)  # memory is mapped, and bounds are looked up
    times = in_turn(cases, given.repetitions)
    copy = Figure.of(times["copy"])
    rows = [Row("copy", "CPU s", copy), Row("copy", "GB/s", Figure.of([x.nbytes / 1e9 / t for t in times["copy"]]))]
    for case, (_, bar) in COMPRESSORS.items():
        both = Figure.of([sum(pair) for pair in times[case]])
        met = both.median < bar if bar and given.dimension == 10_000_000 else None
        rows.append(Row(case, "CPU s", both, copy, ratio(both, copy), f"< {bar} s" if bar else "", met))
        rows += [Row("", f"CPU s of {part}", Figure.of(each)) for part, each in
                 zip(("encode", "decode"), zip(*times[case], strict=True), strict=True)]  # fmt: skip
        rows.append(Row("", "GB/s", Figure.of([x.nbytes / 1e9 / sum(pair) for pair in times[case]])))
    show(f"{given.dimension:,} float32 into bytes and back", rows, given.json, peer="copy")


if __name__ == "__main__":
    main()
