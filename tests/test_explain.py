"""`train-nlc --explain`: shares and weights of new and cached fits, as tables and as JSON."""

import json

import pytest

from clipnlc.labels import Labels
from clipnlc.reports.explained import (
    MOST_CLASSES,
    ClassWeights,
    Explained,
    explained_report,
    short_names,
)
from clipnlc.reports.terminal import console, show

NINE = [
    *("nano-RN101", "nano-RN50", "nano-RN50x16", "nano-RN50x4", "nano-RN50x64"),
    *("nano-ViT-B-16", "nano-ViT-B-32", "nano-ViT-L-14", "nano-ViT-L-14-336"),
]


def test_a_cached_fit_says_how_it_decides(here, fitted):
    words = ("train-nlc", "--combiners", "gp,log-avg,nlc", "--shots", 2, "--seeds", 2)
    fit = (*words, "--workers", 1, "--store", fitted)
    assert here(*fit).code == 0
    said = here(*fit, "--explain", "--json")
    assert said.code == 0, said
    found = json.loads(said.out)
    assert not any(run["combiners"] for run in found["runs"])
    assert sorted((one["combiner"], one["which"]["seed"]) for one in found["explained"]) == [
        *(("gp", 0), ("gp", 1), ("log-avg", 0), ("nlc", 0), ("nlc", 1))
    ]
    for one in found["explained"]:
        assert sum(one["shares"].values()) == pytest.approx(1)
        assert ("kernel" in one["shares"]) == (one["combiner"] == "gp")
        assert len(one["by_class"]) == 3 * (one["combiner"] == "nlc")
        assert set(one["weights"]) == {"nano-RN50", "nano-ViT-B-16"}
    (plain,) = (one for one in found["explained"] if one["combiner"] == "log-avg")
    assert list(plain["weights"].values()) == [0.5, 0.5]
    shown = here(*fit, "--explain")
    assert shown.code == 0, shown
    for part in ("shares in the decision", "weights of nlc at 2 per class", "gp 2", "kernel"):
        assert part in shown.out


def row(combiner, *, shots, seed=0, by_class=()):
    shares = dict.fromkeys(NINE, 1 / 9 - 0.01) | {"kernel": 0.09}
    weights = dict.fromkeys(NINE, 0.1)
    return Explained(
        "birds", combiner, Labels.shots(shots, seed=seed), 500, shares, weights, by_class
    )


def test_nine_backbones_fit_80_columns(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    classes = [f"a bird with a long name, number {number}" for number in range(MOST_CLASSES + 5)]
    tables = [
        tuple(
            ClassWeights(name, dict.fromkeys(NINE, weight) if name != classes[1] else {})
            for name in classes
        )
        for weight in (1.25, 1.75)
    ]
    rows = [row("balanced-gp", shots=k) for k in (1, 2, 4, 8, 16)]
    rows += [row("nlc", shots=4, seed=seed, by_class=table) for seed, table in enumerate(tables)]
    show(explained_report("birds", rows), console())
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert sum("a bird with a lon…" in line for line in lines) == MOST_CLASSES
    assert " and 5 more classes, with --json" in lines
    text = "\n".join(lines)
    assert text.count("nano-ViT-L-14-336") == text.count("kernel") >= 1
    cells = [line.split("…")[1].split() for line in lines if "a bird with a lon…" in line]
    assert cells[0] == ["1.50"] * 9  # the mean over seeds
    assert cells[1] == ["-"] * 9  # no image of it


def test_short_names_stay_apart():
    short = short_names(NINE)
    assert len(set(short)) == 9
    assert max(len(word) for name in short for word in name.split()) <= 5
    assert short_names(["RN50.openai", "RN50.yfcc15m"]) == ["RN50.openai", "RN50.yfcc15m"]
