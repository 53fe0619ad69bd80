"""The logit store: what one backbone's head says of each split (`docs/formats/logit-store.md`)."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int, Int64

from clipnlc.digests import content_digest
from clipnlc.errors import MissingStageError, StoreError
from clipnlc.stores import _h5, checks
from clipnlc.stores.fitted import Fact, fitted_attributes, fitted_datasets, read_facts, read_learnt
from clipnlc.stores.key import Key
from clipnlc.stores.layout import as_part, from_part, locate, maker, maker_of_test, without_import
from clipnlc.wording import quoted

FORMAT = "clipnlc-logits"
SCALED = "scaled"  # by the backbone's logit scale, plus its bias; never probabilities


@dataclass(frozen=True)
class SplitLogits:
    """The logits of one split.

    Attributes:
        logits: already multiplied by the backbone's logit scale, plus its bias; never
            probabilities.
        labels: class numbers in `[0, classes)`.
        sample_id: one identifier per row, unique.
    """

    logits: Float32[np.ndarray, "samples classes"]
    labels: Int64[np.ndarray, " samples"]
    sample_id: tuple[str, ...]


@dataclass(frozen=True)
class SplitColumns:
    """One split without its logits.

    Attributes:
        labels, sample_id: as in `SplitLogits`.
        class_names: one per class.
    """

    labels: Int64[np.ndarray, " samples"]
    sample_id: tuple[str, ...]
    class_names: tuple[str, ...]


@dataclass(frozen=True)
class LogitBlocks:
    """The logits of one split, made while they are written and never whole in memory.

    Attributes:
        blocks: consecutive rows of logits, as in `SplitLogits`; together one row per label.
        labels, sample_id: as in `SplitLogits`.
    """

    blocks: Iterable[np.ndarray]
    labels: Int64[np.ndarray, " samples"]
    sample_id: tuple[str, ...]


@dataclass(frozen=True)
class LogitStore:
    """One backbone's logits under one head, and what the head learnt.

    Attributes:
        splits: by name (`test`, `train`).
        class_names: one per class; names may repeat, labels are numbers.
        key: every resolved input by name; `inputs` names the feature files.
        learnt: the head's fitted arrays by name; empty for a head that learns nothing.
        facts: numbers and words about the fit (accuracy on its validation slice, epochs).
        digest: names the content of the file; empty until it is read from one.
    """

    splits: Mapping[str, SplitLogits | LogitBlocks]
    class_names: tuple[str, ...]
    key: Key
    learnt: Mapping[str, np.ndarray]
    facts: Mapping[str, Fact]
    digest: str = ""


@dataclass(frozen=True)
class LogitHeader:
    """Facts of a logit file that need no reading of its logits.

    Attributes:
        key: every resolved input by name.
        digest: names the content of the file.
        split_digests: by split, names its logits, labels, samples and classes: what is made from
            one split does not depend on the others.
        rows: number of samples by split.
        classes: number of classes.
        facts: numbers and words about the fit.
    """

    key: Key
    digest: str
    split_digests: Mapping[str, str]
    rows: Mapping[str, int]
    classes: int
    facts: Mapping[str, Fact]


@dataclass(frozen=True)
class LogitFit:
    """What a head learnt, without any logits.

    Attributes:
        key: every resolved input by name, `settings` among them.
        learnt: the head's fitted arrays by name; empty for zero-shot heads of version 1.
        class_names: one per class.
        digest: names the content of the whole file.
    """

    key: Key
    learnt: Mapping[str, np.ndarray]
    class_names: tuple[str, ...]
    digest: str


def write_logits(path: Path, store: LogitStore) -> str:
    """Seal a logit file; returns the digest of its content.

    Raises:
        StoreError: a logit is NaN or infinite; a label names no class; a name is repeated; the
            disk is full.
    """

    def refuse(problem: str) -> StoreError:
        return StoreError(
            f"{path} not written: {problem}; expected finite logits, labels within the classes "
            f"and unique names: fix the features it was made from, then run `{maker(path)}` again"
        )

    checks.check_text("class name", store.class_names, refuse)
    datasets: dict[str, _h5.Dataset] = {"class_names": store.class_names}
    for name, split in store.splits.items():
        group = f"splits/{as_part(name)}"
        if isinstance(split, LogitBlocks):
            datasets[f"{group}/logits"] = _streamed(name, split, len(store.class_names), refuse)
        else:
            _check_split(name, split, len(store.class_names), refuse)
            datasets[f"{group}/logits"] = split.logits
        datasets[f"{group}/labels"] = split.labels
        datasets[f"{group}/sample_id"] = split.sample_id
    return _h5.write_sealed(
        path,
        FORMAT,
        attributes={**fitted_attributes(store.key, store.facts), "logits": SCALED},
        datasets={**datasets, **fitted_datasets(store.learnt, refuse)},
    )


def read_logits(path: Path) -> LogitStore:
    """Read and check a whole logit file.

    Raises:
        MissingStageError: there is no such file.
        StoreError: the file is damaged, foreign, newer than this clipnlc, or breaks the format.
    """
    content = _h5.read(path, FORMAT)
    class_names = _class_names(content)
    return LogitStore(
        splits={n: _split(content, n, len(class_names)) for n in _splits(content.header)},
        class_names=class_names,
        key=content.header.key(),
        learnt=read_learnt(content, ""),
        facts=read_facts(content.header, ""),
        digest=content.header.digest,
    )


class LogitFile:
    """One split of an open logit file, read by the parts that are needed; from `open_logits`."""

    def __init__(self, file: _h5.SealedFile, split: str) -> None:
        self.split = split
        self._file = file
        self._group = f"splits/{as_part(split)}"
        shape = file.header.shape(f"{self._group}/logits", 2, "<f4")
        self.rows, self.classes = shape

    def columns(self) -> SplitColumns:
        """Read and check everything but the logits; nothing of it is kept here.

        Raises:
            StoreError: the file is damaged or breaks the format.
        """
        names = ("class_names", f"{self._group}/labels", f"{self._group}/sample_id")
        content = self._file.content(lambda name: name in names)
        class_names = _class_names(content)
        labels = content.array(f"{self._group}/labels", "<i8", dimensions=1)
        sample_id = content.strings(f"{self._group}/sample_id")
        columns = SplitColumns(labels, sample_id, class_names)
        _check_columns(self.split, columns, (self.rows, self.classes), self._refuse)
        return columns

    def read(
        self,
        rows: Int[np.ndarray, " rows"],
        *,
        classes: Int[np.ndarray, " classes"] | None = None,
        out: Float32[np.ndarray, "rows classes"] | None = None,
    ) -> Float32[np.ndarray, "rows classes"]:
        """Read and check the logits of these rows, in this order; a row may stand repeatedly.

        Args:
            rows: row numbers, from 0.
            classes: class numbers, in the order to give them in; as in the file by default.
            out: where to put them; a new array by default.

        Raises:
            StoreError: one of the rows is damaged or breaks the format.
            IndexError: there is no such row.
        """
        logits = self._file.rows(f"{self._group}/logits", rows, columns=classes, out=out)
        checks.check_finite(f"{self.split} logits", logits, rows, self._refuse)
        return logits

    def blocks(self, rows: int) -> Iterator[Float32[np.ndarray, "block classes"]]:
        """Read the logits at most `rows` rows at a time, each block checked before it is given.

        Raises:
            StoreError: the logits are damaged or break the format.
        """
        start = 0
        for block in self._file.blocks(f"{self._group}/logits", rows):
            numbers = range(start, start + len(block))
            checks.check_finite(f"{self.split} logits", block, numbers, self._refuse)
            start += len(block)
            yield block

    def _refuse(self, problem: str) -> StoreError:
        return _h5.damaged(self._file.header.path, f"breaks the format: {problem}")


@contextmanager
def open_logits(path: Path, split: str) -> Iterator[LogitFile]:
    """Open one split of a logit file to read the parts of it that are needed.

    Raises:
        MissingStageError: there is no such file, or it holds no such split.
        StoreError: the header is damaged, foreign or newer than this clipnlc.
    """
    with _h5.opened(path, FORMAT) as file:
        _check_present(file.header, split)
        yield LogitFile(file, split)


def read_class_names(path: Path) -> tuple[str, ...]:
    """Read and check the class names alone.

    Raises:
        MissingStageError: there is no such file.
        StoreError: the file is damaged, foreign, newer than this clipnlc, or breaks the format.
    """
    return _class_names(_h5.read(path, FORMAT, lambda name: name == "class_names"))


def read_logit_fit(path: Path) -> LogitFit:
    """Read and check what a head learnt, without its logits.

    Raises:
        MissingStageError: there is no such file.
        StoreError: the file is damaged, foreign, newer than this clipnlc, or breaks the format.
    """

    def wanted(name: str) -> bool:
        return name == "class_names" or name.startswith("learnt/")

    content = _h5.read(path, FORMAT, wanted)
    return LogitFit(
        key=content.header.key(),
        learnt=read_learnt(content, ""),
        class_names=_class_names(content),
        digest=content.header.digest,
    )


def read_split(path: Path, split: str) -> tuple[SplitLogits, tuple[str, ...]]:
    """Read and check one split and the class names, leaving the other splits unread.

    Raises:
        MissingStageError: there is no such file, or it holds no such split.
        StoreError: the file is damaged, foreign, newer than this clipnlc, or breaks the format.
    """
    group = f"splits/{as_part(split)}/"
    content = _h5.read(path, FORMAT, lambda n: n == "class_names" or n.startswith(group))
    _check_present(content.header, split)
    class_names = _class_names(content)
    return _split(content, split, len(class_names)), class_names


def read_logit_header(path: Path) -> LogitHeader:
    """Read key, facts and sizes of a logit file, checked, without its logits.

    Raises:
        MissingStageError: there is no such file.
        StoreError: the header is damaged, foreign or newer than this clipnlc.
    """
    header = _h5.read_header(path, FORMAT)
    return LogitHeader(
        key=header.key(),
        digest=header.digest,
        split_digests={n: _split_digest(header, n) for n in _splits(header)},
        rows={n: header.shape(f"splits/{as_part(n)}/logits", 2)[0] for n in _splits(header)},
        classes=header.shape("class_names", 1)[0],
        facts=read_facts(header, ""),
    )


def _splits(header: _h5.Header) -> tuple[str, ...]:
    return tuple(from_part(part) for part in header.members("splits"))


def _split_digest(header: _h5.Header, split: str) -> str:
    """Name the content of one split, from the list of contents alone."""
    group = f"splits/{as_part(split)}"
    parts = {"class_names": 1, f"{group}/logits": 2, f"{group}/labels": 1, f"{group}/sample_id": 1}
    shapes = [header.shape(name, dimensions) for name, dimensions in parts.items()]
    entries = [header.entries[name] for name in parts]
    listed = zip(entries, shapes, strict=True)
    return content_digest([(entry.dtype, shape, entry.blake2b) for entry, shape in listed])


def _check_present(header: _h5.Header, split: str) -> None:
    present = _splits(header)
    if split not in present:
        place = locate(header.path)
        cure = f"run `{maker(header.path)}` with that split first"
        if place and place.is_imported:
            cure = f"import the rows of {split} too, {without_import(place)}"
        elif split == "test" and place:
            cure = f"run {maker_of_test(place.store, place.dataset, place.backbone or '')}"
        raise MissingStageError(
            f"{header.path} holds no split {quoted(split)}, only {', '.join(present) or 'none'}; "
            f"{cure}"
        )


def _class_names(content: _h5.Content) -> tuple[str, ...]:
    class_names = content.strings("class_names")

    def refuse(problem: str) -> StoreError:
        return _h5.damaged(content.header.path, f"breaks the format: {problem}")

    checks.check_text("class name", class_names, refuse)
    if content.header.attribute("logits", str) != SCALED:
        raise refuse(f"its logits are not {quoted(SCALED)}")
    return class_names


def _split(content: _h5.Content, name: str, classes: int) -> SplitLogits:
    group = f"splits/{as_part(name)}"
    logits = content.array(f"{group}/logits", "<f4", dimensions=2)
    labels = content.array(f"{group}/labels", "<i8", dimensions=1)
    sample_id = content.strings(f"{group}/sample_id")

    def refuse(problem: str) -> StoreError:
        return _h5.damaged(content.header.path, f"breaks the format: {problem}")

    columns = {"logits": len(logits), "labels": len(labels), "sample ids": len(sample_id)}
    checks.check_lengths(columns, refuse)
    split = SplitLogits(logits, labels, sample_id)
    _check_split(name, split, classes, refuse)
    return split


def _check_columns(
    name: str, columns: SplitColumns, shape: tuple[int, ...], refuse: checks.Refuse
) -> None:
    rows, width = shape
    lengths = {"logits": rows, "labels": len(columns.labels), "sample ids": len(columns.sample_id)}
    checks.check_lengths(lengths, refuse)
    classes = len(columns.class_names)
    checks.check_lengths({"classes": classes, "logits per row": width}, refuse)
    _check_samples(name, columns, classes, refuse)


def _streamed(name: str, split: LogitBlocks, classes: int, refuse: checks.Refuse) -> _h5.Rows:
    _check_samples(name, split, classes, refuse)

    def blocks() -> Iterator[np.ndarray]:
        start = 0
        for block in split.blocks:
            stop = start + len(block)
            checks.check_finite(f"{name} logits", block, split.sample_id[start:stop], refuse)
            yield block
            start = stop

    return _h5.Rows((len(split.labels), classes), np.dtype("<f4"), blocks())


def _check_samples(
    name: str,
    split: SplitLogits | SplitColumns | LogitBlocks,
    classes: int,
    refuse: checks.Refuse,
) -> None:
    checks.check_names(f"sample_id in split {quoted(name)},", split.sample_id, refuse)
    checks.check_labels(split.labels, split.sample_id, classes, refuse, split=name)


def _check_split(name: str, split: SplitLogits, classes: int, refuse: checks.Refuse) -> None:
    checks.check_lengths({"classes": classes, "logits per row": split.logits.shape[1]}, refuse)
    _check_samples(name, split, classes, refuse)
    checks.check_finite(f"{name} logits", split.logits, split.sample_id, refuse)
