"""What heads and combiners share: learnt state, losses, temperatures, Adam, the rows to learn from.

Everything is numpy with gradients written by hand. The models fitted here are so small that
building and walking an autograd graph, and importing a framework, would cost more than the
arithmetic.

Which rows are chosen depends on their `sample_id` and the seed, never on the order of the rows.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float, Int

TEMPERATURE_RANGE = (0.05, 20.0)
"""Where a temperature is searched; the bounds keep it finite when a backbone is always right."""


_Learner = TypeVar("_Learner", bound="Learner")


class Learner:
    """Something with settings and learnt arrays, which travel as plain arrays.

    `__init__` stores settings and nothing else; learnt arrays have names ending in `_`.

    Attributes:
        learnt: the names of the learnt arrays.
        seed: of whatever is random in learning.
    """

    learnt: ClassVar[tuple[str, ...]] = ()

    def __init__(self, *, seed: int = 0) -> None:
        self.seed = seed

    def state(self) -> dict[str, np.ndarray]:
        """Return what was learnt, by name; the settings are not among it.

        Raises:
            ValueError: not fitted.
        """
        self.require_fitted()
        return {name: np.array(getattr(self, name)) for name in self.learnt}

    def load_state(self: _Learner, state: Mapping[str, np.ndarray]) -> _Learner:  # noqa: PYI019  (the type checker of the tests cannot resolve Self)
        """Take over what another object of this class, with the same settings, had learnt.

        Raises:
            ValueError: `state` does not hold exactly this class's arrays.
        """
        if set(state) != set(self.learnt):
            raise ValueError(
                f"{type(self).__name__} learns {sorted(self.learnt)}, the state has {sorted(state)}"
            )
        for name in self.learnt:
            setattr(self, name, np.array(state[name]))
        return self

    def forget(self) -> None:
        """Drop what was learnt."""
        for name in self.learnt:
            self.__dict__.pop(name, None)

    def require_fitted(self) -> None:
        """Check that everything in `learnt` is there.

        Raises:
            ValueError: it is not.
        """
        if not all(name in self.__dict__ for name in self.learnt):
            raise ValueError(
                f"{type(self).__name__} is not fitted; call fit or load_state before using it"
            )


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


def fit_temperature(
    logits: Float[np.ndarray, "samples classes"], labels: Int[np.ndarray, " samples"]
) -> float:
    """Find the temperature T > 0 that minimises the cross-entropy of `logits / T`.

    Guo et al., "On Calibration of Modern Neural Networks", 2017. A bounded search on log T within
    `TEMPERATURE_RANGE`: the loss is convex in 1/T, so it has one minimum.
    """
    from scipy.optimize import minimize_scalar  # noqa: PLC0415  (0.3 s that prediction can spare)

    # With d = z - z_label the loss is log(1 + sum over the other classes of exp(d / T)). Written so,
    # it keeps its slope where the label is so probable that its probability rounds to 1.
    rows = np.arange(len(labels))
    others = logits.astype(np.float64)
    others -= others[rows, labels][:, None]
    others[rows, labels] = -np.inf
    highest = others.max(axis=1)
    shifted = others - highest[:, None]

    def loss(log_temperature: float) -> float:
        scale = math.exp(-log_temperature)
        terms = np.logaddexp(0, highest * scale + np.log(np.exp(shifted * scale).sum(axis=1)))
        return float(terms.mean())

    bounds = tuple(math.log(t) for t in TEMPERATURE_RANGE)
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-5})
    return math.exp(float(found.x))


def fit_temperatures(
    logits: Float[np.ndarray, "backbones samples classes"], labels: Int[np.ndarray, " samples"]
) -> Float[np.ndarray, " backbones"]:
    """Find every backbone's own temperature; see `fit_temperature`."""
    return np.array([fit_temperature(one, labels) for one in logits], dtype=np.float64)


