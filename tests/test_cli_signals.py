"""Ctrl-C, SIGTERM, SIGHUP and SIGKILL at random moments: one line, and nothing left behind."""

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import (
    BACKBONES,
    alive,
    contents,
    end,
    environment,
    good,
    start,
    wait_for,
)

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")

ON = "; the same command goes on where this one stopped\n"
LINES = {
    signal.SIGINT: f"interrupted{ON}",
    signal.SIGTERM: f"ended by SIGTERM{ON}",
    signal.SIGHUP: f"ended by SIGHUP{ON}",
}
SIGNALS = list(LINES)

ALL = ("--combiners", "all")

# What each command does anew in a store after `extract`, and `train-nlc` where it reads fits.
COMMANDS = {
    "train-nlc": ["train-nlc", "--shots", "1,2,4", "--seeds", 3, "--workers", 2, *ALL],
    "train-heads": ["train-heads", "--epochs", 2000],
    "evaluate": ["evaluate"],
    "diversity": ["diversity"],
    "extract": ["extract", "-d", "digits", "-b", BACKBONES, "--limit", 300],
    "extract, two processes": [
        *("extract", "-d", "digits", "-b", BACKBONES, "--limit", 300, "--devices", "cpu,cpu")
    ],
    "predict": ["predict", "photos", "--classes", "red,green", "--json"],
    "doctor": ["doctor", "./photos"],
    "export": ["export", "--combiner", "c-conf", "--shots", 1, "--out", "ensemble"],
    "verify": ["verify"],
}


def handled(process: subprocess.Popen[str]) -> bool:
    """Return whether a process has installed its handlers (or has ended)."""
    status = Path(f"/proc/{process.pid}/status").read_text("utf-8")
    if "(zombie)" in status:
        return True
    caught = int(status.partition("SigCgt:")[2].split()[0], 16)
    return all(caught >> (number - 1) & 1 for number in (*SIGNALS, signal.SIGALRM))


def semaphores(group: int) -> set[str]:
    """Return the files of the semaphores that the processes of a group use."""
    found = set()
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with contextlib.suppress(OSError):  # it has ended
            if os.getpgid(int(maps.parent.name)) == group:
                found |= set(re.findall(r"/dev/shm/sem\.\S+", maps.read_text()))  # noqa: S108
    return found


@pytest.fixture(scope="module")
def first(first_fitted, photos, tmp_path_factory):
    """A folder with photos and a store, to be copied."""
    root = tmp_path_factory.mktemp("signals") / "first"
    shutil.copytree(first_fitted, root / "store")
    shutil.copytree(photos, root / "photos")
    return root


def seconds_of(name, folder) -> float:
    began = time.monotonic()
    good(*COMMANDS[name], cwd=folder, CLIPNLC_STORE="store")
    return time.monotonic() - began


def stopped(name, folder, number, delay, *, group=True):
    """Start a command, signal it, and check what it says and leaves; return its exit code."""
    process = start(*COMMANDS[name], cwd=folder, CLIPNLC_STORE="store")
    wait_for(lambda: handled(process))
    time.sleep(delay)
    used = semaphores(process.pid)
    (os.killpg if group else os.kill)(process.pid, number)
    ended = end(process)
    if ended.code:
        assert (ended.code, ended.err) == (128 + number, LINES[number])
    else:  # it was done
        assert ended.err == ""
    wait_for(lambda: not alive(process.pid))
    assert not any(map(os.path.exists, used))
    return ended.code


def check(name, first, tmp_path, *, times, seed):
    """Stop a command again and again, and compare what it makes in the end with an unbroken run."""
    moments = random.Random(f"{name} {seed}")
    unbroken = shutil.copytree(first, tmp_path / "unbroken")
    seconds = seconds_of(name, unbroken)
    broken = shutil.copytree(first, tmp_path / "broken")
    codes: list[int] = []
    while len(codes) < times or not any(codes):
        number, group = moments.choice(SIGNALS), moments.random() < 0.5
        delay = moments.uniform(0, 0.6 * seconds)
        codes.append(stopped(name, broken, number, delay, group=group))
        seconds *= 1 if codes[-1] else 0.7  # the machine is quieter than it was
    seconds_of(name, broken)
    assert not list(broken.rglob("*.partial"))
    made = contents(broken / "store")
    assert made.keys() == contents(unbroken / "store").keys()
    if name in ("train-nlc", "train-heads"):
        assert made == contents(unbroken / "store")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["train-nlc", "evaluate"])
