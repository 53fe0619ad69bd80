"""The feature store: what one backbone sees in one split (`docs/formats/feature-store.md`).

An extraction writes it as shards (`clipnlc.stores.shards`), which are merged at its end. A finished
file is read whole, or its features by the rows that are needed.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int, Int64, UInt8

from clipnlc.digests import content_digest
from clipnlc.errors import StoreError
from clipnlc.stores import _h5, checks
from clipnlc.stores.key import Key
from clipnlc.wording import quoted

FORMAT = "clipnlc-features"
FEATURE_TYPES = ("<f4", "<f2")
CONTENT = "content"  # an array that older files lack
TEXTS = "texts"  # an array that files of backbones without texts lack
WITHOUT_TEXTS = 3  # the first version of the format in which a file may lack texts
DIGEST_BYTES = 16  # of an image's digest

Skipped = tuple[str, str]  # sample_id and the reason why its image could not be read


@dataclass(frozen=True)
class FeatureColumns:
    """A feature file without its features: its samples, and the backbone's view of the classes.

    Attributes:
        labels: class numbers in `[0, classes)`.
        sample_id: one identifier per row, unique.
        class_names: one per class.
        texts: one unit vector per class, the mean of its embedded prompts; None of a backbone that
            embeds no texts.
        logit_scale: the backbone's own factor on cosines (CLIP: up to 100); None without texts.
        logit_bias: the backbone's own offset on logits; 0 where it has none.
        key: every resolved input by name.
        skipped: samples that have no row, each with the reason.
        digest: names the content of the file.
        content: digest of each image's bytes (`datasets.fingerprints`); None in older files.
    """

    labels: Int64[np.ndarray, " samples"]
    sample_id: tuple[str, ...]
    class_names: tuple[str, ...]
    texts: Float32[np.ndarray, "classes dim"] | None
    logit_scale: float | None
    logit_bias: float
    key: Key
    skipped: tuple[Skipped, ...]
    digest: str
    content: UInt8[np.ndarray, "samples 16"] | None


@dataclass(frozen=True)
class FeatureStore(FeatureColumns):
    """One backbone's features of one split, and its view of the classes.

    Attributes:
        features: float32 or float16, as the backbone gave them (not normalised); of width 0 where
            it gives logits alone, which then lie in the head `imported`.
    """

    features: Float[np.ndarray, "samples dim"]


@dataclass(frozen=True)
class FeatureHeader:
    """Facts of a feature file that need no reading of its features.

    Attributes:
        key: every resolved input by name.
        digest: names the content of the file.
        rows: number of samples.
        dim: width of a feature; 0 of a backbone that gives logits alone.
        classes: number of classes.
        skipped: number of samples that have no row.
        has_texts: whether the backbone embeds texts.
    """

    key: Key
    digest: str
    rows: int
    dim: int
    classes: int
    skipped: int
    has_texts: bool


def read_features(path: Path) -> FeatureStore:
    """Read and check a whole feature file.

    Raises:
        MissingStageError: there is no such file.
        StoreError: the file is damaged, foreign, newer than this clipnlc, or breaks the format.
    """
    content = _h5.read(path, FORMAT)
    features = content.array("features", *FEATURE_TYPES, dimensions=2)
    columns = _feature_columns(content, features.shape)

    def refuse(problem: str) -> StoreError:
        return _h5.damaged(path, f"breaks the format: {problem}")

    checks.check_finite("features", features, columns.sample_id, refuse)
    checks.check_not_zero("features", features, columns.sample_id, refuse)
    return FeatureStore(**vars(columns), features=features)


class FeatureFile:
    """An open feature file, read by the parts that are needed; made by `open_features`."""

    def __init__(self, file: _h5.SealedFile) -> None:
        self.rows, self.dim = file.header.shape("features", 2, *FEATURE_TYPES)
        self._file = file

    def columns(self) -> FeatureColumns:
        """Read and check everything but the features; nothing of it is kept here.

        Raises:
            StoreError: the file is damaged or breaks the format.
        """
        content = self._file.content(lambda name: name != "features")
        return _feature_columns(content, (self.rows, self.dim))

    def read(
        self,
        rows: Int[np.ndarray, " rows"],
        out: Float[np.ndarray, "rows dim"] | None = None,
    ) -> Float[np.ndarray, "rows dim"]:
        """Read and check the features of these rows, in this order; a row may stand repeatedly.

        Args:
            rows: row numbers, from 0.
            out: where to put them, float32 or as they are stored; a new array by default.

        Raises:
            StoreError: one of the rows is damaged or breaks the format.
            IndexError: there is no such row.
        """
        features = self._file.rows("features", rows, out=out)
        self._check(features, rows)
        return features

    def digests(self, rows: Int[np.ndarray, " rows"]) -> UInt8[np.ndarray, "rows 16"]:
        """Read the digests of the images of these rows, in this order.

        Raises:
            StoreError: one of them is damaged.
        """
        return self._file.rows(CONTENT, rows)

    def blocks(self, rows: int) -> Iterator[Float[np.ndarray, "block dim"]]:
        """Read the features at most `rows` rows at a time, each block checked before it is given.

        Raises:
            StoreError: the features are damaged or break the format.
        """
        start = 0
        for block in self._file.blocks("features", rows):
            self._check(block, range(start, start + len(block)))
            start += len(block)
            yield block

    def _check(self, features: Float[np.ndarray, "rows dim"], numbers: checks.Numbers) -> None:
        def refuse(problem: str) -> StoreError:
            return _h5.damaged(self._file.header.path, f"breaks the format: {problem}")

        checks.check_finite("features", features, numbers, refuse)
        checks.check_not_zero("features", features, numbers, refuse)


@contextmanager
def open_features(path: Path) -> Iterator[FeatureFile]:
    """Open a feature file to read the parts of it that are needed.

    Raises:
        MissingStageError: there is no such file.
        StoreError: the header is damaged, foreign or newer than this clipnlc.
    """
    with _h5.opened(path, FORMAT) as file:
        yield FeatureFile(file)


def read_feature_columns(path: Path) -> FeatureColumns:
    """Read and check a feature file but for its features.

    Raises:
        MissingStageError: there is no such file.
        StoreError: the file is damaged, foreign, newer than this clipnlc, or breaks the format.
    """
    with open_features(path) as file:
        return file.columns()


def read_feature_blocks(path: Path, rows: int) -> Iterator[Float[np.ndarray, "block dim"]]:
    """Read the features at most `rows` rows at a time, so that memory stays bounded.

    Raises:
        MissingStageError: there is no such file.
        StoreError: the file is damaged, foreign, newer than this clipnlc, or breaks the format.
    """
    with open_features(path) as file:
        yield from file.blocks(rows)


def _feature_columns(content: _h5.Content, shape: tuple[int, ...]) -> FeatureColumns:
    """Take and check everything but the features, whose shape is given."""
    labels = read_labels(content)
    sample_id = content.strings("sample_id")
    class_names = content.strings("class_names")
    of_images = read_content(content)
    texts, logit_scale, logit_bias = read_class_texts(content)

    def refuse(problem: str) -> StoreError:
        return _h5.damaged(content.header.path, f"breaks the format: {problem}")

    columns = {"features": shape[0], "labels": len(labels), "sample ids": len(sample_id)}
    if of_images is not None:
        columns["digests of images"] = len(of_images)
    checks.check_lengths(columns, refuse)
    if texts is not None:
        checks.check_lengths({"class names": len(class_names), "texts": len(texts)}, refuse)
        checks.check_lengths({"features": shape[1], "texts": texts.shape[1]}, refuse)
    checks.check_text("class name", class_names, refuse)
    checks.check_names("sample_id", sample_id, refuse)
    checks.check_labels(labels, sample_id, len(class_names), refuse)
    check_texts(texts, logit_scale, logit_bias, class_names, refuse)
    check_classes(content.header.key().fields.get("classes"), class_names, refuse)
    return FeatureColumns(
        labels=labels,
        sample_id=sample_id,
        class_names=class_names,
        texts=texts,
        logit_scale=logit_scale,
        logit_bias=logit_bias,
        key=content.header.key(),
        skipped=read_skipped(content),
        digest=content.header.digest,
        content=of_images,
    )


def read_feature_header(path: Path) -> FeatureHeader:
    """Read key, digest and sizes of a feature file, checked, without its features.

    Raises:
        MissingStageError: there is no such file.
        StoreError: the header is damaged, foreign or newer than this clipnlc.
    """
    header = _h5.read_header(path, FORMAT)
    rows, dim = header.shape("features", 2)
    return FeatureHeader(
        key=header.key(),
        digest=header.digest,
        rows=rows,
        dim=dim,
        classes=header.shape("class_names", 1)[0],
        skipped=header.shape("skipped/sample_id", 1)[0],
        has_texts=TEXTS in header.entries,
    )


class ClassTexts(NamedTuple):
    """A backbone's view of the classes; the attributes are those of `FeatureColumns`."""

    texts: Float32[np.ndarray, "classes dim"] | None
    logit_scale: float | None
    logit_bias: float


