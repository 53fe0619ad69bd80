"""Augmented crops of train: what they show, and that nothing takes them for a split."""

import shutil

import numpy as np
import pytest
from datasets_on_disk import put
from extracting import BOTH, check_same_features, files, run
from PIL import Image
from scipy.stats import ks_2samp
from stores_examples import quick_disk  # noqa: F401  (a fixture for all tests of this file)
from torchvision.transforms import RandomResizedCrop

from clipnlc import backbones as backbone_names
from clipnlc.backbones.loaded import LoadedBackbone
from clipnlc.datasets.source import open_split
from clipnlc.errors import DataError, StoreError
from clipnlc.extraction.crops import crop_of
from clipnlc.extraction.request import Request
from clipnlc.labels import Labels
from clipnlc.stages.diversity import diversity
from clipnlc.stages.evaluate import evaluate
from clipnlc.stages.extract import Watch
from clipnlc.stages.plan import plan
from clipnlc.stages.train_heads import train_heads
from clipnlc.stages.verify import verify
from clipnlc.stores.features import read_feature_header, read_features
from clipnlc.stores.layout import Layout
from clipnlc.stores.logits import read_logit_header

RESNET, VIT = BOTH
SIZES = ((40, 30), (31, 64), (50, 50), (90, 12), (33, 47), (24, 81))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Six images of train, of all shapes and modes, and two of test."""
    root = tmp_path_factory.mktemp("data") / "pets2"
    random = np.random.default_rng(0)
    for part, count in (("train", 6), ("test", 2)):
        for number, size in enumerate(SIZES[:count]):
            noise = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            image = Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)
            mode = ("RGB", "RGBA", "L", "P")[number % 4]
            path = root / part / ("cat", "dog")[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            image.convert(mode).save(path)
    return root


@pytest.fixture(scope="module")
def store(data, tmp_path_factory):
    """A store with three crops; to be read only."""
    path = tmp_path_factory.mktemp("crops") / "store"
    run(path, data, crops=3)
    return path


def crop(store, number, backbone=RESNET, dataset="pets2"):
    return read_features(Layout(store).features(dataset, f"train~crop-{number}", backbone))


class TestWhatIsShown:
    @pytest.mark.parametrize("size", [(400, 300), (120, 210)])
    def test_drawn_as_torchvision_draws(self, size):
        theirs = RandomResizedCrop(8, scale=(0.5, 1))
        image = Image.new("L", size)
        drawn = np.array(
            [theirs.get_params(image, theirs.scale, theirs.ratio) for _ in range(3000)]
        )
        crops = [crop_of(size, number.to_bytes(16, "big"), 3) for number in range(3000)]
        ours = np.array([(c.box[1], c.box[0], c.box[3], c.box[2]) for c in crops])
        ours[:, 2:] -= ours[:, :2]  # top, left, height, width
        for column in range(4):
            assert ks_2samp(drawn[:, column], ours[:, column]).pvalue > 1e-4
        areas = [np.log(each[:, 2] * each[:, 3]) for each in (drawn, ours)]
        aspects = [np.log(each[:, 3] / each[:, 2]) for each in (drawn, ours)]
        assert ks_2samp(*areas).pvalue > 1e-4
        assert ks_2samp(*aspects).pvalue > 1e-4
        assert 0.46 < np.mean([c.mirrored for c in crops]) < 0.54

    @pytest.mark.parametrize("size", [(400, 10), (9, 301)])
    def test_the_middle_of_a_long_image(self, size):
        theirs = RandomResizedCrop.get_params(Image.new("L", size), (0.5, 1), (3 / 4, 4 / 3))
        left, upper, right, lower = crop_of(size, bytes(16), 0).box
        assert (upper, left, lower - upper, right - left) == theirs

    def test_crops_of_one_pixel(self):
        assert {crop_of((1, 1), bytes([n]), 0).box for n in range(40)} == {(0, 0, 1, 1)}

    @pytest.mark.parametrize("name", BOTH)
    def test_features_are_those_of_pillows_crops(self, store, data, name):
        backbone = LoadedBackbone(backbone_names.parse(name), device="cpu", precision="fp32")
        height, width = backbone.preprocessing.size
        split = open_split(data, "train")
        boxes = set()
        for number in range(3):
            seen = []
            for sample in split.read():
                with Image.open(data / sample.sample_id) as opened:
                    image = opened.convert("RGB")
                shown = crop_of(image.size, sample.digest, number)
                boxes.add((sample.sample_id, shown.box))
                part = image.crop(shown.box).resize((width, height), Image.Resampling.BICUBIC)
                pixels = np.asarray(part)
                seen.append(pixels[:, ::-1] if shown.mirrored else pixels)
            found = crop(store, number, name)
            expected = backbone.embed_images(np.stack(seen))
            np.testing.assert_allclose(found.features, expected, rtol=1e-3, atol=1e-3)
            assert found.sample_id == split.sample_id
            np.testing.assert_array_equal(found.labels, split.labels)
        assert len(boxes) > 12  # most crops differ

    @pytest.mark.parametrize(
        "settings", [{"batch_size": 1, "together": 1}, {"batch_size": 4, "workers": 3}]
    )
    def test_the_same_in_any_batches(self, store, data, tmp_path, settings):
        run(tmp_path, data, BOTH[::-1], crops=3, **settings)
        check_same_features(store, tmp_path)

    def test_the_same_of_an_image_of_another_name(self, store, data, tmp_path):
        for path in sorted((data / "train" / "cat").iterdir()):
            put(tmp_path / "pets2/train/cat" / f"z{9 - int(path.stem)}.png", path.read_bytes())
        shutil.copytree(data / "train" / "dog", tmp_path / "pets2/train/dog")
        run(tmp_path / "store", tmp_path / "pets2", [VIT], crops=1, split=["train"])
        before, after = crop(store, 0, VIT), crop(tmp_path / "store", 0, VIT)
        order = [before.sample_id.index(f"train/cat/{n}.png") for n in (4, 2, 0)]
        np.testing.assert_allclose(after.features[:3], before.features[order], rtol=1e-4, atol=1e-5)


class TestOnlyCrops:
    def test_all_else_in_the_store_is_as_without_them(self, store, data, tmp_path):
        run(tmp_path, data)
        with_crops = files(store)
        assert {name for name in with_crops if "~crop-" not in name} == files(tmp_path).keys()
        assert {n: b for n, b in with_crops.items() if "~crop-" not in n} == files(tmp_path)
        layout = Layout(store)
        assert layout.splits("pets2") == ("test", "train")
        assert layout.crops("pets2") == tuple(f"train~crop-{n}" for n in range(3))
        logits = read_logit_header(layout.logits("pets2", "zero-shot", RESNET))
        assert list(logits.rows) == ["test", "train"]

    def test_no_stage_takes_them_for_a_split(self, store):
        said = "train~crop-0 holds crops of images, .* choose another --split"
        for stage in (evaluate, diversity):
            with pytest.raises(DataError, match=said):
                stage(store=store, split="train~crop-0")

    def test_verified(self, store, tmp_path):
        copied = tmp_path / "store"
        shutil.copytree(store, copied)
        assert not verify(store=copied).damage
        path = Layout(copied).features("pets2", "train~crop-1", RESNET)
        path.write_bytes(path.read_bytes()[:-40] + bytes(40))
        (damage,) = verify(store=copied).damage
        assert "extract --dataset pets2 --backbones nano-RN50 --crops 2" in damage.problem

    def test_the_key_says_how_they_are_drawn(self, store):
        path = Layout(store).features("pets2", "train~crop-2", VIT)
        key = read_feature_header(path).key.fields
        assert key["images"]["view"]["crop"] == 2
        assert (key["images"]["view"]["least_area"], key["images"]["split"]) == (
            0.5,
            "train~crop-2",
        )


class TestAgain:
    def test_cached_and_added_to(self, store, data, tmp_path, monkeypatch):
        shutil.copytree(store, tmp_path / "store")
        Layout(tmp_path / "store").features("pets2", "train~crop-1", VIT).unlink()
        embedded = []
        forward = LoadedBackbone.forward

        def counting(self, images):
            embedded.append((self.name, len(images)))
            return forward(self, images)

        monkeypatch.setattr(LoadedBackbone, "forward", counting)
        outcomes = run(tmp_path / "store", data, crops=4)
        assert sorted(embedded) == [(RESNET, 6), (VIT, 6), (VIT, 6)]
        assert [(o.split, o.backbone) for o in outcomes if not o.cached] == [
            ("train~crop-1", VIT),
            ("train~crop-3", RESNET),
            ("train~crop-3", VIT),
        ]
        assert crop(tmp_path / "store", 1, VIT).digest == crop(store, 1, VIT).digest

    def test_planned(self, store, data):
        request = Request(store=store, dataset=[str(data)], backbones=[VIT], crops=5)
        planned = plan(request, probe=False)
        assert [(s.split, s.images, s.lacking) for s in planned.splits[-2:]] == [
            ("train~crop-3", 6, (VIT,)),
            ("train~crop-4", 6, (VIT,)),
        ]
        assert all(s.cached for s in planned.splits[:-2])

    def test_limited_as_train_is(self, data, tmp_path):
        outcomes = run(tmp_path, data, [VIT], crops=1, limit={"train": 4})
        assert {o.split: o.rows for o in outcomes} == {"train": 4, "test": 2, "train~crop-0": 4}

    def test_crops_that_train_has_outgrown_are_refused_until_made_again(self, data, tmp_path):
        shutil.copytree(data, tmp_path / "pets2")
        store = tmp_path / "store"
        fitting = {
            "store": store,
            "head": "tip-adapter",
            "labels": [Labels.shots(1)],
            "seeds": (0,),
        }
        run(store, tmp_path / "pets2", crops=1)
        (tmp_path / "pets2/train/dog/5.png").unlink()
        run(store, tmp_path / "pets2")
        with pytest.raises(StoreError, match=r"pets2/train \(content: .*samples: 5 -> 6\)"):
            train_heads(**fitting)
        run(store, tmp_path / "pets2", crops=1)
        assert [t.facts["crops"] for t in train_heads(**fitting)] == [1, 1]

    def test_other_classes_take_the_crops_with_them(self, store, data, tmp_path):
        shutil.copytree(store, tmp_path / "store")
        told = []
        prompts = put(tmp_path / "t.txt", b"a drawing of a {c}\n")
        run(tmp_path / "store", data, templates=prompts, watch=Watch(note=told.append))
        assert "pets2/train~crop-2 has the same prompts now" in told
        names = put(tmp_path / "names.txt", b"lion\nwolf\n")
        run(tmp_path / "store", data, class_names=names, watch=Watch(note=told.append))
        removed = (
            "pets2/train~crop-0 has other class names and templates: its features were removed"
        )
        assert any(removed in note for note in told), told
        assert Layout(tmp_path / "store").crops("pets2") == ()


class TestRefused:
    @pytest.mark.parametrize(
        ("settings", "said"),
        [
            (
                {"crops": 2, "split": ["test"]},
                "crops of the images of train, and only test would be extracted; add train",
            ),
            ({"crops": 101}, "--crops is 101; give 0 to 100"),
            ({"crops": 1, "split": ["train"], "rows": (0, 2)}, "--rows is for .*; drop --crops"),
            (
                {"split": ["train~crop-0"]},
                "pets2/train~crop-0 is named as a crop; make crops of train with --crops",
            ),
        ],
    )
    def test_by_its_message(self, data, tmp_path, settings, said):
        with pytest.raises(DataError, match=said):
            run(tmp_path, data, **settings)
        assert not files(tmp_path)
