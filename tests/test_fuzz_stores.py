"""Store files, records and caches with one field replaced and fresh digests: opened or refused by name.

Digests do not help against a file that was made on purpose, or by another program: only what is
checked of types, shapes, lengths and values does. Whatever is replaced, a reader and every stage
that uses it give a result or a `ClipnlcError`, in little time and memory.
"""

import json
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_stores_places import (  # noqa: F401  (fixtures)
    BACKBONES,
    DATASETS,
    files,
    images,
    made,
    quick_disk,
    stages,
    verify_one,
)

from clipnlc.digests import content_digest
from clipnlc.errors import ClipnlcError
from clipnlc.stores._h5 import blocks
from clipnlc.stores.status import store_status

SECONDS = 20
"""The most processor time that one example may take, however busy the machine is."""

HANGS = 300
"""Seconds after which an example that waits for something is ended."""

MOST_MEMORY = 1e9
"""Bytes that the process may grow by."""

ENVELOPE = ("contents", "digest", "complete")


def many(examples: int) -> Callable[[Any], Any]:
    """Run so many examples of a test, with files that each puts back."""
    checks = (HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large)
    return settings(max_examples=examples, deadline=None, suppress_health_check=checks)


# One field replaced ------------------------------------------------------------------------------

NESTED = json.loads("[" * 200 + "]" * 200)
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([2**31, 2**53 + 1, -(2**63), 2**64, 10**30, 1e308, -1e-308, 0.5, 3e38]),
    st.sampled_from([float("nan"), float("inf"), -0.0]),
    st.sampled_from(
        ["", "x", "oracle", "../../x", "/dev/zero", "a/b", "\x00", "\ud800", "é" * 200]
    ),
    st.sampled_from(["-3-shots-seed-0", "9" * 400 + "-shots-seed-0", "holdout-nan-seed-0"]),
    st.sampled_from([[], [1], ["x"], [["accuracy", 1]], {}, {"x": 1}, {"": {}}, NESTED]),
)


