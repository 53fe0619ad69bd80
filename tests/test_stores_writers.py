"""Writers: two are kept apart, and one that is killed leaves only whole files behind."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from stores_examples import feature_rows, sample_ids, write_features

import clipnlc
from clipnlc.errors import StoreError
from clipnlc.stores.features import read_features
from clipnlc.stores.key import Key
from clipnlc.stores.layout import Layout, shards_of
from clipnlc.stores.locks import LOCKS, writing
from clipnlc.stores.shards import read_shard, shard_files

ROWS = 20
KILLS = 10

# Seals one shard per row, then merges, as an extraction does; says "at work" when it begins.
WORKER = """
import sys
from pathlib import Path
import numpy as np
from clipnlc.stores.shards import Shard, merge_shards, missing_ranges, write_shard
from clipnlc.stores.key import Key
from clipnlc.stores.locks import writing

path, rows, dim = Path(sys.argv[1]), int(sys.argv[2]), 3
names = ("cat", "dog", "Käfer")
features = np.random.default_rng(rows).normal(size=(rows, dim)).astype(np.float32)
key = Key.of({"precision": "fp32"})
with writing(path):
    print("at work", flush=True)
    for start, stop in missing_ranges(path, key, rows, 1):
        ids = tuple(f"{names[row % 3]}/{row}.png" for row in range(start, stop))
        labels = np.arange(start, stop) % 3
        write_shard(path, key, Shard(start, stop, features[start:stop], labels, ids))
    merge_shards(path, key, rows=rows, class_names=names, texts=np.eye(3, dim, dtype=np.float32),
                 logit_scale=100.0)
"""

HOLDER = """
import sys, time
from pathlib import Path
from clipnlc.stores.locks import writing
with writing(Path(sys.argv[1])):
    print("at work", flush=True)
    time.sleep(60)
"""


def start(script, *arguments):
    """Start a process that runs `script`, and wait until it is at work."""
    root = Path(clipnlc.__file__).parents[1]
    process = subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "at work\n"
    return process


def end(process):
    process.communicate()
    return process.returncode


@pytest.fixture
def path(tmp_path):
    return Layout(tmp_path).features("cub", "test", "RN50")


def test_a_killed_extraction_goes_on_to_the_same_bytes(path, tmp_path):
    whole = tmp_path / "whole" / path.relative_to(tmp_path)
    write_features(whole, feature_rows(ROWS), key=Key.of({"precision": "fp32"}))
    moments = random.Random(0)
    kills = 0
    while kills < KILLS:
        worker = start(WORKER, path, ROWS)
        time.sleep(moments.uniform(0, 0.25))
        worker.kill()
        if end(worker) == -signal.SIGKILL:
            kills += 1
        for file in shard_files(path):
            shard = read_shard(file)
            assert shard.sample_id == sample_ids(ROWS)[shard.start : shard.stop]
        directories = [path.parent, shards_of(path)]
        left = {p.suffix for d in directories if d.is_dir() for p in d.iterdir() if p.is_file()}
        assert left <= {".h5", ".partial"}
        if path.exists():  # it was done before it was killed: begin again
            assert path.read_bytes() == whole.read_bytes()
            path.unlink()
    assert end(start(WORKER, path, ROWS)) == 0
    assert path.read_bytes() == whole.read_bytes()
    assert sorted(p.name for p in path.parent.iterdir()) == [LOCKS, path.name]
    assert read_features(path).sample_id == sample_ids(ROWS)


def test_a_second_writer_is_told_who_writes(path):
    holder = start(HOLDER, path)
    match = rf"another clipnlc is writing .*RN50.h5; wait for it or stop it \(pid {holder.pid}\)"
    with pytest.raises(StoreError, match=match), writing(path):
        pass
    with writing(path.with_name("other.h5")):
        pass
    holder.kill()
    end(holder)
    with writing(path):
        pass


def test_one_process_cannot_write_one_file_twice(path):
    with writing(path):
        match = f"pid {os.getpid()}"
        with pytest.raises(StoreError, match=match), writing(path):
            pass
    with writing(path):
        pass


def test_a_failure_lets_go(path):
    with pytest.raises(ZeroDivisionError, match="zero"), writing(path):
        _ = 1 / 0
    with writing(path):
        pass
    assert [p.suffix for p in (path.parent / LOCKS).iterdir()] == [".lock"]


@pytest.mark.parametrize(
    "name", ["RN50.h5.x-y.lock", "RN50.h5.1-2-3.lock", "RN50.h5.-1-2.lock", "RN50.h5.a.h5.0-9.lock"]
)
@pytest.mark.parametrize("rows", [None, (0, 5)])
def test_locks_of_other_names_are_passed_over(path, name, rows):
    lock = path.parent / LOCKS / name
    lock.parent.mkdir(parents=True)
    lock.touch()
    with writing(path, rows):
        pass


def pipe(lock):
    os.mkfifo(lock)


@pytest.mark.parametrize(
    "make",
    [
        pipe,
        Path.mkdir,
        lambda lock: lock.symlink_to("/dev/zero"),
        lambda lock: lock.symlink_to("nowhere"),
        lambda lock: lock.symlink_to(lock.name),
    ],
)
@pytest.mark.parametrize("suffix", ["lock", "pid"])
def test_what_is_no_lock_in_its_place_is_refused_at_once(path, make, suffix):
    lock = path.parent / LOCKS / f"RN50.h5.{suffix}"
    lock.parent.mkdir(parents=True)
    make(lock)
    with (
        pytest.raises(StoreError, match=rf"^{lock} is a link, a folder, .*: delete it"),
        writing(path),
    ):
        pass
    assert not (path.parent / LOCKS / "nowhere").exists()


def test_a_writer_removes_what_a_killed_one_left_half_written(path):
    shards_of(path).mkdir(parents=True)
    leftovers = [
        path.with_name("RN50.h5.1.partial"),
        shards_of(path) / "000000000-000000001.h5.1.partial",
    ]
    others = path.with_name("RN50x4.h5.1.partial")
    for file in (*leftovers, others):
        file.touch()
    with writing(path):
        assert not any(file.exists() for file in leftovers)
        assert others.exists()
