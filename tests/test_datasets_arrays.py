"""A person's own arrays: every format gives the same rows, and what does not fit is refused by name."""

import json
import pickle  # noqa: TID251  (to show that it is refused)
from contextlib import suppress

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file
from scipy.special import softmax

from clipnlc.datasets.array_files import open_arrays
from clipnlc.datasets.array_roles import Names
from clipnlc.datasets.arrays import read_rows
from clipnlc.errors import DataError

RANDOM = np.random.default_rng(0)
FEATURES = RANDOM.normal(size=(4, 5)).astype(np.float32)
LOGITS = RANDOM.normal(size=(4, 3)).astype(np.float32) * 4
LABELS = np.array([0, 2, 1, 2])
IDS = ["a.png", "b.png", "c.png", "d.png"]
CLASSES = ["pear", "fig", "apple"]
WHOLE = {"features": FEATURES, "logits": LOGITS, "labels": LABELS, "sample_id": IDS, "class_names": CLASSES}  # fmt: skip


def npz(path, **arrays):
    np.savez(path / "rows.npz", **{**WHOLE, **arrays})
    return path / "rows.npz"


def folder(path):
    (path / "rows").mkdir()
    for name, array in WHOLE.items():
        np.save(path / "rows" / f"{name}.npy", np.asarray(array))
    return path / "rows"


def tensors(path):
    arrays = {name: WHOLE[name] for name in ("features", "logits", "labels")}
    told = {"sample_id": json.dumps(IDS), "class_names": json.dumps(CLASSES), "format": "np"}
    save_file(arrays, path / "rows.safetensors", metadata=told)
    return path / "rows.safetensors"


def parquet(path):
    columns = {"features": FEATURES.tolist(), "logits": LOGITS.tolist(), "sample_id": IDS}
    columns |= {"label": [CLASSES[label] for label in LABELS]}
    table = pa.table(columns)
    fixed = table.set_column(
        0, "features", pa.array(FEATURES.tolist(), pa.list_(pa.float32(), FEATURES.shape[1]))
    )
    pq.write_table(fixed, path / "rows.parquet")
    (path / "classes.txt").write_text("\n".join(CLASSES))
    return path / "rows.parquet"


def saved(path):
    import datasets as hf  # noqa: PLC0415  (heavy)

    label = hf.ClassLabel(names=CLASSES)
    kinds = hf.Features(
        {
            "features": hf.List(hf.Value("float32")),
            "logits": hf.List(hf.Value("float32")),
            "label": label,
            "id": hf.Value("string"),
        }
    )
    columns = {"features": FEATURES, "logits": LOGITS, "label": LABELS.tolist(), "id": IDS}
    rows = hf.Dataset.from_dict(columns, features=kinds)
    hf.DatasetDict({"train": rows, "validation": rows.select([0])}).save_to_disk(path / "rows")
    return path / "rows"


@pytest.mark.parametrize("write", [npz, folder, tensors, parquet, saved])
def test_every_format_gives_the_same_rows(write, tmp_path):
    path = write(tmp_path)
    names = Names(class_names=str(tmp_path / "classes.txt") if write is parquet else None)
    found = read_rows(path, "train", names=names)
    np.testing.assert_array_equal(found.features, FEATURES)
    np.testing.assert_array_equal(found.logits, LOGITS)
    np.testing.assert_array_equal(found.labels, LABELS)
    assert (found.sample_id, found.class_names) == (tuple(IDS), tuple(CLASSES))
    assert found.notes == ()
    assert read_rows(path, "train", names=names).digest == found.digest


def test_probabilities_become_logits_and_this_is_said(tmp_path):
    given = softmax(LOGITS.astype(np.float64), axis=1)
    given[0] = [0, 1, 0]
    found = read_rows(npz(tmp_path, logits=given), "train")
    np.testing.assert_allclose(softmax(found.logits[1:], axis=1), given[1:], rtol=1e-5)
    assert found.logits[0, 0] == np.float32(np.log(2.0**-23))
    assert found.were_probabilities
    assert found.notes == ("'logits' holds probabilities; their logarithms are the logits",)


def test_classes_are_put_into_the_known_order(tmp_path):
    found = read_rows(npz(tmp_path), "train", known=("apple", "fig", "pear"))
    np.testing.assert_array_equal(found.logits, LOGITS[:, [2, 1, 0]])
    np.testing.assert_array_equal(found.labels, 2 - LABELS)
    words = npz(tmp_path, labels=["pear", "apple", "fig", "apple"])
    np.testing.assert_array_equal(read_rows(words, "train").labels, LABELS)
    called_numbers = npz(tmp_path, labels=[7, 30, 9, 30], class_names=[7, 9, 30])
    found = read_rows(called_numbers, "train")
    assert (found.class_names, found.labels.tolist()) == (("7", "9", "30"), LABELS.tolist())


def test_words_without_class_names_are_in_the_order_of_their_names(tmp_path):
    """As in scikit-learn's `classes_`, whose order the columns of `predict_proba` have."""
    path = npz(tmp_path, labels=["b", "c", "a", "c"])
    found = read_rows(path, "train", names=Names(class_names="none"))
    assert found.class_names == ("a", "b", "c")
    assert found.labels.tolist() == [1, 2, 0, 2]
    assert found.notes == ("classes of logits are taken to be in the order of their names",)
    with pytest.raises(DataError, match="in which order logits has the classes; give --class-n"):
        read_rows(path, "train", names=Names(class_names="none"), known=("c", "b", "a"))


