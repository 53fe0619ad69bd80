"""The commands as a user runs them: processes of `python -m clipnlc` on small photos."""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from clipnlc.runs.members import members_name

BACKBONES = "nano-RN50,nano-ViT-B-16"
MEMBERS = members_name(BACKBONES.split(","))
COLOURS = {"red": (200, 40, 40), "green": (40, 180, 60), "blue": (50, 60, 200)}
QUICK = ("--shots", "1,2", "--seeds", "2", "--combiners", "all")


class Ended(NamedTuple):
    """What a command left."""

    code: int
    out: str
    err: str


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "clipnlc", *map(str, arguments)]


def environment(**more: str) -> dict[str, str]:
    outer = {name: value for name, value in os.environ.items() if name != "CLIPNLC_STORE"}
    return {**outer, "OMP_NUM_THREADS": "1", **more}


def run(*arguments: object, cwd: Path | None = None, **more: str) -> Ended:
    """Run one command to its end."""
    done = subprocess.run(
        command(*arguments),
        cwd=cwd,
        env=environment(**more),
        capture_output=True,
        text=True,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def good(*arguments: object, by: Callable[..., Ended] = run, **more: Any) -> str:
    """Run one command that must end well and silently on standard error; return its output."""
    ended = by(*arguments, **more)
    assert (ended.code, ended.err) == (0, ""), ended
    return ended.out


def refusal(*arguments: object, by: Callable[..., Ended] = run, **more: Any) -> str:
    """Run one command that the user must fix; return its one line."""
    ended = by(*arguments, **more)
    assert ended.code == 2, ended
    assert ended.err.startswith("error: "), ended
    assert ended.err.count("\n") == 1, ended
    assert ended.err.endswith("\n"), ended
    assert ended.out == "", ended
    return ended.err.strip()


def write_photos(root: Path, *, train: int = 8, test: int = 12) -> Path:
    """Write an image folder: noisy patches of three colours."""
    random = np.random.default_rng(0)
    for split, count in (("train", train), ("test", test)):
        for name, colour in COLOURS.items():
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                # Some are hard to tell, so that the backbones and the combiners differ.
                pixels = np.array(colour) + random.normal(0, 40 + 20 * number, (40, 48, 3))
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(
                    folder / f"{number:02}.png"
                )
    return root


def contents(store: Path) -> dict[str, bytes]:
    """Return every file of a store but locks and the caches that hold file times."""
    caches = ("file-hashes.sqlite", "backbones.json")
    return {
        path.relative_to(store).as_posix(): path.read_bytes()
        for path in sorted(store.rglob("*"))
        if path.is_file() and ".locks" not in path.parts and path.name not in caches
    }


def runs(store: Path, head: str = "zero-shot") -> dict[str, bytes]:
    """Return the fit files of a store."""
    found = contents(store)
    return {n: found[n] for n in found if f"/fits/{head}/" in n and n.endswith(".h5")}


def flip_a_byte(path: Path, of: np.ndarray) -> None:
    """Flip one bit of an array's bytes in a file."""
    data = bytearray(path.read_bytes())
    data[data.index(of.tobytes()) + of.nbytes // 2] ^= 1
    path.write_bytes(data)


def start(*arguments: object, cwd: Path | None = None, **more: str) -> subprocess.Popen[str]:
    """Start a command in a process group of its own."""
    return subprocess.Popen(
        command(*arguments),
        cwd=cwd,
        env=environment(**more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def end(process: subprocess.Popen[str]) -> Ended:
    out, err = process.communicate(timeout=600)
    return Ended(process.returncode, out, err)


def wait_for(condition) -> None:
    """Wait for what takes an idle machine a moment, and a busy one some minutes at most."""
    until = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)


def seconds_of_children() -> float:
    """Return the processor time of the processes that have ended, however busy the machine is."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def alive(group: int) -> bool:
    """Tell whether any process of a group still runs (a zombie does not)."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _parent, its_group = stat.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(its_group) == group and state != "Z":
            return True
    return False