def places(tree: object, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to every value of a JSON tree; of long lists, only to the first ones."""
    yield at
    below = tree.items() if isinstance(tree, dict) else []
    if isinstance(tree, list):
        below = list(enumerate(tree))[:3]
    for name, value in below:
        yield from places(value, (*at, name))


def replaced(tree: Any, draw: Callable[[Any], Any]) -> Any:
    """Return a JSON tree with one value replaced, removed or added, or written as another text."""
    at = draw(st.sampled_from(list(places(tree))))
    how = draw(st.sampled_from(["replace", "replace", "replace", "remove", "add"]))
    if not at:
        return draw(VALUES)
    tree = json.loads(json.dumps(tree))
    parent = tree
    for name in at[:-1]:
        parent = parent[name]
    if how == "remove":
        del parent[at[-1]]
    elif how == "add" and isinstance(parent, dict):
        parent[draw(st.sampled_from(["x", "kind", "inputs", "settings", ""]))] = draw(VALUES)
    else:
        parent[at[-1]] = draw(VALUES)
    return tree


@contextmanager
def quickly() -> Iterator[None]:
    """End what computes for long, and what hangs."""

    def end(number: int, _frame: object) -> None:
        raise TimeoutError(f"ended by {signal.Signals(number).name}")

    timers = {
        signal.SIGPROF: (signal.ITIMER_PROF, SECONDS),
        signal.SIGALRM: (signal.ITIMER_REAL, HANGS),
    }
    before = {number: signal.signal(number, end) for number in timers}
    for timer, seconds in timers.values():
        signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        for number, (timer, _) in timers.items():
            signal.setitimer(timer, 0)
            signal.signal(number, before[number])


@pytest.fixture(autouse=True)
def little_memory() -> Iterator[None]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    assert grown < MOST_MEMORY


class Kept:
    """A folder that is put back after each example."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bytes = {path: path.read_bytes() for path in self._files()}
        self.stamps = {path: self._stamp(path) for path in self.bytes}

    def _files(self) -> list[Path]:
        return [p for p in self.root.rglob("*") if p.is_file() and ".locks" not in p.parts]

    @staticmethod
    def _stamp(path: Path) -> tuple[int, int]:
        stat = path.stat()
        return stat.st_ino, stat.st_mtime_ns

    def put_back(self) -> None:
        present = set(self._files())
        for path in present - self.bytes.keys():
            path.unlink()
        for path, data in self.bytes.items():
            if path not in present or self._stamp(path) != self.stamps[path]:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
                self.stamps[path] = self._stamp(path)


@pytest.fixture(scope="module")
def kept(made, tmp_path_factory) -> Kept:  # noqa: F811
    store = shutil.copytree(made, tmp_path_factory.mktemp("fuzzed") / "store")
    return Kept(Path(store))


def use(
    kept: Kept,
    images: Path,  # noqa: F811
    path: Path,
    draw: Callable[[Any], Any],
    share: int,
) -> None:
    """Read a file by itself; one time in `share` list the store and run a stage, which take longer."""
    works = [lambda: verify_one(kept.root, path)]
    if draw(st.integers(1, share)) == share:
        works += [lambda: store_status(kept.root), draw(st.sampled_from(stages(kept.root, images)))]
    with quickly():
        for work in works:
            said = ""
            try:
                work()
            except ClipnlcError as error:
                said = str(error)
            assert "\n" not in said
            assert len(said) < 5000


# HDF5 --------------------------------------------------------------------------------------------


def read_tree(path: Path) -> tuple[dict[str, dict[str, Any]], dict[str, np.ndarray]]:
    """Return the attributes by group, without what is computed of the others, and the arrays."""
    attributes: dict[str, dict[str, Any]] = {}
    arrays: dict[str, np.ndarray] = {}
    with h5py.File(path) as file:

        def visit(name: str, node: Any) -> None:
            if isinstance(node, h5py.Dataset):
                if not name.startswith("blocks/"):
                    arrays[name] = node[()]
            elif node.attrs:
                attributes[name] = plain(node)

        def plain(node: Any) -> dict[str, Any]:
            found = {name: value for name, value in node.attrs.items() if name not in ENVELOPE}
            return {n: v.decode() if isinstance(v, bytes) else v.item() for n, v in found.items()}

        attributes[""] = plain(file)
        file.visititems(visit)
    return attributes, arrays


def forge(
    path: Path,
    attributes: dict[str, dict[str, Any]],
    arrays: dict[str, np.ndarray],
    contents: Callable[[Any], Any] = lambda tree: tree,
    after: Callable[[h5py.File], None] = lambda _file: None,
) -> None:
    """Write a file as our writer would, with digests of whatever it is given."""
    path.unlink()
    with h5py.File(path, "w") as file:
        entries = {}
        for name, array in arrays.items():
            data = np.ascontiguousarray(array).reshape(np.shape(array))
            file.create_dataset(name, data=data, track_times=False)
            entries[name] = {"dtype": data.dtype.str, "shape": data.shape}
            length = blocks.stored_length(data.shape, data.dtype)
            if length is None:
                entries[name]["blake2b"] = blocks.blake2b(data).hex() if data.size else EMPTY
                continue
            digests = blocks.BlockDigests(length)
            digests.update(data)
            file.create_dataset(f"blocks/{name}", data=digests.table(), track_times=False)
            entries[name] |= {
                "blake2b": blocks.blake2b(digests.table()).hex(),
                "block_rows": length,
            }
        groups = {}
        for group, its in attributes.items():
            node = file.require_group(group) if group else file
            for name, value in its.items():
                write_attribute(node, name, value)
            if group:
                groups[group] = content_digest(read_back(its))
        text = json.dumps(contents({"arrays": entries, "groups": groups}))
        write_attribute(file, "contents", text)
        whole = {**read_back(attributes[""]), "contents": text}
        write_attribute(file, "digest", content_digest(whole))
        write_attribute(file, "complete", 1)
        after(file)


EMPTY = blocks.blake2b(np.empty(0)).hex()


def write_attribute(node: Any, name: str, value: Any) -> None:
    if isinstance(value, str):
        data = value.encode("utf-8", "replace").replace(b"\0", b"") or b"\0"
        node.attrs.create(name, np.bytes_(data), dtype=h5py.string_dtype("utf-8", len(data)))
    else:
        node.attrs[name] = value


def read_back(attributes: dict[str, Any]) -> dict[str, Any]:
    """Return attributes as a reader sees them; those that it refuses to read do not matter."""
    found = {}
    for name, value in attributes.items():
        if isinstance(value, str):
            found[name] = value.encode("utf-8", "replace").replace(b"\0", b"").decode()
        elif isinstance(value, bool | int | float) and abs(value) < 2**63:
            found[name] = float(value) if isinstance(value, float) else int(value)
    return found


ATTRIBUTES = st.one_of(
    st.integers(-2, 2),
    st.sampled_from([2**62, 0.0, -1.5, 1e308, float("nan"), float("inf"), True, 10**6]),
    st.sampled_from(
        ["", "x", "scaled", "{}", "[]", "1", "[" * 30_000, '{"a": 1, "a": 2}', "x" * 64_000]
    ),
    st.sampled_from([np.zeros(3), np.zeros((2, 2), "S3"), np.float16(1), np.complex64(1)]),
)
TEXTS = [b"", b"x", b"\xff\xfe", "é".encode(), b"a/b", b"..", b"\x1b[31m", b"n" * 3000]


def other_array(array: np.ndarray, draw: Callable[[Any], Any]) -> np.ndarray:
    """Return an array that differs in type, shape, length or one value."""
    how = draw(st.sampled_from(["type", "shape", "value", "value", "rows"]))
    if how == "type":
        dtype = draw(
            st.sampled_from(["<f8", "<f4", "<f2", "<i8", "<i4", "|u1", "|i1", ">f4", "|S3"])
        )
        return np.zeros(array.shape, dtype) if array.dtype.kind == "S" else array.astype(dtype)
    if how == "shape":
        shapes = [array.reshape(-1), array[None], array.T, np.array(array.reshape(-1)[:1]).sum()
                  if array.dtype.kind != "S" else array[:1]]  # fmt: skip
        return np.asarray(draw(st.sampled_from(shapes)))
    if how == "rows" and array.ndim:
        rows = draw(st.sampled_from([0, 1, len(array) - 1, len(array) + 1, 2 * len(array)]))
        return np.resize(array, (max(rows, 0), *array.shape[1:]))
    if not array.size:
        return array
    changed = array.copy()
    if array.dtype.kind == "S":
        text = draw(st.sampled_from([*TEXTS, bytes(array.reshape(-1)[-1])]))
        changed = changed.astype(f"S{max(array.dtype.itemsize, len(text), 1)}")
        changed.reshape(-1)[0] = text
    else:
        values = (
            [np.nan, np.inf, -1, 0, 1e30, 3e38, 2**40] if array.dtype.kind == "f" else [-1, 0, 99]
        )
        changed.reshape(-1)[draw(st.integers(0, array.size - 1))] = draw(st.sampled_from(values))
    return changed


def write_other(path: Path, draw: Callable[[Any], Any]) -> None:
    """Replace one thing in a file."""
    attributes, arrays = read_tree(path)
    how = draw(st.sampled_from(["json", "json", "json", "attribute", "array", "array", "missing",
                                "contents", "hdf5"]))  # fmt: skip
    spelled = [
        (g, n) for g, its in attributes.items() for n in its if str(its[n])[:1] in ("{", "[")
    ]
    if how == "json" and spelled:
        group, name = draw(st.sampled_from(spelled))
        tree = replaced(json.loads(attributes[group][name]), draw)
        attributes[group][name] = json.dumps(tree)
    elif how == "array" and arrays:
        name = draw(st.sampled_from(sorted(arrays)))
        arrays[name] = other_array(arrays[name], draw)
    elif how == "missing":
        both = [*arrays, *(g for g in attributes if g)]
        name = draw(st.sampled_from(both))
        (arrays if name in arrays else attributes).pop(name)
        if draw(st.booleans()):
            arrays[draw(st.sampled_from(["x", "learnt/x_", "combiners/oracle/learnt/x_"]))] = (
                np.ones(2)
            )
    elif how == "contents":
        forge(path, attributes, arrays, contents=lambda tree: replaced(tree, draw))
        return
    elif how == "hdf5":
        forge(path, attributes, arrays, after=draw(st.sampled_from(TRICKS)))
        return
    else:
        group = draw(st.sampled_from(sorted(attributes)))
        name = draw(st.sampled_from(sorted(attributes[group])))
        attributes[group][name] = draw(ATTRIBUTES)
    forge(path, attributes, arrays)


def first_array(file: h5py.File) -> tuple[str, np.ndarray]:
    names: list[str] = []
    file.visititems(
        lambda name, node: names.append(name) if isinstance(node, h5py.Dataset) else None
    )
    name = next(name for name in names if not name.startswith("blocks/"))
    data = file[name][()]
    del file[name]
    return name, data


def chunked(file: h5py.File) -> None:
    name, data = first_array(file)
    file.create_dataset(name, data=data, chunks=data.shape, compression="gzip")


def huge_chunks(file: h5py.File) -> None:
    name, data = first_array(file)
    # A chunk of 4 GB less a little, of which nothing is stored.
    shape = (2**31, *data.shape[1:])
    file.create_dataset(name, shape, "u1", chunks=(2**31, *[1] * (data.ndim - 1)), maxshape=shape)


def far_longer_than_the_file(file: h5py.File) -> None:
    name, data = first_array(file)
    space = h5py.h5s.create_simple((2**40, *data.shape[1:]))
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_LATE)
    kind = h5py.h5t.py_create(data.dtype)
    creation = h5py.h5p.create(h5py.h5p.LINK_CREATE)
    creation.set_create_intermediate_group(True)
    h5py.h5d.create(file.id, name.encode(), kind, space, properties, creation)


