"""The Python interface: own arrays, of a random forest among them, against plain numpy."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import cross_val_predict

import clipnlc
from clipnlc.combiners import COMBINERS
from clipnlc.errors import DataError, StoreError
from clipnlc.labels import dealt_folds

PAGE = Path(__file__).parent.parent / "docs" / "python.md"
CLASSES = ("pear", "fig", "apple")


def rows(number, seed):
    """Make rows of three classes: 6 numbers that a forest and a tower see, and logits."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(9).normal(size=(3, 6))
    labels = random.permutation(np.arange(number) % 3)
    seen = (centres[labels] + 1.5 * random.normal(size=(number, 6))).astype(np.float32)
    return seen, (seen @ centres.T).astype(np.float32), labels


@pytest.fixture(scope="module")
def made():
    (x, z, y), (x_test, z_test, y_test) = rows(60, 0), rows(45, 1)
    forest = RandomForestClassifier(20, random_state=0)
    crossed = cross_val_predict(forest, x, y, method="predict_proba")
    of_test = forest.fit(x, y).predict_proba(x_test)

    def ensemble(logits, probabilities, features):
        return clipnlc.ensemble_of(
            {"tower": logits},
            probabilities={"forest": probabilities},
            features={"tower": features},
            class_names=CLASSES,
        )

    return ensemble(z, crossed, x), y, ensemble(z_test, of_test, x_test), y_test


def test_every_combiner_runs_or_says_why_not(made):
    train, labels, test, answers = made
    found = clipnlc.compare(train, labels, test, answers)
    names = [row.name for row in found.rows if row.kind == "combiner"]
    assert sorted([*names, *found.unable]) == sorted(COMBINERS)
    assert {*found.unable} == {"cascade", "cascade-nlc"}
    assert found.unable["cascade"] == (
        "cascade starts with the cheapest backbone, and what tower and forest cost is not known"
    )
    with pytest.raises(DataError, match="cascade starts with the cheapest"):
        found["cascade"]
    assert [row.name for row in found.rows if row.reads_test] == ["conf-ot", "sota-transport"]


def test_without_any_features_those_that_read_them_say_so(made):
    train, labels, test, answers = made
    bare = train.with_features(())
    reading = [name for name in COMBINERS if COMBINERS.get(name).needs_features]
    found = clipnlc.compare(bare, labels, test, answers, combiners=["log-avg", *reading])
    assert {*found.unable} == {*reading}
    assert found.unable["gp"] == "gp reads features, and tower and forest have logits alone"
    with pytest.raises(DataError, match=r"gp reads features.*; choose another .* such as vote-1"):
        clipnlc.fit(bare, labels)


