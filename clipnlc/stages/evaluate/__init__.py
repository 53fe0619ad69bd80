"""Measure what the combined runs of a store are worth. Nothing is fitted here."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from clipnlc.combiners import COMBINERS, weigh
from clipnlc.datasets.published import published_digest
from clipnlc.errors import DataError, MissingStageError, StoreError
from clipnlc.metrics import METRICS
from clipnlc.reports.files import evaluation_from_json, save
from clipnlc.reports.older import labels_of
from clipnlc.reports.record import (
    DatasetEvaluation,
    Evaluation,
    Kind,
    Row,
    Source,
    versions,
)
from clipnlc.stages.evaluate.rows import (
    Measured,
    Outcome,
    Setting,
    beside_published,
    dataset_evaluation,
    references,
    sample_values,
    summary,
)
from clipnlc.stores.aligned import AlignedLogits, open_aligned_logits
from clipnlc.stores.combined import (
    Combination,
    CombinedHeader,
    CombinedStore,
    read_combined,
    read_combined_header,
)
from clipnlc.stores.disk import disk_errors
from clipnlc.stores.features import read_feature_header
from clipnlc.stores.layout import Layout, as_part, locate
from clipnlc.stores.logits import read_logit_header

PUBLISHED = ("zero-shot", "test")
"""The head and the split of the published numbers."""


@dataclass(frozen=True)
class Found:
    """One data set's fresh runs of one ensemble, before any array is read."""

    dataset: str
    backbones: tuple[str, ...]  # sorted
    runs: tuple[Path, ...]
    sources: tuple[Source, ...]


