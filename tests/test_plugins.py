"""Packages of strangers: installed for real, they show up everywhere without a changed line here."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import environment, good, refusal, run
from heads_examples import write_fruit

from clipnlc.stores.layout import Layout

PAGE = Path(__file__).parent.parent / "docs" / "plugins.md"
ROOT = PAGE.parent.parent
SITE = "site"


def pip_install(source, site):
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"),
            *("--no-build-isolation", "--no-cache-dir", "--target", site, source),
        ],
        check=True,
        capture_output=True,
        text=True,
    )


def write_stranger(folder, version="1.0"):
    """Write the package of the page, as printed there."""
    text = PAGE.read_text("utf-8")
    folder.mkdir(parents=True)
    (pyproject,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    module, test = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert 'version = "1.0"' in pyproject
    pyproject = pyproject.replace('version = "1.0"', f'version = "{version}"')
    (folder / "pyproject.toml").write_text(pyproject)
    (folder / "stranger.py").write_text(module)
    (folder / "test_stranger.py").write_text(test)
    return folder


BROKEN = """\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"
[project]
name = "half-done"
version = "0.1"
[tool.setuptools]
py-modules = ["half_done"]
[project.entry-points."clipnlc.combiners"]
half = "half_done:Half"
log-avg = "half_done:Half"
[project.entry-points."clipnlc.heads"]
half-head = "half_done:Half"
[project.entry-points."clipnlc.measures"]
half-measure = "half_done:Half"
"""


@pytest.fixture(scope="session")
def stranger(once):
    """The package of the page, installed; a folder for PYTHONPATH."""

    def make(folder):
        pip_install(write_stranger(folder / "source"), folder / SITE)

    return once("plugins/stranger", make) / SITE


@pytest.fixture(scope="session")
def broken(once):
    """A package whose module needs another that is not there."""

    def make(folder):
        source = folder / "source"
        source.mkdir(parents=True)
        (source / "pyproject.toml").write_text(BROKEN)
        (source / "half_done.py").write_text("import nowhere\n")
        pip_install(source, folder / SITE)

    return once("plugins/broken", make) / SITE


def path(*sites):
    return {"PYTHONPATH": ":".join(map(str, (*sites, ROOT)))}


@pytest.fixture(scope="session")
def fitted(once, stranger):
    """A store with fits of the stranger's combiner beside ours."""

    def make(store):
        for backbone in ("nano-RN50", "nano-ViT-B-16"):
            write_fruit(Layout(store), backbone)
        fit = ("train-nlc", "--combiners", "by-accuracy,log-avg", "--shots", "2", "--seeds", "1")
        good(*fit, "--store", store, **path(stranger))
        good("evaluate", "--store", store, **path(stranger))

    return once("plugins/store", make)


@pytest.fixture
def store(fitted, tmp_path):
    return Path(shutil.copytree(fitted, tmp_path / "store"))


class TestInstalled:
    def test_its_own_test_passes(self, stranger):
        done = subprocess.run(
            [sys.executable, "-c", "import clipnlc.testing as t; t.check_package('stranger')"],
            env=environment(**path(stranger)),
            check=False,
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stderr) == (0, "")

    def test_is_in_every_list(self, stranger):
        rows = json.loads(good("combiners", "plugins", "--json", **path(stranger)))
        (row,) = rows
        assert (row["name"], row["package"], row["groups"]) == (
            "by-accuracy",
            "stranger 1.0",
            ["plugins"],
        )
        every = good("combiners", **path(stranger))
        assert "by-accuracy" in every
        assert "(of stranger 1.0)" in " ".join(every.split())
        nlc = " ".join(good("train-nlc", "--help", **path(stranger)).split())
        assert "Of other packages: by-accuracy." in nlc
        assert "Of other packages: nearest-mean." in nlc
        heads = " ".join(good("train-heads", "--help", **path(stranger)).split())
        assert "Of other packages: nearest-mean." in heads

    def test_is_in_table_record_and_spreadsheet(self, store, stranger, tmp_path):
        out = good(
            "evaluate", "--store", store, "--csv", tmp_path / "t.csv", "--json", **path(stranger)
        )
        record = json.loads(out)
        assert record["versions"]["stranger"] == "1.0"
        assert record["measures"]["margin"]["title"] == "margin"
        assert record["methods"]["by-accuracy"]["learns_from"] == ["labels"]
        rows = {row["method"]: row for row in record["summary"]}
        assert 0 < rows["by-accuracy"]["measures"]["margin"] < 1
        assert "by-accuracy" in (tmp_path / "t.csv").read_text()
        assert "margin" in (tmp_path / "t.csv").read_text()

    def test_its_head_is_fitted_and_combined(self, store, stranger):
        head = ("--head", "nearest-mean", "--store", store)
        good("train-heads", *head, "--holdout", "0.5", **path(stranger))
        good("train-nlc", *head, "--shots", "1", "--seeds", "1", **path(stranger))
        out = json.loads(good("evaluate", *head, "--json", **path(stranger)))
        assert out["versions"]["stranger"] == "1.0"
        assert "cached" in good("train-heads", *head, "--holdout", "0.5", **path(stranger))
        for stage in ("evaluate", "train-nlc", "diversity"):
            assert "needs the head nearest-mean of stranger 1.0, which is not installed" in refusal(
                stage, *head
            )
        matrices = json.loads(good("diversity", *head, "--json", **path(stranger)))
        assert "both-right" in matrices["measures"]


