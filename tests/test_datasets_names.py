"""Class names, prompt templates, and what a user may call a data set."""

import json
import os
from pathlib import Path

import open_clip
import pytest
from datasets_on_disk import png, put
from hypothesis import given
from hypothesis import strategies as st

from clipnlc import datasets
from clipnlc.datasets import class_names, nano, prompts
from clipnlc.datasets.prompts import fill
from clipnlc.datasets.source import open_split
from clipnlc.errors import DataError, UnknownNameError

IDENTIFIERS = ("cat", "dog", "test_tube")


def named(tmp_path, text, identifiers=IDENTIFIERS):
    file = tmp_path / "names"
    file.write_text(text, encoding="utf-8")
    return class_names.name_classes(identifiers, tmp_path, file)


# --- class names


LISTS = [
    "kitten\npuppy\nflask\n",
    "kitten\r\npuppy\r\nflask",
    "kitten\rpuppy\rflask\r",
    "\ufeffkitten\npuppy\nflask",
    "# names of the lab\nkitten\n\n  puppy \n#\nflask\n\n\n",
    "- kitten\n- puppy\n- flask\n",
    "'kitten',\n'puppy',\n'flask',\n",
    '"kitten"\n"puppy"\n"flask"\n',
    '["kitten", "puppy", "flask"]',
    '{"names": ["kitten", "puppy", "flask"], "version": 3}',
    "['kitten', 'puppy', 'flask']",
    "# classes\nCLASSES = (\n    'kitten',  # young\n    'puppy',\n    'flask',\n)\n",
    "import os\nclasses: list[str] = ['kitten', 'puppy', 'flask']\ntemplates = ['a {}.']\n",
    "nc: 3\nnames:\n  0: kitten  # young\n  1: 'puppy'\n  2: \"flask\"\nroboflow:\n  version: 1\n",
    "path: data\nnames:\n- kitten\n- puppy\n- flask\nnc: 3\n",
    "names: [kitten, 'puppy', flask]\nnc: 3\n",
    "names: {0: kitten, 1: puppy, 2: flask}\n",
    "0 kitten\n1 puppy\n2 flask\n",
    "1. kitten\n2. puppy\n3. flask\n",
    "2: flask\n0: kitten\n1: puppy\n",
    '{"0": "kitten", "1": "puppy", "2": "flask"}',
    "{0: 'kitten',\n 1: 'puppy',\n 2: 'flask'}",
    '{"id2label": {"0": "kitten", "1": "puppy", "2": "flask"}, "label2id": {}}',
    '{"kitten": 0, "puppy": 1, "flask": 2}',
    '[{"id": 0, "name": "kitten"}, {"id": 1, "name": "puppy"}, {"id": 2, "name": "flask"}]',
    "label,name\n1,puppy\n0,kitten\n2,flask\n",
]
TABLES = [
    '{"test_tube": "flask", "dog": "puppy", "cat": "kitten"}',
    '[["dog", "puppy"], ["cat", "kitten"], ["test_tube", "flask"]]',
    "test_tube = flask\n\ndog=puppy\ncat = kitten\n",
    "# ours\ntest_tube: flask\ndog: puppy\ncat: kitten\n",
    "dog\tpuppy\ncat\tkitten\ntest_tube\tflask\n",
    "test_tube,flask\ndog,puppy\ncat,kitten\n",
    "class,name\ntest_tube,flask\ndog,puppy\ncat,kitten\n",
    'folder;name\n"test_tube";"flask"\ndog;puppy\ncat;kitten\n',
    "name,folder\nflask,test_tube\npuppy,dog\nkitten,cat\n",
    "id,folder,class_name\n7,test_tube,flask\n3,dog,puppy\n1,cat,kitten\n",
    "id,folder,n_images,class_name,note\n7,test_tube,9,flask,x\n3,dog,9,puppy,y\n1,cat,9,kitten,z\n",
    "Test-Tube flask\nDOG puppy\ncat kitten\n",
    "names = {'test_tube': 'flask', 'dog': 'puppy', 'cat': 'kitten'}\n",
    "names:\n  test_tube: flask\n  dog: puppy\n  cat: kitten\n",
]


@pytest.mark.parametrize("text", [*LISTS, *TABLES])
def test_every_form_of_a_class_names_file(tmp_path, text):
    assert named(tmp_path, text)[0] == ("kitten", "puppy", "flask")


@pytest.mark.parametrize("text", TABLES)
def test_tables_need_no_order(tmp_path, text):
    turned = ("test_tube", "cat", "dog")
    assert named(tmp_path, text, turned) == (("flask", "kitten", "puppy"), ())


WNIDS = ("n01440764", "n01443537", "n15075141")


