"""Data sets for classification: loading one, holding a part out, and sharing the rest over workers.

Everything here is deterministic. The held-out part depends on the data alone, so that every seed is evaluated on the
same samples; who gets which training sample is drawn from the stream Purpose.DATA.
"""

import functools
import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy
from annotated_types import Ge, Gt, Le, Lt

from mpibench.errors import InvalidInput
from mpibench.seeds import Purpose, generator

Fraction = Annotated[float, Gt(0), Lt(1)]
Batch = Annotated[int, Ge(1), Le(10**6)]  # samples of one gradient; its features are gathered in memory
Split = Literal["even", "label", "dirichlet"]

DENSE_BYTES = 4 * 2**30  # features are held as a dense matrix; a file that needs more is refused


@dataclass(frozen=True)
class Dataset:
    """N samples of p features and their classes."""

    name: str
    version: str
    licence: str
    checksum: str  # SHA-256: of the file where there is one, else of the arrays
    features: numpy.ndarray  # (N, p) float64
    labels: numpy.ndarray  # (N,) int64, 0 to C - 1
    classes: tuple[int, ...]  # the C labels as the source writes them


@dataclass(frozen=True)
class SharedData:
    """A data set with a held-out part, and the training samples of every worker."""

    features: numpy.ndarray  # (N, p) training samples
    labels: numpy.ndarray  # (N,)
    test_features: numpy.ndarray
    test_labels: numpy.ndarray
    classes: tuple[int, ...]
    parts: Sequence[numpy.ndarray]  # parts[i - 1]: the training samples of worker i, an array of row numbers
    provenance: dict

    def weight(self, worker):
        """n m_i / N for worker i = 1..n with m_i of the N samples.

        f_i is the mean loss over the worker's samples times this number, so that (1/n) sum f_i is exactly the mean
        over all samples, also where the parts differ by one sample.
        """
        return len(self.parts) * len(self.parts[worker - 1]) / len(self.labels)


def check_split(split, alpha):
    """Refuse `split` and `alpha` of a problem that do not belong together."""
    if split == "dirichlet" and alpha is None:
        raise InvalidInput("split = 'dirichlet' needs its concentration, for example alpha = 0.1")
    if split != "dirichlet" and alpha is not None:
        raise InvalidInput(f"alpha = {alpha} belongs to split = 'dirichlet', but split is {split!r}")


def share(data, test_fraction, split, alpha, workers, seed):
    """Load `data`, hold out `test_fraction` of it and split the rest over `workers`, as SharedData.

    Raises InvalidInput if the data cannot be read or has fewer training samples than there are workers.
    """
    whole = load(data)
    train, test = hold_out(whole.labels, test_fraction)
    if len(test) == 0:
        raise InvalidInput(
            f"test_fraction = {test_fraction} leaves no sample of {whole.name} to test on; make it larger"
        )
    labels = whole.labels[train]
    if workers > len(labels):
        raise InvalidInput(
            f"{whole.name} has {len(labels)} training samples, too few for {workers} workers: each needs one at least"
        )
    parts = divide(labels, workers, split, alpha, generator(seed, Purpose.DATA))
    provenance = {
        "name": whole.name,
        "version": whole.version,
        "licence": whole.licence,
        "checksum": whole.checksum,
        "partition": split if alpha is None else f"{split}({alpha})",
        "seed": seed,
        "classes": list(whole.classes),
        "labels": [numpy.bincount(labels[part], minlength=len(whole.classes)).tolist() for part in parts],
    }
    return SharedData(
        features=whole.features[train],
        labels=labels,
        test_features=whole.features[test],
        test_labels=whole.labels[test],
        classes=whole.classes,
        parts=parts,
        provenance=provenance,
    )


def load(data):
    """The data set "digits", or that of the LIBSVM file at this path (also .gz, .bz2), as a Dataset.

    Raises InvalidInput if there is no such file or it is not what it should be.
    """
    if data == "digits":
        return digits()
    path = Path(data)
    try:
        stat = path.stat()
    except OSError as error:
        raise InvalidInput(
            f"data = {data!r} cannot be read ({error.strerror}); give 'digits' or the path of a LIBSVM file"
        ) from error
    return libsvm(path, stat.st_size, stat.st_mtime_ns)


@functools.cache
def digits():
    """1,797 images of 8 x 8 pixels scaled to [0, 1]; ten classes. Comes with scikit-learn, nothing is downloaded."""
    import sklearn
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    return dataset(
        name="digits",
        version=f"UCI optical recognition of handwritten digits, 1998, test part; scikit-learn {sklearn.__version__}",
        licence="CC BY 4.0",
        checksum=hashlib.sha256(pixels.astype("<f8").tobytes() + labels.astype("<i8").tobytes()).hexdigest(),
        features=pixels / 16.0,
        labels=labels,
    )


