"""`clipnlc import`: own arrays as a backbone, aligned with what the store has, or refused by name."""

import re
import shlex
import shutil

import numpy as np
import pytest
from command_line import contents, good, refusal
from stores_examples import quick_disk  # noqa: F401  (a fixture for all tests)

from clipnlc.datasets.array_roles import Names
from clipnlc.errors import DataError, StoreError, UnknownNameError
from clipnlc.extraction.finishing import write_zero_shot_logits
from clipnlc.heads.base import normalise
from clipnlc.stages.import_arrays import import_arrays, remove_imported
from clipnlc.stores import locks
from clipnlc.stores.aligned import open_ensemble
from clipnlc.stores.features import read_features
from clipnlc.stores.layout import IMPORTED, Layout
from clipnlc.stores.logits import read_logit_header, read_logits
from clipnlc.stores.status import store_status

CLASSES = ("pear", "fig", "apple")
ROWS = {"train": 12, "test": 7}


def arrays(split, seed=0, *, width=5):
    """Make the rows of a split, the same samples and labels for every seed."""
    labels = np.arange(ROWS[split]) % 3
    random = np.random.default_rng([seed, *split.encode()])
    return {
        "features": random.normal(size=(len(labels), width)).astype(np.float32),
        "logits": (4 * random.normal(size=(len(labels), 3))).astype(np.float32),
        "labels": labels,
        "sample_id": np.array([f"{split}/{row}.png" for row in range(len(labels))]),
        "class_names": np.array(CLASSES),
    }


class Desk:
    """A folder with files and a store of one other backbone, `tower`."""

    def __init__(self, root):
        self.root, self.layout = root, Layout(root / "store")

    def give(
        self, split, backbone="forest", *, to="fruit", leave=(), names=None, scale=None, **changed
    ):
        found = {**arrays(split, 1), **changed}
        path = self.root / f"{backbone}-{split}.npz"
        np.savez(path, **{name: array for name, array in found.items() if name not in leave})
        return import_arrays(
            path,
            store=self.layout.root,
            backbone=backbone,
            dataset=to,
            split=split,
            names=names,
            logit_scale=scale,
        )


@pytest.fixture
def desk(tmp_path):
    desk = Desk(tmp_path)
    for split in ROWS:
        desk.give(split, "tower", leave=("logits",), **arrays(split, 7))
    return desk


def test_rows_are_put_into_the_order_of_the_others(desk):
    given = arrays("train", 1)
    turned = np.random.default_rng(5).permutation(12)
    mixed = {n: given[n][turned] for n in ("features", "logits", "labels", "sample_id")}
    made = desk.give("train", **mixed)
    assert made.notes == ("rows were put into the order of tower's, by sample id",)
    path = desk.layout.features("fruit", "train", "forest")
    found = read_features(path)
    np.testing.assert_array_equal(found.features, given["features"])
    assert found.sample_id == tuple(given["sample_id"])
    logits = {"forest": desk.layout.logits("fruit", IMPORTED, "forest")}
    together = open_ensemble(logits, {"forest": path}, "train")
    np.testing.assert_array_equal(together.ensemble.logits[0], given["logits"])
    np.testing.assert_array_equal(together.labels, given["labels"])


def test_the_same_file_is_cached_and_another_replaces_it(desk):
    assert not desk.give("train").cached
    before = {p: p.read_bytes() for p in desk.layout.root.rglob("*.h5")}
    assert desk.give("train").cached
    assert {p: p.read_bytes() for p in desk.layout.root.rglob("*.h5")} == before
    other = desk.give("train", logits=arrays("train", 2)["logits"])
    assert not other.cached
    assert other.changed[-1].startswith("images.imported.digest: ")
    np.testing.assert_array_equal(
        read_logits(desk.layout.logits("fruit", IMPORTED, "forest")).splits["train"].logits,
        arrays("train", 2)["logits"],
    )


