"""Everything that turns features of new photos into answers: heads, a fit, and whose features."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from clipnlc.combiners import COMBINERS
from clipnlc.commands import command
from clipnlc.errors import DataError, MissingStageError
from clipnlc.export import TaughtBy
from clipnlc.heads import HEADS
from clipnlc.labels import Labels
from clipnlc.runs.finding import Runs, find_runs, may_be_unlabelled, own_run, read_fitted
from clipnlc.runs.fitted import Fitted
from clipnlc.runs.freshness import Present, refuse_stale_runs
from clipnlc.runs.heads import Heads, open_heads
from clipnlc.runs.imported import refuse_imported
from clipnlc.runs.packages import find_member
from clipnlc.stores.features import check_made, read_feature_header
from clipnlc.stores.key import Key
from clipnlc.stores.layout import Layout
from clipnlc.stores.logits import read_logit_header


@dataclass(frozen=True)
class Predictor:
    """A fitted ensemble, ready for features of new images.

    Attributes:
        heads: one per backbone, sorted by backbone.
        fitted: the combiner.
        identities: by backbone, what shaped its features: architecture, digest of the weights,
            open_clip's version, preprocessing, precision (the field `images` of a feature key,
            without the images themselves).
        templates: of the prompts that the texts were made with; those of all its backbones, where
            families differ.
        dataset: what it was fitted on, as the store calls it.
        teachers: by backbone, whose answers its head learnt; empty for heads without a teacher.
    """

    heads: Heads
    fitted: Fitted
    identities: Mapping[str, Mapping[str, Any]]
    templates: tuple[str, ...]
    dataset: str
    teachers: Mapping[str, TaughtBy] = field(default_factory=dict)

    @property
    def backbones(self) -> tuple[str, ...]:
        """The backbones' names, sorted."""
        return self.heads.backbones


def open_predictor(
    layout: Layout,
    dataset: str,
    *,
    head: str,
    combiner: str,
    which: Labels,
    backbones: Sequence[str] | None = None,
) -> Predictor:
    """Read one fit of a store, with the heads that it belongs to.

    Args:
        layout: the store.
        dataset: what it was fitted on.
        head: whose logits.
        combiner: its name.
        which: the labels that it, or its heads, were fitted on; none where neither learns from
            any, whatever is asked.
        backbones: the ensemble; by default every backbone with logits, or the only one with fits.

    Raises:
        DataError: a backbone came with logits alone, so it has no answer for new images.
        MissingStageError: there is no such fit, or no such heads.
        StoreError: it is stale, or a file is damaged.
        UnknownNameError: no combiner has this name.
    """
    find_member(HEADS, head, layout)
    find_member(COMBINERS, combiner, layout)
    _refuse_learner(head, combiner)
    which = which if is_drawn(head, combiner) else Labels.none()
    runs = find_fit(layout, dataset, head=head, combiner=combiner, which=which, backbones=backbones)
    keys = {name: _feature_key(layout, dataset, name) for name in runs.backbones}
    refuse_imported(layout, runs, combiner, keys)
    return Predictor(
        heads=open_heads(layout, dataset, head, runs.backbones, own_run(head, which.name)),
        fitted=read_fitted(runs, which.name, [combiner])[combiner],
        identities={name: identity_of(its) for name, its in keys.items()},
        templates=_templates(keys.values()),
        dataset=dataset,
        teachers=_teachers(layout, runs, which.name) if HEADS.get(head).needs_teacher else {},
    )


def _teachers(layout: Layout, runs: Runs, run: str) -> dict[str, TaughtBy]:
    found = {}
    for backbone in runs.backbones:
        told = read_logit_header(runs.logits(layout, backbone, run)).key.fields["teacher"]
        found[backbone] = TaughtBy(told["combiner"], tuple(told["backbones"]))
    return found


def find_fit(
    layout: Layout,
    dataset: str,
    *,
    head: str,
    combiner: str,
    which: Labels,
    backbones: Sequence[str] | None = None,
) -> Runs:
    """Return the runs of an ensemble, of which one has this fit; for arguments see `open_predictor`.

    Raises:
        MissingStageError: none has.
        StoreError: the fit is stale, or a file is damaged.
    """
    missing = missing_fit(
        layout, dataset, head=head, combiner=combiner, which=which, backbones=backbones
    )
    try:
        runs = find_runs(layout, dataset, head, backbones)
    except MissingStageError:
        raise missing from None
    header = runs.headers.get(which.name)
    if header is None or combiner not in header.keys:
        raise missing
    refuse_stale_runs(Present(layout), runs, {which.name: [combiner]})
    return runs


