"""Reports: records as text, and as tables that a newcomer can read."""

import csv
import errno
import io
import json
import os
from dataclasses import replace

import pytest

from clipnlc.digests import content_digest
from clipnlc.errors import StoreError
from clipnlc.reports.markdown import markdown
from clipnlc.reports.record import (
    Correlation,
    DatasetEvaluation,
    Diversity,
    DiversityReport,
    Evaluation,
    Published,
    Row,
    Source,
    evaluation_from_json,
    save,
    to_json,
)
from clipnlc.reports.spreadsheet import diversity_csv, evaluation_csv
from clipnlc.reports.tables import diversity_report, evaluation_report
from clipnlc.reports.terminal import console, show

BASE = Row(
    method="nano_a",
    kind="backbone",
    protocol="no-labels",
    shots=0,
    holdout=0.0,
    labels=0,
    seeds=(0,),
    accuracies=(0.5,),
    accuracy=0.5,
    low=0.4,
    high=0.6,
    interval="samples",
    gain=-0.1,
    gap_closed=-0.5,
    calibration_error=0.2,
    nll=1.25,
)
FITTED = replace(
    BASE,
    method="nlc",
    kind="method",
    protocol="shots",
    shots=1,
    labels=10,
    seeds=(0, 1),
    accuracies=(0.7, 0.72),
    accuracy=0.71,
    low=0.69,
    high=0.73,
    interval="seeds",
    gain=0.11,
    gap_closed=0.55,
    calibration_error=0.05,
)
ROWS = (
    BASE,
    replace(BASE, method="b", accuracy=0.6, gain=0.0, gap_closed=0.0),
    replace(BASE, method="best-single-test", kind="reference", accuracy=0.6, gain=0.0),
    replace(
        BASE,
        method="oracle",
        kind="reference",
        accuracy=0.8,
        gain=0.2,
        gap_closed=1.0,
        calibration_error=None,
        nll=None,
    ),
    replace(BASE, method="log-avg", kind="method", accuracy=0.65, gain=0.05, gap_closed=0.25),
    FITTED,
    replace(FITTED, method="static", kind="control", accuracy=0.7, gain=0.1, gap_closed=0.5),
    replace(
        FITTED,
        protocol="holdout",
        shots=0,
        holdout=0.1,
        labels=99,
        seeds=(0,),
        low=None,
        high=None,
        interval=None,
    ),
)
DIGITS = DatasetEvaluation(
    "digits",
    100,
    10,
    "b",
    ROWS,
    (Source("digits/logits/zero-shot/b.h5", "ab" * 16, 100),),
    ("Odd.",),
)
EVALUATION = Evaluation(
    head="zero-shot",
    split="test",
    backbones=("nano_a", "b"),
    datasets=(DIGITS, replace(DIGITS, dataset="emoji", notes=())),
    summary=tuple(replace(r, low=None, high=None) if not r.labels else r for r in ROWS),
    notes=("Something is left out.",),
    versions={"python": "3.11", "numpy": "2.0"},
)
MEASURED = Diversity(
    dataset="digits",
    samples=100,
    accuracies=(0.5, 0.6),
    right_for_some=0.7,
    oracle=0.8,
    best_single=0.6,
    matrices={"disagreement": ((0.0, 0.4), (0.4, 0.0)), "q-statistic": ((1.0, None), (None, 1.0))},
    pair_means={"disagreement": 0.4, "q-statistic": None},
    sources=(),
    notes=(),
)
DIVERSITY = DiversityReport(
    head="zero-shot",
    split="test",
    backbones=("nano_a", "b"),
    datasets=(MEASURED, replace(MEASURED, dataset="emoji")),
    mean=replace(MEASURED, dataset="mean"),
    correlations=(Correlation("oracle-gain", "shots", 1, 0.0, 0.75, 0.1, 3),),
    versions={},
)

