"""doctor: each defect planted in real folders and stores is found, and nothing in sound ones."""

import io
import json
import re
import shlex
import shutil
from dataclasses import asdict

import datasets as hf
import numpy as np
import pyarrow as pa
import pytest
from command_line import COLOURS, good, refusal, write_photos
from datasets_on_disk import png, put, write_table
from evaluation_examples import write_backbones
from PIL import Image

from clipnlc.datasets import open_dataset
from clipnlc.datasets.nano import dataset_root
from clipnlc.errors import DataError, UnknownNameError
from clipnlc.reports.diagnosis import Diagnosis, Finding, diagnosis_text
from clipnlc.stages.doctor import doctor
from clipnlc.stores.layout import Layout
from clipnlc.stores.logits import LogitStore, SplitLogits, read_logits, write_logits

BACKBONES = ("nano-RN50", "nano-ViT-B-16")


def write_folder(root, classes=("cat", "dog"), *, train=4, test=6):
    """Write an image folder whose images are all different."""
    seed = 0
    for split, count in (("train", train), ("test", test)):
        for name in classes:
            for number in range(count):
                put(root / split / name / f"{number:02}.png", png(seed, size=(32, 24)))
                seed += 1
    return root


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(mode="RGB", size=(32, 24)):
    return Image.open(io.BytesIO(png(99, size=size))).convert(mode)


def look(root, **options) -> Diagnosis:
    return doctor(store=None, dataset=f"{root}/", **options)


def found(diagnosis: Diagnosis, check: str, severity: str) -> list[Finding]:
    return [f for f in diagnosis.findings if (f.check, f.severity) == (check, severity)]


def only(diagnosis: Diagnosis, check: str, severity: str) -> Finding:
    """Return the one finding that is not fine."""
    (finding,) = [f for f in diagnosis.findings if f.severity not in ("fine", "note")]
    assert (finding.check, finding.severity) == (check, severity)
    assert finding.cause
    assert finding.cure
    return finding


def test_a_sound_folder_has_no_finding(tmp_path):
    diagnosis = look(write_folder(tmp_path / "my-pets"))
    assert {f.severity for f in diagnosis.findings} == {"fine"}
    assert diagnosis.rows == diagnosis.looked_at == {"train": 8, "test": 12}
    assert diagnosis.backbones == ()


# Class names and splits


@pytest.mark.parametrize("classes", [("1", "2", "10"), ("class_1", "class_2", "class_10")])
def test_numbered_classes_may_be_permuted(tmp_path, classes):
    folder = write_folder(tmp_path / "data", classes)
    names = tmp_path / "names.txt"
    names.write_text("".join(f"{c} = {word}\n" for c, word in zip(classes, "abc", strict=True)))
    finding = only(look(folder, class_names=names), "label order", "warning")
    assert "sorted as text they have another order" in finding.found
    assert f"label 0 is {classes[0]!r} (a)" in finding.where
    assert "identifier = name" in finding.cure


@pytest.mark.parametrize("classes", [("01", "02", "10"), ("707-320", "DC-3", "DC-10")])
def test_numbers_that_sort_the_same_or_are_names_are_fine(tmp_path, classes):
    assert found(look(write_folder(tmp_path / "data", classes)), "label order", "fine")


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_class_without_images_is_named(tmp_path, split):
    folder = write_folder(tmp_path / "data", ("bee", "cat", "dog"))
    shutil.rmtree(folder / split / "cat")
    finding = only(look(folder), "classes", "warning")
    assert finding.found == f"1 of 3 have no image in {split}"
    assert finding.where == ("'cat'",)


@pytest.mark.parametrize("name", ["n01440764", "001.Black_footed_Albatross", "007_bird", "12"])
def test_identifiers_are_no_names(tmp_path, name):
    folder = write_folder(tmp_path / "data", (name, "dog"))
    finding = only(look(folder), "class names", "warning")
    assert finding.found == "1 of 2 look like identifiers"


def test_numbers_are_names_where_templates_say_so(tmp_path):
    folder = write_folder(tmp_path / "data", ("3", "4"))
    (folder / "dataset.json").write_text(json.dumps({"templates": ['the number "{c}".']}))
    assert found(look(folder), "class names", "fine")


