"""What stands below tables: sentences that say how to read them."""

from collections.abc import Mapping
from typing import Final

from clipnlc.measures import Facts
from clipnlc.reports.record import Evaluation, IntervalKind

ACCURACY: Final = "accuracy"
"""The measure that rows also hold seed by seed; it has tables of its own."""

PUBLISHED_NOTE = (
    "published: from open_clip's results table, measured by others with CLIP_benchmark's prompts; "
    "in no average here."
)
BEST_SINGLE_NOTE = (
    "best single (on test): the most accurate backbone of each data set, chosen with the very "
    "labels it is measured on, as in the NLC paper; no one can choose so well beforehand."
)
ORACLE_NOTE = (
    "oracle: right where any backbone is right; a bound for picking one backbone per image."
)
CONTROLS_NOTE = (
    "controls: nlc-shuffled reads another image's features, nlc-constant reads none, static is one "
    "weight per backbone; a gain that they show too is not owed to looking at the image."
)
TRANSDUCTIVE_NOTE = (
    "read the test images themselves: they see all images that they predict together (no label), "
    "and take the classes to be equally common among them; comparable with no other row."
)
SHOTS_NOTE = (
    "shots: labelled images per class, drawn from the training split anew for each seed; "
    "labels used: all classes (and data sets) together."
)
INTERVAL_NOTES: Mapping[IntervalKind, str] = {
    "samples": (
        "± without labels, on single data sets: half the 95 % interval over the test images (Wilson)."
    ),
    "images": (
        "± without labels, over data sets: half the 95 % interval over the test images of these "
        "very data sets (bootstrap)."
    ),
    "images-and-draws": (
        "± with labels: half the 95 % interval over the test images (bootstrap) and the draws of "
        "labels (Student's t) together."
    ),
    "not-estimable": (
        "±?: the draw variance is not estimable, for there is one draw, or two draws are expected to "
        "share half of their labels or more."
    ),
    "seeds": "± with labels: half the 95 % interval over the seeds (Student's t).",
}
SHARED_IMAGES_NOTE = "Data sets that share images count as one."
LEVEL_NOTE = (
    "Bold or starred: not separable from the best of its column, controls included, among all that "
    "never saw a test label: the 95 % interval of the paired difference includes zero. On one data "
    "set it is over images and draws, for accuracy, likelihood and Brier score; over several it is "
    "over the data sets, those that share images as one, for all but the pooled error. Elsewhere the "
    "best alone is marked. ± of a gain is of such a difference."
)
ASSUMED_NOTE = (
    "country211 is in the summary: the NLC paper speaks of 21 data sets and names 20, and this one "
    "as the 21st is our assumption."
)


def explanations(evaluation: Evaluation) -> tuple[str, ...]:
    """Say what must be known to read the tables of an evaluation."""
    seeds = sorted({len(r.seeds) for r in evaluation.summary if r.drawn.kind != "none"})
    every = [*evaluation.summary, *(r for one in evaluation.datasets for r in one.rows)]
    kinds = {row.interval for row in every}
    counted = " or ".join(str(count) for count in seeds)
    notes = [BEST_SINGLE_NOTE, ORACLE_NOTE]
    if any(row.kind == "control" for row in evaluation.summary):
        notes.append(CONTROLS_NOTE)
    if any(row.kind == "transductive" for row in every):
        notes.append(TRANSDUCTIVE_NOTE)
    if seeds:
        draws = f"{counted} seed{'' if seeds == [1] else 's'}"
        notes.append(f"{SHOTS_NOTE} Mean over {draws}.")
    notes += [note for kind, note in INTERVAL_NOTES.items() if kind in kinds]
    notes += [f"{facts.title}: {facts.meaning}." for facts in further(evaluation).values()]
    notes += data_notes(evaluation)
    if any(row.level for row in every):
        notes.append(LEVEL_NOTE)
    return tuple(notes)


def data_notes(evaluation: Evaluation) -> list[str]:
    """Say what must be known of the data sets and heads to read any number."""
    notes = []
    if len(evaluation.datasets) > 1 and "country211" in (d.dataset for d in evaluation.datasets):
        notes.append(ASSUMED_NOTE)
    backbones = [r for d in evaluation.datasets for r in d.rows if r.kind == "backbone"]
    if any(row.unlabelled for row in backbones):
        notes.append(
            f"The {evaluation.head} heads learnt the answers of a teacher, which had these labels and "
            "sees other backbones too, on images of train without their labels. Best single and "
            "oracle: zero-shot heads."
        )
    elif evaluation.head == "auto":
        alone = {row.method for row in backbones if row.drawn.kind == "none"}
        fitted = [name for name in evaluation.backbones if name not in alone]
        if fitted:
            notes.append(
                f"{', '.join(fitted)} without texts or logits: a head fitted on the same labels as "
                "what combines it; combiners learn from cross-fitted logits. Best single and oracle: "
                "the other backbones."
            )
    elif {row.drawn.kind for row in backbones} - {"none"}:
        notes.append(
            f"The {evaluation.head} heads were fitted on the same labels as what combines them; "
            "combiners learn from cross-fitted logits. Without labels, best single and oracle: "
            "zero-shot heads."
        )
    elif evaluation.head != "zero-shot":
        notes.append(
            f"The {evaluation.head} heads were fitted on labels that are not counted here."
        )
    return notes


def further(evaluation: Evaluation) -> dict[str, Facts]:
    """Return the facts of every measure but the accuracy, in the order of the tables."""
    return {name: facts for name, facts in evaluation.measures.items() if name != ACCURACY}
