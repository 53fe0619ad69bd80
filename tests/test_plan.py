"""`extract --plan`: what it tells, and that it leaves no trace."""

import json
import math

import pytest
from extracting import BOTH, CLASSES, run, write_images

from clipnlc.backbones.families import family
from clipnlc.cli import main
from clipnlc.errors import ClipnlcError
from clipnlc.extraction import estimate, passes, pixels
from clipnlc.extraction.request import Engine, Request
from clipnlc.machine import cores
from clipnlc.stages import plan as stage
from clipnlc.stages.extract import extract
from clipnlc.stages.plan import plan

RESNET, VIT = BOTH


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("data") / "many", train=7, test=12)


@pytest.fixture(autouse=True)
def short_probe(monkeypatch):
    monkeypatch.setattr(stage, "_PROBE", 0.4)


def planned(store, data, backbones=BOTH, *, probe=True, on_progress=lambda *_: None, **settings):
    request = Request(store=store, dataset=[str(data)], backbones=list(backbones), **settings)
    return plan(request, probe=probe, on_progress=on_progress)


def test_a_store_that_is_not_there(tmp_path, data):
    said = []
    found = planned(tmp_path / "store", data, on_progress=lambda *now: said.append(now))
    assert not (tmp_path / "store").exists()
    assert [(s.dataset, s.split, s.images, s.download_bytes) for s in found.splits] == [
        ("many", "train", 7, 0),
        ("many", "test", 12, 0),
    ]
    assert all(s.cached == () and s.lacking == BOTH for s in found.splits)
    assert [(b.backbone, b.images, b.download_bytes) for b in found.backbones] == [
        (name, 19, 0) for name in BOTH
    ]
    prompts = 3 * len(family("nano").templates(CLASSES))
    assert all(b.prompts == prompts and b.gflops > 0 for b in found.backbones)
    assert all(b.memory_bytes > 10**6 for b in found.backbones)
    assert all(0 < b.seconds < 1 for b in found.backbones)
    assert (found.device, found.precision, found.workers) == ("cpu", "fp32", 1)
    assert found.groups == (BOTH,)
    assert found.free_memory > 0
    assert 0 < found.pixel_seconds < 1
    assert 0 < found.hours < 0.01
    forward = sum(b.seconds for b in found.backbones)
    assert found.hours == pytest.approx(19 * (forward + found.pixel_seconds / cores()) / 3600)
    assert said == [(f"probe {name}", n, 2) for n, name in enumerate(BOTH)]


def test_disk_is_what_the_features_take(tmp_path, data):
    found = planned(tmp_path, data, probe=False)
    run(tmp_path, data)
    files = list(tmp_path.rglob("many/features/**/*.h5"))
    taken = sum(p.stat().st_size for p in files)
    overhead = 30_000 * len(files)  # names, texts, and what HDF5 adds
    assert found.disk_bytes < taken < found.disk_bytes + overhead


def test_what_is_cached(tmp_path, data):
    before = planned(tmp_path, data, probe=False)
    assert before.hours is None
    assert before.pixel_seconds is None
    assert all(b.seconds is None for b in before.backbones)
    run(tmp_path, data, [RESNET])
    run(tmp_path, data, [VIT], split=["test"])
    some = planned(tmp_path, data, probe=False)
    assert [(s.cached, s.lacking) for s in some.splits] == [((RESNET,), (VIT,)), (BOTH, ())]
    assert [(b.backbone, b.images) for b in some.backbones] == [(VIT, 7)]
    fewer = planned(tmp_path, data, probe=False, limit=5)
    assert [(s.images, s.cached) for s in fewer.splits] == [(5, ()), (5, ())]
    # New prompts need no image.
    (tmp_path / "templates.txt").write_text("a drawing of a {c}\n")
    prompts = planned(tmp_path, data, probe=False, templates=tmp_path / "templates.txt")
    assert [s.cached for s in prompts.splits] == [(RESNET,), BOTH]
    run(tmp_path, data, [VIT])
    done = planned(tmp_path, data)
    assert (done.backbones, done.groups, done.disk_bytes) == ((), (), 0)


