"""Class names, prompt templates, and what a user may call a data set."""

import json

import pytest
from datasets_on_disk import png, put
from hypothesis import given
from hypothesis import strategies as st

from clipnlc import datasets
from clipnlc.datasets import class_names, nano, prompts
from clipnlc.datasets.source import open_split
from clipnlc.errors import DataError, UnknownNameError

IDENTIFIERS = ("cat", "dog", "test_tube")


def named(tmp_path, text, identifiers=IDENTIFIERS):
    file = tmp_path / "names"
    file.write_text(text, encoding="utf-8")
    return class_names.name_classes(identifiers, tmp_path, file)


# --- class names


@pytest.mark.parametrize(
    "text",
    [
        "kitten\npuppy\nflask\n",
        "kitten\r\npuppy\r\nflask",
        "\ufeffkitten\npuppy\nflask",
        '["kitten", "puppy", "flask"]',
        '{"test_tube": "flask", "dog": "puppy", "cat": "kitten"}',
        "test_tube = flask\n\ndog=puppy\ncat = kitten\n",
    ],
)
def test_every_form_of_a_class_names_file(tmp_path, text):
    assert named(tmp_path, text)[0] == ("kitten", "puppy", "flask")


def test_names_by_position_are_shown_so_that_a_wrong_order_is_seen(tmp_path):
    _, notes = named(tmp_path, "kitten\npuppy\nflask\n")
    assert notes == (
        "class names were taken in label order: cat = kitten, dog = puppy, test_tube = flask",
    )


@given(st.permutations(["Cat", "dog", "Test tube"]))
def test_the_same_names_in_another_order_are_matched_by_name(tmp_path_factory, order):
    names, notes = named(tmp_path_factory.mktemp("names"), "\n".join(order))
    assert (names, notes) == (("Cat", "dog", "Test tube"), ())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\nb\n", r"names has 2 class names, the data has 3 classes \(cat, dog, test_tube\)"),
        ('{"cat": "a", "dgo": "b"}', r"has no name for class dog, test_tube and names dgo, which"),
        ('["a", 1, "c"]', r"neither a list of names nor an object of names"),
        ('["a", ', r"begins like JSON but is not"),
        (" \n\n", r"holds no class name"),
    ],
)
def test_class_names_that_do_not_fit(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        named(tmp_path, text)


def test_numbers_may_be_mapped_by_number(tmp_path):
    assert named(tmp_path, "1 = b\n0 = a", None)[0] == ("a", "b")


def test_a_missing_class_names_file_is_one_line(tmp_path):
    with pytest.raises(DataError, match=r"cannot read the class names .*--class-names"):
        class_names.name_classes(IDENTIFIERS, tmp_path, tmp_path / "nowhere.txt")


def test_a_data_set_may_bring_names_and_templates(tmp_path):
    for name in IDENTIFIERS:
        put(tmp_path / "test" / name / "0.png", png(0))
    card = {"class_names": ["kitten", "puppy", "flask"], "templates": ["a scan of a {c}."]}
    put(tmp_path / "dataset.json", json.dumps(card).encode())
    assert open_split(tmp_path, "test").class_names == ("kitten", "puppy", "flask")
    assert prompts.templates_of(tmp_path) == ("a scan of a {c}.",)
    put(tmp_path / "dataset.json", b'{"class_names": ["kitten"]}')
    with pytest.raises(DataError, match=r"dataset.json has 1 class names, the data has 3 classes"):
        open_split(tmp_path, "test")
    put(tmp_path / "dataset.json", b'{"something": "else"}')
    assert open_split(tmp_path, "test").class_names == ("cat", "dog", "test tube")


# --- templates


def test_templates_are_read_one_a_line(tmp_path):
    file = put(tmp_path / "t.txt", b"# prompts\na photo of a {c}.\n\nart of a {}.\r\n")
    assert prompts.read_templates(file) == ("a photo of a {c}.", "art of a {}.")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"a {c}.\n\na photo.\n", r't.txt, line 3: "a photo." has no place for the class name'),
        (b"# nothing\n", r"t.txt holds no template"),
        (b"\xff\xfe{c}", r"cannot read the templates .*--templates"),
    ],
)
def test_templates_that_cannot_be_used(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        prompts.read_templates(put(tmp_path / "t.txt", text))


@given(st.text())
def test_a_class_name_is_filled_in_as_it_is(name):
    assert prompts.fill(("a {c}.", "{}, a {c}"), name) == (f"a {name}.", f"{name}, a {name}")


# --- what a user types


@pytest.fixture
def folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_key_is_a_key_even_beside_a_folder_of_that_name(folder):
    for name in ("digits", "cub", "photos"):
        (folder / name).mkdir()
    names = ["digits", "cub", "all", "./digits", "photos", "x/y", "nowhere"]
    assert [datasets.is_path(n) for n in names] == [False, False, False, True, True, True, False]
    assert datasets.open_dataset("digits").root == nano.FOLDER / "digits"
    assert datasets.open_dataset("photos").key == "photos"


def test_groups_keys_and_paths_are_spelled_out(folder):
    (folder / "a,b").mkdir()
    assert datasets.resolve("nano") == nano.KEYS
    assert len(datasets.resolve("all")) == 21
    assert datasets.resolve("shapes, ./x,nano,cub")[:3] == ("shapes", "./x", "colors")
    assert datasets.resolve("imagenet,ood") == ("imagenet", *datasets.group("ood"))
    assert datasets.store_keys("ood,./my photos,mine") == (
        *datasets.group("ood"),
        "my-photos",
        "mine",
    )
    assert datasets.resolve("a,b") == ("a,b",)
    with pytest.raises(UnknownNameError, match=r"unknown dataset 'digit'; did you mean 'digits'"):
        datasets.resolve("digit")


def test_a_path_gets_a_safe_key(folder):
    for name in ("my photos (2)", "digits", "cub", "café"):
        (folder / name).mkdir()
    assert datasets.open_dataset("./my photos (2)").key == "my-photos-2"
    assert datasets.open_dataset("./café").key == "café"
    assert datasets.open_dataset("./digits", key="mine").key == "mine"
    for name in ("digits", "cub"):
        with pytest.raises(DataError, match=rf"would be called '{name}' .*; name it with --name"):
            datasets.open_dataset(f"./{name}")
    with pytest.raises(DataError, match=r"gives the data set no usable name; name it with --name"):
        datasets.open_dataset("/")
    with pytest.raises(DataError, match=r"nowhere does not exist"):
        datasets.open_dataset("./nowhere")
