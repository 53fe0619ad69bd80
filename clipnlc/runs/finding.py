"""Which data sets, ensembles and runs a store has; what to run where one is missing."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from clipnlc.commands import command
from clipnlc.errors import DataError, MissingStageError, StoreError
from clipnlc.heads import HEADS
from clipnlc.labels import UNLABELLED, Labels
from clipnlc.runs.fitted import Fitted
from clipnlc.runs.members import members_name
from clipnlc.stores.fits import FitHeader, read_fit_header, read_fits
from clipnlc.stores.layout import Layout, maker
from clipnlc.stores.logits import read_class_names
from clipnlc.view import crop_number

HOLDOUT = "holdout"
"""The part of train that a head has not seen, which combiners then learn from."""

CROSS_FITTED = "cross-fitted"
"""The rows that a head was fitted on, each with logits of a head that has not seen it."""

DEFAULT_HOLDOUT = 0.1
"""Share of train in it, unless another is asked for."""


def refuse_crop(split: str) -> None:
    """Check that a split is one of a data set with labels, and not crops of its images.

    Raises:
        DataError: it is crops, or has no labels.
    """
    if split == UNLABELLED:
        raise DataError(
            f"{split} holds images without labels, on which nothing can be measured; choose another "
            "--split, as test"
        )
    if crop_number(split) is not None:
        raise DataError(
            f"{split} holds crops of images, which train-heads reads, and is no split of a data "
            "set; choose another --split, as test"
        )


def usual_teacher(which: Labels) -> str:
    """Return the combiner that a head with a teacher learns from, unless another is named."""
    return "balanced" if which.kind == "none" else "balanced-gp"


def labelled_split(head: str) -> str:
    """Return the split whose labels combiners learn from, under this head.

    None learns on a head that has a teacher: then it is the rows that no label was drawn from.
    """
    cls = HEADS.get(head)
    if cls.needs_teacher:
        return HOLDOUT
    if cls.per_draw:
        return CROSS_FITTED
    return HOLDOUT if cls.needs_labels else "train"


def may_be_unlabelled(head: str) -> bool:
    """Return whether a head that is fitted per draw may have a run without labels, by `--shots 0`."""
    cls = HEADS.get(head)
    found: bool = cls.needs_teacher or cls.texts_suffice
    return found


def own_run(head: str, run: str) -> str | None:
    """Return the run whose logit files a run reads: its own where heads are fitted per draw."""
    return run if HEADS.get(head).per_draw else None


def backbones_with_logits(layout: Layout, dataset: str, head: str) -> tuple[str, ...]:
    """Return the backbones with logits of this head, sorted; per draw, of any of its runs."""
    if not HEADS.get(head).per_draw:
        return layout.logit_backbones(dataset, head)
    runs = layout.logit_runs(dataset, head)
    return tuple(sorted({b for run in runs for b in layout.logit_backbones(dataset, head, run)}))


def any_logits(layout: Layout, dataset: str, head: str) -> Path | None:
    """Return one of the files of this head, or None."""
    runs = layout.logit_runs(dataset, head) if HEADS.get(head).per_draw else (None,)
    return next(
        (
            layout.logits(dataset, head, backbone, run)
            for run in runs
            for backbone in layout.logit_backbones(dataset, head, run)
        ),
        None,
    )


def datasets_with_logits(layout: Layout, datasets: Sequence[str], head: str) -> tuple[str, ...]:
    """Return the data sets named, or all in the store; each has logits of this head.

    Raises:
        MissingStageError: one that was named has none, or none was named and none has any.
    """
    names = tuple(dict.fromkeys(datasets)) or layout.datasets()
    present = tuple(name for name in names if backbones_with_logits(layout, name, head))
    absent = [name for name in names if name not in present] if datasets else []
    if absent or not present:
        where = f" of {','.join(absent)}" if absent else ""
        trained = head != "zero-shot"
        stage = "train-heads" if trained else "extract" if absent else "extract --dataset …"
        cure = command(stage, dataset=absent, head=head if trained else None, store=layout.root)
        raise MissingStageError(
            f"{layout.root} holds no {head} logits{where}; {_meant(layout, absent)}run `{cure}` first"
        )
    return present


def _meant(layout: Layout, absent: Sequence[str]) -> str:
    """Return a question for who misspelt a data set of the store; empty if no name is near."""
    held = layout.datasets()
    near = [difflib.get_close_matches(name, held, n=1) for name in absent if name not in held]
    found = [names[0] for names in near if names]
    return f"did you mean {', '.join(map(repr, found))}? or " if found else ""


@dataclass(frozen=True)
class Runs:
    """The runs of one ensemble on one data set's logits.

    Attributes:
        dataset: what it was fitted on.
        head: whose logits.
        members: the ensemble's name.
        backbones: the ensemble, sorted.
        paths: fit files by run, sorted by their labels.
        headers: by run.
    """

    dataset: str
    head: str
    members: str
    backbones: tuple[str, ...]
    paths: Mapping[str, Path]
    headers: Mapping[str, FitHeader]

    def logits(self, layout: Layout, backbone: str, run: str) -> Path:
        """Return the logit file that the fits of a run belong to."""
        return layout.logits(self.dataset, self.head, backbone, own_run(self.head, run))

    def all_logits(self, layout: Layout, runs: Iterable[str] | None = None) -> tuple[Path, ...]:
        """Return the logit files that the fits of some runs belong to, by default of all."""
        found = (
            self.logits(layout, backbone, run)
            for run in (self.paths if runs is None else runs)
            for backbone in self.backbones
        )
        return tuple(dict.fromkeys(found))


def find_runs(
    layout: Layout, dataset: str, head: str, backbones: Sequence[str] | None = None
) -> Runs:
    """Return the runs of the ensemble that is asked for.

    Without `backbones`: the ensemble of every backbone that has logits, or the only one with runs.

    Raises:
        MissingStageError: there are no such runs.
        StoreError: there are several ensembles and none of all backbones; a file is damaged.
    """
    every = tuple(sorted(set(backbones or backbones_with_logits(layout, dataset, head))))
    found = _runs_of(layout, dataset, head, every) if every else None
    if found is not None:
        return found
    ensembles = () if backbones else _ensembles(layout, dataset, head)
    if not ensembles:
        of = f" of {','.join(backbones)}" if backbones else ""
        cure = command(
            "train-nlc", dataset=dataset, head=head, backbones=backbones, store=layout.root
        )
        raise MissingStageError(
            f"{layout.root} holds no fits{of} on {head} logits of {dataset}; run `{cure}` first"
        )
    if len(ensembles) > 1:
        listed = "; ".join(",".join(names) for names in ensembles)
        raise StoreError(
            f"{layout.root} holds fits of {len(ensembles)} ensembles on {head} logits of {dataset}, "
            f"none of them of every backbone: {listed}; name one with --backbones"
        )
    only = _runs_of(layout, dataset, head, ensembles[0])
    assert only is not None, "an ensemble was found by one of its runs"
    return only


def read_fitted(runs: Runs, run: str, combiners: Sequence[str]) -> dict[str, Fitted]:
    """Read some fits of a run, each as a value of its own, by combiner.

    Raises:
        StoreError: the file is damaged.
    """
    store = read_fits(runs.paths[run], combiners)
    return {
        name: Fitted(
            name=name,
            settings=stored.key.fields.get("settings", {}),
            learnt=stored.learnt,
            backbones=store.backbones,
            class_names=store.class_names,
            labels=Labels.parse(run),
            facts=stored.facts,
        )
        for name, stored in store.fits.items()
    }


def datasets_with_runs(layout: Layout, datasets: Sequence[str], head: str) -> tuple[str, ...]:
    """Return the data sets named, sorted, or all in the store with fits on this head's logits.

    Raises:
        MissingStageError: one that was named has none, or none was named and none has any; or these
            logits are missing, too.
    """
    names = tuple(sorted(set(datasets))) or layout.datasets()
    present = tuple(
        name for name in names if layout.members(name, head) or layout.combined_runs(name, head)
    )
    absent = [name for name in names if name not in present] if datasets else []
    if absent or not present:
        datasets_with_logits(layout, absent, head)  # else those come first
        where = f" of {','.join(absent)}" if absent else ""
        cure = command("train-nlc", dataset=absent, head=head, store=layout.root)
        raise MissingStageError(
            f"{layout.root} holds no fits on {head} logits{where}; run `{cure}` first"
        )
    return present


def only_dataset(layout: Layout, head: str) -> str:
    """Return the one data set with fits on this head's logits.

    Raises:
        MissingStageError: no data set has fits on them.
        DataError: several have.
    """
    names = datasets_with_runs(layout, (), head)
    if len(names) > 1:
        raise DataError(
            f"{layout.root} holds fits of several data sets ({', '.join(names)}); give one with "
            "--dataset"
        )
    return names[0]


def others_that_share_classes(
    layout: Layout, source: str, head: str, split: str
) -> tuple[str, ...]:
    """Return the other data sets that have features of this split and a class of `source`.

    Raises:
        MissingStageError: no other data set has.
    """

    def classes(dataset: str, head: str) -> set[str]:
        path = any_logits(layout, dataset, head)
        return set(read_class_names(path)) if path else set()

    known = classes(source, head)
    found = tuple(
        name
        for name in layout.datasets()
        if name != source
        if layout.backbones(name, split) and known & classes(name, "zero-shot")
    )
    if not found:
        cure = command("extract --dataset …", split=split, store=layout.root)
        raise MissingStageError(
            f"{layout.root} holds no other data set with a {split} split and a class of {source}; "
            f"run `{cure}` on one first"
        )
    return found


def _runs_of(layout: Layout, dataset: str, head: str, backbones: tuple[str, ...]) -> Runs | None:
    """Return the runs of one ensemble; those of version 1 where there are no others; else None."""
    members = members_name(backbones)
    headers: dict[str, tuple[Path, FitHeader]] = {}
    for run in layout.combined_runs(dataset, head):
        path = layout.combined(dataset, head, run)
        header = read_fit_header(path)
        if tuple(sorted(header.backbones)) == backbones:
            headers[run] = path, header
    for run in layout.runs(dataset, head, members):
        path = layout.fits(dataset, head, members, run)
        header = read_fit_header(path)
        if tuple(sorted(header.backbones)) != backbones:
            raise StoreError(
                f"{path} is misplaced: its fits are of {','.join(header.backbones)}, expected "
                f"{','.join(backbones)}; delete it and run `{maker(path)}` again"
            )
        headers[run] = path, header
    ordered = sorted(headers, key=Labels.parse)
    return (
        Runs(
            dataset=dataset,
            head=head,
            members=members,
            backbones=backbones,
            paths={run: headers[run][0] for run in ordered},
            headers={run: headers[run][1] for run in ordered},
        )
        if headers
        else None
    )


def _ensembles(layout: Layout, dataset: str, head: str) -> tuple[tuple[str, ...], ...]:
    """Return the backbones of every ensemble with runs, read from one run of each."""
    paths = [layout.combined(dataset, head, run) for run in layout.combined_runs(dataset, head)]
    for members in layout.members(dataset, head):
        runs = layout.runs(dataset, head, members)
        paths += [layout.fits(dataset, head, members, run) for run in runs[:1]]
    return tuple(sorted({tuple(sorted(read_fit_header(path).backbones)) for path in paths}))
