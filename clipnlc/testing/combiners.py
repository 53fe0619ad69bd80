"""What every combiner must do, as functions of its class; settings are left at their defaults."""

import itertools
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import numpy as np
from jaxtyping import Int

from clipnlc.combiners.base import Combiner, Weigher
from clipnlc.ensemble import Ensemble
from clipnlc.testing.checking import close, equal, refuses, same

Check = Callable[[type[Combiner]], None]

_BACKBONES: Final = ("north", "east", "south", "west")  # neither sorted nor reversed
_CLASSES: Final = ("pear", "fig", "apple", "plum", "date")
_ENOUGH: Final = 0.8
"""Accuracy on training rows that are easy to tell apart; chance is 0.2."""


def example(
    samples: int = 40,
    classes: int = 5,
    backbones: int = 4,
    *,
    seed: int = 0,
    signal: float = 2.0,
    named: bool = True,
) -> tuple[Ensemble, Int[np.ndarray, " samples"]]:
    """Make backbones of different skill and width, with logits as large as CLIP's, and labels.

    Features say something of the class, too. Names are out of alphabetical order, and so are costs.

    Args:
        samples: rows.
        classes: at most 5 have names.
        backbones: at most 4 have names.
        seed: of everything random.
        signal: what is added to the label's logit, times the backbone's skill.
        named: whether backbones and classes have names.

    Returns:
        The ensemble, and class numbers `[samples]`.

    >>> made, labels = example(6, classes=3, backbones=2)
    >>> made.logits.shape, [its.shape for its in made.features], labels.shape
    ((2, 6, 3), [(6, 6), (6, 7)], (6,))
    """
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, samples)
    logits = random.normal(20, 2, (backbones, samples, classes)).astype(np.float32)
    skill = np.linspace(0.5, 1.5, backbones)[:, None] * signal
    logits[:, np.arange(samples), labels] += skill.astype(np.float32)
    centres = np.random.default_rng(99)  # the same for every seed: what is learnt carries over
    features = tuple(
        (
            3 * centres.normal(size=(classes, 6 + b))[labels] + random.normal(size=(samples, 6 + b))
        ).astype(np.float32)
        for b in range(backbones)
    )
    name = named and backbones <= len(_BACKBONES) and classes <= len(_CLASSES)
    ids = tuple(f"img/{i:05d}" for i in range(samples))
    names = (_BACKBONES[:backbones], _CLASSES[:classes]) if name else ((), ())
    costs = tuple(1.0 + (3 * b + 1) % backbones for b in range(backbones))
    return Ensemble(logits, features, ids, *names, gflops=costs), labels


def check_combiner(combiner: type[Combiner]) -> None:
    """Run every check on a combiner's class: some hundred small fits.

    Args:
        combiner: the class, not an object of it; it is made without arguments.

    Raises:
        AssertionError: a check failed; the message says which.

    >>> from clipnlc.combiners import COMBINERS
    >>> check_combiner(COMBINERS.get("log-avg"))
    """
    for check in COMBINER_CHECKS:
        try:
            check(combiner)
        except AssertionError as problem:
            problem.add_note(f"in {check.__name__}({combiner.__name__})")
            raise


def _scores_have_a_row_per_sample_and_are_finite(cls: type[Combiner]) -> None:
    test = example(31, seed=2)[0]
    scores = _fitted(cls).combine(test)
    equal(scores.shape, test.logits.shape[1:], "the shape of the scores")
    equal(scores.dtype, np.dtype(np.float64), "the type of the scores")
    assert np.isfinite(scores).all(), "scores are finite"
    equal(_fitted(cls).combine(test.rows([])).shape, (0, 5), "the scores of no rows")


def _inputs_stay_as_they_were(cls: type[Combiner]) -> None:
    (given, labels), (copy, copied) = example(), example()
    cls().fit(given, labels).combine(given)
    for one, other in zip(
        (given.logits, labels, *given.features), (copy.logits, copied, *copy.features), strict=True
    ):
        same(one, other, "what was given")


def _learns_the_same_from_rows_in_any_order(cls: type[Combiner]) -> None:
    ensemble, labels = example(seed=1)
    order = np.random.default_rng(0).permutation(len(labels))
    _same_state(cls().fit(ensemble.rows(order), labels[order]), _fitted(cls), "rows")


def _scores_move_with_their_rows(cls: type[Combiner]) -> None:
    test = example(31, seed=2)[0]
    order = np.random.default_rng(0).permutation(31)
    _close(_fitted(cls).combine(test.rows(order)), _fitted(cls).combine(test)[order], "scores")


