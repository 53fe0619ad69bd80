"""`--test-share`: train and test of a data set that has no test split."""

import shlex
import shutil

import numpy as np
import pytest
from datasets_on_disk import png, put, write_table
from extracting import run
from stores_examples import quick_disk  # noqa: F401  (a fixture for all tests of this file)

from clipnlc.cli import main
from clipnlc.datasets import open_dataset
from clipnlc.datasets.division import choose_test
from clipnlc.errors import DataError, StoreError
from clipnlc.extraction.request import Request
from clipnlc.stages.doctor import doctor
from clipnlc.stages.plan import plan
from clipnlc.stores.features import read_features
from clipnlc.stores.layout import Layout

RESNET = "nano-RN50"
CLASSES = ("cat", "dog")


def make(root, each=10, prefix="", where="{name}/{i}.png"):
    for label, name in enumerate(CLASSES):
        for i in range(each):
            put(root / where.format(name=name, i=f"{prefix}{i}"), png(100 * label + i))
    return root


def halves(root, share=0.3, **options):
    """Return {split: {image bytes: class}} after the division."""
    found = open_dataset(str(root), test_share=share)
    opened = {name: found.open(name, **options) for name in found.split_names()}
    return {
        name: {sample.data: one.class_names[sample.label] for sample in one.read()}
        for name, one in opened.items()
    }


def test_each_class_is_divided_by_the_share(tmp_path):
    found = halves(make(tmp_path / "data"))
    assert list(found) == ["train", "test"]
    assert {name: list(one.values()) for name, one in found.items()} == {
        "train": ["cat"] * 7 + ["dog"] * 7,
        "test": ["cat"] * 3 + ["dog"] * 3,
    }
    assert not found["train"].keys() & found["test"].keys()
    smaller = halves(tmp_path / "data", 0.2)["test"]
    assert smaller.keys() < found["test"].keys()


def test_the_division_hangs_on_content_alone(tmp_path):
    want = halves(make(tmp_path / "data"))
    assert halves(make(tmp_path / "other", prefix="renamed-")) == want
    assert halves(make(tmp_path / "third", where="train/{name}/{i}.png")) == want
    assert halves(make(tmp_path / "fourth", where="{name}/train/{i}.png")) == want
    make(tmp_path / "listed", where="images/{name}-{i}.png")
    lines = ["file,label", *(f"{n}-{i}.png,{n}" for n in CLASSES for i in range(10))]
    (tmp_path / "listed/labels.csv").write_text("\n".join(lines))
    assert halves(tmp_path / "listed") == want
    data = [png(100 * label + i) for label in (0, 1) for i in range(10)]
    write_table(tmp_path / "table/rows.parquet", data, ["cat"] * 10 + ["dog"] * 10)
    assert halves(tmp_path / "table") == want
    whole, *_ = (open_dataset(str(tmp_path / "table"), test_share=0.3).open(n) for n in ("test",))
    assert [s.data for s in whole.read(1, 4)] == [s.data for s in whole.read()][1:4]


def test_images_that_are_equal_are_on_one_side(tmp_path):
    make(tmp_path)
    for i in range(10):
        shutil.copy(tmp_path / f"cat/{i}.png", tmp_path / f"cat/again-{i}.png")
    shutil.copy(tmp_path / "cat/0.png", tmp_path / "dog/a-cat.png")
    found = open_dataset(str(tmp_path), test_share=0.3)
    train, test = (found.open(name) for name in ("train", "test"))
    assert not {s.data for s in train.read()} & {s.data for s in test.read()}
    assert len(train) + len(test) == 31


def test_few_images_of_a_class_are_on_both_sides_or_said(tmp_path):
    make(tmp_path, each=2)
    put(tmp_path / "emu/0.png", png(7))
    found = open_dataset(str(tmp_path), test_share=0.1)
    assert [found.open("test").labels.tolist(), found.open("train").labels.tolist()] == [
        [0, 1],
        [0, 1, 2],
    ]
    notes = found.open("test").notes
    assert "split all was divided by content: 3 train, 2 test (--test-share 0.1)" in notes
    assert "split test has no image of 1 of 3 classes: 'emu'" in notes
    put(tmp_path / "one/train/cat/0.png")
    with pytest.raises(DataError, match=r"the 1 image of one/train cannot be divided"):
        halves(tmp_path / "one")


def test_the_share_is_reached_over_many_classes_and_copies():
    random = np.random.default_rng(0)
    labels = random.integers(0, 20, 4000)
    digests = random.integers(0, 256, (1500, 16), dtype=np.uint8)[random.integers(0, 1500, 4000)]
    test = choose_test(digests, labels, 0.25)
    assert abs(test.mean() - 0.25) < 0.01
    order = random.permutation(4000)
    np.testing.assert_array_equal(choose_test(digests[order], labels[order], 0.25), test[order])


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan")])
def test_a_share_that_is_none_is_refused(tmp_path, share):
    with pytest.raises(DataError, match=r"--test-share is .*; give a share between 0 and 1"):
        open_dataset(str(make(tmp_path)), test_share=share)


