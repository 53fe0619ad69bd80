"""Captioned images for pretraining: parquet with the columns `image` and `caption`.

`caption` is a string, or a list of ways to say the same; an optional `concept` names images that
are never each other's negatives.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipnlc.errors import DataError


@dataclass(frozen=True)
class Captioned:
    """One row: encoded image, its captions, and the concept it shows."""

    data: bytes
    captions: tuple[str, ...]
    concept: str


def read_captioned(path: Path) -> Iterator[Captioned]:
    """Read rows of one parquet file, or of all in a folder in the order of their names.

    Raises:
        DataError: no parquet file, a column is missing, or a row lacks its image or caption.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    for file in parquet_files(path):
        try:
            yield from _rows(pq.ParquetFile(file), file)
        except (pa.ArrowException, OSError) as problem:
            reason = (str(problem).strip() or type(problem).__name__).splitlines()[0]
            raise DataError(f"{file} is no parquet file ({reason}); replace it") from None


def _rows(table: Any, file: Path) -> Iterator[Captioned]:  # noqa: ANN401
    names = table.schema_arrow.names
    missing = {"image", "caption"} - set(names)
    if missing:
        raise DataError(
            f"{file} has no column {' and '.join(sorted(missing))!r} (it has "
            f"{', '.join(names)}); captioned images need `image` and `caption`"
        )
    row = 0
    columns = [c for c in ("image", "caption", "concept") if c in names]
    for batch in table.iter_batches(columns=columns, batch_size=1024):
        for cells in batch.to_pylist():
            image, caption = cells["image"], cells["caption"]
            data = image.get("bytes") if isinstance(image, dict) else image
            captions = caption if isinstance(caption, list) else [caption]
            if not data or not captions or captions == [None]:
                raise DataError(f"{file} row {row} lacks its image or its caption; remove it")
            concept = cells.get("concept") or f"{file.name}:{row}"
            if not isinstance(data, bytes) or not all(isinstance(c, str) for c in captions):
                raise DataError(
                    f"{file} row {row} has no image bytes, or a caption that is no text; captioned "
                    "images need the bytes of image files and captions of strings"
                )
            yield Captioned(data, tuple(captions), str(concept))
            row += 1


def parquet_files(path: Path) -> list[Path]:
    """List the parquet files that `path` stands for."""
    files = [path] if path.is_file() else sorted(path.glob("*.parquet"))
    if not files:
        raise DataError(f"no parquet file at {path}; give a file or a folder of captioned images")
    return files


def digest(path: Path) -> str:
    """Digest the bytes of the parquet files, so that a checkpoint knows its data."""
    total = hashlib.blake2b(digest_size=16)
    for file in parquet_files(path):
        with file.open("rb") as stream:
            total.update(hashlib.file_digest(stream, "blake2b").digest())
    return total.hexdigest()
