"""Photos without a store: the extraction's features, block by block, whatever lies among them."""

import gc
import itertools
import os
import threading
import tracemalloc
from contextlib import closing

import numpy as np
import pytest
from datasets_on_disk import png
from extracting import BOTH, run, write_images
from stores_examples import quick_disk  # noqa: F401  (a fixture for all tests of this file)

from clipnlc import backbones as backbone_names
from clipnlc.backbones.loaded import LoadedBackbone
from clipnlc.datasets import images
from clipnlc.errors import BackboneError
from clipnlc.extraction.models import Models
from clipnlc.extraction.photos import stream_photos
from clipnlc.machine import cores
from clipnlc.stores.features import read_features
from clipnlc.stores.layout import Layout

BACKBONES = tuple(backbone_names.parse(name) for name in BOTH)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("data") / "many", train=3, test=45)


@pytest.fixture(scope="module")
def models():
    return Models("cpu", "fp32")


@pytest.fixture(scope="module")
def stored(data, tmp_path_factory):
    """The features of the test split as `extract` stores them, per backbone."""
    store = tmp_path_factory.mktemp("store")
    run(store, data, split=["test"])
    return [read_features(Layout(store).features("many", "test", name)) for name in BOTH]


def streamed(files, models, **settings):
    """All blocks of a stream, put together: files, features per backbone, skipped."""
    blocks = list(stream_photos(files, models, BACKBONES, **settings))
    return (
        [file for block in blocks for file in block.files],
        [np.concatenate(parts) for parts in zip(*(b.features for b in blocks), strict=True)],
        [skipped for block in blocks for skipped in block.skipped],
    )


def cosines(one, two):
    one, two = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (one, two))
    return (one * two).sum(axis=1)


class TestFeatures:
    def test_are_those_of_the_feature_store_to_the_bit(self, data, models, stored):
        files = [data / name for name in stored[0].sample_id]
        found, features, skipped = streamed(files, models)
        assert (found, skipped) == (files, [])
        for mine, theirs in zip(features, stored, strict=True):
            assert mine.dtype == theirs.features.dtype
            np.testing.assert_array_equal(mine, theirs.features)

    @pytest.mark.parametrize(("batch_size", "decoders"), [(1, 1), (7, 3), (100, 2)])
    def test_do_not_depend_on_the_batch(self, data, models, stored, batch_size, decoders):
        files = [data / name for name in stored[0].sample_id]
        found, features, _ = streamed(files, models, batch_size=batch_size, decoders=decoders)
        assert found == files
        for mine, theirs in zip(features, stored, strict=True):
            assert (cosines(mine, theirs.features) > 0.999999).all()

    def test_come_in_the_order_of_files_and_backbones(self, data, models):
        files = sorted(data.rglob("*.png"), reverse=True)
        blocks = list(stream_photos(iter(files), models, BACKBONES[::-1], batch_size=20))
        assert [len(block.files) for block in blocks] == [20, 20, 8]
        assert [file for block in blocks for file in block.files] == files
        widths = [models.load(backbone).dim for backbone in BACKBONES[::-1]]
        assert [[f.shape[1] for f in block.features] for block in blocks] == [widths] * 3

    def test_no_files_give_no_blocks(self, models):
        assert list(stream_photos([], models, BACKBONES)) == []

    def test_the_same_file_twice_is_two_photos(self, data, models):
        file = next(data.rglob("*.png"))
        found, (features, _), _ = streamed([file, file], models)
        assert found == [file, file]
        np.testing.assert_array_equal(features[0], features[1])


