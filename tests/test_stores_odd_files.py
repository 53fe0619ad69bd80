"""Named pipes, devices, sockets, folders and links in the place of a store's files: refused at once."""

import os
import shutil
import socket
from pathlib import Path

import pytest
from test_stores_places import (  # noqa: F401  (fixtures)
    BACKBONES,
    files,
    images,
    made,
    quick_disk,
    stages,
    verify_one,
)

from clipnlc.backbones import resolve
from clipnlc.backbones.identity import identity
from clipnlc.cli import main
from clipnlc.datasets.fingerprints import hash_files
from clipnlc.errors import ClipnlcError
from clipnlc.stages.merge import merge
from clipnlc.stages.verify import verify
from clipnlc.stores import shards
from clipnlc.stores.features import read_feature_header, read_features
from clipnlc.stores.layout import Layout
from clipnlc.stores.status import store_status


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(path.parent)  # its name must be short
        try:
            listener.bind(path.name)
        finally:
            os.chdir(here)


def a_link_to_a_pipe(path: Path) -> None:
    os.mkfifo(path.with_name(f"{path.name}-pipe"))
    path.symlink_to(f"{path.name}-pipe")


ODD = {
    "named pipe": a_pipe,
    "socket": a_socket,
    "folder": Path.mkdir,
    "named pipe behind a link": a_link_to_a_pipe,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "link to nowhere": lambda path: path.symlink_to("nowhere"),
    "symbolic links": lambda path: path.symlink_to(path.name),  # too many levels of them
}
each_kind = pytest.mark.parametrize("kind", ODD)


def put(kind: str, path: Path) -> str:
    """Put something odd in the place of a file; return what it must be called."""
    path.unlink()
    ODD[kind](path)
    return kind.removesuffix(" behind a link")


@pytest.fixture
def copy(made, tmp_path) -> Path:  # noqa: F811  (a fixture)
    return shutil.copytree(made, tmp_path / "store")


@pytest.mark.slow
@each_kind
def test_every_reader_refuses_it_and_status_goes_on(copy, images, kind):  # noqa: F811
    layout = Layout(copy)
    first = {family: paths[0] for family, paths in files(copy).items()}
    told = {path: put(kind, path) for path in first.values()}
    for path, name in told.items():
        with pytest.raises(ClipnlcError, match=rf"cannot read {path}: .*{name}.*(delete|move)"):
            verify_one(copy, path)
    damage = dict(verify(store=copy).damage)
    assert told.keys() <= damage.keys()
    rows = {row.path: row for row in store_status(copy)}
    for family, path in first.items():
        if family not in ("evaluate", "diversity"):
            assert told[path] in rows[layout.relative(path)].why
    assert sum(row.complete for row in rows.values()) > len(told)
    for stage in stages(copy, images):
        refused = None
        try:
            stage()
        except ClipnlcError as error:
            refused = str(error)
        assert refused is None or any(str(path) in refused for path in told), refused


@each_kind
def test_shards(copy, kind):
    layout = Layout(copy)
    path = layout.features("birds", "test", BACKBONES[0])
    shards.reseal(path, read_feature_header(path).key, read_features(path).labels)
    path.unlink()
    (shard,) = shards.shard_files(path)
    name = put(kind, shard)
    with pytest.raises(ClipnlcError, match=rf"cannot read {shard}: .*{name}"):
        merge(store=copy)
    (row,) = (row for row in store_status(copy) if row.kind == "shards")
    assert name in row.why


@each_kind
def test_the_two_caches(copy, tmp_path, kind):
    memory, hashes = copy / "backbones.json", copy / "file-hashes.sqlite"
    names = {path: put(kind, path) for path in (memory, hashes)}
    (backbone,) = resolve(BACKBONES[0])
    with pytest.raises(ClipnlcError, match=rf"cannot read {memory}: .*{names[memory]}.*; delete"):
        identity(backbone, memory)
    with pytest.raises(ClipnlcError, match=rf"cannot read .*{hashes}: .*{names[hashes]}.*; delete"):
        hash_files(tmp_path, [], hashes)
    assert {memory, hashes} <= {path for path, _ in verify(store=copy).damage}


@pytest.mark.parametrize("end", ["-journal", "-wal"])
def test_what_sqlite_opens_beside_the_cache(copy, tmp_path, end):
    hashes = copy / "file-hashes.sqlite"
    os.mkfifo(copy / f"{hashes.name}{end}")
    with pytest.raises(ClipnlcError, match=f"{hashes}{end}: a named pipe"):
        hash_files(tmp_path, [], hashes)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["link to nowhere", "symbolic links", "named pipe"])
def test_status_names_odd_folders_and_goes_on(copy, kind, capsys):
    for place in (copy / "odd", copy / "birds" / "odd", copy / "birds" / "fits" / "odd.h5"):
        ODD[kind](place) if kind != "named pipe" else os.mkfifo(place)
    shutil.rmtree(copy / "figures" / "records")
    ODD[kind](copy / "figures" / "records")
    assert len(store_status(copy)) > 0
    assert main(["status", "--store", str(copy)]) == 0
    assert main(["verify", "--store", str(copy)]) in (0, 2)
    assert "internal error" not in "".join(capsys.readouterr())
