"""Which column of a table is the image, the label, the sample's name; and what labels are called.

Everything is read from the Arrow schema: a parquet file, a saved folder and a tar opened by
`datasets` all have one, with the features of `datasets` in its metadata when it wrote the file.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int64

from clipnlc.errors import DataError

_IMAGE_NAMES = ("image", "img", "jpg", "jpeg", "png", "webp")
_LABEL_NAMES = ("label", "labels", "fine_label", "cls", "variant", "wnid")
_ID_NAMES = ("sample_id", "id", "__key__")


@dataclass(frozen=True)
class Columns:
    """The columns in use; `id` is None when there is none."""

    image: str
    label: str
    id: str | None


def choose_columns(
    schema: pa.Schema, where: str, image: str | None = None, label: str | None = None
) -> Columns:
    """Choose the columns: as asked, else by feature type, else by the customary names.

    Raises:
        DataError: there is no such column, or several would do.
    """
    features = _features(schema)
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
            f"column {image!r} of {where} holds {schema.field(image).type}, not image files; choose one of {', '.join(schema.names)} with --image-column"
        )
    ids = [n for n in _ID_NAMES if n in schema.names and _is_name(schema.field(n).type)]
    return Columns(image, label, ids[0] if ids else None)


def class_label_names(schema: pa.Schema, label: str) -> tuple[str, ...] | None:
    """Return the names of a `ClassLabel` column, or None when labels have none."""
    feature = _features(schema).get(label, {})
    return tuple(feature["names"]) if feature.get("_type") == "ClassLabel" else None


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
        return [str(value) for value in column.to_pylist()]
    if not pa.types.is_integer(column.type):
        raise DataError(
            f"label column {name!r} of {where} holds {column.type}; expected one integer, word or boolean a row: choose it with --label-column"
        )
    values: Int64[np.ndarray, " samples"] = column.to_numpy().astype(np.int64)
    if len(values) and values.min() < 0:
        raise DataError(
            f"row {row_name(int(values.argmin()))} of {where} has label {values.min()}, which marks unlabelled data; choose a labelled split"
        )
    return values


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_boolean(kind)
    )


def _features(schema: pa.Schema) -> dict[str, dict[str, Any]]:
    text = (schema.metadata or {}).get(b"huggingface")
    if text is None:
        return {}
    features = json.loads(text).get("info", {}).get("features") or {}
    return {name: f for name, f in features.items() if isinstance(f, dict)}


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
        what = f"several {role} columns ({', '.join(found)})"
    else:
        what = f"no column {asked!r}" if asked is not None else f"no {role} column"
    raise DataError(
        f"{where} has {what}; its columns are {', '.join(schema.names)}: choose one with --{role}-column"
    )


def _may_hold_images(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or (pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0)
    )


def _is_name(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind)
    )
