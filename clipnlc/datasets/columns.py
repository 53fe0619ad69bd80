"""Which column of a table is the image, the label, the sample's name; and what labels are called.

Everything is read from the Arrow schema: a parquet file, a saved folder and a tar opened by
`datasets` all have one, with the features of `datasets` in its metadata when it wrote the file.
"""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int64

from clipnlc.errors import DataError
from clipnlc.wording import quoted, shown

_IMAGE_NAMES = ("image", "img", "jpg", "jpeg", "png", "webp")
_LABEL_NAMES = ("label", "labels", "fine_label", "cls", "variant", "wnid")
_ID_NAMES = ("sample_id", "id", "__key__")
_SHOWN = 20


@dataclass(frozen=True)
class Columns:
    """The columns in use; `id` is None without such a column."""

    image: str
    label: str
    id: str | None


def choose_columns(
    schema: pa.Schema, where: str, image: str | None = None, label: str | None = None
) -> Columns:
    """Choose the columns: as asked, else by feature type, else by the customary names.

    Raises:
        DataError: there is no such column, or several would do; two columns share a name; the
            features that `datasets` wrote are damaged.
    """
    twice = [name for name, count in Counter(schema.names).items() if count > 1]
    if twice:
        raise DataError(f"{where} has two columns called {quoted(twice[0])}; rename one of them")
    features = _features(schema, where)
    kinds = {name: features.get(name, {}).get("_type") for name in schema.names}
    images = [n for n in schema.names if kinds[n] == "Image"]
    plain = [n for n in schema.names if _may_hold_images(schema.field(n).type)]
    classes = [n for n in schema.names if kinds[n] == "ClassLabel"]
    image = _choose(
        schema,
        where,
        "image",
        image,
        (_named(images, _IMAGE_NAMES[:2])[:1], images, _named(plain, _IMAGE_NAMES)[:1]),
    )
    label = _choose(
        schema, where, "label", label, (_named(schema.names, _LABEL_NAMES)[:1], classes)
    )
    if not _may_hold_images(schema.field(image).type):
        raise DataError(
            f"column {image!r} of {where} holds {shown(schema.field(image).type)}, not image files; choose one of {_some(schema.names)} with --image-column"
        )
    ids = [n for n in _ID_NAMES if n in schema.names and _is_name(schema.field(n).type)]
    return Columns(image, label, ids[0] if ids else None)


def class_label_names(schema: pa.Schema, label: str, where: str) -> tuple[str, ...] | None:
    """Return the names of a `ClassLabel` column, or None when labels have none.

    Raises:
        DataError: the features are damaged, or the names are no list of different words.
    """
    feature = _features(schema, where).get(label, {})
    if feature.get("_type") != "ClassLabel" or feature.get("names") is None:
        return None
    names = feature["names"]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(
            f"the class names of column {label!r} of {where} are {shown(names)}; expected a list of words: write the data set again"
        )
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(
            f"column {label!r} of {where} has two classes called {quoted(twice[0])}; rename one and write the data set again"
        )
    return tuple(names)


def holds_text(schema: pa.Schema, label: str) -> bool:
    """Return whether labels are words (or booleans), which are mapped by their sorted values."""
    return _is_text(schema.field(label).type)


def label_values(
    column: pa.ChunkedArray, where: str, name: str, row_name: Callable[[int], str]
) -> Int64[np.ndarray, " samples"] | list[str]:
    """Return labels as integers, or as words (booleans are the words `False` and `True`).

    Raises:
        DataError: a label is missing or negative, or the column is of another type.
    """
    if column.null_count:
        row = pc.index(column.is_null(), value=True).as_py()
        raise DataError(
            f"row {row_name(row)} of {where} has no label in column {name!r}; label or remove it"
        )
    if _is_text(column.type):
        return texts(column, where, name)
    if not pa.types.is_integer(column.type):
        raise DataError(
            f"label column {name!r} of {where} holds {shown(column.type)}; expected one integer, word or boolean a row: choose it with --label-column"
        )
    values: Int64[np.ndarray, " samples"] = column.to_numpy().astype(np.int64)  # may turn negative
    if len(values) and values.min() < 0:
        raise DataError(
            f"row {row_name(int(values.argmin()))} of {where} has label {values.min()}, which marks unlabelled data; choose a labelled split"
        )
    return values


def texts(column: pa.ChunkedArray | pa.Array, where: str, name: str) -> list[str]:
    """Return words or numbers as texts.

    Raises:
        DataError: a cell is empty or no UTF-8.
    """
    try:
        cells = column.to_pylist()
    except UnicodeDecodeError as error:
        raise DataError(
            f"column {name!r} of {where} has a cell that is no UTF-8: {error.reason}; write it again"
        ) from error
    if None in cells:  # as a member of a dictionary; other empty cells are found before
        raise DataError(
            f"row {cells.index(None)} of {where} has nothing in column {name!r}; fill or remove it"
        )
    return [str(cell) for cell in cells]


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_boolean(kind)
    )


def _features(schema: pa.Schema, where: str) -> dict[str, dict[str, Any]]:
    """Return what `datasets` wrote of each column; nothing where it wrote nothing.

    Raises:
        DataError: it is damaged.
    """
    text = (schema.metadata or {}).get(b"huggingface")
    if text is None:
        return {}
    try:
        features = json.loads(text)["info"]["features"]
        if features is None:
            return {}
        return {name: f for name, f in features.items() if isinstance(f, dict)}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(
            f"the `huggingface` metadata of {where} is damaged ({shown(error)}); write the data set again, or without it"
        ) from error


def _named(names: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """Return the columns so called; a tar whose keys hold dots makes columns like `v2.jpg`."""
    return [n for w in wanted for n in names if n.rsplit(".", 1)[-1].lower() == w]


def _choose(
    schema: pa.Schema, where: str, role: str, asked: str | None, tiers: Sequence[Sequence[str]]
) -> str:
    """Return the column asked for, or the only one of the first tier that has any."""
    found = [asked] if asked is not None else next((list(t) for t in tiers if t), [])
    if len(found) == 1 and found[0] in schema.names:
        return found[0]
    if len(found) > 1:
        what = f"several {role} columns ({_some(found)})"
    else:
        what = f"no column {asked!r}" if asked is not None else f"no {role} column"
    raise DataError(
        f"{where} has {what}; its columns are {_some(schema.names)}: choose one with --{role}-column"
    )


def _may_hold_images(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or _holds_bytes(kind)
    )


def _holds_bytes(kind: pa.DataType) -> bool:
    """Return whether cells have one field `bytes`, of bytes; where all are empty, of nothing."""
    if not pa.types.is_struct(kind) or kind.get_field_index("bytes") < 0:
        return False
    inner = kind.field("bytes").type
    return bool(
        pa.types.is_binary(inner) or pa.types.is_large_binary(inner) or pa.types.is_null(inner)
    )


def _some(names: Sequence[str]) -> str:
    """Show the first columns."""
    listed = ", ".join(map(shown, names[:_SHOWN]))
    return listed if len(names) <= _SHOWN else f"{listed}, ... ({len(names)})"


def _is_name(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind)
    )
