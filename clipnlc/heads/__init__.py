"""Heads: the features of one backbone become logits.

To add one:

1. Write a file here with a subclass of `Head`. Settings go to `__init__` as keywords; what is
   learnt is set in `fit`, has a name ending in `_` and is listed in `learnt`.
2. Add one row to `HEADS`. The conformance test of the family then covers it.
"""

from clipnlc.heads.base import Head
from clipnlc.registry import Registry

__all__ = ["HEADS", "Head"]

HEADS = Registry(
    "head",
    {
        "zero-shot": "clipnlc.heads.zero_shot:ZeroShotHead",
        "linear": "clipnlc.heads.linear:LinearHead",
    },
)
