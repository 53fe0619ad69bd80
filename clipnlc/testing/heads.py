"""What every head must do, as functions of its class; settings are left at their defaults."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import numpy as np
from jaxtyping import Float, Int

from clipnlc.heads.base import Head
from clipnlc.heads.labelled_rows import LabelledRows
from clipnlc.testing.checking import close, equal, refuses, same

Check = Callable[[type[Head]], None]

_CLASSES: Final = 4
_ENOUGH: Final = 0.7
"""Accuracy on training rows that are easy to tell apart; chance is 0.25."""


def labelled_rows(
    samples: int = 60, *, dim: int = 32, seed: int = 0, noise: float = 2.0
) -> LabelledRows:
    """Make features around class centres that the texts miss by a little.

    Args:
        samples: rows.
        dim: width of a feature.
        seed: of labels and noise; the classes are the same for all.
        noise: how far features lie from their class's centre, in units of a third of its length.

    >>> rows = labelled_rows(6, dim=4)
    >>> rows.features.shape, rows.texts.shape, rows.labels.shape
    ((6, 4), (4, 4), (6,))
    """
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(_CLASSES, dim))
    labels = random.integers(0, _CLASSES, samples)
    features = 3 * centres[labels] + noise * random.normal(size=(samples, dim))
    return LabelledRows(
        features=features.astype(np.float32),
        labels=labels,
        sample_id=tuple(f"img/{i:03d}" for i in range(samples)),
        texts=(centres + np.random.default_rng(98).normal(size=centres.shape)).astype(np.float32),
        logit_scale=20.0,
        targets=_teacher(labels),
    )


def _teacher(labels: Int[np.ndarray, " samples"]) -> Float[np.ndarray, "samples classes"]:
    """Make the probabilities of a teacher that is right and a little in doubt."""
    sure: np.ndarray = 0.8 * np.eye(_CLASSES)[labels]
    return sure + 0.2 / _CLASSES


def check_head(head: type[Head]) -> None:
    """Run every check on a head's class.

    Args:
        head: the class, not an object of it; it is made without arguments.

    Raises:
        AssertionError: a check failed; the message says which.

    >>> from clipnlc.heads import HEADS
    >>> check_head(HEADS.get("class-mean"))
    """
    for check in HEAD_CHECKS:
        try:
            check(head)
        except AssertionError as problem:
            problem.add_note(f"in {check.__name__}({head.__name__})")
            raise


def _logits_have_a_row_per_sample_and_are_finite(cls: type[Head]) -> None:
    for rows in (7, 1, 0):
        logits = _fitted(cls).logits(_test(rows))
        equal(logits.shape, (rows, _CLASSES), "the shape of the logits")
        equal(logits.dtype, np.dtype(np.float32), "the type of the logits")
        assert np.isfinite(logits).all(), "logits are finite"
    half = _fitted(cls).logits(_test(7).astype(np.float16))
    equal(half.dtype, np.dtype(np.float32), "the type of the logits of float16 features")


def _inputs_stay_as_they_were(cls: type[Head]) -> None:
    given, copy = labelled_rows(), labelled_rows()
    given.fit(cls()).logits(given.features)
    for name in ("features", "labels", "texts"):
        same(getattr(given, name), getattr(copy, name), name)


def _learns_the_same_from_rows_in_any_order(cls: type[Head]) -> None:
    given = labelled_rows()
    order = np.random.default_rng(0).permutation(len(given.labels))
    _same_state(given.take(order).fit(cls()), _fitted(cls), "learnt from rows in another order")


def _gives_a_row_the_same_bits_in_any_block(cls: type[Head]) -> None:
    for dim, samples in ((32, 1101), (17, 1030)):  # 17: rows that vector instructions do not fill
        fitted = labelled_rows(dim=dim).fit(cls())
        features = labelled_rows(samples, dim=dim, seed=2).features
        whole = fitted.logits(features)
        for length in (1, 3, 100, 256, 511, 512, 513, 1000):
            blocks = [features[i : i + length] for i in range(0, samples, length)]
            found = np.concatenate([fitted.logits(block) for block in blocks])
            same(found, whole, f"logits of blocks of {length}")
        order = np.random.default_rng(0).permutation(samples)
        same(fitted.logits(features[order]), whole[order], "logits of rows in another order")
        same(fitted.logits(np.asfortranarray(features)), whole, "logits of features by column")


def _permuted_classes_permute_the_logits(cls: type[Head]) -> None:
    given = labelled_rows()
    order = np.array([2, 0, 3, 1])  # class j is the old class order[j]
    assert given.texts is not None
    assert given.targets is not None
    permuted = replace(
        given,
        labels=np.argsort(order)[given.labels],
        texts=given.texts[order],
        targets=given.targets[:, order],
    )
    _close(
        permuted.fit(cls()).logits(_test(31)),
        _fitted(cls).logits(_test(31))[:, order],
        "logits of permuted classes",
    )


def _lengths_of_features_and_texts_do_not_matter(cls: type[Head]) -> None:
    given = labelled_rows()
    assert given.texts is not None
    longer = replace(given, features=7 * given.features, texts=3 * given.texts)
    _close(longer.fit(cls()).logits(7 * _test(31)), _fitted(cls).logits(_test(31)), "logits")


def _answers_its_own_training_rows(cls: type[Head]) -> None:
    given = labelled_rows(noise=0.5)
    right = (given.fit(cls()).logits(given.features).argmax(axis=1) == given.labels).mean()
    assert right > _ENOUGH, f"of training rows that are easy to tell apart, {right:.0%} were right"


def _gives_the_same_bits_twice_and_refit_forgets(cls: type[Head]) -> None:
    again = labelled_rows().fit(labelled_rows(40, seed=5).fit(cls(seed=3)))
    _same_state(again, labelled_rows().fit(cls(seed=3)), "learnt again with the same seed")


def _is_built_again_from_settings_and_state(cls: type[Head]) -> None:
    fitted = labelled_rows().fit(cls(seed=3))
    state = fitted.state()
    assert all(isinstance(value, np.ndarray) for value in state.values()), "learnt are arrays"
    assert cls.learnt, "a head learns something, if only the texts"
    assert all(name.endswith("_") for name in cls.learnt), "learnt arrays end in _"
    again = cls.rebuild(fitted.settings(), state)
    equal(again.settings(), fitted.settings(), "settings after rebuilding")
    for rows in (31, 1):
        same(again.logits(_test(rows)), fitted.logits(_test(rows)), "logits after rebuilding")
    equal(again.facts(), fitted.facts(), "facts after rebuilding")


def _knows_the_width_of_its_features(cls: type[Head]) -> None:
    for dim in (32, 17):
        equal(labelled_rows(dim=dim).fit(cls()).dim, dim, "dim, the width of the features")


def _unfitted_use_and_foreign_states_are_refused(cls: type[Head]) -> None:
    refuses(lambda: cls().logits(_test(3)), "is not fitted")
    refuses(lambda: cls().state(), "is not fitted")
    refuses(lambda: cls().load_state({"foreign_": np.zeros(1)}), "the state has ['foreign_']")
    refuses(lambda: cls.rebuild({"foreign": 1}, {}), "does not take these settings")


def _needs_texts_is_said_truly(cls: type[Head]) -> None:
    without = replace(labelled_rows(), texts=None, logit_scale=None, classes=_CLASSES)
    if cls.needs_texts:
        refuses(lambda: without.fit(cls()), "give texts and logit_scale")
        return
    refuses(lambda: replace(without, classes=None).fit(cls()), "how many classes there are")
    both = replace(labelled_rows(), logit_scale=None)
    _same_state(without.fit(cls()), both.fit(cls()), "learnt without the texts that it ignores")


def _needs_labels_is_said_truly(cls: type[Head]) -> None:
    given = labelled_rows()
    assert given.texts is not None
    texts: dict[str, Any] = {"texts": given.texts, "logit_scale": 20.0}
    if cls.needs_teacher:
        assert not cls.needs_labels, "a head that has a teacher reads no label"
        mislabelled = replace(given, labels=np.roll(given.labels, 1)).fit(cls())
        _same_state(mislabelled, _fitted(cls), "learnt from other labels")
        return
    if not cls.needs_labels or cls.texts_suffice:
        _same_state(cls().fit_to_texts(**texts), _fitted(cls), "learnt without rows")
    if not cls.needs_labels:
        return
    if cls.texts_suffice:
        assert not cls.needs_texts, "texts_suffice is true, so it is fitted without them, too"
        given = replace(given, texts=None, logit_scale=None, classes=_CLASSES)
        empty = given.take(np.arange(0))
        refuses(lambda: empty.fit(cls()), "learns from labelled rows")
    else:
        refuses(lambda: cls().fit_to_texts(**texts), "learns from labelled rows")
    other = replace(given, labels=np.roll(given.labels, 1)).fit(cls()).state()
    here = given.fit(cls()).state()
    changed = any(not np.array_equal(other[name], value) for name, value in here.items())
    assert changed, "needs_labels is true, and other labels teach it nothing else"


def _needs_teacher_is_said_truly(cls: type[Head]) -> None:
    given, plain = labelled_rows(), _fitted(cls).state()
    assert given.targets is not None
    if cls.needs_teacher:
        refuses(lambda: replace(given, targets=None).fit(cls()), "a teacher's probabilities")
        doubled = replace(given, targets=2 * given.targets)
        refuses(lambda: doubled.fit(cls()), "sum is 1")
    other = replace(given, targets=np.roll(given.targets, 1, axis=0)).fit(cls()).state()
    changed = any(not np.array_equal(other[name], value) for name, value in plain.items())
    equal(changed, cls.needs_teacher, "whether another teacher teaches it something else")


def _needs_nothing_that_fit_does_not_take(cls: type[Head]) -> None:
    assert not cls.needs_validation, "needs_validation is true, but it was fitted without such rows"


def _takes_views_is_said_truly(cls: type[Head]) -> None:
    given = labelled_rows()
    plain = _fitted(cls).state()
    same_views = replace(given, views=3 * given.features).fit(cls())
    for name, value in plain.items():
        close(
            same_views.state()[name],
            value,
            f"{name} of views like the features",
            rtol=1e-3,
            atol=1e-3,
        )
    other = replace(given, views=labelled_rows(seed=8).features).fit(cls()).state()
    changed = any(not np.array_equal(other[name], value) for name, value in plain.items())
    equal(changed, cls.takes_views, "whether other views teach it something else")


def _labels_must_fit_the_rows(cls: type[Head]) -> None:
    given = labelled_rows()
    refuses(lambda: replace(given, sample_id=given.sample_id[1:]).fit(cls()), "59 sample ids")
    for label, wrong, found in ((3, 4, "0 to 4"), (0, -1, "-1 to 3")):
        outside = replace(given, labels=np.where(given.labels == label, wrong, given.labels))
        message = f"labels must lie in [0, 4), found {found}"
        refuses(lambda outside=outside: outside.fit(cls()), message)  # type: ignore[misc]


def _few_labels_stay_finite(cls: type[Head]) -> None:
    for samples in (1, 2, 5):
        logits = labelled_rows(samples, seed=4).fit(cls()).logits(_test(7))
        equal(logits.shape, (7, _CLASSES), "the shape where classes have no row")
        assert np.isfinite(logits).all(), f"logits after {samples} labels are finite"


HEAD_CHECKS: Final[tuple[Check, ...]] = (
    _logits_have_a_row_per_sample_and_are_finite,
    _inputs_stay_as_they_were,
    _learns_the_same_from_rows_in_any_order,
    _gives_a_row_the_same_bits_in_any_block,
    _permuted_classes_permute_the_logits,
    _lengths_of_features_and_texts_do_not_matter,
    _answers_its_own_training_rows,
    _gives_the_same_bits_twice_and_refit_forgets,
    _is_built_again_from_settings_and_state,
    _knows_the_width_of_its_features,
    _unfitted_use_and_foreign_states_are_refused,
    _needs_texts_is_said_truly,
    _needs_labels_is_said_truly,
    _needs_teacher_is_said_truly,
    _needs_nothing_that_fit_does_not_take,
    _takes_views_is_said_truly,
    _labels_must_fit_the_rows,
    _few_labels_stay_finite,
)
"""Each takes a head's class, and raises AssertionError with what was expected."""


def _fitted(cls: type[Head]) -> Head:
    return labelled_rows().fit(cls())


def _test(rows: int) -> Float[np.ndarray, "rows dim"]:
    return labelled_rows(rows, seed=1).features


def _same_state(one: Head, other: Head, what: str) -> None:
    for name, value in other.state().items():
        same(one.state()[name], value, f"{name} {what}")


def _close(one: np.ndarray, other: np.ndarray, what: str) -> None:
    close(one, other, what, rtol=1e-3, atol=1e-3)
