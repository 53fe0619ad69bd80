"""A synthetic family of ensembles, in which it is known where each backbone is competent.

Every backbone sees an image of some class in some region (what a domain or a style is to CLIP). Its
feature is the class's text direction times the backbone's skill, a direction of the region, what
the image resembles other classes by, which is alike for every backbone, and noise of its own.
Logits are what CLIP's are: a scale times the cosine of feature and text. What differs between the
three members of the family is only what the skill depends on:

- `region`: on the region. Half of the regions are a backbone's strong ones, which half differs from
  backbone to backbone. Who should be trusted can be read off the features, noisily.
- `constant`: on the backbone alone. One weight for each is all that there is to learn.
- `class`: on the class; as for regions. Who should be trusted depends on what is to be found out.

Everything is drawn from the seed: directions, strong regions or classes, images. The numbers were set
by looking at single backbones and at `log-avg`, `static` and `nlc` alone, so that accuracies are like
those of the nano sets (docs/nano.md).
"""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from jaxtyping import Float, Int

from clipnlc.ensemble import Ensemble

Competence = Literal["region", "constant", "class"]

COMPETENCES: Final[tuple[Competence, ...]] = ("region", "constant", "class")
CLASSES: Final = 10
REGIONS: Final = 4

_WIDTHS: Final = (32, 48, 64, 32, 48, 64)  # of the features, one per backbone
_SCALE: Final = 12.0  # of the logits
_NORM: Final = 10.0  # of a noiseless class direction: features come as the backbone gave them
_SKILLS: Final = (0.8, 1.1)  # of the weakest and the strongest backbone, mean over images
_SPREAD: Final = 0.3  # how far strong and weak regions, or classes, are from that mean
_PLACE: Final = 0.7  # length of a region's direction, against 1 of a class's
_RESEMBLANCE: Final = 0.45  # standard deviation of the length of each class's direction
_NOISE: Final = 0.4  # standard deviation of each coordinate's noise


@dataclass(frozen=True)
class Experts:
    """One member of the family: a pool to fit on and a test, with what is known of each image.

    Attributes:
        train: the pool, as many images of each class.
        train_labels: class numbers.
        train_regions: region numbers; no combiner sees them.
        test: images of the same distribution.
        test_labels: likewise.
        test_regions: likewise.
        skill: length of the class direction in a feature, by backbone, region and class.
    """

    train: Ensemble
    train_labels: Int[np.ndarray, " pool"]
    train_regions: Int[np.ndarray, " pool"]
    test: Ensemble
    test_labels: Int[np.ndarray, " tested"]
    test_regions: Int[np.ndarray, " tested"]
    skill: Float[np.ndarray, "backbones regions classes"]


def experts(competence: Competence, *, seed: int, pool: int = 64, tested: int = 200) -> Experts:
    """Draw a member of the family.

    Args:
        competence: what the backbones' skills depend on, one of `COMPETENCES`.
        seed: of everything; the three members of a seed differ in their skills alone.
        pool: images of each class to draw labels from; the rest of them is unlabelled.
        tested: images of each class in the test.
    """
    random = np.random.default_rng([seed, 0])
    # Texts, then regions: orthogonal, so that no class is nearer to a region or another class.
    directions = [np.linalg.qr(random.normal(size=(w, CLASSES + REGIONS)))[0].T for w in _WIDTHS]
    skill = _skill(competence, np.random.default_rng([seed, 1]))
    train, test = (
        _images(directions, skill, np.random.default_rng([seed, number]), name, size)
        for number, name, size in ((2, "train", pool), (3, "test", tested))
    )
    return Experts(*train, *test, skill)


def _skill(
    competence: Competence, random: np.random.Generator
) -> Float[np.ndarray, "backbones regions classes"]:
    """Return the skills; each backbone is strong in exactly half of the regions or classes."""
    skill = np.empty((len(_WIDTHS), REGIONS, CLASSES))
    for one, mean in zip(
        skill, random.permutation(np.linspace(*_SKILLS, len(_WIDTHS))), strict=True
    ):
        regions, classes = (random.permutation(n) < n // 2 for n in (REGIONS, CLASSES))
        strong = {"region": regions[:, None], "class": classes, "constant": None}[competence]
        one[:] = mean if strong is None else mean + np.where(strong, _SPREAD, -_SPREAD)
    return skill


def _images(
    directions: list[Float[np.ndarray, "directions _"]],
    skill: Float[np.ndarray, "backbones regions classes"],
    random: np.random.Generator,
    name: str,
    size: int,
) -> tuple[Ensemble, Int[np.ndarray, " samples"], Int[np.ndarray, " samples"]]:
    """Return `size` images of each class as the backbones see them, their classes and regions."""
    labels = np.repeat(np.arange(CLASSES), size)
    regions = random.integers(0, REGIONS, len(labels))
    resemblance = random.normal(0, _RESEMBLANCE, (len(labels), CLASSES))
    features, logits = [], []
    for own, strength in zip(directions, skill, strict=True):
        texts, places = own[:CLASSES], own[CLASSES:]
        feature = strength[regions, labels][:, None] * texts[labels]
        feature += _PLACE * places[regions] + resemblance @ texts
        feature += random.normal(0, _NOISE, feature.shape)
        unit = feature / np.linalg.norm(feature, axis=1, keepdims=True)
        features.append((_NORM * feature).astype(np.float32))
        logits.append((_SCALE * unit @ texts.T).astype(np.float32))
    ensemble = Ensemble(
        np.stack(logits),
        tuple(features),
        tuple(f"{name}/{i:05d}" for i in range(len(labels))),
        tuple(f"expert-{b + 1}" for b in range(len(directions))),
        tuple(f"class-{c}" for c in range(CLASSES)),
    )
    return ensemble, labels, regions
