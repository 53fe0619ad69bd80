"""Which data sets, ensembles and runs a store has; what to run where one is missing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from clipnlc.commands import command
from clipnlc.errors import DataError, MissingStageError, StoreError
from clipnlc.labels import Labels
from clipnlc.runs.fitted import Fitted
from clipnlc.runs.members import members_name
from clipnlc.stores.fits import FitHeader, read_fit_header, read_fits
from clipnlc.stores.layout import Layout

LABELLED = {"zero-shot": "train"}
"""The split that combiners learn from, by head."""

HELD_OUT = "holdout"
"""For every other head: the part of train that the head has not seen."""


def labelled_split(head: str) -> str:
    """Return the split whose labels combiners learn from, under this head."""
    return LABELLED.get(head, HELD_OUT)


def datasets_with_logits(layout: Layout, datasets: Sequence[str], head: str) -> tuple[str, ...]:
    """Return the data sets named, or all in the store; each has logits of this head.

    Raises:
        MissingStageError: one that was named has none, or none was named and none has any.
    """
    names = tuple(dict.fromkeys(datasets)) or layout.datasets()
    present = tuple(name for name in names if layout.logit_backbones(name, head))
    absent = [name for name in names if name not in present] if datasets else []
    if absent or not present:
        where = f" of {','.join(absent)}" if absent else ""
        trained = head != "zero-shot"
        stage = "train-heads" if trained else "extract"
        cure = command(stage, dataset=absent, head=head if trained else None, store=layout.root)
        raise MissingStageError(f"{layout.root} holds no {head} logits{where}; run `{cure}` first")
    return present


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


def find_runs(
    layout: Layout, dataset: str, head: str, backbones: Sequence[str] | None = None
) -> Runs:
    """Return the runs of the ensemble that is asked for.

    Without `backbones`: the ensemble of every backbone that has logits, or the only one with runs.

    Raises:
        MissingStageError: there are no such runs.
        StoreError: there are several ensembles and none of all backbones; a file is damaged.
    """
    ensembles = _ensembles(layout, dataset, head)
    if not ensembles:
        cure = command("train-nlc", dataset=dataset, head=head, store=layout.root)
        raise MissingStageError(
            f"{layout.root} holds no fits on {head} logits of {dataset}; run `{cure}` first"
        )
    if backbones is not None:
        wanted = tuple(sorted(set(backbones)))
        if wanted not in ensembles:
            cure = command(
                "train-nlc", dataset=dataset, head=head, backbones=backbones, store=layout.root
            )
            raise MissingStageError(
                f"{layout.root} holds no fits of {','.join(backbones)} on {head} logits of "
                f"{dataset}; run `{cure}` first"
            )
        return ensembles[wanted]
    every = tuple(sorted(layout.logit_backbones(dataset, head)))
    if every in ensembles:
        return ensembles[every]
    if len(ensembles) > 1:
        listed = "; ".join(",".join(names) for names in ensembles)
        raise StoreError(
            f"{layout.root} holds fits of {len(ensembles)} ensembles on {head} logits of {dataset}, "
            f"none of them of every backbone: {listed}; name one with --backbones"
        )
    return next(iter(ensembles.values()))


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
        MissingStageError: one that was named has none, or none was named and none has any.
    """
    names = tuple(sorted(set(datasets))) or layout.datasets()
    present = tuple(
        name for name in names if layout.members(name, head) or layout.combined_runs(name, head)
    )
    absent = [name for name in names if name not in present] if datasets else []
    if absent or not present:
        where = f" of {','.join(absent)}" if absent else ""
        cure = command("train-nlc", dataset=absent, head=head, store=layout.root)
        raise MissingStageError(
            f"{layout.root} holds no fits on {head} logits{where}; run `{cure}` first"
        )
    return present


def only_dataset(layout: Layout, head: str) -> str:
    """Return the one data set with fits on this head's logits.

    Raises:
        MissingStageError: there is none.
        DataError: there are several.
    """
    names = datasets_with_runs(layout, (), head)
    if len(names) > 1:
        raise DataError(
            f"{layout.root} holds fits of several data sets ({', '.join(names)}); give one with "
            "--dataset"
        )
    return names[0]


def _ensembles(layout: Layout, dataset: str, head: str) -> dict[tuple[str, ...], Runs]:
    """Return the runs of each ensemble; those of version 1 where there are no others."""
    found: dict[tuple[str, ...], dict[str, tuple[Path, FitHeader]]] = {}
    for run in layout.combined_runs(dataset, head):
        path = layout.combined(dataset, head, run)
        header = read_fit_header(path)
        found.setdefault(tuple(sorted(header.backbones)), {})[run] = path, header
    for members in layout.members(dataset, head):
        for run in layout.runs(dataset, head, members):
            path = layout.fits(dataset, head, members, run)
            header = read_fit_header(path)
            found.setdefault(tuple(sorted(header.backbones)), {})[run] = path, header
    return {
        backbones: Runs(
            dataset=dataset,
            head=head,
            members=members_name(backbones),
            backbones=backbones,
            paths={run: runs[run][0] for run in sorted(runs, key=Labels.parse)},
            headers={run: runs[run][1] for run in sorted(runs, key=Labels.parse)},
        )
        for backbones, runs in sorted(found.items())
    }
