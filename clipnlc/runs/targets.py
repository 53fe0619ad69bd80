"""What fits are applied to: a split with its own logits, or with another data set's heads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int, Int64

from clipnlc.ensemble import Ensemble, by_name
from clipnlc.errors import StoreError
from clipnlc.runs.freshness import PART
from clipnlc.runs.heads import open_heads
from clipnlc.stores.aligned import Columns, check_aligned, open_split
from clipnlc.stores.features import open_features, read_feature_header
from clipnlc.stores.logits import read_logit_header

if TYPE_CHECKING:
    from clipnlc.stores.layout import Layout

Read = Callable[[Int[np.ndarray, " rows"], bool], Ensemble]
"""Reads rows, with features or without: named, classes sorted by name."""


@dataclass(frozen=True)
class Target:
    """The rows that fits are applied to, read in blocks.

    Attributes:
        dataset: whose images.
        split: its name.
        sample_id: one per row.
        labels: numbers of `class_names`.
        class_names: the classes that may be predicted, sorted; names may repeat.
        backbones: sorted.
        logits: what the logits are made from: name in the store -> digest.
        features: likewise for the features.
        read: reads some rows.
        read_features: reads the features of all rows.
        among: numbers of the classes in the ensembles that are read; None where they are all.
        unknown: images that were left out, by the name of their class, which no head knows.
    """

    dataset: str
    split: str
    sample_id: tuple[str, ...]
    labels: Int64[np.ndarray, " samples"]
    class_names: tuple[str, ...]
    backbones: tuple[str, ...]
    logits: Mapping[str, str]
    features: Mapping[str, str]
    read: Read
    read_features: Callable[[], tuple[Float[np.ndarray, "samples _"], ...]]
    among: Int[np.ndarray, " classes"] | None = None
    unknown: Mapping[str, int] = field(default_factory=dict)

    def blind(self, all_classes: Sequence[str]) -> Ensemble:
        """Read the features of all rows; the logits are 0 and take no memory."""
        zero = np.zeros((1, 1, 1), dtype=np.float32)
        shape = (len(self.backbones), len(self.sample_id), len(all_classes))
        return Ensemble(
            np.broadcast_to(zero, shape),
            self.read_features(),
            self.sample_id,
            self.backbones,
            tuple(all_classes),
        )


@contextmanager
def stored_target(
    layout: Layout,
    dataset: str,
    split: str,
    *,
    head: str,
    backbones: Sequence[str],
    run: str | None = None,
) -> Iterator[Target]:
    """Open a split with the logits that the store has of it under this head.

    Heads that are fitted per draw are those of one run.

    Raises:
        MissingStageError: logits, or features where they are read, have not been made.
        StoreError: files are damaged, or do not hold the same samples.
    """
    paths = {name: layout.logits(dataset, head, name, run) for name in backbones}
    features = {
        name: path
        for name in backbones
        if (path := layout.features(dataset, split, name)).is_file()
    }
    have_features = len(features) == len(paths)
    with open_split(paths, features if have_features else {}, split) as aligned:
        classes = by_name(aligned.class_names)

        def need_features() -> None:
            for name in backbones:
                if name not in features:
                    read_feature_header(layout.features(dataset, split, name))  # says what to run

        def read(rows: Int[np.ndarray, " rows"], with_features: bool) -> Ensemble:  # noqa: FBT001
            if with_features:
                need_features()
            return aligned.ensemble(rows, features=with_features, classes=classes)

        def read_features() -> tuple[Float[np.ndarray, "samples _"], ...]:
            need_features()
            return aligned.features(np.arange(len(aligned.sample_id)))

        yield Target(
            dataset=dataset,
            split=split,
            sample_id=aligned.sample_id,
            labels=np.argsort(classes)[aligned.labels],
            class_names=tuple(aligned.class_names[c] for c in classes),
            backbones=tuple(backbones),
            logits={
                f"{layout.relative(path)}{PART}{split}": read_logit_header(path).split_digests[
                    split
                ]
                for path in paths.values()
            },
            features={
                layout.relative(path): read_feature_header(path).digest
                for path in features.values()
            },
            read=read,
            read_features=read_features,
        )


@contextmanager
def foreign_target(
    layout: Layout,
    dataset: str,
    split: str,
    *,
    source: str,
    head: str,
    backbones: Sequence[str],
    run: str | None = None,
) -> Iterator[Target]:
    """Open a split of one data set with the heads of another, `source`; classes match by name.

    Images whose class the heads do not know are left out and counted; classes that the split does
    not have cannot be predicted.

    Raises:
        MissingStageError: features of the split, or heads of the source, have not been made.
        StoreError: no image is of a class that both have; files are damaged, or do not hold the same samples.
    """
    heads = open_heads(layout, source, head, backbones, run)
    order = by_name(heads.class_names)
    known = tuple(heads.class_names[c] for c in order)
    with ExitStack() as stack:
        paths = [layout.features(dataset, split, name) for name in backbones]
        files = [stack.enter_context(open_features(path)) for path in paths]
        columns = [file.columns() for file in files]
        aligned = [
            Columns(path, c.class_names, c.sample_id, c.labels)
            for path, c in zip(paths, columns, strict=True)
        ]
        for other in aligned[1:]:
            check_aligned(aligned[0], other)
        names, labels = columns[0].class_names, columns[0].labels
        number = _numbers(known, names)
        if not any(n is not None for n in number):
            raise StoreError(
                f"{dataset} and {source} share no class name ({_few(names)} against "
                f"{_few(known)}); expected the same names, in any order: extract one of them with "
                "--class-names"
            )
        kept = np.flatnonzero([number[label] is not None for label in labels])
        if not len(kept):
            raise StoreError(
                f"no image of {dataset}/{split} is of a class that {source} has; "
                f"expected at least one: choose another --split or --dataset"
            )
        among = np.array(sorted(n for n in number if n is not None), dtype=np.int64)
        place = {int(column): i for i, column in enumerate(among)}
        unknown = Counter(names[label] for label in labels if number[label] is None)

        def features(rows: Int[np.ndarray, " rows"]) -> tuple[Float[np.ndarray, "rows _"], ...]:
            return tuple(file.read(kept[rows]) for file in files)

        ids = tuple(columns[0].sample_id[row] for row in kept)

        def read(rows: Int[np.ndarray, " rows"], with_features: bool) -> Ensemble:  # noqa: FBT001
            found = heads.ensemble(features(rows), [ids[row] for row in rows], classes=order)
            return found if with_features else found.with_features(())

        yield Target(
            dataset=dataset,
            split=split,
            sample_id=ids,
            labels=np.array([place[number[label]] for label in labels[kept]], dtype=np.int64),
            class_names=tuple(known[c] for c in among),
            backbones=tuple(backbones),
            logits={
                **heads.inputs,
                **{layout.relative(path): c.digest for path, c in zip(paths, columns, strict=True)},
            },
            features={},
            read=read,
            read_features=lambda: features(np.arange(len(ids))),
            among=None if len(among) == len(known) else among,
            unknown=dict(sorted(unknown.items())),
        )


def _numbers(known: Sequence[str], names: Sequence[str]) -> list[int | None]:
    """Return each class's number among those known; a name that repeats is matched in order."""
    places: dict[str, list[int]] = {}
    for number, name in enumerate(known):
        places.setdefault(name, []).append(number)
    return [places[name].pop(0) if places.get(name) else None for name in names]


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + ", …" * (len(names) > 3)  # noqa: PLR2004  (three show the kind)
