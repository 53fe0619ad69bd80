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
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from clipnlc.commands import command
from clipnlc.digests import matches_digest, read_exactly, with_digest
from clipnlc.errors import ClipnlcError, MissingStageError, StoreError
from clipnlc.export import Export, Measurement
from clipnlc.files import replacing_folder, write_whole
from clipnlc.stores.checks import Refuse
from clipnlc.stores.export_tree import export_of_tree, take
from clipnlc.stores.fitted import check_learnt
from clipnlc.wording import quoted

FORMAT: Final = "clipnlc-ensemble"
VERSION: Final = 1

DESCRIPTION: Final = "ensemble.json"
ARRAYS: Final = "ensemble.safetensors"
CARD: Final = "README.md"

LARGEST_DESCRIPTION: Final = 16 * 2**20
"""Bytes; a description of a thousand classes takes a hundredth."""

_POINTER: Final = b"version https://git-lfs"
_TENSOR: Final = re.compile(r"(?:heads/(0|[1-9]\d*)|combiner)/([^\W\d]\w*)")
_UNRELATED_TO_THE_FIT: Final = ("measured", "clipnlc", "digest")


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
        size = take(take(tree, "arrays", dict), "bytes", int)
        digest = take(tree["arrays"], "blake2b", str)
        tensors = take(tree["arrays"], "tensors", dict)
        place = folder / ARRAYS
        arrays = _arrays(place, _bytes_of(place, exactly=size), digest, tensors)
        place = folder / DESCRIPTION
        return tree, export_of_tree(tree, arrays)
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
        **({} if export.head_package is None else {"head_package": dict(export.head_package)}),
        "backbones": [
            {
                "name": head.backbone,
                "identity": dict(head.identity),
                "head_settings": dict(head.settings),
                **({} if head.teacher is None else {"teacher": asdict(head.teacher)}),
            }
            for head in export.heads
        ],
        "combiner": {
            "name": fit.combiner,
            **({} if fit.package is None else {"package": dict(fit.package)}),
            "settings": dict(fit.settings),
            "labels": fit.labels.name,
            "facts": dict(fit.facts),
            "backbones": list(fit.backbones),
            "classes": list(fit.class_names),
        },
        "measured": [_measured(one) for one in export.measured],
        "keeps_features": export.keeps_features,
        "probabilistic": export.probabilistic,
        "arrays": {
            "bytes": len(data),
            "blake2b": _digest(data),
            "tensors": {name: _facts_of(array) for name, array in sorted(arrays.items())},
        },
    }


def _measured(one: Measurement) -> dict[str, Any]:
    """Spell an accuracy; how it was obtained only where it is not held out, as ever."""
    return {n: v for n, v in vars(one).items() if (n, v) != ("estimate", "held-out")}


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


def _line(error: Exception) -> str:
    return " ".join((str(error) or type(error).__name__).split())[:200]


def _refused(path: Path, problem: str) -> StoreError:
    again = command("export", out=path.parent, force=True)
    return StoreError(f"{path} {problem}; copy the folder again, or make it again with `{again}`")
