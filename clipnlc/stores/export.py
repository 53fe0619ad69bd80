"""The export folder: one fitted ensemble, to be handed on (`docs/formats/ensemble.md`).

`ensemble.safetensors` holds every learnt array, `ensemble.json` says what they are and how to tell
whether they were altered; `README.md`, the model card, is for people and is not read. Nothing is
unpickled, and no link is followed.
"""

import errno
import hashlib
import json
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from clipnlc.commands import command
from clipnlc.digests import matches_digest, read_exactly, with_digest
from clipnlc.errors import ClipnlcError, MissingStageError, StoreError
from clipnlc.export import Export, ExportedFit, ExportedHead, Measurement
from clipnlc.files import replacing_folder, write_whole
from clipnlc.labels import Labels
from clipnlc.stores.checks import Refuse
from clipnlc.stores.fitted import check_learnt
from clipnlc.wording import quoted

FORMAT: Final = "clipnlc-ensemble"
VERSION: Final = 1

DESCRIPTION: Final = "ensemble.json"
ARRAYS: Final = "ensemble.safetensors"
CARD: Final = "README.md"

LARGEST_DESCRIPTION: Final = 16 * 2**20
"""Bytes; a description of a thousand classes takes a hundredth."""

ROUNDING: Final = 1e-9
"""How far an accuracy may lie outside its bounds."""

_POINTER: Final = b"version https://git-lfs"
_TENSOR: Final = re.compile(r"(?:heads/(0|[1-9]\d*)|combiner)/([^\W\d]\w*)")
_IDENTITY: Final[dict[str, type]] = {
    "architecture": str,
    "weights": str,
    "precision": str,
    "preprocessing": dict,
}
_UNRELATED_TO_THE_FIT: Final = ("measured", "clipnlc", "digest")

T = TypeVar("T")


def write_export(folder: Path, export: Export, *, card: str, force: bool = False) -> bool:
    """Write the folder, complete or not at all; return whether anything was written.

    A folder that holds the same export is left alone. One of the same fit is replaced, as when it
    has been measured since; one of another fit only by `force`.

    Args:
        folder: what becomes the export: absent, empty, or an export.
        export: the ensemble.
        card: the text of its model card.
        force: replace the export of another fit.

    Raises:
        StoreError: the folder holds something else, or another fit; a learnt array is not finite,
            or a name is no text; the disk refuses.
    """
    arrays, description = _spelled(folder, export)
    if _present(folder, description, force=force):
        return False
    try:
        with replacing_folder(folder) as partial:
            write_whole(partial / ARRAYS, arrays)
            write_whole(partial / CARD, card)
            write_whole(partial / DESCRIPTION, _text(description))
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        cure = "free some space, or give another --out" if full else "give another --out"
        raise StoreError(f"cannot write {folder}: {error.strerror}; {cure}") from error
    return True


def read_export(folder: Path) -> Export:
    """Read and check an export.

    Raises:
        MissingStageError: there is no such folder.
        StoreError: it is no export, is damaged or altered, or is of a newer clipnlc.
    """
    return _read(folder)[1]


def _read(folder: Path) -> tuple[dict[str, Any], Export]:
    """Return the description, checked, and what it describes."""
    if not folder.is_dir():
        found = "is a file" if folder.exists() else "does not exist"
        raise MissingStageError(
            f"{folder} {found}; expected a folder that `{command('export', out=folder)}` makes"
        )
    place = folder / DESCRIPTION
    tree = _description(place, _bytes_of(place, at_most=LARGEST_DESCRIPTION))
    try:
        size = _take(_take(tree, "arrays", dict), "bytes", int)
        digest = _take(tree["arrays"], "blake2b", str)
        tensors = _take(tree["arrays"], "tensors", dict)
        place = folder / ARRAYS
        arrays = _arrays(place, _bytes_of(place, exactly=size), digest, tensors)
        place = folder / DESCRIPTION
        return tree, _export(tree, arrays)
    except ClipnlcError as error:
        if isinstance(error, StoreError):
            raise
        raise _refused(place, f"is damaged: {error}") from error
    except (KeyError, ValueError, TypeError, OverflowError, RecursionError) as error:
        problem = f"it lacks {error}" if isinstance(error, KeyError) else _line(error)
        raise _refused(place, f"is damaged: {problem}") from error