def read_class_texts(content: _h5.Content) -> ClassTexts:
    """Return the texts of a feature or text file, None where it has none, unchecked.

    Raises:
        StoreError: they are missing, and the file is of a version that has them always; they lack
            the two numbers that turn cosines into logits.
    """
    header = content.header
    version = header.attribute("format-version", int)
    if TEXTS not in header.entries and version >= WITHOUT_TEXTS:
        return ClassTexts(None, None, 0.0)
    return ClassTexts(
        content.array(TEXTS, "<f4", dimensions=2),
        header.attribute("logit_scale", float),
        header.attribute("logit_bias", float),
    )


class TextParts(NamedTuple):
    """What a file stores of `ClassTexts`, and the format version that can say it."""

    version: int
    attributes: dict[str, float]
    datasets: dict[str, Float32[np.ndarray, "classes dim"]]


def text_parts(
    texts: Float32[np.ndarray, "classes dim"] | None, logit_scale: float | None, logit_bias: float
) -> TextParts:
    """Return what `read_class_texts` reads back; it was checked by `check_texts`."""
    if texts is None or logit_scale is None:
        return TextParts(WITHOUT_TEXTS, {}, {})
    scale = {"logit_scale": float(logit_scale), "logit_bias": float(logit_bias)}
    return TextParts(_h5.WRITTEN, scale, {TEXTS: texts})


