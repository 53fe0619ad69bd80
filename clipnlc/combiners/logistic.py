"""Multinomial logistic regression on top of given logits: a kernel form and a primal form.

Both minimise, over a function f of the rows with one output per class,

    sum_i CE(offset_i + f(x_i), label_i) + ||f||^2 / (2 sigma^2),

which is convex with one minimum. In the kernel form f(x) = k(x, X) A and ||f||^2 = tr(A' K A): the
mode of a Gaussian process whose prior mean is the offset. In the primal form f(x) = x W and
||f||^2 = ||W||^2, which is scikit-learn's `LogisticRegression(C=sigma**2, fit_intercept=False)`
when there is no offset. Newton's method; each step is solved by preconditioned conjugate gradients.

Arrays of the search have classes in front: then sums over the classes run over whole rows, and a
matrix of coefficients is what LAPACK solves in place.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

_CURVATURE = 0.02
"""What the preconditioner takes for the second derivative of the cross-entropy by a logit. Between
p(1 - p) of a class on its own rows, about 0.2, and its mean over all rows, about 1/classes; it
changes how long the search takes and not where it ends."""

_STEPS = 50  # of Newton's method; 5 to 10 are enough, and a search never ends without bound
_INNER = 100  # of conjugate gradients within one of them

_LARGEST_ERROR = {np.dtype(np.float64): 1e-7, np.dtype(np.float32): 3e-3}
"""Bound on how far any f(x) with k(x, x) = 1 is from the minimum's, in units of sigma: the gap to
the minimum is at least ||f - f*||^2 / (2 sigma^2). What is usual is a hundred times nearer."""

Matrix = Float[np.ndarray, "classes _"]


@dataclass(frozen=True)
class _Vector:
    """A function: its coefficients, and its values on the rows."""

    value: Float[np.ndarray, "classes coefficients"]
    image: Float[np.ndarray, "classes rows"]

    def add(self, other: "_Vector", times: float) -> None:
        """Add a multiple of another, in place."""
        self.value[:] += times * other.value
        self.image[:] += times * other.image

    def follow(self, other: "_Vector", times: float) -> None:
        """Become the other plus a multiple of itself, in place."""
        self.value[:] = other.value + times * self.value
        self.image[:] = other.image + times * self.image


class _Kernel:
    """f = K A. How such functions, their gradients and their inner products are computed.

    Gradients are in the kernel's own inner product: a plain one is K times it.

    The preconditioner is (1/sigma^2 + w K)^-1. With c = 1/(w sigma^2) and z = (K + c)^-1 r / w, the
    values K z are r/w - c z: a step costs one solve, and the kernel itself is needed no more.
    """

    def __init__(self, kernel: Float[np.ndarray, "rows rows"], *, sigma: float) -> None:
        from scipy.linalg import cho_factor  # noqa: PLC0415  (prediction spares it)

        self._ridge = 1 / sigma**2
        self._shift = self._ridge / _CURVATURE
        kernel[np.diag_indices(len(kernel))] += kernel.dtype.type(self._shift)
        # The transposed view of a symmetric matrix is in LAPACK's order: no second one is made.
        self._factor = cho_factor(kernel.T, lower=True, overwrite_a=True, check_finite=False)
        self._dtype = kernel.dtype

    def zero(self, classes: int, rows: int) -> _Vector:
        """Return the function that is 0."""
        return _Vector(
            np.zeros((classes, rows), dtype=self._dtype),
            np.zeros((classes, rows), dtype=self._dtype),
        )

    def pull_back(self, at: _Vector, by_image: Matrix) -> Matrix:
        """Return the objective's gradient, or the Hessian's product, of the part by the values."""
        gradient: Matrix = at.value * self._ridge
        gradient += by_image
        return gradient

    def precondition(self, gradient: Matrix) -> _Vector:
        from scipy.linalg import cho_solve  # noqa: PLC0415

        """Return about the inverse of the Hessian times the gradient."""
        scaled = gradient / _CURVATURE
        solved = np.ascontiguousarray(
            cho_solve(self._factor, scaled.T, overwrite_b=False, check_finite=False).T
        )
        scaled -= self._shift * solved
        return _Vector(solved, scaled)

    def inner(self, gradient: Matrix, vector: _Vector) -> float:
        """Return how fast an objective with this gradient grows along the vector."""
        return float(np.vdot(gradient, vector.image))


class _Primal:
    """f = x W, as `_Kernel`: plain gradients; the preconditioner is (1/sigma^2 + w X'X)^-1."""

    def __init__(self, inputs: Float[np.ndarray, "rows width"], *, sigma: float) -> None:
        from scipy.linalg import cho_factor  # noqa: PLC0415

        self._inputs = inputs
        self._ridge = 1 / sigma**2
        gram = inputs.T @ inputs
        gram *= _CURVATURE
        gram[np.diag_indices(len(gram))] += gram.dtype.type(self._ridge)
        self._factor = cho_factor(gram.T, lower=True, overwrite_a=True, check_finite=False)

    def zero(self, classes: int, rows: int) -> _Vector:
        width, dtype = self._inputs.shape[1], self._inputs.dtype
        return _Vector(np.zeros((classes, width), dtype=dtype), np.zeros((classes, rows), dtype))

    def pull_back(self, at: _Vector, by_image: Matrix) -> Matrix:
        gradient: Matrix = by_image @ self._inputs
        gradient += at.value * self._ridge
        return gradient

    def precondition(self, gradient: Matrix) -> _Vector:
        from scipy.linalg import cho_solve  # noqa: PLC0415

        solved = np.ascontiguousarray(cho_solve(self._factor, gradient.T, check_finite=False).T)
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
) -> Float[np.ndarray, "rows classes"]:
    """Find the coefficients A of the kernel form; see the module.

    Args:
        kernel: K, symmetric and positive semi-definite; it is overwritten. Its dtype is that of the
            search: float64 ends within 1e-7 of the optimal scores, float32 within about 1e-3.
        offset: fixed logits of the rows; zeros where there are none.
        labels: class numbers. A class without a row is pushed down where rows are.
        sigma: the prior's standard deviation where k(x, x) = 1.
    """
    return _search(_Kernel(kernel, sigma=sigma), offset, labels, kernel.dtype, sigma=sigma)


