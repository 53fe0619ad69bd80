"""Records of older versions as today's: JSON in, JSON out.

What a version did not say of its measures is said here, as it was when they were written.
"""

from collections.abc import Mapping
from typing import Any

from clipnlc.labels import Labels

PROTOCOLS = ("no-labels", "shots", "holdout")

ROW_MEASURES: Mapping[str, Mapping[str, Any]] = {
    "accuracy": {
        "title": "accuracy",
        "unit": "%",
        "better": "higher",
        "bounds": [0.0, 1.0],
        "meaning": "share of images whose predicted class is the label",
    },
    "calibration-error": {
        "title": "expected calibration error",
        "unit": "%",
        "better": "lower",
        "bounds": [0.0, 1.0],
        "meaning": "15 bins of confidence, the samples of all data sets in one pool",
    },
    "negative-log-likelihood": {
        "title": "negative log likelihood",
        "unit": "nats",
        "better": "lower",
        "bounds": [0.0, None],
        "meaning": "mean of minus the log probability of the label",
    },
}
"""Of evaluations version 1 and 2."""

PAIR_MEASURES: Mapping[str, tuple[str, str, str, float, str]] = {
    "disagreement": (
        *("disagreement", "disagree", "higher", 0.0),
        "share of images with different predictions",
    ),
    "double-fault": ("double fault", "", "lower", 0.0, "share both get wrong"),
    "error-correlation": (
        *("error correlation", "error corr.", "lower", -1.0),
        "correlation of being right",
    ),
    "q-statistic": ("Q statistic", "Q", "lower", -1.0, "Yule's Q of being right"),
    "kappa": (
        *("Cohen's kappa", "kappa", "lower", -1.0),
        "agreement of the predictions beyond chance",
    ),
    "cka": ("linear CKA of the features", "CKA", "lower", 0.0, "alignment of the features"),
}
"""Of diversity version 1: title, heading, which is diverse, lowest value, meaning."""


def todays_evaluation(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Turn the JSON of an evaluation of version 1 to 4 into today's.

    Raises:
        KeyError, TypeError, ValueError: it is no such record.
    """
    if "methods" in tree:  # version 4 says all of today's, and has no transductive rows
        return dict(tree)
    third = tree if "measures" in tree else _third(tree)
    return {
        **third,
        "methods": {},
        "datasets": [
            {**one, "cluster": one["dataset"], "rows": [_fourth(row) for row in one["rows"]]}
            for one in third["datasets"]
        ],
        "summary": [_fourth(row) for row in third["summary"]],
    }


def _fourth(row: Mapping[str, Any]) -> dict[str, Any]:
    """Turn a row of version 3 into one of 4: what it did not say of its differences is unknown."""
    return {
        **row,
        "unlabelled": 0,
        "shared": None,
        "gain_low": None,
        "gain_high": None,
        "level": [],
    }


def _third(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Turn the JSON of an evaluation of version 1 or 2 into one of version 3."""
    return {
        "published_digest": "",  # version 1 had no published numbers
        **tree,
        "measures": ROW_MEASURES,
        "datasets": [
            {"published": [], **one, "rows": [_row(row) for row in one["rows"]]}
            for one in tree["datasets"]
        ],
        "summary": [_row(row) for row in tree["summary"]],
    }


def todays_diversity(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Turn the JSON of a diversity report of version 1 into today's.

    Raises:
        KeyError, TypeError, ValueError: it is no such record.
    """
    return {
        **tree,
        "measures": {
            name: {
                "title": title,
                "unit": "",
                "better": better,
                "bounds": [low, 1.0],
                "meaning": meaning,
                "heading": heading,
            }
            for name, (title, heading, better, low, meaning) in PAIR_MEASURES.items()
            if name in tree["mean"]["matrices"]
        },
        "correlations": [_drawn(one) for one in tree["correlations"]],
    }


def labels_of(*, protocol: str, shots: int, holdout: float) -> Labels:
    """Return which labels a protocol of the first versions drew, whatever the seed.

    Raises:
        ValueError: there was no such protocol.
        DataError: there were no such shots or hold-outs.

    >>> labels_of(protocol="shots", shots=4, holdout=0.0)
    Labels(kind='shots', amount=4, seed=0)
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol {protocol!r}, expected one of {', '.join(PROTOCOLS)}")
    if protocol == "shots":
        return Labels.shots(shots)
    return Labels.holdout(holdout) if protocol == "holdout" else Labels.none()


def _row(tree: Mapping[str, Any]) -> dict[str, Any]:
    row = _drawn(tree)
    measures = {
        "accuracy": row["accuracy"],
        "calibration-error": row.pop("calibration_error"),
        "negative-log-likelihood": row.pop("nll"),
    }
    return {**row, "measures": measures}


def _drawn(tree: Mapping[str, Any]) -> dict[str, Any]:
    rest = dict(tree)
    drawn = labels_of(**{name: rest.pop(name) for name in ("protocol", "shots", "holdout")})
    return {**rest, "drawn": {"kind": drawn.kind, "amount": drawn.amount}}
