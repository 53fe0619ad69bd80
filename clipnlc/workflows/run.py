"""From labelled photos to a fitted ensemble and its accuracy: extract, train-nlc, evaluate, diversity.

Where only some photos have labels, or the command `label` drew them all, there is no test split: all
labels are fitted on, and the accuracy is estimated by cross-fitting on them (`stages.cross_fit`).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from clipnlc.combiners import USUAL
from clipnlc.datasets.division import check_share
from clipnlc.datasets.images import ImageError
from clipnlc.datasets.recognition import Recognised, recognise
from clipnlc.extraction.inputs import open_datasets
from clipnlc.extraction.request import Request
from clipnlc.labels import Labels
from clipnlc.reports.progress import Advance
from clipnlc.reports.record import DiversityReport, Evaluation
from clipnlc.runs.cross_fitting import CrossFitted
from clipnlc.stages.cross_fit import cross_fitted
from clipnlc.stages.diversity import diversity
from clipnlc.stages.evaluate import evaluate
from clipnlc.stages.extract import Outcome, Watch, extract
from clipnlc.stages.train_nlc import FittedRun, train_nlc
from clipnlc.workflows.checking import name_unreadable, refuse_one_class

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
        evaluation: of the test images; None without a test split.
        diversity: likewise; None of a single backbone, too.
        estimate: the accuracy estimated on the labels that were fitted on; None where there is a
            test split.
    """

    dataset: str
    recognised: Recognised
    method: str
    extracted: tuple[Outcome, ...]
    fitted: tuple[FittedRun, ...]
    evaluation: Evaluation | None
    diversity: DiversityReport | None
    estimate: CrossFitted | None


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
    check_share(request.test_share)
    (found,) = open_datasets(replace(request, test_share=None))
    recognised = recognise(
        found, image_column=request.image_column, label_column=request.label_column
    )
    if not (recognised.is_divided or recognised.is_own_judge) and request.test_share is None:
        request = replace(request, test_share=TEST_SHARE)
    tell(recognised.sentence(request.test_share))
    refuse_one_class(request, found, recognised.splits)
    try:
        extracted = extract(request, watch=watch)
    except ImageError as error:
        raise name_unreadable(request, error, advance) from error
    splits = {outcome.split for outcome in extracted}
    members = tuple(dict.fromkeys(outcome.backbone for outcome in extracted))
    method, combiners = METHOD, list(USUAL)
    if "train" not in splits:
        method, combiners = WITHOUT_TRAIN, ["parameter-free"]
    fitted = train_nlc(
        store=request.store,
        dataset=[found.key],
        backbones=members,
        combiners=combiners,
        labels=(LABELS,),
        seeds=(0,),
        on_progress=lambda one, done, of: advance("fits", done, of, one.which.name),
    )
    ran = Ran(
        dataset=found.key,
        recognised=recognised,
        method=method,
        extracted=tuple(extracted),
        fitted=tuple(fitted),
        evaluation=None,
        diversity=None,
        estimate=None,
    )
    if "test" in splits:
        return _measured(ran, request, members, advance)
    advance("cross-fitting", 0, None, "")
    estimate = cross_fitted(
        store=request.store,
        dataset=found.key,
        which=LABELS,
        combiner=method,
        backbones=members,
        drawn=recognised.chosen is None,
    )
    return replace(ran, estimate=estimate)


def _measured(ran: Ran, request: Request, members: tuple[str, ...], advance: Advance) -> Ran:
    """Measure on the test images."""
    evaluation = evaluate(
        store=request.store,
        datasets=[ran.dataset],
        backbones=members,
        on_progress=lambda name, done, of: advance(f"images of {name}", done, of, ""),
    )
    if len(members) == 1:
        return replace(ran, evaluation=evaluation)
    compared = diversity(
        store=request.store,
        datasets=[ran.dataset],
        backbones=members,
        on_progress=lambda done, of: advance("diversity", done, of, ""),
    )
    return replace(ran, evaluation=evaluation, diversity=compared)
