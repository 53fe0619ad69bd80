"""What the store holds already: another data set of the same name, splits of other classes."""

import shlex
import shutil
import subprocess
import sys

import pytest
from datasets_on_disk import png, put, write_table
from extracting import BOTH, check_same_features, files, run, write_images
from stores_examples import quick_disk  # noqa: F401  (a fixture for all tests of this file)

from clipnlc.backbones.loaded import LoadedBackbone
from clipnlc.cli import main
from clipnlc.errors import DataError, StoreError
from clipnlc.extraction.request import Engine, Request
from clipnlc.labels import Labels
from clipnlc.stages.evaluate import evaluate
from clipnlc.stages.extract import Watch
from clipnlc.stages.plan import plan
from clipnlc.stages.train_nlc import train_nlc
from clipnlc.stores import locks
from clipnlc.stores.features import read_features
from clipnlc.stores.layout import Layout
from clipnlc.stores.logits import read_logits

RESNET, VIT = BOTH


@pytest.fixture
def data(tmp_path):
    """A folder of three classes, train and test."""
    return write_images(tmp_path / "a" / "data", train=9, test=6)


@pytest.fixture
def other(tmp_path):
    """A folder of the same name with the same names of files and classes, and other images."""
    return other_images(tmp_path / "b" / "data")


def other_images(root, *, classes=("cat", "dog", "test_tube"), seed=500):
    for part, rows in (("train", 9), ("test", 6)):
        for i in range(rows):
            name = f"{i:04}.png"
            put(root / part / classes[i % len(classes)] / name, png(seed + i, size=(20, 20)))
            seed += 1
    return root


def splits(store, backbone=RESNET, dataset="data"):
    """The classes of every split of a backbone's logits."""
    logits = read_logits(Layout(store).logits(dataset, "zero-shot", backbone))
    return set(logits.splits), logits.class_names


def works(store, backbones=None, dataset="data", **settings):
    """Fit and evaluate: what a store is for."""
    few = {"labels": [Labels.shots(1)], "seeds": [0], "combiners": ["log-avg", "c-log-avg"]}
    train_nlc(store=store, dataset=[dataset], backbones=backbones or (), **few, **settings)
    evaluate(store=store, datasets=[dataset], backbones=backbones)


