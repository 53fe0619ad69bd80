"""Draw photos at random to be labelled: a CSV with guesses, and a page of thumbnails beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, NamedTuple

from clipnlc.datasets.drawn import (
    COLUMNS,
    Draw,
    Row,
    find_draw,
    in_order,
    read_rows,
    record_of,
    safe_file,
    write_draw,
    write_record,
)
from clipnlc.datasets.images import ImageError, load, read_image_file
from clipnlc.datasets.tree import images_below
from clipnlc.errors import DataError
from clipnlc.files import read_regular, reason, write_whole
from clipnlc.reports.page import generator, render
from clipnlc.reports.thumbnails import data_uri
from clipnlc.wording import count as spelled
from clipnlc.wording import shown

PAGE: Final = "label"

LARGEST_PAGE: Final = 2**30
MOST_ON_PAGE: Final = 2000
"""Photos; their thumbnails take 30 MB, and a browser a few seconds."""


class Guess(NamedTuple):
    """What is guessed of a photo: its class, and the probability of it, None if unknown."""

    answer: str
    confidence: float | None


Guesser = Callable[[Sequence[Path]], Iterable[tuple[Path, Guess | str]]]
"""Yields each photo with its guess, or with the reason why it cannot be used."""


@dataclass(frozen=True)
class Labelled:
    """What there is to label.

    Attributes:
        csv, page: the files.
        drawn: photos drawn now.
        kept: photos that were drawn before.
        labels: of those, how many have a label.
        photos: in the folder.
        unreadable: photo -> why it was passed over, of those met now.
        since: of those drawn now, how many are there because photos came into the folder since.
    """

    csv: Path
    page: Path
    drawn: int
    kept: int
    labels: int
    photos: int
    unreadable: Mapping[str, str]
    since: int


def label(
    *,
    photos: Path,
    class_names: Sequence[str],
    count: int,
    out: Path,
    guess: Guesser,
    seed: int | None = None,
) -> Labelled:
    """Draw photos that were not drawn before, guess their classes, write the CSV and the page.

    What is in the CSV stays, with its labels. With the same folder and seed the same photos are
    drawn, in whatever steps. Photos that came into the folder since an earlier draw are drawn first
    where they would have been drawn then, so that all together are a random draw from the folder.

    Args:
        photos: the folder; all images below it count.
        class_names: what a photo can be labelled as.
        count: photos to draw; none leaves the CSV alone and writes the page again.
        out: the CSV, new or of an earlier draw from this folder.
        guess: guesses the classes.
        seed: of the draw; that of the earlier draw by default, or 0.

    Raises:
        DataError: there are no photos, or none that can be used; the CSV is of something else, or has
            labels that are no class; a file that would be replaced is not ours; the disk refuses.
    """
    page = _page_beside(out)
    files = _files(photos)
    kept, draw = _earlier(out, set(files), class_names, seed)
    order = [file for file in in_order(files, draw.seed) if file not in set(draw.unreadable)]
    have = {row.file for row in kept}
    behind = max((place for place, file in enumerate(order) if file in have), default=-1) + 1
    since = [file for file in order[:behind] if file not in have]
    wanted = max(count, len(since)) if count else 0
    left = [file for file in order if file not in have]
    drawn: list[Row] = []
    problems: dict[str, str] = {}
    while len(drawn) < wanted and left:
        some, left = left[: wanted - len(drawn)], left[wanted - len(drawn) :]
        for row, problem in _guessed(photos, some, guess):
            if problem:
                problems[row.file] = problem
            else:
                drawn.append(row)
    if not kept and not count:
        raise DataError(f"no photo was drawn into {out} yet; give --count 30, or another number")
    if not kept and not drawn:
        first = next(iter(problems.items()), None)
        why = f"; {shown(first[0])}: {first[1]}" if first else ""
        raise DataError(f"none of the photos in {photos} can be used{why}; give another folder")
    before = draw
    draw = replace(
        draw,
        unreadable=tuple(sorted({*draw.unreadable, *problems})),
        classes=tuple(class_names),
    )
    places = {file: number for number, file in enumerate(in_order(files, draw.seed))}
    rows = sorted((*kept, *drawn), key=lambda row: places[row.file])
    text = _page(photos, rows, class_names, out)
    try:
        if drawn or not out.exists():
            write_draw(out, rows, draw)
        elif draw != before:
            write_record(out, draw)
        write_whole(page, text)
    except OSError as error:
        place = error.filename or out
        raise DataError(f"cannot write {place}: {error.strerror}; give another --out") from error
    return Labelled(
        csv=out,
        page=page,
        drawn=len(drawn),
        kept=len(kept),
        labels=sum(bool(row.label) for row in kept),
        photos=len(files),
        unreadable=problems,
        since=min(len(since), len(drawn)) if count < len(since) else 0,
    )


def _page_beside(out: Path) -> Path:
    """Return where the page goes; check that both files can be written, before anything is guessed.

    Raises:
        DataError: the CSV has another suffix; there is no such folder; a page is not ours.
    """
    if out.suffix.lower() != ".csv":
        raise DataError(
            f"--out is {out}; give it the suffix .csv: the page lies beside it as .html"
        )
    if not out.parent.is_dir():
        raise DataError(
            f"--out is {out}, but there is no folder {out.parent}; make it, or give another"
        )
    page = out.with_suffix(".html")
    if not page.exists():
        return page
    try:
        ours = generator(PAGE).encode() in read_regular(page, at_most=LARGEST_PAGE)[:4096]
    except OSError as error:
        raise DataError(
            f"cannot replace {page}: {reason(error, page)}; give another --out"
        ) from error
    if not ours:
        raise DataError(
            f"{page} is no page of the command label and would be replaced; move it, or give another "
            "--out"
        )
    return page


def _files(photos: Path) -> list[str]:
    """List the photos.

    Raises:
        DataError: there is no such folder, or no image in it; a name is no Unicode.
    """
    if not photos.is_dir():
        found = "is a file" if photos.exists() else "does not exist"
        raise DataError(f"{photos} {found}; give the folder with all the photos to draw from")
    try:
        files = list(images_below(photos))
    except OSError as error:
        raise DataError(
            f"cannot list {error.filename}: {error.strerror}; fix its permissions, for a draw needs "
            "to know every photo"
        ) from error
    if not files:
        raise DataError(f"no images in {photos}; give the folder with all the photos to draw from")
    for file in files:
        if any("\ud800" <= character <= "\udfff" for character in file):
            raise DataError(f"the name of {photos}/{shown(file)} is no Unicode; rename the file")
    return files


def _earlier(
    out: Path, files: set[str], class_names: Sequence[str], seed: int | None
) -> tuple[tuple[Row, ...], Draw]:
    """Return the rows that are there already, and how they were drawn.

    Raises:
        DataError: they are of another folder, classes or seed, or were not drawn.
    """
    if not out.exists():
        if record_of(out).exists():
            raise DataError(
                f"{record_of(out)} records a draw, but {out} is gone; bring it back, or delete the "
                "record to draw anew"
            )
        return (), Draw(seed or 0)
    rows, draw = read_rows(out), find_draw(out, files)
    drawn = draw or Draw(seed or 0)
    if seed is not None and seed != drawn.seed:
        raise DataError(
            f"{out} was drawn with seed {drawn.seed}, and --seed is {seed}; leave it out, or give "
            "another --out"
        )
    if lost := [row.file for row in rows if row.file not in files]:
        raise DataError(
            f"{out} lists {shown(lost[0])}, which is not in the folder; give the folder that it was "
            "drawn from, or delete the row"
        )
    for row in rows:
        if row.label and row.label not in class_names:
            raise DataError(
                f"{out} labels {shown(row.file)} as {shown(row.label)}, which is none of the classes; "
                "name it with --classes too, or correct the label"
            )
    have = {row.file for row in rows}
    readable = [file for file in files if file not in set(drawn.unreadable)]
    if draw is None and set(in_order(sorted(readable), drawn.seed)[: len(have)]) != have:
        raise DataError(
            f"{out} was not drawn by this command, or {record_of(out).name} is gone, so its photos and "
            "further ones would be no random draw; give another --out"
        )
    return rows, drawn


def _guessed(photos: Path, files: Sequence[str], guess: Guesser) -> Iterable[tuple[Row, str]]:
    """Yield a row for each photo, with why it cannot be used, if so."""
    names = {photos / file: file for file in files}
    for path, found in guess(list(names)):
        if isinstance(found, str):
            yield Row(names[path], "", ""), found
        else:
            confidence = "" if found.confidence is None else f"{found.confidence:.4f}"
            yield Row(names[path], found.answer, confidence), ""


def _page(photos: Path, rows: Sequence[Row], class_names: Sequence[str], out: Path) -> str:
    """Return the page of all rows; a photo that has become unreadable has no thumbnail.

    Raises:
        DataError: there are too many.
    """
    if len(rows) > MOST_ON_PAGE:
        raise DataError(
            f"a page holds {MOST_ON_PAGE} photos at most, and there would be {len(rows)} in {out}; "
            "give a smaller --count, or another --out with another --seed"
        )
    shown_photos = [
        {
            "file": safe_file(row.file),
            "guess": row.guess,
            "confidence": row.confidence,
            "label": row.label,
            "thumbnail": _thumbnail(photos / row.file),
        }
        for row in rows
    ]
    data = {
        "classes": list(class_names),
        "columns": list(COLUMNS),
        "photos": shown_photos,
        "save_as": out.name,
    }
    title = f"{photos.resolve().name}: {spelled(len(rows), 'photo')} to label"
    return render(PAGE, title=title, data=data)


def _thumbnail(path: Path) -> str:
    try:
        return data_uri(load(read_image_file(path), str(path)))
    except (OSError, ImageError):
        return "data:,"
