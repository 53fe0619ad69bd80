"""The chain from a folder of photos to a table, as a user types it."""

import json
import os
import re
import struct
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import typer
from command_line import (
    BACKBONES,
    QUICK,
    command,
    contents,
    environment,
    flip_a_byte,
    good,
    run,
)

from clipnlc import cli
from clipnlc.cli import app as app_module
from clipnlc.combiners import COMBINERS
from clipnlc.errors import StoreError
from clipnlc.heads import HEADS
from clipnlc.stores.logits import read_logits

ROOT = Path(__file__).parents[1]
COMMANDS = (
    "run",
    "extract",
    "merge",
    "import",
    "train-heads",
    "train-nlc",
    "evaluate",
    "diversity",
    "predict",
    "label",
    "export",
    "status",
    "verify",
    "doctor",
    "backbones",
    "combiners",
    "datasets",
    "pretrain",
    "nano-data",
)
STAGES = ("extract", "train-heads", "train-nlc", "evaluate", "diversity")


def chain(store, photos, tables):
    """Every stage's command line, in order."""
    return {
        "extract": ["extract", "--dataset", photos, "--backbones", BACKBONES],
        "train-nlc": ["train-nlc", *QUICK],
        "evaluate": ["evaluate", "--csv", tables / "t.csv", "--markdown", tables / "t.md"],
        "diversity": ["diversity", "--plots", tables / "plots"],
        "train-heads": ["train-heads", "--epochs", 5],
        "train-nlc linear": ["train-nlc", "--head", "linear", "--holdout", 1, "--seeds", 1],
        "evaluate linear": ["evaluate", "--head", "linear"],
    }


def size_of_png(path):
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG\r\n")
    return struct.unpack(">II", data[16:24])


def test_the_chain_and_its_repetition(extracted, photos, tmp_path):
    stages = chain(extracted, photos, tmp_path)
    said = {name: good(*line, "--store", extracted) for name, line in stages.items()}
    at = f" --store {extracted}\n"
    assert said["extract"] == (
        "photos/train: 24 images, 2 backbones cached\n"
        "photos/test: 36 images, 2 backbones cached\n"
        f"next: clipnlc train-nlc --shots 1,2,4,8,16,32 --dataset photos{at}"
    )
    classes = [COMBINERS.get(name) for name in COMBINERS]
    fits = sum(4 * c.learns_from_labels() + (not c.needs_labels) for c in classes)
    assert said["train-nlc"] == (
        f"photos: 1, 2 shots \N{MULTIPLICATION SIGN} 2 seeds (3 to 6 labels): {fits} fits made\nnext: clipnlc evaluate{at}"
    )
    assert said["evaluate"].startswith("Share of test images that are right, photos;")
    assert f"\neverything: clipnlc evaluate --full{at}record: " in said["evaluate"]
    assert said["evaluate"].count("\n") <= 40
    assert said["evaluate"].endswith(f"(written)\nnext: clipnlc diversity{at}")
    assert re.match(r"photos: 2 heads trained, on 21 images each; of 3 held", said["train-heads"])
    assert said["train-heads"].endswith(f"next: clipnlc train-nlc --head linear --holdout 1{at}")
    assert (
        "100 % held \N{MULTIPLICATION SIGN} 1 seed (3 labels): 8 fits" in said["train-nlc linear"]
    )
    assert said["train-nlc linear"].endswith(f"next: clipnlc evaluate --head linear{at}")
    assert said["evaluate linear"].endswith(f"next: clipnlc diversity --head linear{at}")

    assert (tmp_path / "t.csv").read_text().count("\n") > 20
    assert "| nlc " in (tmp_path / "t.md").read_text()
    (picture,) = (tmp_path / "plots").iterdir()
    assert min(size_of_png(picture)) > 300
    assert picture.stat().st_size > 10_000

    before = contents(tmp_path)
    again = {name: good(*line, "--store", extracted) for name, line in stages.items()}
    assert contents(tmp_path) == before
    for words in again.values():
        assert "cached" in words, words
    assert f"{fits} fits cached" in again["train-nlc"]
    assert again["evaluate"] == said["evaluate"].replace("(written)", "(cached)")
    assert again["diversity"] == said["diversity"].replace("(written)", "(cached)")


@pytest.mark.slow
def test_two_stores_of_the_same_photos_hold_the_same_bytes(photos, tmp_path):
    made = []
    for name in ("one", "two"):
        store = tmp_path / name
        for line in chain(store, photos, tmp_path / "tables").values():
            good(*line, "--store", store)
        made.append(contents(store))
    assert made[0] == made[1]
    assert len(made[0]) > 15


