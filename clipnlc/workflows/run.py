"""From labelled photos to a fitted ensemble and its accuracy: extract, train-nlc, evaluate, diversity."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from clipnlc.combiners import USUAL
from clipnlc.datasets.recognition import Recognised, recognise
from clipnlc.extraction.inputs import open_datasets
from clipnlc.extraction.request import Request
from clipnlc.labels import Labels
from clipnlc.reports.progress import Advance
from clipnlc.reports.record import DiversityReport, Evaluation
from clipnlc.stages.diversity import diversity
from clipnlc.stages.evaluate import evaluate
from clipnlc.stages.extract import Outcome, Watch, extract
from clipnlc.stages.train_nlc import FittedRun, train_nlc

METHOD: Final = "balanced-gp"
"""The method that the answer is about, fixed before any test image is seen: see docs/selection.md.
It reads labels and unlabelled images."""

WITHOUT_TRAIN: Final = "log-avg"
"""Likewise, of photos that are all test: it learns from nothing."""

TEST_SHARE: Final = 0.3
"""Share of test where there is no test split, unless another is asked for."""

LABELS: Final = Labels.all()
"""What the method is fitted on: every label of train."""

SILENT: Final = Watch()


@dataclass(frozen=True)
class Ran:
    """What the stages returned.

    Attributes:
        dataset: its name in the store.
        recognised: what the photos are.
        method: the combiner that the answer is about.
        extracted: one per split and backbone.
        fitted: one per run.
        evaluation: of the test images.
        diversity: likewise; None of a single backbone.
    """

    dataset: str
    recognised: Recognised
    method: str
    extracted: tuple[Outcome, ...]
    fitted: tuple[FittedRun, ...]
    evaluation: Evaluation
    diversity: DiversityReport | None


def run(
    request: Request,
    *,
    watch: Watch = SILENT,
    tell: Callable[[str], None] = lambda _: None,
    advance: Advance = lambda *_, **__: None,
) -> Ran:
    """Extract photos, fit the recommended method on every label of train, measure it on test.

    Args:
        request: the photos, one path; a test split is made where there is none.
        watch: progress callbacks of the extraction.
        tell: called with what the photos are, in one line, before anything is done.
        advance: called with how far the stages after the extraction are.

    Raises:
        DataError: the photos cannot be used.
        ClipnlcError: as the stages.
    """
    (found,) = open_datasets(replace(request, test_share=None))
    recognised = recognise(
        found, image_column=request.image_column, label_column=request.label_column
    )
    if recognised.is_undivided and request.test_share is None:
        request = replace(request, test_share=TEST_SHARE)
    tell(recognised.sentence(request.test_share))
    extracted = extract(request, watch=watch)
    names = tuple(dict.fromkeys(outcome.backbone for outcome in extracted))
    method, combiners = METHOD, list(USUAL)
    if not any(outcome.split == "train" for outcome in extracted):
        method, combiners = WITHOUT_TRAIN, ["parameter-free"]
    fitted = train_nlc(
        store=request.store,
        dataset=[found.key],
        backbones=names,
        combiners=combiners,
        labels=(LABELS,),
        seeds=(0,),
        on_progress=lambda one, done, of: advance("fits", done, of, one.which.name),
    )
    evaluation = evaluate(
        store=request.store,
        datasets=[found.key],
        backbones=names,
        on_progress=lambda name, done, of: advance(f"images of {name}", done, of, ""),
    )
    compared = None
    if len(names) > 1:
        compared = diversity(
            store=request.store,
            datasets=[found.key],
            backbones=names,
            on_progress=lambda done, of: advance("diversity", done, of, ""),
        )
    return Ran(
        dataset=found.key,
        recognised=recognised,
        method=method,
        extracted=tuple(extracted),
        fitted=tuple(fitted),
        evaluation=evaluation,
        diversity=compared,
    )
