"""Workers on one machine and on a Ray cluster: one store, whoever dies on the way."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets_on_disk import png
from extracting import (
    environment,
    extracted,
    files,
    finish,
    in_session,
    leftovers,
    start,
    wait_until,
    write_images,
)

from clipnlc.cli import main

TWO = {"devices": ["cpu", "cpu"]}
RAY = {"devices": ["cpu", "cpu"], "engine": "ray"}
ENGINES = [
    pytest.param({**TWO, "name": "from multiprocessing.spawn"}, id="processes"),
    pytest.param({**RAY, "name": "ray::RangeWorker"}, id="ray", marks=pytest.mark.long),
]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(once):
    return once("engines/many", write_images)


@pytest.fixture(scope="module")
def whole(once, data):
    """What one process makes, unbroken."""
    store = once("engines/whole", lambda store: extracted(store, data))
    assert len(files(store)) == 8  # features, logits and texts of two backbones
    return files(store)


class TestTheSameStore:
    @pytest.mark.parametrize(
        "settings",
        [
            pytest.param(TWO, id="two processes"),
            pytest.param(
                {**TWO, "workers": 3, "together": 1},
                id="two processes, two passes",
                marks=pytest.mark.long,
            ),
            pytest.param({"workers": 3, "together": 1, "shard_rows": 24}, id="two passes"),
            pytest.param(RAY, id="ray"),
        ],
    )
    def test_whoever_made_it(self, tmp_path, data, whole, settings):
        facts = extracted(tmp_path, data, **settings)
        assert files(tmp_path) == whole
        assert leftovers(tmp_path) == []
        for part, total in (("train", 100), ("test", 36)):
            done = [d for split, d, *_ in facts["seen"] if split == part]
            assert done[-1] == total
            assert all(0 <= d <= total for d in done)


class TestDeaths:
    @pytest.mark.parametrize("settings", ENGINES)
    def test_a_killed_worker_is_begun_again(self, tmp_path, data, whole, settings):
        code, facts, err = finish(start(tmp_path, data, **settings, kill="once"))
        assert code == 0
        assert "Traceback" not in err
        assert len(facts["killed"]) == 1
        assert files(tmp_path) == whole
        assert leftovers(tmp_path) == []
        part, done, total, seconds, forward, embedded = facts["seen"][-1]
        assert (part, done, total) == ("test", 36, 36)
        assert set(forward) == set(embedded) == {"nano-RN50", "nano-ViT-B-16"}
        assert all(images >= 36 for images in embedded.values())
        assert 0 < sum(forward.values()) < seconds < 20 * facts["wall"]
        assert [d for split, d, *_ in facts["seen"] if split == "train"][-1] == 100

    @pytest.mark.parametrize("settings", ENGINES)
    def test_workers_that_die_again_and_again(self, tmp_path, data, settings):
        # They are killed as they start, since a range is done too soon to be killed three times.
        settings = {**settings, "restarts": 3}
        code, facts, err = finish(start(tmp_path, data, **settings, kill="always"))
        assert code == 2
        assert "Traceback" not in err
        expected = "Ray gave up a worker on many/"
        if "engine" not in settings:
            expected = "a worker on cpu died 3 times over the images "
            assert "(killed by signal 9, probably out of memory)" in facts["error"]
        assert facts["error"].startswith(expected)
        assert "what is sealed stays" in facts["error"]
        assert "\n" not in facts["error"]

    @pytest.mark.parametrize("settings", ENGINES)
    def test_no_worker_outlives_its_parent(self, tmp_path, data, settings):
        with start(tmp_path, data, **settings) as parent:
            assert wait_until(lambda: any(tmp_path.rglob("*.shards/*.h5")), 300)
            below = psutil.Process(parent.pid).children(recursive=True)
            # Of Ray's own servants some take their time; what embeds must not.
            workers = [p for p in below if any(a.startswith(settings["name"]) for a in p.cmdline())]
            assert workers
            parent.kill()
            assert wait_until(lambda: not any(alive(p) for p in workers), 120)

    def test_ctrl_c_ends_all_with_one_line(self, tmp_path, data):
        command = [sys.executable, "-m", "clipnlc", "extract", "--dataset", data]
        command += ["--devices", "cpu,cpu", "--store", tmp_path, "--backbones", "nano-RN50"]
        for seconds in (None, 2.5):  # with shards sealed, and while the workers still start
            with subprocess.Popen(
                list(map(str, command)),
                env=environment(),
                stderr=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
            ) as parent:
                mine = psutil.Process(parent.pid)
                assert wait_until(lambda: len(mine.children()) >= 2, 300)  # noqa: B023
                if seconds is None:
                    assert wait_until(lambda: any(tmp_path.rglob("*.shards/*.h5")), 300)
                os.killpg(parent.pid, signal.SIGINT)
                _, err = parent.communicate(timeout=300)
            assert parent.returncode == 130
            assert err.count("\n") == 1
            assert err.startswith("interrupted; ")
            assert wait_until(lambda: not in_session(parent.pid), 120)
            shutil.rmtree(tmp_path / "many")

    def test_what_a_worker_refuses_is_told_as_here(self, tmp_path, data):
        spoilt = shutil.copytree(data, tmp_path / "many")
        next((spoilt / "train").rglob("*.png")).write_bytes(b"no image")
        said = []
        for settings in ({}, TWO, RAY):
            code, facts, err = finish(start(tmp_path / "store", spoilt, **settings))
            assert (code, err) == (2, "")
            said.append(facts["error"])
        assert "cannot decode" in said[0]
        assert "--on-bad-image skip" in said[0]
        assert len(set(said)) == 1

    def test_skipped_images_are_the_same(self, tmp_path, data):
        spoilt = shutil.copytree(data, tmp_path / "many")
        images = sorted((spoilt / "train").rglob("*.png"))
        for path in images[15:34] + images[60:61]:  # more than one worker's whole shard
            path.write_bytes(b"no image")
        for name, settings in (("one", {}), ("two", TWO)):
            extracted(tmp_path / name, spoilt, **settings, on_bad_image="skip")
        assert files(tmp_path / "one") == files(tmp_path / "two")


def alive(process):
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


# Imports first and forks then, so that a parent starts at once; its workers are spawned as ever.
KILLING = """
import json, os, random, shutil, signal, sys, time
from pathlib import Path
import torch
from clipnlc.backbones.openclip import open_clip
from clipnlc.extraction import crew
from clipnlc.extraction.request import Engine, Request
from clipnlc.stages import extract as stage
import clipnlc.stores.features, datasets, safetensors.torch

