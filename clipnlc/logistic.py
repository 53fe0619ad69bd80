"""Multinomial logistic regression on top of given logits: a kernel form and a primal form.

Both minimise, over a function f of the rows with one output per class,

    sum_i CE(offset_i + f(x_i), label_i) + ||f||^2 / (2 sigma^2),

which is convex with one minimum. In the kernel form f(x) = k(x, X) A and ||f||^2 = tr(A' K A): the
mode of a Gaussian process whose prior mean is the offset. In the primal form f(x) = x W and
||f||^2 = ||W||^2, which is scikit-learn's `LogisticRegression(C=sigma**2, fit_intercept=False)`
when there is no offset.

The search is L-BFGS (Nocedal 1980) whose first inverse Hessian is that of the same problem with one
second derivative per row, w_i, of the cross-entropy by each of its logits. One Cholesky factor makes
it, and the 20 to 50 steps of thousands of rows cost one solve each. Arrays of the search have classes in front:
then sums over classes run over whole rows, and coefficients are in LAPACK's order.
"""

from collections import deque
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from clipnlc.fitting import softmax

DOUBLE_ROWS = 1024
"""Up to so many labelled rows a kernel is float64; above it is float32, half of time and memory."""

_STEPS = 1000  # of the search, which never goes on without bound

_KEPT = {np.dtype(np.float64): 20, np.dtype(np.float32): 3}
"""Steps that L-BFGS remembers; each takes three matrices of classes by rows."""

_ENOUGH = {np.dtype(np.float64): 1e-16, np.dtype(np.float32): 1e-8}
"""How far above its minimum the objective may be, in nats per row. That gap is at least
`||f - f*||^2 / (2 sigma^2)`."""

_WEIGHED_ROWS = 4096

Matrix = np.ndarray
"""`[classes, rows]` or `[classes, coefficients]`, float32 or float64. Types inside the search are
not checked: that would take the tests longer than the search."""


@dataclass(frozen=True)
class _Vector:
    """A function: its coefficients, and its values on the rows."""

    value: Matrix
    image: Matrix

    def add(self, other: "_Vector", times: float) -> None:
        """Add a multiple of another, in place."""
        self.value[:] += times * other.value
        self.image[:] += times * other.image

    def scale(self, times: float) -> None:
        """Multiply by a number, in place."""
        self.value[:] *= times
        self.image[:] *= times


class _Kernel:
    """f = K A. How such functions, their gradients and their inner products are computed.

    Gradients are in the kernel's own inner product: a plain one is K times it.

    The preconditioner is (1/sigma^2 + W K)^-1, with W the diagonal of the rows' curvatures. With
    C = 1/(W sigma^2) and z = (K + C)^-1 W^-1 r, the values K z are W^-1 r - C z: a step costs one
    solve, and the kernel itself is needed no more.
    """

    def __init__(
        self,
        kernel: Float[np.ndarray, "rows rows"],
        *,
        sigma: float,
        curvature: Float[np.ndarray, " rows"],
    ) -> None:
        from scipy.linalg import cho_factor  # noqa: PLC0415  (prediction spares it)

        self._ridge = 1 / sigma**2
        self._curvature = curvature.astype(kernel.dtype)
        self._shift = self._ridge / self._curvature
        kernel[np.diag_indices(len(kernel))] += self._shift
        # The transposed view of a symmetric matrix is in LAPACK's order: no second one is made.
        self._factor = cho_factor(kernel.T, lower=True, overwrite_a=True, check_finite=False)

    def pull_back(self, at: _Vector, by_image: Matrix) -> Matrix:
        """Return the objective's gradient, of the cross-entropy's by the values."""
        gradient: Matrix = at.value * self._ridge
        gradient += by_image
        return gradient

    def precondition(self, gradient: Matrix) -> _Vector:
        """Return about the inverse of the Hessian times the gradient."""
        from scipy.linalg import cho_solve  # noqa: PLC0415

        scaled = gradient / self._curvature
        copy = scaled.copy().T  # in LAPACK's order, so it is solved in place
        solved = cho_solve(self._factor, copy, overwrite_b=True, check_finite=False).T
        scaled -= self._shift * solved
        return _Vector(solved, scaled)

    def inner(self, gradient: Matrix, vector: _Vector) -> float:
        """Return how fast an objective with this gradient grows along the vector."""
        return float(np.vdot(gradient, vector.image))


