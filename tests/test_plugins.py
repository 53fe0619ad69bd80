"""Packages of strangers: installed for real, they show up everywhere without a changed line here."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import Ended, environment
from heads_examples import write_fruit
from PIL import Image

from clipnlc import plugins
from clipnlc.cli.refusals import refusal
from clipnlc.combiners import COMBINERS, Combiner
from clipnlc.datasets import (
    foreign_keys,
    is_path,
    open_dataset,
    path_key,
    resolve,
    store_keys,
)
from clipnlc.errors import DataError, PluginError, PluginWarning, UnknownNameError
from clipnlc.heads import Head
from clipnlc.measures import Measure, Measures
from clipnlc.metrics import METRICS
from clipnlc.plugins import Plugins, blame
from clipnlc.registry import Registry
from clipnlc.stores.layout import Layout
from clipnlc.testing import check_dataset

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


def write_stranger(folder):
    """Write the package of the page, as printed there."""
    text = PAGE.read_text("utf-8")
    folder.mkdir(parents=True)
    (pyproject,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    module, test = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
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


EACH = """
import contextlib, io, json, sys
from clipnlc.cli import main
found = []
for words in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(words)
    found.append((code, out.getvalue(), err.getvalue()))
print(json.dumps(found))
"""


def each(sites, *commands):
    """Run commands one after the other in one process that has these packages."""
    words = json.dumps([[str(word) for word in command] for command in commands])
    done = subprocess.run(
        [sys.executable, "-c", EACH, words],
        env=environment(PYTHONPATH=":".join(map(str, (*sites, ROOT)))),
        capture_output=True,
        text=True,
        check=True,
    )
    return [Ended(*one) for one in json.loads(done.stdout.splitlines()[-1])]


def outputs(sites, *commands):
    """Run commands that must end well and silently on standard error; return their outputs."""
    found = each(sites, *commands)
    assert [(one.code, one.err) for one in found] == [(0, "")] * len(commands), found
    return [one.out for one in found]


def refusals(sites, *commands):
    """Run commands that the user must fix; return the one line of each."""
    found = each(sites, *commands)
    assert [(one.code, one.err.count("\n")) for one in found] == [(2, 1)] * len(commands), found
    return [one.err.strip() for one in found]


@pytest.fixture(scope="session")
def fitted(once, stranger):
    """A store with fits of the stranger's combiner beside ours."""

    def make(store):
        for backbone in ("nano-RN50", "nano-ViT-B-16"):
            write_fruit(Layout(store), backbone)
        fit = ("--combiners", "by-accuracy,log-avg", "--shots", "2", "--seeds", "1")
        here = ("--store", store)
        outputs([stranger], ("train-nlc", *fit, *here, "--workers", 1), ("evaluate", *here))

    return once("plugins/store", make)


@pytest.fixture
def store(fitted, tmp_path):
    return Path(shutil.copytree(fitted, tmp_path / "store"))