open_clip()
torch.set_num_threads(1)
crew.SHARD_ROWS = 16

def begin(into):
    child = os.fork()
    if child:
        return child
    os.setsid()
    try:
        both, engine = ["nano-RN50", "nano-ViT-B-16"], Engine(tuple(devices.split(",")))
        stage.extract(Request(store=Path(into), dataset=[data], backbones=both, batch_size=8,
                              engine=engine))
    except BaseException as problem:
        print(repr(problem), file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)

if __name__ == "__main__":
    data, store, whole, devices, wanted, soonest, latest, seed = sys.argv[1:]
    rng = random.Random(int(seed))
    began = time.monotonic()
    assert os.waitpid(begin(whole), 0)[1] == 0
    seconds = time.monotonic() - began
    kills, resumed = 0, 0
    while kills < int(wanted) or not resumed:
        child = begin(store)
        time.sleep(rng.uniform(float(soonest), float(latest)) * seconds)
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            assert status == 0, status
            shutil.rmtree(store)
            seconds *= 0.8  # the machine has become quieter than it was
            continue
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        kills += 1
        resumed += any(Path(store).rglob("*-*.h5"))
        seconds *= 1 if resumed else 1.2
    assert os.waitpid(begin(store), 0)[1] == 0
    print(json.dumps({"kills": kills, "resumed": resumed}))
