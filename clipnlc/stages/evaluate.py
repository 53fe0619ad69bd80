"""Measure what the combined runs of a store are worth. Nothing is fitted here."""

import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from clipnlc.combiners import COMBINERS, weigh
from clipnlc.datasets.published import SUSPICIOUS, published_accuracy, published_digest
from clipnlc.errors import MissingStageError, StoreError
from clipnlc.fitting import log_softmax
from clipnlc.metrics import METRICS
from clipnlc.metrics.accuracy import backbone_accuracies, share_of_gap_closed
from clipnlc.metrics.calibration import binned_calibration_error
from clipnlc.metrics.intervals import accuracy_interval, seed_interval
from clipnlc.reports.record import (
    BEST_SINGLE,
    ORACLE,
    DatasetEvaluation,
    Evaluation,
    Kind,
    Protocol,
    Published,
    Row,
    Source,
    defined,
    evaluation_from_json,
    save,
    versions,
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

KINDS: tuple[Kind, ...] = ("backbone", "reference", "method", "control")
PROTOCOLS: tuple[Protocol, ...] = ("no-labels", "shots", "holdout")
PUBLISHED = ("zero-shot", "test")
"""The head and the split of the published numbers."""


class Setting(NamedTuple):
    """What a row of the table is about."""

    method: str
    kind: Kind
    protocol: Protocol
    shots: int
    holdout: float


class Outcome(NamedTuple):
    """What one run of one method gave on one data set.

    Attributes:
        right: whether the predicted class is the label.
        confidence: probability of the predicted class, in [0, 1]; None for the oracle.
        nll: mean negative log likelihood in nats; None for the oracle.
        labels: labelled samples it was fitted on.
        drawn: names which samples those were; empty where the run does not say.
    """

    right: Bool[np.ndarray, " samples"]
    confidence: Float[np.ndarray, " samples"] | None
    nll: float | None
    labels: int
    drawn: str = ""


@dataclass(frozen=True)
class Found:
    """One data set's fresh runs of one ensemble, before any array is read."""

    dataset: str
    backbones: tuple[str, ...]  # sorted
    runs: tuple[Path, ...]
    sources: tuple[Source, ...]


@dataclass(frozen=True)
class Measured:
    """One data set's outcomes by setting and seed, and what they are compared with."""

    found: Found
    backbones: tuple[str, ...]
    classes: int
    labels: Int[np.ndarray, " samples"]
    predictions: Int[np.ndarray, "backbones samples"]
    outcomes: Mapping[Setting, Mapping[int, Outcome]]
    published: tuple[Published, ...]

    @property
    def best_single(self) -> str:
        """The backbone with the highest accuracy on these very labels; the first of equals."""
        return self.backbones[int(backbone_accuracies(self.predictions, self.labels).argmax())]

    def accuracy(self, method: str) -> float:
        """Return the accuracy of a reference."""
        (outcome,) = self.outcomes[_unfitted(method, "reference")].values()
        return float(outcome.right.mean())


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
    rows = [_dataset(one) for one in measured]
    for single, its in zip(measured, rows, strict=True):
        # The summary over one data set is its own rows.
        evaluation = _evaluation(single, [its], its.rows, (), head=head, split=split)
        _save(record_path(store, head, dataset=its.dataset), evaluation)
    if len(measured) > 1:
        evaluation = _evaluation(measured[0], rows, *_summary(measured), head=head, split=split)
        _save(path, evaluation)
    return evaluation


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
    made_with = (kept.split, kept.versions, kept.published_digest)
    same = sources == wanted and made_with == (split, versions(), published_digest())
    return kept if same else None


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
    outcomes = _references(names, predictions, aligned)
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
            outcome = _outcome(scores, aligned.labels, fitted_on=labels)
            drawn = str(combination.facts.get("labelled_samples", ""))
            seeds[seed] = outcome._replace(drawn=drawn)
    return Measured(
        found,
        names,
        len(aligned.class_names),
        aligned.labels,
        predictions,
        outcomes,
        # Others publish zero-shot heads on test images.
        _published(found.dataset, names, aligned) if (head, split) == PUBLISHED else (),
    )


def _published(dataset: str, names: Sequence[str], aligned: AlignedLogits) -> tuple[Published, ...]:
    """Set each backbone beside what is published of it, by the metric that was published."""
    beside = []
    for name, logits in zip(names, aligned.logits, strict=True):
        known = published_accuracy(dataset, name)
        if known is None:
            continue
        ours = METRICS.get(known.metric)(logits, aligned.labels)
        difference = ours - known.accuracy
        beside.append(
            Published(
                backbone=name,
                metric=known.metric,
                ours=ours,
                published=known.accuracy,
                difference=difference,
                published_samples=known.samples,
                suspicious=abs(difference) > SUSPICIOUS,
            )
        )
    return tuple(beside)


def _unfitted(method: str, kind: Kind) -> Setting:
    return Setting(method, kind, "no-labels", 0, 0.0)


def _references(
    names: Sequence[str],
    predictions: Int[np.ndarray, "backbones samples"],
    aligned: AlignedLogits,
) -> dict[Setting, dict[int, Outcome]]:
    """Measure every backbone alone, the best of them on these very labels, and the oracle."""
    alone = [_outcome(one, aligned.labels, fitted_on=0) for one in aligned.logits]
    best = alone[int(backbone_accuracies(predictions, aligned.labels).argmax())]
    oracle = Outcome((predictions == aligned.labels).any(axis=0), None, None, 0)
    return {
        **{_unfitted(n, "backbone"): {0: one} for n, one in zip(names, alone, strict=True)},
        _unfitted(BEST_SINGLE, "reference"): {0: best},
        _unfitted(ORACLE, "reference"): {0: oracle},
    }


def _outcome(
    scores: Float[np.ndarray, "samples classes"],
    labels: Int[np.ndarray, " samples"],
    *,
    fitted_on: int,
) -> Outcome:
    log_probs = log_softmax(scores.astype(np.float64))
    rows = np.arange(len(labels))
    predicted = scores.argmax(axis=1)
    return Outcome(
        right=predicted == labels,
        confidence=np.exp(log_probs[rows, predicted]),
        nll=float(-log_probs[rows, labels].mean()),
        labels=fitted_on,
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
    if protocol not in PROTOCOLS:
        raise StoreError(
            f"{path} holds {name} under the protocol {protocol!r}, expected one of "
            f"{', '.join(PROTOCOLS)}; update clipnlc, or run `{command}` again"
        )
    kind: Kind = "control" if name in COMBINERS.groups["controls"] else "method"
    known = next(p for p in PROTOCOLS if p == protocol)
    return Setting(name, kind, known, shots, holdout), seed, labels


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


# Rows ------------------------------------------------------------------------------------------


def _evaluation(
    first: Measured,
    datasets: Sequence[DatasetEvaluation],
    summary: Sequence[Row],
    notes: Sequence[str],
    *,
    head: str,
    split: str,
) -> Evaluation:
    return Evaluation(
        head=head,
        split=split,
        backbones=first.backbones,
        datasets=tuple(datasets),
        summary=tuple(summary),
        notes=tuple(notes),
        versions=versions(),
        published_digest=published_digest(),
    )


def _summary(measured: Sequence[Measured]) -> tuple[list[Row], list[str]]:
    """Average what every data set has with a common seed, and say what is left out."""
    settings = sorted({s for one in measured for s in one.outcomes}, key=_place(measured[0]))
    rows, notes = [], []
    for setting in settings:
        lacking = [one.found.dataset for one in measured if setting not in one.outcomes]
        if lacking:
            why = f"{', '.join(lacking)} lacks it"
            notes.append(f"{_spelled(setting)} is left out of the summary: {why}.")
        elif not _common_seeds(setting, measured):
            notes.append(f"{_spelled(setting)} is left out of the summary: no seed is common.")
        else:
            rows.append(_row(setting, measured))
    drained = Counter(drawn for one in measured for drawn in _exhausted(one))
    notes += [
        f"{drawn.capitalize()} every seed drew the same labels in {count} of {len(measured)} data "
        "sets, so ± is too small there."
        for drawn, count in sorted(drained.items())
    ]
    return rows, notes


def _dataset(one: Measured) -> DatasetEvaluation:
    settings = sorted(one.outcomes, key=_place(one))
    return DatasetEvaluation(
        dataset=one.found.dataset,
        samples=len(one.labels),
        classes=one.classes,
        best_single=one.best_single,
        rows=tuple(_row(setting, [one]) for setting in settings),
        sources=one.found.sources,
        notes=tuple(_doubts(one)),
        published=one.published,
    )


def _place(one: Measured) -> Callable[[Setting], tuple[int, int, int, int, float]]:
    """Order rows by kind, by the tables of backbones and combiners, and by labels."""
    methods = [*one.backbones, BEST_SINGLE, ORACLE, *COMBINERS]

    def key(setting: Setting) -> tuple[int, int, int, int, float]:
        method = methods.index(setting.method) if setting.method in methods else len(methods)
        protocol = PROTOCOLS.index(setting.protocol)
        return KINDS.index(setting.kind), method, protocol, setting.shots, setting.holdout

    return key


def _common_seeds(setting: Setting, over: Sequence[Measured]) -> list[int]:
    return sorted(set.intersection(*(set(one.outcomes[setting]) for one in over)))


def _row(setting: Setting, over: Sequence[Measured]) -> Row:
    """Summarise a setting over data sets; the row of one data set is the summary over it alone."""
    seeds = _common_seeds(setting, over)
    draws = [[one.outcomes[setting][seed] for one in over] for seed in seeds]
    accuracies = [_mean(float(outcome.right.mean()) for outcome in draw) for draw in draws]
    accuracy = _mean(accuracies)
    low, high, interval = _interval(setting, accuracies, over)
    best = _mean(one.accuracy(BEST_SINGLE) for one in over)
    closed = share_of_gap_closed(
        accuracy=accuracy,
        best_single=best,
        oracle=_mean(one.accuracy(ORACLE) for one in over),
    )
    return Row(
        **setting._asdict(),
        labels=max(sum(outcome.labels for outcome in draw) for draw in draws),
        seeds=tuple(seeds),
        accuracies=tuple(accuracies),
        accuracy=accuracy,
        low=low,
        high=high,
        interval=interval,
        gain=accuracy - best,
        gap_closed=defined(closed),
        calibration_error=_mean_or_none(_pooled_calibration_error(draw) for draw in draws),
        nll=_mean_or_none(_mean_or_none(outcome.nll for outcome in draw) for draw in draws),
    )


def _interval(
    setting: Setting, accuracies: Sequence[float], over: Sequence[Measured]
) -> tuple[float | None, float | None, Literal["seeds", "samples"] | None]:
    """Return the bounds and their kind; a mean over data sets without draws has none."""
    if len(accuracies) > 1:
        return *seed_interval(accuracies)[1:], "seeds"
    if setting.protocol == "no-labels" and len(over) == 1:
        return *accuracy_interval(accuracies[0], len(over[0].labels))[1:], "samples"
    return None, None, None


def _pooled_calibration_error(draw: Sequence[Outcome]) -> float | None:
    """Put the samples of all data sets into the same bins; None for the oracle."""
    confidence = [outcome.confidence for outcome in draw if outcome.confidence is not None]
    if not confidence:
        return None
    right = np.concatenate([outcome.right for outcome in draw])
    return binned_calibration_error(np.concatenate(confidence), right)


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def _mean_or_none(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return _mean(known) if known else None


def _doubts(one: Measured) -> list[str]:
    """Say what a reader should know before trusting the rows of this data set."""
    doubts = [
        f"{name} predicts one class for every sample; look at its weights and its features."
        for name, predicted in zip(one.backbones, one.predictions, strict=True)
        if len(np.unique(predicted)) == 1 and len(np.unique(one.labels)) > 1
    ]
    if one.accuracy(ORACLE) == one.accuracy(BEST_SINGLE):
        doubts.append("The oracle gains nothing, so the share of its gap is undefined.")
    few = {
        setting.shots: labels
        for setting, seeds in one.outcomes.items()
        for labels in [max(outcome.labels for outcome in seeds.values())]
        if 0 < labels < setting.shots * one.classes
    }
    doubts += [
        f"{shots} per class of {one.classes} classes gave {labels} labels: some classes have fewer."
        for shots, labels in sorted(few.items())
    ]
    doubts += [
        f"{drawn.capitalize()} every seed drew the same labels, for the pool holds no others: ± is "
        "then the spread of the training alone."
        for drawn in _exhausted(one)
    ]
    lonely = [
        setting
        for setting, seeds in one.outcomes.items()
        if setting.protocol != "no-labels" and len(seeds) == 1
    ]
    if lonely:
        doubts.append(f"{len(lonely)} rows have a single seed, and so no interval.")
    return doubts


def _exhausted(one: Measured) -> list[str]:
    """Name the draws that used the whole pool, so that every seed has the same labels."""
    return sorted(
        {
            _drawn_on(setting)
            for setting, seeds in one.outcomes.items()
            if setting.protocol != "no-labels" and len(seeds) > 1
            if len(drawn := {outcome.drawn for outcome in seeds.values()}) == 1 and drawn != {""}
        }
    )


def _spelled(setting: Setting) -> str:
    return f"{setting.method} {_drawn_on(setting)}"


def _drawn_on(setting: Setting) -> str:
    where = {
        "no-labels": "without labels",
        "shots": f"at {setting.shots} per class",
        "holdout": f"on a hold-out of {100 * setting.holdout:.0f} %",
    }
    return where[setting.protocol]
