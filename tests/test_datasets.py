"""Folders of images in MNIST's format, and which of the samples a problem takes: limits, test parts, equal parts."""

import dataclasses
import gzip
import hashlib
import math
import os

import numpy
import pytest

from mpibench import datasets
from mpibench.datasets import IDX_FILES, Classification
from mpibench.errors import InvalidInput
from mpibench.problems.logistic import Logistic
from mpibench.seeds import Purpose, generator


def idx(array):
    """The bytes of an IDX file."""
    array = numpy.asarray(array, numpy.uint8)
    head = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return head + array.tobytes()


def write_images(folder, rows=40, test=10, classes=4, shape=(3, 2), key=0):
    """Random images in the files of MNIST, without a test part where `test` is 0; returns the four arrays."""
    rng = numpy.random.default_rng(key)
    arrays = []
    for count in (rows, test) if test else (rows,):
        labels = rng.integers(classes, size=count)
        labels[: min(classes, count)] = range(min(classes, count))
        arrays += [rng.integers(256, size=(count, *shape)), labels]
    for name, array in zip(IDX_FILES, arrays, strict=False):
        (folder / name).write_bytes(idx(array))
    return arrays


# ---------------------------------------------------------------- the files


def test_images_are_read_exactly(tmp_path):
    pixels, labels, test_pixels, test_labels = write_images(tmp_path)
    data = datasets.load(str(tmp_path))
    assert data.features == pytest.approx(pixels.reshape(40, 6) / 255)
    assert data.labels.tolist() == labels.tolist() and data.classes == (0, 1, 2, 3)
    assert data.test_features.tolist() == (test_pixels.reshape(10, 6) / 255).tolist()
    assert data.test_labels.tolist() == test_labels.tolist()
    assert (data.name, data.version) == (tmp_path.name, "IDX files, 40 + 10 images of 3 x 2")
    with pytest.raises(ValueError, match="read-only"):
        data.test_features[0, 0] = 1.0


def test_labels_of_the_test_part_are_counted_like_those_of_training(tmp_path):
    pixels = numpy.zeros((3, 1, 1))
    for name, array in zip(IDX_FILES, [pixels, [2, 5, 9], pixels, [9, 2, 2]], strict=True):
        (tmp_path / name).write_bytes(idx(array))
    data = datasets.load(str(tmp_path))
    assert data.classes == (2, 5, 9)
    assert (data.labels.tolist(), data.test_labels.tolist()) == ([0, 1, 2], [2, 0, 0])


@pytest.mark.parametrize("spelling", ["{}", "{}.gz", "dotted", "dotted.gz"])
def test_packed_and_otherwise_spelt_files_are_the_same_data(tmp_path, spelling):
    plain, other = tmp_path / "plain", tmp_path / "other"
    plain.mkdir()
    other.mkdir()
    write_images(plain)
    for name in IDX_FILES:
        content = (plain / name).read_bytes()
        target = spelling.format(name).replace("dotted", name.replace("-idx", ".idx"))
        (other / target).write_bytes(gzip.compress(content) if target.endswith(".gz") else content)
    one, two = datasets.load(str(plain)), datasets.load(str(other))
    assert (one.features == two.features).all() and (one.test_labels == two.test_labels).all()
    whole = b"".join((plain / name).read_bytes() for name in IDX_FILES)
    assert one.checksum == two.checksum == hashlib.sha256(whole).hexdigest()


def test_a_folder_without_test_files_holds_out_a_part(tmp_path):
    write_images(tmp_path, test=0)
    assert datasets.load(str(tmp_path)).test_labels is None
    shared = datasets.share(Classification(data=str(tmp_path), test_fraction=0.25), 2, 0)
    assert len(shared.labels) + len(shared.test_labels) == 40
    assert 6 <= len(shared.test_labels) <= 14


def test_rewritten_images_are_read_again(tmp_path):
    write_images(tmp_path)
    first = datasets.load(str(tmp_path))
    assert datasets.load(str(tmp_path)) is first
    write_images(tmp_path, key=1)
    for name in IDX_FILES:
        os.utime(tmp_path / name, ns=(1, 1))  # whatever the file system's resolution
    assert datasets.load(str(tmp_path)).checksum != first.checksum