def test_one_split_leaves_the_digest_of_the_other(desk):
    desk.give("train")
    path = desk.layout.logits("fruit", IMPORTED, "forest")
    before = read_logit_header(path).split_digests["train"]
    desk.give("test")
    found = read_logit_header(path)
    assert found.split_digests["train"] == before
    assert dict(found.rows) == ROWS
    assert [row.path for row in store_status(desk.layout.root) if row.stale] == []


def test_logits_alone_have_features_of_width_0(desk):
    made = desk.give("train", leave=("features",))
    assert (made.dim, made.gives) == (0, ("logits",))
    found = read_features(desk.layout.features("fruit", "train", "forest"))
    assert found.features.shape == (12, 0)
    assert found.texts is None
    right = arrays("train", 1)["logits"].argmax(axis=1) == arrays("train")["labels"]
    assert made.accuracy == right.mean()


def test_texts_give_zero_shot_logits(desk):
    texts = np.random.default_rng(3).normal(size=(3, 5))
    made = desk.give("test", "clip", leave=("logits",), texts=texts, scale=20.0)
    assert made.gives == ("features", "texts")
    unit = normalise(arrays("test", 1)["features"]).astype(np.float64)
    expected = 20 * unit @ (texts / np.linalg.norm(texts, axis=1, keepdims=True)).T
    found = read_logits(desk.layout.logits("fruit", "zero-shot", "clip")).splits["test"]
    np.testing.assert_allclose(found.logits, expected, rtol=1e-4, atol=1e-4)
    assert not write_zero_shot_logits(desk.layout, "fruit", "clip")  # current
    with pytest.raises(DataError, match="clip has other texts in fruit/test"):
        desk.give("train", "clip", leave=("logits",), texts=-texts, scale=20.0)


def test_without_sample_ids_the_order_must_be_shown_by_labels(desk):
    made = desk.give("train", leave=("sample_id",))
    assert "matched by their order with tower's, whose labels are the same" in made.notes[-1]
    labels = arrays("train")["labels"].copy()
    labels[[4, 5]] = labels[[5, 4]]
    for problem, changed in {
        r"its row 4 \('train/4.png'\) has label 2, and 1 in tower in the store "
        r"\(2 of 12 rows differ\).*; give sample ids with --sample-id": {"labels": labels},
        "has 11 rows without sample ids, and tower 12 in the store": {
            name: arrays("train", 1)[name][:11] for name in ("features", "logits", "labels")
        },
    }.items():
        with pytest.raises(DataError, match=problem):
            desk.give("train", leave=("sample_id",), **changed)
    with pytest.raises(DataError, match="neither sample ids nor labels"):
        desk.give("train", leave=("sample_id", "labels"))


def test_labels_may_come_from_the_others(desk):
    desk.give("train", leave=("labels",))
    found = read_features(desk.layout.features("fruit", "train", "forest"))
    np.testing.assert_array_equal(found.labels, arrays("train")["labels"])


def test_rows_that_the_others_have_not_are_named(desk):
    ids = arrays("train")["sample_id"].astype(object)
    foreign, short = ids.copy(), {n: arrays("train", 1)[n][1:] for n in ("features", "logits")}
    foreign[3] = "plum.png"
    labels = arrays("train")["labels"].copy()
    labels[6] = 1
    for problem, changed in {
        r"its row 3 \('plum.png'\) is none of the rows of tower in the store, such as 'train/3.png' "
        r"\(1 foreign, 1 lacking, of 12 rows\)": {"sample_id": foreign.astype(str)},
        "it lacks 'train/0.png' of the rows of tower": {
            **short,
            "sample_id": ids[1:].astype(str),
            "labels": arrays("train")["labels"][1:],
        },
        r"its row 6 \('train/6.png'\) has label 1, and 0 in tower": {"labels": labels},
    }.items():
        with pytest.raises(DataError, match=problem):
            desk.give("train", **changed)
    assert not desk.layout.features("fruit", "train", "forest").exists()


def test_the_first_backbone_needs_labels_and_names_its_rows(tmp_path):
    desk = Desk(tmp_path)
    made = desk.give("train", leave=("sample_id", "class_names"))
    assert made.notes == (
        "classes are called 0 to 2; name them with --class-names",
        "rows have no sample ids: they are called train:0 to train:11",
    )
    with pytest.raises(DataError, match="has no labels, and the store no other backbone of"):
        desk.give("test", leave=("labels",), names=Names(class_names="none"))


