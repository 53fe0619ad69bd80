"""The given store: what the fits of one run give on a split (`docs/formats/given-store.md`).

A combiner that weighs backbones leaves its weights, from which the combined logits follow exactly;
any leaves the values that the measures need of each sample, and its scores where they are wanted.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Float64

from clipnlc.digests import canonical_json, read_exactly
from clipnlc.stores import _h5, checks
from clipnlc.stores.fitted import combiners_of, current, group_of, not_written
from clipnlc.stores.key import Key

FORMAT = "clipnlc-given"


@dataclass(frozen=True)
class GivenArrays:
    """What one fit gives on a split.

    Attributes:
        key: the fit, the measures and the split by name; `inputs` names what it was made from.
        values: by measure, what it needs of each sample.
        weights: factor of each backbone's logits in each sample's sum; None where the combiner
            does not weigh.
        scores: higher is better, on the combiner's own scale; None where they were not kept.
    """

    key: Key
    values: Mapping[str, Float64[np.ndarray, "samples _"]]
    weights: Float32[np.ndarray, "samples backbones"] | None = None
    scores: Float32[np.ndarray, "samples classes"] | None = None

    def arrays(self) -> dict[str, np.ndarray]:
        """Return every array by its name in the file; the values of all measures are one."""
        found: dict[str, np.ndarray] = {}
        if self.values:
            found["values"] = np.concatenate(list(self.values.values()), axis=1)
        if self.weights is not None:
            found["weights"] = self.weights
        if self.scores is not None:
            found["scores"] = self.scores
        return found

    @property
    def columns(self) -> list[list[str | int]]:
        """Each measure and how many columns of `values` are its own, in order."""
        return [[measure, value.shape[1]] for measure, value in self.values.items()]


@dataclass(frozen=True)
class GivenStore:
    """What all fits of one run give on a split. Labels are not in it.

    Attributes:
        sample_id: of the rows.
        backbones: the ensemble, in the order of `weights`.
        class_names: in the order of `scores`.
        given: by combiner.
        digest: names the content of the file; empty until it is read from one.
    """

    sample_id: tuple[str, ...]
    backbones: tuple[str, ...]
    class_names: tuple[str, ...]
    given: Mapping[str, GivenArrays]
    digest: str = ""


@dataclass(frozen=True)
class GivenHeader:
    """Facts of a given file that need no reading of its arrays.

    Attributes:
        keys: by combiner.
        digest: names the content of the file.
        rows: number of samples.
    """

    keys: Mapping[str, Key]
    digest: str
    rows: int


def add_given(path: Path, store: GivenStore) -> str:
    """Write what the combiners of `store` give, beside those in the file that still fit.

    One already there stays when it is not written anew, and samples, backbones, classes and the
    inputs that they share are the same. The file is replaced at once; the caller holds
    `locks.writing(path)`. Returns the digest of the content.

    Raises:
        StoreError: a number is NaN or infinite; the present file is damaged; the disk is full.
    """
    if path.exists():
        present = read_given(path)
        columns = [(s.sample_id, s.backbones, s.class_names) for s in (present, store)]
        if columns[0] == columns[1]:
            kept = current(present.given, store.given)
            store = replace(store, given={**kept, **store.given})
    return _write(path, store)


def read_given(path: Path) -> GivenStore:
    """Read and check a whole given file.

    Raises:
        MissingStageError: there is no such file.
        StoreError: the file is damaged, foreign, newer than this clipnlc, or breaks the format.
    """
    content = _h5.read(path, FORMAT)
    store = GivenStore(
        sample_id=content.strings("sample_id"),
        backbones=content.strings("backbones"),
        class_names=content.strings("class_names"),
        given={name: _given(content, name) for name in combiners_of(content.header)},
        digest=content.header.digest,
    )
    _check(store, lambda problem: _h5.damaged(path, f"breaks the format: {problem}"))
    return store


def read_given_header(path: Path) -> GivenHeader:
    """Read the key of every combiner, checked, without any array.

    Raises:
        MissingStageError: there is no such file.
        StoreError: the header is damaged, foreign or newer than this clipnlc.
    """
    header = _h5.read_header(path, FORMAT)
    return GivenHeader(
        keys={name: header.key(group_of(name)) for name in combiners_of(header)},
        digest=header.digest,
        rows=header.shape("sample_id", 1)[0],
    )


def _write(path: Path, store: GivenStore) -> str:
    refuse = not_written(path)
    _check(store, refuse)
    datasets: dict[str, _h5.Dataset] = {
        "sample_id": store.sample_id,
        "backbones": store.backbones,
        "class_names": store.class_names,
    }
    groups: dict[str, dict[str, _h5.Attribute]] = {}
    for name, given in store.given.items():
        datasets |= {f"{group_of(name)}/{part}": array for part, array in given.arrays().items()}
        groups[group_of(name)] = {
            "key": given.key.json,
            "columns": canonical_json(given.columns),
        }
    return _h5.write_sealed(path, FORMAT, attributes={}, datasets=datasets, groups=groups)


def _given(content: _h5.Content, name: str) -> GivenArrays:
    group = group_of(name)
    others = {
        part: content.array(f"{group}/{part}", "<f4", dimensions=2)
        for part in ("weights", "scores")
        if f"{group}/{part}" in content.arrays
    }
    values = {}
    columns = _columns(content.header, group)
    if columns:
        whole = content.array(f"{group}/values", "<f8", dimensions=2)
        if sum(width for _, width in columns) != whole.shape[1]:
            raise _h5.damaged(content.header.path, f"has other columns than {group} names")
        start = 0
        for measure, width in columns:
            values[measure] = np.ascontiguousarray(whole[:, start : start + width])
            start += width
    rows = {len(array) for array in (*values.values(), *others.values())}
    if len(rows) > 1:
        raise _h5.damaged(content.header.path, f"has arrays of other lengths in {group}")
    return GivenArrays(content.header.key(group), values, **others)


def _columns(header: _h5.Header, group: str) -> list[tuple[str, int]]:
    try:
        columns = read_exactly(header.attribute("columns", str, group))
        found = [(measure, width) for measure, width in columns]
    except (TypeError, ValueError, RecursionError):
        found = [("", 0)]
    if not all(type(m) is str and m and type(w) is int and w >= 0 for m, w in found) or len(
        {measure for measure, _ in found}
    ) != len(found):
        raise _h5.damaged(header.path, f"names no columns in {group}")
    return found


def _check(store: GivenStore, refuse: checks.Refuse) -> None:
    checks.check_names("sample_id", store.sample_id, refuse)
    checks.check_names("backbone", store.backbones, refuse)
    checks.check_text("class name", store.class_names, refuse)
    widths = {"weights": len(store.backbones), "scores": len(store.class_names)}
    for name, given in store.given.items():
        for part, array in given.arrays().items():
            rows = {"sample ids": len(store.sample_id), f"rows of {name} {part}": len(array)}
            checks.check_lengths(rows, refuse)
            if part in widths:
                columns = {"columns": array.shape[1], "expected columns": widths[part]}
                checks.check_lengths({f"{name} {part} {n}": c for n, c in columns.items()}, refuse)
            checks.check_finite(f"{name} {part}", array, store.sample_id, refuse)
