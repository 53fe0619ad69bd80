"""Status: what a store holds, and what is stale."""

import json
import os
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from stores_examples import (
    BACKBONES,
    feature_rows,
    fit_store,
    given_store,
    labels_of,
    logit_store,
    quick_disk,  # noqa: F401  (a fixture)
    sample_ids,
    write_features,
    write_store,
)

from clipnlc.errors import MissingStageError
from clipnlc.files import replacing
from clipnlc.stores._h5 import reading
from clipnlc.stores.fits import add_fits, read_fit_header
from clipnlc.stores.given import add_given
from clipnlc.stores.key import Key
from clipnlc.stores.logits import read_logit_header, read_logits, write_logits
from clipnlc.stores.shards import Shard, write_shard
from clipnlc.stores.status import store_status

FIRST, SECOND = BACKBONES
FITS = "cub/fits/linear/two/4-shots-seed-0.h5"
GIVEN = "cub/given/cub/linear/two/4-shots-seed-0/test.h5"
V1 = Path(__file__).parent / "data" / "archives" / "v1" / "combined.h5"


@pytest.fixture
def layout(tmp_path):
    return write_store(tmp_path)


def by_path(layout):
    return {row.path: row for row in store_status(layout.root)}


def test_each_file_is_one_row(layout):
    rows = store_status(layout.root)
    assert [(r.kind, r.split, r.head, r.backbone, r.run, r.rows) for r in rows] == [
        ("features", "test", None, FIRST, None, 6),
        ("features", "test", None, SECOND, None, 6),
        ("logits", "test,train", "linear", FIRST, None, 12),
        ("logits", "test,train", "linear", SECOND, None, 12),
        ("fits", None, "linear", None, "4-shots-seed-0", None),
        ("given", "test", "linear", None, "4-shots-seed-0", 6),
    ]
    assert all(r.complete and not r.stale and r.why == "" and r.dataset == "cub" for r in rows)
    assert all(r.bytes == (layout.root / r.path).stat().st_size for r in rows)
    json.dumps([asdict(r) for r in rows])


def test_no_array_is_read_but_the_members_of_a_run(layout, monkeypatch):
    read = []
    load = reading._read_dataset
    monkeypatch.setattr(reading, "_read_dataset", lambda f, n, e: read.append(n) or load(f, n, e))
    assert len(store_status(layout.root)) == 6
    assert read == ["backbones"]


def test_what_was_made_from_a_changed_file_is_stale_and_so_is_what_follows(layout):
    write_features(layout.features("cub", "test", FIRST), feature_rows(6) + 1)
    rows = by_path(layout)
    stale = {path: row.why for path, row in rows.items() if row.stale}
    logits = f"cub/logits/linear/{FIRST}.h5"
    assert stale == {
        logits: f"cub/features/test/{FIRST}.h5 has changed since",
        FITS: f"{logits}#train is stale itself (log-avg, nlc)",
        GIVEN: (
            f"{FITS}#log-avg is stale itself (log-avg); "
            f"{logits}#test is stale itself (log-avg, nlc); "
            f"{FITS}#nlc is stale itself (nlc)"
        ),
    }
    assert all(row.complete for row in rows.values())


def test_other_test_logits_leave_fits_fresh_and_what_they_give_stale(layout):
    path = layout.logits("cub", "linear", FIRST)
    store = read_logits(path)
    test = store.splits["test"]
    write_logits(
        path, replace(store, splits={**store.splits, "test": replace(test, logits=-test.logits)})
    )
    rows = by_path(layout)
    assert {path for path, row in rows.items() if row.stale} == {GIVEN}
    assert rows[GIVEN].why == f"{layout.relative(path)}#test has changed since (log-avg, nlc)"


def test_a_split_that_is_gone_makes_what_was_made_from_it_stale(layout):
    path = layout.logits("cub", "linear", FIRST)
    store = read_logits(path)
    write_logits(path, replace(store, splits={"train": store.splits["train"]}))
    rows = by_path(layout)
    assert not rows[FITS].stale
    assert rows[GIVEN].why == f"{layout.relative(path)} has no test any more (log-avg, nlc)"


def test_only_the_combiners_made_from_a_changed_file_are_named(layout):
    logits = layout.logits("cub", "linear", FIRST)
    run = layout.fits("cub", "linear", "two", "no-labels")
    inputs = {layout.relative(logits): read_logit_header(logits).digest}
    add_fits(run, fit_store(("log-avg",), inputs=inputs))
    add_fits(run, fit_store(("nlc",)))
    write_logits(logits, logit_store(seed=7))
    assert by_path(layout)[layout.relative(run)].why == (
        f"cub/logits/linear/{FIRST}.h5 has changed since (log-avg)"
    )


