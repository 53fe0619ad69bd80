"""How fast work goes, what it spends its time on, and how long it will still take."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar

from clipnlc.wording import count

N = TypeVar("N", int, float)

RECENT_SECONDS: Final = 60.0
"""How far back `Recent` looks."""

_FEWEST_MARKS: Final = 16  # of the window: batches may take longer than a minute
_TOGETHER: Final = 0.2  # seconds; batches of several threads come in bursts, which are one mark
_WORK: Final = ("decode", "resize", "forward", "write")


@dataclass(frozen=True)
class Effort:
    """What embedding took, in seconds of threads.

    Several threads work side by side, so these seconds exceed the wall's. Shares are of two kinds.
    `waiting` is about the threads that embed: the share of `wait / (wait + forward)` in which they
    had no pixels, so on a GPU the share of time it stood idle. `shares` is about the work itself,
    wherever it was done: `decode + resize + forward + write` is 100 %, waiting is no part of it.

    Attributes:
        seconds: by `wait` (for pixels), `decode`, `resize`, `forward` and `write`.
        forward: seconds of `forward`, by backbone.
        images: embedded, by backbone.
    """

    seconds: Mapping[str, float] = field(default_factory=dict)
    forward: Mapping[str, float] = field(default_factory=dict)
    images: Mapping[str, int] = field(default_factory=dict)

    def __add__(self, other: "Effort") -> "Effort":
        """Return what both took."""
        return Effort(
            _added(self.seconds, other.seconds),
            _added(self.forward, other.forward),
            _added(self.images, other.images),
        )

    def __sub__(self, other: "Effort") -> "Effort":
        """Return what was taken since `other`."""
        return Effort(
            _added(self.seconds, other.seconds, -1),
            _added(self.forward, other.forward, -1),
            _added(self.images, other.images, -1),
        )

    def waiting(self) -> float:
        """Return the share, in [0, 1], of the embedding threads' time without pixels."""
        wait = self.seconds.get("wait", 0.0)
        busy = wait + self.seconds.get("forward", 0.0)
        return wait / busy if busy else 0.0

    def shares(self) -> dict[str, float]:
        """Return the share, in [0, 1], of each kind of work; they sum to 1 where any was done."""
        return _normalised({name: self.seconds.get(name, 0.0) for name in _WORK})

    def by_backbone(self) -> dict[str, tuple[float, float]]:
        """Return each backbone's share of `forward`, in [0, 1], and its images/s in one thread.

        A GPU has one thread that embeds, a CPU one per core.
        """
        return {
            name: (share, self.images[name] / self.forward[name])
            for name, share in _normalised(self.forward).items()
            if share > 0
        }


@dataclass(frozen=True)
class Pace:
    """How fast work went lately.

    Attributes:
        rate: done per second.
        left: seconds that the rest will take at this rate; None where its size is not known.
        left_in_all: seconds with what comes after it; None where that is nothing or not known.
        effort: what it took.
    """

    rate: float
    left: float | None
    left_in_all: float | None
    effort: Effort


@dataclass(frozen=True)
class _Mark:
    time: float
    done: int
    effort: Effort


class Recent:
    """The pace over the last minute, not since the beginning.

    The first batch of a piece of work also waits for libraries and weights; here it is only what
    the first window begins at.
    """

    def __init__(self) -> None:
        self._of: object = None
        self._marks: deque[_Mark] = deque()

    def add(
        self,
        time: float,
        what: str,
        done: int,
        total: int | None,
        effort: Effort,
        *,
        rest: int | None = None,
    ) -> Pace | None:
        """Note how far `what` is at a time, in seconds; None where its pace is not known yet.

        Other work, or other backbones, begin anew. `rest` comes after it.
        """
        marks = self._marks
        of = (what, total, tuple(effort.forward))
        if of != self._of:
            self._of = of
            marks.clear()
        if marks and time - marks[-1].time < _TOGETHER:
            marks[-1] = _Mark(marks[-1].time, done, effort)
        else:
            marks.append(_Mark(time, done, effort))
        while len(marks) > _FEWEST_MARKS and marks[1].time <= time - RECENT_SECONDS:
            marks.popleft()
        first, last = marks[0], marks[-1]
        if last.done <= first.done:  # nothing yet, or a worker died and its part is begun again
            return None
        rate = (last.done - first.done) / (last.time - first.time)
        left = (total - done) / rate if total is not None else None
        in_all = left + rest / rate if left is not None and rest else None
        return Pace(rate, left, in_all, last.effort - first.effort)


def spelled_rate(rate: float) -> str:
    """Spell a number per second.

    >>> spelled_rate(1234.5), spelled_rate(0.2613)
    ('1234', '0.26')
    """
    return f"{rate:.0f}" if rate >= 10 else f"{rate:.2g}"  # noqa: PLR2004


def spelled_time(seconds: float) -> str:
    """Spell a time.

    >>> spelled_time(61.0), spelled_time(600.0), spelled_time(12_000.0)
    ('61 s', '10 min', '3 h 20 min')
    """
    if seconds < 100:  # noqa: PLR2004
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def spelled_shares(effort: Effort) -> str:
    """Spell what the work was.

    >>> spelled_shares(Effort({"wait": 9.0, "decode": 1.0, "forward": 3.0}))
    'decode 25 %, resize 0 %, forward 75 %, write 0 %'
    """
    return ", ".join(f"{name} {100 * share:.0f} %" for name, share in effort.shares().items())


def spelled_waiting(effort: Effort) -> str:
    """Spell the share of time without pixels.

    >>> spelled_waiting(Effort({"wait": 1.0, "decode": 9.0, "forward": 3.0}))
    '25 % waiting for data'
    """
    return f"{100 * effort.waiting():.0f} % waiting for data"


def summary(images: int, seconds: float, effort: Effort) -> str:
    """Say in one line where the time of an extraction went; `seconds` are the wall's.

    >>> effort = Effort({"decode": 1.0, "forward": 4.0}, {"A": 1.0, "B": 3.0}, {"A": 40, "B": 40})
    >>> for part in summary(40, 2.5, effort).split("; "):
    ...     print(part)
    embedded 40 images in 2.5 s: 16 images/s
    decode 20 %, resize 0 %, forward 80 %, write 0 %
    slowest: B 75 % of forward
    """
    took = f"{seconds:.1f} s" if seconds < 100 else spelled_time(seconds)  # noqa: PLR2004
    rate = spelled_rate(images / seconds)
    parts = [
        f"embedded {count(images, 'image')} in {took}: {rate} images/s",
        spelled_shares(effort),
    ]
    backbones = effort.by_backbone()
    if len(backbones) > 1:
        slowest = max(backbones, key=lambda name: backbones[name])
        parts.append(f"slowest: {slowest} {100 * backbones[slowest][0]:.0f} % of forward")
    return "; ".join(parts)


def _added(a: Mapping[str, N], b: Mapping[str, N], times: int = 1) -> dict[str, N]:
    return {name: a.get(name, 0) + times * b.get(name, 0) for name in {**a, **b}}


def _normalised(seconds: Mapping[str, float]) -> dict[str, float]:
    total = sum(seconds.values())
    return {name: spent / total for name, spent in seconds.items()} if total else {}
