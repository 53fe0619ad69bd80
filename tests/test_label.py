"""Photos drawn at random to be labelled: never twice, nothing lost, and told from chosen ones."""

import base64
import csv
import io
import json
from itertools import pairwise

import numpy as np
import pytest
from command_line import COLOURS, refusal
from PIL import Image

from clipnlc.datasets import open_dataset
from clipnlc.datasets.drawn import (
    COLUMNS,
    Draw,
    Row,
    doubt,
    find_draw,
    in_order,
    read_draw,
    read_rows,
    record_of,
    rows_csv,
    write_draw,
)
from clipnlc.datasets.recognition import recognise
from clipnlc.errors import DataError
from clipnlc.reports.page import render
from clipnlc.reports.thumbnails import data_uri
from clipnlc.stages.label import Guess, label

ODD = '</script><b>"a, b"'
CLASSES = ("cat", "dog", ODD)


def write_folder(root, count=20):
    """Write photos, some with names that CSV and HTML must quote."""
    names = ["=1+1.png", 'a, "b".png', "</script>.png", "sub/ü.png"]
    names += [f"{number:02}.png" for number in range(count - len(names))]
    for number, name in enumerate(names):
        colour = list(COLOURS.values())[number % 3]
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (48, 32), colour).save(root / name)
    return root


def files_of(root):
    return [path.relative_to(root).as_posix() for path in root.rglob("*.png")]


def guess(files):
    """Say cat of everything, and of a broken photo why it cannot be used."""
    for file in files:
        yield file, ("broken" if file.read_bytes() == b"no" else Guess("cat", 0.5))


def drawn(root, out, count=5, **asked):
    asked = {"class_names": CLASSES, "guess": guess, **asked}
    return label(photos=root, count=count, out=out, **asked)


def fill(out, name="dog", rows=None):
    """Play the person: label the rows with these numbers, by default all."""
    read = read_rows(out)
    chosen = range(len(read)) if rows is None else rows
    filled = [
        Row(row.file, row.guess, row.confidence, name if number in chosen else row.label)
        for number, row in enumerate(read)
    ]
    out.write_text(rows_csv(filled), "utf-8")


def chosen(root, out):
    """Say why `run` takes the labels for chosen; None where they are a draw."""
    return recognise(open_dataset(str(root), labels=out)).chosen


def test_photos_are_drawn_whatever_the_steps_and_labels_stay(tmp_path):
    root, one, two = write_folder(tmp_path / "photos"), tmp_path / "1.csv", tmp_path / "2.csv"
    first = drawn(root, one, 5)
    assert (first.drawn, first.kept, first.photos) == (5, 0, 20)
    assert one.read_text("utf-8").splitlines()[0] == ",".join(COLUMNS)
    fill(one)
    second = drawn(root, one, 7)
    assert (second.drawn, second.kept, second.labels) == (7, 5, 5)
    drawn(root, two, 12)
    assert [row.file for row in read_rows(one)] == [row.file for row in read_rows(two)]
    assert [row.label for row in read_rows(one)] == ["dog"] * 5 + [""] * 7
    assert drawn(root, one, 100).drawn == 8
    assert drawn(root, one, 100).drawn == 0
    assert sorted(row.file for row in read_rows(one)) == sorted(files_of(root))


def test_each_photo_is_drawn_equally_often():
    names = [f"{number}.png" for number in range(10)]
    counts = dict.fromkeys(names, 0)
    for seed in range(2000):
        for name in in_order(names, seed)[:3]:
            counts[name] += 1
    assert all(520 <= found <= 680 for found in counts.values())  # 600, 4 standard deviations


def test_only_a_random_draw_passes_for_one(tmp_path):
    root, out = write_folder(tmp_path / "photos"), tmp_path / "labels.csv"
    drawn(root, out, 6, seed=3)
    files, draw = files_of(root), read_draw(out)
    assert draw == Draw(3, classes=CLASSES)
    fill(out, rows=range(4))  # labelled in the order of the page, and stopped
    assert doubt(read_rows(out), files, draw) is None
    fill(out)
    assert doubt(read_rows(out), files, draw) is None
    rows = list(read_rows(out))
    rows[2] = Row(rows[2].file, "cat", "0.5")
    assert doubt(rows, files, draw) == (
        "1 photo of the 6 that were drawn has no label, and not the last ones"
    )
    assert chosen(root, out) is None
    own = tmp_path / "own.csv"
    own.write_text("file,label\n00.png,dog\n", "utf-8")
    assert "not the photos that the command label drew" in chosen(root, own)
    record_of(out).unlink()  # seed 3 is not known any more
    assert "not the photos that the command label drew" in chosen(root, out)
    others = [Row(file, "cat", "0.5", "dog") for file in sorted(files)[:6]]
    assert "not the photos that the command label drew" in doubt(others, files, draw)
    assert "not in the folder" in doubt([Row("gone.png", "", "", "dog")], files, draw)


