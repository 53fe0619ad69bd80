"""How an order is cut, embedded and accounted for, within one process."""

import time
from dataclasses import replace

import numpy as np
import pytest
from extracting import BOTH, check_same_features, files, run, write_images
from stores_examples import quick_disk  # noqa: F401  (a fixture for all tests of this file)

from clipnlc import backbones as backbone_names
from clipnlc.backbones import nano
from clipnlc.backbones.loaded import LoadedBackbone
from clipnlc.datasets.source import open_split
from clipnlc.errors import BackboneError, DataError
from clipnlc.extraction import crew, estimate, passes, pixels, worker
from clipnlc.extraction.embedding import Spent
from clipnlc.extraction.estimate import free_memory, memory
from clipnlc.extraction.models import Models
from clipnlc.extraction.order import Job, Order, Progress, span_size, spans
from clipnlc.extraction.passes import Passes
from clipnlc.extraction.pixels import default_decoders
from clipnlc.machine import cores
from clipnlc.stages.extract import Watch
from clipnlc.stores.features import read_features
from clipnlc.stores.key import Key
from clipnlc.stores.layout import Layout
from clipnlc.stores.shards import Shard, write_shard

RESNET, VIT = BOTH


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("data") / "many", train=50, test=23)


def loaded_counts(monkeypatch):
    """Count, from now on, how often each backbone is loaded."""
    counts = {}
    create = LoadedBackbone.__init__

    def counting(self, backbone, **settings):
        counts[backbone.name] = counts.get(backbone.name, 0) + 1
        create(self, backbone, **settings)

    monkeypatch.setattr(LoadedBackbone, "__init__", counting)
    return counts


class TestSpans:
    KEY = Key.of({"a": 1})

    def order(self, folder, data, rows, sealed, batch_size=4):
        """An order of jobs, each with some ranges sealed."""
        jobs = []
        for number, ranges in enumerate(sealed):
            job = Job(backbone_names.parse(RESNET), folder / f"{number}.h5", self.KEY)
            for start, stop in ranges:
                ids = tuple(map(str, range(start, stop)))
                features = np.ones((len(ids), 2), np.float32)
                labels = np.zeros(len(ids), np.int64)
                write_shard(job.path, self.KEY, Shard(start, stop, features, labels, ids))
            jobs.append(job)
        return Order("many", open_split(data, "train"), np.arange(rows), tuple(jobs), "fp32", False,
                     batch_size, 1, "fail")  # fmt: skip

    @pytest.mark.parametrize(
        ("sealed", "within", "expected"),
        [
            ([[]], None, [(0, 8, "0"), (8, 16, "0"), (16, 20, "0")]),
            ([[(8, 20)]], None, [(0, 8, "0")]),
            ([[(0, 20)]], None, []),
            # A backbone more: images that both lack are decoded once, for both.
            ([[(0, 12)], []], None, [(0, 8, "1"), (8, 12, "1"), (12, 16, "01"), (16, 20, "01")]),
            ([[(0, 8)], [(0, 8), (12, 16)]], None, [(8, 12, "01"), (12, 16, "0"), (16, 20, "01")]),
            ([[]], (2, 18), [(2, 8, "0"), (8, 16, "0"), (16, 18, "0")]),
            ([[(0, 4), (16, 20)]], (2, 18), [(4, 8, "0"), (8, 16, "0")]),
        ],
    )
    def test_gaps_are_cut_on_one_grid(self, tmp_path, data, sealed, within, expected):
        order = self.order(tmp_path, data, 20, sealed)
        found = spans(order, size=8, within=within)
        said = [(s.start, s.stop, "".join(j.path.stem for j in s.jobs)) for s in found]
        assert said == expected

    def test_all_workers_have_something_to_do(self):
        assert span_size(100_000, 64, 1, 2048) == 2048
        for rows, workers in ((1000, 2), (5000, 8), (10, 4)):
            size = span_size(rows, 16, workers, 2048)
            assert size % 16 == 0
            assert size == 16 or rows / size >= workers

    def test_progress_with_gaps_of_its_own_per_backbone(self, tmp_path, data, monkeypatch):
        monkeypatch.setattr(crew, "SHARD_ROWS", 16)
        order = self.order(tmp_path, data, 50, [[(0, 24)], [(16, 20), (40, 50)]])
        seen = []

        class Nobody:
            def embed(self, _order, todo, on_batch):
                for span in todo:
                    on_batch(span.stop - span.start, Spent())

            def close(self):
                pass

        crew.run_order(
            order, Nobody(), 1, on_progress=lambda p: seen.append((p.done, p.began_at, p.total))
        )
        assert seen[-1] == (50, 4, 50)
        assert all(4 <= done <= 50 for done, *_ in seen)


