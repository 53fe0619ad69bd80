"""What images take: from the names of backbones to fits, records and tables."""

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from evaluation_examples import BACKBONES, write_backbones

from clipnlc.backbones import GROUPS, parse
from clipnlc.backbones.costs import IMAGE_FLOPS, costs, image_gflops
from clipnlc.errors import DataError, UnknownNameError
from clipnlc.labels import Labels
from clipnlc.reports.answer import answer
from clipnlc.reports.files import evaluation_from_json, to_json
from clipnlc.reports.record import GFLOPS
from clipnlc.reports.spreadsheet import evaluation_csv
from clipnlc.reports.tables import evaluation_report
from clipnlc.runs.spending import gflops_of
from clipnlc.stages.evaluate import evaluate
from clipnlc.stages.train_nlc import train_nlc
from clipnlc.stores.fits import read_fits
from clipnlc.stores.layout import Layout
from clipnlc.stores.logits import read_logits

SHOTS = (Labels.shots(4),)
RN50, B32, B16 = (IMAGE_FLOPS[name] / 1e9 for name in BACKBONES)


@pytest.mark.parametrize("architecture", ["nano-RN50", "nano-ViT-L-14-336", "RN50", "ViT-B-32"])
def test_known_costs_are_those_counted(architecture):
    usual = [*GROUPS["nano"], *GROUPS["all"]]
    assert [*IMAGE_FLOPS] == [parse(name).architecture for name in usual]
    name = architecture if architecture.startswith("nano") else f"{architecture}.openai"
    assert costs(parse(name)).image_flops == IMAGE_FLOPS[architecture]
    assert image_gflops(name) == IMAGE_FLOPS[architecture] / 1e9


def test_the_cost_of_any_architecture_follows_from_its_name():
    small = image_gflops("ViT-S-32-alt.some_tag")
    assert 0 < small < image_gflops("ViT-B-32@mine") == IMAGE_FLOPS["ViT-B-32"] / 1e9
    with pytest.raises(UnknownNameError, match="unknown architecture 'north'"):
        image_gflops("north")


def test_a_cascade_of_unknown_backbones_is_refused_with_the_cure():
    assert gflops_of(["north"], ["nlc", "moe"]) == ()
    expected = (
        "^cascade starts with the cheapest backbone, and what north costs is not known: .*; leave "
        "cascade, cascade-nlc out of --combiners, or the backbone out of --backbones$"
    )
    with pytest.raises(DataError, match=expected):
        gflops_of(["nano-RN50", "north"], ["nlc", "cascade", "cascade-nlc"])


@pytest.fixture
def layout(tmp_path):
    made = Layout(tmp_path)
    write_backbones(made, "digits")
    return made


def train(layout, settings=None, combiners=("cascade", "log-avg")):
    train_nlc(
        store=layout.root, combiners=combiners, labels=SHOTS, seeds=(0, 1), settings=settings or {}
    )


def test_a_record_says_what_images_take_by_hand(layout):
    """Image by image, with the thresholds that were learnt."""
    train(layout)
    evaluated = evaluate(store=layout.root)
    by_seed = []
    for seed in (0, 1):
        run = Labels.shots(4, seed=seed).name
        (path,) = layout.root.glob(f"digits/fits/zero-shot/*/{run}.h5")
        learnt = read_fits(path).fits["cascade"].learnt
        logits = {
            name: read_logits(layout.logits("digits", "zero-shot", name)).splits["test"].logits
            for name in BACKBONES
        }
        assert learnt["order_"].tolist() == [0, 2, 1]  # by name: RN50, ViT-B-16, ViT-B-32
        costs_of_images = []
        for row in range(60):
            cost, total = 0.0, np.zeros(4)
            for stage, (name, its) in enumerate(zip(BACKBONES, (RN50, B32, B16), strict=True)):
                cost += its
                total = total + logits[name][row].astype(float)
                powers = np.exp(total / (stage + 1))
                if stage < 2 and powers.max() / powers.sum() >= learnt["threshold_"][stage]:
                    break
            costs_of_images.append(cost)
        by_seed.append(np.mean(costs_of_images))
    (row,) = [row for row in evaluated.summary if row.method == "cascade"]
    assert row.measures[GFLOPS] == pytest.approx(np.mean(by_seed))
    assert row.measures[GFLOPS] < RN50 + B32 + B16
    assert {r.method for r in evaluated.summary if r.measures[GFLOPS] is not None} == {"cascade"}
    assert evaluated.measures[GFLOPS].bounds == (0.0, pytest.approx(RN50 + B32 + B16))
    assert evaluated.datasets[0].rows == evaluated.summary

    again = evaluation_from_json(to_json(evaluated), where="it")
    assert again == evaluated
    lines = csv.DictReader(io.StringIO(evaluation_csv(evaluated)))
    spent = {line["method"]: line["gflops"] for line in lines}
    assert float(spent["cascade"]) == row.measures[GFLOPS]
    assert spent["log-avg"] == ""
    notes = " ".join(note for table in answer(evaluated).tables for note in table.notes)
    said = f"per image, of {RN50 + B32 + B16:.3g} for all: cascade {row.measures[GFLOPS]:.3g}."
    assert said in notes
    titles = [table.title for table in evaluation_report(evaluated).tables]
    assert any("GFLOPs of the image towers per image, lower is better" in t for t in titles)

    rest = tuple(row for row in evaluated.summary if row.method != "cascade")
    elsewhere = replace(evaluated, summary=rest)  # another data set has no cascade
    assert "for all:" not in str(answer(elsewhere))
    titles = [table.title for table in evaluation_report(elsewhere).tables]
    assert not any("GFLOPs" in title for title in titles)


def test_what_was_given_before_has_the_same_cost(layout):
    train(layout)
    first = evaluate(store=layout.root)
    (record,) = layout.root.glob("digits/records/*.json")
    assert json.loads(record.read_text())["measures"][GFLOPS]["better"] == "lower"
    stamp = record.stat().st_mtime_ns
    assert evaluate(store=layout.root) == first
    assert record.stat().st_mtime_ns == stamp
    record.unlink()
    assert evaluate(store=layout.root) == first


def test_where_every_image_takes_all_nothing_is_said_of_it(layout):
    train(layout, {"cascade": {"thresholds": 1.5}})
    evaluated = evaluate(store=layout.root)
    assert GFLOPS not in evaluated.measures
    assert all(GFLOPS not in row.measures for row in evaluated.datasets[0].rows)
    assert "GFLOPs" not in str(answer(evaluated))
    assert "gflops" not in evaluation_csv(evaluated).split("\n", maxsplit=1)[0]
