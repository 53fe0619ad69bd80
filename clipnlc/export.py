"""A fitted ensemble that has left its store, as a value (`docs/formats/ensemble.md`).

`stores.export` writes and reads it, `reports.card` describes it, `runs.exported` makes it of a
predictor, and a predictor of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from clipnlc.labels import Labels

Estimate = Literal["held-out", "cross-fitted", "cross-fitted-chosen"]
"""How an accuracy was obtained; see `Measurement`."""


@dataclass(frozen=True)
class TaughtBy:
    """The fit that a head learnt the answers of, instead of labels.

    Attributes:
        combiner: its name.
        backbones: the ensemble, sorted.
    """

    combiner: str
    backbones: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class ExportedHead:
    """One backbone and what its head learnt.

    Attributes:
        backbone: its name.
        identity: what shaped its features: architecture, digest of the weights, preprocessing,
            precision, open_clip's version.
        settings: of the head, every one, defaults included.
        learnt: arrays by name.
        teacher: whose answers it learnt; None for a head that has no teacher.
    """

    backbone: str
    identity: Mapping[str, Any]
    settings: Mapping[str, Any]
    learnt: Mapping[str, np.ndarray]
    teacher: TaughtBy | None = None


@dataclass(frozen=True, eq=False)
class ExportedFit:
    """What a combiner learnt.

    Attributes:
        combiner: its name.
        settings: every one, defaults included.
        learnt: arrays by name; empty for a combiner that learns nothing.
        backbones, class_names: in the order that the learnt arrays follow.
        labels: which labels it was fitted on.
        facts: numbers and words about the fit: how many labels were used, a digest of their ids.
        package: whose the combiner is, `name` and `version`; None for clipnlc's own.
    """

    combiner: str
    settings: Mapping[str, Any]
    learnt: Mapping[str, np.ndarray]
    backbones: tuple[str, ...]
    class_names: tuple[str, ...]
    labels: Labels
    facts: Mapping[str, float | str | int]
    package: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Measurement:
    """The accuracy of this very fit on some images.

    Attributes:
        dataset: whose images.
        split: which of them.
        images: how many.
        accuracy: in [0, 1].
        low, high: 95 % interval of the accuracy, in [0, 1]: over the images (Wilson), or of all other
            images (`metrics.intervals.others_interval`) where it is cross-fitted.
        estimate: `held-out`: on images that nothing was learnt from; `cross-fitted`: on the very
            images that it was fitted on, a random draw, each by a fit without its label;
            `cross-fitted-chosen`: likewise, where the images were chosen and not drawn.
    """

    dataset: str
    split: str
    images: int
    accuracy: float
    low: float
    high: float
    estimate: Estimate = "held-out"


@dataclass(frozen=True, eq=False)
class Export:
    """A fitted ensemble, with everything that is needed to use it but the backbones' weights.

    Attributes:
        dataset: what it was fitted on.
        class_names: in the order of the heads' logits; names may repeat.
        templates: of the prompts that the class texts were made with, of all backbones.
        head: name of the heads' family.
        heads: one per backbone, sorted by backbone.
        fit: the combiner.
        measured: what was measured of this very fit; empty where it was not measured.
        keeps_features: whether learnt arrays contain features of training images.
        probabilistic: whether `softmax` of the scores is a probability.
        clipnlc: the version that made it.
        head_package: whose the heads are, `name` and `version`; None for clipnlc's own.
    """

    dataset: str
    class_names: tuple[str, ...]
    templates: tuple[str, ...]
    head: str
    heads: tuple[ExportedHead, ...]
    fit: ExportedFit
    measured: tuple[Measurement, ...]
    keeps_features: bool
    probabilistic: bool
    clipnlc: str
    head_package: Mapping[str, str] | None = None

    @property
    def requires(self) -> tuple[str, ...]:
        """What `pip install` needs besides clipnlc: `name==version` of each package, sorted."""
        packages = [one for one in (self.head_package, self.fit.package) if one is not None]
        return tuple(sorted({f"{one['name']}=={one['version']}" for one in packages}))