class TestMissing:
    def test_what_it_made_needs_it(self, store):
        line = refusal("evaluate", "--store", store)
        assert "needs the combiner by-accuracy of stranger 1.0, which is not installed" in line
        assert line.endswith("run `pip install stranger==1.0`")
        for asked in (("export", "--out", store / "x"), ("predict", "x.png")):
            line = refusal(*asked, "--combiner", "by-accuracy", "--store", store)
            assert "needs the combiner by-accuracy of stranger 1.0, which is not installed" in line

    def test_the_store_is_verified_and_listed_without_it(self, store):
        assert json.loads(good("verify", "--store", store, "--json"))["damage"] == []


@pytest.mark.slow
def test_predicts_and_is_exported(first_extracted, stranger, photos, tmp_path):
    store, out = shutil.copytree(first_extracted, tmp_path / "store"), tmp_path / "out"
    image, here = photos / "test" / "red" / "00.png", ("--store", store)
    fit = ("--combiners", "by-accuracy,log-avg", "--shots", "2", "--seeds", "1")
    good("train-nlc", *fit, *here, **path(stranger))
    one = ("--combiner", "by-accuracy", *here)
    said = json.loads(good("predict", image, *one, "--json", **path(stranger)))
    exported = good("export", *one, "--out", out, **path(stranger))
    assert "whoever uses it needs stranger==1.0 besides clipnlc" in exported
    assert "pip install clipnlc stranger==1.0" in (out / "README.md").read_text()
    again = json.loads(good("predict", image, "--from", out, "--json", **path(stranger)))
    assert again == said
    assert refusal("predict", image, "--from", out) == (
        f"error: {out} needs the combiner by-accuracy of stranger 1.0, which is not installed; "
        "run `pip install stranger==1.0`"
    )
    good("predict", image, "--combiner", "log-avg", *here)  # what is ours needs nothing


def test_another_version_is_another_key(store, once, stranger):
    newer = (
        once("plugins/newer", lambda f: pip_install(write_stranger(f / "s", "2.0"), f / SITE))
        / SITE
    )
    line = refusal("evaluate", "--store", store, **path(newer))
    assert "made with by-accuracy of stranger 1.0, and stranger 2.0 is installed" in line
    cure = re.search(r"`clipnlc (.*)`", line)[1].split()
    out = good(*cure, **path(newer))
    assert "made" in out
    record = json.loads(good("evaluate", "--store", store, "--json", **path(newer)))
    assert record["versions"]["stranger"] == "2.0"


class TestBroken:
    def test_is_named_once_and_the_rest_works(self, stranger, broken):
        ended = run("combiners", "--json", **path(stranger, broken))
        assert ended.code == 0
        names = [row["name"] for row in json.loads(ended.out)]
        assert "by-accuracy" in names
        assert "half" not in names
        assert names.count("log-avg") == 1
        half, taken = ended.err.splitlines()
        assert half == (
            "warning: left out: the combiner 'half' of half-done 0.1 cannot be imported "
            "(ModuleNotFoundError: No module named 'nowhere'); repair or uninstall half-done"
        )
        assert taken == (
            "warning: left out: half-done 0.1 calls a combiner 'log-avg', which clipnlc uses itself; "
            "expected another name: uninstall half-done, or ask its authors to rename it"
        )

    def test_asked_for_by_name_is_an_error(self, broken, tmp_path):
        asked = ("--store", tmp_path, "--head")
        line = refusal("evaluate", *asked, "half-head", **path(broken))
        assert "the head 'half-head' of half-done 0.1 cannot be imported" in line
        line = refusal("train-nlc", "--combiners", "half", "--store", tmp_path, **path(broken))
        assert "the combiner 'half' of half-done 0.1 cannot be imported" in line

    def test_evaluates_without_its_measure(self, store, stranger, broken):
        ended = run("evaluate", "--store", store, **path(stranger, broken))
        assert ended.code == 0
        assert "by-accuracy" in ended.out
        (line,) = [x for x in ended.err.splitlines() if "measure" in x]
        assert "the measure 'half-measure' of half-done 0.1 cannot be imported" in line
        assert run("evaluate", "--store", store, "--quiet", **path(stranger, broken)).err == ""
