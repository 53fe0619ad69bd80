"""The NLC paper's claims beside what the nano family shows, from the records of a store.

    make reproduce
    clipnlc train-nlc --dataset nano --combiners moe,cascade --shots 1,4,16
    clipnlc train-heads --dataset nano
    clipnlc train-nlc --dataset nano --head linear --holdout 1 --combiners paper,moe,static
    clipnlc evaluate --dataset nano --head linear
    clipnlc train-heads --dataset nano --head tip-adapter --shots 1,4,16
    clipnlc train-nlc --dataset nano --head tip-adapter --shots 1,4,16 --combiners log-avg,nlc
    clipnlc evaluate --dataset nano --head tip-adapter
    clipnlc train-nlc --dataset nano --backbones CHEAP --shots 1,16 --combiners nlc,log-avg
    clipnlc evaluate --dataset nano --backbones CHEAP
    clipnlc evaluate --dataset nano
    python benchmarks/paper_claims.py --store clipnlc-store

where CHEAP is `nano-ViT-B-32,nano-RN50,nano-RN101,nano-ViT-B-16`. Writes the table of
`docs/paper-claims.md`. Every number in its third column follows from the records, and so does the
verdict; the second column is the paper's own, never measured here.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from pages import write_tables

from clipnlc.backbones import resolve
from clipnlc.backbones.costs import image_gflops
from clipnlc.labels import Labels
from clipnlc.metrics.comparisons import cluster_interval
from clipnlc.metrics.intervals import Interval
from clipnlc.reports.record import BEST_SINGLE, ORACLE, DiversityReport, Evaluation
from clipnlc.runs.members import members_name
from clipnlc.runs.records import diversity_path, evaluation_path, read_diversity, read_evaluation
from clipnlc.stores.layout import Layout

CHEAP: Final = ("nano-RN101", "nano-RN50", "nano-ViT-B-16", "nano-ViT-B-32")
PAGE: Final = Path(__file__).parent.parent / "docs/paper-claims.md"
NONE: Final = Labels.none()
HELD_OUT: Final = Labels("holdout", 1.0)


@dataclass(frozen=True)
class Claim:
    """One line of the table.

    Attributes:
        claim: what the paper says, in our words.
        paper: its number.
        here: what came out.
        verdict: whether that agrees.
    """

    claim: str
    paper: str
    here: str
    verdict: str


def shots(amount: int) -> Labels:
    """Return that many labels per class, whatever the seed."""
    return Labels("shots", amount)


def per_set(record: Evaluation, method: str, drawn: Labels) -> np.ndarray:
    """Return the accuracy of a method on every data set, in per cent.

    Raises:
        ValueError: it was not measured on one of them.
    """
    found = []
    for one in record.datasets:
        rows = [r for r in one.rows if r.method == method and r.drawn.setting == drawn.setting]
        if len(rows) != 1:
            raise ValueError(f"no single row of {method} ({drawn.phrase}) on {one.dataset}")
        found.append(100 * rows[0].accuracy)
    return np.array(found)


def difference(record: Evaluation, one: np.ndarray, other: np.ndarray) -> str:
    """Spell the mean difference over the data sets with its paired 95 % interval."""
    interval = interval_of(record, one, other)
    return f"{(one - other).mean():+.1f} ({interval.low:+.1f} to {interval.high:+.1f})"


def interval_of(record: Evaluation, one: np.ndarray, other: np.ndarray) -> Interval:
    """Return the paired interval of the mean difference; sets that share images count as one."""
    return cluster_interval(one - other, [d.cluster for d in record.datasets])


def of_nothing(record: Evaluation) -> list[Claim]:
    """Return the claims about backbones and averages, which read no label."""
    best, oracle = (per_set(record, name, NONE) for name in (BEST_SINGLE, ORACLE))
    gain = oracle - best
    names = [one.dataset for one in record.datasets]
    order = np.argsort(-gain)
    shown = ", ".join(f"{names[i]} {gain[i]:.1f}" for i in order)
    average = per_set(record, "log-avg", NONE)
    return [
        Claim(
            "The oracle gains far more over the best single backbone on some sets than on others",
            "EUROSAT 43.5, CLEVR 36.0, CUB 25.1, DTD 21.8, CIFAR100 16.6, CARS 16.0",
            f"{shown}; mean {gain.mean():.1f}",
            "holds" if gain.max() > 3 * gain.min() else "does not hold",
        ),
        Claim(
            "Averages and votes without labels gain about nothing over the best single backbone",
            "about 0",
            f"LOG-AVG {difference(record, average, best)}",
            "holds" if (average - best).mean() < 1 else "does not hold",
        ),
    ]


def of_families(report: DiversityReport) -> Claim:
    """Return the claim about diversity within and between architectures."""
    names = report.backbones
    vit = np.array(["ViT" in name for name in names])
    matrices = [np.array(one.matrices["disagreement"], dtype=float) for one in report.datasets]
    mean = np.mean(matrices, axis=0)
    upper = np.triu(np.ones_like(mean, dtype=bool), 1)
    same = mean[upper & (vit[:, None] == vit)].mean()
    mixed = mean[upper & (vit[:, None] != vit)].mean()
    return Claim(
        "Backbones of different architectures differ more than those of one",
        "shown as figures",
        f"pairs of one family disagree on {100 * same:.0f} % of images, a ResNet and a ViT on "
        f"{100 * mixed:.0f} %",
        "holds" if mixed > same else "does not hold",
    )


def of_nlc(record: Evaluation, report: DiversityReport) -> list[Claim]:
    """Return the claims about NLC on zero-shot heads."""
    best = per_set(record, BEST_SINGLE, NONE)
    names = [one.dataset for one in record.datasets]
    by_shots = {k: per_set(record, "nlc", shots(k)) for k in (1, 16, 32)}
    most = int(np.argmax(by_shots[32] - best))
    below = {
        k: [n for n, d in zip(names, v - best, strict=True) if d < 0] for k, v in by_shots.items()
    }
    low = interval_of(record, by_shots[32], best).low
    correlations = {(one.measure, one.drawn.setting): one.rho for one in report.correlations}
    oracle = correlations["oracle-gain", shots(32).setting]
    assert oracle is not None
    averages = per_set(record, "log-avg", NONE)
    static = {k: per_set(record, "static", shots(k)) for k in (1, 16)}
    return [
        Claim(
            "NLC beats the best single backbone on average",
            "+9.1, at most +39.1",
            f"{difference(record, by_shots[1], best)} at 1 label per class, "
            f"{difference(record, by_shots[32], best)} at 32; at most "
            f"{(by_shots[32] - best)[most]:+.1f} ({names[most]})",
            "holds at 32 labels" if low > 0 else "holds in the mean, its interval includes 0",
        ),
        Claim(
            "NLC is never below the best single backbone",
            "never",
            "; ".join(
                f"below on {len(v)} of {len(names)} sets at {k}"
                + (f" ({', '.join(v)})" if v else "")
                for k, v in below.items()
            ),
            "does not hold" if any(below.values()) else "holds",
        ),
        Claim(
            "One label per class is enough, more help NLC little",
            "flat up to 32",
            f"{by_shots[1].mean():.1f}, {by_shots[16].mean():.1f}, {by_shots[32].mean():.1f} % at 1, "
            f"16, 32; LOG-AVG {averages.mean():.1f}",
            "does not hold"
            if (by_shots[32] - by_shots[1]).mean() > (by_shots[1] - averages).mean()
            else "holds",
        ),
        Claim(
            "The gain comes from weights that adapt to the image",
            "no control published",
            f"NLC minus static weights on the same labels {difference(record, by_shots[1], static[1])} "
            f"at 1, {difference(record, by_shots[16], static[16])} at 16",
            "does not hold at 1, holds at 16"
            if interval_of(record, by_shots[1], static[1]).low <= 0
            and interval_of(record, by_shots[16], static[16]).low > 0
            else "not separable at 1 and 16"
            if interval_of(record, by_shots[16], static[16]).low <= 0
            else "holds",
        ),
        Claim(
            "NLC gains most where backbones are diverse",
            "correlated",
            f"rank correlation of the oracle's gain with NLC's: {oracle:.2f} at 32",
            "holds at 32 labels" if oracle > 0.6 else "does not hold",
        ),
    ]


def of_linear(record: Evaluation) -> list[Claim]:
    """Return the claims about trained linear heads."""
    best = per_set(record, BEST_SINGLE, NONE)
    nlc, learner, moe = (
        per_set(record, name, HELD_OUT) for name in ("nlc", "super-learner", "moe")
    )
    tie = interval_of(record, nlc, learner)
    return [
        Claim(
            "With linear heads NLC and Super Learner gain little, and the same",
            "+1.6 both",
            f"NLC {difference(record, nlc, best)}, Super Learner "
            f"{difference(record, learner, best)}, NLC minus Super Learner "
            f"{difference(record, nlc, learner)}",
            "holds" if tie.low <= 0 <= tie.high else "does not hold",
        ),
        Claim(
            "MoE on linear heads is unstable: large gains on some sets, large losses on others",
            "+20.8 at best, -20.9 at worst",
            f"{(moe - best).max():+.1f} at best, {(moe - best).min():+.1f} at worst, mean "
            f"{(moe - best).mean():+.1f}",
            "holds" if (moe - best).min() < -10 else "does not hold: see below",
        ),
    ]


def of_tip_adapter(zero_shot: Evaluation, tip: Evaluation) -> list[Claim]:
    """Return the claims about few-shot heads."""
    claims = []
    alone = np.array(
        [
            max(
                100 * row.accuracy
                for row in one.rows
                if row.kind == "backbone" and row.drawn.setting == shots(16).setting
            )
            for one in tip.datasets
        ]
    )
    nlc, average = (per_set(tip, name, shots(16)) for name in ("nlc", "log-avg"))
    gain = nlc - alone
    names = [one.dataset for one in tip.datasets]
    most = int(np.argmax(gain))
    claims.append(
        Claim(
            "NLC on nine Tip-Adapters beats one Tip-Adapter",
            "more than 15 on EUROSAT, 16 labels",
            f"over the best of nine, chosen on test, at 16: {difference(tip, nlc, alone)}; at most "
            f"{gain[most]:+.1f} ({names[most]})",
            "holds" if interval_of(tip, nlc, alone).low > 0 else "not separable",
        )
    )
    claims.append(
        Claim(
            "... and a plain average of nine Tip-Adapters (which the paper does not show)",
            "not published",
            f"NLC minus LOG-AVG on the same heads at 16: {difference(tip, nlc, average)}",
            "holds" if interval_of(tip, nlc, average).low > 0 else "not separable",
        )
    )
    one = per_set(zero_shot, "nlc", shots(1))
    tips = np.array(
        [
            np.mean(
                [
                    100 * row.accuracy
                    for row in each.rows
                    if row.kind == "backbone" and row.drawn.setting == shots(1).setting
                ]
            )
            for each in tip.datasets
        ]
    )
    claims.append(
        Claim(
            "NLC of nine backbones at one label per class beats Tip-Adapter on one",
            "78.2 against 61.3 (Tip-Adapter-F)",
            f"{one.mean():.1f} against {tips.mean():.1f} (Tip-Adapter, mean of the nine)",
            "holds" if one.mean() > tips.mean() else "does not hold",
        )
    )
    return claims


def of_cost(everything: Evaluation, cheap: Evaluation) -> list[Claim]:
    """Return the claims about cost."""
    best = per_set(everything, BEST_SINGLE, NONE)
    nlc = {k: per_set(cheap, "nlc", shots(k)) for k in (1, 16)}
    spent, whole = sum(map(image_gflops, CHEAP)), sum(map(image_gflops, everything.backbones))
    rows = [
        row
        for row in everything.summary
        if row.method == "cascade" and row.drawn.setting == shots(16).setting
    ]
    average = per_set(everything, "log-avg", NONE)
    cascade = per_set(everything, "cascade", shots(16))
    share = rows[0].measures["gflops"]
    assert share is not None
    return [
        Claim(
            "The four cheapest backbones with NLC beat the best single one, for less computing",
            "more accurate with 300 GFLOPs less",
            f"{difference(everything, nlc[1], best)} at 1 label, "
            f"{difference(everything, nlc[16], best)} at 16, for {100 * spent / whole:.0f} % of the "
            "nine's operations",
            "holds" if interval_of(everything, nlc[16], best).low > 0 else "not separable",
        ),
        Claim(
            "A cascade saves computing",
            "shown as a figure",
            f"thresholds chosen on 16 labels: {100 * share / whole:.0f} % of the operations, and "
            f"{difference(everything, cascade, average)} against LOG-AVG of all",
            "holds, for less accuracy"
            if interval_of(everything, cascade, average).high < 0
            else "holds"
            if share < whole
            else "does not hold",
        ),
    ]


UNTESTED: Final = (
    ("Inference takes 5 to 34 times that of single backbones", "5x to 34x"),
    ("Mixing pre-training sets or epochs adds less diversity than mixing architectures", "figures"),
    ("Backbones react differently to perturbations of the image", "figures"),
    ("Retrieval has the same potential", "figures"),
)


def markdown(claims: Sequence[Claim]) -> str:
    """Return the table."""
    lines = ["| the paper says | its number | here | verdict |", "|---|---|---|---|"]
    lines += [f"| {c.claim} | {c.paper} | {c.here} | **{c.verdict}** |" for c in claims]
    lines += [f"| {claim} | {paper} | | **not tested here** |" for claim, paper in UNTESTED]
    return "\n".join(lines)


def main() -> None:
    """Write the table of the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", type=Path, required=True)
    layout = Layout(parser.parse_args().store)
    nine = members_name([backbone.name for backbone in resolve(["nano"])])
    records = {
        head: read_evaluation(layout, evaluation_path(layout, head, nine, dataset=None))
        for head in ("zero-shot", "linear", "tip-adapter")
    }
    place = evaluation_path(layout, "zero-shot", members_name(CHEAP), dataset=None)
    cheap = read_evaluation(layout, place)
    report = read_diversity(layout, diversity_path(layout, "zero-shot", nine))
    zero_shot = records["zero-shot"]
    claims = [
        *of_nothing(zero_shot),
        of_families(report),
        *of_nlc(zero_shot, report),
        *of_linear(records["linear"]),
        *of_tip_adapter(zero_shot, records["tip-adapter"]),
        *of_cost(zero_shot, cheap),
    ]
    write_tables(PAGE, markdown(claims))
    print(markdown(claims))


if __name__ == "__main__":
    main()
