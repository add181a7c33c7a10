"""Multinomial logistic regression with L2: f(W) = mean over samples of -log softmax(W a)_label + l2/2 ||W||^2.

W has a row for each of C classes and a column for each of p features and a constant 1, the last; the parameter vector
is W row by row, C (p + 1) numpy float64. All of W is in the L2 term. f_i is the mean over the samples of worker i,
weighted so that f = (1/n) sum f_i holds exactly (`mpibench.datasets.SharedData.weight`).

A stochastic gradient uses `batch` samples of the worker, drawn with replacement. The start is zero.

Metrics: loss f(W) over all training samples, gradient_norm_squared ||∇f(W)||^2, accuracy on the held-out samples.
"""

from dataclasses import dataclass

import numpy

from mpibench import constants, datasets
from mpibench.parameters import NonNegative
from mpibench.seeds import Purpose, generator


@dataclass(frozen=True)
class Logistic(datasets.Classification):
    l2: NonNegative = 1e-4

    def prepare(self, workers, seed):
        """The problem for this number of workers and this seed; InvalidInput if the data cannot be used."""
        data = datasets.share(self, workers, seed)
        return Prepared(self, data, seed)


class Prepared:
    """f and the f_i of n workers."""

    metrics = {"loss": "lower", "gradient_norm_squared": "lower", "accuracy": "higher"}

    def __init__(self, parameters, data, seed):
        self.parameters = parameters
        self.data = data
        self.seed = seed
        self.features = with_constant(data.features)
        self.test_features = with_constant(data.test_features)
        self.one_hot = numpy.eye(len(data.classes))[data.labels]
        self.shape = (len(data.classes), self.features.shape[1])  # of W
        self.dimension = self.shape[0] * self.shape[1]
        self.model_bytes = 8 * self.dimension
        self.provenance = data.provenance

    def start(self):
        """W^0 = 0: every class equally likely."""
        return numpy.zeros(self.dimension)

    def objective(self, i):
        """f_i of worker i = 1..n, at the beginning of its stream of samples."""
        return Objective(self, i)

    def constants(self):
        """What theory asks for (`mpibench.constants`), estimated at the start; f* >= 0."""

        def full(x):
            return gradient(x.reshape(self.shape), self.features, self.one_hot, self.parameters.l2)

        return constants.estimated(self, full)

    def evaluate(self, x):
        """Loss and squared gradient norm over all training samples, accuracy over the held-out ones."""
        with numpy.errstate(over="ignore", invalid="ignore"):  # a diverged x gives inf or nan, quietly
            W = x.reshape(self.shape)
            scores = self.features @ W.T
            scores -= scores.max(axis=1, keepdims=True)
            losses = numpy.log(numpy.exp(scores).sum(axis=1)) - (scores * self.one_hot).sum(axis=1)
            g = gradient(W, self.features, self.one_hot, self.parameters.l2)
            guesses = (self.test_features @ W.T).argmax(axis=1)
            return {
                "loss": float(losses.mean()) + 0.5 * self.parameters.l2 * float(x @ x),
                "gradient_norm_squared": float(g @ g),
                "accuracy": float((guesses == self.data.test_labels).mean()),
            }


class Objective:
    """f_i: `sample()` draws `batch` rows of the worker's part; `gradient(x, ξ)` only computes."""

    def __init__(self, problem, i):
        self.problem = problem
        self.shapes = [problem.shape]
        self.batch = problem.parameters.batch
        self.part = problem.data.parts[i - 1]
        self.weight = problem.data.weight(i)
        self.rng = generator(problem.seed, Purpose.SAMPLING, i)

    def sample(self):
        return self.part[self.rng.integers(len(self.part), size=self.batch)]

    def gradient(self, x, ξ):
        f = self.problem
        return gradient(x.reshape(f.shape), f.features[ξ], f.one_hot[ξ], f.parameters.l2, self.weight)


def gradient(W, features, one_hot, l2, weight=1.0):
    """Gradient of weight * (mean loss over m samples) + l2/2 ||W||^2, flat; features (m, p + 1), one_hot (m, C)."""
    scores = features @ W.T
    scores -= scores.max(axis=1, keepdims=True)
    probabilities = numpy.exp(scores)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    probabilities -= one_hot
    probabilities *= weight / len(features)
    return (probabilities.T @ features + l2 * W).ravel()


def with_constant(features):
    """The features and a last column of ones."""
    return numpy.hstack([features, numpy.ones((len(features), 1))])