def test_a_draw_that_a_spreadsheet_saved_is_one(tmp_path):
    root, out = write_folder(tmp_path / "photos"), tmp_path / "labels.csv"
    drawn(root, out, 6, seed=3)
    fill(out)
    rows = read_rows(out)
    for columns in (COLUMNS, ("label", "file")):
        lines = [[getattr(row, name) for name in columns] for row in rows]
        text = io.StringIO()
        csv.writer(text, delimiter=";").writerows([columns, *lines])
        out.write_text(text.getvalue(), "utf-8-sig")
        assert chosen(root, out) is None
        assert {row.file: row.label for row in read_rows(out)} == {r.file: "dog" for r in rows}
    assert drawn(root, out, 2).kept == 6
    assert len(read_rows(out)) == 8
    assert chosen(root, out) is None


def test_a_draw_under_another_name_is_known_by_a_record_beside_it(tmp_path):
    root, out = write_folder(tmp_path / "photos"), tmp_path / "labels.csv"
    drawn(root, tmp_path / "another.csv", 6, seed=5)
    record_of(tmp_path / "broken.csv").write_text("no", "utf-8")
    drawn(root, out, 6, seed=3)
    fill(out, rows=range(4))
    saved = tmp_path / "labels (1).csv"
    saved.write_bytes(out.read_bytes())
    assert chosen(root, saved) is None
    assert find_draw(saved, files_of(root)) == Draw(3, classes=CLASSES)
    assert drawn(root, saved, 2).kept == 6  # goes on, and has a record of its own now
    assert read_draw(saved) == Draw(3, classes=CLASSES)
    moved = tmp_path / "elsewhere" / "mine.csv"
    moved.parent.mkdir()
    moved.write_bytes(out.read_bytes())
    assert chosen(root, moved) == (
        "they are not the photos that the command label drew from this folder (if it did, put the "
        f"record that it wrote beside the CSV, as {moved}.json)"
    )
    record_of(moved).write_bytes(record_of(out).read_bytes())
    assert chosen(root, moved) is None
    spoilt = tmp_path / "spoilt.csv"
    spoilt.write_bytes(out.read_bytes())
    fill(spoilt, rows=[5])
    assert "and not the last ones" in chosen(root, spoilt)
    own = tmp_path / "own.csv"  # of the same photos, but nothing says that label wrote it
    own.write_text(
        "file,label\n" + "".join(f"{r.file},dog\n" for r in read_rows(out)[1:4]), "utf-8"
    )
    assert find_draw(own, files_of(root)) is None


def test_a_photo_that_cannot_be_read_is_passed_over(tmp_path):
    root, out = write_folder(tmp_path / "photos"), tmp_path / "labels.csv"
    broken = in_order(files_of(root), 0)[1]
    (root / broken).write_bytes(b"no")
    done = drawn(root, out)
    assert (done.drawn, dict(done.unreadable)) == (5, {broken: "broken"})
    fill(out)
    assert broken not in [row.file for row in read_rows(out)]
    assert doubt(read_rows(out), files_of(root), read_draw(out)) is None
    assert drawn(root, out).unreadable == {}


def test_photos_that_came_since_are_drawn_as_if_they_had_been_there(tmp_path):
    root, out = write_folder(tmp_path / "photos"), tmp_path / "labels.csv"
    drawn(root, out, 15)
    fill(out)
    for number in range(100, 130):
        Image.new("RGB", (8, 8)).save(root / f"{number}.png")
    assert "not the photos" in doubt(read_rows(out), files_of(root), read_draw(out))
    done = drawn(root, out, 1)
    assert done.since == done.drawn > 1
    fill(out)
    assert doubt(read_rows(out), files_of(root), read_draw(out)) is None


def test_names_survive_csv_and_html(tmp_path):
    root, out = write_folder(tmp_path / "photos"), tmp_path / "labels.csv"
    done = drawn(root, out, 20, class_names=(ODD, "cat"))
    text = out.read_text("utf-8")
    assert "\n./=1+1.png," in text
    assert sorted(row.file for row in read_rows(out)) == sorted(files_of(root))
    page = done.page.read_text("utf-8")
    assert page.count("</script>") == 2  # the ends of the two that are ours
    start = page.index('id="data">') + len('id="data">')
    data = json.loads(page[start : page.index("</script>", start)])
    assert data["classes"] == [ODD, "cat"]
    assert {"./=1+1.png", 'a, "b".png', "</script>.png"} <= {one["file"] for one in data["photos"]}
    assert "http://" not in page
    assert "https://" not in page


def test_a_title_is_text():
    assert "<title>a &lt;b&gt; &amp; c</title>" in render("label", title="a <b> & c", data={})


def test_a_thumbnail_is_upright_small_and_on_white():
    tall = Image.new("RGB", (640, 320), "red")
    tall.getexif()[0x0112] = 6  # the camera was turned
    transparent = Image.new("RGBA", (10, 10), (0, 0, 0, 0))
    for image, size, colour in (
        (tall, (160, 320), (254, 0, 0)),
        (transparent, (10, 10), (255,) * 3),
    ):
        kind, _, data = data_uri(image, side=320).partition(",")
        assert kind == "data:image/jpeg;base64"
        read = Image.open(io.BytesIO(base64.b64decode(data)))
        assert read.size == size
        assert np.abs(np.subtract(read.getpixel((5, 5)), colour)).max() <= 3


