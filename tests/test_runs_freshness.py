"""Stale runs: the command of the message makes them current, or removes what cannot be made."""

import re
import shlex
import shutil
import subprocess

import pytest
from extracting import BOTH, run, write_images
from stores_examples import quick_disk  # noqa: F401  (a fixture for all tests of this file)

from clipnlc.cli import main
from clipnlc.labels import Labels
from clipnlc.runs import freshness
from clipnlc.stages.train_heads import train_heads
from clipnlc.stages.train_nlc import train_nlc
from clipnlc.stores.fits import read_fit_header
from clipnlc.stores.layout import Layout

RESNET, VIT = BOTH
QUICK = ("vote-1", "c-conf", "c-log-avg")


@pytest.fixture
def data(tmp_path):
    return write_images(tmp_path / "data", train=36, test=9)


@pytest.fixture
def store(tmp_path, data):
    run(tmp_path / "store", data)
    return tmp_path / "store"


def fit(store, *labels, combiners=QUICK, seeds=(0,), **settings):
    train_nlc(store=store, combiners=combiners, labels=labels, seeds=seeds, **settings)


def other_prompts(store, data, tmp_path):
    """Extract with other prompts: all that was made before is stale."""
    (tmp_path / "templates.txt").write_text("a drawing of a {c}\n")
    run(store, data, templates=tmp_path / "templates.txt")


def follow(store, capsys, *arguments):
    """Run `evaluate`, and what it says to run, until it works; return the commands."""
    commands = []
    while main(["evaluate", "--quiet", "--store", str(store), *arguments]):
        message = capsys.readouterr().err
        found = re.search(r"run `([^`]+)`", message)
        assert found, message
        assert found[1] not in commands, f"a circle: {message}"
        commands.append(found[1])
        program, *words = shlex.split(found[1])
        if program == "clipnlc":
            assert main([*words, "--quiet"]) == 0, capsys.readouterr().err
        else:
            subprocess.run([program, *words], check=True)
    return commands


def runs_of(store, head="zero-shot"):
    """The combiners of every run."""
    return {
        path.stem: set(read_fit_header(path).keys)
        for path in (Layout(store).dataset("data") / "fits" / head).rglob("*.h5")
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [
        ([Labels.shots(3)], 5, 1),
        ([Labels.shots(3), Labels.shots(7)], 2, 1),
        ([Labels.count(10), Labels.count(20)], 2, 1),
        ([Labels.holdout(0.25)], 2, 1),
        ([Labels.holdout(0.25), Labels.holdout(0.5)], 1, 2),
        ([Labels.all()], 2, 1),
        ([Labels.shots(2), Labels.count(9), Labels.holdout(1.0), Labels.all()], 2, 3),
    ],
)
def test_whatever_was_drawn(tmp_path, data, store, capsys, case):
    labels, seeds, commands = case
    fit(store, *labels, seeds=range(seeds))
    before = runs_of(store)
    other_prompts(store, data, tmp_path)
    assert len(follow(store, capsys)) == commands
    assert runs_of(store) == before


def test_only_what_is_stale_is_fitted_again(tmp_path, data, store, capsys):
    fit(store, Labels.shots(2), combiners=["c-conf"])
    other_prompts(store, data, tmp_path)
    fit(store, Labels.shots(1), combiners=["c-log-avg"])
    (cure,) = follow(store, capsys)
    assert "--combiners c-conf --shots 2 --seeds 1" in cure
    assert runs_of(store) == {"1-shots-seed-0": {"c-log-avg"}, "2-shots-seed-0": {"c-conf"}}


def test_settings_that_no_option_sets(tmp_path, data, store, capsys):
    fit(store, Labels.shots(2), combiners=["nlc"], settings={"nlc": {"steps": 3}})
    other_prompts(store, data, tmp_path)
    assert len(follow(store, capsys)) == 1


def declared(store, run, combiner):
    """What a fit was told of how common the classes are."""
    (path,) = (Layout(store).dataset("data") / "fits/zero-shot").glob(f"*/{run}.h5")
    return read_fit_header(path).keys[combiner].fields["settings"]["proportions"]


def test_classes_are_declared_as_before(tmp_path, data, store, capsys):
    """One command makes what was made by one, and each declares what the last one did."""
    fit(store, Labels.shots(1), combiners=["balanced-gp"])
    names = ["balanced", "balanced-gp", "c-conf"]
    fit(store, Labels.count(10), combiners=names, proportions="labels")
    other_prompts(store, data, tmp_path)
    first, second = follow(store, capsys)
    assert "--combiners balanced,balanced-gp --shots 1 " in first
    assert "--class-proportions" not in first
    assert "--combiners c-conf,balanced-gp --count 10 " in second
    assert "--class-proportions labels" in second
    assert declared(store, "1-shots-seed-0", "balanced-gp") is None
    assert declared(store, "10-labels-seed-0", "balanced-gp") == "labels"


