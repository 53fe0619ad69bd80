"""Rows by several workers, and what puts them together."""

import shutil

import pytest
from extracting import BOTH, extracted, files, finish, leftovers, start, write_images
from extracting import run as run_extract
from stores_examples import quick_disk  # noqa: F401  (a fixture for all tests of this file)

from clipnlc.cli import main
from clipnlc.errors import DataError, MissingStageError, StoreError
from clipnlc.extraction import crew
from clipnlc.stages import extract as extract_stage
from clipnlc.stages.extract import Watch
from clipnlc.stages.merge import merge
from clipnlc.stores import locks, shards
from clipnlc.stores.features import read_feature_header
from clipnlc.stores.layout import Layout
from clipnlc.stores.shards import sealed_ranges, shard_files

RESNET, _ = BOTH


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("data") / "many", train=3, test=64)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, data):
    store = tmp_path_factory.mktemp("whole")
    run(store, data)
    return files(store)


def run(store, data, rows=None, backbones=BOTH, **settings):
    return run_extract(store, data, backbones, split=["test"], batch_size=16, rows=rows, **settings)


def path_of(store, backbone=RESNET):
    return Layout(store).features("many", "test", backbone)


class TestRows:
    def test_whoever_seals_the_last_merges(self, tmp_path, data, whole):
        first = run(tmp_path, data, (16, 48))
        assert [(o.rows, o.missing, o.merged) for o in first] == [
            (32, ((0, 16), (48, 64)), False)
        ] * 2
        assert not any(
            name.startswith("many/") and ".shards/" not in name for name in files(tmp_path)
        )
        run(tmp_path, data, (48, None))
        last = run(tmp_path, data, (0, 16))
        assert [(o.rows, o.missing, o.merged, o.cached) for o in last] == [
            (64, (), True, False)
        ] * 2
        assert files(tmp_path) == whole
        assert leftovers(tmp_path) == []
        assert [o.cached for o in run(tmp_path, data)] == [True, True]
        assert [o.cached for o in run(tmp_path, data, (0, 16))] == [True, True]

    def test_the_same_rows_again_embed_nothing(self, tmp_path, data, monkeypatch):
        run(tmp_path, data, (0, 32))
        monkeypatch.setattr(crew, "embed", None)
        assert run(tmp_path, data, (0, 32))[0].rows == 32

    def test_a_plain_run_takes_over(self, tmp_path, data, whole):
        run(tmp_path, data, (16, 32))
        assert run(tmp_path, data)[0].rows == 64
        assert files(tmp_path) == whole

    def test_new_prompts_renew_the_whole_file(self, tmp_path, data, whole):
        templates = tmp_path / "templates.txt"
        templates.write_text("a drawing of a {c}\n")
        run(tmp_path / "store", data, templates=templates)
        (outcome, _) = run(tmp_path / "store", data, (0, 16))
        assert (outcome.rows, outcome.merged) == (64, True)
        found = files(tmp_path / "store")
        assert {name: found[name] for name in whole} == whole

    @pytest.mark.parametrize("rows", [(64, None), (70, 80), (8, 8)])
    def test_rows_that_are_not_there(self, tmp_path, data, rows):
        with pytest.raises(DataError, match=r"--rows \d+:\d* holds none of the 64 rows"):
            run(tmp_path, data, rows)

    def test_rows_of_two_splits(self, tmp_path, data):
        with pytest.raises(DataError, match="--rows is for a single data set and split"):
            run_extract(tmp_path, data, [RESNET], rows=(0, 8))


