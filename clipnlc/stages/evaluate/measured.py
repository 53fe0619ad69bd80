"""What was measured of one data set: the outcomes of every method, seed by seed."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from clipnlc.labels import Labels
from clipnlc.measures import Values
from clipnlc.metrics import ACCURACY
from clipnlc.metrics.accuracy import backbone_accuracies
from clipnlc.metrics.intervals import resampled_means
from clipnlc.reports.record import Kind, Published, Source

KINDS: tuple[Kind, ...] = ("backbone", "reference", "method", "control", "transductive")


class Setting(NamedTuple):
    """What a row of the table is about; `drawn` has no seed (`Labels.setting`)."""

    method: str
    kind: Kind
    drawn: Labels

    @classmethod
    def unfitted(cls, method: str, kind: Kind) -> "Setting":
        """Return the setting of what has no labels."""
        return cls(method, kind, Labels.none())


class Outcome(NamedTuple):
    """What one run of one method gave on one data set.

    Attributes:
        values: by measure, the values of each sample; without the measures that the method has no
            probabilities for. Never without the accuracy.
        labels: how many labelled samples it was fitted on.
        unlabelled: how many samples it learnt from whose labels it did not read.
        spent: billions of operations of the image towers that a sample took in the mean, and what
            all of them take; None of what always takes them all.
    """

    values: Mapping[str, Values]
    labels: int = 0
    unlabelled: int = 0
    spent: tuple[float, float] | None = None

    @property
    def right(self) -> Bool[np.ndarray, " samples"]:
        """Whether the predicted class is the label."""
        found: np.ndarray = self.values[ACCURACY][:, 0] > 0
        return found


@dataclass(frozen=True)
class Measured:
    """One data set's outcomes by setting and seed, and what they are compared with.

    Attributes:
        dataset: name in the store.
        sources: the files behind the outcomes.
        backbones: of the ensemble, in the order of `predictions`.
        classes: number of classes.
        sample_id: of the samples.
        labels: likewise.
        predictions: of each backbone alone.
        outcomes: of backbones, references and combiners.
        published: beside the backbones' own.
        cluster: of the data sets that share images with this one.
        pool: labels of the samples that the fits' labels were drawn from; None where they are gone.
        notes: what a reader should know beforehand, one sentence each.
    """

    dataset: str
    sources: tuple[Source, ...]
    backbones: tuple[str, ...]
    classes: int
    sample_id: tuple[str, ...]
    labels: Int[np.ndarray, " samples"]
    predictions: Int[np.ndarray, "backbones samples"]
    outcomes: Mapping[Setting, Mapping[int, Outcome]]
    published: tuple[Published, ...]
    cluster: str
    pool: Int[np.ndarray, " pool"] | None
    notes: tuple[str, ...] = ()
    _resampled: dict[str, dict[Setting, Float[np.ndarray, " resamples"]]] = field(
        default_factory=dict, repr=False, compare=False
    )

    @property
    def best_single(self) -> str:
        """The backbone with the highest accuracy on these very labels; the first of equals."""
        return self.backbones[int(backbone_accuracies(self.predictions, self.labels).argmax())]

    def accuracy(self, method: str) -> float:
        """Return the accuracy of a reference."""
        (outcome,) = self.outcomes[Setting.unfitted(method, "reference")].values()
        return float(outcome.right.mean())

    def shared(self, drawn: Labels) -> float | None:
        """Return the share of its labels that two draws are expected to have in common.

        None without labels, or where the samples that they were drawn from are gone.
        """
        if drawn.kind == "none" or self.pool is None:
            return None
        return drawn.shared(self.pool)

    def each_seed(
        self, setting: Setting, seeds: Sequence[int], measure: str
    ) -> Float[np.ndarray, "seeds samples"]:
        """Return the first value that a measure has of every sample; without labels seeds agree."""
        outcomes = self.outcomes[setting]
        free = setting.drawn.kind == "none"
        return np.stack([outcomes[0 if free else s].values[measure][:, 0] for s in seeds])

    @cached_property
    def seed(self) -> int:
        """Seed of the resamples of its images: by their names and labels, nothing measured."""
        return zlib.crc32("\n".join(self.sample_id).encode(), zlib.crc32(self.labels.tobytes()))

    def resampled(
        self, setting: Setting, seeds: Sequence[int], measure: str
    ) -> Float[np.ndarray, " resamples"]:
        """Return the mean of a measure over resampled images and these seeds.

        The images are the same for every setting and measure.
        """
        # Sums of hits are whole: the same to the last bit, in whatever order they are added.
        if setting.drawn.kind != "none" and set(seeds) != set(self.outcomes[setting]):
            sums = self.each_seed(setting, seeds, measure).sum(0)[:, None]
            found: np.ndarray = resampled_means(sums, seed=self.seed)[:, 0] / len(seeds)
            return found
        if measure not in self._resampled:
            known = [s for s, each in self.outcomes.items() if _knows(measure, each)]
            columns = [self.each_seed(s, tuple(self.outcomes[s]), measure).sum(0) for s in known]
            means = resampled_means(np.stack(columns, axis=1), seed=self.seed)
            means /= [len(self.outcomes[s]) for s in known]
            self._resampled[measure] = dict(zip(known, means.T, strict=True))
        return self._resampled[measure][setting]


def _knows(measure: str, seeds: Mapping[int, Outcome]) -> bool:
    return all(measure in outcome.values for outcome in seeds.values())
