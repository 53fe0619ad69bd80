"""Records by hand, for the tests of what is made from a record."""

from dataclasses import replace

from clipnlc.labels import Labels
from clipnlc.metrics import METRICS, PAIRWISE
from clipnlc.reports.record import (
    Correlation,
    DatasetEvaluation,
    Diversity,
    DiversityReport,
    Evaluation,
    Method,
    Row,
    Source,
)

# Those that these records are of: a new one in METRICS changes nothing here.
MEASURES = {
    name: METRICS.get(name).facts
    for name in (
        "accuracy",
        "calibration-error",
        "class-mean-accuracy",
        "negative-log-likelihood",
        "brier",
    )
}
BASE = Row(
    method="nano_a",
    kind="backbone",
    drawn=Labels.none(),
    labels=0,
    unlabelled=0,
    shared=None,
    seeds=(0,),
    accuracies=(0.5,),
    accuracy=0.5,
    low=0.4,
    high=0.6,
    interval="samples",
    gain=-0.1,
    gain_low=None,
    gain_high=None,
    gap_closed=-0.5,
    level=(),
    measures={
        "accuracy": 0.5,
        "calibration-error": 0.2,
        "class-mean-accuracy": 0.45,
        "negative-log-likelihood": 1.25,
        "brier": 0.75,
    },
)
FITTED = replace(
    BASE,
    method="nlc",
    kind="method",
    drawn=Labels.shots(1),
    labels=10,
    shared=0.03,
    level=("accuracy", "brier", "calibration-error"),
    seeds=(0, 1),
    accuracies=(0.7, 0.72),
    accuracy=0.71,
    low=0.69,
    high=0.73,
    interval="images-and-draws",
    gain=0.11,
    gap_closed=0.55,
    measures={
        "accuracy": 0.71,
        "calibration-error": 0.05,
        "class-mean-accuracy": 0.7,
        "negative-log-likelihood": 0.9,
        "brier": 0.5,
    },
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
        measures={**dict.fromkeys(MEASURES), "accuracy": 0.8, "class-mean-accuracy": 0.8},
    ),
    replace(
        BASE,
        method="log-avg",
        kind="method",
        accuracy=0.65,
        gain=0.05,
        gap_closed=0.25,
        level=("accuracy",),
    ),
    FITTED,
    replace(
        FITTED, method="static", kind="control", accuracy=0.7, gain=0.1, gap_closed=0.5, level=()
    ),
    replace(
        FITTED,
        drawn=Labels.holdout(0.1),
        labels=99,
        seeds=(0,),
        accuracies=(0.7,),
        low=None,
        high=None,
        interval="not-estimable",
    ),
)
DIGITS = DatasetEvaluation(
    "digits",
    "digits",
    100,
    10,
    "b",
    ROWS,
    (Source("digits/logits/zero-shot/b.h5", "ab" * 16, 100),),
    ("Odd.",),
)
METHODS = {
    "log-avg": Method("The mean of the logits.", (), "nothing", recommended=False),
    "nlc": Method("Scales.", ("labels",), "nano training pools", recommended=False),
    "static": Method("Constant weights.", ("labels",), "nothing", recommended=False),
}
EVALUATION = Evaluation(
    head="zero-shot",
    split="test",
    backbones=("nano_a", "b"),
    measures=MEASURES,
    methods=METHODS,
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
    measures={name: PAIRWISE.get(name).facts for name in ("disagreement", "q-statistic")},
    datasets=(MEASURED, replace(MEASURED, dataset="emoji")),
    mean=replace(MEASURED, dataset="mean"),
    correlations=(Correlation("oracle-gain", Labels.shots(1), 0.75, 0.1, 3),),
    versions={},
)
