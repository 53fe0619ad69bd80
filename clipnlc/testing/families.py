"""What every family of backbones must do, own or foreign."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

from clipnlc.backbones import Backbone
from clipnlc.commands import is_own_name

if TYPE_CHECKING:
    from clipnlc.backbones.families.base import Family

_NAMES: Final = 3  # of those that it knows, to be parsed


def check_family(cls: type[Family], name: str | None = None) -> None:
    """Check a family; with a backbone's name, that backbone's weights as well.

    Args:
        cls: the family.
        name: of a backbone whose weights are on disk.

    Raises:
        AssertionError: something is not as `Family` says; the message says what.

    >>> from clipnlc.backbones.families import FAMILIES
    >>> check_family(FAMILIES.get("hf"))
    """
    its = cls()
    for what in ("name", "meaning", "needs"):
        said = getattr(its, what)
        assert isinstance(said, str), f"{what} is no text"
        assert said, f"{what} is empty"
    templates = its.templates(("cat", "dog"))
    assert bool(templates) == its.embeds_texts, f"embeds_texts is {its.embeds_texts}: {templates}"
    assert all("{c}" in one for one in templates), (
        f"a template has no place for a class: {templates}"
    )
    release = its.release()
    assert release is None or isinstance(release, str), f"release is {release!r}"
    known = [] if release is None else list(islice(its.names(), _NAMES))
    for one in [*known, *([name] if name else [])]:
        found = its.parse(one, weights_dir=None)
        assert isinstance(found, Backbone), f"{one} is parsed to {type(found).__name__}"
        assert found.family == its.name, f"{one} is of the family {found.family}, not {its.name}"
        assert not is_own_name(found.name), f"{found.name} has no dot and no @"
        assert found.name.startswith(f"{its.name}-"), f"{found.name} begins not with {its.name}-"
    if name:
        _check_weights(its, its.parse(name, weights_dir=None))


def _check_weights(its: Family, backbone: Backbone) -> None:
    import torch  # noqa: PLC0415  (takes seconds, and other suites do without)

    assert its.at_hand(backbone), f"the weights of {backbone.name} are not on disk"
    file = its.weights_file(backbone)
    assert Path(file).is_file(), f"{file} is no file"
    facts = its.facts(backbone, file)
    assert all(isinstance(one, str | bool) for one in facts.values()), f"facts are words: {facts}"
    assert "inference" in facts, "facts lack inference: how it differs from the package's"
    towers = its.load(backbone, device="cpu", precision="fp32", trained=True)
    assert (towers.text is not None) == its.has_texts(backbone), "has_texts and the towers disagree"
    assert its.preprocessing(backbone) == towers.preprocessing, "preprocessing differs when loaded"
    dim, size = its.described(backbone)["dim"], towers.preprocessing.size
    images = torch.rand(3, 3, *size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        features, one = towers.encode_image(images), towers.encode_image(images[1:2])
    assert features.shape == (3, dim) == (3, towers.dim), f"features are {list(features.shape)}"
    assert features.isfinite().all(), "features are not finite"
    assert torch.allclose(features[1:2], one, rtol=1e-3, atol=1e-4), "a batch changes features"