def missing_fit(
    layout: Layout,
    dataset: str,
    *,
    head: str,
    combiner: str,
    which: Labels,
    backbones: Sequence[str] | None = None,
) -> MissingStageError:
    """Return the error that says that a fit is missing, and how to make it."""
    cure = command(
        "train-nlc",
        dataset=dataset,
        head=head,
        combiners=combiner,
        backbones=backbones,
        store=layout.root,
        **Labels.options([which], zero=may_be_unlabelled(head)),
    )
    return MissingStageError(
        f"{layout.root} holds no fit of {combiner} {which.phrase} (seed {which.seed}) on {head} "
        f"logits of {dataset}; run `{cure}` first"
    )


def only_labels(
    layout: Layout,
    dataset: str,
    *,
    head: str,
    combiner: str,
    backbones: Sequence[str] | None = None,
    seed: int = 0,
) -> Labels:
    """Return which labels a combiner was fitted on with this seed; none where it learns from none.

    A fit without labels counts only where there is no other.

    Raises:
        MissingStageError: there is no such fit.
        DataError: there are several.
        StoreError: a file is damaged.
        UnknownNameError: no combiner has this name.
    """
    find_member(COMBINERS, combiner, layout)
    _refuse_learner(head, combiner)
    if not is_drawn(head, combiner):
        return Labels.none()
    runs = find_runs(layout, dataset, head, backbones)
    labels = [Labels.parse(run) for run, header in runs.headers.items() if combiner in header.keys]
    drawn = [which for which in labels if which.kind != "none"]
    found = tuple(sorted(which for which in drawn if which.seed == seed))
    if not drawn and labels:
        return Labels.none()
    if not found:
        options = {"combiners": combiner, "backbones": backbones, "seeds": str(seed + 1)}
        cure = command("train-nlc", dataset=dataset, head=head, store=layout.root, **options)
        raise MissingStageError(
            f"{layout.root} holds no fit of {combiner} with seed {seed} on {head} logits of "
            f"{dataset}; run `{cure}` first"
        )
    if len(found) > 1:
        raise DataError(
            f"{layout.root} holds fits of {combiner} on {dataset} for several amounts of labels "
            f"({', '.join(one.heading for one in found)}); give one with --shots, --count or "
            "--holdout"
        )
    return found[0]


def _refuse_learner(head: str, combiner: str) -> None:
    """Refuse what `train-nlc` does not fit: a combiner that learns, on heads that a teacher taught."""
    if HEADS.get(head).needs_teacher and COMBINERS.get(combiner).learnt:
        raise DataError(
            f"{combiner} learns, and on {head} heads only combiners that learn nothing are fitted; give "
            "one of those, as --combiner log-avg"
        )


def is_drawn(head: str, combiner: str) -> bool:
    """Return whether labels were drawn for a fit: for the combiner, or for its heads."""
    learns: bool = COMBINERS.get(combiner).learns_from_labels()
    return learns or HEADS.get(head).per_draw


def identity_of(features: Key) -> dict[str, Any]:
    """Take from a feature key what any image's features depend on, the image aside."""
    of_images = ("split", "view", "content", "samples", "max_pixels")
    return {n: v for n, v in features.fields["images"].items() if n not in of_images}


def _templates(keys: Iterable[Key]) -> tuple[str, ...]:
    """Return the templates of all backbones that embed texts, each once."""
    found = (key.fields["classes"].get("templates") or () for key in keys)
    return tuple(dict.fromkeys(template for templates in found for template in templates))


def _feature_key(layout: Layout, dataset: str, backbone: str) -> Key:
    for split in layout.splits(dataset):
        path = layout.features(dataset, split, backbone)
        if path.is_file():
            key = read_feature_header(path).key
            check_made(path, key)
            return key
    cure = command("extract", dataset=dataset, backbones=backbone, store=layout.root)
    raise MissingStageError(
        f"{layout.root} holds no features of {backbone} on {dataset}, which say how it was used; "
        f"run `{cure}` first"
    )