def test_equal_classes_are_declared_as_before(tmp_path, data, store, capsys):
    fit(store, Labels.shots(2), combiners=["balanced", "c-conf"], proportions="uniform")
    other_prompts(store, data, tmp_path)
    (cure,) = follow(store, capsys)
    assert "--combiners c-conf,balanced --shots 2 --seeds 1 --class-proportions uniform" in cure
    assert declared(store, "no-labels", "balanced") == "uniform"


def test_class_names_that_have_changed(store, data, capsys):
    """Combiners without labels know names only, the others also lose their samples."""
    fit(store, Labels.shots(2))
    for folder in list(data.glob("*/dog")):
        folder.rename(folder.with_name("hound"))
    run(store, data)
    (cure,) = follow(store, capsys)
    assert "--combiners vote-1,c-conf,c-log-avg --shots 2 --seeds 1" in cure


def test_a_train_split_that_has_gone(store, data, capsys):
    """With the same classes its fits are as true as before."""
    fit(store, Labels.shots(2))
    shutil.rmtree(data / "train")
    run(store, data)
    assert follow(store, capsys) == []
    for folder in list(data.glob("*/dog")):
        folder.rename(folder.with_name("hound"))
    run(store, data)
    refit, remove = follow(store, capsys)
    assert "--combiners vote-1 --store" in refit
    assert remove.startswith("rm -r ")
    assert remove.endswith("2-shots-seed-0.h5")
    assert runs_of(store) == {"no-labels": {"vote-1"}}


def test_all_runs_that_cannot_be_made_again(store, data, capsys):
    fit(store, Labels.shots(1), Labels.shots(2), combiners=["c-conf"], seeds=[0, 1])
    shutil.rmtree(data / "train")
    for folder in list(data.glob("*/dog")):
        folder.rename(folder.with_name("hound"))
    run(store, data)
    assert main(["evaluate", "--store", str(store)]) == 2
    message = capsys.readouterr().err
    assert re.search(
        r"1-shots-seed-0.h5 and 3 more runs are stale: data/logits/zero-shot/nano-RN50.h5#train is no "
        r"longer there \(and 1 more\); it cannot be made again without a train split and its combiners: run "
        r"`rm -r \S+/fits/zero-shot/2-\w+` to go on without it\n$",
        message,
    )


def test_a_combiner_that_has_gone(tmp_path, data, store, capsys, monkeypatch):
    fit(store, Labels.shots(2), combiners=["c-conf"])
    fit(store, Labels.shots(1), combiners=["c-log-avg"])
    other_prompts(store, data, tmp_path)
    without = {n: p for n, p in freshness.COMBINERS.table.items() if n != "c-conf"}
    monkeypatch.setattr(freshness, "COMBINERS", type(freshness.COMBINERS)("combiner", without))
    refit, remove = follow(store, capsys)
    assert "--combiners c-log-avg" in refit
    assert remove.startswith("rm -r ")
    assert runs_of(store) == {"1-shots-seed-0": {"c-log-avg"}}


def test_heads_keep_their_settings(tmp_path, data, store, capsys):
    """Logits of heads are made again first, with the options that they were made with."""
    train_heads(store=store, settings={"epochs": 4, "stopping_share": 0.2}, holdout=0.3, seed=2)
    fit(store, Labels.holdout(1.0), combiners=["c-conf"], head="linear")
    other_prompts(store, data, tmp_path)
    heads, fits = follow(store, capsys, "--head", "linear")
    for option in ("--holdout 0.3", "--epochs 4", "--early-stopping 0.2", "--seed 2"):
        assert option in heads
    assert f"--backbones {RESNET},{VIT}" in heads
    assert "train-nlc" in fits


def test_a_backbone_that_has_gone(tmp_path, data, store, capsys):
    fit(store, Labels.shots(2))
    shutil.rmtree(Layout(store).dataset("data") / "logits" / "zero-shot" / ".locks")
    Layout(store).logits("data", "zero-shot", VIT).unlink()
    assert main(["evaluate", "--store", str(store)]) == 2
    assert f"run `clipnlc extract --dataset data --backbones {VIT}" in capsys.readouterr().err
    fit(store, Labels.shots(2), backbones=[RESNET])
    assert main(["evaluate", "--quiet", "--store", str(store)]) == 0
