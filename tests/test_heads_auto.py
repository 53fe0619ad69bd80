"""Backbones with texts, without, and with logits alone in one ensemble: head `auto`."""

import pytest
from heads_examples import write_fruit
from stores_examples import quick_disk  # noqa: F401  (a fixture for all tests)

from clipnlc.extraction.finishing import write_zero_shot_logits
from clipnlc.stores.layout import Layout


@pytest.fixture
def layout(tmp_path) -> Layout:
    return Layout(tmp_path / "store")


def test_a_backbone_without_texts_has_no_zero_shot_logits(layout):
    write_fruit(layout, "dino", texts=False)
    assert not write_zero_shot_logits(layout, "fruit", "dino")
    assert not layout.logit_backbones("fruit", "zero-shot")