GOLDEN = """\
### digits: accuracy in % on 100 test images of 10 classes, zero-shot heads

|  | no labels | 1 shot | 10 % held |
| --- | ---: | ---: | ---: |
| *backbones alone* |  |  |  |
| nano\\_a | 50.0 ± 10.0 |  |  |
| b | 60.0 ± 10.0 |  |  |
| *read off the test labels* |  |  |  |
| best single (on test) | 60.0 ± 10.0 |  |  |
| oracle | 80.0 ± 10.0 |  |  |
| *combined without labels* |  |  |  |
| log-avg | **65.0 ± 10.0** |  |  |
| *combined with labels* |  |  |  |
| nlc |  | **71.0 ± 2.0** | **71.0** |
| *controls* |  |  |  |
| static |  | 70.0 ± 2.0 |  |
| labels used | 0 | 10 | 99 |

best single: b

Odd.
"""


def printed(report, width: int = 100) -> str:
    to = console()
    to.width = width
    with to.capture() as captured:
        show(report, to)
    return captured.get()


def test_a_fixed_record_gives_this_markdown():
    text = markdown(evaluation_report(EVALUATION))
    assert text.startswith(GOLDEN)
    assert text.count("### ") == 2 + 4
    assert "### summary over 2 data sets: gain over the best single backbone (on test), in" in text
    assert "| nlc |  | **+11.0** | **+11.0** |" in text
    assert "Something is left out." in text


def test_one_data_set_has_no_second_table_of_accuracies():
    alone = replace(EVALUATION, datasets=(DIGITS,), summary=ROWS)
    titles = [t.title for t in evaluation_report(alone).tables]
    assert [title.split(":")[0] for title in titles] == ["digits", "summary", "summary", "summary"]


def test_the_assumed_data_set_is_named_where_it_is_averaged():
    with_it = replace(EVALUATION, datasets=(DIGITS, replace(DIGITS, dataset="country211")))
    assert "our assumption" in " ".join(evaluation_report(with_it).notes)
    assert "our assumption" not in " ".join(evaluation_report(EVALUATION).notes)


def test_notes_explain_what_is_there_and_nothing_else():
    notes = " ".join(evaluation_report(EVALUATION).notes)
    for word in (
        "chosen with the very labels",
        "oracle:",
        "controls:",
        "Student",
        "Wilson",
        "Bold",
    ):
        assert word in notes
    bare = replace(EVALUATION, summary=ROWS[:5], datasets=(replace(DIGITS, rows=ROWS[:5]),))
    notes = " ".join(evaluation_report(bare).notes)
    assert "controls:" not in notes
    assert "Student" not in notes
    assert "linear heads" in " ".join(evaluation_report(replace(EVALUATION, head="linear")).notes)


def test_the_best_of_a_column_never_saw_a_test_label():
    for table in evaluation_report(EVALUATION).tables:
        for section in table.sections:
            if section.title in ("backbones alone", "read off the test labels"):
                assert not any(cell.best for line in section.lines for cell in line.cells)
    calibration = evaluation_report(EVALUATION).tables[-1]
    assert "lower is better" in calibration.title
    best = {s.title: [line.cells[1].best for line in s.lines] for s in calibration.sections}
    assert best["combined with labels"] == [True]


def test_a_better_control_takes_the_star():
    rows = tuple(replace(r, accuracy=0.75) if r.kind == "control" else r for r in ROWS)
    table = evaluation_report(replace(EVALUATION, datasets=(replace(DIGITS, rows=rows),))).tables[0]
    (controls,) = [s for s in table.sections if s.title == "controls"]
    assert [cell.best for cell in controls.lines[0].cells] == [False, True, False]


