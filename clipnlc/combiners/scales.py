"""How NLC's output `o` in R becomes a backbone's scale `s`; o = 0 gives s = 1 in each.

The NLC paper gives no such map. Each entry is the map and its derivative's pull-back.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from clipnlc.fitting import softmax

Matrix = Float[np.ndarray, "samples backbones"]

_OUTPUT_LIMIT = 5.0  # |o| of the exponential: scales stay within e^-5 and e^5
_SOFTPLUS_SHIFT = math.log(math.e - 1)  # softplus of it is 1


@dataclass(frozen=True)
class Parametrisation:
    """A map from outputs to scales.

    Attributes:
        scale: outputs to scales.
        pull_back: (scales, loss's derivative by them) to the loss's derivative by the outputs.
    """

    scale: Callable[[Matrix], Matrix]
    pull_back: Callable[[Matrix, Matrix], Matrix]


def _exp(o: Matrix) -> Matrix:
    scales: np.ndarray = np.exp(np.clip(o, -_OUTPUT_LIMIT, _OUTPUT_LIMIT))
    return scales


def _exp_back(s: Matrix, by_scale: Matrix) -> Matrix:
    inside = np.abs(np.log(s)) < _OUTPUT_LIMIT
    return np.where(inside, s * by_scale, 0).astype(s.dtype)


def _softplus(o: Matrix) -> Matrix:
    scales: np.ndarray = np.logaddexp(o + _SOFTPLUS_SHIFT, np.zeros_like(o))
    return scales


def _sigmoid(o: Matrix) -> Matrix:
    # 2 / (1 + exp(-o)), written so that no exponential overflows.
    return 1 + np.tanh(o / 2)


PARAMETRISATIONS = {
    "exp": Parametrisation(_exp, _exp_back),
    "softplus": Parametrisation(_softplus, lambda s, by_scale: by_scale * -np.expm1(-s)),
    "raw": Parametrisation(lambda o: 1 + o, lambda _, by_scale: by_scale),
    "tanh": Parametrisation(lambda o: 1 + np.tanh(o), lambda s, by_scale: by_scale * (s * (2 - s))),
    "sigmoid": Parametrisation(_sigmoid, lambda s, by_scale: by_scale * (s * (1 - s / 2))),
    "softmax": Parametrisation(
        lambda o: softmax(o) * o.shape[1],
        lambda s, by_scale: s * (by_scale - (s * by_scale).mean(axis=1, keepdims=True)),
    ),
}
"""exp: positive, |o| clipped at 5. softplus: positive. raw: 1 + o, signed. tanh and sigmoid: in
(0, 2). softmax: positive, the scales of a sample sum to the number of backbones."""
