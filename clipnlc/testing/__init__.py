"""Conformance suites: what every member of a family must do, own or foreign.

`check_combiner(MyCombiner)`, `check_head(MyHead)`, `check_measure(MY_MEASURE)`,
`check_dataset(where_mine_lies)` and `check_family(MyFamily)` run all checks of a kind; `check_package("mine")` runs them on everything that a package declares (`docs/plugins.md`).
`COMBINER_CHECKS`, `HEAD_CHECKS`, `MEASURE_CHECKS` and `PAIR_MEASURE_CHECKS` are the single ones, for one
test each. A check raises AssertionError with what was expected. `clipnlc.testing.experts` draws ensembles in which it is known
where each backbone is competent.

>>> from clipnlc.combiners import COMBINERS
>>> from clipnlc.heads import HEADS
>>> from clipnlc.metrics import METRICS, PAIRWISE
>>> COMBINER_CHECKS[0](COMBINERS.get("log-avg"))
>>> HEAD_CHECKS[0](HEADS.get("class-mean"))
>>> MEASURE_CHECKS[0](METRICS.get("brier"))
>>> PAIR_MEASURE_CHECKS[0](PAIRWISE.get("cka"))
"""

from clipnlc.testing.combiners import COMBINER_CHECKS, check_combiner, example
from clipnlc.testing.datasets import check_dataset
from clipnlc.testing.families import check_family
from clipnlc.testing.heads import HEAD_CHECKS, check_head, labelled_rows
from clipnlc.testing.measures import MEASURE_CHECKS, PAIR_MEASURE_CHECKS, check_measure
from clipnlc.testing.packages import check_package

__all__ = [
    "COMBINER_CHECKS",
    "HEAD_CHECKS",
    "MEASURE_CHECKS",
    "PAIR_MEASURE_CHECKS",
    "check_combiner",
    "check_dataset",
    "check_family",
    "check_head",
    "check_measure",
    "check_package",
    "example",
    "labelled_rows",
]
