"""Data sets for classification: loading one, holding a part out, and sharing the rest over workers.

Everything here is deterministic. The held-out part depends on the data alone, so that every seed is evaluated on the
same samples; who gets which training sample is drawn from the stream Purpose.DATA.

There are three sources: "digits", which comes with scikit-learn; a LIBSVM file; and a folder with the four files of
MNIST, Fashion-MNIST or another set in their format (`images`). Nothing is downloaded.
"""

import functools
import gzip
import hashlib
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy
from annotated_types import Ge, Gt, Le, Lt

from mpibench.errors import InvalidInput
from mpibench.parameters import Count, Positive
from mpibench.seeds import Purpose, generator

Fraction = Annotated[float, Gt(0), Lt(1)]
Batch = Annotated[int, Ge(1), Le(10**6)]  # samples of one gradient; its features are gathered in memory
Split = Literal["even", "label", "dirichlet", "shared"]

DENSE_BYTES = 4 * 2**30  # features are held as a dense matrix; a file that needs more is refused
HELD_OUT = 0.2  # of a source that has no test part of its own

# The files of a folder; "train-images.idx3-ubyte" and names that end in .gz are taken as well.
IDX_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


@dataclass(frozen=True)
class Classification:
    """What every problem on a data set says: its samples, who has which, and how many make a gradient."""

    data: str = "digits"  # or the path of a LIBSVM file, or of a folder with the files of MNIST
    samples: Count | None = None  # only the first so many training samples
    # held out of every class, the same samples for every seed; absent: the test part that the source has, or 0.2
    test_fraction: Fraction | None = None
    standardise: bool = False  # subtract the mean of all training features, divide by their standard deviation
    split: Split = "even"
    alpha: Positive | None = None  # concentration of split = "dirichlet"
    equal_parts: bool = False  # leave out the last samples, fewer than workers, so that all have equally many
    partition_seed: Annotated[int, Ge(0), Lt(2**63)] | None = None  # in place of the run's seed: one split for all runs
    batch: Batch = 16

    def __post_init__(self):
        if self.split == "dirichlet" and self.alpha is None:
            raise InvalidInput("split = 'dirichlet' needs its concentration, for example alpha = 0.1")
        if self.split != "dirichlet" and self.alpha is not None:
            raise InvalidInput(f"alpha = {self.alpha} belongs to split = 'dirichlet', but split is {self.split!r}")

    @property
    def heterogeneous(self):
        """Whether the f_i differ by more than the luck of the draw."""
        return self.split not in ("even", "shared")


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
    test_features: numpy.ndarray | None = None  # the source's own test part, if it has one
    test_labels: numpy.ndarray | None = None


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
        """n m_i / N for worker i = 1..n with m_i of the N samples, or 1 where everybody has all of them.

        f_i is the mean loss over the worker's samples times this number, so that (1/n) sum f_i is exactly the mean
        over all samples, also where the parts differ by one sample.
        """
        own, everything = len(self.parts[worker - 1]), len(self.labels)
        return 1.0 if own == everything else len(self.parts) * own / everything


def share(of, workers, seed):
    """Load the data of a problem (`Classification`), hold a part out and split the rest over `workers`, as SharedData.

    Raises InvalidInput if the data cannot be read or has fewer training samples than there are workers.
    """
    whole = load(of.data)
    features, labels, test_features, test_labels = with_test_part(whole, of.test_fraction)
    if of.samples is not None:
        if of.samples > len(labels):
            raise InvalidInput(f"samples = {of.samples}, but {whole.name} has {len(labels)} training samples")
        features, labels = features[: of.samples], labels[: of.samples]
    if workers > len(labels) and of.split != "shared":
        raise InvalidInput(
            f"{whole.name} has {len(labels)} training samples, too few for {workers} workers: each needs one at least"
        )
    if of.equal_parts:
        kept = len(labels) - len(labels) % workers
        features, labels = features[:kept], labels[:kept]
    provenance = {
        "name": whole.name,
        "version": whole.version,
        "licence": whole.licence,
        "checksum": whole.checksum,
        "partition": of.split if of.alpha is None else f"{of.split}({of.alpha})",
        "seed": seed if of.partition_seed is None else of.partition_seed,
        "classes": list(whole.classes),
    }
    if of.standardise:
        if features.min() == features.max():
            raise InvalidInput(f"{whole.name} cannot be standardised, because all its features are {features.min():g}")
        mean, deviation = float(features.mean()), float(features.std())
        features, test_features = (features - mean) / deviation, (test_features - mean) / deviation
        provenance["standardised"] = {"mean": mean, "deviation": deviation}
    parts = divide(labels, workers, of.split, of.alpha, generator(provenance["seed"], Purpose.DATA))
    provenance["labels"] = [numpy.bincount(labels[part], minlength=len(whole.classes)).tolist() for part in parts]
    return SharedData(
        features=features,
        labels=labels,
        test_features=test_features,
        test_labels=test_labels,
        classes=whole.classes,
        parts=parts,
        provenance=provenance,
    )


def with_test_part(whole, fraction):
    """Features and labels to train on, and to test on: the source's own test part, or a fraction of what it has."""
    if fraction is None and whole.test_labels is not None:
        return whole.features, whole.labels, whole.test_features, whole.test_labels
    train, test = hold_out(whole.labels, HELD_OUT if fraction is None else fraction)
    if len(test) == 0:
        said = f"test_fraction = {fraction or HELD_OUT}"
        raise InvalidInput(f"{said} leaves no sample of {whole.name} to test on; make it larger")
    return whole.features[train], whole.labels[train], whole.features[test], whole.labels[test]


