"""Where `predict` takes its ensemble from: a fit in a store, an exported folder, class names."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from clipnlc.cli.options import backbones_of, key_of, listed
from clipnlc.commands import command
from clipnlc.errors import DataError, MissingStageError
from clipnlc.wording import count

if TYPE_CHECKING:
    from clipnlc.backbones import Backbone
    from clipnlc.extraction.models import Models
    from clipnlc.labels import Labels
    from clipnlc.runs.predictor import Predictor
    from clipnlc.stores.layout import Layout

FITTED: Final = "--dataset"
EXPORTED: Final = "--from"
NAMED: Final = "--classes or --class-names"


def source_of(
    *,
    dataset: str,
    exported: Path | None,
    classes: str,
    class_names: Path | None,
    templates: Path | None,
) -> str:
    """Return which of the three it is.

    Raises:
        DataError: it is several.
    """
    given = {
        "--dataset": bool(dataset.strip()),
        "--from": exported is not None,
        "--classes": bool(classes.strip()),
        "--class-names": class_names is not None,
    }
    several = [option for option, is_given in given.items() if is_given]
    if len(several) > 1:
        raise DataError(f"{' and '.join(several)} exclude each other; give one of them")
    found = several[0] if several else FITTED
    if templates is not None and found in (FITTED, EXPORTED):
        raise DataError("--templates goes with --classes or --class-names; a fit has its own")
    return found if found in (FITTED, EXPORTED) else NAMED


def exported(folder: Path) -> "Predictor":
    """Open a folder that `clipnlc export` wrote."""
    from clipnlc.runs.exported import open_exported

    predictor: Predictor = open_exported(folder)
    return predictor


def fitted(
    store: Path,
    *,
    dataset: str,
    head: str,
    combiner: str,
    which: "Labels | None",
    seed: int,
    backbones: str,
) -> "Predictor":
    """Open a fit of the store: the one that was asked for, or the only one.

    Raises:
        DataError: several data sets or several fits come into question.
        MissingStageError: there is no such fit.
    """
    from clipnlc.runs.predictor import only_labels, open_predictor
    from clipnlc.stores.layout import Layout

    if not store.is_dir():
        raise MissingStageError(
            f"there is no store at {store}; name one with --store, make one with "
            f"`{command('extract --dataset …', store=store)}` and then train-nlc, or give --classes "
            '"cat,dog", which needs none'
        )
    layout = Layout(store)
    members = backbones_of(backbones, store) or None
    key = key_of(dataset) if dataset.strip() else _only_dataset(layout, head)
    if which is None:
        which = only_labels(layout, key, head=head, combiner=combiner, backbones=members, seed=seed)
    return open_predictor(layout, key, head=head, combiner=combiner, which=which, backbones=members)


def _only_dataset(layout: "Layout", head: str) -> str:
    from clipnlc.runs.finding import only_dataset

    try:
        return only_dataset(layout, head)
    except MissingStageError as problem:
        raise MissingStageError(
            f'{problem}; or give --classes "cat,dog", which needs no fit'
        ) from None


def located(
    predictor: "Predictor", backbones: str, weights_dir: Path | None
) -> "tuple[Backbone, ...]":
    """Find the backbones of an ensemble, with the user's paths of weights files."""
    from clipnlc.backbones import resolve
    from clipnlc.stages.predict.members import find_backbones

    given = resolve(backbones, weights_dir) if backbones.strip() else ()
    return find_backbones(predictor.backbones, given, weights_dir)


def from_class_names(
    names: Sequence[str],
    *,
    templates: Path | None,
    combiner: str,
    backbones: str,
    weights_dir: Path | None,
    device: str,
    precision: str,
    tell: Callable[[str], None],
    on_prompts: Callable[[str, int, int], None],
) -> "tuple[Predictor, tuple[Backbone, ...], Models]":
    """Make an ensemble of class names alone."""
    from clipnlc.backbones import resolve
    from clipnlc.datasets.prompts import read_templates
    from clipnlc.extraction.models import Models
    from clipnlc.stages.predict import DEFAULT_BACKBONES, zero_shot

    found = resolve(backbones.strip() or DEFAULT_BACKBONES, weights_dir)
    tell_downloads(found, tell)
    models = Models(device, precision)
    predictor = zero_shot(
        names,
        templates=None if templates is None else read_templates(templates),
        backbones=found,
        models=models,
        combiner=combiner,
        on_prompts=on_prompts,
    )
    return predictor, found, models


def names_of(classes: str, file: Path | None) -> tuple[str, ...]:
    """Return the class names of `--classes`, which may name a file, or of `--class-names`.

    Raises:
        DataError: there is only one.
    """
    from clipnlc.datasets.class_names import name_classes

    only = classes.strip()
    if file is None and only and "," not in only and os.path.isfile(only):  # noqa: PTH113  (of any text)
        file = Path(only)
    if file is None:
        names = listed(classes)
    else:
        read, _ = name_classes(None, file.parent, file)
        names = tuple(name.strip() for name in read if name.strip())
    if len(names) == 1:
        if Path(only).suffix or os.sep in only:
            raise DataError(
                f"{only} does not exist; give class names, comma-separated or in a file"
            )
        raise DataError("there is 1 class name to choose from; give at least two")
    return names


def tell_downloads(backbones: "Sequence[Backbone]", tell: Callable[[str], None]) -> None:
    """Say how much must be downloaded, before it is."""
    from clipnlc.stages.predict.members import downloads

    sizes = downloads(backbones)
    if sizes:
        each = ", ".join(f"{name} {size / 1e9:.1f} GB" for name, size in sizes.items())
        tell(
            f"downloading about {sum(sizes.values()) / 1e9:.1f} GB of weights, once ({each}); "
            "--weights-dir reads them from a folder"
        )


def refuse_unsure(combiner: str, unsure: float | None) -> None:
    """Refuse `--unsure` where there are no probabilities.

    Raises:
        DataError: the combiner's scores are not probabilities.
        UnknownNameError: no combiner has this name.
    """
    from clipnlc.combiners import COMBINERS

    if unsure is not None and not COMBINERS.get(combiner).probabilistic:
        raise DataError(
            f"{combiner} gives no probabilities, so --unsure has nothing to compare with; leave it "
            "out or choose another --combiner"
        )


def title_of(predictor: "Predictor", *, balanced: bool = False) -> str:
    """Say in a few words what answers."""
    fitted = predictor.fitted
    name = "balanced on these photos" if balanced else fitted.name
    what = f"{name}, {count(len(predictor.backbones), 'backbone')}"
    if not predictor.dataset:
        return f"{what}, {count(len(fitted.class_names), 'class name')} alone"
    return f"{what}, fitted {fitted.labels.phrase} on {predictor.dataset}"
