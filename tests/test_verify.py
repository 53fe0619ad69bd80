"""verify: every file of a store is checked, or named as one that cannot be."""

import errno
import json
import os
import random
import re
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from evaluation_examples import MEMBERS_NAME, write_backbones, write_example, write_run
from stores_examples import (
    BACKBONES,
    feature_rows,
    labels_of,
    quick_disk,  # noqa: F401  (a fixture)
    sample_ids,
    write_store,
)

from clipnlc.backbones import resolve
from clipnlc.backbones.identity import identity
from clipnlc.datasets.fingerprints import hash_files
from clipnlc.errors import MissingStageError, StoreError
from clipnlc.reports import files
from clipnlc.reports.files import evaluation_from_json, kept_digest
from clipnlc.runs.records import verify_record
from clipnlc.stages.diversity import diversity
from clipnlc.stages.evaluate import evaluate
from clipnlc.stages.verify import verify
from clipnlc.stores.key import Key
from clipnlc.stores.layout import Layout
from clipnlc.stores.locks import writing
from clipnlc.stores.shards import Shard, write_shard

FIRST, SECOND = BACKBONES
OF = f"zero-shot-{MEMBERS_NAME}"
PLACES = 13  # in each record, where a number is altered
OLDER = Path(__file__).parent / "data" / "archives" / "store-v1" / "store" / "tiny" / "records"


@pytest.fixture
def layout(tmp_path):
    return write_store(tmp_path / "store")


def cut(path):
    path.write_bytes(path.read_bytes()[:-500])


def test_no_store_is_told(tmp_path):
    assert verify(store=tmp_path) == (0, [], [])
    with pytest.raises(
        MissingStageError, match=r"no store at .*; make one with `clipnlc extract .*`"
    ):
        verify(store=tmp_path / "nowhere")


def test_every_file_is_read_and_damage_does_not_end_it(layout):
    seen = []
    found = verify(store=layout.root, on_file=lambda *step: seen.append(step))
    assert found == (6, [], [])
    files = sorted(layout.root.rglob("*.h5"))
    assert seen == [(path, number, 6) for number, path in enumerate(files, start=1)]
    first, last = layout.features("cub", "test", FIRST), layout.logits("cub", "linear", SECOND)
    cut(first)
    content = bytearray(last.read_bytes())
    numbers = np.random.default_rng(1).normal(size=(6, 3)).astype(np.float32).tobytes()
    content[content.index(numbers) + 40] ^= 4
    last.write_bytes(content)
    found = verify(store=layout.root)
    assert found.files == 6
    assert [path for path, _ in found.damage] == [first, last]
    assert "checksum of 'splits/test/logits' does not match" in found.damage[1].problem


def test_shards_are_read_and_strangers_named(layout):
    path = layout.features("cub", "train", "RN101")
    write_shard(path, Key.of({}), Shard(0, 3, feature_rows(3), labels_of(3), sample_ids(3)))
    assert verify(store=layout.root).damage == []
    (shard,) = layout.root.rglob("000*.h5")
    cut(shard)
    stranger = layout.root / "x.h5"
    stranger.touch()
    damage = dict(verify(store=layout.root).damage)
    assert damage.keys() == {shard, stranger}
    assert "does not belong into a store" in damage[stranger]


def test_what_cannot_be_checked_is_named(layout):
    root = layout.root
    with writing(layout.features("cub", "test", FIRST)):
        pass
    assert list(root.rglob("*.lock"))  # which are passed over
    others = {
        "plots/diversity-cub.png": "a picture",
        "cub/features/test/RN50.h5.12.partial": "half a file",
        "notes.txt": "no file of clipnlc's",
        "cub/notes.json": "no file of clipnlc's",
        "notes.json": "no file of clipnlc's",
        "cub/records/mine.json": "no file of clipnlc's",
        "cub/features/backbones.json": "no file of clipnlc's",
    }
    for name in others:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("{}")
    (root / "flowers").symlink_to(root / "cub")
    (root / "gone.h5").symlink_to(root / "nowhere")
    others |= {"flowers": "a link that is not followed", "gone.h5": "a link to nowhere"}
    found = verify(store=root)
    assert (found.files, found.damage) == (6, [])
    told = {path.relative_to(root).as_posix(): why for path, why in found.unverified}
    assert told.keys() == others.keys()
    assert all(told[name].startswith(why) for name, why in others.items()), told


