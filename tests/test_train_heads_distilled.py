"""Heads that learn from a fitted ensemble: what they are made from, and who may combine them."""

import numpy as np
import pytest
from heads_examples import write_fruit
from scipy.special import softmax
from stores_examples import quick_disk  # noqa: F401  (a fixture for all tests)

from clipnlc.errors import DataError, MissingStageError, StoreError
from clipnlc.heads.distilled import DistilledHead
from clipnlc.labels import Labels
from clipnlc.runs.members import members_name
from clipnlc.stages.evaluate import evaluate
from clipnlc.stages.train_heads import train_heads
from clipnlc.stages.train_nlc import train_nlc
from clipnlc.stores.features import read_features
from clipnlc.stores.fits import read_fits
from clipnlc.stores.layout import Layout
from clipnlc.stores.logits import read_logits
from clipnlc.stores.status import store_status

BACKBONES = ("nano-RN101", "nano-RN50", "nano-ViT-B-32")
STUDENT = "nano-RN50"
NONE, FOUR = Labels.none(), Labels.shots(4, seed=1)
BOTH = (NONE, Labels.shots(4))


@pytest.fixture
def layout(tmp_path) -> Layout:
    """A store with features and zero-shot logits of three backbones, and no fit."""
    layout = Layout(tmp_path / "store")
    for backbone in BACKBONES:
        write_fruit(layout, backbone)
    return layout


def teachers(layout, **more):
    given = {"combiners": ["balanced", "balanced-gp"], "labels": [Labels.shots(4)], **more}
    return train_nlc(store=layout.root, seeds=(0, 1), **given)


def students(layout, *, labels=BOTH, **more):
    given = {"backbones": [STUDENT], "seeds": (0, 1), **more}
    return train_heads(store=layout.root, head="distilled", labels=labels, **given)


def combined(layout, **more):
    given = {"combiners": ["log-avg", "conf"], "labels": BOTH, **more}
    return train_nlc(store=layout.root, head="distilled", seeds=(0, 1), **given)


def stored(layout, which, backbone=STUDENT):
    return read_logits(layout.logits("fruit", "distilled", backbone, which.name))


def test_learns_what_the_fit_says_of_every_image_of_train(layout):
    """The teacher's formula is written again: w and a of `balanced`, on the stored logits."""
    teachers(layout)
    assert [t.run for t in students(layout)] == [NONE, Labels.shots(4), FOUR]
    fit = read_fits(layout.fits("fruit", "zero-shot", members_name(BACKBONES), "no-labels"))
    learnt = fit.fits["balanced"].learnt
    zero = [read_logits(layout.logits("fruit", "zero-shot", b)) for b in fit.backbones]
    order = [fit.class_names.index(name) for name in zero[0].class_names]
    rows = zero[0].splits["train"]
    scores = sum(w * z.splits["train"].logits for w, z in zip(learnt["weight_"], zero, strict=True))
    train = read_features(layout.features("fruit", "train", STUDENT))
    expected = DistilledHead().fit(
        features=train.features,
        labels=np.zeros(60, dtype=int),
        sample_id=rows.sample_id,
        texts=train.texts,
        logit_scale=train.logit_scale,
        logit_bias=train.logit_bias,
        targets=softmax(scores + learnt["offset_"][order], axis=1),
    )
    found = stored(layout, NONE)
    np.testing.assert_allclose(found.learnt["weight_"], expected.weight_, atol=1e-4)
    assert found.facts["sigma"] == expected.facts()["sigma"]
    assert list(found.splits) == ["holdout", "test"]
    assert found.splits["holdout"].sample_id == train.sample_id
    with_labels = stored(layout, FOUR)
    drawn = FOUR.draw(train.labels, train.sample_id, classes=3).rows
    rest = np.setdiff1d(np.arange(60), drawn)
    assert with_labels.splits["holdout"].sample_id == tuple(train.sample_id[r] for r in rest)
    assert (with_labels.facts["rows"], with_labels.facts["labels"]) == (60, 12)
    assert not np.allclose(with_labels.learnt["weight_"], expected.weight_, atol=1e-3)


def test_no_label_is_read_but_by_the_teacher(layout):
    """Labels of train change nothing without labels, and neither do those of test."""
    teachers(layout)
    students(layout, labels=[NONE])
    before = stored(layout, NONE).learnt
    key = stored(layout, NONE).key.fields["teacher"]
    assert key["combiner"] == "balanced"
    assert key["backbones"] == list(BACKBONES)
    assert set(stored(layout, NONE).key.inputs) == {
        f"fruit/features/{split}/{STUDENT}.h5" for split in ("train", "test")
    } | {f"fruit/logits/zero-shot/{b}.h5#train" for b in BACKBONES} | {
        f"fruit/fits/zero-shot/{members_name(BACKBONES)}/no-labels.h5#balanced"
    }
    assert before.keys() == {"weight_", "bias_", "logit_scale_", "sigma_", "agreement_"}