def variable_length(file: h5py.File) -> None:
    name, _ = first_array(file)
    file.create_dataset(name, data=["x" * 1000] * 3, dtype=h5py.string_dtype())


def objects(file: h5py.File) -> None:
    name, _ = first_array(file)
    file.create_dataset(name, data=[file.ref] * 3, dtype=h5py.ref_dtype)


def compound(file: h5py.File) -> None:
    name, _ = first_array(file)
    file.create_dataset(name, data=np.zeros(3, [("a", "<f4"), ("b", "<i8", 5)]))


def soft_link(file: h5py.File) -> None:
    name, _ = first_array(file)
    file[name] = h5py.SoftLink(f"/{name}")


def external_link(file: h5py.File) -> None:
    name, _ = first_array(file)
    file[name] = h5py.ExternalLink("/dev/zero", "/x")


def external_storage(file: h5py.File) -> None:
    name, data = first_array(file)
    file.create_dataset(name, data.shape, data.dtype, external=[("/dev/zero", 0, data.nbytes)])


def virtual(file: h5py.File) -> None:
    name, data = first_array(file)
    layout = h5py.VirtualLayout(data.shape, data.dtype)
    layout[...] = h5py.VirtualSource("/dev/zero", "x", data.shape)
    file.create_virtual_dataset(name, layout)


