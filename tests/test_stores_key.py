"""Keys: canonical, immutable, and readable where they differ."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipnlc.digests import canonical_json, content_digest
from clipnlc.stores.key import Key, differences

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
FIELDS = st.dictionaries(
    st.text("abc", min_size=1),
    st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text("abc"), inner)),
    max_size=4,
)


@settings(max_examples=25)
@given(FIELDS)
def test_order_of_names_and_tuples_change_nothing(fields):
    shuffled = dict(reversed(list(fields.items())))
    as_tuples = {n: tuple(v) if isinstance(v, list) else v for n, v in shuffled.items()}
    assert Key.of(fields) == Key.of(as_tuples)
    assert Key.of(Key.of(fields).fields) == Key.of(fields)


@settings(max_examples=25)
@given(FIELDS, FIELDS)
def test_no_difference_exactly_where_the_keys_are_equal(one, two):
    old, new = Key.of(one), Key.of(two)
    assert (differences(old, new) == []) == (old == new) == (old.digest == new.digest)


def test_differences_are_readable():
    old = Key.of({"precision": "fp32", "resize": {"size": 224, "mode": "bicubic"}, "gone": 1})
    new = Key.of({"precision": "fp16", "resize": {"size": 336, "mode": "bicubic"}, "limit": None})
    assert differences(old, new) == [
        "gone: 1 -> (absent)",
        "limit: (absent) -> null",
        "precision: fp32 -> fp16",
        "resize.size: 224 -> 336",
    ]


def test_a_string_and_the_number_it_spells_look_different():
    assert differences(Key.of({"k": "1"}), Key.of({"k": 1})) == ['k: "1" -> 1']


def test_long_values_are_shortened_and_still_look_different():
    old = Key.of({"templates": [f"a photo of a {{c}}, {i}" for i in range(80)]})
    new = Key.of({"templates": [f"a photo of a {{c}}, {i}" for i in range(81)]})
    (line,) = differences(old, new)
    before, after = line.removeprefix("templates: ").split(" -> ")
    assert before != after
    assert len(line) < 200
    assert "\n" not in line


def test_fields_are_copies():
    key = Key.of({"inputs": {"a.h5": "00"}, "sizes": [1, 2]})
    key.fields["sizes"].append(3)
    key.inputs["b.h5"] = "11"
    assert key.fields["sizes"] == [1, 2]
    assert key.inputs == {"a.h5": "00"}


@pytest.mark.parametrize("value", [np.float32(1), np.zeros(2), {1: 2}, {"a": {1, 2}}])
def test_what_is_no_json_is_refused(value):
    with pytest.raises(TypeError, match=r"must be strings|not a JSON value"):
        canonical_json({"value": value})


def test_nan_is_refused():
    with pytest.raises(ValueError, match="JSON compliant"):
        Key.of({"learning rate": float("nan")})


def test_digests_are_stable_over_versions():
    assert content_digest({"a": [1, 2.5, None, "ü"]}) == "83e8f3ab0a0b4c6cfd1fd8077f4650ac"
    assert Key.of({"a": 1}).digest == "1f8c00645b7df6ce"