def test_pipes_get_a_hundred_columns_and_columns_is_obeyed(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert console().width == 100
    monkeypatch.setenv("COLUMNS", "72")
    assert console().width == 72


@pytest.mark.parametrize("width", [40, 60, 100])
def test_the_terminal_shows_every_number_whole(width):
    rows = ROWS + tuple(replace(FITTED, shots=k, labels=10 * k) for k in (2, 4, 8, 16, 32))
    text = printed(
        evaluation_report(replace(EVALUATION, datasets=(replace(DIGITS, rows=rows),))), width
    )
    assert "…" not in text
    assert all(len(line.rstrip()) <= width for line in text.splitlines())
    assert text.count("71.0± 2.0*") + text.count("71.0±2.0") >= 6
    for heading in ("no labels", "32 shots", "held", "labels used"):
        assert heading in text


def test_brackets_in_names_are_no_markup():
    odd = replace(
        EVALUATION, datasets=(replace(DIGITS, dataset="[red]x[/red]", best_single="[b]"),)
    )
    text = printed(evaluation_report(odd))
    assert "[red]x[/red]" in text
    assert "best single: [b]" in text


def test_csv_holds_every_row_unrounded():
    lines = list(csv.DictReader(io.StringIO(evaluation_csv(EVALUATION))))
    assert len(lines) == 3 * len(ROWS)
    nlc = next(line for line in lines if line["method"] == "nlc")
    assert (nlc["dataset"], nlc["accuracies"], nlc["seeds"]) == ("digits", "0.7 0.72", "0 1")
    oracle = next(line for line in lines if line["method"] == "oracle")
    assert (oracle["nll"], float(oracle["gain"])) == ("", 0.2)
    assert lines[-1]["dataset"] == "(all)"


RN50 = Published("RN50.openai", "accuracy", 0.4, 0.4083, 0.4 - 0.4083, 5400, suspicious=False)
VIT = replace(RN50, backbone="b", ours=0.3, published=0.5, difference=-0.2, suspicious=True)


def beside_published(*published: Published, samples: int = 5400) -> Evaluation:
    eurosat = replace(DIGITS, dataset="eurosat", samples=samples, published=published)
    return replace(EVALUATION, datasets=(DIGITS, eurosat), published_digest="ab")


def test_published_numbers_stand_beside_ours():
    evaluation = beside_published(RN50, VIT)
    assert evaluation_from_json(to_json(evaluation), where="x.json") == evaluation
    table = evaluation_report(evaluation).tables[-1]
    assert [s.title for s in table.sections] == ["eurosat (accuracy)"]
    text = markdown(evaluation_report(evaluation))
    assert "| RN50.openai | 40.0 | 40.8 | -0.8 |  |" in text
    assert "| b | 30.0 | 50.0 | -20.0 | suspicious |" in text
    suspicious = next(note for note in table.notes if "suspicious" in note)
    assert "more than 2 points apart: b. " in suspicious
    assert "prompts" in suspicious
    assert "another order than the labels" in suspicious
    assert "other test rows" in suspicious
    assert "`clipnlc doctor eurosat`" in suspicious
    assert "open_clip's results table, measured by others" in table.notes[0]
    shown = printed(evaluation_report(evaluation), 72)
    assert "suspicious" in shown
    assert "…" not in shown


def test_other_test_rows_are_said_to_be_other_test_rows():
    exact = "eurosat: ours are measured on 27 test images, the published ones on 5400: other test"
    notes = evaluation_report(beside_published(VIT, samples=27)).tables[-1].notes
    assert any(note.startswith(exact) for note in notes)
    notes = evaluation_report(beside_published(RN50)).tables[-1].notes
    assert len(notes) == 1  # nothing to explain


def test_published_means_over_classes_are_called_so():
    mean = replace(RN50, metric="class-mean-accuracy")
    table = evaluation_report(beside_published(mean)).tables[-1]
    assert [s.title for s in table.sections] == ["eurosat (mean over classes)"]


def test_nothing_is_shown_where_nothing_is_published():
    assert "published" not in markdown(evaluation_report(EVALUATION))


def test_published_numbers_are_in_the_csv_of_their_backbone_alone():
    lines = list(csv.DictReader(io.StringIO(evaluation_csv(beside_published(VIT)))))
    (found,) = [line for line in lines if line["published"]]
    assert (found["dataset"], found["method"], found["metric"]) == ("eurosat", "b", "accuracy")
    numbers = [float(found[name]) for name in ("ours", "published", "difference")]
    assert numbers == [0.3, 0.5, -0.2]
    assert (found["published_samples"], found["suspicious"]) == ("5400", "True")


def test_diversity_as_table_and_csv():
    text = printed(diversity_report(DIVERSITY))
    assert "70.0" in text
    assert "+20.0" in text
    assert "0.75" in text
    lines = list(csv.DictReader(io.StringIO(diversity_csv(DIVERSITY))))
    pair = {
        (line["measure"], line["backbone"], line["other"]): line["value"] for line in lines[:20]
    }
    assert pair["disagreement", "nano_a", "b"] == "0.4"
    assert pair["q-statistic", "nano_a", "b"] == ""
    assert pair["accuracy", "b", ""] == "0.6"
    assert markdown(diversity_report(DIVERSITY)).startswith("### diversity of 2 backbones")


def test_records_are_strict_json_and_read_back():
    text = to_json(EVALUATION)
    tree = json.loads(text)
    assert (tree["format"], tree["format-version"]) == ("clipnlc-evaluation", 3)
    assert evaluation_from_json(text, where="x.json") == EVALUATION
    assert json.loads(to_json(DIVERSITY))["format"] == "clipnlc-diversity"
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json(replace(EVALUATION, summary=(replace(BASE, nll=float("nan")),)))


def test_records_of_the_first_version_are_still_read():
    tree = json.loads(to_json(EVALUATION))
    tree["format-version"] = 1
    del tree["digest"], tree["published_digest"]
    for one in tree["datasets"]:
        del one["published"]
    assert evaluation_from_json(json.dumps(tree), where="x.json") == EVALUATION


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", r"x.json is no evaluation record .*; delete it and run `clipnlc evaluate` again"),
        (b"\xff", "is no evaluation record"),
        ("[]", "is no evaluation record"),
        ("{}", "is no evaluation record"),
        (to_json(DIVERSITY), "has format 'clipnlc-diversity' version 2, expected 'clipnlc-evaluat"),
        (
            to_json(EVALUATION).replace('"format-version": 3', '"format-version": 4'),
            "update clipnlc",
        ),
        ('{"format": "clipnlc-evaluation", "format-version": 2}', "is no evaluation record"),
        ("[" * 100_000, "is no evaluation record"),
        (
            to_json(EVALUATION).replace('"method"', '"name"'),
            r"x.json was altered: .*; delete it and run `clipnlc evaluate` again$",
        ),
        (to_json(EVALUATION).replace('"digest"', '"digesT"'), "was altered"),
        # Another spelling of the same number is seen too.
        (to_json(EVALUATION).replace("0.71", "0.71000000000000001"), "was altered"),
        # The older version had no digest, but this one does.
        (to_json(EVALUATION).replace('"format-version": 3', '"format-version": 2'), "was altered"),
    ],
)
def test_what_is_no_record_is_refused_in_one_line(text, problem):
    with pytest.raises(StoreError, match=problem) as caught:
        evaluation_from_json(text, where="x.json")
    assert "\n" not in str(caught.value)


def test_another_record_is_kept_beside(tmp_path):
    path = tmp_path / "records" / "evaluate-zero-shot.json"
    save(path, EVALUATION)
    save(path, EVALUATION)
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    save(path, replace(EVALUATION, notes=()))
    kept = [p for p in path.parent.iterdir() if p != path]
    assert [p.read_text() for p in kept] == [to_json(EVALUATION)]
    assert kept[0].name.startswith("evaluate-zero-shot.")


def test_a_full_disk_loses_no_record(tmp_path, monkeypatch):
    path = tmp_path / "evaluate-zero-shot.json"
    save(path, EVALUATION)

    def full(_descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save(path, replace(EVALUATION, notes=()))
    assert path.read_text() == to_json(EVALUATION)
    assert list(tmp_path.iterdir()) == [path]


def test_a_record_carries_the_digest_of_all_else():
    tree = json.loads(to_json(EVALUATION))
    digest = tree.pop("digest")
    assert digest == content_digest(tree)
