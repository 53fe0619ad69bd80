"""The mathematics that heads and combiners are fitted with: losses, temperatures, Adam.

Everything is numpy with gradients written by hand. The models fitted here are so small that
building and walking an autograd graph, and importing a framework, would cost more than the
arithmetic.
"""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

TEMPERATURE_RANGE = (0.05, 20.0)
"""Where a temperature is searched; the bounds keep it finite when a backbone is always right."""

_ADAM_CELLS = 2**15
"""Numbers of one array that Adam moves at a time: with its moments they stay in a core's cache."""

BLOCK_CELLS = 2**21
"""Numbers that are turned into float64 at a time: 16 MB."""

_PRODUCT_ROWS = 512

_PRODUCT_COLUMNS = 1024
"""Outputs at a time: a copy of all in float64 may not fit."""
"""Rows of one product of `product_by_blocks`. With 1000 classes, 512 take 2 to 6 % longer than all
rows at once, 256 take 10 %; more would make a few rows slow."""


def log_softmax(logits: Float[np.ndarray, "*rows classes"]) -> Float[np.ndarray, "*rows classes"]:
    """Return log probabilities over the last axis, in (-inf, 0], in the dtype of `logits`.

    >>> np.exp(log_softmax(np.array([[0.0, np.log(3.0)]]))).round(2).tolist()
    [[0.25, 0.75]]
    """
    shifted = logits - logits.max(axis=-1, keepdims=True)
    result: np.ndarray = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


def softmax(logits: Float[np.ndarray, "*rows classes"]) -> Float[np.ndarray, "*rows classes"]:
    """Return probabilities over the last axis, in [0, 1], in the dtype of `logits`.

    >>> softmax(np.array([1000.0, 1000.0])).tolist()
    [0.5, 0.5]
    """
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    result: np.ndarray = powers / powers.sum(axis=-1, keepdims=True)
    return result


def cross_entropy(
    logits: Float[np.ndarray, "samples classes"], labels: Int[np.ndarray, " samples"]
) -> float:
    """Return the mean negative log probability of the labels, in nats; lower is better.

    >>> round(cross_entropy(np.zeros((3, 4)), np.array([0, 1, 3])), 4) == round(math.log(4), 4)
    True
    """
    chosen = log_softmax(logits.astype(np.float64))[np.arange(len(labels)), labels]
    return float(-chosen.mean())


def cross_entropy_gradient(
    logits: Float[np.ndarray, "samples classes"], labels: Int[np.ndarray, " samples"]
) -> Float[np.ndarray, "samples classes"]:
    """Return the derivative of the mean cross-entropy with respect to the logits.

    >>> cross_entropy_gradient(np.zeros((1, 2)), np.array([0])).tolist()
    [[-0.5, 0.5]]
    """
    gradient = softmax(logits)
    gradient[np.arange(len(labels)), labels] -= 1
    gradient /= len(labels)
    return gradient


def label_shift(
    labels: Int[np.ndarray, " samples"], shares: Float[np.ndarray, " classes"], *, smoothing: float
) -> Float[np.ndarray, " classes"]:
    """Return by how much the labels' own class proportions move the logits that fit them best.

    Added to the logits while fitting, and left out when predicting, it keeps the counts of labels
    that came at random from becoming a prior of the classes (logit adjustment: Menon et al., arXiv
    2007.07314). With as many labels of each class as `shares` says, it is 0.

    Args:
        labels: class numbers.
        shares: of the classes where predictions are made, positive, with sum 1.
        smoothing: labels that each class is given on top, times its share and the number of
            classes; more than 0, as a class may have none.

    >>> label_shift(np.array([0, 1]), np.array([0.5, 0.5]), smoothing=0.25).tolist()
    [0.0, 0.0]
    """
    classes = len(shares)
    counts = np.bincount(labels, minlength=classes) + smoothing * classes * shares
    shift: np.ndarray = np.log(counts / counts.sum()) - np.log(shares)
    return shift


