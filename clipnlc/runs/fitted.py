"""A fit as a value of its own: what was learnt, and how it is applied to any ensemble."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int

from clipnlc.combiners import COMBINERS, Combiner, Weigher, weigh
from clipnlc.combiners.cascade import Cascade
from clipnlc.commands import command
from clipnlc.digests import content_digest
from clipnlc.ensemble import Ensemble, by_name
from clipnlc.errors import StoreError
from clipnlc.labels import Labels
from clipnlc.plugins import blame

UNFIT = (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, MemoryError)
"""What numpy and Python raise of learnt arrays and settings that do not belong together."""


@dataclass(frozen=True)
class Fitted:
    """A fitted combiner, independent of the data that it is applied to.

    Attributes:
        name: the combiner's name in `COMBINERS`.
        settings: every setting, defaults included.
        learnt: arrays by name; empty for a combiner that learns nothing.
        backbones: in the order that the learnt arrays follow.
        class_names: in the order that the learnt arrays follow; names may repeat.
        labels: which labels it was fitted on.
        facts: numbers and words about the fit: how many labels were used, a digest of their ids.
    """

    name: str
    settings: Mapping[str, Any]
    learnt: Mapping[str, np.ndarray]
    backbones: tuple[str, ...]
    class_names: tuple[str, ...]
    labels: Labels = field(default_factory=Labels.none)
    facts: Mapping[str, float | str | int] = field(default_factory=dict)

    @cached_property
    def combiner(self) -> Combiner:
        """The combiner, built again from name, settings and learnt arrays.

        Raises:
            StoreError: settings or arrays are not those of the combiner.
            UnknownNameError: no combiner has this name.
        """
        try:
            made: Combiner = COMBINERS.get(self.name).rebuild(self.settings, self.learnt)
        except ValueError as error:
            raise StoreError(
                f"a fit of {self.name} cannot be built again: {error}; fit it again with "
                f"`{command('train-nlc', combiners=self.name)}`"
            ) from error
        return made


@dataclass(frozen=True)
class Given:
    """What a fit gives on some rows: weights of the backbones, or scores.

    Attributes:
        weights: factor of each backbone's logits, backbones in the ensemble's order; None where
            the combiner does not weigh.
        scores: higher is better, one column per class that may be predicted, in the order asked;
            None where the combiner weighs.
    """

    weights: Float32[np.ndarray, "samples backbones"] | None
    scores: Float64[np.ndarray, "samples classes"] | None

    def combined(
        self, ensemble: Ensemble, *, among: Int[np.ndarray, " classes"] | None = None
    ) -> Float64[np.ndarray, "samples classes"]:
        """Return the scores; of weights, with the logits of the same rows."""
        if self.weights is None:
            assert self.scores is not None
            return self.scores
        return weigh(
            ensemble.logits if among is None else ensemble.logits[:, :, among], self.weights
        )


def fit(
    name: str,
    ensemble: Ensemble,
    labels: Int[np.ndarray, " samples"],
    *,
    which: Labels,
    settings: Mapping[str, Any] | None = None,
    facts: Mapping[str, float | str | int] | None = None,
    pool: Ensemble | None = None,
) -> Fitted:
    """Fit a combiner on labelled rows of a named ensemble; the seed is that of `which`.

    Args:
        name: the combiner's.
        ensemble: the labelled rows; none for a fit without labels.
        labels: one class number per row.
        which: which labels they are.
        settings: those that differ from the defaults.
        facts: about the fit.
        pool: unlabelled rows of train, for a combiner that reads them.

    Raises:
        UnknownNameError: no combiner has this name.
        ValueError: labels do not fit the rows, or the ensemble has no names.
        PluginError: the combiner is of another package, and failed.
    """
    _check_named(ensemble)
    canonical = ensemble.canonical()
    rows = pool and pool.canonical().ensemble
    with blame(COMBINERS.plugin(name), f"the combiner {name}"):
        combiner: Combiner = COMBINERS.get(name)(seed=which.seed, **(settings or {}))
        if combiner.learnt:
            combiner.fit(canonical.ensemble, canonical.labels(labels), rows)
        state = combiner.state()
    return Fitted(
        name=name,
        settings=combiner.settings(),
        learnt=state,
        backbones=tuple(ensemble.backbones[b] for b in canonical.backbones),
        class_names=tuple(ensemble.class_names[c] for c in canonical.classes),
        labels=which,
        facts=dict(facts or {}),
    )


def draw_facts(
    which: Labels, used: Sequence[str], pool: Sequence[str] | None = None
) -> dict[str, float | str | int]:
    """Return the facts of a fit that say which rows it learnt from, by their sample ids.

    Args:
        which: the draw.
        used: the labelled rows.
        pool: the unlabelled ones, of a combiner that reads them.
    """
    facts: dict[str, float | str | int] = {
        "drawn": which.name,
        "labels": len(used),
        "labelled_samples": content_digest(list(used)),
    }
    if pool is not None:
        facts |= {"unlabelled": len(pool), "unlabelled_samples": content_digest(list(pool))}
    return facts


def apply(
    fitted: Fitted, ensemble: Ensemble, *, among: Int[np.ndarray, " classes"] | None = None
) -> Given:
    """Return what a fit gives on the rows of a named ensemble: the only road to a prediction.

    Backbones and classes are matched by name, so their order in the ensemble does not matter. Where
    the combiner is row-wise, a row's result has the same bits in any block of rows (a kernel of many
    labels: up to rounding).

    Args:
        fitted: what was fitted.
        ensemble: the same backbones and classes; with features where the combiner needs them.
        among: numbers of the ensemble's classes that may be predicted; the others' columns are
            left out before combining, or after it where the combiner learns class by class.

    Raises:
        StoreError: the ensemble has other backbones or classes than the fit.
        PluginError: the combiner is of another package, and failed.
        ValueError: the ensemble has no names, or no features where they are needed.
    """
    combiner = fitted.combiner
    members, classes, wanted = _matched(fitted, ensemble, among)
    # The columns that the combiner sees, in the order of the fit.
    seen = classes if combiner.per_class else classes[np.isin(classes, wanted)]
    nameless = _nameless(ensemble.members(members).classes(seen))
    with _applying(fitted):
        found = (
            combiner.weights(nameless)
            if isinstance(combiner, Weigher)
            else combiner.combine(nameless)
        )
    columns = len(members) if isinstance(combiner, Weigher) else len(seen)
    if found.shape != (len(nameless.sample_id), columns) or not np.isfinite(found).all():
        raise _unfit(fitted, "it does not give finite numbers of every class or backbone")
    if isinstance(combiner, Weigher):
        weights = np.empty_like(found)
        weights[:, members] = found
        return Given(weights, None)
    scores = found
    place = {int(column): number for number, column in enumerate(seen)}
    back = [place[int(column)] for column in wanted]
    return Given(None, scores if back == list(range(len(seen))) else scores[:, back])


def waits(fitted: Fitted, done: int, ensemble: Ensemble) -> Bool[np.ndarray, " samples"]:
    """Return which rows of a named ensemble a cascade needs another backbone for.

    Args:
        fitted: a cascade.
        done: how many of its backbones are computed; the others are not read.
        ensemble: as of `apply`.

    Raises:
        StoreError: as `apply`.
    """
    combiner = fitted.combiner
    assert isinstance(combiner, Cascade), "only a cascade stops before the last backbone"
    members, classes, _ = _matched(fitted, ensemble, None)
    with _applying(fitted):
        return combiner.waits(done, _nameless(ensemble.members(members).classes(classes)))


def cascade_order(fitted: Fitted, backbones: Sequence[str]) -> tuple[int, ...] | None:
    """Return the numbers of the backbones in the order in which a cascade asks them.

    None for what asks all of them.

    Raises:
        StoreError: the fit is of other backbones, or is damaged.
    """
    combiner = fitted.combiner
    if not isinstance(combiner, Cascade):
        return None
    order = combiner.order_.tolist()
    if sorted(order) != list(range(len(fitted.backbones))):
        raise _unfit(fitted, "its backbones have no order")
    members = match("backbone", fitted.backbones, backbones)
    return tuple(int(members[number]) for number in order)


def _matched(
    fitted: Fitted, ensemble: Ensemble, among: Int[np.ndarray, " wanted"] | None
) -> tuple[Int[np.ndarray, " members"], Int[np.ndarray, " classes"], Int[np.ndarray, " wanted"]]:
    """Return where the fit's backbones and classes are, and which classes are wanted."""
    _check_named(ensemble)
    members = match("backbone", fitted.backbones, ensemble.backbones)
    classes = match("class", fitted.class_names, ensemble.class_names)
    return members, classes, np.arange(len(classes)) if among is None else np.asarray(among)


