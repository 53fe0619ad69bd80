"""What evaluate and diversity measured, as values (`docs/formats/record.md`).

Rates are shares in [0, 1], never per cent. None stands for what is undefined or was not measured.
A record holds no time and no path of a machine, so the same stores give the same bytes. It holds
the facts of its measures, so everything shown follows from it alone. `files` writes it as JSON.
"""

import importlib.metadata
import math
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from clipnlc.labels import Labels
from clipnlc.measures import Facts

Kind = Literal["backbone", "reference", "method", "control", "transductive"]
Learns = Literal["labels", "unlabelled", "test"]
IntervalKind = Literal["samples", "images", "images-and-draws", "seeds", "not-estimable"]
Matrix = tuple[tuple[float | None, ...], ...]

BEST_SINGLE = "best-single-test"
ORACLE = "oracle"
GFLOPS = "gflops"
"""The measure of what an image takes; only in records where a method takes less than all."""
RIVALS: tuple[Kind, ...] = ("method", "control")
"""Who can be the best of a column: whatever did not need the test labels to be chosen, nor all of
the test images to answer for one."""
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
    """One method fitted on one kind of labels, on one data set or averaged over several.

    Attributes:
        method: a backbone, a combiner, `best-single-test` or `oracle`.
        kind: `reference` rows are read off the very labels they are measured on; `control` rows
            are there to be compared with, not to be used; `transductive` rows read all the samples
            that they predict together, without labels, so they are comparable with no other row.
        drawn: which labels the combiner was fitted on, whatever the seed.
        labels: labelled samples it was fitted on (most over the seeds), summed over data sets.
        unlabelled: samples of train that it learnt from without their labels, likewise.
        shared: share of its labels that two draws are expected to have in common, mean over the
            data sets; None without labels, or where what they were drawn from is gone.
        seeds: of the draws of the labelled samples.
        accuracies: one per seed, in [0, 1]; each the mean over the data sets.
        accuracy: their mean.
        low, high: 95 % interval of `accuracy`; None if not estimable.
        interval: `samples`, Wilson's over the images; `images`, a bootstrap over them (of all labels
            there is one draw);
            `images-and-draws`, over the draws of labels too; `not-estimable`, no interval, for
            the draws are one or share too many labels; `seeds`, of older records, Student's t over
            the seeds.
        gain: accuracy minus that of the best single backbone, which is chosen on each data set's
            own test labels.
        gain_low, gain_high: 95 % interval of this paired difference: over images and draws on one
            data set, over the data sets on several; None if not estimable.
        gap_closed: gain over the oracle's gain; None where the oracle gains nothing. Above 1 where a
            method that reads features is right where no backbone is.
        level: the measures in which it is not separable from the best of its column.
        measures: mean over the seeds of every measure of the record, by name; None where the
            method has no probabilities.
    """

    method: str
    kind: Kind
    drawn: Labels
    labels: int
    unlabelled: int
    shared: float | None
    seeds: tuple[int, ...]
    accuracies: tuple[float, ...]
    accuracy: float
    low: float | None
    high: float | None
    interval: IntervalKind | None
    gain: float
    gain_low: float | None
    gain_high: float | None
    gap_closed: float | None
    level: tuple[str, ...]
    measures: Mapping[str, float | None]


@dataclass(frozen=True)
class Fewer:
    """The accuracy estimated of a fit on a part of the labels.

    Attributes:
        labels: how many; 0 is the label-free ensemble.
        accuracy: in [0, 1].
    """

    labels: int
    accuracy: float


@dataclass(frozen=True)
class CrossFit:
    """The accuracy of one fit, estimated on the labels that it was fitted on.

    Attributes:
        dataset, head, backbones, combiner: what was fitted.
        run: the name of its labels.
        fit: digest of the fit that it is of.
        count: labelled images.
        folds: fits that it is estimated with.
        others: images of the same source without a label.
        random: whether the labelled images are a random draw.
        accuracy: in [0, 1].
        low, high: 95 % interval of the accuracy on all other images.
        fewer: the same of fewer labels, ascending.
    """

    dataset: str
    head: str
    backbones: tuple[str, ...]
    combiner: str
    run: str
    fit: str
    count: int
    folds: int
    others: int
    random: bool
    accuracy: float
    low: float
    high: float
    fewer: tuple[Fewer, ...]


