"""Data sets from the hub: the real client against a hub on this machine, or against none."""

import json
import subprocess
import sys
import time

import datasets as hf
import huggingface_hub
import pytest
from hub_on_disk import shown, write_entry
from hub_served import COMMIT, Hub
from huggingface_hub import constants

from clipnlc import datasets
from clipnlc.datasets import hub as registry
from clipnlc.datasets.catalogue import catalogue
from clipnlc.errors import DataError


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(hf.config, "HF_DATASETS_CACHE", tmp_path / "hf-cache")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    return tmp_path / "hub-cache"


@pytest.fixture
def served(cache, monkeypatch):
    hub = Hub()
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    yield hub
    hub.close()


@pytest.fixture
def offline(monkeypatch):
    """Take the network away, whatever this machine has."""
    monkeypatch.setattr(constants, "ENDPOINT", "https://hub.invalid")
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def serve(hub, tmp_path, key, *, source=0, rows=8):
    repository = registry.entries()[key].sources[source].id
    hub.repositories[repository] = write_entry(
        tmp_path / "repositories" / repository, key, source=source, rows=rows
    )
    return repository


def opened_by_key(key, split="test"):
    return datasets.open_dataset(key, accept_different_data=True).open(split)


def labels_follow_names(opened):
    return all(shown(s.image()) == s.label for s in opened.read())


def downloaded(hub, suffix):
    return {p.rsplit("/resolve/")[1] for p in hub.asked if "/resolve/" in p and p.endswith(suffix)}


def test_parquet_one_split_at_a_time(served, tmp_path):
    serve(served, tmp_path, "cars")
    opened = opened_by_key("cars")
    assert labels_follow_names(opened)
    assert opened.origin == {
        "source": f"tanganke/stanford_cars@{COMMIT}",
        "accepted": "8 rows where 8,041 were expected",
    }
    assert {p.split("/", 1)[1] for p in downloaded(served, ".parquet")} == {
        "data/test-00000-of-00002.parquet",
        "data/test-00001-of-00002.parquet",
    }
    assert labels_follow_names(opened_by_key("cars", "train"))


def test_rows_are_counted_and_splits_are_named(served, tmp_path):
    serve(served, tmp_path, "cars")
    with pytest.raises(
        DataError,
        match=rf"split test of cars from tanganke/stanford_cars@{COMMIT} has 8 rows where 8,041 were expected; get the right copy, or go on with --accept-different-data",
    ):
        datasets.open_dataset("cars").open("test")
    with pytest.raises(
        DataError, match=r"no split 'blur' of cars; its sources have train, test: c"
    ):
        datasets.open_dataset("cars").open("blur")


def test_tars_with_their_class_names(served, tmp_path):
    serve(served, tmp_path, "objectnet")
    opened = opened_by_key("objectnet")
    assert opened.class_names[:2] == ("object 000", "object 001")
    assert labels_follow_names(opened)


def test_a_pinned_commit_is_asked_for(served, tmp_path):
    serve(served, tmp_path, "dtd")
    pinned = registry.entries()["dtd"].sources[0].revision
    assert opened_by_key("dtd").origin["source"] == f"tanganke/dtd@{pinned}"
    assert all(pinned in path for path in served.asked)


def test_the_hub_and_a_copy_give_the_same_fingerprint(served, tmp_path):
    for key in ("cars", "country211"):
        root = served.repositories[serve(served, tmp_path, key)]
        copy = datasets.open_dataset(key, sources={key: root}, accept_different_data=True)
        there, here = opened_by_key(key), copy.open("test")
        assert (there.content, there.fingerprint) == (here.content, here.fingerprint)
        assert there.origin != here.origin


def test_a_gated_source_falls_back_and_says_so(served, tmp_path):
    served.gated.add(serve(served, tmp_path, "imagenet"))
    serve(served, tmp_path, "imagenet", source=1)
    opened = opened_by_key("imagenet")
    assert opened.origin["source"].startswith("clip-benchmark/wds_imagenet1k@")
    assert any(
        "ILSVRC/imagenet-1k is gated (accept its terms" in note
        and "HF_TOKEN" in note
        and note.endswith("clip-benchmark/wds_imagenet1k takes its place")
        for note in opened.notes
    )
    assert labels_follow_names(opened)


def test_when_no_source_is_left(served, tmp_path):
    served.gated.add(serve(served, tmp_path, "imagenet"))
    with pytest.raises(
        DataError,
        match=r"split test of imagenet is unavailable: ILSVRC/imagenet-1k is gated \(accept its terms on its page of the hub and set HF_TOKEN\); clip-benchmark/wds_imagenet1k@b24c\w+ is not on the hub, or not public; .*; give a copy with --source imagenet=PATH$",
    ):
        opened_by_key("imagenet")


