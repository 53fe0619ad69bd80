"""No printed number hangs on last bits: another machine's features differ by about 1e-6."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command_line import good
from stores_examples import zero_shot_logits

from clipnlc.labels import Labels
from clipnlc.machine import cores
from clipnlc.reports.tables import evaluation_report
from clipnlc.stages.evaluate import evaluate
from clipnlc.stages.train_nlc import train_nlc
from clipnlc.stores.features import read_features
from clipnlc.stores.key import Key
from clipnlc.stores.layout import Layout
from clipnlc.stores.logits import read_logits, write_logits
from clipnlc.stores.shards import Shard, merge_shards, write_shard

NOISE = 1e-6
"""Of each number of the features, relative to it; other order of sums does as much."""

MOST = 0.1
"""How far a printed cell may move."""


def with_noise(layout: Layout) -> None:
    """Disturb all features of a store, and make the zero-shot logits of them again."""
    random = np.random.default_rng(7)
    for dataset in layout.datasets():
        for backbone in layout.logit_backbones(dataset, "zero-shot"):
            inputs, splits = {}, {}
            path = layout.logits(dataset, "zero-shot", backbone)
            store = read_logits(path)
            for split in layout.splits(dataset):
                inputs_of, logits = disturb(layout.features(dataset, split, backbone), random)
                inputs[layout.relative(layout.features(dataset, split, backbone))] = inputs_of
                splits[split] = replace(store.splits[split], logits=logits)
            key = Key.of({**store.key.fields, "inputs": inputs})
            write_logits(path, replace(store, splits=splits, key=key))


def disturb(path: Path, random: np.random.Generator) -> tuple[str, np.ndarray]:
    """Write a feature file with noise; return its digest, and the zero-shot logits."""
    held = read_features(path)
    factors = 1 + NOISE * random.normal(size=held.features.shape)
    noisy = (held.features * factors).astype(held.features.dtype)
    assert not np.array_equal(noisy, held.features)
    whole = Shard(0, len(noisy), noisy, held.labels, held.sample_id, held.skipped)
    write_shard(path, held.key, whole)
    scale, bias = held.logit_scale, held.logit_bias
    digest = merge_shards(
        path,
        held.key,
        rows=len(noisy),
        class_names=held.class_names,
        texts=held.texts,
        logit_scale=scale,
        logit_bias=bias,
    )
    return digest, zero_shot_logits(noisy, held.texts, logit_scale=scale, logit_bias=bias)


def printed(layout: Layout) -> dict[tuple[str, ...], float]:
    """Return every number of the summary, as it is printed, by where it stands."""
    found = {}
    report = evaluation_report(evaluate(store=layout.root))
    for table in (table for table in report.tables if table.title.startswith("summary")):
        for section in table.sections:
            for line in section.lines:
                for column, cell in zip(table.columns, line.cells, strict=True):
                    at = (table.title, section.title, line.name, column)
                    found |= {(*at, "value"): cell.text, (*at, "spread"): cell.spread}
    return {
        at: float(text.replace("±", ""))
        for at, text in found.items()
        if any(c.isdigit() for c in text)
    }


def moved(extracted: Path, folder: Path, **options) -> dict[tuple[str, ...], float]:
    """Fit and measure with and without noise; return how far each printed number moved."""
    layouts = [Layout(Path(shutil.copytree(extracted, folder / name))) for name in ("a", "b")]
    with_noise(layouts[1])
    cells = []
    for layout in layouts:
        train_nlc(store=layout.root, **options)
        cells.append(printed(layout))
    assert cells[0].keys() == cells[1].keys()
    return {at: abs(value - cells[1][at]) for at, value in cells[0].items()}


@pytest.mark.slow
def test_noise_of_a_millionth_moves_no_printed_cell(tmp_path):
    store = tmp_path / "store"
    good("extract", "-q", "-d", "digits,icon_kind", "-b", "nano-resnets", "--store", store)
    found = moved(
        store,
        tmp_path,
        combiners=["vote-1", "conf", "log-avg", "c-log-avg", "static", "super-learner", "nlc"],
        labels=[Labels.shots(1), Labels.shots(8)],
        seeds=(0, 1),
    )
    assert len(found) > 50
    assert not {at: by for at, by in found.items() if by > MOST + 1e-9}


@pytest.mark.long
def test_noise_of_a_millionth_moves_no_cell_of_make_reproduce(tmp_path):
    store = tmp_path / "store"
    good("extract", "-q", "-d", "nano", "-b", "nano", "--store", store)
    found = moved(store, tmp_path, labels=Labels.few(), workers=cores())
    assert len(found) > 300
    assert not {at: by for at, by in found.items() if by > MOST + 1e-9}
