"""Files of arrays that a person brings: features, logits, labels and names, each under its own name.

Formats: `.npz`, `.npy`, a folder of `.npy` files, `.safetensors`, `.parquet`, and a folder saved by
`datasets`. Nothing is unpickled. Arrays come as they are; `clipnlc.datasets.arrays` says what each
one is and checks it.
"""

import json
import tokenize
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
from safetensors import SafetensorError, safe_open

from clipnlc.datasets import splits as split_names
from clipnlc.datasets.columns import class_label_names
from clipnlc.datasets.fingerprints import digest_texts, hash_file
from clipnlc.datasets.hf import UNREADABLE, load_saved, one_line
from clipnlc.datasets.parquet import ParquetFiles
from clipnlc.datasets.saved import saved_splits
from clipnlc.datasets.tables import MappedTable, Table
from clipnlc.errors import DataError
from clipnlc.files import open_regular
from clipnlc.wording import quoted, shown, some

_UNREADABLE: Final = (
    *UNREADABLE,
    SafetensorError,
    zipfile.BadZipFile,
    tokenize.TokenError,  # of a header of numpy's
    SyntaxError,
)

ENDINGS: Final = (".npz", ".npy", ".safetensors", ".parquet")


@dataclass(frozen=True)
class ArrayFile:
    """The arrays of one file or folder, read one by one.

    Attributes:
        path: the file or folder.
        names: of the arrays, in the file's order.
        digest: SHA-256 that names the content of all of them.
        load: returns one array.
        class_names: returns the names that a column's integers stand for; None without any.
    """

    path: Path
    names: tuple[str, ...]
    digest: str
    load: Callable[[str], np.ndarray]
    class_names: Callable[[str], tuple[str, ...] | None] = lambda _name: None

    def read(self, name: str) -> np.ndarray:
        """Return one array: numbers, or an array of strings, in which None is an empty cell.

        Raises:
            DataError: there is no such array, or it is damaged, pickled or of an unknown type.
        """
        if name not in self.names:
            raise DataError(
                f"{self.path} has no array {quoted(name)}; it has {some(self.names, 12)}: name "
                "one of them"
            )
        try:
            return _plain(np.asanyarray(self.load(name)), self.path, name)
        except _UNREADABLE as error:
            if any(words in str(error) for words in ("allow_pickle", "Python objects")):
                raise DataError(
                    f"{quoted(name)} of {self.path} is an array of Python objects (dtype=object), which "
                    "is pickled, and nothing is unpickled; save np.asarray(x, dtype=str) of texts, and "
                    "np.asarray(x, dtype=np.float32) of numbers"
                ) from error
            raise DataError(
                f"cannot read {quoted(name)} of {self.path}: {one_line(error)}; save it again as "
                "numbers or strings, as with np.savez"
            ) from error


