"""Which pixels: spelled into the name of a split and read back; in the key only when not plain."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipnlc.errors import DataError
from clipnlc.view import View

views = st.one_of(
    st.just(View()),
    st.builds(View.perturbed, st.sampled_from(["blur", "gaussian-noise"]), st.integers(1, 9)),
    st.builds(View.crop, st.integers(0, 99)),
)


@given(views, st.text(min_size=1))
def test_a_split_and_its_view_are_read_back(view, split):
    if View.of_split(split) == (split, View()):  # no name that itself reads as a view
        assert View.of_split(view.split_name(split)) == (split, view)


@given(views)
def test_only_the_plain_view_leaves_name_and_key_as_they_are(view):
    assert (view.split_name("test") == "test") == view.is_plain == (view.key() == {})


def test_the_key_says_what_was_done():
    assert View.perturbed("blur", 3).key() == {"view": {"perturbation": "blur", "severity": 3}}
    assert View.crop(2).key() == {
        "view": {"crop": 2, "least_area": 0.5, "most_aspect": 4 / 3, "flips": 0.5}
    }


@pytest.mark.parametrize(("name", "severity"), [("Blur", 1), ("crop", 1), ("blur", 0), ("", 2)])
def test_what_could_not_be_read_back_is_refused(name, severity):
    with pytest.raises(DataError, match="expected lower-case words joined by hyphens"):
        View.perturbed(name, severity)