def load(data):
    """The data set "digits", that of the LIBSVM file at this path (also .gz, .bz2), or that of the MNIST files in the
    folder at this path, as a Dataset.

    Raises InvalidInput if there is no such file or it is not what it should be.
    """
    if data == "digits":
        return digits()
    path = Path(data)
    try:
        stat = path.stat()
        if path.is_dir():
            files = tuple(idx_file(path, name) for name in IDX_FILES)
            states = [file and file.stat() for file in files]
            return images(path, files, tuple(state and (state.st_size, state.st_mtime_ns) for state in states))
    except OSError as error:
        text = f"data = {data!r} cannot be read ({error.strerror})"
        raise InvalidInput(f"{text}; give 'digits', the path of a LIBSVM file or a folder of MNIST files") from error
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


@functools.lru_cache(maxsize=2)
def images(path, files, changed):
    """The images in a folder with the files of MNIST, as features in [0, 1]: one a pixel, row by row.

    files: paths of training images, training labels, test images and test labels, the last two None where there is no
    test part; `changed` only tells rewritten files from those that were kept. The checksum is that of what is in the
    files one after the other, unpacked.
    """
    for name, file in zip(IDX_FILES, files, strict=True):
        if file is None and (name in IDX_FILES[:2] or any(files[2:])):
            raise InvalidInput(f"data folder {path} has no file {name}, packed (.gz) or not")
    checksum = hashlib.sha256()
    arrays = [read_idx(file, checksum) for file in files if file is not None]
    for file, pixels, labels in zip(files[::2], arrays[::2], arrays[1::2], strict=False):
        if pixels.ndim != 3 or labels.ndim != 1 or len(pixels) != len(labels):
            shapes = f"arrays of {shape_text(pixels)} and {shape_text(labels)}"
            raise InvalidInput(f"data file {file} and its labels hold {shapes}; as many labels as images are needed")
        if pixels.size == 0:
            raise InvalidInput(f"data file {file} holds no image")
        if pixels.shape[1:] != arrays[0].shape[1:] or not set(labels.tolist()) <= set(arrays[1].tolist()):
            raise InvalidInput(f"data file {file} has images of another size or other labels than the training files")
    scaled = [(part.reshape(len(part), -1) / 255.0) for part in arrays[::2]]
    counts = " + ".join(str(len(part)) for part in scaled)
    whole = dataset(
        name=path.resolve().name,
        version=f"IDX files, {counts} images of {shape_text(arrays[0][0])}",
        licence="not stated in the files",
        checksum=checksum.hexdigest(),
        features=scaled[0],
        labels=arrays[1],
    )
    if len(scaled) == 1:
        return whole
    labels = numpy.searchsorted(whole.classes, arrays[3])
    scaled[1].flags.writeable = labels.flags.writeable = False
    return replace(whole, test_features=scaled[1], test_labels=labels)


def idx_file(folder, name):
    """The path of the file of this name, or of one of its other spellings; None where there is none."""
    spellings = [name, name.replace("-idx", ".idx")]
    candidates = [folder / (spelling + packed) for packed in ("", ".gz") for spelling in spellings]
    return next((file for file in candidates if file.is_file()), None)


def read_idx(file, checksum):
    """The array of unsigned bytes in an IDX file: two zero bytes, the type 8, the number of axes, the length of each
    axis as 4 bytes, highest first, then the numbers. Adds what was read to `checksum`."""
    try:
        with (gzip.open if file.suffix == ".gz" else open)(file, "rb") as stream:
            head = stream.read(4)
            axes = head[3] if len(head) == 4 and head[:3] == b"\x00\x00\x08" else 0
            lengths = stream.read(4 * axes)
            if axes not in (1, 3) or len(lengths) < 4 * axes:
                raise InvalidInput(f"data file {file} is not in IDX format: it must begin with 0, 0, 8 and 1 or 3 axes")
            shape = tuple(numpy.frombuffer(lengths, ">u4").tolist())
            size = math.prod(shape)
            if 8 * size > DENSE_BYTES:
                raise InvalidInput(
                    f"data file {file} takes {8 * size / 2**30:.1f} GiB as a dense matrix; at most "
                    f"{DENSE_BYTES / 2**30:.0f} GiB are supported"
                )
            body = stream.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InvalidInput(f"data file {file} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if len(body) != size:
        length = f"{len(body)} bytes" if len(body) < size else "more"
        raise InvalidInput(f"data file {file} announces {size} bytes after its head and holds {length}")
    for part in (head, lengths, body):
        checksum.update(part)
    return numpy.frombuffer(body, numpy.uint8).reshape(shape)


def shape_text(array):
    """The lengths of the axes: `28 x 28`."""
    return " x ".join(map(str, array.shape))


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

    shared      not so: every worker has all of them, the homogeneous setting of papers
    even        at random
    label       sorted by label and cut in n runs: worker 1 has the lowest labels, most workers one or two
    dirichlet   worker i draws the shares of its classes from Dirichlet(alpha, .., alpha) and its samples accordingly,
                as long as they last (T.-M. H. Hsu, H. Qi, M. Brown, "Measuring the Effects of Non-Identical Data
                Distribution for Federated Visual Classification", 2019, arXiv 1909.06335). Workers choose in random
                order, because the last ones get what is left, which may be a class or two.
    """
    if split == "shared":
        return [numpy.arange(len(labels))] * workers
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