class TestEmbedding:
    def test_batches_and_chunks_of_any_size_give_the_same_samples(self, tmp_path, data):
        """Chunks of decoders are of 16; last bits may depend on the size of a batch, no more."""
        run(tmp_path / "whole", data, split=["train"])
        for batch_size, workers in ((1, 1), (7, 3), (24, 2), (100, 4)):
            store = tmp_path / str(batch_size)
            run(store, data, split=["train"], batch_size=batch_size, workers=workers)
            for name in BOTH:
                whole, found = (
                    read_features(Layout(s).features("many", "train", name))
                    for s in (tmp_path / "whole", store)
                )
                assert found.sample_id == whole.sample_id
                np.testing.assert_allclose(found.features, whole.features, rtol=1e-4, atol=1e-4)

    def test_skipped_images_across_chunks_batches_and_shards(self, tmp_path, monkeypatch):
        root = write_images(tmp_path / "many", train=3, test=70)
        images = sorted((root / "test").rglob("*.png"))
        bad = [0, *range(14, 19), *range(30, 50), 69]
        for i in bad:
            images[i].write_bytes(b"no image")
        monkeypatch.setattr(crew, "SHARD_ROWS", 16)  # one shard has nothing to read at all
        outcomes = run(
            tmp_path / "a", root, split=["test"], on_bad_image="skip", batch_size=20, workers=4
        )
        assert [len(o.skipped) for o in outcomes] == [len(bad)] * 2
        monkeypatch.undo()
        run(tmp_path / "b", root, split=["test"], on_bad_image="skip", batch_size=20, workers=1)
        assert files(tmp_path / "a") == files(tmp_path / "b")
        found = read_features(Layout(tmp_path / "a").features("many", "test", RESNET))
        assert len(found.features) == 70 - len(bad)
        names = [p.relative_to(root / "test").as_posix() for p in images]
        assert [s.split("test/")[-1] for s, _ in found.skipped] == [names[i] for i in bad]

    def test_nothing_readable_in_several_shards(self, tmp_path, monkeypatch):
        monkeypatch.setattr(crew, "SHARD_ROWS", 16)
        for i in range(40):
            path = tmp_path / "broken" / "test" / "cat" / f"{i:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"nothing")
        with pytest.raises(
            DataError,
            match=r"none of the images 0 to 40 of broken/test can be read \(test/cat/00.png: not an",
        ):
            run(tmp_path / "store", tmp_path / "broken", [RESNET], on_bad_image="skip")

    def test_pixels_are_let_go_before_the_shard_is_sealed(self, tmp_path, data, monkeypatch):
        held = []
        seal = worker._seal

        def looking(order, span, found):
            held.append(sum(len(part.pixels) for batch in found for part in batch.parts))
            seal(order, span, found)

        monkeypatch.setattr(worker, "_seal", looking)
        run(tmp_path, data, [RESNET], split=["train"])
        assert held == [0]

    @pytest.mark.parametrize(
        "problem",
        [
            RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
            MemoryError(),
        ],
    )
    def test_want_of_memory_names_the_cure(self, tmp_path, data, monkeypatch, problem):
        def full(*_):
            raise problem

        monkeypatch.setattr(LoadedBackbone, "forward", full)
        with pytest.raises(BackboneError, match=r"out of memory while .* --batch-size or .*--tog"):
            run(tmp_path, data, [RESNET])

    def test_another_failure_stays_what_it_is(self, tmp_path, data, monkeypatch):
        def broken(*_):
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

        monkeypatch.setattr(LoadedBackbone, "forward", broken)
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            run(tmp_path, data, [RESNET])

    def test_seconds_and_images_are_accounted_for(self, tmp_path, data):
        seen = []
        began = time.perf_counter()
        run(tmp_path, data, split=["train"], batch_size=8, workers=2,
            watch=Watch(progress=lambda p: seen.append(replace(p))))  # fmt: skip
        wall = time.perf_counter() - began
        last = seen[-1]
        assert (last.done, last.total, last.began_at) == (50, 50, 0)
        assert set(last.seconds) == {"wait", "decode", "resize", "forward", "write"}
        assert last.embedded == dict.fromkeys(BOTH, 50)
        assert last.seconds["forward"] == pytest.approx(sum(last.forward.values()))
        threads = cores() + 2 + 1  # embedding, decoding, writing
        assert 0 < sum(last.seconds.values()) <= threads * wall


def test_progress_adds_up():
    progress = Progress("cub", "test", total=10)
    progress.add(4, Spent({"decode": 1.0}, {"a": 2.0}))
    progress.add(-4, Spent())  # its worker died
    progress.add(4, Spent({"decode": 0.5}, {"a": 1.0}))
    assert progress.done == 4
    assert progress.seconds == {"decode": 1.5}
    assert (progress.forward, progress.embedded) == ({"a": 3.0}, {"a": 8})