def test_only_what_has_no_test_split_is_divided(tmp_path):
    make(tmp_path / "a", where="train/{name}/{i}.png")
    make(tmp_path / "a", where="val/{name}/{i}.png")
    found = open_dataset(str(tmp_path / "a"), test_share=0.3)
    assert found.split_names() == ("train", "val", "test")
    assert len(found.open("val")) == 20
    make(tmp_path / "a", where="test/{name}/{i}.png")
    with pytest.raises(DataError, match=r"a has a test split; drop --test-share"):
        found.split_names()
    with pytest.raises(DataError, match=r"a has a test split; drop --test-share"):
        found.open("train")
    write_table(tmp_path / "c/night.parquet", [png(0)], ["cat"])
    write_table(tmp_path / "c/val.parquet", [png(0)], ["cat"])
    with pytest.raises(DataError, match=r"c has no train split to divide, only val"):
        open_dataset(str(tmp_path / "c"), test_share=0.3).split_names()


class TestExtract:
    def test_writes_both_and_another_share_is_another_extraction(self, tmp_path):
        data = make(tmp_path / "data")
        first = run(tmp_path / "store", data, (RESNET,), test_share=0.3)
        assert [(o.split, o.rows, o.cached) for o in first] == [
            ("train", 14, False),
            ("test", 6, False),
        ]
        again = run(tmp_path / "store", data, (RESNET,), test_share=0.3)
        assert all(o.cached for o in again)
        other = run(tmp_path / "store", data, (RESNET,), test_share=0.5)
        assert [(o.split, o.rows) for o in other] == [("train", 10), ("test", 10)]
        assert "division.test_share: 0.3 -> 0.5" in other[0].changed
        layout = Layout(tmp_path / "store")
        rows = [read_features(layout.features("data", s, RESNET)) for s in ("train", "test")]
        assert not set(rows[0].sample_id) & set(rows[1].sample_id)

    def test_one_half_under_another_division_is_refused(self, tmp_path):
        data = make(tmp_path / "data", where="train/{name}/{i}.png")
        run(tmp_path / "store", data, (RESNET,), test_share=0.3)
        said = r"data/test divided by --test-share 0.3, .*`clipnlc extract .* --test-share 0.3 "
        with pytest.raises(StoreError, match=said):
            run(tmp_path / "store", data, (RESNET,))
        said = r"data/train divided by --test-share 0.3, .*`clipnlc extract .* --test-share 0.5 "
        with pytest.raises(StoreError, match=said) as refused:
            run(tmp_path / "store", data, (RESNET,), test_share=0.5, split=("test",))
        assert "--split" not in str(refused.value)
        assert all(o.cached for o in run(tmp_path / "store", data, (RESNET,), test_share=0.3))

    def test_plan_and_doctor_divide_too(self, tmp_path):
        data = make(tmp_path / "data")
        request = Request(
            store=tmp_path / "store", dataset=[str(data)], backbones=[RESNET], test_share=0.3
        )
        planned = plan(request, probe=False)
        assert [(one.split, one.images) for one in planned.splits] == [("train", 14), ("test", 6)]
        assert doctor(store=None, dataset=str(data), test_share=0.3).rows == {
            "train": 14,
            "test": 6,
        }


def said(capsys, *arguments, code=0):
    assert main([str(a) for a in arguments]) == code
    ended = capsys.readouterr()
    return (ended.err if code else ended.out).strip().splitlines()[-1]


def cure(line):
    """Return the arguments of the command that a line names."""
    command = line.split("`")[1] if "`" in line else line.removeprefix("next: ")
    name, *arguments = shlex.split(command)
    assert name == "clipnlc"
    return arguments


@pytest.mark.parametrize("where", ["{name}/{i}.png", "train/{name}/{i}.png"])
def test_what_is_said_without_a_test_split_leads_to_a_result(tmp_path, capsys, monkeypatch, where):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "data", where=where)
    store = ("--store", "store")
    after_extract = said(capsys, "extract", "--dataset", "data", "--backbones", RESNET, *store)
    assert "--test-share 0.3" in after_extract
    flat = where.startswith("{name}")
    lines = [after_extract]
    fit = ("train-nlc", "--dataset", "data", "--shots", "1", "--seeds", "1", *store)
    lines.append(said(capsys, *fit, code=2 if flat else 0))
    lines.append(said(capsys, *fit, "--combiners", "parameter-free"))
    lines.append(said(capsys, "train-heads", "--dataset", "data", *store, code=2))
    lines.append(said(capsys, "evaluate", "--dataset", "data", *store, code=2))
    for line in lines:
        assert "extract" in cure(line), line
        assert "--test-share" in cure(line), line
    assert "train-nlc" in said(capsys, *cure(lines[-1]))
    assert "evaluate" in said(capsys, *fit)
    assert "evaluate-zero-shot" in said(capsys, "evaluate", "--dataset", "data", *store)


def test_what_has_only_a_test_split_is_fitted_without_labels(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "data", where="test/{name}/{i}.png")
    store = ("--store", "store")
    line = said(capsys, "extract", "--dataset", "data", "--backbones", RESNET, *store)
    assert cure(line)[:3] == ["train-nlc", "--combiners", "parameter-free"]
    refused = said(capsys, "train-nlc", "--dataset", "data", "--shots", "1", *store, code=2)
    assert "parameter-free" in cure(refused)
    assert "evaluate" in said(capsys, *cure(refused))
    assert "parameter-free" in cure(
        said(capsys, "train-heads", "--dataset", "data", *store, code=2)
    )
