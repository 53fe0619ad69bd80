"""Files of class names, of templates and of weights with a part replaced: read, or refused in a line."""

import io
import json
import re

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from test_datasets_names import IDENTIFIERS, LISTS, TABLES, TEMPLATES
from tiny_backbones import register

from clipnlc.backbones.checkpoints import load_checkpoint, openclip_form
from clipnlc.backbones.openclip import untrained
from clipnlc.datasets.class_names import name_classes
from clipnlc.datasets.prompts import fill, read_card, read_templates, templates_of
from clipnlc.datasets.text_files import unusable
from clipnlc.errors import ClipnlcError

QUICK = settings(
    max_examples=150,
    deadline=30_000,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
LONG = settings(QUICK, max_examples=3000)

PIECES = st.one_of(
    st.binary(max_size=8),
    st.sampled_from(
        [c * n for c in (b"[", b"{", b"(", b"-", b"a", b"\n", b"\0") for n in (1, 9, 5000)]
    ),
    st.sampled_from(
        [b"{c}", b"{}", b"{0}", b"%s", b"=", b":", b",", b"\t", b"'", b'"', b"#", b"lambda c:"]
    ),
    st.sampled_from(
        [b"\xef\xbb\xbf", b"\xff\xfe", b"\xed\xa0\x80", b'"\\ud800"', b"\x1b[31m", b"\xe2\x80\xa8"]
    ),
    st.sampled_from(
        [
            b"null",
            b"NaN",
            b"1e999",
            b"9" * 5000,
            b"true",
            b"names:",
            b"...",
            b"*x",
            b"f'{a!r:>{b}}'",
        ]
    ),
)


@st.composite
def damaged(draw, valid):
    """Replace one to three parts of a valid file."""
    data = draw(valid)
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(data)))
        length = draw(st.sampled_from([0, 1, 1, 2, 8, 64, len(data)]))
        data = data[:start] + draw(PIECES) + data[start + length :]
    return data


def refused(problem):
    """Check that an error is one line that ends in what to do."""
    message = str(problem)
    assert message.isprintable(), message
    assert re.search(r"; \w", message), message
    assert len(message) < 2000


def check_names(path, data, identifiers):
    path.write_bytes(data)
    try:
        names, notes = name_classes(identifiers, path.parent, path)
    except ClipnlcError as problem:
        return refused(problem)
    assert identifiers is None or len(names) == len(identifiers)
    assert all(not unusable(name) and len(name) <= 1000 for name in names)
    json.dumps(names, ensure_ascii=False).encode()
    assert not any("\n" in note for note in notes)
    own = {one.replace("_", " "): label for label, one in enumerate(identifiers or ())}
    assert all(own.get(name, label) == label for label, name in enumerate(names))
    return None


def check_templates(path, data):
    path.write_bytes(data)
    try:
        found = read_templates(path)
    except ClipnlcError as problem:
        return refused(problem)
    assert found
    assert len(found) == len(set(found))
    for template in found:
        assert fill([template], "") != fill([template], "x")
        assert "{" not in fill([template], "x")[0]
    json.dumps(found, ensure_ascii=False).encode()
    return None


def check_card(path, data):
    path.write_bytes(data)
    try:
        read_card(path.parent)
        templates_of(path.parent)
    except ClipnlcError as problem:
        refused(problem)


NAMES = damaged(st.sampled_from([text.encode() for text in (*LISTS, *TABLES)]))
CLASSES = st.sampled_from([IDENTIFIERS, None, ("a",), ("n01440764", "n01443537", "n15075141")])
CARD = json.dumps({"class_names": ["a", "b"], "templates": ["a {c}.", "the {c}"], "rows": {"t": 3}})


@given(data=NAMES, identifiers=CLASSES)
@QUICK
def test_class_names(tmp_path, data, identifiers):
    check_names(tmp_path / "names", data, identifiers)


@given(data=damaged(st.sampled_from([text.encode() for text in TEMPLATES])))
@QUICK
def test_templates(tmp_path, data):
    check_templates(tmp_path / "templates", data)


@given(data=damaged(st.just(CARD.encode())))
@QUICK
def test_the_card_of_a_data_set(tmp_path, data):
    check_card(tmp_path / "dataset.json", data)


@pytest.mark.long
@given(data=NAMES, identifiers=CLASSES)
@LONG
def test_class_names_for_long(tmp_path, data, identifiers):
    check_names(tmp_path / "names", data, identifiers)


@pytest.mark.long
@given(data=damaged(st.sampled_from([text.encode() for text in (*TEMPLATES, CARD)])))
@LONG
def test_templates_for_long(tmp_path, data):
    check_templates(tmp_path / "templates", data)
    check_card(tmp_path / "dataset.json", data)


# --- weights

ARCHITECTURE = "tiny-fuzz"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    register(tmp_path_factory.mktemp("fuzz"), ARCHITECTURE, text={"vocab_size": 64})
    return untrained(ARCHITECTURE, seed=0)


@pytest.fixture(scope="module")
def valid(model):
    tensors = {k: v.contiguous() for k, v in model.state_dict().items()}
    found = [save(tensors)]
    for settings_of in ({}, {"_use_new_zipfile_serialization": False}):
        stream = io.BytesIO()
        torch.save({"epoch": 1, "state_dict": tensors}, stream, **settings_of)
        found.append(stream.getvalue())
    return found


def check_weights(path, data, model):
    path.write_bytes(data)
    try:
        load_checkpoint(
            model,
            path,
            architecture=ARCHITECTURE,
            convert=lambda tensors: openclip_form(model, tensors, resize=False),
        )
    except ClipnlcError as problem:
        return refused(problem)
    assert all(np.isfinite(tensor.numpy()).all() for tensor in model.state_dict().values())
    return None


def damage(draw, data):
    """Change bytes where the structure is: in the header, in the pickle, at the end."""
    data = bytearray(data)
    for _ in range(draw(st.integers(1, 3))):
        near = draw(st.integers(0, min(len(data), 6000) - 1))
        place = near if draw(st.booleans()) else len(data) - 1 - near
        data[place : place + draw(st.integers(0, 4))] = draw(st.binary(max_size=4))
    return bytes(data[: len(data) if draw(st.booleans()) else draw(st.integers(0, len(data)))])


@given(choice=st.data())
@QUICK
def test_weights(tmp_path, valid, model, choice):
    check_weights(tmp_path / "w", damage(choice.draw, choice.draw(st.sampled_from(valid))), model)


@pytest.mark.long
@given(choice=st.data())
@LONG
def test_weights_for_long(tmp_path, valid, model, choice):
    check_weights(tmp_path / "w", damage(choice.draw, choice.draw(st.sampled_from(valid))), model)
