"""A network of two layers: f(x) = mean over samples of -log softmax(V φ(U a + u) + v)_label, φ = relu or tanh.

Vectors are torch tensors on the CPU. The parameter vector is U, u, V, v one after the other, each row by row:
h p + h + C h + C numbers for p features, h hidden units and C classes. f_i is the mean over the samples of worker i,
weighted so that f = (1/n) sum f_i holds exactly (`mpibench.datasets.SharedData.weight`).

A stochastic gradient uses `batch` samples of the worker, drawn with replacement. The start is random, uniform within
1/sqrt(inputs of the layer) of zero (the law of torch.nn.Linear), from the stream Purpose.INIT: one for both precisions.

Preparing the problem sets torch to one thread, so that sums have the same bits in every process.

Metrics: loss f(x) over all training samples, gradient_norm_squared ||∇f(x)||^2, accuracy on the held-out samples.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy
from annotated_types import Ge, Le

from mpibench import constants, datasets
from mpibench.errors import InvalidInput
from mpibench.seeds import Purpose, generator


@dataclass(frozen=True)
class MLP(datasets.Classification):
    hidden: Annotated[int, Ge(1), Le(10**6)] = 32  # h
    activation: Literal["relu", "tanh"] = "relu"
    precision: Literal["float32", "float64"] = "float32"

    def prepare(self, workers, seed):
        """The problem for this number of workers and this seed; InvalidInput without torch or usable data."""
        try:
            import torch
        except ImportError as error:
            raise InvalidInput("problem mlp needs torch, which is not installed") from error

        torch.set_num_threads(1)
        data = datasets.share(self, workers, seed)
        return Prepared(self, data, seed)


class Prepared:
    """f and the f_i of n workers."""

    metrics = {"loss": "lower", "gradient_norm_squared": "lower", "accuracy": "higher"}

    def __init__(self, parameters, data, seed):
        import torch

        self.parameters = parameters
        self.data = data
        self.seed = seed
        self.dtype = getattr(torch, parameters.precision)
        self.activation = getattr(torch, parameters.activation)
        self.features = torch.tensor(data.features, dtype=self.dtype)
        self.labels = torch.tensor(data.labels)
        self.test_features = torch.tensor(data.test_features, dtype=self.dtype)
        self.test_labels = torch.tensor(data.test_labels)
        h, p, classes = parameters.hidden, data.features.shape[1], len(data.classes)
        self.shapes = [(h, p), (h,), (classes, h), (classes,)]  # U, u, V, v
        self.dimension = sum(math.prod(shape) for shape in self.shapes)
        self.model_bytes = self.dimension * self.dtype.itemsize
        self.provenance = data.provenance

    def start(self):
        """x^0, random."""
        import torch

        rng = generator(self.seed, Purpose.INIT)
        inputs = [self.shapes[0][1]] * 2 + [self.shapes[2][1]] * 2  # of the layer of U and u, of the layer of V and v
        parts = [
            rng.uniform(-1, 1, math.prod(shape)) / math.sqrt(m) for m, shape in zip(inputs, self.shapes, strict=True)
        ]
        return torch.tensor(numpy.concatenate(parts), dtype=self.dtype)

    def objective(self, i):
        """f_i of worker i = 1..n, at the beginning of its stream of samples."""
        return Objective(self, i)

    def constants(self):
        """What theory asks for (`mpibench.constants`), estimated at the start; f* >= 0."""
        return constants.estimated(self, lambda x: self.loss_and_gradient(x, self.features, self.labels)[1])

    def scores(self, x, features):
        """(m, C): what the network with parameters x says about m samples."""
        U, u, V, v = (
            part.view(shape)
            for part, shape in zip(x.split([math.prod(shape) for shape in self.shapes]), self.shapes, strict=True)
        )
        return self.activation(features @ U.T + u) @ V.T + v

    def loss_and_gradient(self, x, features, labels, weight=1.0):
        """weight * (mean loss over these m samples) and its gradient; x is only read.

        The computation is on a copy of x, because kernels may add in another order where memory is aligned otherwise,
        and x may lie anywhere in a buffer that came over the network.
        """
        import torch

        leaf = x.detach().clone().requires_grad_(True)
        loss = weight * torch.nn.functional.cross_entropy(self.scores(leaf, features), labels)
        (g,) = torch.autograd.grad(loss, leaf)
        return loss.detach(), g

    def evaluate(self, x):
        """Loss and squared gradient norm over all training samples, accuracy over the held-out ones."""
        x = x.detach().clone()
        loss, g = self.loss_and_gradient(x, self.features, self.labels)
        guesses = self.scores(x, self.test_features).argmax(dim=1)
        return {
            "loss": float(loss),
            "gradient_norm_squared": float(g.double() @ g.double()),
            "accuracy": float((guesses == self.test_labels).double().mean()),
        }


class Objective:
    """f_i: `sample()` draws `batch` rows of the worker's part; `gradient(x, ξ)` only computes."""

    def __init__(self, problem, i):
        import torch

        self.problem = problem
        self.shapes = problem.shapes
        self.batch = problem.parameters.batch
        self.part = torch.tensor(problem.data.parts[i - 1])
        self.weight = problem.data.weight(i)
        self.rng = generator(problem.seed, Purpose.SAMPLING, i)

    def sample(self):
        import torch

        return self.part[torch.from_numpy(self.rng.integers(len(self.part), size=self.batch))]

    def gradient(self, x, ξ):
        f = self.problem
        return f.loss_and_gradient(x, f.features[ξ], f.labels[ξ], self.weight)[1]