def _nameless(ensemble: Ensemble) -> Ensemble:
    return replace(ensemble, backbones=(), class_names=())


@contextmanager
def _applying(fitted: Fitted) -> Iterator[None]:
    """Say of what fails that the fit cannot be applied, or whose combiner it is."""
    try:
        with blame(COMBINERS.plugin(fitted.name), f"the combiner {fitted.name}"):
            yield
    except UNFIT as error:
        raise _unfit(fitted, " ".join(str(error).split())[:200]) from error


def _unfit(fitted: Fitted, problem: str) -> StoreError:
    cure = command("train-nlc", combiners=fitted.name)
    return StoreError(
        f"a fit of {fitted.name} cannot be applied: {problem}; delete its file and fit it again "
        f"with `{cure}`"
    )


def match(what: str, fitted: Sequence[str], given: Sequence[str]) -> Int[np.ndarray, " names"]:
    """Return, for each name that was fitted on, its number among those given.

    Names that repeat are matched in their order.

    Raises:
        StoreError: the names are not the same; the first that differs is named.

    >>> match("class", ["ant", "bee"], ["bee", "ant"]).tolist()
    [1, 0]
    """
    one, two = by_name(fitted), by_name(given)
    sorted_one, sorted_two = [fitted[i] for i in one], [given[i] for i in two]
    if sorted_one != sorted_two:
        missing = [name for name in fitted if name not in set(given)]
        foreign = [name for name in given if name not in set(fitted)]
        found = f"lacks {missing[0]!r}" if missing else f"has {(foreign or given)[0]!r} besides"
        raise StoreError(
            f"the fit is of {len(fitted)} {what} names, and what it is applied to has "
            f"{len(given)}: it {found}; expected the same names in any order"
        )
    found_at = np.empty(len(one), dtype=np.int64)
    found_at[one] = two
    return found_at


def _check_named(ensemble: Ensemble) -> None:
    if not ensemble.backbones or not ensemble.class_names:
        raise ValueError("the ensemble has no names of backbones and classes; give it both")