class Adam:
    """Adam with decoupled weight decay, changing the given arrays in place.

    Kingma & Ba 2015 with betas (0.9, 0.999) and epsilon 1e-8; the decay as in Loshchilov & Hutter
    2019. The arrays and their gradients are float32.

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
    ) -> None:
        self.parameters = list(parameters)
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self._steps = 0
        self._moments = [(np.zeros_like(p), np.zeros_like(p)) for p in parameters]
        self._scratch = [np.empty_like(p) for p in parameters]

    def step(self, gradients: Sequence[Float[np.ndarray, "..."]]) -> None:
        """Move every parameter one step against its gradient."""
        self._steps += 1
        for index, gradient in enumerate(gradients):
            self._move(index, gradient)

    def _move(self, index: int, gradient: Float[np.ndarray, "..."]) -> None:
        # Every operation writes into an array that exists: allocation would double the time.
        parameter, scratch = self.parameters[index], self._scratch[index]
        mean, square = self._moments[index]
        np.multiply(gradient, 0.1, out=scratch)
        mean *= 0.9
        mean += scratch
        np.multiply(gradient, gradient, out=scratch)
        scratch *= 0.001
        square *= 0.999
        square += scratch
        np.sqrt(square, out=scratch)
        scratch /= math.sqrt(1 - 0.999**self._steps)
        scratch += 1e-8
        np.divide(mean, scratch, out=scratch)
        scratch *= self.learning_rate / (1 - 0.9**self._steps)
        parameter *= 1 - self.learning_rate * self.weight_decay
        parameter -= scratch


def ranks(sample_id: Sequence[str], *, draw: str) -> Int[np.ndarray, " samples"]:
    """Return each row's place in a pseudo-random order of the samples.

    `draw` names the order; two names give independent orders. A sample's place is decided by a
    hash of the name and its identifier, so it does not depend on where the row stands.

    >>> ranks(["a", "b", "c"], draw="x")[::-1].tolist() == ranks(["c", "b", "a"], draw="x").tolist()
    True
    """
    digests = [
        hashlib.blake2b(f"{draw}:{name}".encode(), digest_size=8).digest() for name in sample_id
    ]
    keys = np.frombuffer(b"".join(digests), dtype=">u8")
    places = np.empty(len(keys), dtype=np.int64)
    places[np.argsort(keys, kind="stable")] = np.arange(len(keys))
    return places


def canonical_rows(sample_id: Sequence[str]) -> Int[np.ndarray, " samples"]:
    """Return the row numbers in the order of their identifiers.

    What is learnt from rows taken in this order does not depend on the order they came in.

    >>> canonical_rows(["b", "a"]).tolist()
    [1, 0]
    """
    return np.array(sorted(range(len(sample_id)), key=sample_id.__getitem__), dtype=np.int64)


def stratified_split(
    labels: Int[np.ndarray, " samples"], sample_id: Sequence[str], *, share: float, seed: int
) -> tuple[Int[np.ndarray, " kept"], Int[np.ndarray, " held"]]:
    """Split the rows in two, class by class; return the kept and the held row numbers, ascending.

    About `share` (in (0, 1)) of each class's rows are held. A class with two or more rows has at
    least one on both sides; a class with a single row is kept. Where no class has two rows, as in
    a trial run on a few images of many classes, the held rows are drawn from all of them.

    >>> kept, held = stratified_split(np.arange(4), ["a", "b", "c", "d"], share=0.1, seed=0)
    >>> len(kept), len(held)
    (3, 1)
    """
    order = np.argsort(ranks(sample_id, draw=f"split:{seed}"))
    held = np.zeros(len(labels), dtype=bool)
    present, counts = np.unique(labels, return_counts=True)
    strata = [order[labels[order] == label] for label in present] if counts.max() > 1 else [order]
    for rows in strata:
        if len(rows) > 1:
            held[rows[: min(max(round(share * len(rows)), 1), len(rows) - 1)]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)


class FewShot(NamedTuple):
    """The rows a few-shot draw chose, and the classes that had too few.

    Attributes:
        rows: the chosen row numbers, ascending.
        short: class number -> rows it has, for each class with fewer than were asked for.
    """

    rows: Int[np.ndarray, " chosen"]
    short: dict[int, int]


def few_shot(
    labels: Int[np.ndarray, " samples"],
    sample_id: Sequence[str],
    *,
    classes: int,
    shots: int,
    seed: int,
) -> FewShot:
    """Draw `shots` rows of each of the `classes` classes; a class with fewer gives all it has.

    With the same seed, a draw of more shots contains every draw of fewer.

    >>> draw = few_shot(np.array([0, 0, 0, 1]), ["a", "b", "c", "d"], classes=2, shots=2, seed=0)
    >>> len(draw.rows), draw.short
    (3, {1: 1})
    """
    order = np.argsort(ranks(sample_id, draw=f"shots:{seed}"))
    chosen, short = [], {}
    for label in range(classes):
        rows = order[labels[order] == label]
        chosen.append(rows[:shots])
        if len(rows) < shots:
            short[label] = len(rows)
    return FewShot(np.sort(np.concatenate(chosen)), short)
