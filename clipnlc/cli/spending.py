"""The progress of an extraction on a terminal, and where its time went."""

import time
from typing import TYPE_CHECKING

from clipnlc.reports.pace import Effort, summary
from clipnlc.reports.progress import Advance

if TYPE_CHECKING:
    from clipnlc.extraction.order import Progress


class Spending:
    """Shows the progress of an extraction, and adds up the time it took."""

    def __init__(self, advance: Advance) -> None:
        self.progress: list["Progress"] = []  # one per split, and per pass over it
        self.seconds = 0.0
        self._advance = advance
        self._last = time.monotonic()

    def prompts(self, backbone: str, done: int, total: int) -> None:
        """Show how far a backbone's prompts are."""
        self._last = time.monotonic()
        self._advance(f"prompts of {backbone}", done, total, "")

    def images(self, now: "Progress") -> None:
        """Show how far a split is, and count the time since the last batch, of images or prompts."""
        if not (self.progress and self.progress[-1] is now):
            self.progress.append(now)
        began, self._last = self._last, time.monotonic()
        self.seconds += self._last - began
        place = f"{now.dataset}/{now.split}"
        self._advance(place, now.done, now.total, "", _effort(now), rest=now.rest)

    def summary(self) -> str:
        """Say where the time went."""
        images: dict[tuple[str, str], int] = {}
        for one in self.progress:
            place = (one.dataset, one.split)
            images[place] = max(images.get(place, 0), one.done - one.began_at)
        effort = sum(map(_effort, self.progress), Effort())
        return summary(sum(images.values()), self.seconds, effort)


def _effort(now: "Progress") -> Effort:
    return Effort(dict(now.seconds), dict(now.forward), dict(now.embedded))
