"""The format pages name every array and attribute that the files hold."""

import re
from pathlib import Path

import pytest

from clipnlc.stores import _h5
from clipnlc.stores.combined import FORMAT as COMBINED
from clipnlc.stores.features import FORMAT as FEATURES
from clipnlc.stores.fits import FORMAT as FITS
from clipnlc.stores.given import FORMAT as GIVEN
from clipnlc.stores.logits import FORMAT as LOGITS
from clipnlc.stores.shards import FORMAT as SHARDS
from clipnlc.stores.texts import FORMAT as TEXTS

TESTS = Path(__file__).parent
ARCHIVES = TESTS / "data" / "archives"
PAGES = TESTS.parent / "docs" / "formats"
NAMES = {"test": "<split>", "train": "<split>", "nlc": "<combiner>", "vote-1": "<combiner>"}


def generic(path):
    """Put the page's placeholders in the place of names."""
    path = re.sub(r"learnt/\w+$", "learnt/<name>", path)
    return "/".join(NAMES.get(part, part) for part in path.split("/"))


@pytest.mark.parametrize(
    ("archive", "file_format", "page"),
    [
        ("v2/features.h5", FEATURES, "feature-store.md"),
        ("v2/000000000-000000003.h5", SHARDS, "feature-store.md"),
        ("v2/logits.h5", LOGITS, "logit-store.md"),
        ("v1/combined.h5", COMBINED, "combined-store.md"),
        ("v2/fits.h5", FITS, "fit-store.md"),
        ("v2/given.h5", GIVEN, "given-store.md"),
        ("v2/texts.h5", TEXTS, "text-store.md"),
    ],
)
def test_every_array_and_attribute_is_on_its_page(archive, file_format, page):
    header = _h5.read_header(ARCHIVES / archive, file_format)
    text = (PAGES / page).read_text()
    common = (PAGES / "feature-store.md").read_text().split("## `")[0]
    assert f"`{file_format}`" in text
    for path in header.entries:
        assert f"`{generic(path)}`" in text, path
    for attributes in header.attributes.values():
        for name in attributes:
            assert f"`{name}`" in text + common, name