def fit_temperature(
    logits: Float[np.ndarray, "samples classes"], labels: Int[np.ndarray, " samples"]
) -> float:
    """Find the temperature T > 0 that minimises the cross-entropy of `logits / T`.

    Guo et al., "On Calibration of Modern Neural Networks", 2017. A bounded search on log T within
    `TEMPERATURE_RANGE`: the loss is convex in 1/T, so it has one minimum. With a single class, whose
    probability is always 1, it is 1.

    >>> fit_temperature(np.zeros((2, 1)), np.array([0, 0]))
    1.0
    """
    if logits.shape[1] == 1:
        return 1.0
    from scipy.optimize import minimize_scalar  # noqa: PLC0415  (0.3 s that prediction can spare)

    # With d = z - z_label the loss is log(1 + sum over the other classes of exp(d / T)). Written so,
    # it keeps its slope where the label is so probable that its probability rounds to 1.
    rows = np.arange(len(labels))
    below = logits.astype(np.float64)  # the only copy: several of ImageNet's size would not fit
    below -= below[rows, labels][:, None]
    below[rows, labels] = -np.inf
    highest = below.max(axis=1)
    below -= highest[:, None]

    def loss(log_temperature: float) -> float:
        scale = math.exp(-log_temperature)
        summed = [np.exp(below[block] * scale).sum(axis=1) for block in row_blocks(*below.shape)]
        return float(np.logaddexp(0, highest * scale + np.log(np.concatenate(summed))).mean())

    bounds = tuple(math.log(t) for t in TEMPERATURE_RANGE)
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-5})
    return math.exp(float(found.x))


def fit_temperatures(
    logits: Float[np.ndarray, "backbones samples classes"], labels: Int[np.ndarray, " samples"]
) -> Float[np.ndarray, " backbones"]:
    """Find every backbone's own temperature; see `fit_temperature`."""
    return np.array([fit_temperature(one, labels) for one in logits], dtype=np.float64)


