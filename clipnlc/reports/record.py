"""What evaluate and diversity measured, as values and as JSON text (`docs/formats/record.md`).

Rates are shares in [0, 1], never per cent. None stands for what is undefined or was not measured.
A record holds no time and no path of a machine, so the same stores give the same bytes. It carries a
digest of all it says: one that was altered is refused.
"""

import hashlib
import importlib.metadata
import json
import math
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from clipnlc.digests import matches_digest, read_exactly, with_digest
from clipnlc.errors import StoreError
from clipnlc.files import write_whole

EVALUATION_FORMAT = "clipnlc-evaluation"
DIVERSITY_FORMAT = "clipnlc-diversity"
VERSIONS = {EVALUATION_FORMAT: 3, DIVERSITY_FORMAT: 2}
DIGEST_SINCE = {EVALUATION_FORMAT: 3, DIVERSITY_FORMAT: 2}
"""The first versions whose records carry a digest."""

MAKERS = {EVALUATION_FORMAT: "evaluate", DIVERSITY_FORMAT: "diversity"}

T = TypeVar("T")

Kind = Literal["backbone", "reference", "method", "control"]
Protocol = Literal["no-labels", "shots", "holdout"]
Matrix = tuple[tuple[float | None, ...], ...]

BEST_SINGLE = "best-single-test"
ORACLE = "oracle"
PACKAGES = ("clipnlc", "h5py", "numpy", "scipy")


@dataclass(frozen=True)
class Source:
    """A file that was read.

    Attributes:
        path: below the store's root, with `/`.
        digest: names the content of the file.
        rows: samples read from it.
    """

    path: str
    digest: str
    rows: int


@dataclass(frozen=True)
class Row:
    """One method under one protocol, on one data set or averaged over several.

    Attributes:
        method: a backbone, a combiner, `best-single-test` or `oracle`.
        kind: `reference` rows are read off the very labels they are measured on; `control` rows
            are there to be compared with, not to be used.
        protocol: what the combiner was fitted on.
        shots: labelled samples per class; 0 unless the protocol is `shots`.
        holdout: share of the training split; 0 unless the protocol is `holdout`.
        labels: labelled samples it was fitted on (most over the seeds), summed over data sets.
        seeds: of the draws of the labelled samples.
        accuracies: one per seed, in [0, 1]; each the mean over the data sets.
        accuracy: their mean.
        low, high: 95 % interval of `accuracy`; None where there is none.
        interval: `seeds`, Student's t over the seeds; `samples`, Wilson's over the samples.
        gain: accuracy minus that of the best single backbone, which is chosen on each data set's
            own test labels.
        gap_closed: gain over the oracle's gain; None where the oracle gains nothing.
        calibration_error: 15 bins, all samples pooled, mean over the seeds, in [0, 1].
        nll: mean negative log likelihood in nats; mean over data sets and seeds.
    """

    method: str
    kind: Kind
    protocol: Protocol
    shots: int
    holdout: float
    labels: int
    seeds: tuple[int, ...]
    accuracies: tuple[float, ...]
    accuracy: float
    low: float | None
    high: float | None
    interval: Literal["seeds", "samples"] | None
    gain: float
    gap_closed: float | None
    calibration_error: float | None
    nll: float | None


@dataclass(frozen=True)
class Published:
    """What others have published of one backbone's zero-shot head, beside ours; in no average.

    Attributes:
        backbone: one of the ensemble.
        metric: the measure that was published, as `clipnlc.metrics.METRICS` calls it.
        ours: what we measured by that metric, in [0, 1].
        published: in [0, 1].
        difference: `ours` minus `published`.
        published_samples: test images behind the published number.
        suspicious: whether the difference is larger than two points.
    """

    backbone: str
    metric: Literal["accuracy", "class-mean-accuracy"]
    ours: float
    published: float
    difference: float
    published_samples: int
    suspicious: bool