def test_two_classes_of_one_name_are_a_problem(tmp_path):
    finding = only(look(write_folder(tmp_path / "data", ("crane", "Crane"))), *NAMES)
    assert finding.where == ("'Crane' = 'crane'",)


NAMES = ("class names", "problem")


def test_splits_that_list_other_classes_are_a_problem(tmp_path):
    root = tmp_path / "data"
    images = [png(seed, size=(32, 24)) for seed in range(8)]
    write_table(root / "train.parquet", pa.array(images[:4]), [0, 1] * 2)
    put(root / "classnames.txt", b"cat\ndog\n")  # of bare numbers alone
    numbered = {
        "image": hf.Image(decode=False),
        "label": hf.ClassLabel(names=["dog", "cat"]),
    }
    cells = [{"bytes": data, "path": None} for data in images[4:]]
    rows = {"image": cells, "label": [0, 1, 0, 1]}
    hf.Dataset.from_dict(rows, hf.Features(numbered)).to_parquet(root / "test.parquet")
    (finding,) = found(look(root), *NAMES)
    assert finding.found == "train and test have other class names or another order of them"
    assert finding.where[0] == "label 0 is 'cat' and 'dog'"


def test_columns_are_named_as_for_extract(tmp_path):
    for number in range(4):
        put(tmp_path / f"data/images/{number}.png", png(number))
    lines = ("photo,dx", "0.png,cat", "1.png,dog", "2.png,cat", "3.png,dog")
    put(tmp_path / "data/labels.csv", "\n".join(lines).encode())
    with pytest.raises(DataError, match=r"name it with --label-column"):
        look(tmp_path / "data")
    assert look(tmp_path / "data", label_column="dx", image_column="photo").rows == {"all": 4}


def test_what_was_noticed_on_opening_is_repeated(tmp_path):
    folder = write_folder(tmp_path / "data")
    put(folder / "readme.md", b"pets")
    (finding,) = found(look(folder), "data", "note")
    assert finding.found == "1 file that is no image was ignored (1 .md)"


# Images


def test_images_in_train_and_test_are_a_problem(tmp_path):
    folder = write_folder(tmp_path / "data")
    shutil.copy(folder / "train" / "cat" / "01.png", folder / "test" / "cat" / "zz.png")
    finding = only(look(folder), "duplicates", "problem")
    assert finding.found == "1 image of test is in train too"
    assert finding.where == ("test/cat/zz.png = train/cat/01.png",)


def test_a_few_in_many_are_a_warning(tmp_path):
    folder = write_folder(tmp_path / "data", test=60)
    shutil.copy(folder / "train" / "cat" / "01.png", folder / "test" / "cat" / "00.png")
    assert only(look(folder), "duplicates", "warning").found == "1 image of test is in train too"


def test_repeats_within_a_split_are_counted(tmp_path):
    folder = write_folder(tmp_path / "data")
    for number in range(5):
        copy = folder / "test" / "dog" / f"again{number}.png"
        shutil.copy(folder / "test" / "dog" / "02.png", copy)
    finding = only(look(folder), "duplicates", "warning")
    assert finding.found == "5 images of test repeat another one of it"
    assert finding.where[0] == "test/dog/again0.png"
    assert finding.where[-1] == "and 2 more"


def test_one_image_under_two_labels_is_a_problem(tmp_path):
    folder = write_folder(tmp_path / "data")
    shutil.copy(folder / "test" / "cat" / "00.png", folder / "test" / "dog" / "zz.png")
    (finding,) = found(look(folder), "duplicates", "problem")
    assert finding.found == "1 image under two labels"
    assert finding.where == ("test/cat/00.png (cat and dog)",)


def test_unreadable_images_are_a_problem_and_the_rest_is_looked_at(tmp_path):
    folder = write_folder(tmp_path / "data")
    whole = folder / "test" / "cat" / "00.png"
    whole.write_bytes(whole.read_bytes()[:200])
    put(folder / "train" / "dog" / "page.png", b"<html>not found</html>")
    one, two = found(look(folder), "images", "problem")
    assert (one.found, one.where) == ("1 of train cannot be read", ("train/dog/page.png",))
    assert (two.found, two.where) == ("1 of test cannot be read", ("test/cat/00.png",))


