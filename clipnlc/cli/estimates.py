"""How an accuracy that was estimated from a person's own labels is said."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from clipnlc.wording import count

if TYPE_CHECKING:
    from clipnlc.runs.cross_fitting import CrossFitted

MORE: Final = 4
"""Times as many labels, for half the width."""


def accuracy_lines(found: "CrossFitted") -> Iterator[str]:
    """Yield lines on the accuracy, what it holds of, and what more labels would do to it."""
    labels = count(found.count, "label")
    interval = f"95 % interval {_percent(found.low)} to {_percent(found.high)}"
    if found.drawn:
        of = (
            f"on the {count(found.others, 'other photo')}"
            if found.others
            else "on photos of the same kind"
        )
        yield (
            f"accuracy {of}: about {_percent(found.accuracy)} % ({interval}), cross-fitted on the "
            f"{labels}, a random draw"
        )
    else:
        yield (
            f"accuracy on photos like the {found.count} labelled ones: about "
            f"{_percent(found.accuracy)} % ({interval}), cross-fitted on them; they were chosen, not "
            "drawn, so it may not hold of the others; for that, label photos that the command label draws"
        )
    parts = [
        f"{_percent(accuracy)} % with {'no label' if not used else count(used, 'label')}"
        for used, accuracy in found.fewer
    ]
    if parts:
        yield f"  fitted on fewer: {', '.join(parts)}; on all: {_percent(found.accuracy)} %"
    more = MORE * found.count
    if found.drawn and (not found.others or more < found.count + found.others):
        then = found.with_labels(more)
        yield (
            f"  {more} labels would narrow the interval to about {_percent(then.low)} to "
            f"{_percent(then.high)} if the accuracy stayed; it may rise, too"
        )


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"