def test_all_splits_give_the_same(desk):
    desk.give("train")
    for problem, leave, changed in (
        ("forest has logits in fruit/train in the store, and here, for test, no logits", ("logits",), {}),
        ("features of width 5 in fruit/train .* for test, no features", ("features",), {}),
        ("for test, features of width 4", (), {"features": arrays("test", width=4)["features"]}),
    ):  # fmt: skip
        with pytest.raises(DataError, match=problem):
            desk.give("test", leave=leave, **changed)


@pytest.mark.parametrize("name", ["RN50.openai", "nano-RN50", "a@b", "nano", "", "a/b", "all"])
def test_names_of_what_extract_makes_are_refused(name, desk):
    with pytest.raises(DataError, match="names what extract makes; give letters, digits"):
        import_arrays(
            desk.root, store=desk.layout.root, backbone=name, dataset="fruit", split="train"
        )


def test_crops_are_no_split_to_import(desk):
    with pytest.raises(DataError, match="train~crop-0 holds crops of images"):
        import_arrays(
            desk.root,
            store=desk.layout.root,
            backbone="forest",
            dataset="fruit",
            split="train~crop-0",
        )


def test_two_writers_are_kept_apart(desk):
    with (
        locks.writing(desk.layout.features("fruit", "train", "forest")),
        pytest.raises(StoreError, match=r"another clipnlc is writing .*forest\.h5"),
    ):
        desk.give("train")


def test_a_misspelt_split_is_refused_with_those_that_are_known(desk):
    for split, meant in {"tset": "did you mean 'test'", "Trian": "did you mean 'train'"}.items():
        problem = rf"unknown --split '{split}'; {meant}\? known: train, val, test$"
        with pytest.raises(UnknownNameError, match=problem):
            import_arrays(
                desk.root,
                store=desk.layout.root,
                backbone="forest",
                dataset="fruit",
                split=split,
            )


def test_a_split_of_the_data_set_in_the_store_is_known(desk):
    desk.layout.features("fruit", "blurred", "tower").parent.mkdir()
    shutil.copy(desk.root / "tower-test.npz", desk.root / "forest-blurred.npz")
    made = import_arrays(
        desk.root / "forest-blurred.npz",
        store=desk.layout.root,
        backbone="forest",
        dataset="fruit",
        split="blurred",
    )
    assert made.split == "blurred"


def test_a_new_data_set_that_is_nearly_one_in_the_store_is_said_with_the_way_back(desk):
    (*_, note) = desk.give("train", to="friut").notes
    assert note.startswith(
        "friut is new; did you mean 'fruit'? then undo this with `clipnlc import"
    )
    assert not [note for note in desk.give("train", to="friut").notes if "did you mean" in note]
    assert not [note for note in desk.give("train", to="cars").notes if "did you mean" in note]
    with pytest.raises(DataError, match="did you mean --dataset fruit\\? If not, name an array"):
        desk.give("test", to="fruits", leave=("labels",))


def test_an_array_of_objects_is_refused_with_what_to_save(desk):
    ids = arrays("train")["sample_id"].astype(object)
    with pytest.raises(
        DataError, match=r"'sample_id' of .*forest-train\.npz is an array of Python objects .* "
        r"save np\.asarray\(x, dtype=str\) of texts"
    ):  # fmt: skip
        desk.give("train", sample_id=ids)
    desk.give("train", sample_id=np.asarray(ids, dtype=str))


# Removing ---------------------------------------------------------------------------------------


def test_what_was_removed_leaves_no_trace(desk):
    before = contents(desk.layout.root)
    texts = np.random.default_rng(3).normal(size=(3, 5))
    for split in ROWS:
        desk.give(split, leave=("logits",), texts=texts, scale=20.0)
    done = remove_imported(store=desk.layout.root, backbone="forest", dataset="fruit")
    assert (done.splits, done.logits, done.fits) == (("test", "train"), 1, 0)
    assert contents(desk.layout.root) == before