BAD = {  # what is wrong: (file, its bytes, what is said)
    "no images": (0, None, "has no file train-images-idx3-ubyte"),
    "no labels": (1, None, "has no file train-labels-idx1-ubyte"),
    "half a test part": (3, None, "has no file t10k-labels-idx1-ubyte"),
    "other half": (2, None, "has no file t10k-images-idx3-ubyte"),
    "text": (0, b"not an image", "is not in IDX format"),
    "nothing": (0, b"", "is not in IDX format"),
    "floats": (0, b"\x00\x00\x0d\x03" + bytes(12), "is not in IDX format"),
    "two axes": (0, idx(numpy.zeros((4, 4))), "is not in IDX format"),
    "cut head": (0, idx(numpy.zeros((40, 3, 2)))[:10], "is not in IDX format"),
    "cut": (0, idx(numpy.zeros((40, 3, 2)))[:-1], "announces 240 bytes after its head and holds 239 bytes"),
    "longer": (1, idx(numpy.zeros(40)) + b"\x00", "announces 40 bytes after its head and holds more"),
    "too large": (0, b"\x00\x00\x08\x03" + b"\x7f\xff\xff\xff" * 3, "GiB as a dense matrix"),
    "too few labels": (1, idx([0, 1, 2]), "hold arrays of 40 x 3 x 2 and 3"),
    "labels for images": (0, idx(numpy.zeros(40)), "hold arrays of 40 and 40"),
    "images for labels": (1, idx(numpy.zeros((40, 1, 1))), "hold arrays of 40 x 3 x 2 and 40 x 1 x 1"),
    "other size": (2, idx(numpy.zeros((10, 2, 3))), "images of another size or other labels"),
    "other labels": (3, idx([7] * 10), "images of another size or other labels"),
    "one class": (1, idx([3] * 40), "other labels than the training files"),
}


@pytest.mark.parametrize("wrong", BAD)
def test_unusable_folders_are_refused_in_one_sentence(tmp_path, wrong):
    number, content, said = BAD[wrong]
    write_images(tmp_path)
    if content is None:
        (tmp_path / IDX_FILES[number]).unlink()
    else:
        (tmp_path / IDX_FILES[number]).write_bytes(content)
    with pytest.raises(InvalidInput) as error:
        Logistic(data=str(tmp_path)).prepare(1, 0)
    assert said in str(error.value) and str(tmp_path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "content", [b"plain text", gzip.compress(bytes(1000), mtime=0)[:-9], b"\x1f\x8b\x08\x00aaaaaaaaaaaaaa"]
)
def test_broken_packing_is_refused(tmp_path, content):
    write_images(tmp_path)
    (tmp_path / IDX_FILES[0]).unlink()
    (tmp_path / (IDX_FILES[0] + ".gz")).write_bytes(content)
    with pytest.raises(InvalidInput, match=r"train-images-idx3-ubyte\.gz (cannot be read|is not in IDX format)"):
        datasets.load(str(tmp_path))


def test_empty_images_and_single_classes_are_refused(tmp_path):
    write_images(tmp_path, test=0)
    (tmp_path / IDX_FILES[1]).write_bytes(idx([3] * 40))
    with pytest.raises(InvalidInput, match="one class only"):
        datasets.load(str(tmp_path))
    (tmp_path / IDX_FILES[0]).write_bytes(idx(numpy.zeros((0, 3, 2))))
    (tmp_path / IDX_FILES[1]).write_bytes(idx([]))
    with pytest.raises(InvalidInput, match="holds no image"):
        datasets.load(str(tmp_path))


# ---------------------------------------------------------------- which samples


def test_the_sources_own_test_part_is_used_unless_a_fraction_is_given(tmp_path):
    pixels, labels, _, test_labels = write_images(tmp_path)
    own = datasets.share(Classification(data=str(tmp_path)), 3, 0)
    assert own.test_labels.tolist() == test_labels.tolist()
    assert own.labels.tolist() == labels.tolist()
    assert sorted(numpy.concatenate(own.parts).tolist()) == list(range(40))
    held = datasets.share(Classification(data=str(tmp_path), test_fraction=0.5), 3, 0)
    train, test = datasets.hold_out(labels, 0.5)
    assert held.labels.tolist() == labels[train].tolist()
    assert held.test_features.tolist() == (pixels[test].reshape(len(test), 6) / 255).tolist()


def test_absent_test_fraction_is_a_fifth():
    absent, given = (datasets.share(Classification(test_fraction=f), 4, 0) for f in (None, 0.2))
    assert (absent.test_features == given.test_features).all()
    assert [a.tolist() for a in absent.parts] == [b.tolist() for b in given.parts]


