"""`clipnlc run`: from a folder of photos to a fitted ensemble, a table and an answer."""

import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import BACKBONES, contents, good, refusal
from datasets_on_disk import CLASSES, png, put, write_table, write_tar
from extracting import write_images
from scipy import stats

from clipnlc.datasets import open_dataset
from clipnlc.datasets.drawn import Draw, Row, in_order, write_draw
from clipnlc.stores.features import read_features
from clipnlc.stores.layout import Layout

ONE = ("--backbones", "nano-RN50")
TWO = ("--backbones", BACKBONES)


@pytest.fixture(autouse=True)
def inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("run") / "photos", train=24, test=12)


def test_split_folders_lead_to_a_table_and_an_answer(split, tmp_path, here):
    said = good("run", split, *TWO, by=here)
    lines = said.splitlines()
    assert lines[0] == f"{split}: class folders with a split (train, test)"
    assert re.search(r"^ balanced-gp +\d", said, re.MULTILINE)
    (answer,) = (line for line in lines if line.startswith("balanced-gp, fitted on 24 labels"))
    assert re.fullmatch(
        r"balanced-gp, fitted on 24 labels: [\d.]+ % of 12 test images right, "
        r"95 % interval [\d.]+ to [\d.]+ %",
        answer,
    )
    assert "points over the best single backbone without labels (nano-" in said
    assert lines[-2].startswith("next: clipnlc predict PHOTOS --dataset photos --combiner balanced")
    assert lines[-1].startswith("next: clipnlc export --out photos-ensemble --dataset photos ")
    made = contents(tmp_path / "clipnlc-store")
    again = good("run", split, *TWO, by=here)
    assert "2 backbones cached" in again
    assert again.splitlines()[-6:] == lines[-6:]
    assert contents(tmp_path / "clipnlc-store") == made
    ended = json.loads(good("run", split, *TWO, "--json", by=here))
    assert (ended["dataset"], ended["method"]) == ("photos", "balanced-gp")
    (rows,) = (one["rows"] for one in ended["evaluation"]["datasets"])
    row = next(r for r in rows if r["method"] == "balanced-gp" and r["drawn"]["kind"] == "all")
    right = round(12 * row["accuracy"])  # of all labels there is one draw: images alone vary
    wilson = stats.binomtest(right, 12).proportion_ci(method="wilson")
    assert (row["low"], row["high"], row["interval"]) == pytest.approx((*wilson, "samples"))
    assert row["gain_low"] <= row["gain"] <= row["gain_high"]
    assert good("run", split, *TWO, "--quiet", by=here) == ""
    assert contents(tmp_path / "clipnlc-store") == made


def test_photos_without_labels_get_answers_and_no_accuracy(split, tmp_path, here):
    (tmp_path / "flat").mkdir()
    for file in split.rglob("*.png"):
        (tmp_path / f"flat/{file.parent.name}-{file.parent.parent.name}-{file.name}").write_bytes(
            file.read_bytes()
        )
    refused = refusal("run", "flat", *ONE, by=here)
    assert 'for photos without labels give --classes "cat,dog"' in refused
    said = good("run", "flat", "--classes", "cat,dog", *ONE, by=here)
    lines = said.splitlines()
    assert lines[0] == "flat: 36 photos, taken without labels (--classes), 2 class names"
    assert "no accuracy is claimed" in said
    assert "%" not in said
    alone = here("predict", "flat", "--classes", "cat,dog", "--balance", *ONE, "--json").out
    table = {line.split("\t")[0]: line.split("\t")[1] for line in lines if "\t" in line}
    assert table == {one["file"]: one["class"] for one in map(json.loads, alone.splitlines())}
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    few = good(
        *("run", "flat", "--classes", "names.txt", *ONE, "--csv", "a.csv", "--quiet"), by=here
    )
    assert few == ""
    assert len((tmp_path / "a.csv").read_text().splitlines()) == 37
    for words in (["--test-share", 0.3], ["--class-names", "names.txt"]):
        said = refusal("run", "flat", "--classes", "cat,dog", *words, *ONE, by=here)
        assert "--classes takes the photos to have no labels" in said