def test_cosines_are_multiplied_by_the_scale(tmp_path):
    path = npz(tmp_path, logits=LOGITS / 100)
    assert "give --logit-scale" in read_rows(path, "train").notes[0]
    found = read_rows(path, "train", logit_scale=100.0)
    np.testing.assert_allclose(found.logits, LOGITS, rtol=1e-6)
    both = npz(tmp_path, logits=LOGITS / 100, logit_scale=100.0)
    with pytest.raises(DataError, match="--logit-scale 1 if they were, --logit-scale 100 if"):
        read_rows(both, "train")


def test_files_of_their_own(tmp_path):
    for name in ("features", "labels", "sample_id"):
        np.save(tmp_path / f"my_{name}.npy", np.asarray(WHOLE[name]))
    names = {name: str(tmp_path / f"my_{name}.npy") for name in ("features", "labels", "sample_id")}
    found = read_rows(tmp_path / "my_features.npy", "train", names=Names(**names))
    np.testing.assert_array_equal(found.features, FEATURES)
    assert found.class_names == ("0", "1", "2")
    assert found.notes == ("classes are called 0 to 2; name them with --class-names",)
    assert found.logits is None


NAN = FEATURES.copy()
NAN[2, 1] = np.nan
REFUSED = {
    "row 2 \\('c.png'\\) of 'labels' of .*rows.npz is unlabelled": {"labels": [0, 2, -1, 1]},
    r"row 1 \('b.png'\) .* is unlabelled \(2 such rows\)": {"labels": ["fig", "", "pear", " "]},
    r"row 3 .* is unlabelled": {"labels": [0, 1, 2, np.nan]},
    "sample 'a.png' is repeated in 'sample_id' of .*, in rows 0 and 2": {
        "sample_id": ["a.png", "b.png", "a.png", "d.png"]
    },
    "is misaligned: it has 4 of features, 3 of logits, 4 of labels, 4 of sample_id": {
        "logits": LOGITS[:3]
    },
    r"row 2 \('c.png'\) of 'features' .* holds NaN": {"features": NAN},
    r"row 0 \('a.png'\) of 'features' .* is zero throughout": {"features": 0 * FEATURES},
    r"has label 3, and there are 3 classes, 0 to 2": {"labels": [0, 1, 3, 1]},
    r"row 1 \('b.png'\) of 'labels' .* is 'cherry', which is none of the 3 class names": {
        "labels": ["fig", "cherry", "fig", "fig"]
    },
    r"'logits' .* has 2 classes, and there are 3 class names \(pear, fig, apple\)": {
        "logits": LOGITS[:, :2]
    },
    r"'features' .* holds float32 \[4\]; expected numbers": {"features": FEATURES[:, 0]},
    r"row 1 .* is no row of probabilities: its least number is 0.2 and its sum 1.2": {
        "logits": LOGITS,
        "probs": np.array([[0.2, 0.3, 0.5], [0.2, 0.5, 0.5], [1, 0, 0], [1, 0, 0]]),
    },
    "logits and texts, which give logits too; leave out one with --logits none": {
        "texts": np.ones((3, 5))
    },
    r"'labels' of .* is an array of Python objects .* save np.asarray\(x, dtype=str\) of texts": {
        "labels": np.array([0, "one", None, {}], dtype=object)
    },
}


@pytest.mark.parametrize("problem", REFUSED)
def test_what_does_not_fit_is_refused(problem, tmp_path):
    path = npz(tmp_path, **REFUSED[problem])
    names = Names(logits="probs") if "probs" in REFUSED[problem] else Names()
    with pytest.raises(DataError, match=problem):
        read_rows(path, "train", names=names)


def test_other_class_names_than_the_store_has(tmp_path):
    with pytest.raises(DataError, match="'pear' is here only; expected the same names"):
        read_rows(npz(tmp_path), "train", known=("plum", "fig", "apple"))


def test_nothing_is_unpickled(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("it was unpickled",))

    np.save(tmp_path / "bomb.npy", np.array([Bomb()], dtype=object), allow_pickle=True)
    (tmp_path / "plain.npz").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(DataError, match="nothing is unpickled"):
        open_arrays(tmp_path / "bomb.npy", "train").read("bomb")
    with pytest.raises(DataError, match=r"cannot read .*plain\.npz"):
        open_arrays(tmp_path / "plain.npz", "train")


@pytest.mark.parametrize("write", [npz, folder, tensors, parquet])
def test_damaged_bytes_are_read_or_refused(write, tmp_path):
    path, random = write(tmp_path), np.random.default_rng(0)
    files = [path] if path.is_file() else sorted(path.iterdir())
    for _ in range(40):
        file = files[random.integers(len(files))]
        whole = file.read_bytes()
        data = bytearray(whole)
        data[random.integers(len(data))] = random.integers(256)
        file.write_bytes(data[: random.integers(1, len(data))] if random.random() < 0.3 else data)
        with suppress(DataError):
            read_rows(path, "train")
        file.write_bytes(whole)


def test_what_is_no_file_of_arrays(tmp_path):
    (tmp_path / "rows.csv").write_text("a,b\n")
    (tmp_path / "empty").mkdir()
    (tmp_path / "torn.npz").write_bytes(b"PK\x03\x04 torn")
    for name, problem in {
        "none.npz": "none.npz does not exist",
        "rows.csv": r"rows\.csv is of no format that is known; give \.npz",
        "empty": r"empty is a folder without \.npy files",
        "torn.npz": r"cannot read .*torn\.npz",
    }.items():
        with pytest.raises(DataError, match=problem):
            open_arrays(tmp_path / name, "train")
    with pytest.raises(DataError, match=r"no array 'cat'; it has features, logits, labels"):
        read_rows(npz(tmp_path), "train", names=Names(labels="cat"))
    np.savez(tmp_path / "odd.npz", left=FEATURES)
    with pytest.raises(DataError, match=r"neither features nor logits .* it has left: name them"):
        read_rows(tmp_path / "odd.npz", "train")
