"""What the conformance suites assert with: each failure says what it was about."""

from collections.abc import Callable

import numpy as np


def same(one: np.ndarray, other: np.ndarray, what: str) -> None:
    """Assert that two arrays are equal."""
    np.testing.assert_array_equal(one, other, err_msg=what)


def close(one: np.ndarray, other: np.ndarray, what: str, *, rtol: float, atol: float) -> None:
    """Assert that two arrays are equal within a tolerance."""
    np.testing.assert_allclose(one, other, rtol=rtol, atol=atol, err_msg=what)


def equal(one: object, other: object, what: str) -> None:
    """Assert that two values are equal."""
    assert one == other, f"{what}: {one!r}, expected {other!r}"


def refuses(use: Callable[[], object], message: str) -> None:
    """Assert that a call raises a ValueError that says `message`."""
    said = ""
    try:
        use()
    except ValueError as refusal:
        said = str(refusal)
    assert message in said, f"expected a ValueError that says {message!r}, it said {said!r}"
