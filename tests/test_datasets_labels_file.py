"""`--labels FILE`: a table of files and labels; images that it gives no label are `unlabelled`."""

import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets_on_disk import png, put
from extracting import run

from clipnlc.combiners import COMBINERS
from clipnlc.datasets import open_dataset
from clipnlc.datasets.drawn import Draw, Row, write_draw
from clipnlc.datasets.label_names import class_counts, near_names
from clipnlc.ensemble import Ensemble, by_name
from clipnlc.errors import DataError, MissingStageError
from clipnlc.labels import NO_LABEL, Labels
from clipnlc.runs.finding import find_runs, read_fitted
from clipnlc.stages.diversity import diversity
from clipnlc.stages.evaluate import evaluate
from clipnlc.stages.train_nlc import train_nlc
from clipnlc.stages.verify import verify
from clipnlc.stores.aligned import open_ensemble
from clipnlc.stores.features import read_features
from clipnlc.stores.layout import Layout

RESNET = "nano-RN50"
ROWS = [("a.png", "cat"), ("b.png", "dog"), ("c.png", "cat"), ("d.png", "dog"), ("e.png", "")]


@pytest.fixture
def photos(tmp_path):
    """Seven photos, of which the last is in no table."""
    for number, name in enumerate("abcdefg"):
        put(tmp_path / f"photos/{name}.png", png(number))
    return tmp_path / "photos"


def write(path, rows=ROWS, header="file,label"):
    path.write_text("\n".join([header, *(",".join(row) for row in rows)]))
    return path


def opened(photos, labels, **options):
    found = open_dataset(str(photos), labels=labels, **options)
    return {name: found.open(name) for name in found.split_names()}


def test_labelled_rows_are_train_and_all_others_unlabelled(photos, tmp_path):
    found = opened(photos, write(tmp_path / "elsewhere.csv"))
    assert {n: (s.sample_id, s.labels.tolist()) for n, s in found.items()} == {
        "train": (("a.png", "b.png", "c.png", "d.png"), [0, 1, 0, 1]),
        "unlabelled": (("e.png", "f.png", "g.png"), [NO_LABEL] * 3),
    }
    assert found["train"].class_names == found["unlabelled"].class_names == ("cat", "dog")
    assert [s.label for s in found["unlabelled"].read()] == [NO_LABEL] * 3


def test_paths_may_be_as_seen_from_elsewhere(photos, tmp_path, monkeypatch):
    want = opened(photos, write(tmp_path / "l.csv"))["train"].sample_id
    monkeypatch.chdir(tmp_path)
    for start in (f"{photos}/", "photos/", "./photos/"):
        rows = [(f"{start}{file}", label) for file, label in ROWS]
        assert opened(photos, write(tmp_path / "l.csv", rows))["train"].sample_id == want
        (tmp_path / "deep").mkdir(exist_ok=True)
        assert opened(photos, write(tmp_path / "deep/l.csv", rows))["train"].sample_id == want
    rows = [*ROWS, ("gone.png", "cat")]
    lacking = (
        f"'gone.png' is no image below {photos}; write the path from {photos} in column 'file'"
    )
    with pytest.raises(DataError, match=re.escape(lacking)):
        opened(photos, write(tmp_path / "l.csv", rows))


def test_parquet_and_other_tables_say_the_same(photos, tmp_path):
    want = {n: s.fingerprint for n, s in opened(photos, write(tmp_path / "l.csv")).items()}
    cells = [(file, label or None) for file, label in ROWS]
    table = pa.table({"path": [f for f, _ in cells], "class": [label for _, label in cells]})
    pq.write_table(table, tmp_path / "labels.parquet")
    assert {
        n: s.fingerprint for n, s in opened(photos, tmp_path / "labels.parquet").items()
    } == want
    write(photos / "other.csv", [("a.png", "dog")])  # in the folder, and not asked for
    write(tmp_path / "predictions.csv", header="image,label")
    assert {
        n: s.fingerprint for n, s in opened(photos, tmp_path / "predictions.csv").items()
    } == want


def test_class_names_may_be_more_than_labels(photos, tmp_path):
    labels = write(tmp_path / "l.csv")
    found = opened(photos, labels, classes=("bird", "dog", "cat"))
    assert found["train"].class_names == ("bird", "dog", "cat")
    assert found["train"].labels.tolist() == [2, 1, 2, 1]
    assert set(found["unlabelled"].labels.tolist()) == {NO_LABEL}
    with pytest.raises(DataError, match=r"l.csv, line 2: 'cat' is no class of --classes"):
        opened(photos, labels, classes=("bird", "dog"))