def test_a_few_labels_are_fitted_on_and_judged_by_themselves(split, tmp_path, here):
    (tmp_path / "flat").mkdir()
    rows = ["file,label"]
    for number, file in enumerate(sorted(split.rglob("*.png"))):
        (tmp_path / f"flat/{number}.png").write_bytes(file.read_bytes())
        rows.append(f"{number}.png,{file.parent.name if number % 3 == 0 else ''}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    line = ("run", "flat", "--labels", "labels.csv", *ONE)
    said = good(*line, by=here)
    assert "flat/unlabelled: 24 images" in said
    assert "balanced-gp, fitted on 12 labels: accuracy on photos like the 12 labelled ones" in said
    assert (
        "note: the labels count as chosen, for they are not the photos that the command label drew"
        in said
    )
    estimate = json.loads(good(*line, "--json", by=here))["estimate"]
    assert (estimate["count"], estimate["others"], estimate["drawn"]) == (12, 24, False)
    divided = good(*line, "--test-share", 0.5, "--name", "divided", by=here)
    assert re.search(r"% of [4-8] test images right", divided)
    assert "divided/unlabelled: 24 images" in divided


def flattened(split, folder):
    """Copy all photos into one folder; return the class of each, by its new name."""
    files = sorted(split.rglob("*.png"))
    names = {f"{number}.png": file.parent.name for number, file in enumerate(files)}
    folder.mkdir()
    for file, name in zip(files, names, strict=True):
        (folder / name).write_bytes(file.read_bytes())
    return names


def test_labels_of_a_random_draw_are_known_to_be_one(split, tmp_path, here):
    names = flattened(split, tmp_path / "flat")
    drawn = in_order(sorted(names), 0)[:12]
    write_draw(tmp_path / "labels.csv", [Row(f, "cat", "0.5", names[f]) for f in drawn], Draw(0))
    line = ("run", "flat", "--labels", "labels.csv", "--classes", "cat,dog,test_tube,emu", *ONE)
    said = good(*line, by=here)
    assert "chosen" not in said
    assert "balanced-gp, fitted on 12 labels: accuracy on the 24 other photos: about" in said
    again = good(*line, by=here)
    assert again.splitlines()[-4:] == said.splitlines()[-4:]
    ended = json.loads(good(*line, "--json", by=here))
    assert ended["estimate"]["drawn"]
    assert ended["recognised"]["splits"] == ["train", "unlabelled"]


def test_photos_that_were_all_drawn_and_labelled_are_cross_fitted_on(split, tmp_path, here):
    names = flattened(split, tmp_path / "flat")
    order = in_order(sorted(names), 3)
    rows = [Row(file, "cat", "0.5", names[file]) for file in order]
    write_draw(tmp_path / "labels.csv", rows, Draw(3))
    saved = (tmp_path / "labels.csv").rename(tmp_path / "labels (1).csv")  # as a browser calls it
    line = ("run", "flat", "--labels", saved.name, *ONE)
    said = good(*line, by=here)
    assert "for all, as the command label drew them; all labels are fitted on" in said
    assert "balanced-gp, fitted on 36 labels: accuracy on photos of the same kind: about" in said
    estimate = json.loads(good(*line, "--json", by=here))["estimate"]
    assert (estimate["count"], estimate["others"], estimate["drawn"]) == (36, 0, True)
    asked = good(*line, "--test-share", 0.3, "--name", "divided", by=here)
    assert "of 12 test images right" in asked
    own = "".join(f"{row.file},{row.label}\n" for row in rows)
    (tmp_path / "own.csv").write_text(f"file,label\n{own}")
    asked = good("run", "flat", "--labels", "own.csv", "--name", "own", *ONE, by=here)
    assert "own.csv without a test split; 30 % of each class become test" in asked


def labelled_photos(root, names, first=0):
    """Write photos, and beside the folder a CSV of their labels; some are no images."""
    rows = ["file,label"]
    for number, name in enumerate(names):
        if name != "broken":
            rows.append(f"{number}.png,{name}")
        broken = b"" if number % 2 else b"no"
        data = broken if name == "broken" else png(first + number, size=(20, 20))
        put(root / f"{number}.png", data)
    table = root.with_suffix(".csv")
    table.write_text("\n".join(rows))
    return ("run", root.name, "--labels", table.name, *ONE)


def test_several_broken_photos_are_named_together_and_skipped_with_one_advice(tmp_path, here):
    names = ["cat", "dog"] * 6 + ["broken"] * 5
    line = labelled_photos(tmp_path / "flat", names)
    ended = here(*line)
    assert ended.err == (
        "error: 5 images of flat cannot be read: 12.png, 13.png, 14.png, and 2 more (the first: not an "
        "image, or of an unknown format); replace or remove them, or use --on-bad-image skip\n"
    )
    put(tmp_path / "flat/rest.png", png(99, size=(20, 20)))
    said = good(*line, "--on-bad-image", "skip", by=here)
    assert "  skipped 13.png: the file is empty\n" in said
    assert said.count("skipped 1") == 5
    assert said.count("replace") == 1
    assert "note: 5 images that cannot be read were left out; replace them and run this" in said


def test_labels_of_one_class_are_refused(split, tmp_path, here):
    line = labelled_photos(tmp_path / "flat", ["cat"] * 8)
    for classes in ([], ["--classes", "cat,dog"]):
        ended = here(*line, *classes)
        assert ended.code == 2
        assert ended.err == (
            "error: 8 labels of flat.csv, all of them 'cat': no combiner can be fitted on one class; "
            "label photos of another too\n"
        )
        assert list(tmp_path.glob("*/file-hashes.sqlite")) == []
    said = refusal("label", "flat", "--classes", "cat", *ONE, by=here)
    assert "there is 1 class name to choose from; give at least two" in said


def test_what_replaces_earlier_features_is_said_in_words(tmp_path, here):
    names = ["cat", "dog"] * 6
    line = labelled_photos(tmp_path / "flat", names)
    good(*line, "--test-share", 0.5, by=here)
    labelled_photos(tmp_path / "flat", ["dog", *names[1:], "cat", "dog"])
    said = good(*line, "--test-share", 0.5, "-b", BACKBONES, by=here)
    assert "  in place of the earlier ones of nano-RN50: other labels, other images\n" in said
    assert " -> " not in said


# The same photos in every form ------------------------------------------------------------------


def write_forms(root, photos):
    """Write the same labelled photos in every form; `photos` are (class, bytes), sorted by class."""
    named = [(f"{name}/{number:03}.png", name, data) for number, (name, data) in enumerate(photos)]
    for path, _, data in named:
        put(root / "folders/photos" / path, data)
        put(root / "csv/photos/all" / path.replace("/", "-"), data)
        put(root / "paths/photos/all" / path.replace("/", "-"), data)
    files = [path.replace("/", "-") for path, _, _ in named]
    labels = [name for _, name, _ in named]
    lines = [f"{file},{name}" for file, name in zip(files, labels, strict=True)]
    (root / "csv/labels.csv").write_text("\n".join(["file,label", *lines]))
    pq.write_table(pa.table({"path": files, "label": labels}), root / "paths/labels.parquet")
    write_table(root / "bytes/photos/rows.parquet", [data for _, _, data in named], labels)
    classes = sorted(set(labels))
    members = []
    for number, (_, name, data) in enumerate(named):
        key = f"s{number:05}"
        members += [(f"{key}.cls", str(classes.index(name)).encode()), (f"{key}.png", data)]
    write_tar(root / "tar/photos/rows.tar", members)
    (root / "tar/photos/classnames.txt").write_text("\n".join(classes).replace("_", " "))
    divided = open_dataset(str(root / "folders/photos"), test_share=0.3)
    for part in ("train", "test"):
        for sample in divided.open(part).read():
            put(root / "split/photos" / part / sample.sample_id, sample.data)
    return {
        "split": ["split/photos"],
        "folders": ["folders/photos"],
        "csv": ["csv/photos", "--labels", "csv/labels.csv"],
        "paths": ["paths/photos", "--labels", "paths/labels.parquet"],
        "bytes": ["bytes/photos"],
        "tar": ["tar/photos"],
    }


@pytest.mark.parametrize(
    ("each", "backbones"),
    [
        pytest.param(20, ("nano-RN50",), marks=pytest.mark.slow),
        pytest.param(100, tuple(BACKBONES.split(",")), marks=pytest.mark.long),
    ],
)
def test_every_form_of_the_same_photos_gives_the_same_features_and_a_table(
    each, backbones, tmp_path, here, monkeypatch
):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    photos = [
        (name, png(rng.integers(2**31), size=(20, 20))) for name in CLASSES for _ in range(each)
    ]
    seen = {}
    for form, words in write_forms(tmp_path, photos).items():
        store = tmp_path / "stores" / form
        said = good("run", *words, "-b", ",".join(backbones), "--store", store, by=here)
        assert re.search(r"^ balanced-gp +\d.*$", said, re.MULTILINE), form
        (answer,) = re.findall(r"^balanced-gp, fitted on .*$", said, re.MULTILINE)
        bits = {}
        for part in ("train", "test"):
            for backbone in backbones:
                found = read_features(Layout(store).features("photos", part, backbone))
                assert found.content is not None
                for content, label, row in zip(
                    found.content, found.labels, found.features, strict=True
                ):
                    name = found.class_names[label]
                    bits[backbone, part, content.tobytes()] = (name, row.tobytes())
        seen[form] = (answer, bits)
    assert len(seen["split"][1]) == len(photos) * len(backbones)
    for form, found in seen.items():
        assert found == seen["split"], form
