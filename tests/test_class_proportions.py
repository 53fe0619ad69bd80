"""`train-nlc --class-proportions`: the file, the order of classes, and what it is refused with."""

import json

import pytest

from clipnlc.datasets.proportions import in_order, read_proportions
from clipnlc.errors import DataError
from clipnlc.runs.members import members_name
from clipnlc.stores.fits import read_fits
from clipnlc.stores.layout import Layout


@pytest.mark.parametrize(
    "text",
    [
        "red,2\ngreen,1\n\nblue,0.5\n",
        "class,proportion\nred, 2\ngreen,1\nblue,0.5",
        json.dumps({"red": 2, "green": 1, "blue": 0.5}),
    ],
)
def test_a_file_is_read(tmp_path, text):
    path = tmp_path / "shares.csv"
    path.write_text(text)
    found = read_proportions(path)
    assert found == {"red": 2, "green": 1, "blue": 0.5}
    assert in_order(found, ["blue", "green", "red"], "photos") == [0.5, 1, 2]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("red,2\ngreen", "line 2: has 'green'"),
        ("red,2\nred,3", "line 2: has 'red' twice"),
        ("red,0", "line 1: has 0 for 'red'"),
        ("red,nan", "line 1: has nan for 'red'"),
        ('{"red": "many"}', "no number for 'red'"),
        ("\n", "names no class"),
        ("class,proportion\n", "names no class"),
    ],
)
def test_what_is_no_proportion_is_refused_with_its_line(tmp_path, text, said):
    path = tmp_path / "shares.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=said):
        read_proportions(path)


def test_every_class_has_one_and_no_other(tmp_path):
    with pytest.raises(DataError, match="no proportion for 'blue', a class of photos"):
        in_order({"red": 1.0}, ["blue", "red"], "photos")
    with pytest.raises(DataError, match="for 'grey', which is no class of photos"):
        in_order({"red": 1.0, "grey": 1.0}, ["red"], "photos")
    assert in_order({"red": 1.0, "a": 2.0}, ["a", "a", "red"], "photos") == [1.0, 1.0, 1.0]


def test_the_fits_take_it(here, extracted, tmp_path):
    """Other proportions are other fits; without labels only those of labels mean nothing."""
    shares = tmp_path / "shares.csv"
    shares.write_text("red,8\ngreen,1\nblue,1\n")
    fit = ("train-nlc", "--combiners", "balanced,balanced-gp", "--seeds", 1, "--store", extracted)
    layout = Layout(extracted)
    offsets = []
    for more in ((), ("--class-proportions", "uniform"), ("--class-proportions", shares)):
        assert here(*fit, "--shots", 1, *more).code == 0
        members = members_name(layout.logit_backbones("photos", "zero-shot"))
        fits = read_fits(layout.fits("photos", "zero-shot", members, "no-labels"), ("balanced",))
        names = fits.class_names
        offsets.append(dict(zip(names, fits.fits["balanced"].learnt["offset_"], strict=True)))
    assert offsets[0] != offsets[1]
    assert offsets[2]["red"] > offsets[1]["red"]
    assert here(*fit, "--count", 5, "--class-proportions", "labels").code == 0
    refused = here(*fit, "--shots", 1, "--class-proportions", "labels")
    assert refused.code == 2
    assert "say nothing of how common the classes are" in refused.err
    assert "cannot read class proportions" in here(*fit, "--class-proportions", "nowhere").err
