"""One pass over the images of a split, and what it finds."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64, UInt64

from clipnlc.datasets.images import MAX_PIXELS, ImageError
from clipnlc.datasets.inspection import TINY, ImageFacts, inspect_image
from clipnlc.datasets.source import Sample, Split
from clipnlc.errors import DataError
from clipnlc.reports.diagnosis import SHOWN, Finding, Severity, first_few

BLOCKS = 16
"""Stretches of a split, evenly spread, that a limited number of images is taken from."""

Progress = Callable[[str, int, int], None]


@dataclass
class Tally:
    """How many images share a trait, and the first few of them."""

    count: int = 0
    places: list[str] = field(default_factory=list)

    def add(self, place: str) -> None:
        """Count one more."""
        self.count += 1
        if len(self.places) < SHOWN:
            self.places.append(place)

    def shown(self) -> tuple[str, ...]:
        """Return the first few, and how many more there are."""
        return first_few(self.places, self.count)


class Trait(NamedTuple):
    """Something an image can be, and what a reader should know of it."""

    severity: Severity
    spelled: str
    is_there: Callable[[ImageFacts], bool]
    cause: str
    cure: str


TRAITS: tuple[Trait, ...] = (
    Trait(
        "warning",
        "have another format than their name says",
        lambda image: image.misnamed,
        "files were renamed or saved again; the content counts here, other tools go by the name",
        "convert or rename them",
    ),
    Trait(
        "warning",
        f"are smaller than {TINY} pixels",
        lambda image: image.tiny,
        "thumbnails or broken downloads, blown up to the input size",
        "look at some of them",
    ),
    Trait(
        "warning",
        "have one colour all over",
        lambda image: image.one_colour,
        "blank pages or broken downloads",
        "look at some of them",
    ),
    Trait(
        "warning",
        "have more than 8 bits but are almost black",
        lambda image: image.dark,
        "files of 16 bits whose values have 12 or fewer; a file does not say so, and is read by its 16",
        "scale them to the full range, or convert them to 8 bits",
    ),
    Trait(
        "note",
        "are turned or mirrored by EXIF, which open_clip does not do",
        lambda image: image.turned,
        "cameras note how they were held; backbones see the image as stored",
        "turn them for good if they should be upright",
    ),
    Trait(
        "note",
        "are CMYK or have more than 8 bits",
        lambda image: image.mode == "CMYK" or image.mode[0] in "IF",
        "they become 8-bit RGB: without colour profiles, and by the highest 8 bits",
        "convert them yourself if they look wrong",
    ),
)


@dataclass(frozen=True)
class Looked:
    """What was seen of the images of one split.

    Attributes:
        split: the split.
        looked: how many images were looked at.
        rows: which rows those are, without images whose bytes the source could not give.
        content: digest of each one's bytes; 64 bits, so that among a million images a false match
            has odds of one in 30 million.
        unreadable: images that cannot be decoded.
        reason: why the first of them that the source could give cannot.
        traits: one per member of `TRAITS`.
    """

    split: Split
    looked: int
    rows: Int64[np.ndarray, " read"]
    content: UInt64[np.ndarray, " read"]
    unreadable: Tally
    reason: str
    traits: tuple[Tally, ...]


def look(
    split: Split, limit: int | None, on_progress: Progress, max_pixels: int = MAX_PIXELS
) -> Looked:
    """Hash and decode the images of a split one by one."""
    blocks = _blocks(len(split), limit)
    total = sum(len(block) for block in blocks)
    rows, content = np.empty(total, np.int64), np.empty(total, np.uint64)
    unreadable, traits = Tally(), tuple(Tally() for _ in TRAITS)
    held, reason = 0, ""
    samples = (one for block in blocks for one in _samples(split, block))
    for done, (row, sample) in enumerate(samples, start=1):
        place = split.sample_id[row]
        if sample is None:
            unreadable.add(place)
        else:
            digest = hashlib.blake2b(sample.data, digest_size=8).digest()
            rows[held], content[held] = row, int.from_bytes(digest, "little")
            held += 1
            try:
                facts = inspect_image(sample.data, place, max_pixels=max_pixels)
            except ImageError as problem:
                reason = reason or problem.reason
                unreadable.add(place)
            else:
                for trait, tally in zip(TRAITS, traits, strict=True):
                    if trait.is_there(facts):
                        tally.add(place)
        on_progress(split.name, done, total)
    return Looked(split, total, rows[:held], content[:held], unreadable, reason, traits)


def _blocks(rows: int, limit: int | None) -> list[range]:
    """Spread `limit` rows over a split, whose neighbours are often of one class."""
    if limit is None or limit >= rows:
        return [range(rows)]
    blocks = min(BLOCKS, limit)
    starts = [rows * block // blocks for block in range(blocks)]
    sizes = [limit * (block + 1) // blocks - limit * block // blocks for block in range(blocks)]
    return [range(start, start + size) for start, size in zip(starts, sizes, strict=True)]


def _samples(split: Split, rows: range) -> Iterator[tuple[int, Sample | None]]:
    """Yield each row with its sample, None where the source cannot read it."""
    row = rows.start
    while row < rows.stop:
        try:
            for sample in split.read(row, rows.stop):
                yield row, sample
                row += 1
        except DataError:
            yield row, None
            row += 1


def check_images(looked: Mapping[str, Looked]) -> Iterator[Finding]:
    """Say what was odd about the images."""
    clean = True
    for name, one in looked.items():
        bad = one.unreadable
        if bad.count:
            clean = False
            yield Finding(
                "images",
                "problem",
                f"{bad.count} of {name} cannot be read",
                bad.shown(),
                f"the first: {one.reason}" if one.reason else "files that have gone, or no files",
                "restore or remove them, or let `extract` leave them out: --on-bad-image skip",
            )
        for trait, tally in zip(TRAITS, one.traits, strict=True):
            if tally.count:
                clean = False
                found = f"{tally.count} of {name} {trait.spelled}"
                places = tally.shown()
                yield Finding("images", trait.severity, found, places, trait.cause, trait.cure)
    if clean:
        total = sum(one.looked for one in looked.values())
        yield Finding("images", "fine", f"all {total} can be read, and nothing is odd about them")
