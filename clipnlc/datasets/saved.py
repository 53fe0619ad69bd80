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
from clipnlc.errors import DataError


def saved_splits(root: Path) -> dict[str, str]:
    """Return the splits of a folder made by `save_to_disk`: name -> subfolder (or "")."""
    if (root / "dataset_dict.json").is_file():
        words = _json(root / "dataset_dict.json").get("splits", [])
        grouped = split_names.gather(((w, w) for w in words), root)
        return {name: members[0] for name, members in grouped.items()}
    word = _json(root / "state.json").get("_split") or split_names.WHOLE
    return {split_names.canonical(str(word)): ""}


def open_saved(root: Path, split: str, options: Options) -> Rows:
    """Open a split of a folder made by `save_to_disk` (a `Dataset` or a `DatasetDict`).

    Raises:
        DataError: no such split, no usable columns, a missing label or image, damaged files.
    """
    folders = saved_splits(root)
    name, folder = split_names.pick(folders, split, root)
    tables = {s: MappedTable(load_saved(root / f)) for s, f in folders.items()}
    columns = choose_columns(
        tables[name].schema, str(root), options.image_column, options.label_column
    )
    state = _json(root / folder / "state.json")
    files = [str(Path(folder, f["filename"]).as_posix()) for f in state["_data_files"]]
    content = digest_texts([columns.image, *files, *hash_files(root, files, options.hash_cache)])
    rows = tables[name].rows
    sample_id, notes = sample_ids(
        tables[name], columns, lambda: [f"{name}:{row}" for row in range(len(rows))]
    )
    labels, identifiers, more = number_labels(tables, name, columns.label, str(root), sample_id)
    images = mapped_images(rows, columns.image, sample_id, str(root))
    return Rows(name, labels, identifiers, sample_id, images, content, notes + more)


def _json(file: Path) -> dict[str, Any]:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"cannot read {file}: {one_line(error)}; save the data set again with save_to_disk"
        ) from error
    return data if isinstance(data, dict) else {}