@functools.lru_cache(maxsize=2)
def libsvm(path, size, changed):
    """The data set in a LIBSVM file; `size` and `changed` only tell a rewritten file from the one that was kept."""
    from sklearn.datasets import load_svmlight_file

    try:
        samples, labels = load_svmlight_file(str(path))
        checksum = hashlib.sha256(path.read_bytes()).hexdigest()
    except (OSError, EOFError, zlib.error) as error:
        raise InvalidInput(f"data file {path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    except (ValueError, OverflowError) as error:
        raise InvalidInput(
            f"data file {path} is not in LIBSVM format, lines of 'label index:value index:value ...': {error}"
        ) from error
    if len(labels) == 0:
        raise InvalidInput(f"data file {path} holds no sample; lines of 'label index:value ...' are needed")
    if not (numpy.isfinite(labels).all() and (labels == labels.round()).all()):
        raise InvalidInput(f"data file {path} holds labels that are not whole numbers; classes are needed")
    if not numpy.isfinite(samples.data).all():
        raise InvalidInput(f"data file {path} holds values that are infinite or not a number")
    if (needed := 8 * samples.shape[0] * samples.shape[1]) > DENSE_BYTES:
        raise InvalidInput(
            f"data file {path} takes {needed / 2**30:.1f} GiB as a dense matrix of {samples.shape[0]} x "
            f"{samples.shape[1]}; at most {DENSE_BYTES / 2**30:.0f} GiB are supported"
        )
    return dataset(
        name=path.name,
        version="file",
        licence="not stated in the file",
        checksum=checksum,
        features=samples.toarray(),
        labels=labels,
    )


def dataset(*, name, version, licence, checksum, features, labels):
    """A Dataset with classes counted from 0 and arrays that nobody can write."""
    classes, labels = numpy.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise InvalidInput(f"data {name} holds one class only ({classes[0]:g}); two at least are needed")
    features = numpy.ascontiguousarray(features, dtype=numpy.float64)
    labels = labels.astype(numpy.int64)
    features.flags.writeable = labels.flags.writeable = False
    return Dataset(name, version, licence, checksum, features, labels, tuple(int(label) for label in classes))


def hold_out(labels, fraction):
    """Row numbers (train, test): of every class the nearest whole number of samples to `fraction`, evenly spaced.

    Nothing is drawn, so the test part is the same for every seed. Every class keeps a training sample.
    """
    held = numpy.zeros(len(labels), dtype=bool)
    for label in numpy.unique(labels):
        members = numpy.flatnonzero(labels == label)
        count = min(round(fraction * len(members)), len(members) - 1)
        held[members[((numpy.arange(count) + 0.5) * len(members) / max(count, 1)).astype(int)]] = True
    return numpy.flatnonzero(~held), numpy.flatnonzero(held)


def divide(labels, workers, split, alpha, rng):
    """Every sample to exactly one worker, parts of equal size up to one sample: n arrays of row numbers.

    even        at random
    label       sorted by label and cut in n runs: worker 1 has the lowest labels, most workers one or two
    dirichlet   worker i draws the shares of its classes from Dirichlet(alpha, .., alpha) and its samples accordingly,
                as long as they last (T.-M. H. Hsu, H. Qi, M. Brown, "Measuring the Effects of Non-Identical Data
                Distribution for Federated Visual Classification", 2019, arXiv 1909.06335). Workers choose in random
                order, because the last ones get what is left, which may be a class or two.
    """
    order = rng.permutation(len(labels))
    if split == "even":
        return numpy.array_split(order, workers)
    order = order[numpy.argsort(labels[order], kind="stable")]
    if split == "label":
        return numpy.array_split(order, workers)
    stock = numpy.bincount(labels)
    piles = numpy.split(order, numpy.cumsum(stock)[:-1])  # piles[c]: the samples of class c, shuffled
    sizes = [len(part) for part in numpy.array_split(order, workers)]
    parts = [None] * workers
    for i in rng.permutation(workers):
        shares = rng.dirichlet(numpy.full(len(stock), alpha))
        taken = numpy.zeros_like(stock)
        while (missing := sizes[i] - taken.sum()) > 0:
            left = stock - taken
            wanted = numpy.where(left > 0, shares, 0.0)
            if wanted.sum() == 0:  # none of the classes that this worker asked for is left
                wanted = left.astype(float)
            taken += numpy.minimum(rng.multinomial(missing, wanted / wanted.sum()), left)
        parts[i] = numpy.concatenate([piles[c][stock[c] - taken[c] : stock[c]] for c in range(len(stock))])
        stock -= taken
    return parts
