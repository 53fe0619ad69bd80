"""Records as JSON: written, read back, checked, and kept."""

import errno
import json
import os
from dataclasses import replace

import pytest
from evaluation_examples import older_evaluation
from reports_examples import BASE, DIVERSITY, EVALUATION

from clipnlc.digests import content_digest, with_digest
from clipnlc.errors import StoreError
from clipnlc.reports.files import diversity_from_json, evaluation_from_json, save, to_json
from clipnlc.reports.markdown import markdown
from clipnlc.reports.tables import evaluation_report


def test_records_are_strict_json_and_read_back():
    text = to_json(EVALUATION)
    tree = json.loads(text)
    assert (tree["format"], tree["format-version"]) == ("clipnlc-evaluation", 5)
    assert evaluation_from_json(text, where="x.json") == EVALUATION
    assert tree["summary"][5]["drawn"] == {"kind": "shots", "amount": 1}
    assert tree["measures"]["negative-log-likelihood"]["bounds"] == [0.0, None]
    assert json.loads(to_json(DIVERSITY))["format"] == "clipnlc-diversity"
    assert diversity_from_json(to_json(DIVERSITY), where="x.json") == DIVERSITY
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json(replace(EVALUATION, summary=(replace(BASE, gain=float("nan")),)))


@pytest.mark.parametrize("version", [1, 2, 3])
def test_records_of_older_versions_are_still_read(version):
    found = evaluation_from_json(
        older_evaluation(to_json(EVALUATION), version=version), where="x.json"
    )
    measures = ("accuracy", "calibration-error", "negative-log-likelihood")
    assert list(found.measures) == list(EVALUATION.measures if version == 3 else measures)
    for row, now in zip(found.summary, EVALUATION.summary, strict=True):
        unknown = {"level": (), "shared": None}
        if row.method != "oracle":
            assert {**vars(row), "measures": 0} == {**vars(now), **unknown, "measures": 0}
        assert row.measures["negative-log-likelihood"] == now.measures["negative-log-likelihood"]
    assert [one.cluster for one in found.datasets] == ["digits", "emoji"]
    shown, now = (markdown(evaluation_report(one)) for one in (found, EVALUATION))
    assert shown.startswith(now.replace("**", "").split("### summary over 2 data sets: class")[0])


def test_records_of_version_4_say_all_of_todays():
    older = older_evaluation(to_json(EVALUATION), version=4)
    assert evaluation_from_json(older, where="x.json") == EVALUATION


def altered(record, change) -> str:
    """Change the JSON of a record, and give it the digest that belongs to it."""
    tree = json.loads(to_json(record))
    del tree["digest"]
    change(tree)
    return json.dumps(with_digest(tree))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            lambda t: t["summary"][5]["measures"].update({"brier": 2.5}),
            "nlc at 1 per class: brier is 2.5, expected a number from 0 to 2",
        ),
        (
            lambda t: t["summary"][0]["measures"].update({"negative-log-likelihood": -1}),
            "without labels: negative-log-likelihood is -1, expected a number from 0\\)",
        ),
        (lambda t: t["summary"][0].update(accuracy="0.5"), "accuracy is '0.5', expected a number"),
        (lambda t: t["summary"][0].update(accuracies=[True]), r"accuracies\[0\] is True"),
        (
            lambda t: t["summary"][0].update(kind="magic"),
            "kind is 'magic', expected one of backbone, reference",
        ),
        (lambda t: t["summary"][0]["measures"].pop("brier"), "nano_a without labels has the meas"),
        (
            lambda t: t["summary"][0]["drawn"].update(kind="magic"),
            "drawn.kind is 'magic', expected one of none",
        ),
        (lambda t: t["summary"][5]["drawn"].update(amount=0.5), "0.5 shots per class"),
        (lambda t: t["measures"]["brier"].update(unit="kg"), "brier.unit is 'kg'"),
    ],
)
def test_what_cannot_be_is_refused_by_name(change, problem):
    with pytest.raises(StoreError, match=f"x.json is no evaluation record .*{problem}"):
        evaluation_from_json(altered(EVALUATION, change), where="x.json")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            lambda t: t["mean"]["matrices"]["disagreement"][0].__setitem__(1, 1.5),
            "mean: disagreement is 1.5, expected a number from 0 to 1",
        ),
        (lambda t: t["mean"]["matrices"]["disagreement"].pop(), "disagreement is not of 2 backb"),
        (lambda t: t["mean"]["pair_means"].pop("q-statistic"), "mean has other measures than"),
        (lambda t: t["datasets"][0].update(oracle=2), "digits: a share of samples is 2"),
    ],
)
def test_diversity_that_cannot_be_is_refused_by_name(change, problem):
    with pytest.raises(StoreError, match=f"x.json is no diversity record .*{problem}"):
        diversity_from_json(altered(DIVERSITY, change), where="x.json")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", r"x.json is no evaluation record .*; delete it and run `clipnlc evaluate.*` again"),
        (b"\xff", "is no evaluation record"),
        ("[]", "is no evaluation record"),
        ("{}", "is no evaluation record"),
        (to_json(DIVERSITY), "has format 'clipnlc-diversity' version 2, expected 'clipnlc-evaluat"),
        (
            to_json(EVALUATION).replace('"format-version": 5', '"format-version": 6'),
            "update clipnlc",
        ),
        ('{"format": "clipnlc-evaluation", "format-version": 2}', "is no evaluation record"),
        ("[" * 100_000, "is no evaluation record"),
        (
            to_json(EVALUATION).replace('"method"', '"name"'),
            r"x.json was altered: .*; delete it and run `clipnlc evaluate.*` again$",
        ),
        (to_json(EVALUATION).replace('"digest"', '"digesT"'), "was altered"),
        # Another spelling of the same number is seen too.
        (to_json(EVALUATION).replace("0.71", "0.71000000000000001"), "was altered"),
        # The older version had no digest, but this one does.
        (to_json(EVALUATION).replace('"format-version": 5', '"format-version": 2'), "was altered"),
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


def test_a_method_better_than_the_oracle_is_read_back():
    """As one that reads features may be: the oracle only picks a backbone."""
    better = replace(EVALUATION.summary[5], accuracy=0.83, gain=0.23, gap_closed=1.15)
    record = replace(EVALUATION, summary=(*EVALUATION.summary[:5], better))
    assert evaluation_from_json(to_json(record), where="x.json") == record
