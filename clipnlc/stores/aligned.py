"""Several stores opened together, row by row the same samples."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int, Int64

from clipnlc.commands import command, is_own_name
from clipnlc.ensemble import Ensemble
from clipnlc.errors import StoreError
from clipnlc.stores.features import FeatureFile, open_features
from clipnlc.stores.layout import import_command, locate
from clipnlc.stores.logits import LogitFile, open_logits
from clipnlc.wording import quoted


class Columns(NamedTuple):
    """What two stores must agree in, and the file it was read from."""

    path: Path
    class_names: tuple[str, ...]
    sample_id: tuple[str, ...]
    labels: Int64[np.ndarray, " samples"]


class AlignedFeatures(NamedTuple):
    """One backbone's open features, and where the samples of the logits stand among them."""

    file: FeatureFile
    rows: Int64[np.ndarray, " samples"]


class AlignedSplit:
    """One split of several backbones' logits and features, of which any rows are read.

    Made by `open_split`, which has checked that all files agree.

    Attributes:
        backbones: names, in the order of the ensembles.
        labels: class numbers in `[0, classes)`, int64 `[samples]`.
        class_names: one per class.
        sample_id: one per row.
    """

    def __init__(
        self, first: Columns, logits: Mapping[str, LogitFile], features: list[AlignedFeatures]
    ) -> None:
        self.backbones = tuple(logits)
        self.labels = first.labels
        self.class_names = first.class_names
        self.sample_id = first.sample_id
        self._logits = logits
        self._features = features

    @property
    def feature_width(self) -> int:
        """Numbers that a sample has in all backbones' features."""
        return sum(file.dim for file, _ in self._features)

    def ensemble(
        self,
        rows: Int[np.ndarray, " rows"] | slice,
        *,
        features: bool,
        classes: Int[np.ndarray, " classes"] | None = None,
    ) -> Ensemble:
        """Read and check these rows of all backbones; besides them, a few MB are in memory.

        Args:
            rows: row numbers in any order, or consecutive rows.
            features: whether the ensemble has them; the split was opened with features then.
            classes: class numbers, in the order of the ensemble's logits; as stored by default.

        Raises:
            StoreError: one of the rows is damaged or breaks the format.
        """
        index = np.arange(len(self.sample_id))[rows]
        numbers = np.arange(len(self.class_names)) if classes is None else classes
        logits = np.empty((len(self.backbones), len(index), len(numbers)), np.float32)
        for out, file in zip(logits, self._logits.values(), strict=True):
            file.read(index, classes=classes, out=out)
        return Ensemble(
            logits=logits,
            features=self.features(index) if features else (),
            sample_id=tuple(self.sample_id[row] for row in index),
            backbones=self.backbones,
            class_names=tuple(self.class_names[number] for number in numbers),
        )

    def features(self, rows: Int[np.ndarray, " rows"]) -> tuple[Float32[np.ndarray, "rows _"], ...]:
        """Read and check the features of these rows, one array per backbone.

        Raises:
            StoreError: one of the rows is damaged or breaks the format.
        """
        assert self._features, "the split was opened with features"
        found = []
        for file, places in self._features:
            out = np.empty((len(rows), file.dim), np.float32)
            file.read(places[rows], out=out)
            found.append(out)
        return tuple(found)


@contextmanager
def open_split(
    logits: Mapping[str, Path], features: Mapping[str, Path], split: str
) -> Iterator[AlignedSplit]:
    """Open one split of the logit file, and the feature file, of each backbone.

    A feature file may hold more samples than the split, in another order: its rows are found by
    sample_id. One backbone's labels and sample ids are in memory at a time, besides the result's.

    Args:
        logits: path by backbone.
        features: path by backbone, the same ones; empty when no features are wanted.
        split: its name in the logit files.

    Raises:
        MissingStageError: a file, or the split in it, has not been made.
        StoreError: two files hold other samples, labels or classes; a file is damaged.
    """
    assert logits, "an ensemble has a backbone"
    assert not features or list(features) == list(logits), "the same backbones in the same order"
    with ExitStack() as stack:
        files = {}
        first: Columns | None = None
        for backbone, path in logits.items():
            files[backbone] = stack.enter_context(open_logits(path, split))
            its = files[backbone].columns()
            columns = Columns(path, its.class_names, its.sample_id, its.labels)
            first = first or columns
            check_aligned(first, columns)
        assert first is not None
        yield AlignedSplit(
            first,
            files,
            [
                _aligned_features(stack.enter_context(open_features(path)), path, first)
                for path in features.values()
            ],
        )


