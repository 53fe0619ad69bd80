"""Measures: arrays in, numbers out. Rates are shares in [0, 1], never per cent.

`METRICS` measure scores against labels, `PAIRWISE` compare the backbones with each other; see
`clipnlc.measures` for what a row says.

To add one: write its function in the file of its kind, and add one row to its table. It is then in
every record, table, CSV and picture, and the conformance test of the family covers it. A package of
one's own declares an entry point of the group `clipnlc.measures`, or `clipnlc.pair_measures`, instead
(`docs/plugins.md`).
"""

from typing import Final

import numpy as np
from jaxtyping import Float, Int

from clipnlc.measures import Block, Measure, Measures, PairMeasure, Values
from clipnlc.plugins import Plugins

ACCURACY: Final = "accuracy"

METRICS: Final = Measures(
    {
        ACCURACY: Measure(
            title="accuracy",
            unit="%",
            better="higher",
            bounds=(0.0, 1.0),
            meaning="share of images whose predicted class is the label",
            each="clipnlc.metrics.accuracy:hits",
        ),
        "calibration-error": Measure(
            title="expected calibration error",
            unit="%",
            better="lower",
            bounds=(0.0, 1.0),
            meaning="15 bins of confidence, the samples of all data sets in one pool",
            each="clipnlc.metrics.calibration:confidence",
            total="clipnlc.metrics.calibration:calibration_error",
            pooled=True,
        ),
        "own-calibration-error": Measure(
            title="expected calibration error, mean of each data set's own",
            unit="%",
            better="lower",
            bounds=(0.0, 1.0),
            meaning=(
                "15 bins of confidence within each data set; in one pool, too high a confidence on "
                "one makes up for too low a one on another"
            ),
            each="clipnlc.metrics.calibration:confidence",
            total="clipnlc.metrics.calibration:calibration_error",
        ),
        "class-mean-accuracy": Measure(
            title="class-mean accuracy",
            unit="%",
            better="higher",
            bounds=(0.0, 1.0),
            meaning="the mean over classes of the accuracy within each",
            each="clipnlc.metrics.accuracy:hits",
            total="clipnlc.metrics.accuracy:mean_over_classes",
        ),
        "negative-log-likelihood": Measure(
            title="negative log likelihood",
            unit="nats",
            better="lower",
            bounds=(0.0, None),
            meaning="mean of minus the log probability of the label",
            each="clipnlc.metrics.calibration:surprise",
        ),
        "brier": Measure(
            title="Brier score",
            unit="",
            better="lower",
            bounds=(0.0, 2.0),
            meaning=(
                "mean squared distance of the probabilities from the label's, summed over classes"
            ),
            each="clipnlc.metrics.calibration:squared_distance",
        ),
        "risk-coverage-area": Measure(
            title="area under the risk-coverage curve",
            unit="",
            better="lower",
            bounds=(0.0, 1.0),
            meaning="share of wrong answers among the surest images, mean over how many are kept",
            each="clipnlc.metrics.calibration:confidence",
            total="clipnlc.metrics.selective:risk_under_coverage",
        ),
    },
    plugins=Plugins("clipnlc.measures", "measure", Measure, instances=True),
    reserved=("gflops",),
)

PAIRWISE: Final = Measures(
    {
        "disagreement": PairMeasure(
            title="disagreement",
            unit="",
            better="higher",
            bounds=(0.0, 1.0),
            meaning="share of images with different predictions",
            heading="disagree",
            function="clipnlc.metrics.diversity:disagreement",
        ),
        "double-fault": PairMeasure(
            title="double fault",
            unit="",
            better="lower",
            bounds=(0.0, 1.0),
            meaning="share both get wrong",
            function="clipnlc.metrics.diversity:double_fault",
        ),
        "error-correlation": PairMeasure(
            title="error correlation",
            unit="",
            better="lower",
            bounds=(-1.0, 1.0),
            meaning="correlation of being right",
            heading="error corr.",
            function="clipnlc.metrics.diversity:error_correlation",
        ),
        "q-statistic": PairMeasure(
            title="Q statistic",
            unit="",
            better="lower",
            bounds=(-1.0, 1.0),
            meaning="Yule's Q of being right",
            heading="Q",
            function="clipnlc.metrics.diversity:q_statistic",
        ),
        "kappa": PairMeasure(
            title="Cohen's kappa",
            unit="",
            better="lower",
            bounds=(-1.0, 1.0),
            meaning="agreement of the predictions beyond chance",
            heading="kappa",
            function="clipnlc.metrics.diversity:cohen_kappa",
        ),
        "error-jaccard": PairMeasure(
            title="Jaccard of the errors",
            unit="",
            better="lower",
            bounds=(0.0, 1.0),
            meaning="images both get wrong over those at least one gets wrong",
            heading="error Jaccard",
            function="clipnlc.metrics.diversity:error_jaccard",
        ),
        "cka": PairMeasure(
            title="linear CKA of the features",
            unit="",
            better="lower",
            bounds=(0.0, 1.0),
            meaning="alignment of the features",
            heading="CKA",
            function="clipnlc.metrics.diversity:linear_cka",
            reads="features",
        ),
    },
    plugins=Plugins("clipnlc.pair_measures", "pairwise measure", PairMeasure, instances=True),
)


def sample_values(
    scores: Float[np.ndarray, "samples classes"], labels: Int[np.ndarray, " samples"]
) -> dict[str, Values]:
    """Return what every measure needs of each sample; the same bits whatever the block."""
    block = Block(scores, labels)
    return {name: METRICS.get(name).values(block) for name in METRICS}