"""


ONE_PROCESS = ("cpu", 10, 0.05, 0.6)  # kills, and when, as shares of the whole run
TWO_PROCESSES = ("cpu,cpu", 5, 0.3, 1.0)


@pytest.mark.parametrize(
    ("settings", "seed"),
    [
        (("cpu", 5, *ONE_PROCESS[2:]), 0),
        pytest.param(("cpu,cpu", 1, *TWO_PROCESSES[2:]), 0, marks=pytest.mark.long),
        *(pytest.param(ONE_PROCESS, seed, marks=pytest.mark.long) for seed in range(2)),
        *(pytest.param(TWO_PROCESSES, seed, marks=pytest.mark.long) for seed in range(4)),
    ],
)
def test_process_groups_killed_and_resumed_give_the_same_bytes(
    tmp_path, data, whole, settings, seed
):
    broken = tmp_path / "broken"
    places = [data, broken, tmp_path / "unbroken"]
    done = subprocess.run(
        [sys.executable, "-c", KILLING, *places, *map(str, settings), str(seed)],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    facts = json.loads(done.stdout)
    assert facts["kills"] >= settings[1]
    assert facts["resumed"] >= 1
    assert files(broken) == files(tmp_path / "unbroken") == whole
    assert leftovers(broken) == []


class TestFullDisk:
    @pytest.fixture
    def disk(self, tmp_path):
        """A small disk of its own."""
        place = tmp_path / "disk"
        place.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", place]
        refused = True
        if shutil.which("mount"):
            refused = subprocess.run(mount, capture_output=True, check=False).returncode
        if refused:
            pytest.skip("mounting a small disk is refused here (it takes root)")
        yield place
        subprocess.run(["umount", place], check=True)

    @pytest.mark.parametrize("settings", [{}, TWO], ids=["one process", "two processes"])
    def test_is_told_and_mended(self, disk, data, whole, settings):
        store = disk / "store"
        most = 0
        for room in (0, 120_000):  # no room for a cache of hashes; room for some shards
            fill(disk / "filler", room)
            code, facts, err = finish(start(store, data, **settings, shard_rows=16))
            assert (code, err) == (2, ""), facts
            told = r"no space left .*free some space and run the same|disk is full; free space"
            assert re.search(told, facts["error"])
            most = max(most, len(list(store.rglob("*.shards/*.h5"))))
            (disk / "filler").unlink()
            assert main(["verify", "--store", str(store)]) == 0
        assert most >= 3, "room was left for too few shards"
        extracted(store, data, **settings, shard_rows=16)
        assert {n: f for n, f in files(store).items() if n in whole} == whole
        assert leftovers(store) == []


def fill(filler, room):
    """Write a file that leaves this many bytes on its disk."""
    free = shutil.disk_usage(filler.parent).free
    filler.write_bytes(bytes(max(0, free - room)))


MEASURE = """
import resource, sys
from pathlib import Path
from clipnlc.extraction.request import Request
from clipnlc.stages.extract import extract

extract(Request(store=Path(sys.argv[1]), dataset=[sys.argv[2]], backbones=["nano-RN50"]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.mark.long
def test_memory_does_not_grow_with_the_number_of_images(tmp_path):
    peaks = {}
    for rows in (1_000, 100_000):
        data = write_parquet(tmp_path / f"rows-{rows}", rows)
        done = subprocess.run(
            [sys.executable, "-c", MEASURE, tmp_path / "store", data],
            env={**environment(), "HF_HOME": str(tmp_path / "cache")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        peaks[rows] = int(done.stdout)
    assert peaks[100_000] - peaks[1_000] < 300e6, peaks


def write_parquet(root, rows):
    """Write a table of tiny images, a few hundred different ones."""
    root.mkdir()
    images = [png(seed) for seed in range(min(rows, 300))]
    with pq.ParquetWriter(root / "test.parquet", SCHEMA) as writer:
        for first in range(0, rows, 1000):
            cells = [{"bytes": images[i % 300], "path": None} for i in range(first, first + 1000)]
            labels = [i % 10 for i in range(first, first + 1000)]
            writer.write_table(pa.table({"image": cells, "label": labels}, schema=SCHEMA))
    (root / "classnames.txt").write_text("\n".join(f"class {i}" for i in range(10)))
    return root


SCHEMA = pa.schema(
    {"image": pa.struct({"bytes": pa.binary(), "path": pa.string()}), "label": pa.int64()}
)