def test_classes_are_counted_and_near_names_are_said(photos, tmp_path):
    for number in range(30):
        put(photos / f"{number}.png", png(number))
    kinds = ["triangle", "circle", "Circle"]
    rows = [(f"{number}.png", kinds[number % 3]) for number in range(30)]
    labels = write(tmp_path / "l.csv", [*rows, ("a.png", "trinagle")])
    notes = opened(photos, labels)["train"].notes
    counts = "4 classes: Circle 10, circle 10, triangle 10, trinagle 1"
    assert f"labels are from l.csv (columns file, label): {counts}" in notes
    merged = "circle,triangle"
    assert (
        "'trinagle' (1 image) is nearly 'triangle' (10): if they are one class, give "
        "--classes circle,triangle"
    ) in notes
    (alike,) = (note for note in notes if "differ in case" in note)
    assert "write them alike in the table of labels, or give --classes circle,triangle" in alike
    assert "--class-names" not in alike
    with pytest.raises(DataError, match=r"'trinagle' is no class of --classes \(circle, triangle"):
        opened(photos, labels, classes=tuple(merged.split(",")))
    merging = opened(photos, write(tmp_path / "m.csv", rows), classes=("circle", "triangle"))
    assert np.bincount(merging["train"].labels).tolist() == [20, 10]


def test_many_classes_are_cut_and_numbers_are_no_misspellings():
    counts = {f"class {number}": 1 + 50 * (number == 7) for number in range(20)}
    assert class_counts(counts).endswith("and 8 more")
    assert near_names(counts) == ()
    assert near_names({"cat": 1, "car": 40}) == ()


def test_the_classes_of_a_draw_are_those_of_its_labels(photos, tmp_path):
    out = tmp_path / "l.csv"
    names = ("cat", "dog", "bird")
    drawn = [Row("a.png", "", "", "dgo"), Row("b.png", "", "", "dog")]
    write_draw(out, drawn, Draw(classes=names))
    with pytest.raises(DataError, match=r"'dgo' is no class of the draw .*--classes"):
        opened(photos, out)
    assert opened(photos, out, classes=("dog", "dgo"))["train"].class_names == ("dog", "dgo")
    write_draw(out, [Row("a.png", "", "", "dog")], Draw(classes=names))
    assert opened(photos, out)["train"].class_names == names
    write_draw(out, [Row("a.png", "", "", "dog")], Draw())  # of an older clipnlc
    assert opened(photos, out)["train"].class_names == ("dog",)
    write_draw(out, [Row("a.png", "", "", "dgo")], Draw(classes=names))
    with pytest.raises(DataError, match=r"line 2: 'dgo' is no class of the draw"):
        opened(photos, out)


def test_splits_of_the_table_stay_and_shares_divide_the_labelled(photos, tmp_path):
    split = write(
        tmp_path / "s.csv",
        [("a.png", "cat", "train"), ("b.png", "dog", "test"), ("c.png", "", "train")],
        "file,label,split",
    )
    assert {n: len(s) for n, s in opened(photos, split).items()} == {
        "train": 1,
        "test": 1,
        "unlabelled": 5,
    }
    divided = opened(photos, write(tmp_path / "l.csv"), test_share=0.5)
    assert {n: len(s) for n, s in divided.items()} == {"train": 2, "test": 2, "unlabelled": 3}
    full = write(
        tmp_path / "full.csv",
        [(f"{n}.png", ["cat", "dog"][i % 2]) for i, n in enumerate("abcdefg")],
    )
    assert list(opened(photos, full)) == ["train"]