class _Primal:
    """f = x W, as `_Kernel`: plain gradients; the preconditioner is (1/sigma^2 + X' w X)^-1."""

    def __init__(
        self,
        inputs: Float[np.ndarray, "rows width"],
        *,
        sigma: float,
        curvature: Float[np.ndarray, " rows"],
    ) -> None:
        from scipy.linalg import cho_factor  # noqa: PLC0415

        self._inputs = inputs
        self._ridge = 1 / sigma**2
        gram = np.zeros((inputs.shape[1],) * 2, dtype=inputs.dtype)
        for start in range(0, len(inputs), _WEIGHED_ROWS):  # a second copy of all may not fit
            part = slice(start, start + _WEIGHED_ROWS)
            gram += (inputs[part] * curvature[part, None].astype(inputs.dtype)).T @ inputs[part]
        gram[np.diag_indices(len(gram))] += gram.dtype.type(self._ridge)
        self._factor = cho_factor(gram.T, lower=True, overwrite_a=True, check_finite=False)

    def pull_back(self, at: _Vector, by_image: Matrix) -> Matrix:
        gradient: Matrix = by_image @ self._inputs
        gradient += at.value * self._ridge
        return gradient

    def precondition(self, gradient: Matrix) -> _Vector:
        from scipy.linalg import cho_solve  # noqa: PLC0415

        solved = cho_solve(self._factor, gradient.copy().T, overwrite_b=True, check_finite=False).T
        return _Vector(solved, solved @ self._inputs.T)

    def inner(self, gradient: Matrix, vector: _Vector) -> float:
        return float(np.vdot(gradient, vector.value))


_Space = _Kernel | _Primal


def fit_kernel(
    kernel: Float[np.ndarray, "rows rows"],
    offset: Float[np.ndarray, "rows classes"],
    labels: Int[np.ndarray, " rows"],
    *,
    sigma: float,
    start: Float[np.ndarray, "rows classes"] | None = None,
    enough: float | None = None,
) -> Float[np.ndarray, "rows classes"]:
    """Find the coefficients A of the kernel form; see the module.

    Args:
        kernel: K, symmetric and positive semi-definite; it is overwritten. Its dtype is that of the
            search: scores end within about 1e-7 of the optimum's in float64, 1e-2 in float32.
        offset: fixed logits of the rows; zeros if the rows have no logits.
        labels: class numbers. A class without a row is pushed down where rows are.
        sigma: the prior's standard deviation where k(x, x) = 1.
        start: coefficients to begin at, of a smaller sigma; zeros by default.
        enough: nats per row that the objective may be above its minimum, where `_ENOUGH` is
            stricter than needed.
    """
    dtype = kernel.dtype
    value = np.zeros(offset.shape, dtype=dtype) if start is None else start.astype(dtype)
    image = kernel @ value if start is not None else value.copy()
    space = _Kernel(kernel, sigma=sigma, curvature=_curvature(offset + image))
    point = _Vector(np.ascontiguousarray(value.T), np.ascontiguousarray(image.T))
    return _search(space, point, offset, labels, dtype, sigma=sigma, enough=enough)


def fit_primal(
    inputs: Float[np.ndarray, "rows width"],
    offset: Float[np.ndarray, "rows classes"],
    labels: Int[np.ndarray, " rows"] | Float[np.ndarray, "rows classes"],
    *,
    sigma: float,
    enough: float | None = None,
) -> Float[np.ndarray, "width classes"]:
    """Find the weights W of the primal form; arguments as in `fit_kernel`.

    Its cost grows with the square of the width and linearly with the rows: the form for more rows
    than inputs. In place of labels it takes probabilities of the classes, each row with sum 1: the
    cross-entropy is then the expected one under them.
    """
    space = _Primal(inputs, sigma=sigma, curvature=_curvature(offset))
    shape = (offset.shape[1], inputs.shape[1])
    point = _Vector(np.zeros(shape, inputs.dtype), np.zeros(offset.T.shape, inputs.dtype))
    return _search(space, point, offset, labels, inputs.dtype, sigma=sigma, enough=enough)