def test_a_teacher_that_was_fitted_anew_makes_its_students_stale(layout):
    teachers(layout)
    students(layout)
    combined(layout)
    evaluate(store=layout.root, head="distilled")
    assert all(t.cached for t in students(layout))
    assert not [row for row in store_status(layout.root) if row.stale or not row.complete]
    teachers(layout, settings={"balanced-gp": {"sigma": 1.0}})
    stale = [row.path for row in store_status(layout.root) if row.stale and row.kind == "logits"]
    runs = (Labels.shots(4).name, FOUR.name)
    assert stale == [f"fruit/logits/distilled/{run}/{STUDENT}.h5" for run in runs]
    cure = (
        r"shots-seed-0/nano-RN50\.h5 is stale: fruit/fits/zero-shot/.*#balanced-gp has changed since; "
        "run `clipnlc train-heads --dataset fruit --head distilled --backbones nano-RN50 --shots 4 "
        "--seeds 2 "
    )
    with pytest.raises(StoreError, match=cure):
        evaluate(store=layout.root, head="distilled")
    again = students(layout)
    assert [t.cached for t in again] == [True, False, False]
    assert (
        again[1].changed[0].startswith('inputs: {"fruit/') or "teacher.fit" in again[1].changed[-1]
    )
    evaluate(store=layout.root, head="distilled")


def test_the_table_has_the_students_by_themselves_and_combined(layout):
    teachers(layout)
    students(layout, backbones=[STUDENT, "nano-ViT-B-32"])
    runs = combined(layout)
    assert [(r.which, r.labels) for r in runs] == [(NONE, 0), (Labels.shots(4), 12), (FOUR, 12)]
    (one,) = evaluate(store=layout.root, head="distilled").datasets
    rows = {(r.method, r.drawn): r for r in one.rows}
    labels = read_features(layout.features("fruit", "test", STUDENT)).labels
    for which in BOTH:
        seeds = (which,) if which is NONE else (which, FOUR)
        logits = [
            [stored(layout, s, b).splits["test"].logits for b in (STUDENT, "nano-ViT-B-32")]
            for s in seeds
        ]
        own = tuple((each[0].argmax(1) == labels).mean() for each in logits)
        assert rows[STUDENT, which].accuracies == own
        both = tuple((np.mean(each, axis=0).argmax(1) == labels).mean() for each in logits)
        assert rows["log-avg", which].accuracies == pytest.approx(both)
        assert rows["log-avg", which].labels == 3 * which.amount


class TestRefusals:
    def test_no_teacher(self, layout):
        cure = (
            "no fit of balanced without labels .* on the zero-shot logits of every backbone of fruit to "
            "learn from; run `clipnlc train-nlc --dataset fruit --combiners balanced,balanced-gp "
            "--shots 4 --seeds 2 --store"
        )
        with pytest.raises(MissingStageError, match=cure):
            students(layout)
        teachers(layout)
        with pytest.raises(MissingStageError, match=r"of balanced-gp at 2 per class .* --shots 2 "):
            students(layout, labels=[Labels.shots(2)])

    def test_a_teacher_of_other_backbones_is_none(self, layout):
        teachers(layout, backbones=BACKBONES[:2])
        with pytest.raises(MissingStageError, match="logits of every backbone of fruit"):
            students(layout)

    def test_a_stale_teacher(self, layout):
        teachers(layout)
        write_fruit(layout, BACKBONES[0], seed=1)
        with pytest.raises(StoreError, match=r"stale: .* run `clipnlc train-nlc"):
            students(layout)

    @pytest.mark.parametrize(
        ("teacher", "labels", "message"),
        [
            ("gp", NONE, "the teacher gp needs labels; give --shots 1 or more, or give another"),
            ("balanced", FOUR, "balanced learns from no label; give --shots 0, or give another"),
            ("vote-1", NONE, "vote-1 does not give an image probabilities of the classes; give an"),
            ("conf-ot", NONE, "conf-ot answers an image by looking at the others with it; give an"),
        ],
    )
    def test_a_teacher_that_cannot_teach_this(self, layout, teacher, labels, message):
        with pytest.raises(DataError, match=message):
            students(layout, labels=[labels], teacher=teacher)

    def test_a_head_without_a_teacher(self, layout):
        with pytest.raises(DataError, match="the head rla has no teacher; give --head distilled"):
            train_heads(store=layout.root, head="rla", teacher="gp")

    def test_combiners_that_learn(self, layout):
        teachers(layout)
        students(layout)
        message = (
            "static learns, and the teacher of the head distilled has seen .* --combiners param"
        )
        with pytest.raises(DataError, match=message):
            combined(layout, combiners=["log-avg", "static"])
        with pytest.raises(MissingStageError, match=r"--head distilled --backbones .* --shots 0 "):
            combined(layout, backbones=["nano-RN101"], labels=[NONE])
