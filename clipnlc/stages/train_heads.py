"""Train one head per backbone and write the logits of rows that it has not seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from threadpoolctl import threadpool_limits

from clipnlc.commands import command
from clipnlc.errors import DataError, MissingStageError
from clipnlc.heads import HEADS, Head
from clipnlc.labels import Labels
from clipnlc.registry import unknown_name
from clipnlc.runs.crops import crops_of
from clipnlc.runs.finding import DEFAULT_HOLDOUT
from clipnlc.runs.head_training import HeadTask, Rows, Settings, fit_head
from clipnlc.runs.heads import current_key
from clipnlc.runs.mixture import (
    AUTO,
    FITTED,
    part_of,
    refuse_without_labels,
    refuse_without_texts,
)
from clipnlc.runs.teacher import find_teachers
from clipnlc.stores import locks
from clipnlc.stores.features import read_feature_header
from clipnlc.stores.key import differences
from clipnlc.stores.layout import IMPORTED, Layout, maker_of_test, without_train
from clipnlc.stores.logits import read_logit_header

if TYPE_CHECKING:
    from pathlib import Path

_LEAST_HOLDOUT: Final = 0.01


@dataclass(frozen=True)
class TrainedHead:
    """Result for one head.

    Attributes:
        dataset: its key.
        head: its name.
        backbone: its name.
        run: the labels that it was fitted on; None where it was fitted on all but a hold-out.
        rows: samples it was fitted on.
        held_out: rows of train that it has not seen, or whose labels alone it has not, as what
            learns from a teacher; the two accuracies are measured on them.
        zero_shot: accuracy of the zero-shot head on those rows, in [0, 1]; None without any.
        accuracy: accuracy of the trained head on them; None without any.
        facts: what else the head says of its fit.
        cached: it was there, with the same key.
        changed: `field: old -> new`, where a head with another key was replaced.
    """

    dataset: str
    head: str
    backbone: str
    run: Labels | None
    rows: int
    held_out: int
    zero_shot: float | None
    accuracy: float | None
    facts: Mapping[str, int | float | str]
    cached: bool
    changed: tuple[str, ...] = ()


def train_heads(
    *,
    store: Path,
    dataset: Sequence[str] = (),
    backbones: Sequence[str] = (),
    head: str = "linear",
    settings: Settings | None = None,
    holdout: float = DEFAULT_HOLDOUT,
    seed: int = 0,
    labels: Sequence[Labels] = (),
    seeds: Sequence[int] = (0, 1, 2),
    teacher: str | None = None,
    on_progress: Callable[[TrainedHead, int, int], None] = lambda _head, _done, _all: None,
) -> list[TrainedHead]:
    """Train heads on 90 % of train; write the logits of the other 10 % and of test.

    Or, with `labels`, one head per draw of train and per seed, each with files of its own: the
    logits of test and of the rows not drawn, as split `holdout`. The rows are those that
    `train-nlc` draws from train under the same labels and seed. A head that is only ever fitted so
    (`Head.per_draw`) also leaves logits of the drawn rows, as split `cross-fitted`, each row's by a
    head that has not seen it: combiners are fitted on those. They do not read per-draw files of
    the other heads: `linear-few` and `class-mean-few` are `linear` and `class-mean` for that.

    Tip-Adapter's keys are means over the crops of train that the store has (`extract --crops`); how
    many is in the key and in the facts.

    The head `auto` is the zero-shot head where a backbone embeds texts, else the logits that it came
    with, else `logistic-few` (`clipnlc.runs.mixture`).

    A head that has a teacher learns the probabilities of a fit on the zero-shot logits of every
    backbone, for the images of train: a fit on the same labels, or on none.

    For linear heads, Adam, 2e-5, 300 epochs and the 90/10 split are the NLC paper's; that they
    belong to these heads is our reading (`clipnlc.heads.linear`).

    Args:
        store: the store's folder.
        dataset: keys; by default every data set with features in the store.
        backbones: names; by default every backbone with features.
        head: one of `HEADS` that learns from labels.
        settings: of the head, where they differ from its defaults.
        holdout: share of train that is kept for the combiners, stratified and seeded.
        seed: of the hold-out and of everything random in the fit.
        labels: fit heads on these labels instead; their own seeds do not matter. By default, a
            head that is only ever fitted so takes `Labels.few()`, and one with a teacher none.
        seeds: of the draws and of everything random in those fits.
        teacher: the combiner that a head with a teacher learns from; by default `balanced-gp` on
            labels, and `balanced` without.
        on_progress: called after each head, with it and (heads done, heads).

    Raises:
        UnknownNameError: the head, or one of its settings, is not known.
        DataError: the head is not trained; a share is out of range; nothing to fit on or to hold
            out; a backbone lacks the texts or labels that the head needs.
        MissingStageError: no features of train or test; no fit of the teacher.
        StoreError: a store file is damaged or in use.
    """
    _check_trainable(head)
    _check_settings(head, settings or {})
    taught = HEADS.get(head).needs_teacher
    if teacher is not None and not taught:
        raise DataError(f"the head {head} has no teacher; give --head distilled for one")
    chosen = tuple(labels)
    if not labels and HEADS.get(head).per_draw:
        labels = (Labels.none(),) if taught else Labels.few()
    if not labels and not _LEAST_HOLDOUT <= holdout < 1:
        raise DataError(
            f"--holdout is {holdout}; give a share of at least {_LEAST_HOLDOUT} and below 1"
        )
    if any(which.kind == "none" for which in labels) and not taught and head != AUTO:
        raise DataError(f"the head {head} needs labels; give --shots 1 or more")
    layout = Layout(store)
    names = dataset or _with_features(layout)
    for name in names:
        refuse_without_texts(layout, name, head, backbones)
    parts = _parts(layout, names, backbones) if head == AUTO else {}
    if parts and not chosen and FITTED not in parts.values():
        labels = (Labels.none(), *labels)
    if Labels.none() in labels and parts:
        refuse_without_labels(parts)
    runs = tuple(dict.fromkeys(_seeded(which, s) for s in seeds for which in labels))
    teachers = {
        name: find_teachers(layout, name, teacher, runs if taught else ()) for name in names
    }
    tasks = [
        HeadTask(
            layout=layout,
            dataset=name,
            backbone=backbone,
            head=head,
            settings=settings or {},
            runs=runs or (Labels.holdout(holdout, seed=seed),),
            per_run=bool(labels),
            crops=crops,
            teachers=teachers[name],
            part=parts.get((name, backbone), ""),
        )
        for name in names
        for backbone, crops in _with_crops(layout, name, head, backbones).items()
    ]
    done: list[TrainedHead] = []
    for task in tasks:
        for trained in _train(task):
            done.append(trained)
            on_progress(trained, len(done), sum(len(each.runs) for each in tasks))
    return done


def _seeded(which: Labels, seed: int) -> Labels:
    return which if which.kind == "none" else replace(which, seed=seed)


def _check_trainable(name: str) -> None:
    """Refuse a head that is not known or needs what this stage does not have."""
    cls: type[Head] = HEADS.get(name)
    if not cls.needs_labels and not cls.needs_teacher:
        why = "needs no labels, and extract has made it"
        raise DataError(f"the head {name} {why}; choose another --head, as linear")
    if cls.needs_validation:
        raise DataError(
            f"the head {name} needs labelled rows to choose by, which train-heads does not keep; "
            "choose another --head"
        )


def _check_settings(name: str, settings: Settings) -> None:
    """Refuse a setting that the head does not have; the seed is no setting here."""
    known = [setting for setting in HEADS.get(name)().settings() if setting != "seed"]
    for setting in settings:
        if not known:
            raise DataError(
                f"the head {name} has no settings, and {setting!r} was given; leave its option out"
            )
        if setting not in known:
            raise unknown_name(f"setting of the head {name},", setting, known)
    HEADS.get(name)(**settings)  # refuses values that are out of range


def _with_features(layout: Layout) -> tuple[str, ...]:
    names = tuple(d for d in layout.datasets() if layout.splits(d))
    if not names:
        cure = command("extract --dataset …", store=layout.root)
        raise MissingStageError(f"{layout.root} holds no features; run `{cure}` first")
    return names


def _with_train(layout: Layout, dataset: str) -> tuple[str, ...]:
    present = layout.backbones(dataset, "train")
    if not present:
        cure = f"make one with {maker_of_test(layout.root, dataset)}"
        if "test" in layout.splits(dataset):
            cure = without_train(layout.root, dataset)
        raise MissingStageError(
            f"{layout.root} holds no features of a train split of {dataset}; {cure}"
        )
    return present


def _parts(
    layout: Layout, names: Sequence[str], backbones: Sequence[str]
) -> dict[tuple[str, str], str]:
    """Return what answers for each backbone of each data set under the head `auto`."""
    return {
        (name, backbone): part_of(layout, name, backbone)
        for name in names
        for backbone in tuple(backbones) or _with_train(layout, name)
    }


def _with_crops(
    layout: Layout, dataset: str, head: str, backbones: Sequence[str]
) -> dict[str, tuple[Path, ...]]:
    """Return the backbones of a data set, each with its crops of train if the head takes them."""
    chosen = tuple(backbones) or _with_train(layout, dataset)
    takes_views = HEADS.get(head).takes_views
    return crops_of(layout, dataset, chosen) if takes_views else dict.fromkeys(chosen, ())


def _train(task: HeadTask) -> Iterator[TrainedHead]:
    """Yield every head of a task; features are read once, and only if one is to be fitted."""
    train, test = task.features("train"), task.features("test")
    inputs = {
        task.layout.relative(path): read_feature_header(path).digest
        for path in (train, test, *task.crops)
    }
    imported: Path | None = None
    if task.part == IMPORTED:
        imported = task.layout.logits(task.dataset, IMPORTED, task.backbone)
        inputs[task.layout.relative(imported)] = read_logit_header(imported).digest
    rows: Rows | None = None
    # One BLAS thread: the last bits of a sum depend on how many share it.
    with threadpool_limits(limits=1):
        for which in task.runs:
            key, target = task.key(which, inputs), task.target(which)
            changed: tuple[str, ...] = ()
            try:
                header = read_logit_header(target)
            except MissingStageError:
                pass
            else:
                old = current_key(header.key)
                if old == key:
                    yield _trained(task, which, header.facts, cached=True)
                    continue
                changed = tuple(differences(old, key))
            with locks.writing(target):
                rows = rows or Rows.read(train, test, task.crops, imported)
                facts = fit_head(task, which, rows, key, target)
            yield _trained(task, which, facts, changed=changed)


def _trained(
    task: HeadTask,
    which: Labels,
    facts: Mapping[str, int | float | str],
    *,
    cached: bool = False,
    changed: tuple[str, ...] = (),
) -> TrainedHead:
    more = dict(facts)
    rows, held_out = int(more.pop("rows")), int(more.pop("held_out"))
    zero_shot = more.pop("zero_shot_accuracy", None)
    accuracy = more.pop("accuracy", more.pop("linear_accuracy", None))  # the older name
    return TrainedHead(
        dataset=task.dataset,
        head=task.head,
        backbone=task.backbone,
        run=which if task.per_run else None,
        rows=rows,
        held_out=held_out,
        zero_shot=None if zero_shot is None else float(zero_shot),
        accuracy=None if accuracy is None else float(accuracy),
        facts=more,
        cached=cached,
        changed=changed,
    )