def _answers_its_own_training_rows(cls: type[Combiner]) -> None:
    """Fails if classes are in one order in `fit` and in another in `combine`."""
    for named in (True, False):
        ensemble, labels = example(seed=3, signal=12.0, named=named)
        right = (cls().fit(ensemble, labels).combine(ensemble).argmax(axis=1) == labels).mean()
        assert right > _ENOUGH, (
            f"of training rows that every backbone gets right, {right:.0%} were right; "
            "are the classes in the same order in fit and combine?"
        )


def _named_classes_may_come_in_any_order(cls: type[Combiner]) -> None:
    (ensemble, labels), test = example(seed=1), example(31, seed=2)[0]
    for order in ([3, 0, 4, 1, 2], [1, 2, 0, 4, 3]):  # class j is the old class order[j]
        again = cls().fit(ensemble.classes(order), np.argsort(order)[labels])
        scores = again.combine(test.classes(order))
        if _sorts(cls):
            _same_state(again, _fitted(cls), "classes")
            same(scores, _fitted(cls).combine(test)[:, order], "scores of permuted classes")
        _close(scores, _fitted(cls).combine(test)[:, order], "scores of permuted classes")


def _nameless_classes_keep_their_order(cls: type[Combiner]) -> None:
    ensemble, labels = example(seed=1, named=False)
    test = example(31, seed=2, named=False)[0]
    order = np.array([3, 0, 4, 1, 2])
    here = cls().fit(ensemble, labels).combine(test)
    there = cls().fit(ensemble.classes(order), np.argsort(order)[labels])
    same(
        order[there.combine(test.classes(order)).argmax(axis=1)],
        here.argmax(axis=1),
        "predictions of permuted classes",
    )


def _named_backbones_may_come_in_any_order(cls: type[Combiner]) -> None:
    if not _sorts(cls):
        return
    (ensemble, labels), test = example(seed=1), example(31, seed=2)[0]
    order = [2, 0, 3, 1]
    again = cls().fit(ensemble.members(order), labels)
    _same_state(again, _fitted(cls), "backbones")
    mixed = test.members(order)
    same(again.combine(mixed), _fitted(cls).combine(test), "scores of permuted backbones")
    if isinstance(again, Weigher):
        same(again.weights(mixed), _weights(cls, test)[:, order], "weights of permuted backbones")


def _gives_the_same_bits_twice(cls: type[Combiner]) -> None:
    ensemble, labels = example(seed=1)
    test = example(31, seed=2)[0]
    same(cls(seed=0).fit(ensemble, labels).combine(test), _fitted(cls).combine(test), "scores")


def _hangs_on_no_last_bit(cls: type[Combiner]) -> None:
    """A relative noise of 1e-6 on everything that is given moves no confident prediction."""
    (ensemble, labels), test = example(60, seed=1, signal=4.0), example(200, seed=2, signal=4.0)[0]
    random = np.random.default_rng(0)

    def noisy(given: np.ndarray) -> np.ndarray:
        factor = 1 + 1e-6 * random.uniform(-1, 1, given.shape)
        return (given * factor).astype(np.float32)

    shaken = replace(
        ensemble,
        logits=noisy(ensemble.logits),
        features=tuple(map(noisy, ensemble.features)),
    )
    here = cls().fit(ensemble, labels).combine(test).argmax(axis=1)
    there = cls().fit(shaken, labels).combine(test).argmax(axis=1)
    moved = int((here != there).sum())
    assert moved <= len(here) // 50, f"{moved} of {len(here)} predictions hang on a last bit"


def _state_travels(cls: type[Combiner]) -> None:
    test = example(31, seed=2)[0]
    fitted = _fitted(cls)
    state = fitted.state()
    assert all(isinstance(value, np.ndarray) for value in state.values()), "learnt are arrays"
    again = cls.rebuild(fitted.settings(), state)
    same(again.combine(test), fitted.combine(test), "scores after rebuilding")


def _refuses_a_foreign_state(cls: type[Combiner]) -> None:
    refuses(lambda: cls().load_state({"foreign_": np.zeros(1)}), "the state has ['foreign_']")


def _refit_forgets(cls: type[Combiner]) -> None:
    ensemble, labels = example(seed=1)
    test = example(31, seed=2)[0]
    again = cls().fit(*example(20, seed=5)).fit(ensemble, labels)
    same(again.combine(test), _fitted(cls).combine(test), "scores after a second fit")


def _needs_features_is_said_truly(cls: type[Combiner]) -> None:
    ensemble, labels = example(seed=1)
    blind = ensemble.with_features(())
    if cls.needs_features:
        use = cls().fit if cls.learnt else lambda given, its: cls().fit(given, its).combine(given)
        refuses(lambda: use(blind, labels), "holds no features")
    else:
        assert np.isfinite(cls().fit(blind, labels).combine(blind)).all(), "scores are finite"


