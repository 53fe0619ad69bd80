"""Name the class of each photo with a fitted ensemble, or with none but class names; no store."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from jaxtyping import Bool, Float64, Int64

from clipnlc.backbones import Backbone
from clipnlc.combiners import COMBINERS
from clipnlc.combiners.cascade import Cascade
from clipnlc.commands import command
from clipnlc.datasets.images import MAX_PIXELS
from clipnlc.ensemble import Ensemble, by_name
from clipnlc.errors import DataError
from clipnlc.extraction.embedding import TO_COME, InTurn
from clipnlc.extraction.models import Models
from clipnlc.extraction.photos import Encoded, Photos, stream_photos, usable
from clipnlc.extraction.texts import embed_classes, templates_for
from clipnlc.fitting import softmax
from clipnlc.heads import HEADS
from clipnlc.labels import Labels
from clipnlc.runs.fitted import Fitted, Given, apply, cascade_order, waits
from clipnlc.runs.heads import Heads
from clipnlc.runs.predictor import Predictor
from clipnlc.stages.predict.balance import balanced, fill, spool
from clipnlc.stages.predict.members import check_identities, ordered_backbones

if TYPE_CHECKING:
    from clipnlc.heads import Head

DEFAULT_BACKBONES: Final = "small"
"""The backbones for class names alone."""


@dataclass(frozen=True)
class Opinion:
    """What one backbone of an ensemble says of a photo.

    Attributes:
        backbone: its name.
        answer: the class that it would name alone; None where a cascade did not ask it.
        weight: the factor of its logits; None where the combiner does not weigh.
    """

    backbone: str
    answer: str | None
    weight: float | None


@dataclass(frozen=True)
class Prediction:
    """The class of one photo.

    Attributes:
        file: the photo.
        answer: the name of the class.
        probability: of the answer, in [0, 1]; None if the combiner gives no probabilities.
        runner_up: the class with the next highest score; None where there is one class.
        runner_up_probability: likewise.
        opinions: one per backbone, where they were asked for.
        gflops: billions of operations of the image towers that were computed for the photo; None
            for what computes every backbone for every photo.
    """

    file: Path
    answer: str
    probability: float | None
    runner_up: str | None
    runner_up_probability: float | None
    opinions: tuple[Opinion, ...] = ()
    gflops: float | None = None


@dataclass(frozen=True)
class Predicted:
    """A block of consecutive photos.

    Attributes:
        predictions: in the order of the files.
        unreadable: files without a prediction, each with the reason.
    """

    predictions: tuple[Prediction, ...]
    unreadable: tuple[tuple[Path, str], ...]

    def __len__(self) -> int:
        """Return the number of files."""
        return len(self.predictions) + len(self.unreadable)


def predict(
    predictor: Predictor,
    files: Iterable[Path | Encoded],
    *,
    backbones: Sequence[Backbone],
    models: Models,
    memory: Path | None = None,
    batch_size: int | None = None,
    decoders: int | None = None,
    max_pixels: int = MAX_PIXELS,
    explain: bool = False,
    balance: bool = False,
    on_loaded: Callable[[int], None] = lambda _backbones: None,
    on_spooled: Callable[[int], None] = lambda _photos: None,
) -> Generator[Predicted, None, None]:
    """Yield the classes of photos, block by block; memory does not grow with their number.

    Pixels and features are made by the extraction's own code, and the fit is applied as `evaluate`
    does, so the answers are the same wherever the two highest scores differ by more than rounding.
    Everything is checked before the first photo is opened. Of a cascade, only the backbones that a
    photo needs are computed.

    Args:
        predictor: the fitted ensemble.
        files: the photos, on disk or in memory, taken as they are needed.
        backbones: where the predictor's backbones are; see `find_backbones`.
        models: where they are loaded; see `models_for`.
        memory: a JSON file of identities of weights that were found before; only read.
        batch_size: photos of one forward and of one block; by default as in `extract`.
        decoders: threads that decode and resize; by default as in `extract`.
        max_pixels: a larger photo is not decoded.
        explain: say what each backbone says.
        balance: forget the fit, and learn offsets of the classes and weights of the backbones from
            the photos themselves, which are all embedded first; see `predict.balance`.
        on_loaded: called with the number of backbones loaded so far.
        on_spooled: called with the number of photos embedded so far, where they are all first.

    Raises:
        DataError: the combiner is not row-wise; too few photos to balance.
        BackboneError: weights are missing, or are not those that the fit was made with.
        StoreError: the fit is damaged, or is of other backbones or classes than the heads.
    """
    require_row_wise(predictor.fitted.name)
    ordered = ordered_backbones(predictor, backbones)
    check_identities(predictor, ordered, memory)
    order = cascade_order(predictor.fitted, predictor.backbones)  # a damaged fit fails now
    blocks = stream_photos(
        files,
        models,
        ordered,
        batch_size=batch_size,
        decoders=decoders,
        max_pixels=max_pixels,
        in_turn=None if order is None or balance else _in_turn(predictor, order),
        on_loaded=on_loaded,
    )
    if balance:
        return _balanced(predictor, blocks, explain=explain, on_spooled=on_spooled)
    return _predictions(predictor, blocks, explain=explain)


def _in_turn(predictor: Predictor, order: tuple[int, ...]) -> InTurn:
    """Ask the backbones of a cascade one after the other."""

    def needs_next(done: int, features: Sequence[np.ndarray]) -> Bool[np.ndarray, " photos"]:
        found: np.ndarray = np.all([usable(each) for each in features], axis=0)  # else skipped
        rows = np.flatnonzero(found)
        if len(rows):
            ids = [str(row) for row in rows]
            ensemble = predictor.heads.ensemble([each[rows] for each in features], ids)
            found[rows] = waits(predictor.fitted, done, ensemble)
        return found

    return InTurn(order, needs_next)


def _balanced(
    predictor: Predictor,
    blocks: Generator[Photos, None, None],
    *,
    explain: bool,
    on_spooled: Callable[[int], None],
) -> Generator[Predicted, None, None]:
    with spool(len(predictor.backbones)) as spooled:
        with closing(blocks):
            fill(spooled, blocks, on_spooled)
        if spooled.photos:
            predictor = balanced(predictor, spooled, by_name(predictor.heads.class_names))
        yield from _predictions(predictor, spooled.blocks(), explain=explain)


def _predictions(
    predictor: Predictor, blocks: Generator[Photos, None, None], *, explain: bool
) -> Generator[Predicted, None, None]:
    # As `evaluate`, which decides between equal scores by the order of the names.
    classes = by_name(predictor.heads.class_names)
    with closing(blocks):
        for photos in blocks:
            found: tuple[Prediction, ...] = ()
            if photos.files:
                ids = [str(file) for file in photos.files]
                ensemble = predictor.heads.ensemble(photos.features, ids, classes=classes)
                found = _answers(predictor.fitted, ensemble, photos.files, explain=explain)
            yield Predicted(found, photos.skipped)


def _answers(
    fitted: Fitted, ensemble: Ensemble, files: Sequence[Path], *, explain: bool
) -> tuple[Prediction, ...]:
    given = apply(fitted, ensemble)
    scores = given.combined(ensemble)
    if given.weights is None:
        # Scores that are no weighted logits are measured as they are stored, in float32.
        scores = scores.astype(np.float32).astype(np.float64)
    best = scores.argmax(axis=1)
    second = _without(scores, best).argmax(axis=1)
    probabilities = softmax(scores) if fitted.combiner.probabilistic else None
    own = ensemble.logits.argmax(axis=2)
    asked = _asked(fitted, given, ensemble)
    spent = _spent(fitted, ensemble)
    names = ensemble.class_names

    def probability(row: int, column: np.ndarray) -> float | None:
        return None if probabilities is None else float(probabilities[row, column[row]])

    several = len(names) > 1
    return tuple(
        Prediction(
            file=file,
            answer=names[best[row]],
            probability=probability(row, best),
            runner_up=names[second[row]] if several else None,
            runner_up_probability=probability(row, second) if several else None,
            opinions=tuple(
                Opinion(
                    backbone,
                    names[own[number, row]] if asked[row, number] else None,
                    None if given.weights is None else float(given.weights[row, number]),
                )
                for number, backbone in enumerate(ensemble.backbones)
            )
            if explain
            else (),
            gflops=None if spent is None else float(spent[row]),
        )
        for row, file in enumerate(files)
    )


def _asked(
    fitted: Fitted, given: Given, ensemble: Ensemble
) -> Bool[np.ndarray, "photos backbones"]:
    """Return which backbones had a say: all, but of a cascade those up to where it stopped."""
    if not isinstance(fitted.combiner, Cascade):
        return np.ones(ensemble.logits.shape[1::-1], dtype=bool)
    assert given.weights is not None, "a cascade weighs"
    asked: np.ndarray = given.weights != 0
    to_come = [(features == TO_COME).all(axis=1) for features in ensemble.features]
    assert not (asked & np.transpose(to_come)).any(), "a backbone has a say and was not computed"
    return asked


def _spent(fitted: Fitted, ensemble: Ensemble) -> Float64[np.ndarray, " photos"] | None:
    """Return what the backbones computed for each photo took; None without a cascade."""
    if not isinstance(fitted.combiner, Cascade):
        return None
    gflops = dict(zip(fitted.backbones, fitted.combiner.gflops_, strict=True))
    computed = [(features != TO_COME).any(axis=1) for features in ensemble.features]
    found: np.ndarray = np.transpose(computed) @ [gflops[name] for name in ensemble.backbones]
    return found


def _without(
    scores: Float64[np.ndarray, "photos classes"], column: Int64[np.ndarray, " photos"]
) -> Float64[np.ndarray, "photos classes"]:
    """Return a copy in which each row's `column` cannot win."""
    left = scores.copy()
    left[np.arange(len(left)), column] = -np.inf
    return left