def row_blocks(rows: int, width: int) -> list[slice]:
    """Cut row numbers into blocks whose float64 copies stay small; `width` numbers make a row.

    >>> row_blocks(5000, 1000)[-1]
    slice(4194, 5000, None)
    """
    size = max(1, BLOCK_CELLS // width)
    return [slice(a, min(a + size, rows)) for a in range(0, rows, size)]


def class_sums(
    rows: Float[np.ndarray, "samples dim"], labels: Int[np.ndarray, " samples"], classes: int
) -> Float[np.ndarray, "classes dim"]:
    """Return the sum of every class's rows, in float64; zeros for a class without a row.

    >>> class_sums(np.array([[1.0], [2.0], [4.0]]), np.array([0, 2, 0]), 3).tolist()
    [[5.0], [0.0], [2.0]]
    """
    order = np.argsort(labels, kind="stable")
    present, first = np.unique(labels[order], return_index=True)
    sums = np.zeros((classes, rows.shape[1]))
    if len(present):
        sums[present] = np.add.reduceat(rows[order].astype(np.float64), first, axis=0)
    return sums


def momentum_step(
    parameter: Float[np.ndarray, "..."],
    velocity: Float[np.ndarray, "..."],
    gradient: Float[np.ndarray, "..."],
    *,
    learning_rate: float,
    momentum: float = 0.9,
) -> None:
    """Take a step of gradient descent with momentum, as PyTorch's SGD, in place.

    >>> at, velocity = np.array([1.0]), np.array([2.0])
    >>> momentum_step(at, velocity, np.array([1.0]), learning_rate=0.25, momentum=0.5)
    >>> at.tolist(), velocity.tolist()
    ([0.5], [2.0])
    """
    velocity *= momentum
    velocity += gradient
    parameter -= learning_rate * velocity


def cosine_schedule(learning_rate: float, step: int, steps: int) -> float:
    """Return the learning rate of a step from 0: falling from `learning_rate` to 0 (SGDR, 2017).

    >>> [round(cosine_schedule(2.0, step, 4), 2) for step in range(4)]
    [2.0, 1.71, 1.0, 0.29]
    """
    return learning_rate * (1 + math.cos(math.pi * step / steps)) / 2


def product_by_blocks(
    rows: Float[np.ndarray, "samples dim"], matrix: Float[np.ndarray, "dim outputs"]
) -> Float[np.ndarray, "samples outputs"]:
    """Return `rows @ matrix`, each row with the same bits whatever rows stand beside it.

    Matrix libraries choose how to sum by the sizes of a product, so a row's last bits depend on the
    number of rows; and in float32 some (OpenBLAS on processors with AVX2) sum a row by where it
    stands. Here every product has the same number of rows, the last ones filled up with zeros, and
    sums in float64; what comes out has the dtype of what came in.
    """
    product = np.empty((len(rows), matrix.shape[1]), dtype=np.result_type(rows, matrix))
    block = np.zeros((_PRODUCT_ROWS, rows.shape[1]))
    for first in range(0, matrix.shape[1], _PRODUCT_COLUMNS):
        columns = slice(first, first + _PRODUCT_COLUMNS)
        right = np.ascontiguousarray(matrix[:, columns], dtype=np.float64)
        for begin in range(0, len(rows), _PRODUCT_ROWS):
            part = rows[begin : begin + _PRODUCT_ROWS]
            block[: len(part)] = part
            block[len(part) :] = 0
            product[begin : begin + len(part), columns] = (block @ right)[: len(part)]
    return product


class Adam:
    """Adam with decoupled weight decay, changing the given arrays in place.

    Kingma & Ba 2015 with betas (0.9, 0.999); the decay as in Loshchilov & Hutter 2019. The arrays
    and their gradients are float32. Setting `learning_rate` between two steps makes a schedule.

    >>> weight = np.array([1.0], dtype=np.float32)
    >>> Adam([weight], learning_rate=0.25).step([np.array([7.0], dtype=np.float32)])
    >>> weight.tolist()
    [0.75]
    """

    def __init__(
        self,
        parameters: Sequence[Float[np.ndarray, "..."]],
        *,
        learning_rate: float,
        weight_decay: float = 0.0,
        epsilon: float = 1e-8,
    ) -> None:
        self.parameters = list(parameters)
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.epsilon = epsilon
        self._steps = 0
        self._moments = [(np.zeros_like(p), np.zeros_like(p)) for p in parameters]
        self._scratch = [np.empty_like(p) for p in parameters]

    def step(self, gradients: Sequence[Float[np.ndarray, "..."]]) -> None:
        """Move every parameter one step against its gradient."""
        self._steps += 1
        for index, gradient in enumerate(gradients):
            self._move(index, gradient)

    def _move(self, index: int, gradient: Float[np.ndarray, "..."]) -> None:
        parts = (self.parameters[index], gradient, *self._moments[index], self._scratch[index])
        if gradient.size <= _ADAM_CELLS or not all(part.flags.c_contiguous for part in parts):
            self._move_part(*parts)
            return
        flat = [part.reshape(-1) for part in parts]
        for begin in range(0, gradient.size, _ADAM_CELLS):
            self._move_part(*(part[begin : begin + _ADAM_CELLS] for part in flat))

    def _move_part(
        self,
        parameter: Float[np.ndarray, "..."],
        gradient: Float[np.ndarray, "..."],
        mean: Float[np.ndarray, "..."],
        square: Float[np.ndarray, "..."],
        scratch: Float[np.ndarray, "..."],
    ) -> None:
        # Every operation writes into an array that exists: allocation would double the time.
        np.multiply(gradient, 0.1, out=scratch)
        mean *= 0.9
        mean += scratch
        np.multiply(gradient, gradient, out=scratch)
        scratch *= 0.001
        square *= 0.999
        square += scratch
        np.sqrt(square, out=scratch)
        scratch /= math.sqrt(1 - 0.999**self._steps)
        scratch += self.epsilon
        np.divide(mean, scratch, out=scratch)
        scratch *= self.learning_rate / (1 - 0.9**self._steps)
        parameter *= 1 - self.learning_rate * self.weight_decay
        parameter -= scratch
