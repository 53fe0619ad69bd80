"""Whether a file lies where it belongs: what it says of itself, compared with its path.

A file carries its place, the path below the store's root, as an attribute. Every file, also one of
before it did, is compared by what its keys name: backbone, split, head, run, combiner, the data set
of its inputs. A file that lies in no store (an archive, a copy) belongs anywhere.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from clipnlc.errors import DataError, StoreError
from clipnlc.labels import Labels
from clipnlc.stores.key import Key
from clipnlc.stores.layout import IMPORTED, Location, from_part, locate
from clipnlc.wording import shown

PLACE: Final = "place"
"""The root attribute."""

_FIELDS: Final = ("dataset", "split", "source", "head", "members", "run", "backbone")

Claim = tuple[str, object, object]
"""A field, what a file says of it, and what belongs there."""


def place_of(path: Path) -> str | None:
    """Return the path of a file below its store's root, with `/`; None where it is in no store.

    >>> place_of(Path("store/cub/features/test/RN50.openai.h5"))
    'cub/features/test/RN50.openai.h5'
    """
    location = locate(path)
    return None if location is None else path.relative_to(location.store).as_posix()


def check_place(path: Path, attributes: Mapping[str, Mapping[str, Any]]) -> None:
    """Check that a file of a store lies where it belongs.

    Args:
        path: the file.
        attributes: by group; the root is `""`.

    Raises:
        StoreError: says what the file is, what belongs there, and the command that makes that.
    """
    location = locate(path)
    if location is None:
        return
    wrong: dict[str, tuple[object, object]] = {}
    for field, found, expected in _claims(path, location, attributes):
        if found != expected:
            wrong.setdefault(field, (found, expected))
    if wrong:
        one = ", ".join(f"{field} {shown(found)}" for field, (found, _) in wrong.items())
        two = ", ".join(f"{field} {expected}" for field, (_, expected) in wrong.items())
        raise StoreError(
            f"{path} is misplaced: it is of {one}, expected {two}; move it to where it belongs, or "
            f"delete it, and run `{location.command}` again"
        )


def _claims(
    path: Path, location: Location, attributes: Mapping[str, Mapping[str, Any]]
) -> Iterator[Claim]:
    place = attributes[""].get(PLACE)
    if place is not None:
        own = locate(location.store / str(place))
        yield from ((f, getattr(own, f, None), getattr(location, f)) for f in _FIELDS)
    for group, its in attributes.items():
        try:
            key = Key.of(json.loads(str(its["key"])))
        except (KeyError, TypeError, ValueError, RecursionError):  # its reader says so
            continue
        if group.startswith("combiners/"):
            yield from _same(key.fields, "combiner", from_part(group.removeprefix("combiners/")))
        if location.kind == "texts":
            yield "key", key.digest, path.stem
        yield from _key_claims(location, key)


def _key_claims(location: Location, key: Key) -> Iterator[Claim]:
    """Compare a key with a place, by what the key has."""
    fields = key.fields
    if location.kind in ("features", "shards"):
        images = fields.get("images")
        fields = images if isinstance(images, dict) else {}
        yield from _same(fields, "split", location.split)
    if location.backbone is not None:
        yield from _same(fields, "backbone", location.backbone)
    if location.head is not None:
        yield from _same(fields, "head", location.head)
        run = _run(fields)
        if run is not None or "holdout" in fields:
            yield "run", run, location.run
    if location.source is not None:
        yield "source", fields.get("fitted_on", location.source), location.source
    # A head that has a teacher is made from the logits of other backbones, and from a fit on them.
    same = ("run",) if "teacher" in key.fields else ("head", "backbone", "members", "run")
    yield from _input_claims(location, key.fields.get("inputs"), same)


def _input_claims(location: Location, inputs: object, same: Sequence[str]) -> Iterator[Claim]:
    """Compare what a file was made from with its place."""
    for name in inputs if isinstance(inputs, dict) else ():
        made_from = locate(location.store / name.partition("#")[0])
        if made_from is not None:
            if made_from.dataset not in (location.dataset, location.source):
                yield "dataset", made_from.dataset, location.dataset
            # Logits that a backbone came with are no head's, and heads may be made from them.
            for field in same if made_from.head != IMPORTED else ("backbone",):
                found, expected = getattr(made_from, field), getattr(location, field)
                if found is not None and expected is not None:
                    yield field, found, expected


def _same(fields: Mapping[str, Any], field: str, expected: str | None) -> Iterator[Claim]:
    if field in fields:
        yield field, fields[field], expected


def _run(fields: Mapping[str, Any]) -> object:
    """Return the run that a key names; version 1 spelled it in four fields."""
    protocol = fields.get("protocol")
    with suppress(KeyError, TypeError, ValueError, DataError):
        if protocol == "shots":
            return Labels.shots(fields["shots"], seed=fields["seed"]).name
        if protocol == "holdout":
            return Labels.holdout(fields["holdout"], seed=fields["seed"]).name
        if protocol is not None:
            return protocol
    return fields.get("run", fields.get("labels"))
