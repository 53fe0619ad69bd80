"""Measure one distilled backbone against its controls on folds of the training pools.

In each round (see `pools`), labels are drawn from three folds, whose images are the unlabelled ones
too. The teacher, an ensemble of all backbones, is fitted on them; each backbone learns the teacher's
probabilities of the same images, and is measured on the fourth fold. The controls are fitted on the
same images and labels with that backbone alone. No test image is read.

    python benchmarks/distilled.py --store clipnlc-store --out docs/distilled.md

Needs a store with features and zero-shot logits of the train splits (`clipnlc extract`).
"""

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from pages import write_tables
from pools import Round, rounds
from threadpoolctl import threadpool_limits

from clipnlc.combiners import COMBINERS
from clipnlc.datasets.nano import KEYS
from clipnlc.ensemble import Ensemble
from clipnlc.fitting import softmax
from clipnlc.heads.distilled import DistilledHead
from clipnlc.heads.rla import RegularisedLinearAdapter
from clipnlc.labels import Labels
from clipnlc.metrics.comparisons import cluster_interval
from clipnlc.stores.features import read_feature_columns
from clipnlc.stores.layout import Layout

SHOTS = (0, 1, 4)
CLUSTERS = {"emoji_group": "emoji", "emoji_kind": "emoji"}
TEACHER = "teacher"

COLUMNS = {
    "zero-shot": "the backbone as it is",
    "balanced": "debiased: `balanced` of that backbone",
    "gp": "the same labels alone: `gp`",
    "rla": "the same labels alone: `rla`",
    "balanced-gp": "the same labels and images: `balanced-gp` of that backbone",
    "distilled": "distilled",
}
CONTROLS = ("balanced", "gp", "rla", "balanced-gp")

Scores = dict[str, dict[str, float]]
"""Accuracy in percent, by backbone and method; the teacher's is by its own name."""


def measure(store: Path, dataset: str, one: Round, shots: int) -> Scores:
    """Return the accuracies of one round."""
    which = Labels.shots(shots) if shots else Labels.none()
    drawn, labels = one.draw(which)
    teacher = COMBINERS.get("balanced-gp" if shots else "balanced")(seed=one.number)
    teacher.fit(drawn, labels, one.pool)
    targets = softmax(teacher.combine(one.pool))
    found = {TEACHER: {TEACHER: _right(teacher.combine(one.judge), one)}}
    for number, backbone in enumerate(one.pool.backbones):
        texts = _texts(store, dataset, backbone)
        student = DistilledHead().fit(
            features=one.pool.features[number],
            labels=np.zeros(len(targets), dtype=np.int64),
            sample_id=one.pool.sample_id,
            targets=targets,
            **texts,
        )
        judge = one.judge.features[number]
        found[backbone] = {
            "zero-shot": _right(one.judge.logits[number], one),
            "distilled": _right(student.logits(judge), one),
            **_controls(one, number, drawn, labels),
        }
        if shots:
            adapter = RegularisedLinearAdapter().fit(
                features=drawn.features[number],
                labels=labels,
                sample_id=drawn.sample_id,
                **texts,
            )
            found[backbone]["rla"] = _right(adapter.logits(judge), one)
    return found


def _texts(store: Path, dataset: str, backbone: str) -> dict[str, Any]:
    """Return the arguments of a fit that say what the backbone's texts are."""
    found = read_feature_columns(Layout(store).features(dataset, "train", backbone))
    return {
        "texts": found.texts,
        "logit_scale": found.logit_scale,
        "logit_bias": found.logit_bias,
    }


def _controls(
    one: Round, number: int, drawn: Ensemble, labels: Int[np.ndarray, " drawn"]
) -> dict[str, float]:
    """Return the accuracies of combiners of that backbone alone."""
    alone = np.array([number])
    names = ("balanced", "gp", "balanced-gp") if len(labels) else ("balanced",)
    found = {}
    for name in names:
        combiner = COMBINERS.get(name)(seed=one.number)
        combiner.fit(drawn.members(alone), labels, one.pool.members(alone))
        found[name] = _right(combiner.combine(one.judge.members(alone)), one)
    return found