@dataclass(frozen=True)
class DatasetEvaluation:
    """One data set's rows.

    Attributes:
        dataset: name in the store.
        samples, classes: size of the split.
        best_single: the backbone with the highest accuracy on this split's labels.
        rows: backbones, references, methods, controls.
        sources: every file that was read.
        notes: anything a reader should know before trusting the rows, one sentence each.
        published: one per backbone with a published number, in the order of the ensemble.
    """

    dataset: str
    samples: int
    classes: int
    best_single: str
    rows: tuple[Row, ...]
    sources: tuple[Source, ...]
    notes: tuple[str, ...]
    published: tuple[Published, ...] = ()


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` measured.

    Attributes:
        head: whose logits were combined.
        split: whose samples were predicted.
        backbones: of the ensemble.
        datasets: one per data set, by name.
        summary: the rows that every data set has, averaged over the data sets.
        notes: of the summary.
        versions: of the packages that measured.
        published_digest: names the table of published numbers; empty where none was looked at.
    """

    head: str
    split: str
    backbones: tuple[str, ...]
    datasets: tuple[DatasetEvaluation, ...]
    summary: tuple[Row, ...]
    notes: tuple[str, ...]
    versions: Mapping[str, str]
    published_digest: str = ""


@dataclass(frozen=True)
class Diversity:
    """How differently the backbones see one data set, or the mean over several.

    Attributes:
        dataset: name in the store; `mean` for the mean.
        samples: rows of the split, summed for the mean.
        accuracies: one per backbone.
        right_for_some: share of samples that some backbones, but not all, get right.
        oracle: share of samples that at least one backbone gets right.
        best_single: the highest accuracy of one backbone on these very labels; for the mean, the
            mean of each data set's own.
        matrices: by measure, backbones by backbones; None where undefined.
        pair_means: by measure, the mean over pairs of unlike backbones where defined.
        sources: every file that was read; none for the mean.
        notes: anything a reader should know, one sentence each.
    """

    dataset: str
    samples: int
    accuracies: tuple[float, ...]
    right_for_some: float
    oracle: float
    best_single: float
    matrices: Mapping[str, Matrix]
    pair_means: Mapping[str, float | None]
    sources: tuple[Source, ...]
    notes: tuple[str, ...]

    @property
    def oracle_gain(self) -> float:
        """The oracle's accuracy minus the best single backbone's."""
        return self.oracle - self.best_single


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation over data sets of a measure with NLC's gain.

    Attributes:
        measure: `oracle-gain` or `right-for-some`.
        protocol, shots, holdout: of the NLC row, as in `Row`.
        rho: in [-1, 1]; None where one of the two is constant.
        p: two-sided, by Student's t; rough for so few data sets.
        datasets: how many were ranked.
    """

    measure: str
    protocol: Protocol
    shots: int
    holdout: float
    rho: float | None
    p: float | None
    datasets: int


@dataclass(frozen=True)
class DiversityReport:
    """What `diversity` measured.

    Attributes:
        head: whose logits were compared.
        split: whose samples were predicted.
        backbones: in the order of the matrices.
        datasets: one per data set, by name.
        mean: the mean over the data sets.
        correlations: with NLC's gain, where evaluate has left records of these very stores.
        versions: of the packages that measured.
    """

    head: str
    split: str
    backbones: tuple[str, ...]
    datasets: tuple[Diversity, ...]
    mean: Diversity
    correlations: tuple[Correlation, ...]
    versions: Mapping[str, str]


def defined(value: float) -> float | None:
    """Return `value`, or None where it is nan.

    >>> defined(0.5), defined(math.nan)
    (0.5, None)
    """
    return None if math.isnan(value) else value


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages a record depends on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:  # run from a checkout
            found[package] = "not installed"
    return found


def to_json(record: Evaluation | DiversityReport) -> str:
    """Write a record as the one JSON text it has.

    Raises:
        ValueError: a number is NaN or infinite.
    """
    name = EVALUATION_FORMAT if isinstance(record, Evaluation) else DIVERSITY_FORMAT
    tree = with_digest({"format": name, "format-version": VERSIONS[name], **asdict(record)})
    return json.dumps(tree, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def evaluation_from_json(text: str | bytes, *, where: str) -> Evaluation:
    """Read back what `to_json` wrote of an evaluation; `where` names the text in errors.

    Raises:
        StoreError: the text is no evaluation record, an altered one, or one of a newer clipnlc.
    """
    return _read(text, EVALUATION_FORMAT, _evaluation, where)


def diversity_from_json(text: str | bytes, *, where: str) -> DiversityReport:
    """Read back what `to_json` wrote of a diversity report; `where` names the text in errors.

    Raises:
        StoreError: the text is no diversity record, an altered one, or one of a newer clipnlc.
    """
    return _read(text, DIVERSITY_FORMAT, _diversity_report, where)


def _read(text: str | bytes, name: str, build: Callable[[dict[str, Any]], T], where: str) -> T:
    again = f"delete it and run `clipnlc {MAKERS[name]}` again"
    newest = VERSIONS[name]
    try:
        tree = json.loads(text)
        found, version = tree["format"], tree["format-version"]
        if found == name and version > newest:
            raise StoreError(
                f"{where} has format-version {version}, this clipnlc reads up to {newest}: "
                "update clipnlc"
            )
        if found != name or version < 1:
            raise StoreError(
                f"{where} has format {found!r} version {version!r}, expected "
                f"{name!r} version 1 to {newest}; {again}"
            )
        if ("digest" in tree or version >= DIGEST_SINCE[name]) and not _is_unaltered(text):
            raise StoreError(f"{where} was altered: it does not match its digest; {again}")
        envelope = ("format", "format-version", "digest")
        return build({n: value for n, value in tree.items() if n not in envelope})
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        kind = name.removeprefix("clipnlc-")
        raise StoreError(f"{where} is no {kind} record ({error}); {again}") from error


def _is_unaltered(text: str | bytes) -> bool:
    """Tell whether a record says, digit by digit, what its digest was made of."""
    try:
        return matches_digest(read_exactly(text))
    except ValueError:
        return False


def save(path: Path, record: Evaluation | DiversityReport) -> None:
    """Write a record to `path`; another one that is there is kept beside it.

    The older record moves to `<stem>.<8 digits of its digest>.json`. A file with the same bytes is
    left alone.

    Raises:
        OSError: the disk refuses.
    """
    data = to_json(record).encode()
    if path.exists():
        old = path.read_bytes()
        if old == data:
            return
        # A copy first: on a full disk the old record is still under its own name.
        write_whole(path.with_name(f"{path.stem}.{kept_digest(old)}.json"), old)
    write_whole(path, data)


def kept_digest(data: bytes) -> str:
    """Return the 8 hexadecimal digits in the name under which `save` keeps an older record."""
    return hashlib.blake2b(data, digest_size=4).hexdigest()


def _evaluation(tree: dict[str, Any]) -> Evaluation:
    return Evaluation(
        **{
            **tree,
            "backbones": tuple(tree["backbones"]),
            "datasets": tuple(_dataset(one) for one in tree["datasets"]),
            "summary": _rows(tree["summary"]),
            "notes": tuple(tree["notes"]),
        }
    )


def _dataset(tree: dict[str, Any]) -> DatasetEvaluation:
    return DatasetEvaluation(
        **{
            **tree,
            "rows": _rows(tree["rows"]),
            "sources": tuple(Source(**one) for one in tree["sources"]),
            "notes": tuple(tree["notes"]),
            # Version 1 had no published numbers.
            "published": tuple(Published(**one) for one in tree.get("published", ())),
        }
    )


def _rows(trees: Sequence[dict[str, Any]]) -> tuple[Row, ...]:
    return tuple(
        Row(**{**one, "seeds": tuple(one["seeds"]), "accuracies": tuple(one["accuracies"])})
        for one in trees
    )


def _diversity_report(tree: dict[str, Any]) -> DiversityReport:
    return DiversityReport(
        **{
            **tree,
            "backbones": tuple(tree["backbones"]),
            "datasets": tuple(_diversity(one) for one in tree["datasets"]),
            "mean": _diversity(tree["mean"]),
            "correlations": tuple(Correlation(**one) for one in tree["correlations"]),
        }
    )


def _diversity(tree: dict[str, Any]) -> Diversity:
    matrices = {
        measure: tuple(tuple(row) for row in matrix) for measure, matrix in tree["matrices"].items()
    }
    return Diversity(
        **{
            **tree,
            "accuracies": tuple(tree["accuracies"]),
            "matrices": matrices,
            "sources": tuple(Source(**one) for one in tree["sources"]),
            "notes": tuple(tree["notes"]),
        }
    )