def test_a_data_set_of_which_nothing_is_left_is_gone(desk):
    remove_imported(store=desk.layout.root, backbone="tower", dataset="fruit")
    assert desk.layout.datasets() == ()


def test_only_what_was_imported_is_removed(desk):
    desk.give("train", to="cars")
    for backbone, dataset, problem in (
        ("towr", "fruit", "unknown imported backbone of fruit in .*did you mean 'tower'"),
        ("tower", "friut", "unknown data set of .*did you mean 'fruit'"),
        ("tower", "cars", "unknown imported backbone of cars in .*known: forest"),
        ("nano-RN50", "fruit", "names what extract makes"),
    ):
        with pytest.raises((DataError, UnknownNameError), match=problem):
            remove_imported(store=desk.layout.root, backbone=backbone, dataset=dataset)
    shutil.copytree(desk.layout.dataset("cars"), desk.layout.dataset("pets"))
    features = desk.layout.features("pets", "train", "forest")
    features.rename(features.with_name("nano-RN50.h5"))
    with pytest.raises(DataError, match=r"no backbone of pets in .* was imported"):
        remove_imported(store=desk.layout.root, backbone="forest", dataset="pets")


def test_a_backbone_that_is_being_written_is_not_removed(desk):
    path = desk.layout.features("fruit", "train", "tower")
    with locks.writing(path), pytest.raises(StoreError, match="another clipnlc is writing"):
        remove_imported(store=desk.layout.root, backbone="tower", dataset="fruit")
    remove_imported(store=desk.layout.root, backbone="tower", dataset="fruit")


def test_fits_with_a_backbone_go_with_it_and_the_others_stay(desk, here):
    for split in ROWS:
        desk.give(split)
    store = ("--store", desk.layout.root)
    fit = ("--head", "auto", "--shots", "2", "--seeds", "1", *store)
    good("train-heads", *fit, by=here)
    good("train-nlc", *fit, "--combiners", "log-avg", "--backbones", "tower", by=here)
    good("evaluate", "--head", "auto", "--backbones", "tower", *store, by=here)
    before = {n: c for n, c in contents(desk.layout.root).items() if "forest" not in n}
    good("train-nlc", *fit, "--combiners", "log-avg", by=here)
    good("evaluate", "--head", "auto", *store, by=here)
    remove = ("import", "--remove", "--backbone", "forest", "--dataset", "fruit", *store)
    assert "split" in refusal(*remove, "--split", "test", by=here)
    said = good(*remove, by=here)
    assert said == (
        "fruit forest: removed features of test, train, 2 files of logits, 1 file of fits\n"
    )
    left = contents(desk.layout.root)
    assert {n: c for n, c in left.items() if n in before} == before
    assert [n for n in left if n not in before and "/records/" not in n] == []
    good("evaluate", "--head", "auto", *store, by=here)


@pytest.mark.parametrize("split", list(ROWS))
def test_a_later_stage_names_the_cure_of_a_split_that_lacks(desk, split, here):
    desk.give(split)
    other = {"train": "test", "test": "train"}[split]
    words = ("train-heads", "--head", "auto", "--shots", "2", "--seeds", "1")
    words += ("--backbones", "forest,tower", "--store", desk.layout.root)
    said = refusal(*words, by=here)
    assert f"import the rows of {other} too, or take forest out of fruit with" in said
    (cure,) = re.findall(r"`clipnlc (.*)`", said)
    good(*shlex.split(cure), by=here)
    good(*[word.replace("forest,", "") for word in map(str, words)], by=here)


def test_no_command_is_spelled_where_its_file_is_not_known(desk, here):
    desk.give("train")
    words = ("import", desk.root / "forest-train.npz", "--backbone", "forest", "--dataset", "fruit")
    said = good(*words, "--split", "train", "--store", desk.layout.root, by=here)
    assert said.endswith("\nnext: import the rows of test too, with --split test\n")
    assert refusal(*words, by=here).startswith("error: --split is empty; say whose rows these are")
    assert refusal("import", *words[2:], by=here).startswith("error: no FILE of arrays was given")