def _needs_labels_is_said_truly(cls: type[Combiner]) -> None:
    learns = cls.learns_from_labels() or cls.reads_pool
    equal(learns, bool(cls.learnt), "needs_labels and reads_pool against what is learnt")
    assert not (cls.needs_labels and cls.takes_labels), "labels are needed, or taken if there"
    assert all(name.endswith("_") for name in cls.learnt), "learnt arrays end in _"
    ensemble, labels = example(seed=1)
    if cls.reads_pool:
        others = np.roll(labels, 1)
        changed = any(
            not np.array_equal(value, cls().fit(ensemble, others).state()[name])
            for name, value in _fitted(cls).state().items()
        )
        equal(changed, cls.learns_from_labels(), "whether other labels teach it something else")
    if not cls.reads_pool or cls.needs_labels:
        refuses(lambda: cls().fit(ensemble.rows([]), labels[:0]), "at least one")
        return
    test = example(31, seed=2)[0]
    without = cls().fit(ensemble.rows([]), labels[:0], ensemble).combine(test)
    assert np.isfinite(without).all(), "scores after a fit without labels are finite"


def _reads_pool_is_said_truly(cls: type[Combiner]) -> None:
    if not cls.reads_pool:
        return
    (ensemble, labels), pool = example(seed=1), example(50, seed=4)[0]
    refuses(lambda: cls().fit(ensemble, labels, pool.rows([])), "learns from unlabelled rows")
    refuses(lambda: cls().fit(ensemble, labels, pool.classes([0, 1, 2])), "has other backbones or")
    one = cls().fit(ensemble, labels, pool)
    order = np.random.default_rng(0).permutation(50)
    _same_state(cls().fit(ensemble, labels, pool.rows(order)), one, "a pool")
    other = _fitted(cls).state()
    changed = any(not np.array_equal(value, other[name]) for name, value in one.state().items())
    assert changed, "reads_pool is true, and another pool teaches it nothing else"


def _labels_must_fit_the_rows(cls: type[Combiner]) -> None:
    ensemble, labels = example(seed=1)
    refuses(lambda: cls().fit(ensemble, labels[1:]), "39 labels for 40 rows")
    high, low = np.where(labels == 1, 5, labels), np.where(labels == 0, -1, labels)
    refuses(lambda: cls().fit(ensemble, high), "labels must lie in [0, 5), found 0 to 5")
    refuses(lambda: cls().fit(ensemble, low), "labels must lie in [0, 5), found -1 to 4")


def _few_labels_stay_finite(cls: type[Combiner]) -> None:
    for samples, classes, backbones, signal in (
        (1, 2, 3, 0.0),
        (2, 2, 2, 50.0),
        (5, 5, 4, 50.0),
        (5, 5, 1, -50.0),
        (12, 3, 4, 0.0),
    ):
        ensemble, labels = example(samples, classes, backbones, signal=signal)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            combiner = cls().fit(ensemble, labels)
            scores = combiner.combine(example(7, classes, backbones, seed=3)[0])
        assert np.isfinite(scores).all(), f"scores after {samples} labels are finite"


def _rows_may_be_combined_in_batches(cls: type[Combiner]) -> None:
    if not cls.row_wise:
        return
    test = example(31, seed=2)[0]
    fitted = _fitted(cls)
    whole = fitted.combine(test)
    for cuts in ((1, 9), tuple(range(1, 31))):
        edges = [0, *cuts, 31]
        blocks = [test.rows(range(a, b)) for a, b in itertools.pairwise(edges)]
        found = np.concatenate([fitted.combine(block) for block in blocks])
        _close(found, whole, "scores of batches")


def _reads_test_is_said_truly(cls: type[Combiner]) -> None:
    if not cls.reads_test:
        return
    assert not cls.row_wise, "what reads the rows that it predicts is not row-wise"
    test, fitted = example(31, seed=2)[0], _fitted(cls)
    few = fitted.combine(test.rows(range(16)))
    changed = not np.allclose(few, fitted.combine(test)[:16])
    assert changed, "reads_test is true, and other rows beside a row change nothing"


def _a_weigher_is_the_weighted_sum_of_logits(cls: type[Combiner]) -> None:
    if not issubclass(cls, Weigher):
        return
    test = example(31, seed=2)[0]
    weights = _weights(cls, test)
    equal(weights.dtype, np.dtype(np.float32), "the type of weights")
    expected = np.einsum("nb,bnc->nc", weights.astype(float), test.logits.astype(float))
    np.testing.assert_allclose(_fitted(cls).combine(test), expected, rtol=1e-12)
    if not cls.reads_logits:
        zeros = replace(test, logits=np.zeros_like(test.logits))
        same(_weights(cls, zeros), weights, "weights without logits, which it says not to read")


