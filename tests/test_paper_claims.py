"""`benchmarks/paper_claims.py`: the page of the paper's claims says what its table says."""

from pathlib import Path

import pytest
from benchmark_scripts import loaded

from clipnlc.backbones import resolve
from clipnlc.backbones.costs import image_gflops

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "paper-claims.md").read_text("utf-8")


@pytest.fixture(scope="module")
def script():
    with loaded("paper_claims") as module:
        yield module


def test_the_four_cheapest_are_the_cheapest(script):
    """By operations: the four that are small in the paper's release are others in miniature."""
    four = script.cheapest()
    rest = {backbone.name for backbone in resolve(["nano"])} - {*four}
    assert max(map(image_gflops, four)) < min(map(image_gflops, rest))
    assert f"CHEAP is `{','.join(four)}`" in script.__doc__
    # What the page says of them: they cost more than any single one that is the best of a set.
    costs = [image_gflops(backbone.name) for backbone in resolve(["nano"])]
    assert 7 <= max(costs) / min(costs) < 8


def test_every_claim_has_a_verdict_or_a_reason():
    rows = [line.split(" | ") for line in PAGE.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 15
    for claim, _, here, verdict in rows:
        assert verdict.startswith("**"), claim
        assert here.strip(), claim
