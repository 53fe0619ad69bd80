"""Shards: the parts of an unfinished feature file (`docs/formats/feature-store.md`).

A long extraction writes many small sealed shards and merges them at its end, so a kill loses at
most the shard in work. A shard covers rows `[start, stop)` of the list of samples; samples that
could not be read take a place in the range but get no row.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32, Int64, UInt8

from clipnlc.errors import DataError, StoreError
from clipnlc.stores import _h5, checks
from clipnlc.stores.disk import disk_errors
from clipnlc.stores.feature_writing import write_features
from clipnlc.stores.features import (
    CONTENT,
    FEATURE_TYPES,
    Skipped,
    open_features,
    read_content,
    read_labels,
    read_skipped,
)
from clipnlc.stores.key import Key
from clipnlc.stores.layout import SHARD_NAME, locate, maker, shard_path, shards_of

FORMAT = "clipnlc-features-shard"
RESEALED = 8192  # rows of a shard that is made of a finished file


@dataclass(frozen=True)
class Shard:
    """The features of one range of the list of samples.

    Attributes:
        start, stop: the range `[start, stop)`.
        features: float32 or float16, as the backbone gave them (not normalised).
        labels: class numbers.
        sample_id: one identifier per row.
        skipped: samples of the range without a row, each with the reason.
        content: digest of each image's bytes; None where they are not known.
    """

    start: int
    stop: int
    features: Float[np.ndarray, "samples dim"]
    labels: Int64[np.ndarray, " samples"]
    sample_id: tuple[str, ...]
    skipped: tuple[Skipped, ...] = ()
    content: UInt8[np.ndarray, "samples 16"] | None = None


@dataclass(frozen=True)
class ShardHeader:
    """Facts of a shard that need no reading of its features.

    Attributes:
        key: every resolved input by name.
        start, stop: the range `[start, stop)` of the list of samples.
    """

    key: Key
    start: int
    stop: int


def write_shard(path: Path, key: Key, shard: Shard) -> None:
    """Seal one shard of the feature file `path`.

    Raises:
        StoreError: a feature is NaN, infinite or zero throughout; a sample_id is repeated or is
            not UTF-8; the disk is full.
    """
    assert 0 <= shard.start < shard.stop, "a shard covers at least one sample"
    assert len(shard.sample_id) + len(shard.skipped) == shard.stop - shard.start, "no sample lost"

    def refuse(problem: str) -> StoreError:
        return StoreError(
            f"{path} not written: {problem}; expected finite features that are not zero and unique "
            "sample ids: fix that sample, or extract with `--precision fp32`"
        )

    _check_shard(shard, refuse)
    skipped_id, reasons = _columns(shard.skipped)
    _h5.write_sealed(
        shard_path(path, shard.start, shard.stop),
        FORMAT,
        attributes={"key": key.json, "start": shard.start, "stop": shard.stop},
        datasets={
            "features": shard.features,
            "labels": shard.labels,
            "sample_id": shard.sample_id,
            "skipped/sample_id": skipped_id,
            "skipped/reason": reasons,
            **({} if shard.content is None else {CONTENT: shard.content}),
        },
    )


def sealed_ranges(path: Path, key: Key) -> list[tuple[int, int]]:
    """List the ranges of the feature file `path` that are sealed under `key`, in order.

    Shards under another key are stale and do not count; `merge_shards` removes them.

    Raises:
        StoreError: a shard is damaged.
    """
    headers = (read_shard_header(file) for file in shard_files(path))
    return sorted((h.start, h.stop) for h in headers if h.key == key)


def missing_ranges(path: Path, key: Key, rows: int, size: int) -> list[tuple[int, int]]:
    """List the ranges of at most `size` samples that are not sealed yet, in order.

    Raises:
        StoreError: a shard is damaged.
    """
    missing = []
    start = 0
    for sealed_start, sealed_stop in [*sealed_ranges(path, key), (rows, rows)]:
        missing += [(a, min(a + size, sealed_start)) for a in range(start, sealed_start, size)]
        start = max(start, sealed_stop)
    return missing


def merge_shards(
    path: Path,
    key: Key,
    *,
    rows: int,
    class_names: Sequence[str],
    texts: Float32[np.ndarray, "classes dim"] | None = None,
    logit_scale: float | None = None,
    logit_bias: float = 0.0,
) -> str:
    """Merge the shards under `key` into the feature file `path` and remove all its shards.

    The features pass through memory shard by shard, and the file's bytes do not depend on how
    the ranges were cut. The file has digests of its images if every shard has them. Returns the
    digest of the content. `texts` and what follows are as for `write_features`.

    Raises:
        DataError: no sample could be read.
        StoreError: the shards do not tile `[0, rows)`; a label names no class; a sample_id or
            class name is repeated; a shard is damaged; the disk is full.
    """
    assert rows > 0, "a split holds a sample"
    files = [shard_path(path, *span) for span in _tiling(path, key, rows)]
    columns = [_read_shard(file, lambda name: name != "features") for file in files]
    sample_id = tuple(s for column in columns for s in column.strings("sample_id"))
    labels = _joined([read_labels(column) for column in columns])
    content = [digests for column in columns if (digests := read_content(column)) is not None]
    if not sample_id:
        first, reason = read_skipped(columns[0])[0]
        place = locate(path)
        where = f"{place.dataset}/{place.split}" if place else path
        raise DataError(
            f"none of the images 0 to {rows} of {where} can be read ({first}: {reason}); replace or remove them"
        )
    digest = write_features(
        path,
        key,
        features=_streamed(files, [column.header for column in columns]),
        labels=labels,
        sample_id=sample_id,
        class_names=class_names,
        texts=texts,
        logit_scale=logit_scale,
        logit_bias=logit_bias,
        skipped=[skipped for column in columns for skipped in read_skipped(column)],
        content=np.concatenate(content) if len(content) == len(columns) else None,
    )
    remove_shards(path)
    return digest


def reseal(path: Path, key: Key, labels: Int64[np.ndarray, " samples"]) -> None:
    """Seal the features that `path` holds as shards under another key, with these labels.

    Raises:
        StoreError: the file is damaged; the disk is full.
    """
    with open_features(path) as file:
        columns = file.columns()
        start = 0
        for block in file.blocks(RESEALED):
            stop = start + len(block)
            last = stop == len(columns.sample_id)
            skipped = columns.skipped if last else ()
            shard = Shard(
                start,
                stop + len(skipped),
                block,
                labels[start:stop],
                columns.sample_id[start:stop],
                skipped,
                None if columns.content is None else columns.content[start:stop],
            )
            write_shard(path, key, shard)
            start = stop


def remove_shards(path: Path) -> None:
    """Remove every shard of the feature file `path`, whatever its key.

    Raises:
        StoreError: the disk refuses.
    """
    folder = shards_of(path)
    if folder.is_dir():
        with disk_errors(folder):
            if folder.is_symlink():  # what it leads to is not ours
                folder.unlink()
            else:
                shutil.rmtree(folder)


def shard_files(path: Path) -> list[Path]:
    """List the sealed shards of the feature file `path`, in order of their ranges."""
    directory = shards_of(path)
    if not directory.is_dir():
        return []
    return sorted(file for file in directory.iterdir() if SHARD_NAME.fullmatch(file.name))


def read_shard_header(file: Path) -> ShardHeader:
    """Read key and range of one shard, checked, without its features.

    Raises:
        StoreError: the header is damaged, foreign or newer than this clipnlc.
    """
    return _shard_header(file, _h5.read_header(file, FORMAT))


def read_shard(file: Path) -> Shard:
    """Read and check one whole shard.

    Raises:
        StoreError: the shard is damaged, foreign, newer than this clipnlc, or breaks the format.
    """
    content = _read_shard(file, lambda _name: True)
    span = _shard_header(file, content.header)
    features = content.array("features", *FEATURE_TYPES, dimensions=2)
    labels = read_labels(content)
    sample_id = content.strings("sample_id")
    skipped = read_skipped(content)
    of_images = read_content(content)

    def refuse(problem: str) -> StoreError:
        return _h5.damaged(file, f"breaks the format: {problem}")

    columns = {"features": len(features), "labels": len(labels), "sample ids": len(sample_id)}
    if of_images is not None:
        columns["digests of images"] = len(of_images)
    checks.check_lengths(columns, refuse)
    checks.check_lengths(
        {"rows": span.stop - span.start, "samples": len(sample_id) + len(skipped)}, refuse
    )
    shard = Shard(span.start, span.stop, features, labels, sample_id, skipped, of_images)
    _check_shard(shard, refuse)
    return shard


def _check_shard(shard: Shard, refuse: Callable[[str], StoreError]) -> None:
    checks.check_names("sample_id", shard.sample_id, refuse)
    checks.check_finite("features", shard.features, shard.sample_id, refuse)
    checks.check_not_zero("features", shard.features, shard.sample_id, refuse)


def _shard_header(file: Path, header: _h5.Header) -> ShardHeader:
    start, stop = header.attribute("start", int), header.attribute("stop", int)
    if file.name != shard_path(file, start, stop).name:
        raise _h5.damaged(file, f"holds rows {start} to {stop}, not those of its name")
    return ShardHeader(header.key(), start, stop)


def _tiling(path: Path, key: Key, rows: int) -> list[tuple[int, int]]:
    """Return the sealed ranges, which tile `[0, rows)`."""
    ranges = sealed_ranges(path, key)
    reached = 0
    for start, stop in [*ranges, (rows, rows)]:
        if start != reached:
            found = f"rows {reached} to {start} of {rows} are not sealed"
            if start < reached:
                found = f"rows {start} to {reached} of {rows} are sealed twice"
            cure = "run" if start > reached else f"delete {shards_of(path)} and run"
            raise StoreError(f"{path} cannot be merged: {found}; {cure} `{maker(path)}` to go on")
        reached = stop
    return ranges


def _streamed(files: Sequence[Path], headers: Sequence[_h5.Header]) -> _h5.Rows:
    """Read the features shard by shard, when they are written."""
    shapes = [header.shape("features", 2) for header in headers]
    kinds = {(s[1], h.entries["features"].dtype) for s, h in zip(shapes, headers, strict=True)}
    assert len(kinds) == 1, "shards under one key have one width and one type"
    dim, dtype = kinds.pop()

    def blocks() -> Iterator[np.ndarray]:
        for file in files:
            content = _read_shard(file, lambda name: name == "features")
            yield content.array("features", *FEATURE_TYPES, dimensions=2)

    return _h5.Rows((sum(shape[0] for shape in shapes), dim), np.dtype(dtype), blocks())


def _read_shard(file: Path, wanted: Callable[[str], bool]) -> _h5.Content:
    return _h5.read(file, FORMAT, wanted)


def _joined(parts: Sequence[Int64[np.ndarray, " _"]]) -> Int64[np.ndarray, " samples"]:
    return np.concatenate([np.empty(0, np.int64), *parts])


def _columns(skipped: Sequence[Skipped]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return tuple(s for s, _ in skipped), tuple(reason for _, reason in skipped)
