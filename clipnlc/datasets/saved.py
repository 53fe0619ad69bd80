"""Folders saved by `datasets` with `save_to_disk`: a `Dataset` or a `DatasetDict`."""

import json
from pathlib import Path
from typing import Any

from clipnlc.datasets import splits as split_names
from clipnlc.datasets.columns import choose_columns
from clipnlc.datasets.fingerprints import digest_texts, hash_files
from clipnlc.datasets.hf import load_saved, one_line
from clipnlc.datasets.rows import Options, Rows
from clipnlc.datasets.tables import MappedTable, mapped_images, number_labels, sample_ids
from clipnlc.errors import DataError, shown
from clipnlc.files import open_regular, read_regular

_LARGEST_JSON = 2**28


def saved_splits(root: Path) -> dict[str, str]:
    """Return the splits of a folder made by `save_to_disk`: name -> subfolder (or "")."""
    if (root / "dataset_dict.json").is_file():
        words = _json(root / "dataset_dict.json").get("splits")
        if not isinstance(words, list) or not words or not all(map(_is_name, words)):
            raise _damaged(root / "dataset_dict.json", f"splits is {shown(words)}")
        grouped = split_names.gather(((w, w) for w in words), root)
        return {name: members[0] for name, members in grouped.items()}
    word = _json(root / "state.json").get("_split") or split_names.WHOLE
    if not _is_name(word):
        raise _damaged(root / "state.json", f"_split is {shown(word)}")
    return {split_names.canonical(word): ""}


def open_saved(root: Path, split: str, options: Options) -> Rows:
    """Open a split of a folder made by `save_to_disk` (a `Dataset` or a `DatasetDict`).

    Raises:
        DataError: no such split, no usable columns, a missing label or image, damaged files.
    """
    folders = saved_splits(root)
    name, _ = split_names.pick(folders, split, root)
    files = {s: _files(root, f) for s, f in folders.items()}
    tables = {s: MappedTable(load_saved(root / f), str(root / f)) for s, f in folders.items()}
    columns = choose_columns(
        tables[name].schema, str(root), options.image_column, options.label_column
    )
    hashes = hash_files(root, files[name], options.hash_cache)
    content = digest_texts([columns.image, *files[name], *hashes])
    rows = tables[name].rows
    sample_id, notes = sample_ids(
        tables[name], columns, str(root), lambda: [f"{name}:{row}" for row in range(len(rows))]
    )
    labels, identifiers, more = number_labels(tables, name, columns.label, str(root), sample_id)
    images = mapped_images(rows, columns.image, sample_id, str(root))
    return Rows(name, labels, identifiers, sample_id, images, content, notes + more)


def _files(root: Path, folder: str) -> list[str]:
    """Return the files of a split, relative to the root, that `datasets` will open."""
    place = root / folder / "state.json"
    found = _json(place).get("_data_files")
    listed = found if isinstance(found, list) else []
    names = [f.get("filename") for f in listed if isinstance(f, dict)]
    if not names or len(names) < len(listed) or not all(map(_is_name, names)):
        raise _damaged(place, f"_data_files is {shown(found)}")
    _json(place.with_name("dataset_info.json"))
    files = [Path(folder, str(name)).as_posix() for name in names]
    for file in files:
        try:
            open_regular(root / file).close()  # of a named pipe, it would wait for ever
        except OSError as error:
            raise _damaged(root / file, one_line(error)) from error
    return files


def _is_name(word: object) -> bool:
    """Return whether this names one file or folder in another, and nothing elsewhere."""
    return isinstance(word, str) and word not in ("", ".", "..") and not {*"/\\\0"} & {*word}


def _json(file: Path) -> dict[str, Any]:
    try:
        data = json.loads(read_regular(file, at_most=_LARGEST_JSON))
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(file, one_line(error)) from error
    if not isinstance(data, dict):
        raise _damaged(file, f"it holds {shown(data)}")
    return data


def _damaged(file: Path, problem: str) -> DataError:
    return DataError(f"cannot read {file}: {problem}; save the data set again with save_to_disk")