def check_texts(
    texts: Float32[np.ndarray, "classes dim"] | None,
    logit_scale: float | None,
    logit_bias: float,
    class_names: Sequence[str],
    refuse: Callable[[str], StoreError],
) -> None:
    """Check the class embeddings and the two numbers that turn cosines into logits.

    Raises:
        StoreError: by `refuse`; a text is NaN, infinite or zero, the scale is not positive, or
            the bias is not finite; there are texts without a scale, or the other way round.
    """
    if texts is None and logit_scale is None and logit_bias == 0:
        return
    if texts is None or logit_scale is None:
        raise refuse(
            f"it has {'no texts' if texts is None else 'texts'}, and its logit scale is {logit_scale} "
            f"and its logit bias {logit_bias}, where texts with a scale, or neither, were expected"
        )
    checks.check_finite("texts", texts, class_names, refuse)
    checks.check_not_zero("texts", texts, class_names, refuse)
    if not (math.isfinite(logit_scale) and logit_scale > 0 and math.isfinite(logit_bias)):
        raise refuse(
            f"its logit scale is {logit_scale} and its logit bias {logit_bias}, "
            "where a positive and a finite number were expected"
        )


def check_made(path: Path, key: Key) -> None:
    """Check that the key of features or shards names images and classes, as an extraction does.

    Raises:
        StoreError: it does not.
    """
    if not {"images", "classes"} <= key.fields.keys():
        raise _h5.damaged(path, "has a key without images or classes")


def check_classes(
    fields: object, class_names: Sequence[str], refuse: Callable[[str], StoreError]
) -> None:
    """Check that class names are those whose digest a key names, where it names one.

    Raises:
        StoreError: by `refuse`; they are others.
    """
    if isinstance(fields, dict) and "names" in fields:
        found = content_digest(list(class_names))
        if fields["names"] != found:
            raise refuse(
                f"its class names have the digest {found}, and its key names {quoted(fields['names'])}"
            )


def read_labels(content: _h5.Content) -> Int64[np.ndarray, " samples"]:
    """Return the labels of a feature file or a shard.

    Raises:
        StoreError: they are missing.
    """
    return content.array("labels", "<i8", dimensions=1)


def read_content(content: _h5.Content) -> UInt8[np.ndarray, "samples 16"] | None:
    """Return the digests of the images of a feature file or a shard; None where it has none.

    Raises:
        StoreError: they are not 16 bytes each.
    """
    if CONTENT not in content.header.entries:
        return None
    found = content.array(CONTENT, "|u1", dimensions=2)
    if found.shape[1] != DIGEST_BYTES:
        raise _h5.damaged(
            content.header.path, f"has digests of {found.shape[1]} bytes, not {DIGEST_BYTES}"
        )
    return found


def read_skipped(content: _h5.Content) -> tuple[Skipped, ...]:
    """Return the samples without a row of a feature file or a shard.

    Raises:
        StoreError: they are missing, or not one reason for each.
    """
    ids, reasons = content.strings("skipped/sample_id"), content.strings("skipped/reason")
    if len(ids) != len(reasons):
        raise _h5.damaged(content.header.path, "has no reason for each skipped sample")
    return tuple(zip(ids, reasons, strict=True))