class TestTexts:
    def test_are_embedded_once_for_splits_and_data_sets(self, tmp_path, data, monkeypatch):
        calls = []
        embed = LoadedBackbone.embed_classes
        monkeypatch.setattr(
            LoadedBackbone,
            "embed_classes",
            lambda self, *a, **k: calls.append(self.name) or embed(self, *a, **k),
        )
        run(tmp_path / "store", data)
        assert calls == list(BOTH)
        twin = write_images(tmp_path / "twin", train=3, test=6)
        run(tmp_path / "store", twin)
        assert calls == list(BOTH)
        (tmp_path / "templates.txt").write_text("a drawing of a {c}\n")
        run(tmp_path / "store", twin, templates=tmp_path / "templates.txt")
        assert calls == list(BOTH) * 2

    def test_a_damaged_one_is_told_before_images_are_embedded(self, tmp_path, data, monkeypatch):
        run(tmp_path, data, [RESNET], split=["test"])
        (path,) = (tmp_path / ".texts").rglob("*.h5")
        path.write_bytes(path.read_bytes()[:-100])
        monkeypatch.setattr(LoadedBackbone, "forward", None)
        with pytest.raises(Exception, match=r"\.texts.*delete the file and run `clipnlc extract"):
            run(tmp_path, data, [RESNET], split=["train"])


class TestPasses:
    def test_together_gives_the_same_bytes(self, tmp_path, data, monkeypatch):
        run(tmp_path / "whole", data)
        counts = loaded_counts(monkeypatch)
        outcomes = run(tmp_path / "passes", data, together=1)
        assert counts == dict.fromkeys(BOTH, 1)
        assert files(tmp_path / "passes") == files(tmp_path / "whole")
        assert [(o.split, o.backbone, o.cached) for o in outcomes] == [
            (split, backbone, False) for split in ("train", "test") for backbone in BOTH
        ]

    def test_little_free_memory_makes_several_passes(self, tmp_path, data, monkeypatch):
        run(tmp_path / "whole", data)
        monkeypatch.setattr(passes, "free_memory", lambda _device: 10**6)
        released = []
        release = Models.release
        monkeypatch.setattr(Models, "release", lambda self: released.append(1) or release(self))
        run(tmp_path / "passes", data)
        assert released == [1]
        assert files(tmp_path / "passes") == files(tmp_path / "whole")

    def chosen(self, copies):
        found = Passes(
            [backbone_names.parse(name) for name in BOTH],
            Models("cpu", "fp32"),
            together=None,
            batch_size=None,
            copies=copies,
        )
        return [[b.name for b in found.now()] for _ in found]

    def test_workers_on_one_device_share_its_memory(self, monkeypatch):
        size = sum((nano.WEIGHTS / f"{name}.safetensors").stat().st_size for name in BOTH)
        need = sum(
            memory(backbone_names.parse(n), Models("cpu", "fp32"), batch_size=None, copies=1)
            for n in BOTH
        )
        assert need > size
        monkeypatch.setattr(passes, "free_memory", lambda _device: 1.3 * need)
        assert self.chosen(1) == [list(BOTH)]
        assert self.chosen(8) == [[RESNET], [VIT]]

    def test_free_memory_in_a_container(self, tmp_path, monkeypatch):
        whole = free_memory("cpu")
        assert whole > 0
        monkeypatch.setattr(estimate, "_CGROUP", tmp_path)
        for name, text in (("memory.max", "1000000"), ("memory.current", "900000"),
                           ("memory.stat", "anon 1\ninactive_file 50000\n")):  # fmt: skip
            (tmp_path / name).write_text(text)
        assert free_memory("cpu") == 150_000
        (tmp_path / "memory.max").write_text("max\n")
        assert free_memory("cpu") > 150_000

    def test_decoders_share_the_cores(self, monkeypatch):
        monkeypatch.setattr(pixels, "cores", lambda: 16)
        assert [default_decoders("cpu", n) for n in (1, 2, 16, 32)] == [8, 4, 1, 1]
        assert [default_decoders("cuda:0", n) for n in (1, 8)] == [16, 2]


def test_prompts_of_all_and_images_of_one_split_change(tmp_path, data):
    """With several passes, a backbone's splits then come in different ones."""
    root = write_images(tmp_path / "many", train=6, test=6)
    run(tmp_path / "store", root)
    next((root / "test").rglob("*.png")).write_bytes(
        next((data / "test").rglob("*.png")).read_bytes()
    )
    (tmp_path / "templates.txt").write_text("a drawing of a {c}\n")
    settings = {"templates": tmp_path / "templates.txt"}
    run(tmp_path / "store", root, together=1, **settings)
    run(tmp_path / "whole", root, **settings)
    check_same_features(tmp_path / "store", tmp_path / "whole")