@pytest.mark.parametrize(
    ("name", "data", "severity", "words"),
    [
        ("a.jpg", png(99, size=(32, 24)), "warning", "another format than their name says"),
        ("a.png", png(99, size=(32, 15)), "warning", "smaller than 16 pixels"),
        (
            "a.png",
            encoded(Image.new("RGB", (32, 24), "red"), "PNG"),
            "warning",
            "one colour all over",
        ),
        ("a.jpg", encoded(noise("CMYK"), "JPEG"), "note", "CMYK or have more than 8 bits"),
        (
            "a.png",
            encoded(Image.fromarray(np.arange(768, dtype=np.uint16).reshape(24, 32) * 80), "PNG"),
            "note",
            "CMYK or have more than 8 bits",
        ),
    ],
)
def test_odd_images_are_counted(tmp_path, name, data, severity, words):
    folder = write_folder(tmp_path / "data")
    put(folder / "test" / "cat" / name, data)
    (finding,) = [f for f in look(folder).findings if f.severity != "fine"]
    assert (finding.check, finding.severity) == ("images", severity)
    assert finding.found.startswith("1 of test ")
    assert words in finding.found
    assert finding.where == (f"test/cat/{name}",)


def test_16_bit_images_that_use_a_few_bits_are_almost_black(tmp_path):
    folder = write_folder(tmp_path / "data")
    values = np.arange(768, dtype=np.uint16).reshape(24, 32) * 5  # below 4096
    put(folder / "test" / "cat" / "a.png", encoded(Image.fromarray(values), "PNG"))
    (finding,) = found(look(folder), "images", "warning")
    assert finding.found == "1 of test have more than 8 bits but are almost black"


def test_images_that_exif_turns_are_noted(tmp_path):
    folder = write_folder(tmp_path / "data")
    exif = Image.Exif()
    exif[274] = 6
    put(folder / "test" / "cat" / "a.jpg", encoded(noise(), "JPEG", exif=exif))
    (finding,) = found(look(folder), "images", "note")
    assert "turned or mirrored by EXIF" in finding.found


def test_damaged_exif_is_no_damaged_image(tmp_path):
    folder = write_folder(tmp_path / "data")
    for number, damaged in enumerate((b"Exif\x00\x00MX\x00*", b"Exif\x00\x00MM\x00*\x00")):
        data = encoded(noise(size=(32, 25 + number)), "PNG", exif=damaged)
        put(folder / "test" / "cat" / f"damaged{number}.png", data)
    assert {f.severity for f in look(folder).findings} == {"fine"}


def test_a_jpeg_of_a_phone_is_a_jpeg(tmp_path):
    folder = write_folder(tmp_path / "data")
    put(
        folder / "test" / "cat" / "a.jpg",
        encoded(noise(), "MPO", save_all=True, append_images=[noise()]),
    )
    assert {f.severity for f in look(folder).findings} == {"fine"}


def test_a_limit_looks_at_images_all_over_a_split(tmp_path):
    folder = write_folder(tmp_path / "data", ("a", "b", "c", "d"), test=50)
    for name in "abcd":
        for number in range(50):
            put(folder / "test" / name / f"{number:02}.png", b"broken")
    calls = []
    diagnosis = look(folder, limit=40, on_progress=lambda *at: calls.append(at))
    assert diagnosis.rows == {"train": 16, "test": 200}
    assert diagnosis.looked_at == {"train": 16, "test": 40}
    assert calls[-1] == ("test", 40, 40)
    (finding,) = found(diagnosis, "images", "problem")
    assert finding.found == "40 of test cannot be read"


def test_a_file_that_goes_away_is_unreadable(tmp_path):
    folder = write_folder(tmp_path / "data")
    gone = folder / "test" / "cat" / "03.png"

    def remove(split, done, _all):
        if (split, done) == ("train", 1):
            gone.unlink()

    (finding,) = found(look(folder, on_progress=remove), "images", "problem")
    assert finding.where == ("test/cat/03.png",)


# Predictions


def names_file(path, names):
    path.write_text("".join(f"{identifier} = {name}\n" for identifier, name in names.items()))
    return path