class TestAtOnce:
    def test_other_rows_may_be_written_meanwhile(self, tmp_path, data, whole):
        inner = []

        def meanwhile(_):
            if not inner:
                inner.append(None)
                inner[:] = run(tmp_path, data, (32, 64))

        outer = run(tmp_path, data, (0, 32), watch=Watch(progress=meanwhile))
        assert [(o.rows, o.merged) for o in inner] == [(32, False)] * 2
        assert [(o.rows, o.merged) for o in outer] == [(64, True)] * 2
        assert files(tmp_path) == whole

    @pytest.mark.parametrize("rows", [None, (16, 48), (0, 8), (31, 64)])
    def test_rows_in_work_are_nobody_elses(self, tmp_path, data, whole, rows):
        refused = []

        def meanwhile(_):
            if not refused:
                with pytest.raises(
                    locks.InUseError, match=r"another clipnlc is writing .* \(pid \d+"
                ):
                    run(tmp_path, data, rows)
                with pytest.raises(locks.InUseError, match="another clipnlc is writing"):
                    merge(store=tmp_path)
                refused.append(True)

        # Sealed once already, or there would be nothing to merge yet.
        run(tmp_path, data, (48, 64))
        run(tmp_path, data, (0, 32), watch=Watch(progress=meanwhile))
        assert refused == [True]
        run(tmp_path, data)
        assert files(tmp_path) == whole

    def test_rows_beside_a_whole_file_are_refused(self, tmp_path, data):
        with (
            locks.writing(path_of(tmp_path)),
            pytest.raises(locks.InUseError, match="another clipnlc is writing"),
        ):
            run(tmp_path, data, (0, 32))

    def test_another_is_merging(self, tmp_path, data, whole, monkeypatch):
        """The second of two that saw the last row sealed says so and leaves it to the first."""
        run(tmp_path, data, (0, 32))
        merge_if_last = extract_stage._Work._merge_if_last

        def beside_another(work, job):
            with locks.writing(job.path):
                merge_if_last(work, job)

        with monkeypatch.context() as patch:
            patch.setattr(extract_stage._Work, "_merge_if_last", beside_another)
            late = run(tmp_path, data, (32, 64))
        assert [(o.rows, o.missing, o.merged) for o in late] == [(64, (), False)] * 2
        assert not path_of(tmp_path).exists()
        merge(store=tmp_path)
        assert files(tmp_path) == whole

    def test_a_failing_merge_is_told(self, tmp_path, data):
        run(tmp_path, data, (0, 32))
        (file,) = shard_files(path_of(tmp_path))
        spoilt = bytearray(file.read_bytes())
        labels = shards.read_shard(file).labels.tobytes()
        spoilt[spoilt.index(labels)] ^= 1
        file.write_bytes(spoilt)
        with pytest.raises(StoreError, match=r"is damaged .*delete the file and run"):
            run(tmp_path, data, (32, 64))


