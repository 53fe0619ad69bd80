"""Reports: tables that a newcomer can read, made from a record alone."""

import csv
import io
import re
from dataclasses import replace

import pytest
from reports_examples import DIGITS, DIVERSITY, EVALUATION, FITTED, MEASURES, ROWS

from clipnlc.labels import Labels
from clipnlc.reports.diversity_tables import diversity_report
from clipnlc.reports.files import evaluation_from_json, to_json
from clipnlc.reports.markdown import markdown
from clipnlc.reports.record import Evaluation, Method, Published
from clipnlc.reports.spreadsheet import diversity_csv, evaluation_csv
from clipnlc.reports.tables import Cell, Line, Report, Section, Table, evaluation_report
from clipnlc.reports.terminal import console, show

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
| nlc |  | **71.0 ± 2.0** | **71.0 ± ?** |
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
    assert text.count("### ") == 2 + 3 + 4 + 1
    assert "### summary over 2 data sets: gain over the best single backbone (on test), in" in text
    assert "| nlc |  | **+11.0** | **+11.0 ± ?** |" in text
    assert "Something is left out." in text


def test_one_data_set_has_no_second_table_of_accuracies():
    alone = replace(EVALUATION, datasets=(DIGITS,), summary=ROWS)
    titles = [t.title for t in evaluation_report(alone).tables]
    assert [title.split(":")[0] for title in titles] == [
        "digits",
        *["summary"] * 6,
        "what each method used",
    ]


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
        "±?: the draw variance is not estimable",
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
    calibration = further_tables(EVALUATION)["expected calibration error in %, lower is better"]
    best = {s.title: [line.cells[1].best for line in s.lines] for s in calibration.sections}
    assert best["combined with labels"] == [True]


def further_tables(evaluation):
    """Return the tables of further measures by what stands after `summary over ...:`."""
    tables = evaluation_report(evaluation).tables
    return {t.title.split(": ")[1]: t for t in tables if t.title.endswith("is better")}


def test_each_further_measure_has_a_table_with_its_unit_and_direction():
    tables = further_tables(EVALUATION)
    assert list(tables) == [
        "expected calibration error in %, lower is better",
        "class-mean accuracy in %, higher is better",
        "negative log likelihood in nats, lower is better",
        "Brier score, lower is better",
    ]
    shown = {
        title: {line.name: line.cells for section in t.sections for line in section.lines}
        for title, t in tables.items()
    }
    rows = [lines["nlc"][1].text for lines in shown.values()]
    assert rows == ["5.0", "70.0", "0.900", "0.500"]
    assert [lines["nano_a"][0].text for lines in shown.values()] == [
        "20.0",
        "45.0",
        "1.250",
        "0.750",
    ]
    assert ["oracle" in lines for lines in shown.values()] == [False, True, False, False]


def test_every_method_that_is_level_with_the_best_is_starred_in_its_measure():
    other = replace(FITTED, method="gac", level=("accuracy",))
    report = evaluation_report(replace(EVALUATION, summary=(FITTED, other)))
    for title, starred in (
        ("mean accuracy in %", ["nlc", "gac"]),
        ("gain over the best single backbone (on test), in points", ["nlc", "gac"]),
        ("Brier score, lower is better", ["nlc"]),
        ("class-mean accuracy in %, higher is better", []),
    ):
        (table,) = [t for t in report.tables if t.title.endswith(f": {title}")]
        lines = [line for section in table.sections for line in section.lines]
        assert [line.name for line in lines if line.cells[0].best] == starred


def test_controls_may_be_left_out():
    shown, hidden = (markdown(evaluation_report(EVALUATION, controls=on)) for on in (True, False))
    assert "| static |" in shown
    assert "static" not in hidden
    assert "controls:" not in hidden


def test_what_each_method_used_is_said():
    pooled = replace(FITTED, method="balanced", unlabelled=320, labels=20)
    methods = {
        **EVALUATION.methods,
        "balanced": Method("Class offsets.", ("unlabelled",), "nothing", recommended=True),
    }
    summary = (*EVALUATION.summary, pooled, replace(pooled, drawn=Labels.none(), labels=0))
    text = markdown(evaluation_report(replace(EVALUATION, methods=methods, summary=summary)))
    assert "| nlc | 10 to 99, k per class or stratified | none | nano training pools |" in text
    assert "| balanced | 20, k per class | 320 of train | nothing |" in text
    assert "| log-avg | none | none | nothing |" in text
    assert "balanced: Class offsets." in text
    assert "*combined without labels, with unlabelled images of train*" in text


def test_columns_stand_in_the_order_of_the_labels():
    drawn = (Labels.all(), Labels.count(30), Labels.shots(4), Labels.holdout(0.5), Labels.none())
    rows = tuple(replace(FITTED, drawn=one) for one in drawn)
    table = evaluation_report(replace(EVALUATION, summary=rows)).tables[2]
    assert table.columns == ("no labels", "4 shots", "30 labels", "50 % held", "all labels")


def test_pipes_get_a_hundred_columns_and_columns_is_obeyed(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert console().width == 100
    monkeypatch.setenv("COLUMNS", "72")
    assert console().width == 72


@pytest.mark.parametrize("width", [40, 60, 100])
def test_the_terminal_shows_every_number_whole(width):
    rows = ROWS + tuple(
        replace(FITTED, drawn=Labels.shots(k), labels=10 * k) for k in (2, 4, 8, 16, 32)
    )
    text = printed(
        evaluation_report(replace(EVALUATION, datasets=(replace(DIGITS, rows=rows),))), width
    )
    assert "…" not in text
    assert all(len(line.rstrip()) <= width for line in text.splitlines())
    assert text.count("71.0± 2.0*") + text.count("71.0±2.0") >= 6
    for heading in ("no labels", "32 shots", "held", "labels used"):
        assert heading in text


@pytest.mark.parametrize("width", [60, 72, 80, 100])
def test_neither_long_titles_nor_long_headings_cost_numbers(width):
    headings = ("right for some %", "disagree", *(f"{k} shots" for k in (1, 2, 4, 8)), "Q")
    lines = (Line("gp", tuple(Cell(f"{10 + n}.5", "3.1", best=n == 2) for n in range(7))),)
    title = "combined with labels, with unlabelled images of train and more"
    text = printed(Report((Table("digits", headings, (Section(title, lines),)),), ()), width)
    assert all(len(line.rstrip()) <= width for line in text.splitlines())
    assert re.findall(r"1\d\.5±3\.1", text) == [f"{10 + n}.5±3.1" for n in range(7)]
    assert "12.5±3.1*" in text
    assert " ".join(title.split()) in " ".join(text.split())


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
    assert (oracle["brier"], float(oracle["gain"])) == ("", 0.2)
    assert (nlc["drawn_kind"], nlc["drawn_amount"], nlc["brier"]) == ("shots", "1", "0.5")
    assert list(lines[0])[:6] == [
        *("dataset", "method", "kind", "drawn_kind", "drawn_amount", "labels"),
    ]
    assert list(lines[0])[19:23] == [name for name in MEASURES if name != "accuracy"]
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
    assert "disagree: share of images with different predictions (high is diverse); Q:" in " ".join(
        text.split()
    )