def open_arrays(path: Path, split: str) -> ArrayFile:
    """Open a file, or a folder, of arrays.

    Args:
        path: see the module for the formats.
        split: which one, of a saved `DatasetDict`.

    Raises:
        DataError: there is no such file, it is of another format, or it is damaged.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist; give a file of arrays ({', '.join(ENDINGS)})")
    opener = _OPENERS.get(path.suffix.lower())
    if path.is_dir():
        saved = any((path / name).is_file() for name in ("dataset_dict.json", "state.json"))
        return _open_saved(path, split) if saved else _open_folder(path)
    if opener is None:
        raise DataError(
            f"{path} is of no format that is known; give {', '.join(ENDINGS)}, a folder of .npy "
            "files, or a folder saved by `datasets`"
        )
    try:
        open_regular(path).close()  # of a named pipe, readers would wait for ever
        return opener(path)
    except _UNREADABLE as error:
        raise DataError(f"cannot read {path}: {one_line(error)}; save it again") from error


def _open_npz(path: Path) -> ArrayFile:
    # Opened here: numpy leaves a damaged file open.
    with open_regular(path) as raw, np.load(raw, allow_pickle=False) as file:
        names = tuple(file.files)

    def load(name: str) -> np.ndarray:
        with open_regular(path) as raw, np.load(raw, allow_pickle=False) as file:
            found: np.ndarray = file[name]
            return found

    return ArrayFile(path, names, hash_file(path), load)


def _open_npy(path: Path) -> ArrayFile:
    return ArrayFile(path, (path.stem,), hash_file(path), lambda _name: _npy(path))


def _open_folder(path: Path) -> ArrayFile:
    files = {file.stem: file for file in sorted(path.glob("*.npy"))}
    if not files:
        raise DataError(
            f"{path} is a folder without .npy files, and none that `datasets` saved; give a file "
            f"of arrays ({', '.join(ENDINGS)})"
        )
    digest = digest_texts(
        [text for name, file in files.items() for text in (name, hash_file(file))]
    )
    return ArrayFile(path, tuple(files), digest, lambda name: _npy(files[name]))


def _npy(path: Path) -> np.ndarray:
    found: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    return found


def _open_safetensors(path: Path) -> ArrayFile:
    """Open tensors; strings, which the format lacks, are JSON lists in its metadata."""
    with safe_open(str(path), framework="numpy") as file:
        tensors, told = tuple(file.keys()), file.metadata() or {}
    lists = {name: words for name, text in told.items() if (words := _words(text)) is not None}

    def load(name: str) -> np.ndarray:
        if name in lists:
            return np.array(lists[name], dtype=object)
        with safe_open(str(path), framework="numpy") as file:
            found: np.ndarray = file.get_tensor(name)
            return found

    return ArrayFile(path, (*tensors, *lists), hash_file(path), load)


def _words(text: str) -> list[str] | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, list) and all(isinstance(w, str) for w in found) else None


def _open_parquet(path: Path) -> ArrayFile:
    table = ParquetFiles(path.parent, (path.name,))
    return _of_table(path, table, hash_file(path))


def _open_saved(root: Path, split: str) -> ArrayFile:
    folders = saved_splits(root)
    name = next(iter(folders)) if len(folders) == 1 else split_names.pick(folders, split, root)[0]
    folder = root / folders[name]
    table = MappedTable(load_saved(folder), str(root))
    files = sorted(folder.glob("*.arrow"))
    digest = digest_texts([text for file in files for text in (file.name, hash_file(file))])
    return _of_table(root, table, digest)


def _of_table(path: Path, table: Table, digest: str) -> ArrayFile:
    schema = table.schema
    return ArrayFile(
        path=path,
        names=tuple(schema.names),
        digest=digest,
        load=lambda name: _column(table.read([name]).column(0)),
        class_names=lambda name: class_label_names(schema, name, str(path)),
    )


def _column(column: pa.ChunkedArray) -> np.ndarray:
    """Return a column of numbers, words, or lists of as many numbers each."""
    kind = column.type
    whole = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], kind)
    fixed = pa.types.is_fixed_size_list(kind)
    if not (fixed or pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
            found: np.ndarray = whole.to_numpy(zero_copy_only=False)  # empty cells become NaN
            return found
        return np.array(whole.to_pylist(), dtype=object)
    if whole.null_count:
        raise ValueError(f"row {whole.is_null().to_pylist().index(True)} is empty")
    lengths = {kind.list_size} if fixed else {*whole.value_lengths().to_pylist()}
    if len(lengths) > 1:
        raise ValueError(f"its rows hold {min(lengths)} to {max(lengths)} numbers")
    values = whole.flatten()
    if values.null_count:
        raise ValueError("a number in it is missing")
    flat: np.ndarray = values.to_numpy(zero_copy_only=False)
    return flat.reshape(len(whole), lengths.pop() if lengths else 0)


_OPENERS: Final[Mapping[str, Callable[[Path], ArrayFile]]] = {
    ".npz": _open_npz,
    ".npy": _open_npy,
    ".safetensors": _open_safetensors,
    ".parquet": _open_parquet,
}


def _plain(array: np.ndarray, path: Path, name: str) -> np.ndarray:
    """Return numbers as they are, and texts as an array of Python strings."""
    if array.dtype.kind in "biuf":
        return array
    if array.dtype.kind == "S":
        return np.array([cell.decode() for cell in array.ravel()], object).reshape(array.shape)
    if array.dtype.kind == "U":
        return array.astype(object)
    cells: Sequence[object] = array.ravel().tolist() if array.dtype.kind == "O" else ()
    if array.dtype.kind == "O" and all(cell is None or isinstance(cell, str) for cell in cells):
        return array
    raise DataError(
        f"{quoted(name)} of {path} holds {shown(array.dtype)}; expected numbers or strings"
    )