def fit_primal(
    inputs: Float[np.ndarray, "rows width"],
    offset: Float[np.ndarray, "rows classes"],
    labels: Int[np.ndarray, " rows"],
    *,
    sigma: float,
) -> Float[np.ndarray, "width classes"]:
    """Find the weights W of the primal form; arguments as in `fit_kernel`.

    Its cost grows with the square of the width and linearly with the rows: the form for more rows
    than inputs.
    """
    return _search(_Primal(inputs, sigma=sigma), offset, labels, inputs.dtype, sigma=sigma)


def _search(
    space: _Space,
    offset: Float[np.ndarray, "rows classes"],
    labels: Int[np.ndarray, " rows"],
    dtype: "np.dtype[np.floating]",
    *,
    sigma: float,
) -> Float[np.ndarray, "coefficients classes"]:
    """Minimise by Newton's method with backtracking."""
    base = np.ascontiguousarray(offset.T, dtype=dtype)
    base -= base.max(axis=0)  # the cross-entropy does not see a shift of a row
    wanted = (labels, np.arange(len(labels)))
    point = space.zero(*base.shape)
    enough = 0.5 * _LARGEST_ERROR[np.dtype(dtype)] ** 2
    value = _loss(base, wanted)
    for _ in range(_STEPS):
        probability = base + point.image
        _softmax(probability)
        slope = probability.copy()
        slope[wanted] -= 1
        gradient = space.pull_back(point, slope)
        del slope
        step, gap = _newton_step(space, gradient, probability, enough)
        if gap <= enough:
            break
        # The penalty along the step is a parabola; inner products with f itself are ridge-free.
        along = space.inner(point.value, step) / sigma**2
        curve = space.inner(step.value, step) / sigma**2
        penalty = 0.5 * space.inner(point.value, point) / sigma**2
        descent, times = space.inner(gradient, step), 1.0
        while True:
            tried = _loss(base + point.image + times * step.image, wanted)
            tried += penalty + times * along + 0.5 * times**2 * curve
            rounding = 8 * float(np.finfo(dtype).eps) * (abs(value) + len(labels))
            if tried <= value + 1e-4 * times * descent + rounding or times < 1e-4:  # noqa: PLR2004
                break
            times /= 2
        point.add(step, times)
        value = tried
    found: np.ndarray = np.ascontiguousarray(point.value.T)
    return found


def _newton_step(
    space: _Space, gradient: Matrix, probability: Matrix, enough: float
) -> tuple[_Vector, float]:
    """Solve for the step with conjugate gradients; return it and about the gap to the minimum."""
    left = -gradient
    steep = space.precondition(left)
    product = first = space.inner(left, steep)
    step = _Vector(np.zeros_like(steep.value), np.zeros_like(steep.image))
    way = steep
    # Far from the minimum a rough step does; near it, errors are to be squared from step to step.
    target = max(first * min(0.01, first / probability.shape[1]), enough)
    for _ in range(_INNER):
        if product <= target or product <= 0:
            break
        bent = probability * way.image
        bent -= probability * bent.sum(axis=0)
        bent = space.pull_back(way, bent)
        along = product / space.inner(bent, way)
        step.add(way, along)
        bent *= along
        left -= bent
        steep = space.precondition(left)
        product, before = space.inner(left, steep), product
        way.follow(steep, product / before)
    return step, 0.5 * first


def _softmax(logits: Matrix) -> None:
    """Turn logits into probabilities over the first axis, in place."""
    logits -= logits.max(axis=0)
    np.exp(logits, out=logits)
    logits /= logits.sum(axis=0)


def _loss(
    logits: Matrix, wanted: tuple[Int[np.ndarray, " rows"], Int[np.ndarray, " rows"]]
) -> float:
    """Return the summed cross-entropy."""
    highest = logits.max(axis=0)
    summed = np.exp(logits - highest).sum(axis=0)
    return float((np.log(summed) + highest - logits[wanted]).sum(dtype=np.float64))