def test_the_same_call_writes_the_same_bytes(tmp_path):
    root, out = write_folder(tmp_path / "photos"), tmp_path / "labels.csv"
    seen = []
    for _ in range(2):
        page = drawn(root, out, 4).page if not seen else drawn(root, out, 0).page
        seen.append((out.read_bytes(), record_of(out).read_bytes(), page.read_bytes()))
    assert all(one == two for one, two in pairwise(seen))


def test_what_cannot_be_labelled_is_refused(tmp_path):
    root, out = write_folder(tmp_path / "photos"), tmp_path / "labels.csv"
    (tmp_path / "empty").mkdir()
    for asked, problem in (
        ({"out": tmp_path / "labels.txt"}, r"labels\.txt; give it the suffix \.csv"),
        ({"out": tmp_path / "no" / "labels.csv"}, r"there is no folder .*no; make it"),
        ({"root": tmp_path / "no"}, r"does not exist; give the folder"),
        ({"root": root / "00.png"}, r"is a file; give the folder"),
        ({"root": tmp_path / "empty"}, r"no images in"),
    ):
        with pytest.raises(DataError, match=problem):
            drawn(**{"root": root, "out": out, **asked})
    with pytest.raises(DataError, match=r"no photo was drawn into .* yet; give --count 30"):
        drawn(root, out, 0)
    with pytest.raises(DataError, match=r"none of the photos .* can be used; .*broken"):
        drawn(root, out, guess=lambda files: [(file, "broken") for file in files])
    assert not out.exists()
    out.with_suffix(".html").write_text("mine", "utf-8")
    with pytest.raises(DataError, match="is no page of the command label and would be replaced"):
        drawn(root, out)


def test_a_csv_of_something_else_is_refused_and_stays(tmp_path):
    root, out = write_folder(tmp_path / "photos"), tmp_path / "labels.csv"
    some = [Row(file, "cat", "0.5") for file in sorted(files_of(root))[:3]]
    head = ",".join(COLUMNS)
    for text, problem in (
        ("path,kind\n", r"has the columns path,kind, expected file,guess,confidence,label"),
        (f"{head}\n00.png,cat\n", r"line 2: 2 cells under 4 columns"),
        (f"{head}\n00.png,,,\n./00.png,,,\n", r"line 3 lists 00\.png again"),
        (f"{head}\ngone.png,,,\n", r"lists gone\.png, which is not in the folder"),
        (f"{head}\n00.png,,,cow\n", r"labels 00\.png as cow, which is none of the classes"),
        (rows_csv(some), r"was not drawn by this command"),
    ):
        out.write_text(text, "utf-8")
        with pytest.raises(DataError, match=problem):
            drawn(root, out)
        assert out.read_text("utf-8") == text
    out.unlink()
    drawn(root, out)
    with pytest.raises(DataError, match="was drawn with seed 0, and --seed is 1"):
        drawn(root, out, seed=1)
    record_of(out).write_text(record_of(out).read_text().replace('"seed": 0', '"seed": 1'))
    with pytest.raises(DataError, match=r"is no record of a draw .it was altered.; delete it"):
        drawn(root, out)
    out.unlink()
    with pytest.raises(DataError, match=r"records a draw, but .* is gone"):
        drawn(root, out)


def test_a_draw_of_another_version_is_refused(tmp_path):
    out = tmp_path / "labels.csv"
    write_draw(out, [], Draw())
    record_of(out).write_text(json.dumps({"format": "clipnlc-draw", "format-version": 2}))
    with pytest.raises(DataError, match="format-version 2, this clipnlc reads up to 1: update"):
        read_draw(out)


def test_the_command_guesses_as_predict_does(here, photos, tmp_path):
    root, out = photos / "test", tmp_path / "labels.csv"
    asked = ("--classes", "red,green,blue", "--backbones", "nano-RN50")
    done = here("label", root, *asked, "--count", "4", "--out", out)
    assert (done.code, done.err) == (0, "")
    assert f"{out}: 4 photos of 36 drawn at random" in done.out
    assert f"next: clipnlc run {root} --labels {out}" in done.out
    answers = {}
    for line in here("predict", root, *asked, "--json").out.splitlines():
        one = json.loads(line)
        answers[one["file"]] = (one["class"], f"{one['probability']:.4f}")
    for row in read_rows(out):
        assert (row.guess, row.confidence) == answers[str(root / row.file)]
        assert row.label == ""
    found = json.loads(here("label", root, *asked, "--count", "0", "--out", out, "--json").out)
    assert (found["drawn"], found["kept"]) == (0, 4)


def test_the_command_says_what_is_missing(here, photos, tmp_path):
    said = refusal("label", photos, "--out", tmp_path / "labels.csv", by=here)
    assert "give the classes with --classes or with --class-names" in said
    asked = ("--classes", "red", "--backbones", "nano-RN50", "--out", tmp_path / "labels.csv")
    assert "give at least two" in refusal("label", photos, *asked, by=here)