def a_group_in_the_place_of_an_array(file: h5py.File) -> None:
    name, _ = first_array(file)
    file.create_group(name).create_group("x")


def a_circle_of_groups(file: h5py.File) -> None:
    group = file.require_group("learnt")
    group["again"] = group


def many_groups(file: h5py.File) -> None:
    for number in range(2000):
        file.create_group(f"learnt/{number}")


def a_deep_group(file: h5py.File) -> None:
    file.create_group("/".join("x" * 2000))


def a_long_attribute(file: h5py.File) -> None:
    file.attrs.create("more", np.zeros(10**7, "u1"), dtype="u1") if False else None
    file.attrs["more"] = np.zeros(8000)


TRICKS = [
    chunked,
    huge_chunks,
    far_longer_than_the_file,
    variable_length,
    objects,
    compound,
    soft_link,
    external_link,
    external_storage,
    virtual,
    a_group_in_the_place_of_an_array,
    a_circle_of_groups,
    many_groups,
    a_deep_group,
    a_long_attribute,
]

KINDS = ("features", "logits", "fits", "given", "texts")


def check_files(
    kept: Kept,
    images: Path,  # noqa: F811
    kind: str,
    data: st.DataObject,
    *,
    share: int,
) -> None:
    path = data.draw(st.sampled_from(files(kept.root)[kind]))
    try:
        write_other(path, data.draw)
        use(kept, images, path, data.draw, share)
    finally:
        kept.put_back()


def test_a_file_forged_without_a_change_is_read(kept):
    for kind in KINDS:
        for path in files(kept.root)[kind]:
            forge(path, *read_tree(path))
            verify_one(kept.root, path)
    kept.put_back()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@many(25)
@given(data=st.data())
def test_store_files(kept, images, kind, data):  # noqa: F811
    check_files(kept, images, kind, data, share=6)


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
@many(1500)
@given(data=st.data())
def test_store_files_for_long(kept, images, kind, data):  # noqa: F811
    check_files(kept, images, kind, data, share=3)


@pytest.mark.parametrize("trick", TRICKS, ids=lambda trick: trick.__name__)
@pytest.mark.parametrize("kind", KINDS)
def test_what_hdf5_can_do_and_our_writer_never_does_is_refused(kept, kind, trick):
    path = files(kept.root)[kind][0]
    forge(path, *read_tree(path), after=trick)
    try:
        with quickly(), pytest.raises(ClipnlcError, match=rf"^{path} .*; delete the file and run "):
            verify_one(kept.root, path)
    finally:
        kept.put_back()
