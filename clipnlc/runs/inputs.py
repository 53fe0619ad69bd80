"""Which runs there are to fit, and what each is made from: the field `inputs` of its keys."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from clipnlc.combiners import COMBINERS
from clipnlc.commands import command
from clipnlc.datasets.proportions import in_order
from clipnlc.digests import content_digest
from clipnlc.errors import DataError, MissingStageError
from clipnlc.heads import HEADS
from clipnlc.labels import Labels
from clipnlc.runs.finding import (
    HOLDOUT,
    any_logits,
    labelled_split,
    may_be_unlabelled,
    own_run,
)
from clipnlc.runs.freshness import PART
from clipnlc.stores.features import read_feature_header
from clipnlc.stores.layout import Layout, maker_of_test, without_train
from clipnlc.stores.logits import read_class_names, read_logit_header


@dataclass(frozen=True)
class Inputs:
    """What names the content of every input of the fits of a run.

    Attributes:
        classes: digest of the class names, all that a combiner that learns nothing is fitted on.
        logits: digests of the labelled split; none where no row is read.
        features: likewise; none where no combiner that learns needs them.
        pool: digests of the split of unlabelled rows, where that is another one.
        parts: by backbone, what answers for it under the head `auto`; empty under other heads.
    """

    classes: str
    logits: Mapping[str, str] = field(default_factory=dict)
    features: Mapping[str, str] = field(default_factory=dict)
    pool: Mapping[str, str] = field(default_factory=dict)
    parts: Mapping[str, str] = field(default_factory=dict)


def runs_of(
    head: str, combiners: Sequence[str], labels: Sequence[Labels], seeds: Sequence[int]
) -> Iterator[tuple[Labels, ...]]:
    """Group the runs that have a combiner by seed; the run without labels stands alone.

    Raises:
        DataError: no run is left, for the heads are fitted per draw and no labels were asked for; a
            combiner learns, and the head's teacher has seen the labels.
    """
    taught = HEADS.get(head).needs_teacher
    if taught:
        _refuse_learners(head, combiners)
    if (not may_be_unlabelled(head) or Labels.none() in labels) and any(
        is_for(head, name, Labels.none()) for name in combiners
    ):
        yield (Labels.none(),)
    drawn = [which for which in labels if which.kind != "none"]
    if not drawn and HEADS.get(head).per_draw and not may_be_unlabelled(head):
        raise DataError(
            f"the head {head} is fitted for each draw of labels; give --shots 1 or more"
        )
    drawing = any(is_for(head, name, which) for name in combiners for which in drawn)
    for seed in seeds if drawing and drawn else ():
        yield tuple(dict.fromkeys(Labels(w.kind, w.amount, seed) for w in drawn))


def is_for(head: str, combiner: str, which: Labels) -> bool:
    """Return whether a combiner is fitted in a run on these labels."""
    cls = COMBINERS.get(combiner)
    if HEADS.get(head).needs_teacher:
        return not cls.learnt
    if HEADS.get(head).per_draw and which.kind != "none":
        return True
    if HEADS.get(head).per_draw and not HEADS.get(head).texts_suffice:
        return False
    return not cls.needs_labels if which.kind == "none" else cls.learns_from_labels()


def fitted_in(head: str, combiners: Sequence[str], runs: Sequence[Labels]) -> list[str]:
    """Return the combiners that are fitted in one of the runs."""
    return [name for name in combiners if any(is_for(head, name, which) for which in runs)]


def learning_in(head: str, combiners: Sequence[str], runs: Sequence[Sequence[Labels]]) -> list[str]:
    """Return the combiners that learn from rows in one of the runs, grouped by seed."""
    return [
        name
        for name in combiners
        if COMBINERS.get(name).learnt and any(is_for(head, name, its[0]) for its in runs)
    ]


def _refuse_learners(head: str, combiners: Sequence[str]) -> None:
    learning = [name for name in combiners if COMBINERS.get(name).learnt]
    if learning:
        raise DataError(
            f"{learning[0]} learns, and the teacher of the head {head} has seen the labels and images "
            "that it would learn from; give combiners that learn nothing, as --combiners "
            "parameter-free"
        )


def inputs_of_runs(
    layout: Layout,
    dataset: str,
    *,
    head: str,
    backbones: Sequence[str],
    learning: Sequence[str],
    runs: Sequence[Labels],
) -> dict[Labels, Inputs]:
    """Read the inputs of every run; those that share their logits share them.

    Args:
        layout: the store.
        dataset: what is fitted on.
        head: whose logits.
        backbones: the ensemble.
        learning: the combiners that learn from rows.
        runs: which labels.

    Raises:
        MissingStageError: heads of some runs have not been made; the logits have no labelled split,
            and a combiner learns.
    """
    if HEADS.get(head).per_draw:
        lacking = {
            which: absent
            for which in runs
            if (absent := set(backbones) - {*layout.logit_backbones(dataset, head, which.name)})
        }
        if lacking:
            cure = command(
                "train-heads",
                dataset=dataset,
                head=head,
                backbones=sorted(set().union(*lacking.values())),
                store=layout.root,
                **Labels.options(list(lacking), zero=True),
            )
            raise MissingStageError(
                f"{layout.root} holds no {head} logits of {dataset} {min(lacking).phrase} (seed "
                f"{min(lacking).seed}); run `{cure}` first"
            )
    found = {
        run: _inputs(layout, dataset, head, run, backbones=backbones, learning=learning)
        for run in dict.fromkeys(own_run(head, which.name) for which in runs)
    }
    return {which: found[own_run(head, which.name)] for which in runs}


def _inputs(
    layout: Layout,
    dataset: str,
    head: str,
    run: str | None,
    *,
    backbones: Sequence[str],
    learning: Sequence[str],
) -> Inputs:
    split = labelled_split(head)
    paths = [layout.logits(dataset, head, backbone, run) for backbone in backbones]
    classes = content_digest(sorted(read_class_names(paths[0])))
    if not learning and (run is None or HEADS.get(head).needs_teacher):
        return Inputs(classes)
    logits, features, pool, parts = {}, {}, {}, {}
    for backbone, path in zip(backbones, paths, strict=True):
        header = read_logit_header(path)
        digests = header.split_digests
        if "part" in header.key.fields:
            parts[backbone] = header.key.fields["part"]
        if split not in digests:
            raise MissingStageError(
                f"{layout.root} holds no {split} split of {dataset} to draw labels from; "
                f"{_without_train(layout, dataset, backbones)}"
            )
        logits[f"{layout.relative(path)}{PART}{split}"] = digests[split]
        if run is not None and HOLDOUT in digests:
            pool[f"{layout.relative(path)}{PART}{HOLDOUT}"] = digests[HOLDOUT]
    reading = [name for name in learning if COMBINERS.get(name).needs_features]
    if reading:
        paths = [layout.features(dataset, "train", backbone) for backbone in backbones]
        headers = {layout.relative(path): read_feature_header(path) for path in paths}
        if not any(header.dim for header in headers.values()):
            raise DataError(
                f"{', '.join(reading)} read features, and {', '.join(backbones)} on {dataset} came "
                "with logits alone; leave them out of --combiners"
            )
        features = {name: header.digest for name, header in headers.items()}
    return Inputs(classes, logits, features, pool, parts)


def _without_train(layout: Layout, dataset: str, backbones: Sequence[str]) -> str:
    """Say what to do with a data set that has no train split."""
    if "test" not in layout.splits(dataset):
        return f"make one with {maker_of_test(layout.root, dataset, backbones)}"
    return without_train(layout.root, dataset, backbones)


def proportions_in_order(
    layout: Layout,
    dataset: str,
    head: str,
    proportions: Mapping[str, float] | str | None,
) -> list[float] | str | None:
    """Return declared proportions in the order in which fits see the classes."""
    if proportions is None or isinstance(proportions, str):
        return proportions
    path = any_logits(layout, dataset, head)
    names = sorted(read_class_names(path)) if path else []
    return in_order(proportions, names, dataset)