def test_nothing_is_written_to_a_store_that_is(tmp_path, data):
    run(tmp_path, data, [RESNET])
    before = {p: p.read_bytes() for p in tmp_path.rglob("*.h5")}
    planned(tmp_path, data, probe=False)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*.h5")} == before


def test_a_data_set_that_is_not_at_hand(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    found = planned(tmp_path / "store", "cub", split=["test"], probe=False)
    (split,) = found.splits
    assert (split.dataset, split.split, split.images) == ("cub", "test", 5794)
    assert split.download_bytes is None or split.download_bytes > 0
    assert split.lacking == BOTH
    assert all(b.images == 5794 and b.prompts >= 200 for b in found.backbones)
    assert not (tmp_path / "store").exists()


def test_little_memory_makes_groups(tmp_path, data, monkeypatch):
    monkeypatch.setattr(passes, "free_memory", lambda _device: 10**6)
    found = planned(tmp_path, data, probe=False)
    assert found.groups == ((RESNET,), (VIT,))
    monkeypatch.undo()
    assert planned(tmp_path, data, probe=False, together=1).groups == ((RESNET,), (VIT,))


def test_compiled_forwards_are_timed_without_the_wait(tmp_path, data):
    found = planned(tmp_path, data, [VIT], compiled=True, batch_size=2, engine=Engine(("cpu",)))
    (backbone,) = found.backbones
    assert 0 < backbone.seconds < 0.5  # compiling takes several


def test_some_rows(tmp_path, data):
    found = planned(tmp_path, data, probe=False, split=["test"], rows=(8, 100))
    assert [s.images for s in found.splits] == [4]
    assert [b.images for b in found.backbones] == [4, 4]
    run(tmp_path, data, split=["test"])
    found = planned(tmp_path, data, probe=False, split=["test"], rows=(8, 100))
    assert [s.cached for s in found.splits] == [BOTH]


def test_every_pass_decodes_anew(tmp_path, data, monkeypatch):
    monkeypatch.setattr(stage, "pixel_seconds", lambda _, **_budget: 1.0)
    assert planned(tmp_path, data).pixel_seconds == 1.0
    assert planned(tmp_path, data, together=1).pixel_seconds == 2.0


def test_workers_on_one_device_need_its_memory_together(tmp_path, data, monkeypatch):
    for module in (estimate, pixels):
        monkeypatch.setattr(module, "cores", lambda: 2)
    one = planned(tmp_path, data, probe=False, batch_size=1)
    two = planned(tmp_path, data, probe=False, batch_size=1, engine=Engine(("cpu", "cpu")))
    assert (two.workers, two.decoders) == (2, 1)
    for a, b in zip(one.backbones, two.backbones, strict=True):
        assert a.memory_bytes < b.memory_bytes < 2 * a.memory_bytes


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"split": ["dev"]}, "dev"),
        ({"limit": 0}, "--limit is 0; give at least 1"),
        ({"precision": "fp16"}, "use --precision fp32"),
        ({"rows": (0, 5)}, "--rows is for a single data set and split"),
        ({"rows": (12, None), "split": ["test"]}, "--rows 12: holds none of the 12 rows"),
    ],
)
def test_refusals_are_those_of_extract(tmp_path, data, settings, message):
    for do in (plan, extract):
        with pytest.raises(ClipnlcError, match=message):
            do(
                Request(
                    store=tmp_path, dataset=[str(data)], backbones=[RESNET],
                    engine=Engine(("cpu",)), **settings,
                )
            )  # fmt: skip


def test_a_name_for_two(tmp_path, data):
    for do in (plan, extract):
        with pytest.raises(ClipnlcError, match="--name names one data set, but 2 were given"):
            do(
                Request(
                    store=tmp_path, dataset=["digits", str(data)], backbones=[RESNET], name="mine"
                )
            )


def test_the_command(tmp_path, data, capsys):
    command = ["extract", "--plan", "--dataset", str(data), "--backbones", ",".join(BOTH)]
    command += ["--store", str(tmp_path / "store")]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert RESNET in out
    assert "many" in out
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert math.isfinite(found["hours"])
    assert found["groups"] == [list(BOTH)]
    assert not (tmp_path / "store").exists()
