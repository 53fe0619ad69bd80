"""A whole store of format version 1, under today's commands: nothing of it is lost."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from clipnlc.errors import StoreError
from clipnlc.labels import Labels
from clipnlc.reports.record import DatasetEvaluation
from clipnlc.stages.evaluate import evaluate
from clipnlc.stages.train_nlc import train_nlc
from clipnlc.stages.verify import verify
from clipnlc.stores.combined import read_combined
from clipnlc.stores.fits import read_fits
from clipnlc.stores.given import read_given
from clipnlc.stores.layout import Layout
from clipnlc.stores.logits import read_logits, write_logits
from clipnlc.stores.status import store_status

ARCHIVE = Path(__file__).parent / "data" / "archives" / "store-v1"
HEADS = ("zero-shot", "linear")
each_head = pytest.mark.parametrize("head", HEADS)


@pytest.fixture
def layout(tmp_path) -> Layout:
    return Layout(Path(shutil.copytree(ARCHIVE / "store", tmp_path / "store")))


def printed(head: str, one: DatasetEvaluation) -> list[str]:
    names = {"none": "no-labels", "shots": "shots-1", "holdout": "holdout-1"}
    return [
        f"{head} {row.method} {names[row.drawn.kind]} {100 * row.accuracy:.1f}" for row in one.rows
    ]


def as_printed_then(head: str) -> list[str]:
    lines = (ARCHIVE / "accuracies.txt").read_text().splitlines()
    return [line for line in lines if line.startswith(f"{head} ")]


@each_head
def test_its_fits_are_applied_with_the_accuracies_of_then(head, layout):
    before = {path: path.read_bytes() for path in layout.root.rglob("*") if path.is_file()}
    (tiny,) = evaluate(store=layout.root, head=head).datasets
    assert printed(head, tiny) == as_printed_then(head)
    assert {path: path.read_bytes() for path in before} == before
    # Not what it said then is believed, but what it learnt.
    assert len(list(layout.root.rglob("tiny/given/tiny/*/*/*/test.h5"))) == 2


@each_head
def test_its_fits_give_the_weights_of_then(head, layout):
    evaluate(store=layout.root, head=head)
    for run in layout.combined_runs("tiny", head):
        then = read_combined(layout.combined("tiny", head, run))
        (path,) = layout.root.glob(f"tiny/given/tiny/{head}/*/{run}/test.h5")
        now = read_given(path)
        assert now.backbones == then.backbones
        for name, combination in then.combinations.items():
            if combination.weights is not None:
                assert now.given[name].weights == pytest.approx(combination.weights, abs=1e-5)


@each_head
def test_its_heads_and_fits_are_applied_elsewhere(head, layout):
    features = layout.dataset("tiny") / "features" / "test"
    shutil.copytree(features, layout.dataset("copy") / "features" / "test")
    (copy,) = evaluate(store=layout.root, head=head, datasets=["copy"], fitted_on="tiny").datasets
    assert printed(head, copy) == as_printed_then(head)


def test_old_and_new_runs_live_side_by_side(layout):
    train_nlc(
        store=layout.root,
        labels=[Labels.count(3)],
        seeds=(0,),
        combiners=["nlc", "conf"],
        settings={"nlc": {"steps": 5}},
    )
    evaluation = evaluate(store=layout.root)
    rows = {(row.method, row.drawn) for row in evaluation.summary}
    assert {
        ("nlc", Labels.count(3)),
        ("nlc", Labels.shots(1)),
        ("gac", Labels.shots(1)),
        ("conf", Labels.none()),
    } <= rows
    # The run without labels was made again, and stands for the old one of the same name.
    assert ("vote-1", Labels.none()) not in rows
    assert layout.combined("tiny", "zero-shot", "no-labels").is_file()
    found = verify(store=layout.root)
    assert found.damage == []
    kinds = {row.kind for row in store_status(layout.root)}
    assert {"combined", "fits", "given"} <= kinds
    assert not any(row.stale for row in store_status(layout.root))


def test_its_runs_are_fitted_again_from_the_same_labels(layout):
    """The key has other names now, so they are not taken for cached; the draws are the same."""
    (run,) = train_nlc(
        store=layout.root, labels=[Labels.shots(1)], seeds=(0,), combiners=["static"]
    )
    assert run.combiners == ("static",)
    (path,) = layout.root.glob("tiny/fits/zero-shot/*/1-shots-seed-0.h5")
    old = read_fits(layout.combined("tiny", "zero-shot", "1-shots-seed-0")).fits["static"]
    new = read_fits(path).fits["static"]
    assert new.facts["labels"] == old.facts["labels"]
    assert new.facts["labelled_samples"] == old.facts["labelled_samples"]
    assert new.learnt["weight_"].shape == old.learnt["weight_"].shape  # they are pulled now


def test_its_runs_are_stale_when_their_logits_change(layout):
    path = layout.logits("tiny", "zero-shot", "nano-RN50")
    write_logits(path, replace(read_logits(path), facts={"changed": 1}))
    with pytest.raises(StoreError, match=r"tiny/combined/zero-shot/.* stale: .*train-nlc"):
        evaluate(store=layout.root)
    stale = {row.path for row in store_status(layout.root) if row.stale}
    assert "tiny/combined/zero-shot/1-shots-seed-0.h5" in stale