# Writing ---------------------------------------------------------------------------------------


def _spelled(folder: Path, export: Export) -> tuple[bytes, dict[str, Any]]:
    """Return the bytes of the arrays, and the description."""
    arrays = {f"combiner/{name}": array for name, array in export.fit.learnt.items()}
    for number, head in enumerate(export.heads):
        arrays.update({f"heads/{number}/{name}": array for name, array in head.learnt.items()})

    def refuse(problem: str) -> StoreError:
        return StoreError(
            f"{folder} not written: {problem}; fit it again with `{command('train-nlc')}`"
        )

    for name, array in sorted(arrays.items()):
        _check_array(name, array, refuse)
        arrays[name] = np.array(array, order="C")
    data = safetensors.numpy.save(dict(sorted(arrays.items())))
    try:
        tree = with_digest(_tree(export, arrays, data))
        tree = json.loads(_text(tree))  # as it will be read: lists for tuples
    except ValueError as error:
        raise refuse(f"a name or a setting cannot be written as JSON ({error})") from error
    if len(_text(tree)) > LARGEST_DESCRIPTION // 4:  # at most four bytes a character
        raise refuse(f"its description takes more than {LARGEST_DESCRIPTION // 2**20} MB")
    return data, tree


def _tree(export: Export, arrays: Mapping[str, np.ndarray], data: bytes) -> dict[str, Any]:
    fit = export.fit
    return {
        "format": FORMAT,
        "format-version": VERSION,
        "clipnlc": export.clipnlc,
        "dataset": export.dataset,
        "classes": list(export.class_names),
        "prompts": list(export.templates),
        "head": export.head,
        "backbones": [
            {
                "name": head.backbone,
                "identity": dict(head.identity),
                "head_settings": dict(head.settings),
            }
            for head in export.heads
        ],
        "combiner": {
            "name": fit.combiner,
            "settings": dict(fit.settings),
            "labels": fit.labels.name,
            "facts": dict(fit.facts),
            "backbones": list(fit.backbones),
            "classes": list(fit.class_names),
        },
        "measured": [dict(vars(one)) for one in export.measured],
        "keeps_features": export.keeps_features,
        "probabilistic": export.probabilistic,
        "arrays": {
            "bytes": len(data),
            "blake2b": _digest(data),
            "tensors": {name: _facts_of(array) for name, array in sorted(arrays.items())},
        },
    }


def _present(folder: Path, wanted: Mapping[str, Any], *, force: bool) -> bool:
    """Return whether the folder holds what is wanted; refuse what must not be replaced.

    Raises:
        StoreError: it holds something else, or the export of another fit and there is no `force`.
    """
    if not folder.exists() and not folder.is_symlink():
        return False
    if folder.is_symlink() or not folder.is_dir():
        what = "a link" if folder.is_symlink() else "a file"
        raise StoreError(f"{folder} is {what}; give --out a folder that is not there yet")
    names = sorted(path.name for path in folder.iterdir())
    if not names:
        return False
    if DESCRIPTION not in names:
        raise StoreError(
            f"{folder} is there and is no export: it holds {names[0]} and no {DESCRIPTION}; "
            "give --out a folder that is not there yet"
        )
    others = [name for name in names if name not in (DESCRIPTION, ARRAYS, CARD)]
    try:
        found, _export = _read(folder)
    except StoreError as error:
        found, problem = {}, f"holds an export that cannot be read ({error})"
    else:
        problem = "holds the export of another fit"
    if found.get("digest") == wanted["digest"] and CARD in names:
        return True
    if others:
        raise StoreError(
            f"{folder} holds {others[0]} besides an export, and would be replaced as a whole; give "
            "--out a folder that is not there yet"
        )
    if not force and _fit(found) != _fit(wanted):
        raise StoreError(f"{folder} {problem}; give --force to replace it, or another --out")
    return False


def _fit(tree: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in tree.items() if name not in _UNRELATED_TO_THE_FIT}


