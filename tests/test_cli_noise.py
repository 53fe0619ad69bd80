"""Good input leaves standard error empty: no warning of a library, whatever the images are."""

import re
import warnings

import numpy as np
import pytest
from command_line import COLOURS, good, run, write_photos
from PIL import Image

BACKBONES = "nano-RN50,nano-ViT-B-32"
PROGRESS = r"(?m)^[a-z-]+ .*: \d+/\d+ after .*\n"  # a line a minute
ALL = ("--combiners", "all")
FOLDERS = {
    "photos": (),
    "one class": pytest.mark.slow,
    # Several data sets, below, are of these.
    "one image a class": pytest.mark.long,
    "images all alike": pytest.mark.long,
}


def write(folder, kind):
    """Write a folder that gives measures little to divide by."""
    if kind == "photos":
        write_photos(folder, train=3, test=4)
        return
    classes = ["red"] if kind == "one class" else [*COLOURS]
    random = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in classes:
            (folder / split / name).mkdir(parents=True)
            for number in range(1 if kind == "one image a class" else 3):
                pixels = np.full((32, 32, 3), 100.0)
                if kind != "images all alike":
                    pixels = np.array(COLOURS[name]) + random.normal(0, 40, (32, 32, 3))
                image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
                image.save(folder / split / name / f"{number}.png")


def lines(folder, store):
    """Return every command that makes or reads something of the store."""
    export = store.parent / "ensemble"
    one = ("--shots", 1)
    for line in (
        ["extract", "-d", folder, "-b", BACKBONES],
        ["train-heads", "--epochs", 2],
        ["train-heads", "--epochs", 2, "--shots", 1, "--seeds", 2],
        ["train-nlc", "--shots", "1,2", "--seeds", 2, "--workers", "N", *ALL],
        ["train-nlc", "--shots", "all", "--seeds", 2, "--workers", 1, *ALL],
        ["train-nlc", "--head", "linear", "--holdout", 1, "--seeds", 1, "--workers", 1, *ALL],
        ["evaluate"],
        ["evaluate", "--json"],
        ["evaluate", "--head", "linear"],
        ["diversity"],
        ["diversity", "--head", "linear"],
        ["doctor", folder],
        *(["predict", folder / "test", "--combiner", c, *one] for c in ("nlc", "c-conf")),
        ["export", *one, "--out", export],
        ["status"],
        ["verify"],
    ):
        yield [*line, "--store", store]
    yield ["predict", folder / "test", "--from", export, "--explain"]


def is_possible(line, kind):
    """A single image of a class leaves no hold-out for a head, which is refused, not noise."""
    return kind != "one image a class" or ("linear" not in line and line[0] != "train-heads")


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=marks) for kind, marks in FOLDERS.items()]
)
def test_no_warning(kind, tmp_path, here):
    write(tmp_path / "images", kind)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # an internal error, then
        for line in lines(tmp_path / "images", tmp_path / "store"):
            if is_possible(line, kind):
                good(*[1 if word == "N" else word for word in line], by=here)


@pytest.mark.slow
def test_several_data_sets_without_a_warning(tmp_path, here):
    """Correlations over data sets, some of whose values are constant."""
    for kind in ("photos", "one image a class", "images all alike"):
        write(tmp_path / kind.replace(" ", "-"), kind)
    store = ("--store", tmp_path / "store")
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        for kind in ("photos", "one-image-a-class", "images-all-alike"):
            good("extract", "-d", tmp_path / kind, "-b", BACKBONES, *store, by=here)
        good(
            "train-nlc",
            "--shots",
            1,
            "--seeds",
            2,
            "--workers",
            1,
            "--quiet",
            *ALL,
            *store,
            by=here,
        )
        good("evaluate", *store, by=here)
        good("evaluate", "--fitted-on", "photos", *store, by=here)
        good("diversity", *store, by=here)


@pytest.mark.parametrize(
    "every",
    [
        pytest.param(False, marks=pytest.mark.slow, id="those with workers or models"),
        pytest.param(True, marks=pytest.mark.long, id="all"),
    ],
)
def test_processes_say_nothing_on_standard_error(every, tmp_path):
    write(tmp_path / "images", "photos")
    chosen = list(lines(tmp_path / "images", tmp_path / "store"))
    if not every:
        first = {line[0]: line for line in reversed(chosen)}
        chosen = [first[name] for name in ("extract", "train-nlc", "predict")]
    for line in chosen:
        more = ["--devices", "cpu,cpu"] if line[0] == "extract" else []
        ended = run(*[2 if word == "N" else word for word in line], *more)
        assert ended.code == 0, ended
        assert re.sub(PROGRESS, "", ended.err) == "", ended
    damaged = tmp_path / "images/test/red/00.png"
    damaged.write_bytes(damaged.read_bytes()[:40])
    said = run("predict", tmp_path / "images/test", "--classes", "red,green", "-b", "nano-RN50")
    assert said.code == 0
    assert [line.split(":")[0].split(" /")[0] for line in said.err.splitlines()] == [
        "cannot use",
        "warning",
    ]
