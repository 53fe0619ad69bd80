"""A predictor as an export that leaves the store, and a predictor made of an export again."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np

from clipnlc.combiners import COMBINERS, Combiner
from clipnlc.commands import command
from clipnlc.ensemble import Ensemble
from clipnlc.errors import ClipnlcError, PluginError, StoreError
from clipnlc.export import Export, ExportedFit, ExportedHead, Measurement
from clipnlc.heads import HEADS, Head
from clipnlc.registry import Registry
from clipnlc.runs.fitted import Fitted, apply
from clipnlc.runs.heads import Heads
from clipnlc.runs.packages import changed_package, refuse_missing, requirement
from clipnlc.runs.predictor import Predictor
from clipnlc.stores.export import read_export

TRIED_ROWS = 2
"""Rows of features, all 1, that an export is tried on before it is used."""


def export_of(predictor: Predictor, measured: Sequence[Measurement]) -> Export:
    """Return everything that a predictor is, as plain values and arrays.

    Args:
        predictor: heads and a fit.
        measured: what was measured of this very fit.
    """
    heads, fitted = predictor.heads, predictor.fitted
    learners = (fitted.combiner, *heads.heads)
    return Export(
        dataset=predictor.dataset,
        class_names=heads.class_names,
        templates=predictor.templates,
        head=heads.name,
        heads=tuple(
            ExportedHead(
                backbone=name,
                identity=predictor.identities[name],
                settings=head.settings(),
                learnt=head.state(),
                teacher=predictor.teachers.get(name),
            )
            for name, head in zip(heads.backbones, heads.heads, strict=True)
        ),
        fit=ExportedFit(
            combiner=fitted.name,
            settings=fitted.combiner.settings(),
            learnt=dict(fitted.learnt),
            backbones=fitted.backbones,
            class_names=fitted.class_names,
            labels=fitted.labels,
            facts=dict(fitted.facts),
            package=_origin(COMBINERS, fitted.name),
        ),
        measured=tuple(measured),
        keeps_features=any(learner.keeps_features for learner in learners),
        probabilistic=fitted.combiner.probabilistic,
        clipnlc=version("clipnlc"),
        head_package=_origin(HEADS, heads.name),
    )


def open_exported(folder: Path) -> Predictor:
    """Read an exported folder; what it gives has the same bits as in the store it came from.

    Heads and combiner are built again of name, settings and arrays, and tried on made-up features,
    so that whatever does not fit together is found here.

    Raises:
        MissingStageError: there is no such folder.
        StoreError: it is no export, is damaged or altered, does not fit together, or needs another
            clipnlc.
        PluginError: it needs a package, or a version of one, that is not installed.
    """
    export = read_export(folder)
    fit = export.fit
    head_class: type[Head] = _known(HEADS, export.head, export.head_package, folder)
    _known(COMBINERS, fit.combiner, fit.package, folder)
    try:
        predictor = Predictor(
            heads=Heads(
                name=export.head,
                backbones=tuple(head.backbone for head in export.heads),
                class_names=export.class_names,
                heads=tuple(head_class.rebuild(one.settings, one.learnt) for one in export.heads),
                inputs={},
            ),
            fitted=Fitted(
                name=fit.combiner,
                settings=fit.settings,
                learnt=fit.learnt,
                backbones=fit.backbones,
                class_names=fit.class_names,
                labels=fit.labels,
                facts=fit.facts,
            ),
            identities={head.backbone: head.identity for head in export.heads},
            templates=export.templates,
            dataset=export.dataset,
            teachers={one.backbone: one.teacher for one in export.heads if one.teacher},
        )
        _try(predictor)
    # Settings and arrays are a stranger's, and what numpy raises of them is its own affair.
    except (
        *(ClipnlcError, ValueError, TypeError, AttributeError, LookupError),
        *(ArithmeticError, MemoryError, RecursionError),
    ) as error:
        raise StoreError(
            f"what {folder} holds does not fit together ({_line(error)}); copy the folder again, "
            f"or make it again with `{command('export', out=folder, force=True)}`"
        ) from error
    return predictor


def _try(predictor: Predictor) -> None:
    """Check that features of the right widths become finite scores of every class.

    Raises:
        ValueError: they do not; numpy may raise more.
    """
    heads, classes = predictor.heads, len(predictor.heads.class_names)
    combiner: Combiner = predictor.fitted.combiner
    features = [np.ones((TRIED_ROWS, head.dim), dtype=np.float32) for head in heads.heads]
    with np.errstate(all="ignore"):  # what comes of it is looked at below
        for name, head, given in zip(heads.backbones, heads.heads, features, strict=True):
            logits = head.logits(given)
            if logits.shape != (TRIED_ROWS, classes) or not np.isfinite(logits).all():
                raise ValueError(f"the head of {name} does not give {classes} finite logits")
        ensemble: Ensemble = heads.ensemble(features, [str(row) for row in range(TRIED_ROWS)])
        scores = apply(predictor.fitted, ensemble).combined(ensemble)
    if scores.shape != (TRIED_ROWS, classes) or not np.isfinite(scores).all():
        raise ValueError(f"{predictor.fitted.name} does not give {classes} finite scores")
    if not combiner.row_wise:
        raise ValueError(f"{predictor.fitted.name} looks at other images than the one it predicts")


def _origin(registry: Registry, name: str) -> dict[str, str] | None:
    plugin = registry.plugin(name)
    return None if plugin is None else plugin.origin


def _known(registry: Registry, name: str, package: Mapping[str, str] | None, folder: Path) -> type:
    """Return the class of a head or combiner, which must be of the package that made the export."""
    refuse_missing(registry, name, package, str(folder))
    changed = changed_package(registry, name, package) if name in registry else ""
    if changed:
        cure = f"run `pip install {requirement(package)}`" if package else "install clipnlc alone"
        raise PluginError(f"{folder} cannot be used: {changed}; {cure}")
    if name not in registry:
        raise StoreError(
            f"{folder} needs the {registry.kind} {name!r}, which this clipnlc does not have "
            f"(known: {', '.join(registry)}): update clipnlc, or install the package that has it"
        )
    found: type = registry.get(name)
    return found


def _line(error: BaseException) -> str:
    return " ".join((str(error) or type(error).__name__).split())[:300]
