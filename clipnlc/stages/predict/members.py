"""The backbones of a predictor: where they are, and whether they are those it was fitted with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from clipnlc import backbones as backbone_names
from clipnlc.backbones import Backbone
from clipnlc.backbones.families import family, family_of
from clipnlc.backbones.identity import identity
from clipnlc.errors import BackboneError
from clipnlc.extraction.models import Models
from clipnlc.runs.predictor import Predictor

_SHAPING: Final = {
    "architecture": "the architecture",
    "weights": "the weights",
    "quick_gelu": "the activation (QuickGELU)",
    "preprocessing": "the preprocessing",
    "config": "the configuration",
    "tokenizer": "the tokenizer",
    "family_package": "the package of its family",
}
"""What a backbone's features depend on. Another release of open_clip that agrees on it is fine."""


def find_backbones(
    names: Sequence[str], given: Sequence[Backbone], weights_dir: Path | None
) -> tuple[Backbone, ...]:
    """Find the backbones of a predictor, in its order.

    Args:
        names: of its backbones.
        given: what the user named; it says where weights files are.
        weights_dir: as in `backbones.resolve`.

    Raises:
        BackboneError: nothing says where a weights file is, or a backbone was given that the
            predictor does not have.
    """
    known = {backbone.name: backbone for backbone in given}
    foreign = [name for name in known if name not in names]
    if foreign:
        raise BackboneError(
            f"--backbones names {foreign[0]}, which the ensemble does not have; it has "
            f"{', '.join(names)}"
        )
    nowhere = [
        name
        for name in names
        if "@" in name
        and name not in known
        and not (weights_dir and family(family_of(name)).finds_in_folder)
    ]
    if nowhere:
        spelled = ",".join(
            family(family_of(name)).placed(name) if name in nowhere else name for name in names
        )
        raise BackboneError(
            f"the weights of {nowhere[0]} were read from a file, and nothing says where it is now; "
            f"name all backbones of the ensemble, with the file's path: --backbones {spelled}"
        )
    return tuple(
        known.get(name) or backbone_names.parse(name, weights_dir=weights_dir) for name in names
    )


def models_for(
    predictor: Predictor,
    *,
    device: str,
    precision: str,
    tell: Callable[[str], None] = lambda _: None,
) -> Models:
    """Make the place where a predictor's backbones are loaded, in the precision of its features.

    Args:
        predictor: whose backbones.
        device: `auto`, or as in `extract`.
        precision: `auto` is the one recorded, and fp32 where that cannot be used here.
        tell: called with one line where it cannot.

    Raises:
        BackboneError: device or precision cannot be used here.
    """
    recorded = {str(its.get("precision", "")) for its in predictor.identities.values()} - {""}
    if precision != "auto" or not recorded:
        return Models(device, precision)
    if len(recorded) > 1:
        tell(f"features were made in {' and '.join(sorted(recorded))}; using fp32 for all")
        return Models(device, "fp32")
    (wanted,) = recorded
    models = Models(device, wanted)
    if wanted != "fp32":
        try:
            _ = models.device
        except BackboneError:
            _ = Models(device, "fp32").device  # the device itself may be what is wrong
            tell(f"features were made in {wanted}, which cannot be used here; using fp32")
            return Models(device, "fp32")
    return models


def downloads(backbones: Sequence[Backbone]) -> dict[str, int]:
    """Estimate the bytes of weights that must be downloaded first, by backbone.

    Raises:
        BackboneError: an architecture has no such tag.
        UnknownNameError: open_clip has no such architecture.
    """
    tags = [b for b in backbones if b.source == "tag" and b.file is None]
    if not tags:  # and open_clip need not be imported
        return {}
    from clipnlc.backbones.costs import download_bytes

    sizes = {backbone.name: download_bytes(backbone) for backbone in tags}
    return {name: size for name, size in sizes.items() if size}


def ordered_backbones(predictor: Predictor, backbones: Sequence[Backbone]) -> tuple[Backbone, ...]:
    """Return the given backbones in the predictor's order.

    Raises:
        BackboneError: one of the predictor's was not given.
    """
    by = {backbone.name: backbone for backbone in backbones}
    missing = [name for name in predictor.backbones if name not in by]
    if missing:
        raise BackboneError(
            f"the ensemble needs {missing[0]}, which was not given; it has "
            f"{', '.join(predictor.backbones)}"
        )
    return tuple(by[name] for name in predictor.backbones)


def check_identities(
    predictor: Predictor, backbones: Sequence[Backbone], memory: Path | None
) -> None:
    """Check that the backbones here are those that the fit was made with.

    An ensemble that was made in memory records none.

    Raises:
        BackboneError: one is another, or none is recorded of it; says what differs.
    """
    if not predictor.identities:
        return
    for backbone in backbones:
        recorded = predictor.identities.get(backbone.name, {})
        here = identity(backbone, memory, remember=False)
        differing = [
            f"{what} ({_differences(recorded.get(name), here.get(name))})"
            for name, what in _SHAPING.items()
            if recorded.get(name) != here.get(name)
        ]
        if differing:
            raise BackboneError(
                f"{backbone.name} is not what the ensemble was fitted with; other are "
                f"{'; '.join(differing)}: give the same weights with --weights-dir or "
                "--backbones ARCHITECTURE@FILE, or extract and fit again with these"
            )


def _differences(there: object, here: object) -> str:
    """Spell how two values differ: of mappings the fields that do, of digests their beginnings."""
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        fields = [name for name in {**there, **here} if there.get(name) != here.get(name)]
        return ", ".join(
            f"{name} {there.get(name)} there, {here.get(name)} here" for name in fields
        )
    texts = [str(value) for value in (there, here)]
    one, two = (text[:12] if len(text) == 64 else text for text in texts)  # noqa: PLR2004  (SHA-256)
    return f"{one} there, {two} here"
