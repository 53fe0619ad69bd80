"""Measures: arrays in, numbers out. Rates are shares in [0, 1], never per cent.

`METRICS` take `(logits [samples, classes], labels [samples])` and return a float;
`PAIRWISE` take `(predictions [backbones, samples], labels [samples])` and return a symmetric
`[backbones, backbones]` matrix, nan where the measure is undefined.

To add one: write a function in the file of its kind, with the range and the direction in its
docstring, and add one row to its table. The conformance test of the family then covers it.
"""

from clipnlc.registry import Registry

METRICS = Registry(
    "metric",
    {
        "accuracy": "clipnlc.metrics.accuracy:accuracy",
        "class-mean-accuracy": "clipnlc.metrics.accuracy:class_mean_accuracy",
        "calibration-error": "clipnlc.metrics.calibration:expected_calibration_error",
        "negative-log-likelihood": "clipnlc.metrics.calibration:negative_log_likelihood",
        "brier": "clipnlc.metrics.calibration:brier_score",
    },
)

PAIRWISE = Registry(
    "pairwise measure",
    {
        "disagreement": "clipnlc.metrics.diversity:disagreement",
        "double-fault": "clipnlc.metrics.diversity:double_fault",
        "error-correlation": "clipnlc.metrics.diversity:error_correlation",
        "q-statistic": "clipnlc.metrics.diversity:q_statistic",
        "kappa": "clipnlc.metrics.diversity:cohen_kappa",
        "error-jaccard": "clipnlc.metrics.diversity:error_jaccard",
    },
)