class TestInstalled:
    def test_its_own_test_passes(self, stranger, tmp_path):
        test = stranger.parent / "source" / "test_stranger.py"
        code = f"import runpy; runpy.run_path({str(test)!r})['test_conforms']()"
        places = {"PYTHONPATH": f"{stranger}:{ROOT}", "XDG_CACHE_HOME": str(tmp_path)}
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment(**places),
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert len([*tmp_path.rglob("*.png")]) == 32  # its data set was looked at, too

    def test_is_in_every_list(self, stranger):
        row, data, every, *helps = outputs(
            [stranger],
            ("combiners", "plugins", "--json"),
            ("datasets", "plugins", "--json"),
            ("combiners",),
            ("train-nlc", "--help"),
            ("train-heads", "--help"),
            ("extract", "--help"),
        )
        (squares,) = json.loads(data)
        assert (squares["key"], squares["source"]) == ("squares", "stranger 1.0")
        (row,), every = json.loads(row), " ".join(every.split())
        found = (row["name"], row["package"], row["groups"])
        assert found == ("by-accuracy", "stranger 1.0", ["plugins"])
        assert "(of stranger 1.0)" in every
        nlc, heads, extract = (" ".join(one.split()) for one in helps)
        assert "Of other packages: by-accuracy." in nlc
        assert "Of other packages: nearest-mean." in nlc
        assert "Of other packages: nearest-mean." in heads
        assert "Of other packages: squares." in extract

    def test_is_in_table_record_and_spreadsheet(self, store, stranger, tmp_path):
        table = tmp_path / "t.csv"
        here = ("--store", store)
        (out,) = outputs([stranger], ("evaluate", *here, "--csv", table, "--json"))
        record = json.loads(out)
        assert record["versions"]["stranger"] == "1.0"
        assert record["measures"]["margin"]["title"] == "margin"
        assert record["methods"]["by-accuracy"]["learns_from"] == ["labels"]
        rows = {row["method"]: row for row in record["summary"]}
        assert 0 < rows["by-accuracy"]["measures"]["margin"] < 1
        assert "by-accuracy" in table.read_text()
        assert "margin" in table.read_text()
        (saved,) = (store / "fruit" / "records").glob("evaluate-*.json")
        assert json.loads(saved.read_text())["versions"]["stranger"] == "1.0"

    def test_its_head_is_fitted_and_combined(self, store, stranger, newer):
        head = ("--head", "nearest-mean", "--store", store)
        fitted = ("train-heads", *head, "--holdout", "0.5")
        _, again, _, evaluated, compared = outputs(
            [stranger],
            fitted,
            fitted,
            ("train-nlc", *head, "--shots", "1", "--seeds", "1", "--workers", "1"),
            ("evaluate", *head, "--json"),
            ("diversity", *head, "--json"),
        )
        assert "2 heads cached" in again
        assert json.loads(evaluated)["versions"]["stranger"] == "1.0"
        matrices = json.loads(compared)
        assert matrices["versions"]["stranger"] == "1.0"
        assert "both-right" in matrices["measures"]
        for line in refusals([], *((s, *head) for s in ("evaluate", "train-nlc", "diversity"))):
            assert "needs the head nearest-mean of stranger 1.0, which is not installed" in line
        (line,) = refusals([newer], ("evaluate", *head))
        assert "made with nearest-mean of stranger 1.0, and stranger 2.0 is installed" in line
        assert "run `clipnlc train-heads --dataset fruit --head nearest-mean" in line


def test_without_the_package_what_it_made_is_verified_and_nothing_else(store):
    here = ("--combiner", "by-accuracy", "--store", store)
    evaluate, export, predict = refusals(
        [],
        ("evaluate", "--store", store),
        ("export", "--out", store / "x", *here),
        ("predict", "x.png", *here),
    )
    for line in (evaluate, export, predict):
        assert "needs the combiner by-accuracy of stranger 1.0, which is not installed" in line
        assert line.endswith("run `pip install stranger==1.0`")
    verified, _ = outputs([], ("verify", "--store", store, "--json"), ("status", "--store", store))
    assert json.loads(verified)["damage"] == []


@pytest.fixture
def newer(stranger, tmp_path):
    """The package of the page in another version."""
    site = shutil.copytree(stranger, tmp_path / "newer")
    (info,) = site.glob("stranger-*.dist-info")
    metadata = info.rename(site / "stranger-2.0.dist-info") / "METADATA"
    metadata.write_text(metadata.read_text().replace("Version: 1.0", "Version: 2.0"))
    return site


def test_another_version_is_another_key(store, newer):
    (line,) = refusals([newer], ("evaluate", "--store", store))
    assert "made with by-accuracy of stranger 1.0, and stranger 2.0 is installed" in line
    cure = shlex.split(re.search(r"`clipnlc (.*)`", line)[1])
    made, evaluated = outputs([newer], cure, ("evaluate", "--store", store, "--json"))
    assert "1 fit made" in made
    assert json.loads(evaluated)["versions"]["stranger"] == "2.0"