def _unfitted_use_is_refused(cls: type[Combiner]) -> None:
    test = example(31, seed=2)[0]
    if not cls.learnt:
        same(cls().combine(test), _fitted(cls).combine(test), "scores without a fit")
        equal(_fitted(cls).state(), {}, "what was learnt")
        return
    refuses(lambda: cls().combine(test), "is not fitted")
    refuses(lambda: cls().state(), "is not fitted")


def _explains_what_it_predicts(cls: type[Combiner]) -> None:
    """A combiner need not explain itself; what it says is about its own predictions then."""
    test, labels = example(31, seed=2)
    fitted = _fitted(cls)
    try:
        found = fitted.explain(test, labels)
    except NotImplementedError:
        return
    shares = np.append(found.share, list(found.others.values()))
    equal(len(found.share), len(test.logits), "the number of shares")
    close(shares.sum(), np.array(1.0), "the sum of the shares", rtol=1e-6, atol=1e-9)
    if not _sorts(cls):
        return
    order = [2, 0, 3, 1]
    again = fitted.explain(test.members(order), labels)
    _close(again.share, found.share[order], "shares of permuted backbones")
    canonical = test.canonical()
    own, others = fitted._contributions(canonical.ensemble)  # noqa: SLF001  (its hook)
    parts = own.sum(axis=0) + sum(others.values())
    same(
        canonical.classes[parts.argmax(axis=1)],
        fitted.combine(test).argmax(axis=1),
        "the highest sum of parts, and the predictions",
    )


def _takes_a_backbone_without_features(cls: type[Combiner]) -> None:
    """One that gives logits alone has features of width 0; the others' are read as before."""
    if not cls.needs_features:
        return
    ensemble, labels = _without_features(*example(), member=1)
    fitted = cls().fit(ensemble, labels)
    test = _without_features(*example(31, seed=2), member=1)[0]
    scores = fitted.combine(test)
    assert np.isfinite(scores).all(), "scores are finite where a backbone has features of width 0"
    again = cls.rebuild(fitted.settings(), fitted.state()).combine(test)
    same(again, scores, "scores of a rebuilt combiner where a backbone has no features")


def _without_features(
    ensemble: Ensemble, labels: Int[np.ndarray, " samples"], *, member: int
) -> tuple[Ensemble, Int[np.ndarray, " samples"]]:
    features = list(ensemble.features)
    features[member] = features[member][:, :0]
    return ensemble.with_features(features), labels


COMBINER_CHECKS: Final[tuple[Check, ...]] = (
    _scores_have_a_row_per_sample_and_are_finite,
    _inputs_stay_as_they_were,
    _learns_the_same_from_rows_in_any_order,
    _scores_move_with_their_rows,
    _answers_its_own_training_rows,
    _named_classes_may_come_in_any_order,
    _nameless_classes_keep_their_order,
    _named_backbones_may_come_in_any_order,
    _gives_the_same_bits_twice,
    _hangs_on_no_last_bit,
    _state_travels,
    _refuses_a_foreign_state,
    _refit_forgets,
    _needs_features_is_said_truly,
    _needs_labels_is_said_truly,
    _reads_pool_is_said_truly,
    _labels_must_fit_the_rows,
    _few_labels_stay_finite,
    _rows_may_be_combined_in_batches,
    _reads_test_is_said_truly,
    _a_weigher_is_the_weighted_sum_of_logits,
    _explains_what_it_predicts,
    _takes_a_backbone_without_features,
    _unfitted_use_is_refused,
)
"""Each takes a combiner's class, and raises AssertionError with what was expected."""


def _fitted(cls: type[Combiner]) -> Combiner:
    return cls().fit(*example(seed=1))


def _weights(cls: type[Combiner], ensemble: Ensemble) -> np.ndarray:
    fitted = _fitted(cls)
    assert isinstance(fitted, Weigher)
    return fitted.weights(ensemble)


def _sorts(cls: type[Combiner]) -> bool:
    """Whether the base class sorts for it; one that replaces `combine` takes what it is given."""
    return cls.combine is Combiner.combine and (
        not issubclass(cls, Weigher) or cls.weights is Weigher.weights
    )


def _same_state(one: Combiner, other: Combiner, what: str) -> None:
    for name, value in other.state().items():
        same(one.state()[name], value, f"{name} learnt from {what} in another order")


def _close(one: np.ndarray, other: np.ndarray, what: str) -> None:
    close(one, other, what, rtol=1e-6, atol=1e-9)