@dataclass(frozen=True)
class Method:
    """What a reader should know of a combiner, whatever it was fitted on.

    Attributes:
        meaning: one line.
        learns_from: labels, unlabelled images of train, both or neither; or the test images
            themselves, without their labels.
        selected_on: what its settings were chosen on.
        recommended: whether it is what we recommend.
    """

    meaning: str
    learns_from: tuple[Learns, ...]
    selected_on: str
    recommended: bool


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
        cluster: of the data sets that share images with this one; its own name where none does.
        samples, classes: size of the split.
        best_single: the backbone with the highest accuracy on this split's labels.
        rows: backbones, references, methods, controls.
        sources: every file that was read.
        notes: anything a reader should know before trusting the rows, one sentence each.
        published: one per backbone with a published number, in the order of the ensemble.
    """

    dataset: str
    cluster: str
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
        measures: the facts of every measure of the rows, in the order of the tables.
        methods: of every combiner in the rows, in the order of the tables.
        datasets: one per data set, by name.
        summary: the rows that every data set has, averaged over the data sets.
        notes: of the summary.
        versions: of the packages that measured.
        published_digest: names the table of published numbers; empty where none was looked at.
        fitted_on: the data set whose fits were measured; empty where each has its own.
    """

    head: str
    split: str
    backbones: tuple[str, ...]
    measures: Mapping[str, Facts]
    methods: Mapping[str, Method]
    datasets: tuple[DatasetEvaluation, ...]
    summary: tuple[Row, ...]
    notes: tuple[str, ...]
    versions: Mapping[str, str]
    published_digest: str = ""
    fitted_on: str = ""


@dataclass(frozen=True)
class Compared:
    """One method compared with another on the same images and labels.

    Attributes:
        method, kind, drawn: of its row.
        column: which labels the two are compared at; one of them may need none.
        seeds: of the draws that both have.
        difference: its accuracy minus the other's; the mean over the data sets.
        low, high: 95 % interval of `difference`; None if not estimable.
        interval: `images` or `images-and-draws`, on one data set; `data-sets`, Student's t over the
            clusters of data sets; `not-estimable`, as in a row.
        mcnemar: exact p-value for each seed, each of two single fits; empty over data sets.
        signed_rank: exact p-value of Wilcoxon's test over the clusters; None on one data set.
        holm: the same, adjusted for all that are compared at these labels.
    """

    method: str
    kind: Kind
    drawn: Labels
    column: Labels
    seeds: tuple[int, ...]
    difference: float
    low: float | None
    high: float | None
    interval: Literal["images", "images-and-draws", "data-sets", "not-estimable"] | None
    mcnemar: tuple[float, ...] = ()
    signed_rank: float | None = None
    holm: float | None = None


@dataclass(frozen=True)
class DatasetComparison:
    """What was compared on one data set.

    Attributes:
        dataset, cluster, samples, sources: as of an evaluation.
        rows: by columns of labels, then by method.
    """

    dataset: str
    cluster: str
    samples: int
    rows: tuple[Compared, ...]
    sources: tuple[Source, ...]


@dataclass(frozen=True)
class Comparison:
    """What `evaluate --against` compared.

    Attributes:
        head, split, backbones, versions, fitted_on: as of an evaluation.
        against: the method that all others are compared with.
        datasets: one per data set, by name.
        summary: over several data sets; empty for one.
        notes: what a reader should know, one sentence each.
    """

    head: str
    split: str
    backbones: tuple[str, ...]
    against: str
    datasets: tuple[DatasetComparison, ...]
    summary: tuple[Compared, ...]
    notes: tuple[str, ...]
    versions: Mapping[str, str]
    fitted_on: str = ""


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
        drawn: of the NLC row.
        rho: in [-1, 1]; None where one of the two is constant.
        p: two-sided, by Student's t; rough for so few data sets.
        datasets: how many were ranked.
    """

    measure: str
    drawn: Labels
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
        measures: the facts of every pairwise measure, in the order of the tables.
        datasets: one per data set, by name.
        mean: the mean over the data sets.
        correlations: with NLC's gain, where evaluate has left records of these very stores.
        versions: of the packages that measured.
    """

    head: str
    split: str
    backbones: tuple[str, ...]
    measures: Mapping[str, Facts]
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
