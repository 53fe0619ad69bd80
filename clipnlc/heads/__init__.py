"""Heads: the features of one backbone become logits.

To add one:

1. Write a file here with a subclass of `Head`: what it needs as class attributes, settings as
   keywords of `__init__`; what is learnt is set in `_learn`, has a name ending in `_` and is listed
   in `learnt`. `keeps_features` is true where that contains features of images.
2. Add one row to `HEADS`. The conformance suite (`clipnlc.testing.HEAD_CHECKS`) then covers it, and
   `clipnlc train-heads --head NAME` makes its logits. A package of one's own declares an entry point
   of the group `clipnlc.heads` instead (`docs/plugins.md`).
"""

from clipnlc.heads.base import Head
from clipnlc.plugins import Plugins
from clipnlc.registry import Registry

__all__ = ["HEADS", "Head"]

HEADS = Registry(
    "head",
    {
        "zero-shot": "clipnlc.heads.zero_shot:ZeroShotHead",
        "linear": "clipnlc.heads.linear:LinearHead",
        "linear-cv": "clipnlc.heads.linear_cv:CrossValidatedLinearHead",
        "class-mean": "clipnlc.heads.class_mean:ClassMeanHead",
        "linear-few": "clipnlc.heads.linear:LinearHeadOfFewLabels",
        "linear-cv-few": "clipnlc.heads.linear_cv:CrossValidatedLinearHeadOfFewLabels",
        "class-mean-few": "clipnlc.heads.class_mean:ClassMeanHeadOfFewLabels",
        "logistic-few": "clipnlc.heads.logistic:LogisticHead",
        "auto": "clipnlc.heads.auto:AutoHead",
        "clap": "clipnlc.heads.clap:ClassAdaptiveProbe",
        "gda": "clipnlc.heads.gda:GaussianDiscriminant",
        "lp-plus-plus": "clipnlc.heads.lp_plus_plus:LinearProbePlusPlus",
        "rla": "clipnlc.heads.rla:RegularisedLinearAdapter",
        "tip-adapter": "clipnlc.heads.tip_adapter:TipAdapter",
        "tip-adapter-f": "clipnlc.heads.tip_adapter:TipAdapterF",
        "distilled": "clipnlc.heads.distilled:DistilledHead",
    },
    plugins=Plugins("clipnlc.heads", "head", Head),
)
