"""What the backbones of an ensemble cost: known from their names, without their weights."""

from collections.abc import Sequence

from clipnlc.backbones.costs import image_gflops
from clipnlc.combiners import COMBINERS
from clipnlc.errors import DataError, UnknownNameError


def gflops_of(backbones: Sequence[str], combiners: Sequence[str]) -> tuple[float, ...]:
    """Return billions of operations of each image tower; empty where no combiner needs them.

    Raises:
        DataError: a combiner needs them, and a backbone is of no architecture of open_clip.
    """
    asking = [name for name in combiners if COMBINERS.get(name).needs_costs]
    if not asking:
        return ()
    try:
        return tuple(image_gflops(name) for name in backbones)
    except UnknownNameError as problem:
        raise DataError(
            f"{asking[0]} starts with the cheapest backbone, and what {_unknown(backbones)} costs is "
            f"not known: it is named after no architecture of open_clip; leave {', '.join(asking)} "
            "out of --combiners, or the backbone out of --backbones"
        ) from problem


def _unknown(backbones: Sequence[str]) -> str:
    """Return the first backbone whose cost is not known."""
    for name in backbones:
        try:
            image_gflops(name)
        except UnknownNameError:
            return name
    return ""