def test_a_hint_names_the_data_set_as_the_store_calls_it(extracted, photos):
    said = good("train-nlc", "--dataset", photos, "--combiners", "vote-1", "--store", extracted)
    assert said == (
        "photos: without labels: 1 fit made\n"
        f"next: clipnlc evaluate --dataset photos --store {extracted}\n"
    )


def test_the_store_may_be_named_by_the_environment(fitted):
    assert "complete" in good("status", CLIPNLC_STORE=str(fitted))


@pytest.mark.parametrize("stage", ["extract", "train-nlc", "evaluate", "diversity", "train-heads"])
def test_quiet_and_json(stage, fitted, photos, here):
    more = {
        "extract": ("--dataset", photos, "--backbones", BACKBONES),
        "train-nlc": QUICK,
        "train-heads": ("--epochs", 1),
    }.get(stage, ())
    assert good(stage, *more, "--quiet", "--store", fitted, by=here) == ""
    value = json.loads(good(stage, *more, "--json", "--store", fitted, by=here))
    if stage == "extract":
        assert [(o["split"], o["backbone"], o["rows"], o["cached"]) for o in value] == [
            (split, backbone, rows, True)
            for split, rows in (("train", 24), ("test", 36))
            for backbone in BACKBONES.split(",")
        ]
    elif stage == "train-nlc":
        assert [(r["which"]["amount"], r["which"]["seed"], r["labels"]) for r in value] == [
            (0, 0, 0),
            (1, 0, 3),
            (1, 1, 3),
            (2, 0, 6),
            (2, 1, 6),
        ]
    elif stage == "train-heads":
        assert [h["backbone"] for h in value] == BACKBONES.split(",")
        assert all(0 <= h["accuracy"] <= 1 and h["cached"] for h in value)
    else:
        assert [d["dataset"] for d in value["datasets"]] == ["photos"]
        assert value["backbones"] == BACKBONES.split(",")


def test_json_of_status_and_verify(fitted, here):
    rows = json.loads(good("status", "--json", "--store", fitted, by=here))
    assert {row["kind"] for row in rows} == {"features", "logits", "fits", "texts"}
    assert all(row["complete"] and not row["stale"] and not row["why"] for row in rows)
    assert {row["dataset"] for row in rows if row["kind"] != "texts"} == {"photos"}
    assert {row["rows"] for row in rows if row["kind"] == "features"} == {24, 36}
    found = json.loads(good("verify", "--json", "--store", fitted))
    # Besides: the memories of backbones and of file hashes.
    assert found == {"files": len(rows) + 2, "damage": [], "not_verifiable": []}
    said = good("verify", "--store", fitted, by=here)
    assert said == f"{len(rows) + 2} files read, no damage\n"


def test_status_shows_one_line_a_file(fitted):
    said = good("status", "--store", fitted, COLUMNS="200")
    assert said.count("complete") == len(list(fitted.rglob("*.h5")))
    assert "photos/features/train/nano-RN50.h5" in said


def test_verify_names_what_is_damaged(fitted, here):
    broken = fitted / "photos/logits/zero-shot/nano-RN50.h5"
    flip_a_byte(broken, read_logits(broken).splits["test"].logits)
    ended = run("verify", "--store", fitted)
    assert ended.code == 2
    assert ended.out.startswith(f"{broken} ")
    assert ended.out.endswith(" files read, 1 damaged\n")
    assert (ended.out.count("\n"), ended.err.count("\n")) == (2, 1)
    assert ended.err.startswith("error: 1 of ")
    assert str(broken) in ended.err
    ended = here("verify", "--json", "--store", fitted)
    assert ended.code == 2
    (found,) = json.loads(ended.out)["damage"]
    assert found["path"] == str(broken)
    assert "clipnlc extract" in found["problem"]


def test_datasets_as_json(here):
    entries = json.loads(good("datasets", "--json", by=here))
    assert {"digits", "fashion"} <= {entry["key"] for entry in entries}
    assert all(entry["classes"] > 1 and entry["test"] >= 600 for entry in entries)


@pytest.mark.slow
def test_backbones_as_json():
    (row,) = json.loads(good("backbones", "nano-RN50", "--json"))
    assert (row["family"], row["texts"]) == ("nano", True)
    assert row["name"] == "nano-RN50"
    assert row["at_hand"] is True
    assert "nano-resnets" in row["groups"]


# Help ------------------------------------------------------------------------------------------


def examples():
    """Each command's example, as words."""
    found = {}
    for name in COMMANDS:
        function = name.replace("-", "_") + "_" * (name == "import")  # a word of Python
        text = getattr(app_module, function).__doc__
        (line,) = re.findall(r"^ *Example: clipnlc (.+)$", text, re.MULTILINE)
        found[name] = line.split()
    return found


