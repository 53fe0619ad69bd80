"""The rules between modules hold, each can be broken, and `--help` answers without heavy imports."""

import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import seconds_of_children

ROOT = Path(__file__).parents[1]
COLD = ("torch", "open_clip", "h5py", "numpy")

LAYERS = "layers point down; siblings on one line do not know each other"
STAGES = "stages talk only through stores"
H5PY = "only stores._h5 imports h5py"
TYPER = "only cli imports typer"
CIRCLES = "no import circles between siblings"

VIOLATIONS = {
    "stage imports stage": ("stages/diversity.py", "import clipnlc.stages.extract", STAGES),
    "combiner imports store": ("combiners/votes.py", "import clipnlc.stores.logits", LAYERS),
    "metric imports combiner": ("metrics/accuracy.py", "import clipnlc.combiners.votes", LAYERS),
    "backbone imports dataset": ("backbones/loaded.py", "import clipnlc.datasets.hf", LAYERS),
    "stage imports h5py": ("stages/evaluate/rows.py", "import h5py", H5PY),
    "stage imports typer": ("stages/extract.py", "import typer", TYPER),
    "stage imports typer in a function": (
        "stages/extract.py",
        "def late():\n    import typer",
        TYPER,
    ),
    "a circle": ("extraction/worker.py", "import clipnlc.extraction.crew", CIRCLES),
    "a circle deep down, for types only": (
        "datasets/nano/palette.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import clipnlc.datasets.nano.sets",
        CIRCLES,
    ),
    "a module nobody placed": ("utils.py", "", LAYERS),
}


def lint(folder):
    """Run import-linter on the package in `folder`; return exit code and the broken contracts."""
    done = subprocess.run(
        [
            Path(sys.executable).with_name("lint-imports"),
            "--no-cache",
            "--config",
            "pyproject.toml",
        ],
        cwd=folder,
        env={"PYTHONPATH": str(folder), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    broken = {
        line.removesuffix(" BROKEN") for line in done.stdout.splitlines() if line.endswith("BROKEN")
    }
    return done, broken


def test_the_contracts_hold():
    done, broken = lint(ROOT)
    assert (done.returncode, broken) == (0, set()), done.stdout + done.stderr


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A copy of the sources, to be broken."""
    folder = tmp_path_factory.mktemp("package")
    ignored = shutil.ignore_patterns("__pycache__", "data", "weights", "configs")
    shutil.copytree(ROOT / "clipnlc", folder / "clipnlc", ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


@pytest.mark.parametrize("case", VIOLATIONS)
def test_each_contract_can_be_broken(package, case):
    module, line, contract = VIOLATIONS[case]
    path = package / "clipnlc" / module
    before = path.read_bytes() if path.exists() else None
    path.write_text((before or b"").decode() + f"\n\n{line}\n")
    try:
        done, broken = lint(package)
    finally:
        path.unlink() if before is None else path.write_bytes(before)
    if before is None:
        # import-linter refuses an unlisted module before it looks at any contract.
        assert "utils" in done.stdout + done.stderr
        assert done.returncode != 0
    else:
        assert broken == {contract}, done.stdout + done.stderr


def imported(code):
    """Tell which cold modules a fresh interpreter has imported after `code`."""
    script = f"{code}\nimport sys\nprint([m for m in {COLD!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()[-1]


HELP = "from clipnlc.cli import main\nassert main({arguments!r}) == 0"


@pytest.mark.parametrize("arguments", [["--help"], ["extract", "--help"], ["train-nlc", "--help"]])
def test_help_imports_nothing_heavy(arguments):
    assert imported(HELP.format(arguments=arguments)) == "[]"


def test_the_import_check_can_fail():
    assert imported("import numpy") == "['numpy']"


def test_help_answers_at_once():
    seconds = []
    for _ in range(3):
        before = seconds_of_children()
        subprocess.run(
            [sys.executable, "-m", "clipnlc", "--help"], check=True, stdout=subprocess.DEVNULL
        )
        seconds.append(seconds_of_children() - before)
    # Of the processor; the rest is room for a slow one.
    assert statistics.median(seconds) < 1.5