@pytest.mark.parametrize(
    "text",
    [
        "n01440764 tench, Tinca tinca\nn01443537 goldfish\nn15075141 toilet tissue\n",
        "n15075141 toilet tissue\nn01440764 tench, Tinca tinca\nn02000000 x\nn01443537 goldfish\n",
        'n01440764,"tench, Tinca tinca"\nn01443537,goldfish\nn15075141,toilet tissue\n',
        "n01440764,tench, Tinca tinca\nn01443537,goldfish\nn15075141,toilet tissue\n",
        "tench, Tinca tinca\ngoldfish\ntoilet tissue\n",
        "{0: 'tench, Tinca tinca', 1: 'goldfish', 2: 'toilet tissue'}",
        json.dumps(
            {"0": [WNIDS[0], "tench, Tinca tinca"], "1": [WNIDS[1], "goldfish"]}
            | {"999": [WNIDS[2], "toilet tissue"]}
        ),
    ],
)
def test_lists_of_imagenet(tmp_path, text):
    assert named(tmp_path, text, WNIDS)[0] == ("tench, Tinca tinca", "goldfish", "toilet tissue")


def test_names_by_position_are_shown_from_both_ends(tmp_path):
    many = tuple(f"n{i:08d}" for i in range(9))
    _, notes = named(tmp_path, "\n".join("abcdefghi"), many)
    shown = "n00000000 = a, n00000001 = b, …, n00000007 = h, n00000008 = i"
    assert notes == (f"class names were taken in label order: {shown}",)


def test_names_by_position_are_shown_so_that_a_wrong_order_is_seen(tmp_path):
    _, notes = named(tmp_path, "kitten\npuppy\nflask\n")
    assert notes == (
        "class names were taken in label order: cat = kitten, dog = puppy, test_tube = flask",
    )


@given(st.permutations(["Cat", "dog", "Test tube"]))
def test_the_same_names_in_another_order_are_matched_by_name(tmp_path_factory, order):
    names, notes = named(tmp_path_factory.mktemp("names"), "\n".join(order))
    assert names == ("Cat", "dog", "Test tube")
    assert bool(notes) == (order != ["Cat", "dog", "Test tube"])
    assert all("another order than the classes, and were matched by name" in n for n in notes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "dog\nkitten\nflask\n",
            "line 1: 'dog' would name class 0, 'cat', but is the name of class 1",
        ),
        (
            "0 dog\n1 kitten\n2 flask\n",
            "line 1: 'dog' would name class 0, 'cat', but is the name of",
        ),
        (
            "a test tube\na cat\na dog",
            "line 1: 'a test tube' would name class 0, 'cat', but is the",
        ),
        (
            '["flask", "cat", "dog"]',
            "names 'cat' would name class 1, 'dog', but is the name of class 0",
        ),
    ],
)
def test_names_that_seem_to_stand_in_another_order_are_refused(tmp_path, text, message):
    with pytest.raises(
        DataError, match=f"{message}.*write one class name a line, in label order, or"
    ):
        named(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\nb\n", r"names has 2 class names, the data has 3 classes \(cat, dog, test_tube\)"),
        ("a\nb\nc\n\nd\ne", r"line 5: has 5 class names, the data has 3 classes"),
        ('{"cat": "a", "dgo": "b"}', r"has no name for class dog, test_tube and names dgo, which"),
        ("cat: a\ndgo: b\ntest_tube: c", r"line 2: has no name for class dog and names dgo, which"),
        ("cat = a\ndog\ntest_tube = c", r"line 2: 'dog' has no '=' between class and name, and"),
        ("cat = a\ncat = b\ndog = c", r"line 2: class 'cat' is named twice \(first in line 1\)"),
        ("class,name\ncat,a\ndog,b\n", r"has no name for class test_tube; the classes are"),
        (
            "cat,a,7,x\ndog,b,8,y\ntest_tube,c,9,z\n",
            r"line 1: has 4 columns, and which has the names",
        ),
        ("cat = a\ndog =\ntest_tube = c", r"line 2: class 'dog' has no name"),
        ('{"cat": "a", "cat": "b"}', r"has 'cat' twice"),
        ('["a", 1, "c"]', r"entry 2 is of another kind than the first"),
        ('["a", ', r"line 1: begins like JSON or a Python list and is neither"),
        ("[" * 100_000, r"is nested too deeply|is neither"),
        ('{"a": ' * 5_000 + "1" + "}" * 5_000, r"is nested too deeply"),
        ("[" + "9" * 5_000 + "]", r"is no JSON|is neither"),
        ('{"names": ["a"], "classes": ["b"]}', r"has several lists \(names, classes\)"),
        ('"a"', r"has 1 class names, the data has 3"),
        ("x = [\n'a',\n", r"line 1: 'x = \[' is no quoted name, and others are"),
        ("a,\nb,\nc\n", r"line 1: 'a,' ends with a comma"),
        ("'a',\nb\n'c'", r"line 2: 'b' is no quoted name, and others are"),
        ("cats = ['a', name, 'c']", r"names, line 1: is an expression, not a name"),
        ("a {c}\nb\nc", r"'a \{c\}' is a prompt template: give it with --templates"),
        (" \n\n", r"names holds no class name"),
        ("", r"holds no class name"),
        ("[]", r"holds no class name"),
        ("{}", r"holds no class name"),
        ("a\nb\0\nc", r"line 2: has the control character U\+0000"),
        ('["a", "b\\u0000", "c"]', r"entry 2 has the control character U\+0000"),
        ('["a", "\\ud800", "c"]', r"entry 2 has half a character U\+D800"),
        ("a\nb\n\x1b[31mc", r"line 3: has the control character U\+001B"),
        (f"a\n{'b' * 1001}\nc", r"line 2: 'bbb.*…' has 1001 characters, where at most 1000"),
        ("<!DOCTYPE html><p>cat", r"is an HTML page: the download failed"),
        ("version https://git-lfs.github.com/spec/v1\noid", r"is a Git-LFS pointer"),
    ],
)
def test_class_names_that_do_not_fit(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        named(tmp_path, text)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("cat\ndög\n".encode("latin-1"), r"names, line 2: byte 0xf6 is not UTF-8; save the file"),
        ("cat\ndog\n".encode("utf-16"), r"names is UTF-16 text \(as from Windows\): save it as"),
        ("cat\ndog\n".encode("utf-16-le"), r"names, line 1: has the control character U\+0000"),
        (png(0), r"names is a PNG image; give the class names as UTF-8 text or JSON with"),
    ],
)
def test_files_that_are_no_text(tmp_path, data, message):
    with pytest.raises(DataError, match=message):
        class_names.name_classes(IDENTIFIERS, tmp_path, put(tmp_path / "names", data))


