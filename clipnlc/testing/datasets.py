"""What every data set of another package must do, as a check of the function that says where it lies."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from clipnlc.datasets.source import open_split, splits
from clipnlc.errors import DataError
from clipnlc.testing.checking import equal

_DECODED: Final = 20
"""Images of each split that are decoded, the first and the last."""


def check_dataset(where: Callable[[], str | Path]) -> None:
    """Check that a data set of another package can be extracted, and is the same at every call.

    The path is there; every split opens; the first and the last images of each can be decoded; a second
    call names the same path, with the same content.

    Args:
        where: the function that an entry point of `clipnlc.datasets` names.

    Raises:
        AssertionError: one of these does not hold; the message says which.

    >>> from clipnlc.datasets.nano import dataset_root
    >>> check_dataset(lambda: dataset_root("digits"))
    """
    root, content = _opened(where)
    again, second = _opened(where)
    equal(again, root, "the place at the second call")
    equal(second, content, "the content at the second call")


def _opened(where: Callable[[], str | Path]) -> tuple[Path, dict[str, str]]:
    """Return the place and the digest of each split, whose images were looked at."""
    root = Path(where())
    assert root.exists(), f"{root} is said to be the place, and nothing is there"
    try:
        opened = [open_split(root, name) for name in splits(root)]
        for split in opened:
            ends = {*range(_DECODED // 2), *range(len(split) - _DECODED // 2, len(split))}
            for row in sorted(row for row in ends if 0 <= row < len(split)):
                for sample in split.read(row, row + 1):
                    sample.image()
    except DataError as problem:
        raise AssertionError(f"{root} cannot be used: {problem}") from problem
    return root, {split.name: split.fingerprint for split in opened}