def test_only_what_a_changed_fit_gave_is_stale(layout):
    inputs = read_fit_header(layout.root / FITS).keys["nlc"].inputs
    new = fit_store(("nlc",), inputs=inputs)
    changed = replace(new.fits["nlc"], learnt={"temperature_": np.array([3.0, 4.0])})
    add_fits(layout.root / FITS, replace(new, fits={"nlc": changed}))
    rows = by_path(layout)
    assert rows[GIVEN].why == f"{FITS}#nlc has changed since (nlc)"


def test_what_is_given_elsewhere_depends_on_the_source_whatever_its_name(layout):
    """Data sets are listed by name, but the one fitted on may come later."""
    elsewhere = layout.given(
        "birds", "test", source="cub", head="linear", members="two", run="4-shots-seed-0"
    )
    fitted = read_fit_header(layout.root / FITS).digests
    add_given(elsewhere, given_store(("nlc",), inputs={f"{FITS}#nlc": fitted["nlc"]}))
    assert not by_path(layout)[layout.relative(elsewhere)].stale
    write_logits(layout.logits("cub", "linear", FIRST), logit_store(seed=7))
    rows = by_path(layout)
    assert rows[layout.relative(elsewhere)].why == f"{FITS}#nlc is stale itself (nlc)"
    assert [row.dataset for row in rows.values()][:1] == ["birds"]


def test_a_run_of_version_1_is_listed(layout):
    path = layout.combined("cub", "linear", "no-labels")
    path.parent.mkdir(parents=True)
    shutil.copy(V1, path)
    row = by_path(layout)[layout.relative(path)]
    assert (row.kind, row.head, row.run, row.complete) == ("combined", "linear", "no-labels", True)
    assert row.why == "logits.h5 is no longer there"


def test_the_same_content_written_again_makes_nothing_stale(layout):
    write_features(layout.features("cub", "test", FIRST), feature_rows(6), cuts=(1, 4))
    assert not any(row.stale for row in store_status(layout.root))


def test_an_input_that_was_removed_is_told_but_makes_nothing_stale(layout):
    layout.features("cub", "test", FIRST).unlink()
    row = by_path(layout)[f"cub/logits/linear/{FIRST}.h5"]
    assert not row.stale
    assert row.why == f"cub/features/test/{FIRST}.h5 is no longer there"


def test_an_unfinished_extraction_is_incomplete(layout):
    path = layout.features("cub", "train", "RN101")
    for start in (0, 3):
        part = Shard(start, start + 3, feature_rows(3), labels_of(3), sample_ids(start + 3)[start:])
        write_shard(path, Key.of({"precision": "fp32"}), part)
    write_shard(path, Key.of({}), Shard(6, 7, feature_rows(1), labels_of(1), ("old",)))
    row = by_path(layout)["cub/features/train/RN101.shards"]
    assert (row.kind, row.rows, row.complete, row.backbone) == ("shards", 6, False, "RN101")
    assert row.why == (
        "6 rows sealed; run `clipnlc extract --dataset cub --backbones RN101 "
        f"--store {layout.root}` to go on "
        "(1 rows under another key will be removed)"
    )


def test_shards_left_after_the_merge_are_told(layout):
    path = layout.features("cub", "test", FIRST)
    key = Key.of({"backbone": FIRST, "precision": "fp32"})
    write_shard(path, key, Shard(0, 3, feature_rows(3), labels_of(3), sample_ids(3)))
    row = by_path(layout)[f"cub/features/test/{FIRST}.shards"]
    assert row.why == f"already merged into cub/features/test/{FIRST}.h5; may be deleted"


def test_what_is_being_written_is_listed_and_what_a_killed_writer_left_is_removed(layout):
    folder = layout.records("cub")
    with replacing(folder / "x.json") as partial:
        partial.write_bytes(b"12345")
        left = folder / "y.json.1.partial"
        left.touch()
        row = by_path(layout)[layout.relative(partial)]
        assert (row.kind, row.dataset, row.bytes, row.complete) == ("partial", "cub", 5, False)
        assert "a writer is at work" in row.why
        assert not left.exists()
        pipe = layout.root / "z.json.1.partial"
        os.mkfifo(pipe)
        assert by_path(layout)[layout.relative(pipe)].kind == "partial"
    assert (folder / "x.json").read_bytes() == b"12345"


def damage(path):
    path.write_bytes(path.read_bytes()[:-500])


def test_a_damaged_file_is_incomplete_and_what_follows_stale(layout):
    path = layout.features("cub", "test", FIRST)
    damage(path)
    rows = by_path(layout)
    row = rows[layout.relative(path)]
    assert (row.complete, row.rows, row.backbone, row.split) == (False, None, FIRST, "test")
    assert "delete the file and run `clipnlc extract" in row.why
    assert rows[f"cub/logits/linear/{FIRST}.h5"].why.endswith(f"{FIRST}.h5 is damaged")


def test_no_store_is_told(tmp_path):
    assert store_status(tmp_path) == []
    with pytest.raises(
        MissingStageError, match=r"no store at .*; make one with `clipnlc extract .*`"
    ):
        store_status(tmp_path / "nowhere")