def test_numbered_names_of_bare_numbers_begin_at_0(tmp_path):
    assert named(tmp_path, "1 b\n0 a", None)[0] == ("a", "b")
    with pytest.raises(DataError, match=r"has no name for class 0 and names 2, which is no class"):
        named(tmp_path, "1 b\n2 a", None)
    with pytest.raises(DataError, match=r"line 1: 'label' is a header, not a class name"):
        named(tmp_path, "label\na\nb", None)


def test_a_blank_line_is_a_name_where_the_number_needs_it(tmp_path):
    assert named(tmp_path, "a\n\nc")[0] == ("a", "", "c")


@pytest.mark.parametrize("kind", ["a named pipe", "a device", "a folder"])
def test_only_regular_files_are_read(tmp_path, kind):
    path = tmp_path / "names"
    if kind == "a named pipe":
        os.mkfifo(path)
    elif kind == "a device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    for read in (prompts.read_templates, lambda p: class_names.name_classes(("a",), tmp_path, p)):
        with pytest.raises(DataError, match=f"cannot read .*: {kind}, not a regular file"):
            read(path)


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
    for card, message in (
        (b'{"class_names": ["a", "b", "c"', r"dataset.json, line 1: begins like JSON"),
        (b'{"class_names": {"a": 1}}', r"dataset.json `class_names` is no list of strings"),
        (b'{"class_names": ["a", "b\\u0000", "c"]}', r"dataset.json entry 2 has the control"),
    ):
        put(tmp_path / "dataset.json", card)
        with pytest.raises(DataError, match=message):
            open_split(tmp_path, "test")
    for card, message in (
        (b'{"templates": []}', r"dataset.json `templates` is no list of strings, or an empty one"),
        (
            b'{"templates": ["a {x}"]}',
            r"dataset.json template 1 'a \{x\}' has '\{x\}', which is no",
        ),
    ):
        put(tmp_path / "dataset.json", card)
        with pytest.raises(DataError, match=message):
            prompts.templates_of(tmp_path)
    put(tmp_path / "dataset.json", b'{"something": "else"}')
    assert open_split(tmp_path, "test").class_names == ("cat", "dog", "test tube")


# --- templates


