"""Random streams, one for each purpose, so that two algorithms of one seed meet the same start, data and delays."""

from enum import IntEnum


class Purpose(IntEnum):
    """What a stream is for; part of its key, so never renumber."""

    INIT = 0
    DATA = 1
    SAMPLING = 2
    COMPUTE = 3
    LINKS = 4
    LOSS = 5
    COMPRESSION = 6
    METHOD = 7


def generator(seed, purpose, *key):
    """The numpy Generator of this seed, purpose and key (ints, say the worker's number)."""
    import numpy

    return numpy.random.default_rng(numpy.random.SeedSequence([seed, purpose, *key]))
