"""Own photos with the nano family under ten wordings and under its own templates: a table.

Draws folders of shapes, colours, letters and digits as a stranger might have them: other seeds and
other fonts than any set of ours. The accuracy is that of the average of the nine zero-shot
backbones (`log-avg`). Run `python benchmarks/wordings.py`; its table stands in docs/nano.md, which
says how the family's templates came about.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from PIL import Image
from scipy.special import log_softmax

from clipnlc.backbones import resolve
from clipnlc.backbones.loaded import LoadedBackbone
from clipnlc.datasets.nano import glyphs, scenes
from clipnlc.datasets.nano.palette import COLOURS, Pixels, choose, contrasting, jitter
from clipnlc.datasets.prompts import fill
from clipnlc.extraction.request import Request
from clipnlc.stages.extract import extract
from clipnlc.stores.features import FeatureStore, read_features
from clipnlc.stores.layout import Layout

WORDINGS: Final = (
    "a photo of a {c}.",
    "a photo of a {c}",
    "a photo of the {c}",
    "{c}",
    "a picture of {c}",
    "an image of {c}",
    "an icon of {c}",
    "the letter {c}",
    "the number {c}",
    "{c} objects",
)
"""What people write, CLIP's own first; the last four say what some of the images are."""

CLASSES: Final = {
    "shapes": tuple(scenes.SHAPES),
    "colours": tuple(COLOURS),
    "letters": tuple(glyphs.LETTERS),
    "digits": tuple(glyphs.DIGITS),
}
FAMILY: Final = "templates of the family"

_FONTS: Final = ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSerif.ttf", "DejaVuSansMono.ttf")
_CONTRAST: Final = 230


def draw(folder: Path, kind: str, per_class: int, *, seed: int) -> None:
    """Draw a folder of photos in class folders."""
    for label, name in enumerate(CLASSES[kind]):
        place = folder / name
        place.mkdir(parents=True)
        for index in range(per_class):
            rng = np.random.default_rng([seed, list(CLASSES).index(kind), label, index])
            Image.fromarray(_pixels(rng, kind, name)).save(place / f"{index}.png")


def _pixels(rng: np.random.Generator, kind: str, name: str) -> Pixels:
    ink, paper = contrasting(rng, _CONTRAST)
    if kind in ("shapes", "colours"):
        while kind == "colours" and ink != name:
            ink, paper = contrasting(rng, _CONTRAST)
        return scenes.scene(
            rng,
            number=choose(rng, (1, 2, 3)),
            shape=name if kind == "shapes" else choose(rng, list(scenes.SHAPES)),
            colour=ink,
            background=paper,
        )
    character = str(glyphs.DIGITS.index(name)) if kind == "digits" else name
    pixels = glyphs.glyph(
        rng,
        character.upper() if rng.random() < 0.5 else character,
        font=Path(mpl.get_data_path()) / "fonts" / "ttf" / choose(rng, _FONTS),
        ink=jitter(rng, COLOURS[ink]),
        paper=jitter(rng, COLOURS[paper]),
    )
    assert pixels is not None, "every one of these fonts has letters and digits"
    return pixels


def measure(root: Path, per_class: int, *, seed: int) -> dict[str, list[float]]:
    """Draw, and measure every wording, the family's templates last; in the order of `CLASSES`.

    Returns:
        Accuracies in [0, 1] of the average of the zero-shot backbones.
    """
    loaded = [LoadedBackbone(one, device="cpu", precision="fp32") for one in resolve("nano")]
    layout = Layout(root / "store")
    rows: dict[str, list[float]] = {}
    for kind in CLASSES:
        folder = root / f"own-{kind}"
        draw(folder / "test", kind, per_class, seed=seed)
        extract(Request(store=layout.root, dataset=[str(folder)], backbones=["nano"]))
        stores = [read_features(layout.features(folder.name, "test", one.name)) for one in loaded]
        for wording in WORDINGS:
            prompts = [fill((wording,), name) for name in stores[0].class_names]
            texts = [one.embed_classes(prompts) for one in loaded]
            rows.setdefault(f"`{wording}`", []).append(_accuracy(stores, texts))
        rows.setdefault(FAMILY, []).append(_accuracy(stores, [one.texts for one in stores]))
    return rows


def _accuracy(
    stores: Sequence[FeatureStore], texts: Sequence[Float[np.ndarray, "classes _"]]
) -> float:
    total = np.zeros((len(stores[0].labels), len(texts[0])))
    for store, its in zip(stores, texts, strict=True):
        units = store.features / np.linalg.norm(store.features, axis=1, keepdims=True)
        total += log_softmax(store.logit_scale * units @ its.T, axis=1)
    return float(np.mean(total.argmax(axis=1) == stores[0].labels))


def main() -> None:
    """Print the table: one row per wording."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--per-class", type=int, default=30, help="photos of each class")
    parser.add_argument("--seed", type=int, default=1, help="of the drawings")
    asked = parser.parse_args()
    with TemporaryDirectory() as made:
        rows = measure(Path(made), asked.per_class, seed=asked.seed)
    print("| wording | " + " | ".join(CLASSES) + " | mean |")
    print("|---|" + "---:|" * (len(CLASSES) + 1))
    for name, values in rows.items():
        cells = [f"{100 * value:.1f}" for value in (*values, float(np.mean(values)))]
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
