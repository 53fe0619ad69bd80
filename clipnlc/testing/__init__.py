"""Conformance suites: what every member of a family must do, own or foreign.

`check_combiner(MyCombiner)` and `check_head(MyHead)` run all checks of a family on a class;
`COMBINER_CHECKS` and `HEAD_CHECKS` are the single ones, for one test each. A check raises
AssertionError with what was expected. `clipnlc.testing.experts` draws ensembles in which it is known
where each backbone is competent.
"""

from clipnlc.testing.combiners import COMBINER_CHECKS, check_combiner, example
from clipnlc.testing.heads import HEAD_CHECKS, check_head, labelled_rows

__all__ = [
    "COMBINER_CHECKS",
    "HEAD_CHECKS",
    "check_combiner",
    "check_head",
    "example",
    "labelled_rows",
]