# Records -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def first_measured(tmp_path_factory):
    """Records of one data set, of several, and older ones that were kept."""
    layout = write_example(tmp_path_factory.mktemp("measured") / "store")
    evaluate(store=layout.root)
    diversity(store=layout.root)
    diversity(store=layout.root, datasets=["digits"])
    inputs = write_backbones(layout, "digits")
    write_run(layout, "digits", inputs, shots=8, seed=0)
    evaluate(store=layout.root)
    return layout.root


@pytest.fixture
def measured(first_measured, tmp_path):
    """A copy of the records alone, which are quickly read."""
    ignored = shutil.ignore_patterns("*.h5", ".locks")
    return shutil.copytree(first_measured, tmp_path / "store", ignore=ignored)


def records(root):
    return sorted(root.rglob("*.json"))


def numbers(text):
    """Return where each number of a record stands; one has a line of its own."""
    return [m.span(1) for m in re.finditer(r'(?m)^ *(?:"[^"]*": )?(-?\d[\d.e+-]*),?$', text)]


def test_every_number_that_is_altered_in_a_record_is_seen(measured):
    assert verify(store=measured).damage == []
    paths = records(measured)
    assert {
        re.sub(r"\.[0-9a-f]{8}\.", ".….", path.relative_to(measured).as_posix()) for path in paths
    } >= {
        f"evaluate-{OF}.json",
        f"evaluate-{OF}.….json",
        f"diversity-{OF}.json",
        f"digits/records/evaluate-{OF}.json",
        f"digits/records/evaluate-{OF}.….json",
        f"digits/records/diversity-{OF}.json",
    }
    texts = {path: path.read_text() for path in paths}
    choose = random.Random(0)
    places = {path: choose.sample(numbers(text), PLACES) for path, text in texts.items()}
    for place in range(PLACES):
        for path, text in texts.items():
            start, stop = places[path][place]
            # The last of many digits may leave the number as it was: seen all the same.
            at = choose.choice(
                [start + text[start:stop].index(text[start:stop].lstrip("-")), stop - 1]
            )
            other = str((int(text[at]) + choose.randrange(1, 10)) % 10)
            path.write_text(text[:at] + other + text[at + 1 :])
        damage = verify(store=measured).damage
        assert [path for path, _ in damage] == paths
        for _, problem in damage:
            assert "delete it" in problem or "update clipnlc" in problem
            assert "\n" not in problem


def test_a_flipped_byte_in_a_record_is_seen_or_says_the_same(measured):
    path = measured / "digits" / "records" / f"evaluate-{OF}.json"
    content = path.read_bytes()
    good = evaluation_from_json(content, where="")
    seen = 0
    for at in range(3, len(content), 97):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        try:
            assert verify_record(Layout(measured), path) is None
            assert evaluation_from_json(path.read_bytes(), where="") == good
        except StoreError:
            seen += 1
    assert seen > 50


def test_records_of_before_the_digest_are_named(measured):
    for record in records(measured):
        record.unlink()
    evaluation = measured / "evaluate-zero-shot.json"
    report = measured / "diversity-zero-shot.json"
    shutil.copy(OLDER / evaluation.name, evaluation)
    shutil.copy(OLDER / report.name, report)
    found = verify(store=measured)
    assert found.damage == []
    told = "a record of before records carried a digest"
    assert found.unverified == [(report, told), (evaluation, told)]
    # A kept one has a digest in its name, whatever its version.
    kept = evaluation.with_name(f"evaluate-zero-shot.{kept_digest(evaluation.read_bytes())}.json")
    evaluation.rename(kept)
    assert verify(store=measured)[1:] == ([], [(report, told)])
    kept.write_text(kept.read_text().replace(" 0.25", " 0.75", 1))
    ((path, problem),) = verify(store=measured).damage
    assert path == kept
    assert "does not match the digest in its name" in problem
    tree = {**json.loads(report.read_text()), "format-version": 3}
    report.write_text(json.dumps(tree))
    assert "update clipnlc" in dict(verify(store=measured).damage)[report]


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff", b"{}", b'{"accuracy": 1}'])
def test_what_is_no_record_under_a_records_name_is_damage(layout, content):
    path = layout.records("cub") / "evaluate-linear.json"
    path.parent.mkdir()
    path.write_bytes(content)
    ((found, problem),) = verify(store=layout.root).damage
    assert found == path
    assert "is no evaluation record" in problem