def test_the_numbers_are_those_of_plain_numpy(made):
    train, labels, test, answers = made
    found = clipnlc.compare(train, labels, test, answers)
    z, t = train.logits.astype(np.float64), test.logits.astype(np.float64)

    def temperature(one):
        def loss(log_t):
            return -log_softmax(one / np.exp(log_t), axis=1)[np.arange(len(labels)), labels].mean()

        return np.exp(minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded").x)

    temperatures = np.array([temperature(one) for one in z])[:, None, None]
    votes = np.eye(3)[t.argmax(axis=2)].sum(axis=0)
    expected = {
        "tower": t[0],
        "forest": t[1],
        "log-avg": t.mean(axis=0),
        "prob-avg": softmax(t, axis=2).mean(axis=0),
        "vote-1": votes + 1e-9 * t.mean(axis=0),
        "c-log-avg": (t / temperatures).mean(axis=0),
        "best-single-validation": t[np.argmax((z.argmax(axis=2) == labels).mean(axis=1))],
    }
    for name, scores in expected.items():
        assert found[name].accuracy == pytest.approx((scores.argmax(axis=1) == answers).mean()), (
            name
        )
    fitted = clipnlc.fit(train, labels, "c-log-avg")
    own = softmax(fitted.scores(test), axis=1)
    np.testing.assert_allclose(own, softmax(expected["c-log-avg"], axis=1), atol=1e-3)
    assert fitted.accuracy(test, answers) == found["c-log-avg"].accuracy
    either = (t.argmax(axis=2) == answers).any(axis=0).mean()
    assert found["oracle"].accuracy == pytest.approx(either)


def test_without_a_test_set_accuracy_is_cross_fitted(made):
    train, labels, *_ = made
    found = clipnlc.compare(train, labels, combiners="super-learner,log-avg")
    folds = dealt_folds(labels, train.sample_id, 5, draw="compare:0")
    right = 0
    for fold in range(5):
        seen, held = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        fitted = clipnlc.fit(train.rows(seen), labels[seen], "super-learner")
        right += (fitted.predict(train.rows(held)) == labels[held]).sum()
    assert found["super-learner"].accuracy == right / len(labels)
    assert found.cross_fitted
    assert str(found).startswith("accuracy in %, 95 % interval; cross-fitted on 60 labelled rows\n")


def test_names_decide_not_the_order(made):
    train, labels, test, _ = made
    fitted = clipnlc.fit(train, labels, "super-learner")
    turned = test.members([1, 0]).classes([2, 0, 1])
    np.testing.assert_array_equal(fitted.scores(turned), fitted.scores(test)[:, [2, 0, 1]])
    with pytest.raises(StoreError, match="it lacks 'forest'"):
        fitted.predict(test.members([0]))


def test_what_does_not_fit_is_refused(made):
    train, labels, test, _ = made
    eye = np.eye(3)
    for problem, call in {
        "needs the logits or prob": clipnlc.ensemble_of,
        r"b has \[2, 3\] logits and a \[3, 3\]": lambda: clipnlc.ensemble_of(
            {"a": eye, "b": eye[:2]}
        ),
        "row 0 of the logits of a holds NaN": lambda: clipnlc.ensemble_of(
            {"a": eye * [1, np.nan, 1]}
        ),
        "a does not hold probabilities": lambda: clipnlc.ensemble_of(probabilities={"a": 2 * eye}),
        "a has both": lambda: clipnlc.ensemble_of({"a": eye}, probabilities={"a": eye}),
        "b has features and no logits": lambda: clipnlc.ensemble_of(
            {"a": eye}, features={"b": eye}
        ),
        "features of a are int64": lambda: clipnlc.ensemble_of(
            {"a": eye}, features={"a": eye.astype(int)}
        ),
        "'x' is repeated, in rows 0 and 2": lambda: clipnlc.ensemble_of(
            {"a": eye}, sample_id=["x", "y", "x"]
        ),
        "class_names has 2 names for 3": lambda: clipnlc.ensemble_of({"a": eye}, class_names="ab"),
        r"row 4 \('4'\) has label -1": lambda: clipnlc.fit(
            train, np.r_[labels[:4], -1, labels[5:]]
        ),
        "labels are float64": lambda: clipnlc.fit(train, labels / 2, "log-avg"),
        "unknown combiner 'gpp'; did you mean 'gp'": lambda: clipnlc.fit(train, labels, "gpp"),
        "static cannot be fitted: .*colour": lambda: clipnlc.fit(train, labels, "static", colour=1),
        "scores of vote-1 are no logits": lambda: clipnlc.fit(
            train, labels, "vote-1"
        ).probabilities(test),
        "test and test_labels together": lambda: clipnlc.compare(train, labels, test),
        "4 labelled rows cannot be divided": lambda: clipnlc.compare(
            train.rows(range(4)), labels[:4], combiners="log-avg"
        )["log-avg"],
    }.items():
        with pytest.raises(clipnlc.ClipnlcError, match=problem):
            call()


def test_the_page_runs_as_printed():
    text = PAGE.read_text("utf-8")
    blocks = re.findall(r"```python\n(.*?)```\n(?:\n```text\n(.*?)```)?", text, re.DOTALL)
    assert len(blocks) >= 2
    code = "".join(code for code, _ in blocks)
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "".join(printed for _, printed in blocks)


def test_every_public_name_is_described_on_the_page_and_loads_late():
    text = PAGE.read_text("utf-8")
    for name in clipnlc.__all__:
        assert ">>>" in getattr(clipnlc, name).__doc__, name
        assert f"`{name}" in text or f"`clipnlc.{name}" in text, name
        assert name in dir(clipnlc)
    with pytest.raises(AttributeError, match="no attribute 'fitt'"):
        _ = clipnlc.fitt
    heavy = "{'numpy', 'torch', 'h5py', 'datasets'} & set(sys.modules)"
    code = f"import sys, clipnlc; assert not {heavy}; clipnlc.fit; print(*{heavy})"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "torch" not in found.stdout