@pytest.mark.parametrize(
    ("header", "rows", "said"),
    [
        ("file,label", [("z.png", "cat")], r"'z.png' in column 'file' is no image below .*photos"),
        ("file,label", [("a.png", "cat"), ("z.png", "dog")], r"l.csv, line 3: 'z.png' is no image"),
        ("file,label", [("a.png", ""), ("b.png", "")], r"l.csv has no row with a label; label some"),
        ("what,label", [("a", "cat")], r"l.csv has no columns of image files and of their labels"),
        ("file,label,split", [("a.png", "cat", "unlabelled")], r"names a split 'unlabelled', which"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused(photos, tmp_path, header, rows, said):
    with pytest.raises(DataError, match=said):
        opened(photos, write(tmp_path / "l.csv", rows, header))


def test_only_folders_and_tables_that_are_there(photos, tmp_path):
    with pytest.raises(DataError, match=r"no.csv does not exist; give --labels a CSV or parquet"):
        opened(photos, tmp_path / "no.csv")
    with pytest.raises(DataError, match=r"--labels is for a folder of images, and table is none"):
        open_dataset(str(put(tmp_path / "table.parquet")), labels=write(tmp_path / "l.csv"))
    with pytest.raises(DataError, match=r"--classes goes with --labels FILE"):
        open_dataset(str(photos), classes=("cat",))


class TestStores:
    @pytest.fixture
    def store(self, photos, tmp_path):
        run(tmp_path / "store", photos, (RESNET,), labels=write(tmp_path / "l.csv"))
        return tmp_path / "store"

    def fit(self, store, combiner):
        train_nlc(
            store=store, dataset=["photos"], combiners=[combiner], labels=[Labels.all()], seeds=[0]
        )
        runs = find_runs(Layout(store), "photos", "zero-shot")
        return read_fitted(runs, Labels.all().name, [combiner])[combiner]

    def test_unlabelled_images_are_learnt_from_beside_train(self, store):
        fitted = self.fit(store, "balanced-gp")
        assert (fitted.facts["labels"], fitted.facts["unlabelled"]) == (4, 7)
        layout = Layout(store)
        whole = []
        for split in ("train", "unlabelled"):
            logits = {RESNET: layout.logits("photos", "zero-shot", RESNET)}
            found = open_ensemble(logits, {RESNET: layout.features("photos", split, RESNET)}, split)
            order = by_name(found.ensemble.class_names)
            assert order.tolist() == [0, 1]
            whole.append(found)
        train, rest = whole
        pool = Ensemble(
            logits=np.concatenate([one.ensemble.logits for one in whole], axis=1),
            features=(np.concatenate([one.ensemble.features[0] for one in whole]),),
            sample_id=train.ensemble.sample_id + rest.ensemble.sample_id,
            backbones=train.ensemble.backbones,
            class_names=train.ensemble.class_names,
        )
        direct = COMBINERS.get("balanced-gp")().fit(train.ensemble, train.labels, pool=pool)
        for name, learnt in direct.state().items():
            np.testing.assert_allclose(fitted.learnt[name], learnt, rtol=1e-5, atol=1e-6)
        assert verify(store=store).damage == []

    def test_all_backbones_have_them_or_none(self, store, photos, tmp_path):
        run(store, photos, ("nano-ViT-B-32",), labels=tmp_path / "l.csv", split=["train"])
        lacking = (
            "holds the images of photos without labels for some backbones only; run `clipnlc extract "
            f"--dataset photos --backbones {RESNET},nano-ViT-B-32 --store {store}` with the same --labels"
        )
        with pytest.raises(MissingStageError, match=re.escape(lacking)):
            self.fit(store, "balanced-gp")

    def test_nothing_is_measured_on_them(self, store):
        self.fit(store, "gp")
        for stage in (evaluate, diversity):
            with pytest.raises(
                DataError, match=r"unlabelled holds images without labels, on which"
            ):
                stage(store=store, split="unlabelled")

    def test_evaluate_leaves_them_out_and_refuses_them_by_name(self, store):
        self.fit(store, "gp")
        for datasets in (["photos"], None):
            with pytest.raises(
                DataError, match="photos has labels for some images only, and no test"
            ):
                evaluate(store=store, datasets=datasets)

    def test_labels_that_came_later_leave_no_image_in_two_splits(self, store, photos, tmp_path):
        before = self.fit(store, "balanced-gp")
        every = [(f"{name}.png", ["cat", "dog"][i % 2]) for i, name in enumerate("abcdefg")]
        outcomes = run(store, photos, (RESNET,), labels=write(tmp_path / "l.csv", every))
        assert [o.split for o in outcomes] == ["train"]
        layout = Layout(store)
        assert layout.splits("photos") == ("train",)
        assert len(read_features(layout.features("photos", "train", RESNET)).labels) == 7
        after = self.fit(store, "balanced-gp")
        assert before.facts["unlabelled_samples"] == after.facts["unlabelled_samples"]
        assert after.facts["labels"] == 7