class TestOneName:
    def test_in_one_command(self, tmp_path, data, other):
        message = r"'data' would be the name in the store of both .*/a/data and .*/b/data; .*--name"
        request = Request(store=tmp_path / "store", dataset=[f"{data},{other}"], backbones=[RESNET])
        with pytest.raises(DataError, match=message):
            plan(request, probe=False)
        with pytest.raises(DataError, match=message):
            run(tmp_path / "store", f"{data},{other}")
        assert not (tmp_path / "store").exists()

    def test_one_folder_given_twice(self, tmp_path, data):
        assert len(run(tmp_path / "store", f"{data},{data}/", [RESNET])) == 2

    @pytest.mark.parametrize("split", [[], ["train"], ["test"]])
    def test_in_two_commands(self, tmp_path, data, other, monkeypatch, split):
        run(tmp_path / "store", data)
        before = files(tmp_path / "store")
        monkeypatch.setattr(LoadedBackbone, "forward", None)
        with pytest.raises(
            StoreError,
            match=r"store/data holds another data set than .*/b/data: none of its images is among "
            r"the 15 images there \(classes there: cat, dog, test tube; here: cat, dog, test tube\); "
            r"give this one a name of its own with --name: run `clipnlc extract .*--name b-data.*`, "
            "or let it take the other's place with --replace",
        ):
            run(tmp_path / "store", other, split=split)
        assert files(tmp_path / "store") == before

    def test_a_plan_refuses_too(self, tmp_path, data, other):
        run(tmp_path / "store", data, [RESNET])
        request = Request(store=tmp_path / "store", dataset=[str(other)], backbones=[VIT])
        with pytest.raises(StoreError, match="holds another data set"):
            plan(request, probe=False)

    def test_the_command_of_the_message_works(self, tmp_path, data, other, capsys):
        run(tmp_path / "store", data, [RESNET])
        command = ["extract", "--dataset", str(other), "--backbones", RESNET, "--device", "cpu"]
        assert main([*command, "--store", str(tmp_path / "store")]) == 2
        cure = capsys.readouterr().err.partition("run `clipnlc ")[2].partition("`")[0]
        done = subprocess.run(
            [sys.executable, "-m", "clipnlc", *shlex.split(cure)],
            capture_output=True,
            text=True,
            check=True,
        )
        assert "b-data/train: 9 images" in done.stdout
        assert Layout(tmp_path / "store").datasets() == ("b-data", "data")

    def test_a_suggested_name_is_free(self, tmp_path, data, other):
        for name in ("data", "b-data"):
            run(tmp_path / "store", data, [RESNET], name=name)
        with pytest.raises(StoreError, match="--name data-2"):
            run(tmp_path / "store", other, [RESNET])
        with pytest.raises(StoreError, match="--name b-b-data"):
            run(tmp_path / "store", other, [RESNET], name="b-data")

    def test_replace(self, tmp_path, data, other, capsys):
        store = tmp_path / "store"
        run(store, data)
        works(store)
        command = ["extract", "--dataset", str(other), "--backbones", RESNET, "--split", "test"]
        assert main([*command, "--replace", "--store", str(store)]) == 0
        assert (
            "note: data: another data set of this name was removed from the store\n"
            in capsys.readouterr().out
        )
        run(tmp_path / "fresh", other, [RESNET], split=["test"])
        assert {n for n in files(store) if n.startswith("data/")} == {
            n for n in files(tmp_path / "fresh") if n.startswith("data/")
        }
        check_same_features(store, tmp_path / "fresh")
        again = run(store, other, [RESNET], split=["test"], replace=True)
        assert [o.cached for o in again] == [True]

    def test_replace_of_the_same_data_set_removes_nothing(self, tmp_path, data):
        run(tmp_path / "store", data, [RESNET])
        outcomes = run(tmp_path / "store", data, [VIT], replace=True)
        assert len(outcomes) == 2
        assert Layout(tmp_path / "store").backbones("data", "test") == (VIT, RESNET)[::-1]

    def test_replace_waits_for_nobody(self, tmp_path, data, other):
        run(tmp_path / "store", data, [RESNET])
        before = files(tmp_path / "store")
        path = Layout(tmp_path / "store").features("data", "test", RESNET)
        with locks.writing(path), pytest.raises(locks.InUseError, match="another clipnlc"):
            run(tmp_path / "store", other, [RESNET], replace=True)
        assert files(tmp_path / "store") == before

    def test_in_several_passes(self, tmp_path, data, other):
        run(tmp_path / "store", data)
        run(tmp_path / "store", other, together=1, replace=True)
        run(tmp_path / "fresh", other, together=1)
        check_same_features(tmp_path / "store", tmp_path / "fresh")

    def test_tables_whose_rows_have_the_same_names(self, tmp_path):
        for place, first in (("a", 0), ("b", 100)):
            images = [png(first + i) for i in range(6)]
            write_table(tmp_path / place / "data" / "test.parquet", images, ["cat", "dog"] * 3)
        run(tmp_path / "store", tmp_path / "a" / "data", [RESNET])
        with pytest.raises(StoreError, match="none of its images is among the 6 images"):
            run(tmp_path / "store", tmp_path / "b" / "data", [RESNET])


