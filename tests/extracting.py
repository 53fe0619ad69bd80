"""Extractions, in this process or in others that tests of engines and of resuming kill."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
from datasets_on_disk import CLASSES
from PIL import Image

from clipnlc.extraction.request import Request
from clipnlc.stages.extract import Watch, extract
from clipnlc.stores.features import read_features

BOTH = ("nano-RN50", "nano-ViT-B-16")

# Settings come as JSON. `kill` names processes below this one by how an argument of theirs begins:
# `once` one of them is killed when the first images are done, `always` each as it appears.
SCRIPT = """
import json, os, sys, threading, time
from pathlib import Path
import psutil
from clipnlc.errors import ClipnlcError
from clipnlc.extraction import crew, on_ray
from clipnlc.extraction.request import Engine, Request
from clipnlc.stages.extract import Watch, extract

settings = json.loads(sys.argv[1])
crew.SHARD_ROWS = settings.pop("shard_rows", crew.SHARD_ROWS)
on_ray._RESTARTS = settings.pop("restarts", on_ray._RESTARTS)
kill, name = settings.pop("kill", ""), settings.pop("name", "")
killed, seen = [], []

def workers():
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if any(part.startswith(name) for part in process.cmdline()):
                found.append(process)
        except psutil.Error:
            pass
    return found

def hunt():
    while True:
        for process in workers():
            process.kill()
        time.sleep(0.05)

def progress(now):
    seen.append((now.split, now.done, now.total, sum(now.seconds.values()),
                 dict(now.forward), dict(now.embedded)))
    found = workers() if kill == "once" and not killed else []
    if found:
        victim = found[0]
        victim.kill()
        killed.append(victim.pid)

if __name__ == "__main__":
    if kill == "always":
        threading.Thread(target=hunt, daemon=True).start()
    engine = Engine(tuple(settings.pop("devices", ["cpu"])), settings.pop("engine", "local"))
    began = time.perf_counter()
    try:
        request = Request(store=Path(settings.pop("store")), dataset=[settings.pop("data")],
                          backbones=settings.pop("backbones"), engine=engine, **settings)
        extract(request, watch=Watch(progress=progress))
    except ClipnlcError as problem:
        print(json.dumps({"error": str(problem)}))
        sys.exit(2)
    print(json.dumps({"seen": seen, "killed": killed, "wall": time.perf_counter() - began}))
"""


def run(store, data, backbones=BOTH, *, watch=None, **settings):
    """Extract one data set within this process."""
    request = Request(store=store, dataset=[str(data)], backbones=list(backbones), **settings)
    return extract(request, watch=watch or Watch())


def environment():
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def start(store, data, **settings):
    """Begin an extraction in a process group of its own."""
    given = {"store": str(store), "data": str(data), "backbones": BOTH, "batch_size": 8, **settings}
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, json.dumps(given)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process):
    """Wait for its end; return its exit code, what it printed, and what it said on the way."""
    try:
        out, err = process.communicate(timeout=600)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return process.returncode, json.loads(out) if out else {}, err


def extracted(store, data, **settings):
    """Extract to the end, silently; return the facts."""
    code, facts, err = finish(start(store, data, **settings))
    assert (code, err) == (0, ""), (facts, err)
    return facts


def write_images(root, *, train=100, test=36, size=20):
    """Write an image folder of noise in three classes."""
    rng = np.random.default_rng(0)
    for part, rows in (("train", train), ("test", test)):
        for i in range(rows):
            path = root / part / CLASSES[i % 3] / f"{i:04}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (size, size, 3), dtype=np.uint8)).save(path)
    return root


def files(store):
    """The HDF5 files of a store, by name, with their bytes."""
    return {str(p.relative_to(store)): p.read_bytes() for p in sorted(store.rglob("*.h5"))}


def check_same_features(one, other):
    """Check that two stores hold the same feature files but for the last bits of the features.

    Those depend on how many images a batch has.
    """
    found, expected = (
        {p.relative_to(store): p for p in store.glob("*/features/*/*.h5")} for store in (one, other)
    )
    assert found.keys() == expected.keys()
    for name in found:
        a, b = read_features(found[name]), read_features(expected[name])
        np.testing.assert_allclose(a.features, b.features, rtol=1e-4, atol=1e-5)
        for field in dataclasses.fields(a):
            if field.name not in ("features", "digest"):
                pair = getattr(a, field.name), getattr(b, field.name)
                np.testing.assert_array_equal(*pair, err_msg=f"{field.name} of {name}")


def leftovers(store):
    """What a killed run leaves and a finished one does not."""
    return [p for p in store.rglob("*") if p.suffix == ".partial" or p.name.endswith(".shards")]


def wait_until(true, seconds):
    """Wait until `true()`; tell whether it came to that."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if true():
            return True
        time.sleep(0.05)
    return bool(true())


def in_session(session):
    """The processes of a session that have not ended."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, ProcessLookupError):
            continue
    return found
