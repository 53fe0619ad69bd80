"""The claims of the confirmation against numbers that are known."""

import csv

import pytest
from benchmark_scripts import loaded

SETS = ("a", "b", "c")


@pytest.fixture(scope="module")
def claims():
    with loaded("claims") as module:
        yield module


def write(path, claims, **changes):
    """Every method has 60 %, `gp` 70 %, two seeds; `changes` are accuracies of combiners."""
    accuracy = {"gp": 0.7, "log-avg": 0.6, "balanced": 0.65, "balanced-gp": 0.7, **changes}
    methods = {claims.GP, claims.NLC, claims.LOG_AVG, claims.BALANCED, claims.BALANCED_GP}
    methods |= {*claims.RIVALS, claims.OVER_LOG_AVG[1][0]}
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["dataset", "head", "combiner", "labels", "seed", "accuracy", "nll", "ece"])
        for number, dataset in enumerate(SETS):
            for head, combiner in sorted(methods):
                free = combiner in ("log-avg", "balanced") or "declared" in combiner
                for labels in ["no-labels"] if free and head == "zero-shot" else LABELS:
                    for seed, shift in enumerate((-0.02, 0.02)):
                        value = accuracy.get(combiner, 0.6) + 0.01 * number + shift
                        rows.writerow([dataset, head, combiner, labels, seed, value, "", 0.1])


LABELS = [f"{k}-shots" for k in (1, 2, 4, 8, 16)]


def test_what_holds_and_what_does_not(claims, tmp_path):
    write(tmp_path / "c.csv", claims, probe=0.72)
    found = {claim.text: claim for claim in claims.claims(tmp_path / "c.csv")}
    over = found["`gp` over `nlc`, 16 per class"]
    assert (over.held, over.found) == (True, "+10.0 (+10.0 to +10.0)")
    behind = found["`gp` not behind `probe`, at 1, 2, 4, 8, 16"]
    assert not behind.held
    assert behind.found.startswith("-2.0 (-2.0 to -2.0); ")
    assert found["`gp` not behind `nlc` of `tip-adapter-f`, at 1, 2, 4, 8, 16"].held
    assert found["`balanced` over `log-avg`, no label"].found == "+5.0 (+5.0 to +5.0)"
    assert found["`balanced-gp` over `log-avg`, 1 per class"].held
    assert not found["`balanced (uniform declared)` over `log-avg`, no label"].held
    (errors,) = (claim for text, claim in found.items() if "calibration" in text)
    assert not errors.held
    assert errors.found == "10.0 % (10.0 %)"


def test_a_method_of_other_sets_is_refused(claims, tmp_path):
    write(tmp_path / "c.csv", claims)
    lines = (tmp_path / "c.csv").read_text().splitlines(keepends=True)
    kept = [line for line in lines if not line.startswith("b,zero-shot,nlc,")]
    (tmp_path / "c.csv").write_text("".join(kept))
    with pytest.raises(SystemExit, match=r"'nlc'.*are not of the same sets"):
        list(claims.claims(tmp_path / "c.csv"))


def test_the_table_has_a_row_for_every_method_and_none_for_backbones(claims, tmp_path):
    write(tmp_path / "c.csv", claims)
    with (tmp_path / "c.csv").open("a") as file:
        file.write("a,zero-shot,nano-RN50,no-labels,0,0.5,,\n")
    lines = list(claims.table(tmp_path / "c.csv"))
    assert "| zero-shot | gp |  | 71.0 | 71.0 | 71.0 | 71.0 | 71.0 |" in lines
    assert "| zero-shot | log-avg | 61.0 |  |  |  |  |  |" in lines
    assert not any("nano" in line for line in lines)