def evaluate(
    *,
    store: Path,
    datasets: Sequence[str] | None = None,
    head: str = "zero-shot",
    split: str = "test",
    backbones: Sequence[str] | None = None,
    on_progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> Evaluation:
    """Compare the combiners with every backbone alone, the best of them, and the oracle.

    Leaves a record of each data set, and one of all together where there are several (see
    `record_path`); a record of the very same files is returned as it is. The same stores give the
    same bytes. Where zero-shot accuracies of a data set are published, they stand beside ours.

    Args:
        store: root of the store.
        datasets: names in the store; by default every one with combined runs.
        head: whose logits were combined.
        split: the split that was combined.
        backbones: take only the runs of this ensemble.
        on_progress: called with (data sets done, data sets).

    Raises:
        MissingStageError: there are no such runs, or no such logits.
        StoreError: runs are stale, of several ensembles, or not aligned with the logits; a file is
            damaged; the record cannot be written.
    """
    layout = Layout(store)
    found = [
        _find(layout, dataset, head, split, backbones)
        for dataset in _datasets_with_runs(layout, datasets, head)
    ]
    _check_one_ensemble([(one.dataset, one.backbones) for one in found])
    path = record_path(store, head, dataset=found[0].dataset if len(found) == 1 else None)
    kept = _kept(path, found, split)
    if kept is not None:
        return kept
    measured = []
    for done, one in enumerate(found, start=1):
        measured.append(_measure(layout, one, head, split))
        on_progress(done, len(found))
    rows = [dataset_evaluation(one) for one in measured]
    for single, its in zip(measured, rows, strict=True):
        # The summary over one data set is its own rows.
        evaluation = _evaluation(single, [its], its.rows, (), head=head, split=split)
        _save(record_path(store, head, dataset=its.dataset), evaluation)
    if len(measured) > 1:
        evaluation = _evaluation(measured[0], rows, *summary(measured), head=head, split=split)
        _save(path, evaluation)
    return evaluation


def _evaluation(
    first: Measured,
    datasets: Sequence[DatasetEvaluation],
    rows: Sequence[Row],
    notes: Sequence[str],
    *,
    head: str,
    split: str,
) -> Evaluation:
    return Evaluation(
        head=head,
        split=split,
        backbones=first.backbones,
        measures=METRICS.facts,
        datasets=tuple(datasets),
        summary=tuple(rows),
        notes=tuple(notes),
        versions=versions(),
        published_digest=published_digest(),
    )


def record_path(store: Path, head: str, *, dataset: str | None = None) -> Path:
    """Return where `evaluate` leaves the record of one data set, or of several together."""
    name = f"evaluate-{as_part(head)}.json"
    return store / name if dataset is None else Layout(store).records(dataset) / name


def _kept(path: Path, found: Sequence[Found], split: str) -> Evaluation | None:
    """Return the record that is there, if it was made from the very same files."""
    if not path.exists():
        return None
    kept = evaluation_from_json(path.read_bytes(), where=str(path))
    sources = {one.dataset: one.sources for one in kept.datasets}
    wanted = {one.dataset: one.sources for one in found}
    made_with = (kept.split, kept.versions, kept.measures, kept.published_digest)
    now = (split, versions(), METRICS.facts, published_digest())
    return kept if sources == wanted and made_with == now else None


def _save(path: Path, evaluation: Evaluation) -> None:
    with disk_errors(path):
        save(path, evaluation)


# Finding the runs ------------------------------------------------------------------------------


def _command(head: str, dataset: str | None = None, backbones: Sequence[str] | None = None) -> str:
    """Spell the command that makes the runs."""
    options = {
        "--dataset": dataset,
        "--head": head,
        "--backbones": None if backbones is None else ",".join(backbones),
    }
    words = [f"{name} {shlex.quote(value)}" for name, value in options.items() if value is not None]
    return " ".join(["clipnlc train-nlc", *words])


def _datasets_with_runs(
    layout: Layout, datasets: Sequence[str] | None, head: str
) -> tuple[str, ...]:
    names = layout.datasets() if datasets is None else tuple(sorted(set(datasets)))
    present = tuple(name for name in names if layout.runs(name, head))
    if not present:
        where = "" if datasets is None else f" for {','.join(names)}"
        command = _command(head, None if datasets is None else ",".join(names))
        raise MissingStageError(
            f"{layout.root} holds no combined runs on {head} logits{where}; run `{command}` first"
        )
    absent = [name for name in names if name not in present]
    if datasets is not None and absent:
        raise MissingStageError(
            f"{layout.root} holds no combined runs on {head} logits for {','.join(absent)}; "
            f"run `{_command(head, ','.join(absent))}` first"
        )
    return present


def _find(
    layout: Layout, dataset: str, head: str, split: str, backbones: Sequence[str] | None
) -> Found:
    """Read the headers of a data set's runs, and refuse what is stale."""
    paths = [layout.combined(dataset, head, run) for run in layout.runs(dataset, head)]
    headers = {path: read_combined_header(path) for path in paths}
    ensembles = {path: _ensemble(path, header) for path, header in headers.items()}
    if backbones is not None:
        ensembles = {p: names for p, names in ensembles.items() if names == frozenset(backbones)}
        if not ensembles:
            raise MissingStageError(
                f"{layout.root} holds no combined runs of {','.join(backbones)} for {dataset}; "
                f"run `{_command(head, dataset, backbones)}` first"
            )
    _check_one_ensemble([(layout.relative(p), sorted(names)) for p, names in ensembles.items()])
    _refuse_stale(layout, {p: headers[p] for p in ensembles}, _command(head, dataset, backbones))
    names = tuple(sorted(next(iter(ensembles.values()))))
    logits = [layout.logits(dataset, head, name) for name in names]
    return Found(
        dataset=dataset,
        backbones=names,
        runs=tuple(ensembles),
        sources=(
            *(_logit_source(layout, path, split) for path in logits),
            *(
                Source(layout.relative(path), headers[path].digest, headers[path].rows)
                for path in ensembles
            ),
        ),
    )


def _ensemble(path: Path, header: CombinedHeader) -> frozenset[str]:
    """Tell which backbones a run combined, from the logit files that it names as its inputs."""
    inputs = {name for key in header.keys.values() for name in key.inputs}
    places = [locate(Path("store") / name) for name in inputs]
    names = {p.backbone for p in places if p is not None and p.kind == "logits" and p.backbone}
    if not names:
        raise StoreError(
            f"{path} does not name the logits it was made from; expected them in the keys' inputs: "
            "delete it and run `clipnlc train-nlc` again"
        )
    return frozenset(names)


def _check_one_ensemble(ensembles: Sequence[tuple[str, Sequence[str]]]) -> None:
    (first, names), *others = ensembles
    for other, its in others:
        if list(its) != list(names):
            raise StoreError(
                f"{first} combines {','.join(names)}, and {other} {','.join(its)}; "
                "expected one ensemble: name its backbones with --backbones, "
                "or run `clipnlc train-nlc` again for both"
            )


def _refuse_stale(layout: Layout, runs: Mapping[Path, CombinedHeader], command: str) -> None:
    """Check that no input of any run, and no input of those inputs, has changed since."""
    digests: dict[str, str | None] = {}

    def changed(inputs: Mapping[str, str]) -> set[str]:
        for name in inputs.keys() - digests.keys():
            digests[name] = _present_digest(layout, name)
        # A deleted input leaves what was made from it as true as before.
        return {name for name, digest in inputs.items() if digests[name] not in (digest, None)}

    inputs = {path: [key.inputs for key in header.keys.values()] for path, header in runs.items()}
    for name in sorted({name for each in inputs.values() for one in each for name in one}):
        path = layout.root / name
        place = locate(path)
        if place is not None and place.kind == "logits" and path.exists():
            since = changed(read_logit_header(path).key.inputs)
            if since:
                raise StoreError(
                    f"{name} is stale: {min(since)} has changed since; run `{place.command}`, "
                    f"then `{command}`"
                )
    causes = {
        layout.relative(p): {n for one in each for n in changed(one)} for p, each in inputs.items()
    }
    stale = sorted(run for run, since in causes.items() if since)
    if stale:
        names = sorted({name for run in stale for name in causes[run]})
        which = (
            f"{stale[0]} is"
            if len(stale) == 1
            else f"{stale[0]} and {len(stale) - 1} more runs are"
        )
        more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
        raise StoreError(f"{which} stale: {names[0]}{more} has changed since; run `{command}`")


def _present_digest(layout: Layout, name: str) -> str | None:
    path = layout.root / name
    place = locate(path)
    if place is None or not path.exists():
        return None
    return (read_logit_header if place.kind == "logits" else read_feature_header)(path).digest


def _logit_source(layout: Layout, path: Path, split: str) -> Source:
    header = read_logit_header(path)
    return Source(layout.relative(path), header.digest, header.rows.get(split, 0))


# Measuring one data set ------------------------------------------------------------------------


def _measure(layout: Layout, found: Found, head: str, split: str) -> Measured:
    stores = {path: read_combined(path) for path in found.runs}
    names = next(iter(stores.values())).backbones
    paths = {name: layout.logits(found.dataset, head, name) for name in names}
    aligned = open_aligned_logits(paths, split)
    predictions = aligned.logits.argmax(axis=2)
    alone = {
        name: Outcome(sample_values(logits, aligned.labels))
        for name, logits in zip(names, aligned.logits, strict=True)
    }
    outcomes = references(alone, predictions, aligned.labels)
    command = _command(head, found.dataset)
    for path, store in stores.items():
        _check_aligned(path, store, aligned, found.backbones, command)
        order = [store.backbones.index(name) for name in names]
        for name, combination in store.combinations.items():
            setting, seed, labels = _facts(path, name, combination, command)
            scores = (
                weigh(aligned.logits, combination.weights[:, order])
                if combination.weights is not None
                else combination.given[1]
            )
            seeds = outcomes.setdefault(setting, {})
            if seed in seeds:
                raise StoreError(
                    f"{path} holds {name} with seed {seed} as another run does; expected one run "
                    "per seed: delete one of the two"
                )
            drawn = str(combination.facts.get("labelled_samples", ""))
            seeds[seed] = Outcome(sample_values(scores, aligned.labels), labels, drawn)
    # Others publish zero-shot heads on test images.
    published = (head, split) == PUBLISHED
    return Measured(
        dataset=found.dataset,
        sources=found.sources,
        backbones=names,
        classes=len(aligned.class_names),
        labels=aligned.labels,
        predictions=predictions,
        outcomes=outcomes,
        published=beside_published(found.dataset, alone, aligned.labels) if published else (),
    )


def _facts(
    path: Path, name: str, combination: Combination, command: str
) -> tuple[Setting, int, int]:
    """Read what a combiner was fitted on: its setting, its seed, and the number of labels."""
    facts = combination.facts
    try:
        protocol = facts["protocol"]
        shots, seed, labels = (int(facts[fact]) for fact in ("shots", "seed", "labels"))
        holdout = float(facts["holdout"])
    except (KeyError, ValueError) as error:
        raise StoreError(
            f"{path} does not say what {name} was fitted on (fact {error}); run `{command}` again"
        ) from error
    try:
        drawn = labels_of(protocol=str(protocol), shots=shots, holdout=holdout)
    except (ValueError, DataError) as error:
        raise StoreError(
            f"{path} holds {name} under another draw of labels ({error}); update clipnlc, or run "
            f"`{command}` again"
        ) from error
    kind: Kind = "control" if name in COMBINERS.groups["controls"] else "method"
    return Setting(name, kind, drawn), seed, labels


def _check_aligned(
    path: Path,
    store: CombinedStore,
    aligned: AlignedLogits,
    backbones: tuple[str, ...],
    command: str,
) -> None:
    for what, ours, theirs in (
        ("sample_id", store.sample_id, aligned.sample_id),
        ("class", store.class_names, aligned.class_names),
        ("backbone", tuple(sorted(store.backbones)), backbones),
    ):
        if ours != theirs:
            pairs = enumerate(zip_longest(ours, theirs))
            row, (one, two) = next((row, pair) for row, pair in pairs if pair[0] != pair[1])
            raise StoreError(
                f"{path} is not aligned with the logits: {what} {row} is {one!r} in it and "
                f"{two!r} in the logits; expected the same in the same order: run `{command}` again"
            )