class TestTheSameDataSet:
    def test_moved(self, tmp_path, data):
        run(tmp_path / "store", data, [RESNET])
        moved = shutil.move(data, tmp_path / "elsewhere" / "data")
        assert [o.cached for o in run(tmp_path / "store", moved, [RESNET])] == [True, True]

    def test_another_split_of_it(self, tmp_path, data):
        run(tmp_path / "store", data, [RESNET], split=["train"])
        moved = shutil.move(data, tmp_path / "elsewhere" / "data")
        run(tmp_path / "store", moved, [RESNET], split=["test"])
        assert splits(tmp_path / "store")[0] == {"train", "test"}

    def test_edited_until_half_of_the_images_are_left(self, tmp_path, data):
        run(tmp_path / "store", data, [RESNET])
        images = sorted(data.rglob("*.png"))
        for number, image in enumerate(images[:7]):  # of 15
            image.write_bytes(png(900 + number, size=(20, 20)))
        run(tmp_path / "store", data, [RESNET])
        run(tmp_path / "fresh", data, [RESNET])
        check_same_features(tmp_path / "store", tmp_path / "fresh")

    def test_half_of_the_smaller_is_enough(self, tmp_path, data):
        run(tmp_path / "store", data, [RESNET])
        for number in range(40):
            put(data / f"train/cat/more-{number}.png", png(900 + number, size=(20, 20)))
        run(tmp_path / "store", data, [RESNET])
        for image in sorted(data.rglob("more-*.png")):
            image.unlink()
        run(tmp_path / "store", data, [RESNET])
        assert splits(tmp_path / "store")[0] == {"train", "test"}

    def test_a_few_images_in_both_do_not_make_it_the_same(self, tmp_path, data, other):
        run(tmp_path / "store", data, [RESNET])
        before = files(tmp_path / "store")
        for image in sorted(data.rglob("*.png"))[:2]:
            put(other / "train/cat" / f"copy-{image.name}", image.read_bytes())
        with pytest.raises(StoreError, match="2 of its 17 images are among the 15 images there"):
            run(tmp_path / "store", other, [RESNET])
        assert files(tmp_path / "store") == before

    def test_files_without_digests_are_told_by_names(self, tmp_path, data, other, monkeypatch):
        """Older files: an edited folder goes on, one of other names or classes does not."""
        monkeypatch.setattr("clipnlc.stores.shards.read_content", lambda _: None)
        run(tmp_path / "store", data, [RESNET])
        assert (
            read_features(Layout(tmp_path / "store").features("data", "test", RESNET)).content
            is None
        )
        another = other_images(tmp_path / "c" / "data", classes=("left", "right"))
        with pytest.raises(StoreError, match="holds another data set"):
            run(tmp_path / "store", another, [RESNET])
        run(tmp_path / "store", other, [RESNET])  # cannot be told apart