class TestBadFiles:
    @pytest.fixture
    def mixed(self, data, tmp_path):
        """Ten photos, and six other files between them."""
        good = sorted(data.rglob("*.png"))[:10]
        bad = [
            tmp_path / n for n in ("broken.png", "album", "gone.png", "empty.png", "queue", "cut")
        ]
        bad[0].write_bytes(b"no image at all")
        bad[1].mkdir()
        bad[3].touch()
        os.mkfifo(bad[4])
        bad[5].write_bytes(png(3)[:60])
        mixed = good[:]
        for place, file in zip((0, 3, 4, 9, 12, 15), bad, strict=True):
            mixed.insert(place, file)
        return mixed, good, bad

    @pytest.mark.parametrize("batch_size", [1, 4, 16])
    def test_are_skipped_with_the_reason_and_the_rest_goes_on(self, mixed, models, batch_size):
        files, good, bad = mixed
        found, features, skipped = streamed(files, models, batch_size=batch_size)
        assert found == good
        assert [len(f) for f in features] == [10, 10]
        reasons = dict(skipped)
        assert [file for file, _ in skipped] == bad
        expected = (
            "not an image, or of an unknown format",
            "a folder, not a regular file",
            "No such file or directory",
            "the file is empty",
            "a named pipe, not a regular file",
            "truncated",
        )
        for file, reason in zip(bad, expected, strict=True):
            assert reason in reasons[file]
            assert file.name not in reasons[file]
            assert "\n" not in reasons[file]
        alone = streamed(good, models)[1]
        for mine, theirs in zip(features, alone, strict=True):
            assert (cosines(mine, theirs) > 0.999999).all()

    def test_only_bad_files(self, mixed, models):
        _, _, bad = mixed
        (block,) = stream_photos(bad, models, BACKBONES)
        assert block.files == ()
        assert [f.shape for f in block.features] == [(0, models.load(b).dim) for b in BACKBONES]
        assert len(block.skipped) == len(bad)

    def test_what_is_too_large_for_an_image_is_not_read(self, data, models, monkeypatch):
        monkeypatch.setattr(images, "LARGEST_FILE", 10)
        file = next(data.rglob("*.png"))
        (block,) = stream_photos([file], models, BACKBONES)
        ((skipped, reason),) = block.skipped
        assert skipped == file
        assert "too large: " in reason

    def test_a_name_no_file_can_have(self, models, tmp_path):
        (block,) = stream_photos([tmp_path / "a\0b"], models, BACKBONES)
        assert [reason for _, reason in block.skipped] == ["no file can have this name"]

    @pytest.mark.parametrize("value", [np.nan, np.inf, 0])
    def test_features_that_cannot_be_used(self, data, models, monkeypatch, value):
        files = sorted(data.rglob("*.png"))[:5]
        forward = LoadedBackbone.forward

        def spoilt(backbone, finished):
            features = forward(backbone, finished)
            if backbone.name == BOTH[1]:
                features[2] = value
            return features

        monkeypatch.setattr(LoadedBackbone, "forward", spoilt)
        (block,) = stream_photos(files, models, BACKBONES)
        assert block.files == (*files[:2], *files[3:])
        assert [len(f) for f in block.features] == [4, 4]
        ((file, reason),) = block.skipped
        assert (file, reason) == (
            files[2],
            "nano-ViT-B-16 gives it no finite features; use --precision fp32",
        )

    def test_weights_that_are_not_there(self, data):
        backbone = backbone_names.Backbone("x", "RN50", "file", file=data / "none.pt")
        files = list(data.rglob("*.png"))
        with pytest.raises(BackboneError, match=r"none\.pt"):
            list(stream_photos(files, Models("cpu", "fp32"), [backbone]))


class TestBounds:
    def test_files_are_taken_as_they_are_needed(self, data, models):
        file = next(data.rglob("*.png"))
        taken = itertools.count()
        asked = []

        def endless():
            while len(asked) < 5000:  # a stream that takes them all ends, and fails
                asked.append(next(taken))
                yield file

        lead = 8 * (cores() + 2) + 2 * 16 + 8  # batches on their way, and chunks of decoders
        with closing(
            stream_photos(endless(), models, BACKBONES, batch_size=8, decoders=2)
        ) as stream:
            for done, block in enumerate(itertools.islice(stream, 20)):
                assert len(block.files) == 8
                assert len(asked) <= 8 * done + lead

    @pytest.mark.slow
    def test_memory_does_not_grow_with_the_number_of_files(self, data, models):
        files = itertools.cycle(sorted(data.rglob("*.png")))

        def peak(number):
            gc.collect()
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            read = 0
            for block in stream_photos(itertools.islice(files, number), models, BACKBONES):
                read += len(block.files)
            assert read == number
            return tracemalloc.get_traced_memory()[1] - before

        tracemalloc.start()
        try:
            peak(50)  # imports and caches
            # The least of three: what another thread of the tests allocates meanwhile counts too.
            small, *large = peak(200), peak(2000), peak(2000), peak(2000)
        finally:
            tracemalloc.stop()
        # The pixels alone of 1,800 photos are 15 MB; how many are read ahead hangs on the machine.
        assert min(large) - small < 6e6

    def test_leaving_early_ends_the_threads(self, data, models):
        before = threading.active_count()
        files = itertools.cycle(sorted(data.rglob("*.png")))
        with closing(stream_photos(files, models, BACKBONES)) as stream:
            next(stream)
            assert threading.active_count() > before
        assert threading.active_count() == before
