"""The NLC paper's three protocols as one word each: a head, and the labels that combiners learn from.

The paper (arXiv 2405.17139) publishes which heads, and for linear ones the split of 90 to 10. The size
of the hold-out of the first protocol is not published, nor is how labels are drawn: our reading.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final

import typer

from clipnlc.cli.options import was_given
from clipnlc.errors import DataError
from clipnlc.registry import unknown_name

if TYPE_CHECKING:
    from clipnlc.labels import Labels

ProtocolName = Annotated[
    str,
    typer.Option(
        help="One of the NLC paper's, in place of --head and labels: zero-shot (combiners learn from a "
        "tenth of train), linear (heads from nine tenths, combiners from the rest), few-shot (1 to 32 "
        "labels per class)."
    ),
]


@dataclass(frozen=True)
class Protocol:
    """What a protocol stands for.

    Attributes:
        head: its heads; with `few-shot`, those that are fitted on the same few labels go too.
        holdout: share of the labelled split that combiners learn from; None for labels per class.
        contradicts: options that say something else, whatever their value; `--holdout` of another
            share than the protocol's does, too.
    """

    head: str
    holdout: float | None
    contradicts: tuple[str, ...]

    def draws(self, labels: "Labels") -> bool:
        """Return whether combiners learn from such labels in it."""
        if self.holdout is None:
            return labels.kind in ("shots", "all")
        return labels.kind == "holdout" and labels.amount == self.holdout


PROTOCOLS: Final[Mapping[str, Protocol]] = {
    "zero-shot": Protocol("zero-shot", 0.1, ("shots", "count")),
    "linear": Protocol("linear", 1.0, ("shots", "count")),
    "few-shot": Protocol("zero-shot", None, ("holdout", "count")),
}


def protocol_of(
    name: str, context: typer.Context, *, kept: float | None = None
) -> tuple[str, float | None]:
    """Return the head and the hold-out of a protocol.

    Args:
        name: of the protocol.
        context: of the command that was given it.
        kept: share of the labelled split that heads leave to the combiners in every protocol, where
            `--holdout` of the command is that.

    Raises:
        UnknownNameError: there is no such protocol.
        DataError: an option was given that contradicts it.
    """
    if name not in PROTOCOLS:
        raise unknown_name("protocol", name, PROTOCOLS)
    found = PROTOCOLS[name]
    for option in found.contradicts:
        if was_given(option, context):
            raise DataError(
                f"--protocol {name} and --{option} contradict each other; leave one of them out"
            )
    share = kept or found.holdout
    if was_given("holdout", context) and context.params["holdout"] != share:
        raise DataError(
            f"--protocol {name} and --holdout {context.params['holdout']:g} contradict each other (its "
            f"share is {share:g}); leave one of them out"
        )
    head = str(context.params["head"])
    if not was_given("head", context) or head == found.head:
        return found.head, found.holdout
    from clipnlc.heads import HEADS

    if name == "few-shot" and HEADS.get(head).per_draw:
        return head, None
    raise DataError(
        f"--protocol {name} is of {found.head} heads, and --head {head} was given; leave one of "
        "them out"
    )