@pytest.mark.slow
def test_from_its_data_set_to_its_export(stranger, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    image, out = tmp_path / "stranger" / "squares" / "test" / "dark" / "0.png", tmp_path / "out"
    here = ("--store", tmp_path / "store")
    squares = ("extract", "--dataset", "squares", "--backbones", "nano-RN50,nano-ViT-B-16", *here)
    fit = ("--combiners", "by-accuracy,log-avg", "--shots", "2", "--seeds", "1")
    one, folder = ("--combiner", "by-accuracy", *here), ("--from", out, "--json")
    _, _, said, exported, again = outputs(
        [stranger],
        (*squares, "--quiet"),
        ("train-nlc", *fit, *here, "--workers", "1"),
        ("predict", image, *one, "--json"),
        ("export", *one, "--out", out),
        ("predict", image, *folder),
    )
    assert "whoever uses it needs stranger==1.0 besides clipnlc" in exported
    assert "pip install clipnlc stranger==1.0" in (out / "README.md").read_text()
    assert json.loads(again) == json.loads(said)
    missing, ours = each(
        [], ("predict", image, *folder), ("predict", image, "--combiner", "log-avg", *here)
    )
    assert missing.err == (
        f"error: {out} needs the combiner by-accuracy of stranger 1.0, which is not installed; "
        "run `pip install stranger==1.0`\n"
    )
    assert ours.code == 0


class TestBroken:
    def test_is_named_once_and_the_rest_works(self, store, stranger, broken):
        evaluate = ("evaluate", "--store", store)
        listed, evaluated = each([stranger, broken], ("combiners", "--json"), evaluate)
        assert (listed.code, evaluated.code) == (0, 0)
        names = [row["name"] for row in json.loads(listed.out)]
        assert "by-accuracy" in names
        assert "half" not in names
        assert names.count("log-avg") == 1
        half, taken = listed.err.splitlines()
        assert half == (
            "warning: left out: the combiner 'half' of half-done 0.1 cannot be imported "
            "(ModuleNotFoundError: No module named 'nowhere'); repair or uninstall half-done"
        )
        assert taken == (
            "warning: left out: half-done 0.1 calls a combiner 'log-avg', which clipnlc uses itself; "
            "expected another name: uninstall half-done, or ask its authors to rename it"
        )
        assert "by-accuracy" in evaluated.out
        (measure,) = evaluated.err.splitlines()
        assert "the measure 'half-measure' of half-done 0.1 cannot be imported" in measure

    def test_asked_for_by_name_is_an_error_and_quiet_hides_warnings(self, stranger, broken, store):
        here = ("--store", store)
        quiet, *asked = each(
            [stranger, broken],
            ("evaluate", *here, "--quiet"),
            ("train-heads", "--head", "half-head", *here),
            ("train-nlc", "--combiners", "half", *here),
        )
        assert quiet == (0, "", "")
        assert [one.code for one in asked] == [2, 2]
        head, combiner = (one.err for one in asked)
        assert "the head 'half-head' of half-done 0.1 cannot be imported" in head
        assert "the combiner 'half' of half-done 0.1 cannot be imported" in combiner


class Own(Combiner):
    """A combiner of a package that is not installed by pip, but lies on the path as if it were."""


class Silent(Head):
    def _learn(self, examples, **more): ...
    def logits(self, features): ...
    @property
    def dim(self): ...


class Abstract(Head):
    needs_labels = True


@pytest.fixture
def declare(tmp_path, monkeypatch):
    """Put packages on the path that declare entry points."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(package, *, group="clipnlc.tried", **points):
        info = tmp_path / f"{package}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = [f"{name} = {place}" for name, place in points.items()]
        (info / "entry_points.txt").write_text("\n".join([f"[{group}]", *lines, ""]))
        plugins.forget()

    yield write
    plugins.forget()


def table(base=Combiner):
    return Registry(
        "combiner",
        {"log-avg": "clipnlc.combiners.averages:LogitAverage"},
        {"usual": ("log-avg",)},
        Plugins("clipnlc.tried", "combiner", base),
        reserved=("oracle",),
    )


class TestTable:
    def test_members_come_after_ours_and_form_a_group(self, declare):
        declare("mine", zeta="test_plugins:Own", beta="test_plugins:Own")
        its = table()
        assert list(its) == ["log-avg", "beta", "zeta"]
        assert its.get("beta") is Own
        assert "zeta" in its
        assert its.resolve("plugins") == ("beta", "zeta")
        assert its.resolve("all") == ("log-avg", "beta", "zeta")
        assert its.resolve("zeta,usual") == ("zeta", "log-avg")
        assert its.all_groups["plugins"] == ("beta", "zeta")
        assert its.plugin("beta").origin == {"name": "mine", "version": "1.0"}
        assert its.plugin("log-avg") is None
        with pytest.raises(UnknownNameError, match="did you mean 'zeta'"):
            its.resolve("zetta")

    def test_without_packages_there_is_no_such_group(self):
        assert table().all_groups == {"usual": ("log-avg",)}
        with pytest.raises(UnknownNameError, match="unknown combiner 'plugins'"):
            table().resolve("plugins")

    @pytest.mark.parametrize("name", ["log-avg", "usual", "all", "plugins", "oracle"])
    def test_a_name_of_ours_is_not_taken(self, declare, name):
        declare("mine", **{name: "test_plugins:Own"})
        its = table()
        with pytest.warns(
            PluginWarning, match=f"mine 1.0 calls a combiner '{name}', which clipnlc"
        ):
            assert list(its) == ["log-avg"]
        assert its.plugin("log-avg") is None
        assert its.get("log-avg").__module__ == "clipnlc.combiners.averages"

    def test_two_packages_with_one_name_are_both_refused(self, declare):
        declare("mine", median="test_plugins:Own", other="test_plugins:Own")
        declare("yours", median="test_plugins:Own")
        its = table()
        message = "mine 1.0 and yours 1.0 each have a combiner 'median'"
        with pytest.warns(PluginWarning, match=message):
            assert list(its) == ["log-avg", "other"]
        with pytest.raises(PluginError, match=message):
            its.get("median")

    @pytest.mark.parametrize(
        ("place", "base", "message"),
        [
            ("test_plugins:Nothing", Combiner, r"cannot be imported \(AttributeError"),
            ("test_plugins", Combiner, "is no subclass of Combiner"),
            ("test_plugins:table", Combiner, "is no subclass of Combiner"),
            ("test_plugins:Silent", Combiner, "is no subclass of Combiner"),
            ("test_plugins:Silent", Head, "does not say needs_labels"),
            ("test_plugins:Abstract", Head, "is an abstract class"),
        ],
    )
    def test_what_is_no_member_is_refused(self, declare, place, base, message):
        declare("mine", odd=place)
        its = table(base)
        with pytest.raises(PluginError, match=message):
            its.get("odd")
        with pytest.warns(PluginWarning, match="left out: the combiner 'odd' of mine 1.0"):
            assert "odd" not in its

    def test_a_name_that_is_no_name_is_refused(self, declare):
        declare("mine", **{"a/b": "test_plugins:Own"})
        with pytest.raises(PluginError, match="which cannot be a name"):
            table().get("a/b")

    def test_a_name_of_ours_is_found_without_reading_metadata(self, monkeypatch):
        monkeypatch.setattr("importlib.metadata.entry_points", None)
        plugins.forget()
        assert table().get("log-avg")
        assert table().resolve("usual,log-avg") == ("log-avg",)
        with pytest.warns(PluginWarning, match="the metadata of one is damaged"):
            assert list(table()) == ["log-avg"]
        plugins.forget()

    def test_measures_are_rows(self, declare):
        declare("mine", good="test_plugins:MARGIN", bad="test_plugins:Own", brier="os:sep")
        its = Measures(METRICS.table, Plugins("clipnlc.tried", "measure", Measure, instances=True))
        with pytest.warns(PluginWarning) as said:
            assert list(its)[-1] == "good"
        assert len(said) == 2
        assert its.facts["good"].title == "margin"
        assert its.plugin("good").package == "mine"
        assert its.plugin("brier") is None
        with pytest.raises(PluginError, match="is no Measure"):
            its.get("bad")


class TestDatasets:
    def test_its_key_is_a_data_set(self, declare, tmp_path, monkeypatch):
        make_dataset(tmp_path / "data")
        declare("mine", group="clipnlc.datasets", blobs="test_plugins:place")
        monkeypatch.setenv("TRIED_DATA", str(tmp_path / "data"))
        assert resolve("blobs") == ("blobs",)
        assert resolve("plugins") == ("blobs",)
        assert store_keys("plugins") == ("blobs",)
        found = open_dataset("blobs")
        assert (found.key, found.path) == ("blobs", tmp_path / "data")
        assert found.open("test").origin == {"package": "mine 1.0"}
        monkeypatch.chdir(tmp_path)
        (tmp_path / "blobs").mkdir()  # a key is a key, even where a folder has its name
        assert not is_path("blobs")
        with pytest.raises(DataError, match="another data set's key"):
            path_key(tmp_path / "blobs")

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            ("", r"the data set blobs of mine 1.0 failed \(KeyError: 'TRIED_DATA'\)"),
            ("nowhere", "of mine 1.0 says that it lies in nowhere, and nothing is there"),
        ],
    )
    def test_one_that_fails_is_named(self, declare, monkeypatch, data, message):
        declare("mine", group="clipnlc.datasets", blobs="test_plugins:place")
        monkeypatch.delenv("TRIED_DATA", raising=False)
        if data:
            monkeypatch.setenv("TRIED_DATA", data)
        with pytest.raises(PluginError, match=message):
            open_dataset("blobs")

    def test_a_key_of_ours_is_not_taken(self, declare):
        declare("mine", group="clipnlc.datasets", digits="test_plugins:place")
        assert open_dataset("digits").key == "digits"
        with pytest.warns(PluginWarning, match="mine 1.0 calls a data set 'digits', which clipnlc"):
            assert foreign_keys() == ()

    def test_checks(self, tmp_path):
        root = make_dataset(tmp_path / "data")
        check_dataset(lambda: root)
        with pytest.raises(AssertionError, match="nothing is there"):
            check_dataset(lambda: tmp_path / "nowhere")
        places = iter([root, make_dataset(tmp_path / "other")])
        with pytest.raises(AssertionError, match="the place at the second call"):
            check_dataset(lambda: next(places))
        with pytest.raises(AssertionError, match="the content at the second call"):
            check_dataset(lambda: one_more(root))
        (root / "test" / "a" / "0.png").write_bytes(b"no image")
        with pytest.raises(AssertionError, match="cannot be used"):
            check_dataset(lambda: root)


def one_more(root):
    shutil.copy(root / "test" / "a" / "0.png", root / "test" / "a" / f"{time.time_ns()}.png")
    return root


def place():
    return os.environ["TRIED_DATA"]


def make_dataset(root):
    for split in ("train", "test"):
        for name, grey in (("a", 30), ("b", 200)):
            (root / split / name).mkdir(parents=True)
            Image.new("RGB", (8, 8), (grey, grey, grey)).save(root / split / name / "0.png")
    return root


MARGIN = Measure(
    title="margin", unit="", better="higher", bounds=(0.0, 1.0), meaning="a margin", each="x:y"
)


def test_an_error_of_a_package_names_it():
    mine = plugins.Plugin("median", "x:y", "mine", "1.0")
    with (
        pytest.raises(
            PluginError, match=r"the combiner median of mine 1.0 failed \(IndexError: 3\)"
        ),
        blame(mine, "the combiner median"),
    ):
        raise IndexError(3)
    with pytest.raises(UnknownNameError, match="nowhere"), blame(mine, "the combiner median"):
        raise UnknownNameError("nowhere")
    with pytest.raises(IndexError, match="3"), blame(None, "the combiner median"):
        raise IndexError(3)


def fail():
    raise IndexError("3")


def test_an_internal_error_of_a_package_names_it(declare):
    with pytest.raises(IndexError, match="3") as raised:
        fail()
    assert refusal(raised.value, ())[0].startswith("error: internal error: IndexError: 3; please")
    declare("mine", group="clipnlc.measures", odd="test_plugins:fail")
    line, code = refusal(raised.value, ())
    assert code == 1
    assert line.startswith(
        "error: mine 1.0 failed: IndexError: 3; report it to the authors of mine"
    )


def test_nothing_is_installed_here():
    """Else other tests would not test clipnlc alone."""
    assert COMBINERS.all_groups == dict(COMBINERS.groups)
