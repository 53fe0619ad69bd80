"""Combiners: the logits (and features) of several backbones become one prediction.

To add one:

1. Write a file here with a subclass of `Combiner`, or of `Weigher` where the result is a weighted
   sum of the backbones' logits (then only `weights` is yours to write). Settings go to `__init__`
   as keywords; what is learnt is set in `_learn`, has a name ending in `_` and is listed in
   `learnt`.
2. Say in its docstring where the definition comes from and what `softmax` of its scores means. Its
   first line is what `clipnlc combiners` and the tables say of it; `selected_on` says on what its
   default settings were chosen.
3. What is no `Weigher` says in `_contributions` what its scores are made of, for `train-nlc
   --explain`.
4. Add one row to `COMBINERS`. The conformance test of the family then covers it. A package of one's own
   declares an entry point of the group `clipnlc.combiners` instead (`docs/plugins.md`).
"""

from typing import Final

from clipnlc.combiners.base import Combiner, Weigher, weigh
from clipnlc.plugins import Plugins
from clipnlc.registry import Registry

__all__ = ["COMBINERS", "RECOMMENDED", "USUAL", "Combiner", "Weigher", "weigh"]

RECOMMENDED: Final = ("gp", "balanced-gp")
"""What `docs/selection.md` chose: by labels only, and with unlabelled images of train."""

USUAL: Final = ("recommended", "parameter-free")
"""Groups that are fitted where none is named: what we recommend, and what it has to be better than
without a label."""

COMBINERS = Registry(
    "combiner",
    {
        "best-single-validation": "clipnlc.combiners.averages:BestSingleValidation",
        "vote-1": "clipnlc.combiners.votes:Vote1",
        "vote-3": "clipnlc.combiners.votes:Vote3",
        "conf": "clipnlc.combiners.confidence:Confidence",
        "log-avg": "clipnlc.combiners.averages:LogitAverage",
        "prob-avg": "clipnlc.combiners.averages:ProbabilityAverage",
        "c-conf": "clipnlc.combiners.confidence:CalibratedConfidence",
        "c-log-avg": "clipnlc.combiners.averages:CalibratedLogitAverage",
        "static": "clipnlc.combiners.static:StaticWeights",
        "gac": "clipnlc.combiners.genetic:GeneticCalibration",
        "super-learner": "clipnlc.combiners.static:SuperLearner",
        "balanced": "clipnlc.combiners.balanced:Balanced",
        "probe": "clipnlc.combiners.probe:Probe",
        "probe-static": "clipnlc.combiners.probe:ProbeStatic",
        "gp": "clipnlc.combiners.gaussian:GaussianProcess",
        "balanced-gp": "clipnlc.combiners.balanced_gp:BalancedGaussianProcess",
        "nlc": "clipnlc.combiners.nlc:NeuralLogitController",
        "moe": "clipnlc.combiners.mixture:MixtureOfExperts",
        "cascade": "clipnlc.combiners.cascade:Cascade",
        "cascade-nlc": "clipnlc.combiners.cascade:NeuralCascade",
        "nlc-shuffled": "clipnlc.combiners.controls:ShuffledInput",
        "nlc-constant": "clipnlc.combiners.controls:ConstantInput",
        "knora-e": "clipnlc.combiners.dynamic:KnoraEliminate",
        "greedy-selection": "clipnlc.combiners.greedy:GreedySelection",
        "neural-ensembler": "clipnlc.combiners.neural_ensembler:NeuralEnsembler",
        "amu": "clipnlc.combiners.fusion:Amu",
        "conf-ot": "clipnlc.combiners.transport:ConfOt",
        "sota-transport": "clipnlc.combiners.transport:SotaTransport",
    },
    groups={
        "recommended": RECOMMENDED,
        "paper": (
            "best-single-validation",
            "vote-1",
            "vote-3",
            "conf",
            "log-avg",
            "c-conf",
            "c-log-avg",
            "gac",
            "super-learner",
            "nlc",
        ),
        "parameter-free": ("vote-1", "vote-3", "conf", "log-avg", "prob-avg"),
        "adaptive": ("moe", "cascade", "cascade-nlc"),
        "baselines": ("probe", "probe-static"),
        "controls": ("static", "nlc-shuffled", "nlc-constant"),
        "rivals": ("knora-e", "greedy-selection", "neural-ensembler", "amu"),
        "transductive": ("conf-ot", "sota-transport"),
    },
    plugins=Plugins("clipnlc.combiners", "combiner", Combiner),
    reserved=("best-single-test", "oracle"),
)