def require_row_wise(combiner: str) -> None:
    """Check that a combiner can answer for one photo by itself.

    Raises:
        DataError: it mixes the rows of a split, as a control does, or reads all of them together.
        UnknownNameError: no combiner has this name.
    """
    if COMBINERS.get(combiner).reads_test:
        raise DataError(
            f"{combiner} reads all images that it predicts together, so it has no answer for a photo "
            "by itself; choose another --combiner"
        )
    if not COMBINERS.get(combiner).row_wise:
        raise DataError(
            f"{combiner} mixes up the rows of a whole split, so it has no answer for a photo by "
            "itself; choose another --combiner"
        )


def zero_shot(
    class_names: Sequence[str],
    *,
    templates: Sequence[str] | None,
    backbones: Sequence[Backbone],
    models: Models,
    combiner: str = "log-avg",
    on_prompts: Callable[[str, int, int], None] = lambda _name, _done, _total: None,
) -> Predictor:
    """Make an ensemble out of class names alone.

    Args:
        class_names: at least two, all different.
        templates: of the prompts; None for those of each backbone's family.
        backbones: that embed them.
        models: where they are loaded; they stay there, for the photos.
        combiner: one that learns from nothing.
        on_prompts: called after every batch of prompts: backbone, prompts done, prompts in all.

    Raises:
        DataError: there are not two class names, or one repeats, or a prompt is longer than a text
            context; the combiner learns from labels or unlabelled images.
        BackboneError: weights cannot be loaded, or device or precision used.
    """
    require_row_wise(combiner)
    made = COMBINERS.get(combiner)()
    if made.needs_labels:
        raise DataError(
            f"{combiner} learns from labels, and class names alone bring none; leave out "
            f"--combiner, or make a fit with `{command('train-nlc', combiners=combiner)}`"
        )
    if made.reads_pool:
        raise DataError(
            f"{combiner} learns from unlabelled images, and class names alone bring none; give "
            "--balance in place of --combiner to learn from the photos themselves, or make a fit "
            f"with `{command('train-nlc', combiners=combiner)}`"
        )
    names = tuple(class_names)
    if len(names) < 2:  # noqa: PLR2004  (nothing to choose from)
        raise DataError(f"there is {len(names)} class name to choose from; give at least two")
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise DataError(f"the class {twice[0]!r} is named twice; name each class once")
    ordered = sorted(backbones, key=lambda backbone: backbone.name)
    heads: list[Head] = []
    used: dict[str, None] = {}
    for backbone in ordered:
        texts = templates_for(backbone, names, templates)
        used |= dict.fromkeys(texts)
        model = models.load(backbone)

        def on_progress(done: int, total: int, name: str = backbone.name) -> None:
            on_prompts(name, done, total)

        heads.append(
            HEADS.get("zero-shot")().fit(
                features=np.empty((0, model.dim), dtype=np.float32),
                labels=np.empty(0, dtype=np.int64),
                sample_id=(),
                texts=embed_classes(model, names, texts, on_progress=on_progress),
                logit_scale=model.logit_scale,
                logit_bias=model.logit_bias,
            )
        )
    members = tuple(backbone.name for backbone in ordered)
    return Predictor(
        heads=Heads("zero-shot", members, names, tuple(heads), inputs={}),
        fitted=Fitted(
            name=combiner,
            settings=made.settings(),
            learnt={},
            backbones=members,
            class_names=names,
            labels=Labels.none(),
        ),
        identities={},  # the very backbones that will embed the photos
        templates=tuple(used),
        dataset="",
    )
