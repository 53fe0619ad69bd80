"""Training heads: which rows they see, what is written, and what is left alone."""

import itertools
import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from command_line import BACKBONES, contents, good, refusal
from heads_examples import NearestMean
from stores_examples import quick_disk, write_features  # noqa: F401  (a fixture for all tests)
from threadpoolctl import threadpool_info, threadpool_limits

from clipnlc.errors import DataError, MissingStageError, UnknownNameError
from clipnlc.extraction.finishing import write_zero_shot_logits
from clipnlc.heads import HEADS
from clipnlc.heads.linear import LinearHead
from clipnlc.labels import Labels
from clipnlc.runs import head_training
from clipnlc.runs.heads import open_heads
from clipnlc.stages.train_heads import train_heads
from clipnlc.stores.features import read_features
from clipnlc.stores.key import Key
from clipnlc.stores.layout import Layout
from clipnlc.stores.logits import read_logits, write_logits
from clipnlc.stores.status import store_status

QUICK = {"epochs": 3, "learning_rate": 1e-3}
CLASSES = ("pear", "fig", "apple")


class NeedsValidation(NearestMean):
    needs_validation = True


class CountsThreads(NearestMean):
    """Learns how many BLAS threads there are, instead of anything else."""

    def _learn(self, examples, *, texts, logit_scale, logit_bias):
        super()._learn(examples, texts=texts, logit_scale=logit_scale, logit_bias=logit_bias)
        threads = [i["num_threads"] for i in threadpool_info() if i["user_api"] == "blas"]
        self.bias_ = np.full(examples.classes, max(threads), dtype=np.float32)


@pytest.fixture
def new_head(monkeypatch):
    """Add a head of this file to the registry: the one row that a new head needs."""
    return lambda name, cls: monkeypatch.setitem(HEADS.table, name, f"{__name__}:{cls.__name__}")


def write_split(layout, split, rows, *, dim=16, backbone="nano-RN50", dataset="fruit"):
    """Write features around class centres, with other labels in other splits."""
    random = np.random.default_rng([rows, dim])
    labels = random.integers(0, len(CLASSES), rows)
    centres = np.random.default_rng(0).normal(size=(len(CLASSES), dim))
    features = centres[labels] + random.normal(size=(rows, dim))
    return write_features(
        layout.features(dataset, split, backbone),
        features.astype(np.float32),
        key=Key.of({"backbone": backbone, "split": split, "dim": dim}),
        labels=labels,
        sample_id=tuple(f"{split}/{row:04}.png" for row in range(rows)),
        class_names=CLASSES,
    )


@pytest.fixture
def layout(tmp_path):
    """A store with features of one backbone."""
    layout = Layout(tmp_path)
    write_split(layout, "train", 60)
    write_split(layout, "test", 31)
    return layout


def heads_of_runs(layout, dataset, head="linear"):
    folder = layout.logits(dataset, head, "any").parent
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")


def stored(layout, *, head="linear", run=None, backbone="nano-RN50"):
    return read_logits(layout.logits("fruit", head, backbone, run=run))


