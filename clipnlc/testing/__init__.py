"""Conformance suites: what every member of a family must do, own or foreign.

`check_combiner(MyCombiner)` runs all checks of the family on a class; `COMBINER_CHECKS` are the
single ones, for one test each. A check raises AssertionError with what was expected.
"""

from clipnlc.testing.combiners import COMBINER_CHECKS, check_combiner, example

__all__ = ["COMBINER_CHECKS", "check_combiner", "example"]