def extract(here, store, folder, *options):
    """Extract within this process, which has torch loaded already."""
    wanted = ("--dataset", folder, "--backbones", ",".join(BACKBONES), "--store", store)
    good("extract", *wanted, *options, by=here)


def test_a_clean_nano_set_with_its_predictions_has_no_finding(here, tmp_path):
    store = tmp_path / "store"
    extract(here, store, "counts", "--split", "test")
    diagnosis = doctor(store=store, dataset="counts")
    assert {f.severity for f in diagnosis.findings} == {"fine"}
    assert diagnosis.backbones == BACKBONES
    (finding,) = found(diagnosis, "predictions", "fine")
    assert "no other order of the names fits better" in finding.found


def test_swapped_names_are_found_in_what_the_backbones_say(here, tmp_path):
    store, root = tmp_path / "store", dataset_root("fashion")
    card = json.loads((root / "dataset.json").read_text("utf-8"))
    swapped = {"trousers": "bag", "bag": "trousers"}
    names = {name: swapped.get(name, name) for name in card["class_names"]}
    file = names_file(tmp_path / "names.txt", names)
    extract(here, store, "fashion", "--split", "test", "--class-names", file)

    diagnosis = doctor(store=store, dataset="fashion", class_names=file)
    finding = only(diagnosis, "predictions", "problem")
    assert finding.where == ("'bag' and 'trousers'",)
    assert "swapped" in finding.cause

    # With the names put right, the store is what is wrong.
    other = only(doctor(store=store, dataset="fashion"), "predictions", "warning")
    assert "other class names than the data: 2 backbones" in other.found
    assert "extract" in other.cure


def test_names_in_another_order_are_found(here, tmp_path):
    store, photos = tmp_path / "store", write_photos(tmp_path / "photos")
    turned = names_file(
        tmp_path / "names.txt", dict(zip(COLOURS, [*list(COLOURS)[1:], "red"], strict=True))
    )
    extract(here, store, photos, "--class-names", turned)
    diagnosis = doctor(store=store, dataset=f"{photos}/", class_names=turned)
    finding = found(diagnosis, "predictions", "problem")[0]
    assert "with the names of 3 of 3 classes in another order" in finding.found
    assert "near chance (33.3 %)" in found(diagnosis, "predictions", "warning")[0].found
    straight = tmp_path / "straight"
    extract(here, straight, photos)
    assert not found(doctor(store=straight, dataset=f"{photos}/"), "predictions", "problem")


def test_without_logits_it_is_said_that_predictions_were_not_looked_at(tmp_path):
    folder = write_folder(tmp_path / "data")
    (finding,) = found(
        doctor(store=tmp_path / "store", dataset=f"{folder}/"), "predictions", "note"
    )
    assert "holds no zero-shot logits of data on test" in finding.found
    assert not (tmp_path / "store").exists()
    assert not any(f.check == "predictions" for f in look(folder).findings)


def test_its_command_makes_the_logits_that_it_lacks(here, tmp_path, monkeypatch):
    """Also of a folder elsewhere, of another name, without a test split, with a broken image."""
    monkeypatch.chdir(tmp_path)
    folder = write_folder(tmp_path / "some data")
    shutil.rmtree(folder / "test")
    (folder / "train/cat/broken.jpg").write_bytes(b"\xff\xd8\xff")
    where = ("doctor", folder, "--name", "beasts", "--store", tmp_path / "my store")
    told = " ".join(good(*where, by=here).split())
    (line,) = re.findall(r"run `clipnlc (extract [^`]+)`", told)
    assert not good(*shlex.split(line), "-b", "nano-RN50", by=here).startswith("error")
    assert "zero-shot logits of nano-RN50)" in " ".join(good(*where, by=here).split())


@pytest.fixture
def cifar(tmp_path):
    """A copy of a published data set, far too small, and a folder of its own."""
    names = open_dataset("cifar10").entry.class_names
    return write_folder(tmp_path / "copy", names, train=1, test=6)


def test_fewer_rows_than_published_are_a_finding(cifar):
    diagnosis = doctor(store=None, dataset="cifar10", sources={"cifar10": cifar})
    splits = found(diagnosis, "data", "problem")
    assert any("60 rows where 10,000 were expected" in finding.found for finding in splits)