class TestHoldout:
    def test_the_head_has_not_seen_what_it_keeps(self, layout):
        (trained,) = train_heads(store=layout.root, settings=QUICK)
        train = read_features(layout.features("fruit", "train", "nano-RN50"))
        held = Labels.holdout(0.1).draw(train.labels, train.sample_id, classes=3).rows
        kept = np.setdiff1d(np.arange(60), held)
        found = stored(layout)
        assert list(found.splits) == ["holdout", "test"]
        assert found.splits["holdout"].sample_id == tuple(train.sample_id[i] for i in held)
        head = LinearHead(**QUICK).fit(
            features=train.features[kept],
            labels=train.labels[kept],
            sample_id=[train.sample_id[i] for i in kept],
            texts=train.texts,
            logit_scale=train.logit_scale,
        )
        np.testing.assert_array_equal(found.learnt["weight_"], head.weight_)
        logits = head.logits(train.features[held])
        np.testing.assert_array_equal(found.splits["holdout"].logits, logits)
        assert (trained.rows, trained.held_out) == (len(kept), len(held))
        assert trained.accuracy == (logits.argmax(axis=1) == train.labels[held]).mean()
        assert (trained.head, trained.run, trained.facts) == ("linear", None, {"epochs": 3})

    def test_what_is_stored_as_learnt_gives_the_same_bits_in_any_block(self, layout, monkeypatch):
        train_heads(store=layout.root, settings=QUICK)
        found = stored(layout)
        head = LinearHead.rebuild(found.key.fields["settings"], found.learnt)
        test = read_features(layout.features("fruit", "test", "nano-RN50")).features
        for length in (1, 7, 31):
            blocks = [head.logits(test[i : i + length]) for i in range(0, 31, length)]
            np.testing.assert_array_equal(np.concatenate(blocks), found.splits["test"].logits)
        before = layout.logits("fruit", "linear", "nano-RN50").read_bytes()
        layout.logits("fruit", "linear", "nano-RN50").unlink()
        monkeypatch.setattr(head_training, "_BLOCK", 2)
        train_heads(store=layout.root, settings=QUICK)
        assert layout.logits("fruit", "linear", "nano-RN50").read_bytes() == before

    def test_cached_until_something_changes(self, layout):
        first = train_heads(store=layout.root, settings=QUICK)
        again = train_heads(store=layout.root, settings=QUICK)
        assert again == [replace(first[0], cached=True)]
        (changed,) = train_heads(store=layout.root, settings={**QUICK, "epochs": 4})
        assert changed.changed == ("settings.epochs: 3 -> 4",)
        (changed,) = train_heads(store=layout.root, settings=QUICK, holdout=0.2, seed=1)
        assert changed.changed == (
            "holdout: 0.1 -> 0.2",
            "settings.epochs: 4 -> 3",
            "settings.seed: 0 -> 1",
        )

    def test_a_head_of_version_1_stays_where_its_settings_are_the_same(self, layout):
        train_heads(store=layout.root, settings=QUICK)
        path, found = layout.logits("fruit", "linear", "nano-RN50"), stored(layout)
        settings = {"epochs": 3, "learning_rate": 1e-3, "batch_size": 256, "early_stopping": 0.0}
        older = {
            "head": "linear",
            "backbone": "nano-RN50",
            "holdout": 0.1,
            "seed": 0,
            **settings,
            "inputs": found.key.inputs,
        }
        facts = {**found.facts, "linear_accuracy": found.facts["accuracy"]}
        del facts["accuracy"]
        write_logits(path, replace(found, key=Key.of(older), facts=facts))
        before = path.read_bytes()
        (trained,) = train_heads(store=layout.root, settings=QUICK)
        assert trained.cached
        assert trained.accuracy == found.facts["accuracy"]
        assert path.read_bytes() == before
        (trained,) = train_heads(
            store=layout.root, settings={**QUICK, "epochs": 5, "stopping_share": 0.25}
        )
        assert trained.changed == (
            "settings.epochs: 3 -> 5",
            "settings.stopping_share: 0.0 -> 0.25",
        )

    def test_threads_change_no_byte(self, tmp_path):
        made = []
        for threads in ("1", "2"):
            layout = Layout(tmp_path / threads)
            write_split(layout, "train", 700, dim=300)
            write_split(layout, "test", 600, dim=300)
            line = ["train-heads", "--epochs", "2", "--store", str(layout.root)]
            done = subprocess.run(
                [sys.executable, "-m", "clipnlc", *line],
                env={**os.environ, "OMP_NUM_THREADS": threads},
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done
            made.append(contents(layout.root))
        assert made[0] == made[1]

    def test_one_thread_is_used(self, layout, new_head):
        new_head("counts-threads", CountsThreads)
        with threadpool_limits(limits=2):
            train_heads(store=layout.root, head="counts-threads")
        assert stored(layout, head="counts-threads").learnt["bias_"].tolist() == [1, 1, 1]


class TestPerRun:
    def test_fits_each_draw_and_keeps_the_rest(self, layout):
        labels = [Labels.shots(1), Labels.shots(4)]
        trained = train_heads(store=layout.root, settings=QUICK, labels=labels, seeds=(0, 1))
        assert [t.run.name for t in trained] == [
            "1-shots-seed-0",
            "4-shots-seed-0",
            "1-shots-seed-1",
            "4-shots-seed-1",
        ]
        assert [(t.rows, t.held_out) for t in trained] == [(3, 57), (12, 48)] * 2
        train = read_features(layout.features("fruit", "train", "nano-RN50"))
        for each in trained:
            drawn = each.run.draw(train.labels, train.sample_id, classes=3).rows
            found = stored(layout, run=each.run.name)
            rest = np.setdiff1d(np.arange(60), drawn)
            assert found.splits["holdout"].sample_id == tuple(train.sample_id[i] for i in rest)
            assert len(found.splits["test"].labels) == 31
            assert found.key.fields["labels"] == each.run.name
            assert found.key.fields["settings"]["seed"] == each.run.seed
            head = LinearHead.rebuild(found.key.fields["settings"], found.learnt)
            logits = head.logits(train.features[rest])
            np.testing.assert_array_equal(found.splits["holdout"].logits, logits)
            assert each.accuracy == (logits.argmax(axis=1) == train.labels[rest]).mean()
        weights = [stored(layout, run=t.run.name).learnt["weight_"] for t in trained]
        assert not any(np.array_equal(*pair) for pair in itertools.combinations(weights, 2))
        again = train_heads(store=layout.root, settings=QUICK, labels=labels, seeds=(0, 1))
        assert again == [replace(each, cached=True) for each in trained]

    def test_the_head_with_a_hold_out_stays_beside(self, layout):
        train_heads(store=layout.root, settings=QUICK)
        before = layout.logits("fruit", "linear", "nano-RN50").read_bytes()
        train_heads(store=layout.root, settings=QUICK, labels=[Labels.shots(2)], seeds=(0,))
        assert layout.logits("fruit", "linear", "nano-RN50").read_bytes() == before
        assert heads_of_runs(layout, "fruit") == ["2-shots-seed-0"]

    def test_where_nothing_is_left_there_is_no_hold_out(self, layout):
        (trained,) = train_heads(
            store=layout.root, settings=QUICK, labels=[Labels.all()], seeds=(0,)
        )
        assert (trained.rows, trained.held_out) == (60, 0)
        assert (trained.accuracy, trained.zero_shot) == (None, None)
        assert list(stored(layout, run="all-labels-seed-0").splits) == ["test"]

    def test_features_are_read_once(self, layout, monkeypatch):
        read, real = [], head_training.read_features
        monkeypatch.setattr(
            head_training, "read_features", lambda p: read.append(p.parent.name) or real(p)
        )
        labels = [Labels.shots(1), Labels.shots(2)]
        train_heads(store=layout.root, settings=QUICK, labels=labels)
        assert read == ["train", "test"]
        train_heads(store=layout.root, settings=QUICK, labels=labels)
        assert read == ["train", "test"]

    def test_no_labels_are_refused(self, layout):
        with pytest.raises(DataError, match="the head linear needs labels; give --shots 1"):
            train_heads(store=layout.root, labels=[Labels.none()])

    def test_the_command(self, extracted, here):
        line = ["train-heads", "--shots", "1,4", "--seeds", 2, "--epochs", 2, "--store", extracted]
        said = good(*line, by=here)
        assert "photos: 4 heads trained at 1 per class, on 3 images each; of 21 held-out" in said
        assert "photos: 4 heads trained at 4 per class, on 12 images each; of 12 held-out" in said
        names = BACKBONES.split(",")
        layout = Layout(extracted)
        assert len(heads_of_runs(layout, "photos")) == 4
        assert layout.logits("photos", "linear", names[0], run="4-shots-seed-1").exists()
        value = json.loads(good(*line, "--json", by=here))
        assert [(h["backbone"], h["run"]["amount"], h["cached"]) for h in value] == [
            (name, amount, True) for name in names for _ in range(2) for amount in (1, 4)
        ]
        found = [r for r in store_status(extracted) if r.kind == "logits" and r.head == "linear"]
        assert len(found) == 8
        assert all(row.complete and not row.stale and row.run for row in found)


class TestBuiltAgain:
    def test_every_head_gives_the_stored_bits_again(self, layout):
        write_zero_shot_logits(layout, "fruit", "nano-RN50")
        train_heads(store=layout.root, settings={"epochs": 2})
        test = read_features(layout.features("fruit", "test", "nano-RN50"))
        for name in ("zero-shot", "linear"):
            heads = open_heads(layout, "fruit", name, ["nano-RN50"])
            path = layout.logits("fruit", name, "nano-RN50")
            stored = read_logits(path).splits["test"]
            for rows in (slice(0, 31), slice(0, 5), slice(30, 31)):
                found = heads.ensemble([test.features[rows]], test.sample_id[rows]).logits[0]
                np.testing.assert_array_equal(found, stored.logits[rows])

    def test_a_zero_shot_file_without_learnt_arrays_is_built_of_the_texts(self, layout):
        write_zero_shot_logits(layout, "fruit", "nano-RN50")
        path = layout.logits("fruit", "zero-shot", "nano-RN50")
        (new,) = open_heads(layout, "fruit", "zero-shot", ["nano-RN50"]).heads
        write_logits(path, replace(read_logits(path), learnt={}))
        (old,) = open_heads(layout, "fruit", "zero-shot", ["nano-RN50"]).heads
        for name, value in new.state().items():
            np.testing.assert_array_equal(old.state()[name], value)


class TestRefusals:
    def test_an_unknown_head(self, layout):
        with pytest.raises(UnknownNameError, match="unknown head 'liner'; did you mean 'linear'"):
            train_heads(store=layout.root, head="liner")

    def test_a_head_that_is_not_trained(self, layout):
        message = (
            "the head zero-shot needs no labels, and extract has made it; choose another --head"
        )
        with pytest.raises(DataError, match=message):
            train_heads(store=layout.root, head="zero-shot")

    @pytest.mark.parametrize(
        ("cls", "message"),
        [
            (NeedsValidation, "the head new needs labelled rows to choose by, which train-heads"),
        ],
    )
    def test_a_head_that_needs_what_there_is_not(self, cls, message, layout, new_head):
        new_head("new", cls)
        with pytest.raises(DataError, match=message):
            train_heads(store=layout.root, head="new")

    def test_an_unknown_setting(self, layout):
        message = "unknown setting of the head linear, 'epoch'; did you mean 'epochs'.*patience"
        with pytest.raises(UnknownNameError, match=message):
            train_heads(store=layout.root, settings={"epoch": 3})
        with pytest.raises(UnknownNameError, match="unknown setting of the head linear, 'seed'"):
            train_heads(store=layout.root, settings={"seed": 3})

    def test_a_share_of_everything(self, layout):
        with pytest.raises(DataError, match=r"--early-stopping is 1\.0; give a share of at least"):
            train_heads(store=layout.root, settings={"stopping_share": 1.0})
        with pytest.raises(DataError, match=r"--holdout is 1\.0; give a share of at least 0\.01"):
            train_heads(store=layout.root, holdout=1.0)

    def test_cures_name_the_store(self, tmp_path):
        cure = f"run `clipnlc extract --dataset … --store {tmp_path}` first"
        with pytest.raises(MissingStageError, match=cure):
            train_heads(store=tmp_path)
        write_split(Layout(tmp_path), "test", 31)
        cure = f"`clipnlc train-nlc --dataset fruit --combiners parameter-free --store {tmp_path}`"
        with pytest.raises(MissingStageError, match=cure):
            train_heads(store=tmp_path)

    def test_settings_of_another_head(self, layout, new_head, here):
        new_head("nearest-mean", NearestMean)
        line = ["train-heads", "--head", "nearest-mean", "--epochs", 3, "--store", layout.root]
        said = refusal(*line, by=here)
        assert "the head nearest-mean has no settings, and 'epochs' was given; leave its" in said


def test_a_new_head_is_one_file_and_one_row(layout, new_head, here):
    """The class is in this file, and the row is added here: nothing else knows of it."""
    new_head("nearest-mean", NearestMean)
    said = good("train-heads", "--head", "nearest-mean", "--store", layout.root, by=here)
    assert "fruit: 1 head trained, on 54 images each" in said
    assert "next: clipnlc train-nlc --head nearest-mean --holdout 1" in said
    found = stored(layout, head="nearest-mean")
    head = NearestMean.rebuild(found.key.fields["settings"], found.learnt)
    for split, features in (("test", "test"), ("holdout", "train")):
        given = read_features(layout.features("fruit", features, "nano-RN50"))
        rows = [given.sample_id.index(name) for name in found.splits[split].sample_id]
        logits = head.logits(given.features[rows])
        np.testing.assert_array_equal(found.splits[split].logits, logits)
        assert (logits.argmax(axis=1) == given.labels[rows]).mean() > 0.5
    (row,) = [r for r in store_status(layout.root) if r.kind == "logits"]
    assert (row.head, row.complete, row.stale) == ("nearest-mean", True, False)


@pytest.mark.parametrize(
    ("option", "setting"),
    [
        ("epochs", "epochs"),
        ("learning-rate", "learning_rate"),
        ("batch-size", "batch_size"),
        ("early-stopping", "stopping_share"),
    ],
)
def test_the_help_names_the_defaults(option, setting):
    import typer  # noqa: PLC0415

    from clipnlc.cli.app import app  # noqa: PLC0415

    options = typer.main.get_command(app).commands["train-heads"].params
    (found,) = [o for o in options if f"--{option}" in o.opts]
    assert f"; {LinearHead().settings()[setting]} if not given" in found.help
