"""Families of backbones: how each is prompted, and what a family must be."""

import runpy
from pathlib import Path

import numpy as np
import pytest

from clipnlc.backbones.families import family
from clipnlc.backbones.families.nano import ANY, SUBJECTS
from clipnlc.datasets.nano import glyphs, patterns, scans, scenes
from clipnlc.datasets.nano.palette import COLOURS

WORDINGS = Path(__file__).parents[1] / "benchmarks" / "wordings.py"


def test_the_subjects_of_nano_are_those_of_its_corpus():
    words = {name: set(its) for name, (its, _) in SUBJECTS.items()}
    assert words == {
        "colours": set(COLOURS),
        "shapes": set(scenes.SHAPES),
        "several shapes": {scenes.plural(shape) for shape in scenes.SHAPES},
        "counts": set(scenes.NUMBERS),
        "digits": set(glyphs.DIGITS),
        "numerals": {str(digit) for digit in range(10)},
        "letters": set(glyphs.LETTERS),
        "clothes": {word for words in scans.FASHION.values() for word in words},
        "patterns": set(patterns.PATTERNS),
    }


def test_no_template_of_nano_has_a_full_stop_and_each_has_one_place():
    forms = [form for _, its in SUBJECTS.values() for form in its] + list(ANY)
    assert all(form.count("{c}") == 1 and not form.endswith(".") for form in forms)


@pytest.mark.parametrize(
    ("names", "templates"),
    [
        (
            ("A", "b"),
            ("{c}", "the letter {c}", "the uppercase letter {c}", "the lowercase letter {c}"),
        ),
        (("zero", "two"), ("{c}", "the digit {c}", "the number {c}")),
        (("cat", "red"), ANY),
        ((), ANY),
    ],
)
def test_templates_of_nano(names, templates):
    assert family("nano").templates(names) == templates


def test_words_of_two_subjects_are_prompted_as_both():
    found = family("nano").templates(("one", "two"))
    assert {"{c} objects", "the digit {c}"} <= set(found)


@pytest.mark.slow
def test_nano_on_own_photos_is_within_two_points_of_the_best_wording(tmp_path):
    script = runpy.run_path(WORDINGS)
    found = script["measure"](tmp_path, 6, seed=2)
    rows = {name: np.mean(values) for name, values in found.items()}
    ours = rows.pop(script["FAMILY"])
    assert len(rows) == len(script["WORDINGS"]) == 10
    assert ours > max(rows.values()) - 0.02
