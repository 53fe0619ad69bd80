"""Webdataset tars: `key.jpg` and `key.cls` side by side, class names in `classnames.txt`."""

from collections import Counter
from pathlib import Path

from clipnlc.datasets import splits as split_names
from clipnlc.datasets.columns import choose_columns, holds_text, texts
from clipnlc.datasets.fingerprints import digest_texts, hash_files
from clipnlc.datasets.hf import prepare
from clipnlc.datasets.rows import Options, Rows
from clipnlc.datasets.tables import MappedTable, PreparedImages, number_labels
from clipnlc.errors import DataError, shown


def open_tars(root: Path, split: str, options: Options) -> Rows:
    """Open a split of webdataset tars. Shards are read in numeric order: 2.tar before 10.tar.

    Raises:
        DataError: no such split, damaged tars, samples without image or label, keys with dots
            that `datasets` cannot take apart.
    """
    groups = options.files or split_names.list_files(root, ".tar")
    name, files = split_names.pick(groups, split, root)
    base = root if root.is_dir() else root.parent
    digests = hash_files(base, files, options.hash_cache)
    prepared = digest_texts([*files, *digests])
    table = MappedTable(prepare("webdataset", base, files, prepared), str(root))
    columns = choose_columns(table.schema, str(root), options.image_column, options.label_column)
    if holds_text(table.schema, columns.label):
        raise DataError(
            f"label column {columns.label!r} of {root} holds text; expected integers in a .cls file beside each image: choose another with --label-column"
        )
    sample_id = _tar_ids(table, base)
    labels, _, _ = number_labels({name: table}, name, columns.label, str(root), sample_id)
    images = PreparedImages("webdataset", base, tuple(files), prepared, columns.image, sample_id)
    _ = images.mapped  # refuses empty cells, which an extension that changes leaves
    content = digest_texts([columns.image, *files, *digests])
    return Rows(name, labels, None, sample_id, images, content)


def _tar_ids(table: MappedTable, base: Path) -> tuple[str, ...]:
    """Name samples by their keys, with the tar's name in front when tars repeat a key."""
    read = table.read(["__key__", "__url__"])
    keys = [key.removeprefix("./") for key in texts(read.column("__key__"), str(base), "__key__")]
    if len(set(keys)) == len(keys):
        return tuple(keys)
    urls = read.column("__url__").to_pylist()
    full = [
        f"{split_names.stem(Path(u).relative_to(base.absolute()).as_posix())}/{k}"
        for u, k in zip(urls, keys, strict=True)
    ]
    twice = next((name for name, count in Counter(full).items() if count > 1), None)
    if twice is not None:
        raise DataError(
            f"the key {shown(twice)} comes twice in the tars of {base}; keys name samples: pack the tars again with unique keys"
        )
    return tuple(full)