@pytest.mark.parametrize("name", COMMANDS)
def test_help_begins_with_what_the_command_makes(name, capsys):
    assert cli.main([name, "--help"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"Usage: clipnlc {name} [OPTIONS]")
    assert re.match(r"  (Make|List|Report) .*\.$", said[2])
    assert "Example: clipnlc" in "\n".join(said)


def test_help_of_train_heads_names_every_head_that_is_trained(capsys, monkeypatch):
    monkeypatch.setitem(HEADS.table, "brand-new", HEADS.table["gda"])
    assert cli.main(["train-heads", "--help"]) == 0
    option = capsys.readouterr().out.split("--head <str>")[1].split("[default: linear]")[0]
    said = "".join(option.split())  # names are broken at hyphens
    assert [name for name in HEADS.table if name not in said] == ["zero-shot"]


def test_help_lists_every_command_in_full(capsys):
    assert cli.main([]) == 0
    said = capsys.readouterr().out.split("Commands:")[1]
    assert "..." not in said
    assert tuple(re.findall(r"^  ([a-z-]+)  +[A-Z]", said, re.MULTILINE)) == COMMANDS


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_are_understood(name):
    """The app's own parser takes every word; the command itself is left out."""
    group = typer.main.get_command(app_module.app)
    words = examples()[name]
    assert words[0] == name
    context = group.commands[name].make_context(name, words[1:])
    given = {word.split("=")[0] for word in words if word.startswith("-")}
    known = {option for parameter in group.commands[name].params for option in parameter.opts}
    assert given <= known
    assert context.params


@pytest.mark.parametrize(
    "name", ["train-nlc", "evaluate", "status", "verify", "combiners", "datasets"]
)
def test_examples_run(name, photos, tmp_path, here, monkeypatch):
    monkeypatch.chdir(tmp_path)
    named = ("--dataset", photos, "--name", "numerals", "--backbones", BACKBONES)
    good("extract", *named, by=here)
    if name == "evaluate":
        good("train-nlc", "--combiners", "vote-1", by=here)
    words = [word.replace("digits", "numerals") for word in examples()[name]]
    more = ["--workers", 1, "--seeds", 1] if name == "train-nlc" else []
    assert good(*words, *more, by=here)


def test_the_reference_is_current():
    done = subprocess.run(
        [sys.executable, "-c", "import make_cli; print(make_cli.page(), end='')"],
        cwd=ROOT / "docs",
        capture_output=True,
        text=True,
        check=True,
    )
    page = (ROOT / "docs/cli.md").read_text("utf-8")
    assert page == done.stdout, "docs/cli.md is not current; run `make docs`"
    assert all(f"## clipnlc {name}\n" in page for name in COMMANDS)


# The process -----------------------------------------------------------------------------------


def test_the_script_is_the_module():
    script = Path(sys.executable).with_name("clipnlc")
    for arguments in (["--help"], ["--version"], ["datasets"], ["evaluate", "--head", "x"]):
        by_name = subprocess.run(
            [script, *arguments], env=environment(), capture_output=True, check=False
        )
        by_module = subprocess.run(
            command(*arguments), env=environment(), capture_output=True, check=False
        )
        assert by_name.returncode == by_module.returncode
        assert (by_name.stdout, by_name.stderr) == (by_module.stdout, by_module.stderr)


def test_the_version_is_that_of_the_package(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"clipnlc {version('clipnlc')}\n"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["backbones", "nano"], 0),
        (["predict", "nope.png", "--classes", "cat,dog"], 2),
        (["predict", "nope.png", "more/*.jpg", "--from", "nowhere"], 2),
        (["import", "--remove", "--backbone", "forest", "--dataset", "photos"], 2),
    ],
)
def test_plain_answers_need_no_torch(words, code, tmp_path):
    script = (
        "import sys; from clipnlc.cli import main; code = main(sys.argv[1:]); "
        "sys.exit(10 * bool({'torch', 'open_clip'} & {*sys.modules}) or code)"
    )
    line = [sys.executable, "-c", script, *words]
    done = subprocess.run(line, env=environment(), cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == code, done


@pytest.mark.parametrize("stage", ["extract", "train-nlc", "train-heads"])
def test_a_cached_stage_answers_without_torch(stage, fitted, photos):
    line = {
        "extract": ["extract", "--dataset", str(photos), "--backbones", BACKBONES],
        "train-nlc": ["train-nlc", *QUICK],
        "train-heads": ["train-heads", "--epochs", "1"],
    }[stage]
    line += ["--store", str(fitted)]
    good(*line)
    script = (
        "import sys; from clipnlc.cli import main; code = main(sys.argv[1:]); "
        "sys.exit(code or 10 * ('torch' in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *line],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done
    assert "cached" in done.stdout


def test_a_fault_of_ours_is_one_line_and_code_1(monkeypatch, capsys, tmp_path):
    def broken(_root):
        raise ZeroDivisionError("two\nlines")

    monkeypatch.setattr("clipnlc.stores.status.store_status", broken)
    monkeypatch.delenv("CLIPNLC_DEBUG", raising=False)
    assert cli.main(["status", "--store", str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: internal error: ZeroDivisionError: two lines;")
    assert said.err.count("\n") == 1
    assert "CLIPNLC_DEBUG=1" in said.err
    monkeypatch.setenv("CLIPNLC_DEBUG", "1")
    with pytest.raises(ZeroDivisionError, match="two"):
        cli.main(["status", "--store", str(tmp_path)])


def test_an_interruption_of_what_exec_runs_ends_with_the_same_code(tmp_path):
    (tmp_path / "interrupted.py").write_text(
        "import os, signal\n"
        "from clipnlc import cli\n"
        "def main():\n"
        "    exec('os.kill(os.getpid(), signal.SIGINT); [0 for _ in range(10**6)]')\n"
        "cli.main = main\n"
        "cli.run()\n"
    )
    path = os.pathsep.join([str(tmp_path), str(Path(cli.__file__).parents[2])])
    ended = subprocess.run(
        [sys.executable, "-m", "interrupted"],
        env={**os.environ, "PYTHONPATH": path},
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert ended.returncode == 130
    assert ended.stderr == "interrupted; the same command goes on where this one stopped\n"


def test_damage_that_a_stage_meets_is_code_2(monkeypatch, capsys, tmp_path):
    def broken(_root):
        raise StoreError("x is damaged; delete it")

    monkeypatch.setattr("clipnlc.stores.status.store_status", broken)
    assert cli.main(["status", "--store", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "error: x is damaged; delete it\n"


def test_draws_that_share_the_pool_are_said_to_and_full_prints_every_table(extracted):
    shots = ("--shots", "2,8", "--seeds", "2", "--combiners", "log-avg,static,nlc-constant")
    good("train-nlc", *shots, "--store", extracted)
    said = " ".join(good("evaluate", "--full", "--store", extracted).split())
    assert "accuracy in % on 36 test images of 3 classes" in said
    assert "At 8 per class two draws share 100 % of their labels" in said
    assert "At 2 per class" not in said
    assert "what each method used" in said
    assert "everything:" not in said
    assert " nlc-constant: NLC with the same input" in said
    without = good("evaluate", "--full", "--no-controls", "--store", extracted)
    assert "nlc-constant" not in without
    assert " static " not in without


def test_one_method_against_the_others(fitted, tmp_path, here):
    table, page = tmp_path / "t.csv", tmp_path / "t.md"
    more = ("--csv", table, "--markdown", page, "--store", fitted)
    said = good("evaluate", "--against", "log-avg", *more, by=here)
    assert "photos: difference from log-avg in points of accuracy, on 36 test images" in said
    assert "-against-log-avg.json (written)" in said
    assert table.read_text().startswith("dataset,against,method,")
    assert "McNemar" in page.read_text()
    only = ("evaluate", "--against", "log-avg", "--baselines", "vote-1,conf", "--store", fitted)
    record = json.loads(good(*only, "--json", by=here))
    assert {row["method"] for row in record["datasets"][0]["rows"]} == {"vote-1", "conf"}
    assert "no damage" in good("verify", "--store", fitted, by=here)
    unknown = here("evaluate", "--against", "nlx", "--store", fitted)
    assert (unknown.code, unknown.out) == (2, "")
    assert "unknown method among those measured 'nlx'; did you mean 'nlc'" in unknown.err
    alone = here("evaluate", "--baselines", "conf", "--store", fitted)
    assert alone.err == (
        "error: --baselines names what is compared; name with what in --against METHOD\n"
    )


def test_combiners_are_listed_with_what_they_mean(here):
    said = " ".join(good("combiners", by=here).split())
    assert "log-avg nothing LOG-AVG: the mean of the backbones' logits" in said
    assert "static labels A constant positive weight per backbone" in said
    rows = json.loads(good("combiners", "--json", by=here))
    assert [row["name"] for row in rows] == list(COMBINERS)
    assert all(row["meaning"].endswith(".") for row in rows)
    controls = json.loads(good("combiners", "controls", "--json", by=here))
    assert {row["name"] for row in controls} == set(COMBINERS.resolve("controls"))
