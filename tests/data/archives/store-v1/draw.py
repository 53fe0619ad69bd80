"""Draw the images of the archived store: three shapes, four images to train on and four to test."""

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SPLITS = {
    "train": ("circle", "circle", "square", "triangle"),
    "test": ("circle", "square", "square", "triangle"),
}


def draw(shape: str, random: np.random.Generator) -> Image.Image:
    """Draw one shape in a random colour on a noisy ground."""
    ground = random.integers(0, 255, (32, 32, 3), dtype=np.uint8)
    image = Image.fromarray(ground)
    pen, colour = ImageDraw.Draw(image), tuple(random.integers(0, 255, 3).tolist())
    left, top = random.integers(2, 8, 2).tolist()
    box = (left, top, left + 20, top + 20)
    if shape == "circle":
        pen.ellipse(box, fill=colour)
    elif shape == "square":
        pen.rectangle(box, fill=colour)
    else:
        pen.polygon([(left, top + 20), (left + 20, top + 20), (left + 10, top)], fill=colour)
    return image


if __name__ == "__main__":
    random = np.random.default_rng(0)
    for split, shapes in SPLITS.items():
        for number, shape in enumerate(shapes):
            path = Path(sys.argv[1]) / split / shape / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            draw(shape, random).save(path)