@pytest.mark.parametrize(
    ("share", "severity", "words"),
    [
        (1.0, "fine", "zero-shot accuracy is 100.0 to 100.0 %"),
        (0.65, "warning", "RN50.openai 65.0 against 71.6"),
        (0.5, "problem", "RN50.openai 50.0 against 71.6"),
        (0.1, "warning", "1 of 1 backbone near chance (10.0 %)"),
    ],
)
def test_accuracies_far_under_the_published_one_are_found(tmp_path, cifar, share, severity, words):
    layout = Layout(tmp_path / "store")
    write_backbones(layout, "cifar10", rows=60, classes=10, backbones=["RN50.openai"])
    path = layout.logits("cifar10", "zero-shot", "RN50.openai")
    store = read_logits(path)
    split = store.splits["test"]
    row = np.arange(60)
    wrong = (split.labels + 1 + row // 10) % 10  # another wrong class every time: no order fits
    called = np.where(row < round(60 * share), split.labels, wrong)
    logits = np.eye(10, dtype=np.float32)[called]
    names = open_dataset("cifar10").entry.class_names
    test = {"test": SplitLogits(logits, split.labels, split.sample_id)}
    write_logits(path, LogitStore(test, names, store.key, {}, {}))
    diagnosis = doctor(store=layout.root, dataset="cifar10", sources={"cifar10": cifar})
    findings = found(diagnosis, "predictions", severity)
    assert any(words in f"{f.found} {' '.join(f.where)}" for f in findings)


# What it cannot do, and how it is shown


def test_what_cannot_be_opened_is_refused(tmp_path):
    with pytest.raises(UnknownNameError, match=r"unknown dataset 'fation'; did you mean 'fashion'"):
        doctor(store=None, dataset="fation")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no images in"):
        look(tmp_path / "empty")


def test_the_text_counts_and_explains_and_fits(tmp_path):
    folder = write_folder(tmp_path / "data", ("n01440764", "dog"))
    shutil.copy(folder / "train" / "dog" / "01.png", folder / "test" / "dog" / "zz.png")
    diagnosis = look(folder)
    text = diagnosis_text(diagnosis, width=72)
    lines = text.splitlines()
    assert all(len(line) <= 72 for line in lines)
    assert lines[0].startswith("data: 1 problem, 1 warning (8 of 8 train images, 13 of 13 test")
    marks = [line.split()[0] for line in lines if line[1:2].strip()][1:]
    assert marks[:2] == ["problem", "warning"]
    assert set(marks[2:]) == {"fine"}
    assert "remove them from one of the two" in " ".join(text.split())
    assert json.loads(json.dumps(asdict(diagnosis)))["findings"][0]["severity"] == "problem"


# Labels from a table


def test_a_folder_with_a_table_of_labels(tmp_path, here):
    photos = write_photos(tmp_path / "photos")
    files = sorted((photos / "train").rglob("*.png"))
    labels = tmp_path / "labels.csv"
    lines = [f"{p.relative_to(photos)},{p.parent.name}\n" for p in files[1:]]
    labels.write_text("file,label\n" + "".join(lines))
    where = ("doctor", photos, "--labels", labels, "--store", tmp_path / "store", "--json")
    told = json.loads(good(*where, by=here))
    assert told["rows"] == {"train": 23, "unlabelled": 37}
    assert {f["severity"] for f in told["findings"]} == {"fine", "note"}
    shutil.copy(files[0], files[1])  # of which one has no label: no two labels
    (one,) = [
        f for f in json.loads(good(*where, by=here))["findings"] if f["check"] == "duplicates"
    ]
    assert "1 image of unlabelled is in train too" in one["found"]
    said = refusal("doctor", photos, "--labels", labels, "--classes", "red,blue", by=here)
    assert "'green' is no class of --classes (red, blue)" in said


def test_a_data_set_of_the_store_is_told_to_need_a_path(fitted, here):
    said = refusal("doctor", "photos", "--store", fitted, by=here)
    assert f"{fitted} holds photos, but not where its images lie; give their path" in said