TEMPLATES = [
    "# prompts\na photo of a {c}.\n\nart of a {c}.\r\n",
    "\ufeffa photo of a {class}.\nart of a {label}.",
    "a photo of a { Class_Name }.\nart of a {0}.",
    "- a photo of a {c}.\n- art of a {c}.\n",
    "templates:\n  - 'a photo of a {c}.'\n  - \"art of a {c}.\"\n",
    '["a photo of a {c}.", "art of a {c}."]',
    '{"imagenet1k": ["a photo of a {c}.", "art of a {c}."]}',
    '{"class_names": ["cat"], "templates": ["a photo of a {c}.", "art of a {c}."]}',
    "imagenet_templates = [\n    'a photo of a {label}.',\n    'art of a {label}.',\n]\n",
    "classes = ['cat', 'dog']\n\ntemplates = ['a photo of a {name}.', 'art of a {name}.']\n",
    "# open_clip\nT = (\n    lambda c: f'a photo of a {c}.',\n    lambda c: f'art of a {c}.',\n)\n",
    "[lambda x: 'a photo of a {}.'.format(x), lambda c: 'art of a %s.' % c]",
    "(\n  lambda c: 'a photo of a ' + c + '.',\n  lambda c: f\"art of \" f'a {c}.',\n)",
    "lambda c: f'a photo of a {c}.',\nlambda c: f'art of a {c}.',\n",
    "'a photo of a {c}.',\n'art of a {c}.'\n",
]


@pytest.mark.parametrize("text", TEMPLATES)
def test_every_form_of_a_templates_file(tmp_path, text):
    found = prompts.read_templates(put(tmp_path / "t.txt", text.encode()))
    assert found == ("a photo of a {c}.", "art of a {c}.")


def test_templates_may_begin_with_the_class(tmp_path):
    for text in ("{}", "{c}, a photo.", "{c} {c}", '"{c}" on a sign'):
        assert prompts.read_templates(put(tmp_path / "t", text.encode())) == (text,)


def test_open_clips_own_file_has_several_lists(tmp_path):
    file = Path(open_clip.__file__).with_name("zero_shot_metadata.py")
    with pytest.raises(DataError, match=r"holds 2 lists \(OPENAI_IMAGENET_TEMPLATES, SIMPLE_IMAGE"):
        prompts.read_templates(file)
    one = file.read_text("utf-8").replace("SIMPLE_IMAGENET_TEMPLATES = (", "SIMPLE = lambda: (")
    found = prompts.read_templates(put(tmp_path / "one.py", one.encode()))
    assert [fill(found, "cat")] == [tuple(t("cat") for t in open_clip.OPENAI_IMAGENET_TEMPLATES)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a {c}.\n\na photo.\n", r"t.txt, line 3: 'a photo.' has no place for the class name"),
        (
            "a {c}\na {x} car\n",
            r"line 2: 'a \{x\} car' has '\{x\}', which is no place for the class",
        ),
        ("a {} {c}\n", r"line 1: 'a \{\} \{c\}' has different places: '\{\}' and '\{c\}'"),
        ("a {{c}}", r"line 1: 'a \{\{c\}\}' has a brace that is no placeholder"),
        ("a {c} }", r"has a brace that is no placeholder"),
        ("a {c}\nb {c}\na {}", r"line 3: repeats 'a \{\}'"),
        ("1. a {c}\n2. b {c}", r"line 1: '1. a \{c\}' begins with a number"),
        ("lambda c: f'a {c.lower()}'", r"line 1: .lambda c.* is no template that can be read"),
        ("x = [\n  lambda c: f'a {c}',\n  lambda c: g(c),\n]", r"line 3: is an expression that is"),
        ("x = [\n  lambda c: f'a {c}',\n", r"line 1: 'x = \[' is code, not a template"),
        ("lambda c: f'a {c}{{}}'", r"is no template that can be read"),
        ('{"a": ["a {}"], "b": ["b {}"]}', r"holds 2 lists \(a, b\), and which one is not certain"),
        ('{"cat": "a {}"}', r"holds 0 lists"),
        ('["a {}", ["b {}"]]', r"entry 2 is no text"),
        ('["a {}", "b\\u0000 {}"]', r"entry 2 has the control character U\+0000"),
        ('["a {}", "\\udfff {}"]', r"entry 2 has half a character"),
        ('["a {}"', r"line 1: begins like JSON or a Python list and is neither"),
        ("[" * 100_000, r"is nested too deeply|is neither"),
        ("# nothing\n", r"t.txt holds no template"),
        ("", r"t.txt holds no template"),
        ("[]", r"t.txt holds no template"),
        (
            "\n".join(f"{i:05} {'x' * 90} {{c}}" for i in range(500)),
            r"500 templates of 51,501 bytes",
        ),
        ("a\tb\x07{c}", r"line 1: has the control character U\+0007"),
    ],
)
def test_templates_that_cannot_be_used(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        prompts.read_templates(put(tmp_path / "t.txt", text.encode()))


@given(st.text())
def test_a_class_name_is_filled_in_as_it_is(name):
    assert fill(("a {c}.", "{}, a {c}"), name) == (f"a {name}.", f"{name}, a {name}")


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