# The two caches ----------------------------------------------------------------------------------


@pytest.fixture
def cached(tmp_path):
    """A store with what extract remembers of backbones and of files."""
    root, images = tmp_path / "store", tmp_path / "images"
    images.mkdir()
    for name in ("a.png", "b.png"):
        (images / name).write_text(name)
    for backbone in resolve("nano-RN50,nano-ViT-B-32"):
        identity(backbone, root / "backbones.json")
    hash_files(images, ["a.png", "b.png"], root / "file-hashes.sqlite")
    return root


def test_the_caches_are_checked(cached):
    assert verify(store=cached) == (2, [], [])
    memory = cached / "backbones.json"
    memory.write_text(memory.read_text().replace('"weights": "', '"weights": "0'))
    with sqlite3.connect(cached / "file-hashes.sqlite") as connection:
        connection.execute("UPDATE file_hashes SET sha256 = 'x' WHERE name = 'b.png'")
    connection.close()
    backbones, hashes = verify(store=cached).damage
    assert backbones.path == memory
    assert backbones.problem.endswith(
        "is damaged: entry 0 does not match its digest; delete it: it is made anew"
    )
    assert "the row of 'b.png' does not match its digest; delete it" in hashes.problem


@pytest.mark.parametrize("content", [b"", b"[", b"3", b"[3]", b"\xff", b"[" * 100_000])
def test_a_memory_of_backbones_that_is_none_is_damage(cached, content):
    (cached / "backbones.json").write_bytes(content)
    ((path, problem),) = verify(store=cached).damage
    assert path.name == "backbones.json"
    assert "is damaged" in problem
    assert "delete it: it is made anew" in problem


@pytest.mark.parametrize("content", [b"no database " * 500, b"SQLite format 3\x00" + b"x" * 5000])
def test_a_cache_of_hashes_that_is_none_is_damage(cached, content):
    (cached / "file-hashes.sqlite").write_bytes(content)
    ((path, problem),) = verify(store=cached).damage
    assert path.name == "file-hashes.sqlite"
    assert "is damaged: file is not a database; delete it" in problem


def test_caches_of_before_the_digests_are_named(cached):
    (cached / "backbones.json").write_text('{"nano-RN50  3.3.0 2": {}}')
    with sqlite3.connect(cached / "file-hashes.sqlite") as connection:
        connection.execute("ALTER TABLE file_hashes RENAME TO hashes")
    connection.close()
    found = verify(store=cached)
    assert (found.files, found.damage) == (0, [])
    assert [path.name for path, _ in found.unverified] == ["backbones.json", "file-hashes.sqlite"]
    assert all("made anew when" in why for _, why in found.unverified)


def test_a_file_that_cannot_be_read_is_damage(layout, monkeypatch):
    path = layout.records("cub") / "evaluate-linear.json"
    path.parent.mkdir()
    path.touch()

    def refuse(*_args, **_more):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(files, "read_regular", refuse)
    ((found, problem),) = verify(store=layout.root).damage
    assert found == path
    assert problem.startswith(f"cannot read {path}: Permission denied; fix")


def test_a_folder_that_is_removed_meanwhile_is_passed_over(layout, monkeypatch):
    scan = os.scandir

    def gone(path):
        if Path(path).name == "features":
            raise FileNotFoundError(2, "No such file or directory", str(path))
        return scan(path)

    whole = verify(store=layout.root).files
    monkeypatch.setattr("os.scandir", gone)
    assert 0 < verify(store=layout.root).files < whole
