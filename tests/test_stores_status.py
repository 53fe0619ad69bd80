"""Status: what a store holds, and what is stale."""

import json
from dataclasses import asdict

import pytest
from stores_examples import (
    BACKBONES,
    combined_store,
    feature_rows,
    labels_of,
    logit_store,
    quick_disk,  # noqa: F401  (a fixture)
    sample_ids,
    write_features,
    write_store,
)

from clipnlc.errors import MissingStageError
from clipnlc.stores._h5 import reading
from clipnlc.stores.combined import add_combinations
from clipnlc.stores.key import Key
from clipnlc.stores.logits import read_logit_header, write_logits
from clipnlc.stores.shards import Shard, write_shard
from clipnlc.stores.status import store_status

FIRST, SECOND = BACKBONES


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
        ("combined", None, "linear", None, "4-shots-seed-0", 6),
    ]
    assert all(r.complete and not r.stale and r.why == "" and r.dataset == "cub" for r in rows)
    assert all(r.bytes == (layout.root / r.path).stat().st_size for r in rows)
    json.dumps([asdict(r) for r in rows])


def test_no_array_is_read(layout, monkeypatch):
    monkeypatch.setattr(reading, "_read_dataset", None)
    assert len(store_status(layout.root)) == 5


def test_what_was_made_from_a_changed_file_is_stale_and_so_is_what_follows(layout):
    write_features(layout.features("cub", "test", FIRST), feature_rows(6) + 1)
    rows = by_path(layout)
    stale = {path: row.why for path, row in rows.items() if row.stale}
    assert stale == {
        f"cub/logits/linear/{FIRST}.h5": f"cub/features/test/{FIRST}.h5 has changed since",
        "cub/combined/linear/4-shots-seed-0.h5": (
            f"cub/logits/linear/{FIRST}.h5 is stale itself (log-avg, vote-1)"
        ),
    }
    assert all(row.complete for row in rows.values())


def test_only_the_combiners_made_from_a_changed_file_are_named(layout):
    logits = layout.logits("cub", "linear", FIRST)
    run = layout.combined("cub", "linear", "no-labels")
    inputs = {layout.relative(logits): read_logit_header(logits).digest}
    add_combinations(run, combined_store(("log-avg",), inputs=inputs))
    add_combinations(run, combined_store(("nlc",)))
    write_logits(logits, logit_store(seed=7))
    assert by_path(layout)[layout.relative(run)].why == (
        f"cub/logits/linear/{FIRST}.h5 has changed since (log-avg)"
    )


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
        "6 rows sealed; run `clipnlc extract --dataset cub --backbones RN101` to go on "
        "(1 rows under another key will be removed)"
    )


def test_shards_left_after_the_merge_are_told(layout):
    path = layout.features("cub", "test", FIRST)
    key = Key.of({"backbone": FIRST, "precision": "fp32"})
    write_shard(path, key, Shard(0, 3, feature_rows(3), labels_of(3), sample_ids(3)))
    row = by_path(layout)[f"cub/features/test/{FIRST}.shards"]
    assert row.why == f"already merged into cub/features/test/{FIRST}.h5; may be deleted"


def test_what_a_killed_writer_left_is_listed(layout):
    left = layout.features("cub", "test", FIRST).with_name("x.h5.1.partial")
    left.write_bytes(b"12345")
    row = by_path(layout)["cub/features/test/x.h5.1.partial"]
    assert (row.kind, row.bytes, row.complete) == ("partial", 5, False)
    assert "was killed" in row.why


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
    with pytest.raises(MissingStageError, match=r"no store at .*; make one with `clipnlc extract`"):
        store_status(tmp_path / "nowhere")