def _right(scores: Float[np.ndarray, "samples classes"], one: Round) -> float:
    return 100 * float((scores.argmax(axis=1) == one.truth).mean())


Results = Mapping[str, Mapping[str, list[Scores]]]
"""By set and shots, one of each round."""


def per_set(results: Results, shots: int, backbone: str, method: str) -> list[float]:
    """Return the mean over rounds of every set."""
    return [
        float(np.mean([scores[backbone][method] for scores in by[str(shots)]]))
        for by in results.values()
    ]


def page(results: Results) -> Iterator[str]:
    """Yield the lines of the page's tables."""
    sets = list(results)
    clusters = [CLUSTERS.get(name, name) for name in sets]
    first = results[sets[0]][str(SHOTS[0])]
    backbones = [name for name in first[0] if name != TEACHER]
    yield f"{len(sets)} sets, {len(first)} rounds, {len(backbones)} backbones; accuracy in percent."
    yield ""
    for shots in SHOTS:
        names = [m for m in COLUMNS if m in results[sets[0]][str(shots)][0][backbones[0]]]
        values = {m: {b: per_set(results, shots, b, m) for b in backbones} for m in names}
        mean = {m: np.mean(list(values[m].values()), axis=0) for m in names}
        teacher = np.mean(per_set(results, shots, TEACHER, TEACHER))
        title = f"{shots} label{'s' * (shots != 1)} per class" if shots else "No labels"
        yield f"## {title} (teacher {teacher:.1f})"
        yield ""
        yield "| backbone | " + " | ".join(COLUMNS[m] for m in names) + " |"
        yield "|---" * (len(names) + 1) + "|"
        for backbone in backbones:
            cells = (f"{np.mean(values[m][backbone]):.1f}" for m in names)
            yield f"| {backbone} | " + " | ".join(cells) + " |"
        yield "| **mean** | " + " | ".join(f"**{mean[m].mean():.1f}**" for m in names) + " |"
        yield ""
        for control in (m for m in CONTROLS if m in names):
            found = cluster_interval(mean["distilled"] - mean[control], clusters)
            lost = [
                b
                for b in backbones
                if np.mean(values["distilled"][b]) <= np.mean(values[control][b])
            ]
            worse = [
                s for s, d in zip(sets, mean["distilled"] - mean[control], strict=True) if d < 0
            ]
            yield (
                f"- Distilled minus {COLUMNS[control]}: {found.centre:+.1f} "
                f"({found.low:+.1f} to {found.high:+.1f}). "
                f"Backbones that do not gain: {', '.join(lost) or 'none'}. "
                f"Sets whose mean over backbones is lower: {', '.join(worse) or 'none'}."
            )
        yield ""


def main() -> None:
    """Measure every set and write the page; what RESULTS holds is not measured again."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", type=Path, default=Path("clipnlc-store"))
    parser.add_argument("--out", type=Path, default=Path("docs/distilled.md"))
    parser.add_argument("--results", type=Path, default=Path("build/distilled.json"))
    parser.add_argument("--rounds", type=int, default=4)
    options = parser.parse_args()
    options.results.parent.mkdir(parents=True, exist_ok=True)
    results = json.loads(options.results.read_text("utf-8")) if options.results.exists() else {}
    with threadpool_limits(1):
        for dataset in KEYS:
            if dataset in results:
                continue
            by: dict[str, list[Scores]] = {str(shots): [] for shots in SHOTS}
            for one in rounds(options.store, dataset):
                if one.number >= options.rounds:
                    break
                for shots in SHOTS:
                    by[str(shots)].append(measure(options.store, dataset, one, shots))
            results[dataset] = by
            options.results.write_text(json.dumps(results), "utf-8")
            print(dataset, flush=True)
    lines = "\n".join(page(results))
    write_tables(options.out, lines)
    print(lines)


if __name__ == "__main__":
    main()