class AlignedEnsemble(NamedTuple):
    """An ensemble, with the labels of its samples.

    Attributes:
        ensemble: logits and features of the same samples.
        labels: class numbers in `[0, classes)`, int64 `[samples]`.
        class_names: one per class.
    """

    ensemble: Ensemble
    labels: Int64[np.ndarray, " samples"]
    class_names: tuple[str, ...]


def open_ensemble(
    logits: Mapping[str, Path], features: Mapping[str, Path], split: str
) -> AlignedEnsemble:
    """Read one split of the logit file and the feature file of each backbone.

    `features` names the same backbones as `logits`, or none when no features are wanted.

    Raises:
        MissingStageError: a file, or the split in it, has not been made.
        StoreError: two files hold other samples, labels or classes; a file is damaged.
    """
    with open_split(logits, features, split) as opened:
        ensemble = opened.ensemble(slice(None), features=bool(features))
        return AlignedEnsemble(ensemble, opened.labels, opened.class_names)


def _aligned_features(file: FeatureFile, path: Path, first: Columns) -> AlignedFeatures:
    """Find the samples of the logits in a feature file, with the same labels and classes."""
    columns = file.columns()
    if columns.sample_id == first.sample_id:
        rows = np.arange(len(first.sample_id))
    else:
        place = {sample: row for row, sample in enumerate(columns.sample_id)}
        absent = next((sample for sample in first.sample_id if sample not in place), None)
        if absent is not None:
            raise StoreError(
                f"{path} has no sample {quoted(absent)}, which {first.path} has; expected every sample "
                f"of the logits: run `{_aligning_command(first.path, path)}` and the stages after "
                "it"
            )
        rows = np.array([place[sample] for sample in first.sample_id], dtype=np.int64)
    labels = columns.labels[rows]
    check_aligned(first, Columns(path, columns.class_names, first.sample_id, labels))
    return AlignedFeatures(file, rows)


def check_aligned(first: Columns, other: Columns) -> None:
    """Check that two stores hold the same samples, labels and classes in the same order.

    Raises:
        StoreError: names both files and the first row that differs.
    """
    difference = _first_difference(first, other)
    if difference is not None:
        raise StoreError(
            f"{first.path} and {other.path} are not aligned: {difference} in the second; "
            f"run `{_aligning_command(first.path, other.path)}` and the stages after it, "
            "so that both hold the same samples"
        )


def _first_difference(first: Columns, other: Columns) -> str | None:
    """Say where samples, classes or labels differ first; None where they do not."""
    for what, one, two in (
        ("sample_id of row", first.sample_id, other.sample_id),
        ("class", first.class_names, other.class_names),
    ):
        if one != two:
            pairs = enumerate(zip_longest(one, two))
            row, (a, b) = next((row, pair) for row, pair in pairs if pair[0] != pair[1])
            return f"{what} {row} is {_shown(a)} in the first and {_shown(b)}"
    wrong = np.flatnonzero(first.labels != other.labels)
    if wrong.size:
        row = int(wrong[0])
        found = f"{first.labels[row]} in the first and {other.labels[row]}"
        return f"the label of row {row} ({quoted(first.sample_id[row])}) is {found}"
    return None


def _aligning_command(first: Path, other: Path) -> str:
    one, two = locate(first), locate(other)
    if one is None or two is None or one.backbone is None or two.backbone is None:
        return command("extract --dataset …")
    own = next((place for place in (two, one) if is_own_name(place.backbone or "")), None)
    if own is not None:
        return import_command(own)
    backbones = list(dict.fromkeys([one.backbone, two.backbone]))
    return command("extract", dataset=two.dataset, backbones=backbones, store=two.store)


def _shown(name: str | None) -> str:
    return "absent" if name is None else repr(name)