def test_a_signal_at_some_moment(name, first, tmp_path):
    check(name, first, tmp_path, times=3, seed=0)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", COMMANDS)
def test_signals_at_many_moments(name, seed, first, tmp_path):
    check(name, first, tmp_path, times=12, seed=seed)


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_a_signal_while_workers_import(number, first, tmp_path):
    folder = shutil.copytree(first, tmp_path / "folder")
    process = start(*COMMANDS["train-nlc"], cwd=folder, CLIPNLC_STORE="store")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    wait_for(lambda: len(children.read_text().split()) >= 2)  # the tracker, and a worker
    used = semaphores(process.pid)
    os.killpg(process.pid, number)
    ended = end(process)
    assert (ended.code, ended.out, ended.err) == (128 + number, "", LINES[number])
    wait_for(lambda: not alive(process.pid))
    assert not any(map(os.path.exists, used))


def test_a_killed_command_leaves_no_process_and_no_semaphore(first, tmp_path):
    folder = shutil.copytree(first, tmp_path / "folder")
    for delay in (0.1, 1.0):
        process = start(*COMMANDS["train-nlc"], cwd=folder, CLIPNLC_STORE="store")
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        wait_for(lambda found=children: len(found.read_text().split()) == 3)
        time.sleep(delay)
        used = semaphores(process.pid)
        process.kill()
        end(process)
        wait_for(lambda group=process.pid: not alive(group))
        assert not any(map(os.path.exists, used))


@pytest.mark.parametrize("pause", [0.0, 1.2])
def test_a_second_signal(pause, tmp_path):
    """Two at once are one, as `timeout` sends them; a later one ends what takes too long.

    The process sends both to itself: sent from here, a busy machine may part the two.
    """
    (tmp_path / "stuck.py").write_text(
        "import os, signal, time\n"
        "from clipnlc import cli\n"
        "def main():\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        time.sleep(60)\n"
        "    finally:\n"
        f"        time.sleep({pause})\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        time.sleep(1)\n"
        "        print('cleaned', flush=True)\n"
        "cli.main = main\n"
        "cli.run()\n"
    )
    ended = end(script(tmp_path / "stuck.py"))
    assert (ended.code, ended.err) == (143, LINES[signal.SIGTERM])
    assert ended.out == ("" if pause else "cleaned\n")


def test_an_exception_that_gets_lost_is_raised_again(tmp_path):
    (tmp_path / "lost.py").write_text(
        "import os, signal, sys, time\n"
        "from clipnlc import cli\n"
        "class Lossy:\n"
        "    def __del__(self):\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        time.sleep(1)\n"
        "def main():\n"
        "    Lossy()\n"
        "    time.sleep(6000)\n"
        "cli.main = main\n"
        "cli.run()\n"
    )
    assert end(script(tmp_path / "lost.py")) == (143, "", LINES[signal.SIGTERM])


def test_what_the_process_was_started_to_ignore_is_ignored(tmp_path):
    (tmp_path / "nohup.py").write_text(
        "import os, signal\n"
        "from clipnlc import cli\n"
        "def main():\n"
        "    os.kill(os.getpid(), signal.SIGHUP)\n"
        "    return 0\n"
        "cli.main = main\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "cli.run()\n"
    )
    assert end(script(tmp_path / "nohup.py")) == (0, "", "")


def script(path) -> subprocess.Popen[str]:
    root = str(Path(__file__).parent.parent)
    return subprocess.Popen(
        [sys.executable, path],
        env=environment(PYTHONPATH=root),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_parent_of_a_worker_that_fails_for_our_fault_says_so(first, tmp_path):
    """An internal error in a worker is one here, with the worker's traceback for us."""
    (tmp_path / "faulty.py").write_text(
        "from clipnlc.processes import in_processes\n"
        "def work(task):\n"
        "    raise ZeroDivisionError(task)\n"
        "if __name__ == '__main__':\n"
        "    list(in_processes(work, ['one', 'two'], 2))\n"
    )
    ended = end(script(tmp_path / "faulty.py"))
    assert ended.code == 1
    assert "RuntimeError: ZeroDivisionError: " in ended.err
    assert "in work" in ended.err