def test_a_repository_that_has_lost_a_split(served, tmp_path):
    root = served.repositories[serve(served, tmp_path, "cars")]
    for file in (root / "data").glob("test-*"):
        file.unlink()
    serve(served, tmp_path, "cars", source=1)
    opened = opened_by_key("cars")
    assert opened.origin["source"].startswith("mteb/StanfordCars@")
    assert "tanganke/stanford_cars has no split 'test' any more: mteb" in " ".join(opened.notes)


def test_splits_of_one_run_come_from_one_source(served, tmp_path):
    root = served.repositories[serve(served, tmp_path, "cars")]
    serve(served, tmp_path, "cars", source=1)
    found = datasets.open_dataset("cars", accept_different_data=True)
    found.open("train")
    for file in (root / "data").glob("test-*"):
        file.unlink()
    with pytest.raises(
        DataError, match=r"split test of cars would come from mteb/StanfordCars, the"
    ):
        found.open("test")


@pytest.mark.slow
def test_a_connection_that_breaks_off_is_one_sentence_and_goes_on(served, tmp_path):
    serve(served, tmp_path, "cars", rows=32)
    served.breaks.add("test-00001-of-00002.parquet")
    with pytest.raises(
        DataError,
        match=r"split test of cars is unavailable: tanganke/stanford_cars cannot be downloaded \(.+\); run it again with a network, which goes on where it stopped, or give a copy with --source cars=PATH$",
    ) as error:
        opened_by_key("cars")
    assert "\n" not in str(error.value)
    served.breaks.clear()
    served.asked.clear()
    assert labels_follow_names(opened_by_key("cars"))
    # What had arrived whole is not fetched again.
    assert not any(p.endswith("00000-of-00002.parquet") for p in downloaded(served, ".parquet"))


@pytest.mark.parametrize("key", ["cars", "country211"])
def test_what_is_in_the_cache_needs_no_network(served, tmp_path, key, request):
    serve(served, tmp_path, key)
    online = opened_by_key(key)
    request.getfixturevalue("offline")
    opened = opened_by_key(key)
    assert opened.fingerprint == online.fingerprint
    assert opened.origin == online.origin
    with pytest.raises(
        DataError, match=rf"split train of {key} is unavailable: .*\(no network\); run"
    ):
        opened_by_key(key, "train")


def test_a_split_that_is_not_whole_is_not_taken_from_the_cache(served, tmp_path, cache, request):
    serve(served, tmp_path, "cars")
    opened_by_key("cars")
    next(cache.rglob("test-00001-of-00002.parquet")).unlink()
    request.getfixturevalue("offline")
    with pytest.raises(DataError, match=r"is unavailable: .*\(no network\)"):
        opened_by_key("cars")


def test_no_room_says_where(served, tmp_path, monkeypatch, cache):
    serve(served, tmp_path, "cars")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", full)
    with pytest.raises(DataError, match=r"no room for tanganke/stanford_cars in .*hub-cache; free"):
        opened_by_key("cars")


def test_bytes_to_download(served, tmp_path, request):
    root = served.repositories[serve(served, tmp_path, "cars")]
    found = datasets.open_dataset("cars", accept_different_data=True)
    size = {s: sum(f.stat().st_size for f in root.rglob(f"{s}-*")) for s in ("train", "test")}
    assert found.download_bytes(["train", "test"]) == sum(size.values())
    found.open("test")
    assert found.download_bytes(["train", "test"]) == size["train"]
    assert datasets.open_dataset("pets").download_bytes(["test"]) is None
    request.getfixturevalue("offline")
    assert found.download_bytes(["test"]) == 0
    assert found.download_bytes(["train"]) is None


def test_the_catalogue_knows_what_is_on_disk(served, tmp_path, request):
    serve(served, tmp_path, "cars")
    opened_by_key("cars")
    request.getfixturevalue("offline")
    entries = {entry.key: entry for entry in catalogue()}
    assert entries["cars"].at_hand == ("test",)
    assert entries["cub"].at_hand == ()
    assert entries["imagenet"].gated
    assert (entries["dtd"].train, entries["dtd"].test, entries["dtd"].classes) == (3760, 1880, 47)
    assert entries["shapes"].source == "package"


def test_without_a_network_the_answer_comes_at_once(tmp_path):
    # A fresh process, with nothing replaced: a name that does not resolve anywhere.
    program = """
import json
from clipnlc import datasets
from clipnlc.errors import DataError
try:
    datasets.open_dataset("cub").open("test")
except DataError as error:
    print(json.dumps(str(error)))
"""
    environment = {"HF_ENDPOINT": "https://hub.invalid", "HF_HUB_CACHE": str(tmp_path)}
    start = time.monotonic()
    ran = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, check=True
    )
    # Trying again and again would take minutes; the rest is room for a busy machine.
    assert time.monotonic() - start < 60
    assert json.loads(ran.stdout) == (
        "split test of cub is unavailable: Donghyun99/CUB-200-2011 cannot be downloaded (no network);"
        " run it again with a network, which goes on where it stopped, or give a copy with"
        " --source cub=PATH"
    )