def test_only_the_first_samples(tmp_path):
    _, labels, _, test_labels = write_images(tmp_path)
    shared = datasets.share(Classification(data=str(tmp_path), samples=15), 2, 0)
    assert shared.labels.tolist() == labels[:15].tolist()
    assert sorted(numpy.concatenate(shared.parts).tolist()) == list(range(15))
    assert shared.test_labels.tolist() == test_labels.tolist()
    with pytest.raises(InvalidInput, match="samples = 41, but .* has 40 training samples"):
        datasets.share(Classification(data=str(tmp_path), samples=41), 2, 0)
    with pytest.raises(InvalidInput, match="has 15 training samples, too few for 16 workers"):
        datasets.share(Classification(data=str(tmp_path), samples=15), 16, 0)


@pytest.mark.parametrize(("workers", "each"), [(7, 5), (40, 1), (21, 1), (8, 5)])
def test_equal_parts_leave_out_the_last_samples(tmp_path, workers, each):
    _, labels, _, _ = write_images(tmp_path)
    of = Classification(data=str(tmp_path), split="dirichlet", alpha=0.1, equal_parts=True)
    shared = datasets.share(of, workers, 0)
    assert {len(part) for part in shared.parts} == {each}
    assert sorted(numpy.concatenate(shared.parts).tolist()) == list(range(workers * each))
    assert shared.labels.tolist() == labels[: workers * each].tolist()
    assert {shared.weight(i) for i in range(1, workers + 1)} == {1.0}


def test_a_partition_seed_fixes_who_has_what_and_nothing_else():
    of = Classification(split="dirichlet", alpha=0.1, partition_seed=654321)
    one, other = (datasets.share(of, 10, seed) for seed in (0, 1))
    assert [a.tolist() for a in one.parts] == [b.tolist() for b in other.parts]
    own = datasets.share(dataclasses.replace(of, partition_seed=None), 10, 654321)
    assert [a.tolist() for a in one.parts] == [b.tolist() for b in own.parts]
    assert one.provenance["seed"] == 654321
    problems = [Logistic(split="dirichlet", alpha=0.1, partition_seed=5).prepare(10, seed) for seed in (0, 1)]
    drawn = [f.part[generator(seed, Purpose.SAMPLING, 3).integers(len(f.part), size=16)].tolist()
             for seed, f in enumerate(problem.objective(3) for problem in problems)]  # fmt: skip
    assert [problem.objective(3).sample().tolist() for problem in problems] == drawn
    assert drawn[0] != drawn[1]


def test_standardised_features_have_mean_zero_and_deviation_one(tmp_path):
    pixels, _, test_pixels, _ = write_images(tmp_path)
    shared = datasets.share(Classification(data=str(tmp_path), standardise=True), 2, 0)
    assert shared.features.mean() == pytest.approx(0.0, abs=1e-15)
    assert shared.features.std() == pytest.approx(1.0)
    scale = lambda part: (part / 255 - (pixels / 255).mean()) / (pixels / 255).std()  # noqa: E731
    assert shared.features == pytest.approx(scale(pixels).reshape(40, 6))
    assert shared.test_features == pytest.approx(scale(test_pixels).reshape(10, 6))  # with the training part's numbers
    told = shared.provenance["standardised"]
    assert told == {"mean": pytest.approx((pixels / 255).mean()), "deviation": pytest.approx((pixels / 255).std())}
    assert "standardised" not in datasets.share(Classification(data=str(tmp_path)), 2, 0).provenance


def test_constant_features_cannot_be_standardised(tmp_path):
    write_images(tmp_path, test=0)
    (tmp_path / IDX_FILES[0]).write_bytes(idx(numpy.full((40, 2, 2), 51)))
    with pytest.raises(InvalidInput, match="cannot be standardised, because all its features are 0.2"):
        datasets.share(Classification(data=str(tmp_path), standardise=True), 2, 0)


def test_a_problem_learns_from_images(tmp_path):
    pixels, labels, _, _ = write_images(tmp_path, rows=60, test=20, classes=2)
    for number, (images, classes) in enumerate([(pixels, labels), (pixels[:20], labels[:20])]):
        images[:, 0, 0] = 255 * classes  # one pixel is the label
        (tmp_path / IDX_FILES[2 * number]).write_bytes(idx(images))
        (tmp_path / IDX_FILES[2 * number + 1]).write_bytes(idx(classes))
    problem = Logistic(data=str(tmp_path), standardise=True, l2=0.0).prepare(1, 0)
    assert problem.dimension == 2 * 7
    f, x = problem.objective(1), problem.start()
    assert problem.evaluate(x)["loss"] == pytest.approx(math.log(2))
    for _ in range(60):
        x = x - 0.5 * f.gradient(x, numpy.arange(60))
    assert problem.evaluate(x)["accuracy"] == 1.0