def _curvature(logits: Float[np.ndarray, "rows classes"]) -> Float[np.ndarray, " rows"]:
    """Return every row's w: about the mean over the classes of p(1 - p) on the way to the optimum.

    Rows whose logits are sure where the search begins have less. It changes how long the search takes and not where it
    ends: half of it, and the search takes ten times as long.
    """
    classes = logits.shape[1]
    doubt = 1 - (softmax(logits) ** 2).sum(axis=1)
    found: np.ndarray = 0.5 * np.sqrt(np.maximum(doubt, 0.01)) / max(classes, 2)
    return found


@dataclass(frozen=True)
class _Pair:
    """A step of the search, the change of the gradient along it, and 1 over their product."""

    step: _Vector
    change: Matrix
    inverse: float


def _search(
    space: _Space,
    point: _Vector,
    offset: Float[np.ndarray, "rows classes"],
    labels: Int[np.ndarray, " rows"] | Float[np.ndarray, "rows classes"],
    dtype: "np.dtype[np.floating]",
    *,
    sigma: float,
    enough: float | None = None,
) -> Float[np.ndarray, "coefficients classes"]:
    """Minimise by L-BFGS with backtracking, until what is missing is small or below rounding."""
    base = np.ascontiguousarray(offset.T, dtype=dtype)
    base -= base.max(axis=0)  # the cross-entropy does not see a shift of a row
    wanted = (
        (labels, np.arange(len(labels)))
        if labels.ndim == 1
        else np.ascontiguousarray(labels.T, dtype=dtype)
    )
    missing = (enough or _ENOUGH[np.dtype(dtype)]) * len(labels)
    rounding = 8 * float(np.finfo(dtype).eps)
    loss, slope = _loss(base + point.image, wanted)
    value = loss + space.inner(point.value, point) / (2 * sigma**2)
    gradient, pairs = space.pull_back(point, slope), deque[_Pair](maxlen=_KEPT[np.dtype(dtype)])
    for _ in range(_STEPS):
        step = _direction(space, gradient, pairs)
        descent = space.inner(gradient, step)
        if -descent / 2 <= missing:
            break
        # Along the step, the penalty is a parabola.
        bent, along, own = (
            space.inner(one.value, two) / sigma**2
            for one, two in ((step, step), (point, step), (point, point))
        )
        times = 1.0
        while True:
            tried = base + point.image
            tried += np.multiply(step.image, times, dtype=dtype)
            loss, slope = _loss(tried, wanted)
            loss += own / 2 + times * along + times**2 * bent / 2
            if loss <= value + 1e-4 * times * descent + rounding * (abs(value) + len(labels)):
                break
            times /= 2
            if times < 1e-4:  # noqa: PLR2004  (what is missing is below rounding)
                return _transposed(point)
        step.scale(times)
        point.add(step, 1.0)
        value, before = loss, gradient
        gradient = space.pull_back(point, slope)
        np.subtract(gradient, before, out=before)
        if (product := space.inner(before, step)) > 0:
            pairs.append(_Pair(step, before, 1 / product))
    return _transposed(point)


def _transposed(point: _Vector) -> Float[np.ndarray, "coefficients classes"]:
    found: np.ndarray = np.ascontiguousarray(point.value.T)
    return found


def _direction(space: _Space, gradient: Matrix, pairs: "deque[_Pair]") -> _Vector:
    """Return minus the inverse Hessian, as far as it is known, times the gradient."""
    left = -gradient
    factors = []
    for pair in reversed(pairs):
        factors.append(pair.inverse * space.inner(left, pair.step))
        left -= np.multiply(pair.change, factors[-1], dtype=left.dtype)
    way = space.precondition(left)
    for pair, factor in zip(pairs, reversed(factors), strict=True):
        way.add(pair.step, factor - pair.inverse * space.inner(pair.change, way))
    return way


def _loss(
    logits: Matrix, wanted: tuple[Int[np.ndarray, " rows"], Int[np.ndarray, " rows"]] | Matrix
) -> tuple[float, Matrix]:
    """Return the summed cross-entropy, and in the place of the logits its derivative by them.

    Wanted are the labels' places, or the probabilities of the classes.
    """
    logits -= logits.max(axis=0)
    own = logits[wanted] if isinstance(wanted, tuple) else (logits * wanted).sum(axis=0)
    np.exp(logits, out=logits)
    total = logits.sum(axis=0)
    logits /= total
    if isinstance(wanted, tuple):
        logits[wanted] -= 1
    else:
        logits -= wanted
    surprise = float((np.log(total) - own).sum(dtype=np.float64))
    return surprise, logits