class TestSplits:
    """Splits of other classes, which have gone from the source or were not asked for."""

    def test_a_folder_that_was_laid_out_anew(self, tmp_path, data):
        store = tmp_path / "store"
        root = tmp_path / "catsdogs"
        for folder, split in (("left", "train"), ("right", "test")):
            for number, image in enumerate(sorted((data / split).rglob("*.png"))):
                put(root / folder / f"{number}.png", image.read_bytes())
        run(store, root)
        assert splits(store, dataset="catsdogs") == ({"all"}, ("left", "right"))
        shutil.rmtree(root)
        shutil.copytree(data, root)
        said = []
        run(store, root, watch=noting(said))
        (note,) = [n for n in said if "gone" in n][:1]
        assert note == (
            "catsdogs/all has gone from the source and has other class names: its features were "
            "removed from the store"
        )
        run(tmp_path / "fresh", root)
        check_same_features(store, tmp_path / "fresh")
        assert Layout(store).splits("catsdogs") == ("test", "train")
        works(store, dataset="catsdogs")

    def test_one_backbone_after_the_other(self, tmp_path, data):
        """The others keep what they have, and are told; both then work together."""
        store = tmp_path / "store"
        run(store, data)
        works(store)
        rename_class(data)
        said = []
        run(store, data, [RESNET], watch=noting(said))
        assert splits(store, RESNET)[1] == ("cat", "hound", "test tube")
        assert splits(store, VIT)[1] == ("cat", "dog", "test tube")
        assert any(f"{VIT} still with other class names in the store" in note for note in said)
        works(store, [RESNET])
        with pytest.raises(StoreError, match=r"not aligned: .*run `clipnlc extract"):
            works(store)
        run(store, data, [VIT])
        works(store)

    @pytest.mark.parametrize("split", ["test", "train"])
    def test_one_split_of_new_classes_is_refused_before_it_is_done(self, tmp_path, data, split):
        store = tmp_path / "store"
        run(store, data)
        rename_class(data)
        before = files(store)
        rest = {"test": "train", "train": "test"}[split]
        with pytest.raises(
            StoreError,
            match=rf"data/{rest} in the store was made with other class names for {RESNET}; expected "
            rf"all splits alike: run `clipnlc extract --dataset .*/a/data --backbones {RESNET},{VIT} ",
        ):
            run(store, data, split=[split])
        assert files(store) == before
        run(store, data)
        works(store)

    def test_the_command_of_that_message_works(self, tmp_path, data, capsys):
        store, names = tmp_path / "store", tmp_path / "my names.txt"
        names.write_text("tabby\npoodle\nglass\n")
        command = ["extract", "--dataset", str(data), "--store", str(store), "--backbones", RESNET]
        assert main([*command, "--quiet"]) == 0
        command += ["--class-names", str(names), "--split", "test"]
        assert main(command) == 2
        cure = capsys.readouterr().err.partition("run `clipnlc ")[2].partition("`")[0]
        assert main(shlex.split(cure)) == 0
        assert splits(store) == ({"train", "test"}, ("tabby", "poodle", "glass"))

    def test_a_split_that_has_gone_is_removed_with_its_classes(self, tmp_path, data):
        store = tmp_path / "store"
        run(store, data)
        works(store)
        shutil.rmtree(data / "train")
        rename_class(data)
        run(store, data)
        assert splits(store) == ({"test"}, ("cat", "hound", "test tube"))
        assert Layout(store).splits("data") == ("test",)

    def test_a_split_that_has_gone_stays_with_the_same_classes(self, tmp_path, data):
        """Features outlive images that were deleted to save space."""
        store = tmp_path / "store"
        run(store, data)
        train = data / "train"
        train.rename(tmp_path / "train")
        put(data / "test" / "cat" / "new.png", png(77))
        run(store, data)
        assert splits(store)[0] == {"train", "test"}
        works(store)

    def test_new_prompts_reach_splits_that_are_not_made(self, tmp_path, data, monkeypatch):
        """Gone from the source or not asked for: texts need no image."""
        store = tmp_path / "store"
        run(store, data)
        monkeypatch.setattr(LoadedBackbone, "forward", None)
        templates = put(tmp_path / "templates.txt", b"a drawing of a {c}\n")
        said = []
        run(store, data, split=["test"], templates=templates, watch=noting(said))
        assert "data/train has the same prompts now" in said
        run(store, data, templates=templates, watch=noting(said))
        assert all(o.cached for o in run(store, data, templates=templates))
        shutil.rmtree(data / "test")
        run(store, data)
        run(store, data, templates=templates)
        works(store)

    def test_an_interrupted_removal_goes_on(self, tmp_path, data, monkeypatch):
        store = tmp_path / "store"
        run(store, data)
        shutil.rmtree(data / "train")
        rename_class(data)
        with monkeypatch.context() as patch:
            patch.setattr("clipnlc.stages.extract.settle", interrupted)
            with pytest.raises(RuntimeError, match="interrupted"):
                run(store, data)
        outcomes = run(store, data)
        assert [o.cached for o in outcomes] == [True, True]
        assert splits(store) == ({"test"}, ("cat", "hound", "test tube"))

    def test_other_weights_for_one_split(self, tmp_path, data):
        run(tmp_path / "store", data, [RESNET])
        with pytest.raises(
            StoreError, match=r"was made with other precision for nano-RN50; .*bf16"
        ):
            run(tmp_path / "store", data, [RESNET], split=["test"], precision="bf16")
        run(tmp_path / "store", data, [RESNET], precision="bf16")
        works(tmp_path / "store")


def rename_class(root):
    for folder in list(root.glob("*/dog")):
        folder.rename(folder.with_name("hound"))


def interrupted(*_):
    raise RuntimeError("interrupted")


def noting(said):
    return Watch(note=said.append)


def test_a_request_is_spelled_as_it_was_given(tmp_path):
    request = Request(
        store=tmp_path,
        dataset=["my data"],
        backbones=["nano-RN50", "nano-ViT-B-16"],
        limit={"train": 5},
        rows=(3, None),
        sources={"cub": tmp_path / "birds", "dtd": tmp_path},
        prompts="simple",
        engine=Engine(("cpu", "cpu")),
        compiled=True,
        on_bad_image="skip",
    )
    assert request.spelled(name="mine") == (
        f"clipnlc extract --source cub={tmp_path}/birds --source dtd={tmp_path} "
        "--dataset 'my data' --backbones nano-RN50,nano-ViT-B-16 --name mine --prompts simple "
        f"--limit train=5 --rows 3: --devices cpu,cpu --compile --on-bad-image skip --store {tmp_path}"
    )