class TestMerge:
    @pytest.fixture
    def parts(self, tmp_path, data, monkeypatch):
        """A store of sealed parts, as workers leave it that were all killed before they merged."""

        def sealed(*ranges):
            with monkeypatch.context() as patch:
                patch.setattr(extract_stage._Work, "_merge_if_last", lambda *_: None)
                for rows in ranges:
                    run(tmp_path / "store", data, rows)
            return tmp_path / "store"

        return sealed

    def test_needs_neither_images_nor_weights(self, data, whole, parts, monkeypatch):
        store = parts((0, 16), (16, 64))
        monkeypatch.setattr("clipnlc.backbones.weights.weights_file", None)
        away = data.rename(data.with_name("away"))
        try:
            merged = merge(store=store)
        finally:
            away.rename(data)
        assert [(m.dataset, m.split, m.backbone, m.rows, m.missing) for m in merged] == [
            ("many", "test", backbone, 64, ()) for backbone in BOTH
        ]
        assert files(store) == whole
        assert leftovers(store) == []
        assert [o.cached for o in run(store, data)] == [True, True]

    def test_gaps_are_named(self, data, parts, capsys):
        store = parts((16, 32), (48, 64))
        merged = merge(store=store)
        assert [m.missing for m in merged] == [((0, 16), (32, 48))] * 2
        assert not path_of(store).exists()
        assert main(["merge", "--store", str(store), "--quiet"]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith(
            "error: 2 of 2 feature files lack rows, first many/test nano-RN50 rows 0 to 16; "
        )
        assert err.count("\n") == 1
        run(store, data, (32, 48))
        run(store, data, (0, 16))
        assert main(["merge", "--store", str(store), "--quiet"]) == 2
        assert "holds no unmerged shards" in capsys.readouterr().err

    def test_rows_sealed_twice_are_refused(self, parts):
        store = parts((0, 32), (32, 64))
        for path in (path_of(store, b) for b in BOTH):
            first, _ = shard_files(path)
            shard = shards.read_shard(first)
            key = shards.read_shard_header(first).key
            half = shards.Shard(0, 16, shard.features[:16], shard.labels[:16], shard.sample_id[:16])
            shards.write_shard(path, key, half)
        with pytest.raises(StoreError, match=r"sealed twice; delete .*shards and run"):
            merge(store=store)

    def test_only_what_is_asked_for(self, parts):
        store = parts((0, 64))
        assert [m.backbone for m in merge(store=store, backbones=[RESNET])] == [RESNET]
        assert path_of(store).exists()
        assert not path_of(store, BOTH[1]).exists()
        assert Layout(store).logit_backbones("many", "zero-shot") == (RESNET,)

    def test_shards_under_older_settings_do_not_count(self, tmp_path, data, whole, parts):
        templates = tmp_path / "templates.txt"
        templates.write_text("a drawing of a {c}\n")
        store = tmp_path / "store"
        run(store, data, (0, 16), templates=templates)
        parts((0, 32), (32, 64))
        merge(store=store)
        found = files(store)
        assert {name: found[name] for name in whole} == whole
        assert leftovers(store) == []

    def test_what_a_merge_left_when_it_was_killed(self, data, whole, parts):
        """The file is there, and some of its shards still are."""
        store = parts((0, 16), (16, 64))
        kept = [(file, file.read_bytes()) for b in BOTH for file in shard_files(path_of(store, b))]
        merge(store=store)
        for stage in (lambda: merge(store=store), lambda: run(store, data)):
            for file, content in kept[::2]:  # the first of each
                file.parent.mkdir()
                file.write_bytes(content)
            stage()
            assert files(store) == whole
            assert leftovers(store) == []
        path_of(store).with_suffix(".shards").mkdir()
        with pytest.raises(MissingStageError, match="holds no unmerged shards"):
            merge(store=store)
        run(store, data)
        assert leftovers(store) == []

    def test_the_texts_have_gone(self, data, parts, whole):
        store = parts((0, 64))
        shutil.rmtree(store / ".texts")
        with pytest.raises(MissingStageError, match=r"no texts of nano-RN50.*clipnlc extract"):
            merge(store=store)
        run(store, data)
        assert files(store) == whole

    def test_nothing_there(self, tmp_path):
        with pytest.raises(
            MissingStageError,
            match=r"holds no unmerged shards; make some with `clipnlc extract --dataset … --split … --rows",
        ):
            merge(store=tmp_path)


@pytest.mark.slow
def test_two_processes_at_once_make_what_one_does(tmp_path, data, whole):
    """Each may be the last; one that was turned away for the texts' sake would fail here."""
    given = {"split": ["test"], "batch_size": 16}
    both = [start(tmp_path, data, rows=rows, **given) for rows in ([0, 32], [32, 64])]
    assert [finish(process)[::2] for process in both] == [(0, "")] * 2
    assert read_feature_header(path_of(tmp_path)).rows == 64
    assert files(tmp_path) == whole
    assert leftovers(tmp_path) == []


@pytest.mark.slow
def test_two_devices_do_some_rows(tmp_path, data, whole):
    extracted(tmp_path, data, split=["test"], batch_size=16, rows=[0, 48], devices=["cpu", "cpu"])
    key = shards.read_shard_header(shard_files(path_of(tmp_path))[0]).key
    assert sealed_ranges(path_of(tmp_path), key) == [(0, 16), (16, 32), (32, 48)]
    run(tmp_path, data, (48, None))
    assert files(tmp_path) == whole
