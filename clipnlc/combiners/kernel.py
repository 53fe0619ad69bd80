"""A kernel over all backbones' features, and the residual of logits that it carries.

`k(x, x') = mean_b exp(-beta (1 - cos_b(x, x')))`, where cos_b is the cosine of backbone b's
features after they are divided by their length, a mean is taken off and they are divided by their
length again. Without the mean, the features of CLIP all point the same way, and every two images
are alike. The other form is `exp(-beta (1 - mean_b cos_b(x, x')))`, one kernel for all.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Int

from clipnlc.logistic import DOUBLE_ROWS, fit_kernel, fit_primal
from clipnlc.regression import draw_landmarks

Widths = Sequence[int]

_SUMMED_ROWS = 1024

_AT_ONCE = 128
"""Rows whose kernel is taken together, filled up with zeros: float64 products of matrices of one shape
give a row the same bits wherever it stands."""

_SHORTEST = 1e-4
"""Length below which a centred row is not stretched to 1: it would be rounding errors."""


def unit_mean(features: Sequence[Float[np.ndarray, "rows _"]]) -> Float[np.ndarray, " width"]:
    """Return the mean of the unit-length rows, backbones one after the other, in float64.

    Raises:
        ValueError: there are no features.
    """
    blocks = _with_width(features)
    sums = [sum(_unit(block[rows]).sum(axis=0) for rows in _blocks(len(block))) for block in blocks]
    return np.concatenate(sums) / len(blocks[0])


def centred_rows(
    features: Sequence[Float[np.ndarray, "rows _"]], mean: Float[np.ndarray, " width"]
) -> Float[np.ndarray, "rows width"]:
    """Return rows, in float32, whose inner products are the mean over backbones of the cosines.

    Each backbone's features are divided by their length, centred on `mean` (of `unit_mean`), divided
    by their length again and by the root of the number of backbones that have features.

    Raises:
        ValueError: there are no features, or they have other widths than the mean.

    >>> rows = [np.array([[2.0, 0.0], [0.0, 3.0]]), np.array([[1.0, 1.0], [1.0, 1.0]])]
    >>> centred = centred_rows(rows, unit_mean(rows))
    >>> (centred @ centred.T).round(6).tolist()
    [[0.5, -0.5], [-0.5, 0.5]]
    """
    blocks = _with_width(features)
    width = sum(block.shape[1] for block in blocks)
    if width != len(mean):
        raise ValueError(f"fitted on features {len(mean)} wide, asked to read {width}")
    found = np.empty((len(blocks[0]), width), dtype=np.float32)
    start = 0
    for block in blocks:
        stop = start + block.shape[1]
        for rows in _blocks(len(block)):
            away = _unit(block[rows])
            away -= mean[start:stop]
            length = np.sqrt((away * away).sum(axis=1, keepdims=True))
            found[rows, start:stop] = away / (np.maximum(length, _SHORTEST) * len(blocks) ** 0.5)
        start = stop
    return found


def joint_kernel(
    rows: Float[np.ndarray, "rows width"],
    others: Float[np.ndarray, "others width"] | None = None,
    *,
    beta: float,
    widths: Widths = (),
    dtype: type[np.floating] = np.float64,
) -> Float[np.ndarray, "rows others"]:
    """Return the kernel of the rows with others; without others, of the rows with themselves.

    Args:
        rows: of `centred_rows`.
        others: likewise.
        beta: how fast the kernel falls; 0 makes all rows alike.
        widths: of the backbones' features, for the mean of one kernel per backbone; without, it is
            one kernel of the mean cosine.
        dtype: of the result and the arithmetic.
    """
    left = rows.astype(dtype, copy=False)
    right = left if others is None else others.astype(dtype, copy=False)
    kernel = np.empty((len(left), len(right)), dtype=dtype)
    for start in range(0, len(left), _SUMMED_ROWS):  # a second matrix of that size may not fit
        stop = start + _SUMMED_ROWS
        first = start if others is None else 0  # a symmetric one is computed on one side
        kernel[start:stop, first:] = _values(left[start:stop], right[first:].T, beta, widths)
        if others is None:
            kernel[stop:, start:stop] = kernel[start:stop, stop:].T
    return kernel


def centred_kernel(
    kernel: Float[np.ndarray, "rows others"],
    row_means: Float[np.ndarray, " rows"],
    other_means: Float[np.ndarray, " others"],
    mean: float,
) -> Float[np.ndarray, "rows others"]:
    """Return `k - m(x) - m(x') + M`: the kernel of functions whose mean over a pool is 0.

    Args:
        kernel: k of the rows with the others; it is overwritten.
        row_means: m, the mean of each row's kernel with the pool, of `kernel_means`.
        other_means: that of the others.
        mean: M, the mean over the pool of m.
    """
    kernel -= row_means[:, None].astype(kernel.dtype)
    kernel -= (other_means - mean).astype(kernel.dtype)
    return kernel


def kernel_means(
    rows: Float[np.ndarray, "rows width"],
    pool: Float[np.ndarray, "pool width"],
    *,
    beta: float,
    widths: Widths = (),
    weights: Float[np.ndarray, " pool"] | None = None,
) -> Float[np.ndarray, " rows"]:
    """Return the mean (or weighted sum) of each row's kernel with a pool, in float64.

    A row has the same bits whatever rows stand beside it.
    """
    share = np.full(len(pool), 1 / len(pool)) if weights is None else weights
    return kernel_scores(rows, pool, share[:, None], beta=beta, widths=widths)[:, 0]


def kernel_scores(
    rows: Float[np.ndarray, "samples width"],
    others: Float[np.ndarray, "others width"],
    coefficients: Float[np.ndarray, "others outputs"],
    *,
    beta: float,
    widths: Widths = (),
) -> Float[np.ndarray, "samples outputs"]:
    """Return `k(rows, others) @ coefficients` in float64, a few rows at a time.

    The arithmetic is in the dtype of the coefficients. In float64 a row has the same bits whatever
    rows stand beside it; in float32 (many labels) up to rounding, for some matrix libraries sum a
    row by where it stands, and float64 would take twice as long.
    """
    dtype = coefficients.dtype
    right = others.T
    if dtype == np.float64:
        # Of a transposed float64 matrix, small products sum a row by where it stands.
        right = np.ascontiguousarray(right, dtype=dtype)
    scores = np.empty((len(rows), coefficients.shape[1]))
    block = np.zeros((_AT_ONCE, rows.shape[1]), dtype=dtype)
    for part in _blocks(len(rows)):
        count = part.stop - part.start
        block[:count] = rows[part]
        block[count:] = 0
        kernel = _values(block, right, beta, widths)
        scores[part] = (kernel @ coefficients)[:count]
    return scores


@dataclass(frozen=True)
class Residual:
    """A function of centred rows, one output per class: `k(x, rows) coefficients + bias`.

    Attributes:
        rows: of `centred_rows`.
        coefficients: one line per row; their dtype is that of the arithmetic.
        bias: zeros, unless the kernel was centred on a pool.
    """

    rows: Float32[np.ndarray, "rows width"]
    coefficients: Float[np.ndarray, "rows classes"]
    bias: Float[np.ndarray, " classes"]

    def scores(
        self, rows: Float[np.ndarray, "samples width"], *, beta: float, widths: Widths = ()
    ) -> Float[np.ndarray, "samples classes"]:
        """Return its values, in float64; see `kernel_scores`."""
        scores = kernel_scores(rows, self.rows, self.coefficients, beta=beta, widths=widths)
        scores += self.bias
        return scores


def fit_residual(
    rows: Float32[np.ndarray, "rows width"],
    offset: Float[np.ndarray, "rows classes"],
    labels: Int[np.ndarray, " rows"],
    *,
    sigma: float,
    beta: float,
    widths: Widths = (),
    pool: Float32[np.ndarray, "pool width"] | None = None,
    exact_rows: int = 20_000,
    landmarks: int = 8192,
    seed: int = 0,
    gram: Float[np.ndarray, "rows rows"] | None = None,
) -> Residual:
    """Fit what the kernel adds to given logits: the mode of a Gaussian process around them.

    It minimises `sum CE(offset + K A, labels) + tr(A' K A) / (2 sigma^2)`; see
    `clipnlc.logistic`. Up to `DOUBLE_ROWS` rows in float64, above in float32.

    Above `exact_rows` rows it is Nystrom's approximation (Williams & Seeger 2001): A is only of
    landmarks, rows drawn from the classes in turn, and the fit is to all rows. Then the memory grows
    with rows times landmarks.

    Args:
        rows: the labelled rows, of `centred_rows`.
        offset: fixed logits of the rows.
        labels: their class numbers.
        sigma: the standard deviation of the residual's prior.
        beta: how fast the kernel falls.
        widths: see `joint_kernel`.
        pool: unlabelled rows, centred on the same mean. With them, the kernel is centred twice,
            `k - m(x) - m(x') + M` with m the mean over the pool: no class can gain on the average of
            the pool, so class counts among the labels are no bias. They become part of the result.
        exact_rows: the most rows for which every row has its own coefficients.
        landmarks: how many rows have, where there are more.
        seed: of the landmarks.
        gram: the kernel of the rows with themselves, where it is known and there are at most
            `exact_rows`; it is overwritten.
    """
    dtype = np.float64 if len(rows) <= DOUBLE_ROWS else np.float32
    exact = len(rows) <= exact_rows
    kept = rows if exact else rows[draw_landmarks(labels, landmarks, seed=seed)]
    if gram is None:
        gram = joint_kernel(kept, beta=beta, widths=widths, dtype=dtype)
    of_kept, whole = np.zeros(len(kept)), 0.0
    if pool is not None:
        of_kept = kernel_means(kept, pool, beta=beta, widths=widths)
        whole = float(kernel_means(pool, pool, beta=beta, widths=widths).mean())
        gram = centred_kernel(gram, of_kept, of_kept, whole)
    if exact:
        found = fit_kernel(gram, offset, labels, sigma=sigma)
    else:
        cross = joint_kernel(rows, kept, beta=beta, widths=widths, dtype=dtype)
        if pool is not None:
            cross = centred_kernel(
                cross, kernel_means(rows, pool, beta=beta, widths=widths), of_kept, whole
            )
        found = _fit_landmarks(gram, cross, offset, labels, sigma=sigma)
    if pool is None:
        return Residual(kept, found, np.zeros(offset.shape[1]))
    # k_c(x, X) A = k(x, X) A - m(x) sum A - (m(X) - M)' A, and m(x) is a mean of k(x, pool).
    total = found.sum(axis=0, dtype=np.float64)
    of_pool = np.tile(-total / len(pool), (len(pool), 1)).astype(dtype)
    bias = -(of_kept - whole) @ found.astype(np.float64)
    return Residual(np.concatenate([kept, pool]), np.concatenate([found, of_pool]), bias)


def _fit_landmarks(
    gram: Float[np.ndarray, "landmarks landmarks"],
    cross: Float[np.ndarray, "rows landmarks"],
    offset: Float[np.ndarray, "rows classes"],
    labels: Int[np.ndarray, " rows"],
    *,
    sigma: float,
) -> Float[np.ndarray, "landmarks classes"]:
    """Fit the landmarks' coefficients to all rows; both kernels are overwritten.

    With `gram = L L'` the inputs `cross L^-T` have the plain inner product for a norm.
    """
    from scipy.linalg import cholesky, solve_triangular  # noqa: PLC0415  (prediction spares it)

    gram[np.diag_indices(len(gram))] += gram.dtype.type(np.finfo(gram.dtype).eps ** 0.5)
    factor = cholesky(gram.T, lower=True, overwrite_a=True, check_finite=False)
    inputs = solve_triangular(factor, cross.T, lower=True, overwrite_b=True, check_finite=False).T
    weights = fit_primal(np.ascontiguousarray(inputs), offset, labels, sigma=sigma)
    solved = solve_triangular(factor, weights, lower=True, trans="T", check_finite=False)
    found: np.ndarray = np.ascontiguousarray(solved)
    return found


def _values(
    rows: Float[np.ndarray, "rows width"],
    others: Float[np.ndarray, "width others"],
    beta: float,
    widths: Widths,
) -> Float[np.ndarray, "rows others"]:
    """Return the kernel of rows with the columns of a matrix."""
    if not widths:
        kernel: np.ndarray = rows @ others
        _from_cosines(kernel, beta)
        return kernel
    kernel, start = np.zeros((len(rows), others.shape[1]), dtype=rows.dtype), 0
    for width in widths:
        own = slice(start, start + width)
        one = np.ascontiguousarray(rows[:, own]) @ others[own]
        one *= len(widths)  # the rows' share of the mean cosine, back to a cosine
        _from_cosines(one, beta)
        kernel += one
        start += width
    kernel /= len(widths)
    return kernel


def _from_cosines(cosines: Float[np.ndarray, "rows others"], beta: float) -> None:
    cosines -= 1
    cosines *= beta
    np.exp(cosines, out=cosines)


def _unit(block: Float[np.ndarray, "rows dim"]) -> Float[np.ndarray, "rows dim"]:
    """Divide rows by their length, in float64, each with the same bits in any block."""
    exact = np.ascontiguousarray(block, dtype=np.float64)
    length = np.sqrt((exact * exact).sum(axis=1, keepdims=True))
    unit: np.ndarray = exact / np.maximum(length, 1e-12)
    return unit


def _blocks(rows: int) -> Iterator[slice]:
    for start in range(0, rows, _AT_ONCE):
        yield slice(start, min(start + _AT_ONCE, rows))


def _with_width(
    features: Sequence[Float[np.ndarray, "rows _"]],
) -> list[Float[np.ndarray, "rows _"]]:
    """Return the features of the backbones that have any: one that gives logits alone has none."""
    found = [block for block in features if block.shape[1]]
    if not found:
        raise ValueError("this ensemble holds no features; open it with features")
    return found


def widths_of(features: Sequence[Float[np.ndarray, "rows _"]]) -> list[int]:
    """Return the widths of the features of the backbones that have any, for `joint_kernel`."""
    return [block.shape[1] for block in features if block.shape[1]]