def _text(tree: Mapping[str, Any]) -> str:
    return json.dumps(tree, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _facts_of(array: np.ndarray) -> dict[str, Any]:
    digest = _digest(array.tobytes())
    return {"dtype": array.dtype.name, "shape": list(array.shape), "blake2b": digest}


# Reading ---------------------------------------------------------------------------------------


def _bytes_of(path: Path, *, at_most: int | None = None, exactly: int | None = None) -> bytes:
    """Read a regular file, once its size is known to be as expected.

    Raises:
        StoreError: it is absent, a link, no file, of another size, or stands for a file elsewhere.
    """
    try:
        facts = path.lstat()
        if stat.S_ISLNK(facts.st_mode):
            raise _refused(path, "is a link, and links are not followed: put the file itself there")
        if not stat.S_ISREG(facts.st_mode):
            raise _refused(path, "is not a regular file")
        with path.open("rb") as file:
            start = file.read(len(_POINTER))
            if start == _POINTER:
                raise _refused(
                    path,
                    "is a Git LFS pointer and not the file itself: run `git lfs pull` in its folder",
                )
            if at_most is not None and facts.st_size > at_most:
                raise _refused(path, f"has {facts.st_size} bytes, expected at most {at_most}")
            if exactly is not None and facts.st_size != exactly:
                raise _refused(
                    path, f"has {facts.st_size} bytes, {DESCRIPTION} says {exactly}: it is damaged"
                )
            return start + file.read(facts.st_size - len(start))
    except FileNotFoundError as error:
        raise _refused(path, "is missing") from error
    except OSError as error:
        raise _refused(path, f"cannot be read ({error.strerror})") from error


def _description(path: Path, text: bytes) -> dict[str, Any]:
    """Parse and check the envelope: format, version, digest.

    Raises:
        StoreError: it is no description, an altered one, or one of a newer clipnlc.
    """
    try:
        tree = json.loads(text)
        found, version = tree["format"], tree["format-version"]
        if found != FORMAT or not isinstance(version, int) or version < 1:
            raise _refused(
                path,
                f"has format {quoted(found)} version {quoted(version)}, expected {quoted(FORMAT)}",
            )
        if version > VERSION:
            raise StoreError(
                f"{path} has format-version {version}, this clipnlc reads up to {VERSION}: "
                "update clipnlc"
            )
        unaltered = matches_digest(read_exactly(text))
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise _refused(path, f"is no description of an ensemble ({_line(error)})") from error
    if not unaltered:
        raise _refused(path, "was altered: it does not match its digest")
    return dict(tree)


def _arrays(
    path: Path, data: bytes, digest: str, tensors: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Parse the arrays and compare each with what the description says.

    Raises:
        StoreError: they are others.
    """
    if _digest(data) != digest:
        raise _refused(path, f"was altered: it does not match its digest in {DESCRIPTION}")
    try:
        arrays: dict[str, np.ndarray] = safetensors.numpy.load(data)
    except (SafetensorError, KeyError, TypeError, ValueError, ImportError) as error:
        raise _refused(path, f"is no safetensors file ({_line(error)})") from error
    for name in sorted(arrays.keys() ^ tensors.keys()):
        where = "and not in" if name in arrays else "but only in"
        raise _refused(
            path, f"does not fit: the array {quoted(name)} is in it {where} {DESCRIPTION}"
        )
    for name, array in arrays.items():
        _check_array(name, array, lambda problem: _refused(path, f"is damaged: {problem}"))
        if _facts_of(array) != tensors[name]:
            raise _refused(
                path,
                f"does not fit: the array {quoted(name)} is {array.dtype.name} {list(array.shape)} and "
                f"{DESCRIPTION} says otherwise",
            )
    return arrays


def _check_array(name: str, array: np.ndarray, refuse: Refuse) -> None:
    if not _TENSOR.fullmatch(name):
        raise refuse(f"the array {quoted(name)} is of no head and of no combiner")
    check_learnt(name, array, refuse)
    if not array.size:
        raise refuse(f"the array {quoted(name)} is empty")


def _export(tree: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Export:
    """Build the value; KeyError, TypeError and ValueError say what is wrong with the tree."""
    backbones = _objects(tree, "backbones")
    learnt: dict[str, dict[str, np.ndarray]] = {}
    for name, array in arrays.items():
        owner, _, own_name = name.rpartition("/")
        learnt.setdefault(owner, {})[own_name] = array
    if not backbones:
        raise ValueError("there are no backbones")
    strangers = learnt.keys() - {"combiner", *(f"heads/{n}" for n in range(len(backbones)))}
    if strangers:
        raise ValueError(f"there are arrays {min(strangers)}, and {len(backbones)} backbones")
    heads = tuple(_head(one, learnt.get(f"heads/{n}", {})) for n, one in enumerate(backbones))
    names = [head.backbone for head in heads]
    if len(set(names)) != len(names):
        raise ValueError(f"backbones are {', '.join(names)}, expected none twice")
    return Export(
        dataset=_take(tree, "dataset", str),
        class_names=_texts(tree, "classes"),
        templates=_texts(tree, "prompts"),
        head=_take(tree, "head", str),
        heads=heads,
        fit=_exported_fit(_take(tree, "combiner", dict), learnt.get("combiner", {})),
        measured=tuple(_measurement(one) for one in _objects(tree, "measured")),
        keeps_features=_take(tree, "keeps_features", bool),
        probabilistic=_take(tree, "probabilistic", bool),
        clipnlc=_take(tree, "clipnlc", str),
    )


def _head(tree: Mapping[str, Any], learnt: Mapping[str, np.ndarray]) -> ExportedHead:
    identity = _take(tree, "identity", dict)
    for name, kind in _IDENTITY.items():
        _take(identity, name, kind)
    return ExportedHead(
        backbone=_take(tree, "name", str),
        identity=identity,
        settings=_take(tree, "head_settings", dict),
        learnt=learnt,
    )


def _exported_fit(tree: Mapping[str, Any], learnt: Mapping[str, np.ndarray]) -> ExportedFit:
    facts = _take(tree, "facts", dict)
    if not all(isinstance(fact, str | int | float) for fact in facts.values()):
        raise ValueError("a fact is neither number nor text")
    return ExportedFit(
        combiner=_take(tree, "name", str),
        settings=_take(tree, "settings", dict),
        learnt=learnt,
        backbones=_texts(tree, "backbones"),
        class_names=_texts(tree, "classes"),
        labels=Labels.parse(_take(tree, "labels", str)),
        facts=facts,
    )


def _measurement(tree: Mapping[str, Any]) -> Measurement:
    images = _take(tree, "images", int)
    low, accuracy, high = (_take(tree, name, float) for name in ("low", "accuracy", "high"))
    ordered = -ROUNDING <= low <= accuracy + ROUNDING and accuracy <= high + ROUNDING
    if images < 1 or not ordered or high > 1 + ROUNDING:
        raise ValueError(f"an accuracy on {images} images is {accuracy}, {low} to {high}")
    return Measurement(
        dataset=_take(tree, "dataset", str),
        split=_take(tree, "split", str),
        images=images,
        accuracy=accuracy,
        low=low,
        high=high,
    )


def _objects(tree: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    values = _take(tree, name, list)
    if not all(isinstance(value, dict) for value in values):
        raise TypeError(f"{name} are not a list of objects")
    return values


def _texts(tree: Mapping[str, Any], name: str) -> tuple[str, ...]:
    values = _take(tree, name, list)
    if not values or not all(isinstance(value, str) for value in values):
        raise ValueError(f"{name} are not a list of texts")
    return tuple(values)


def _take(tree: Mapping[str, Any], name: str, kind: type[T]) -> T:
    """Return a member of a JSON object, of this type; a float may be written as an integer.

    Raises:
        KeyError: there is no such member.
        TypeError: it is of another type.
    """
    value = tree[name]
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:  # not isinstance: a boolean is no number here
        raise TypeError(f"{name} is of type {type(value).__name__}, expected {kind.__name__}")
    return value


def _line(error: Exception) -> str:
    return " ".join((str(error) or type(error).__name__).split())[:200]


def _refused(path: Path, problem: str) -> StoreError:
    again = command("export", out=path.parent, force=True)
    return StoreError(f"{path} {problem}; copy the folder again, or make it again with `{again}`")
