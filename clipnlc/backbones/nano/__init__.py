"""The nano family: nine small CLIP models that the project trains itself and ships.

`configs/` holds open_clip architectures, `vocabulary.txt.gz` the merges of their tokenizer,
`weights/` the trained weights (half precision), `recipe.json` how they were trained and what they
score. They are named after the OpenAI backbones whose place they take.
"""

from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent
CONFIGS: Final = FOLDER / "configs"
VOCABULARY: Final = FOLDER / "vocabulary.txt.gz"
WEIGHTS: Final = FOLDER / "weights"
RECIPE: Final = FOLDER / "recipe.json"

RESNETS: Final = ("nano-RN50", "nano-RN101", "nano-RN50x4", "nano-RN50x16", "nano-RN50x64")
VITS: Final = ("nano-ViT-B-32", "nano-ViT-B-16", "nano-ViT-L-14", "nano-ViT-L-14-336")
NAMES: Final = (*RESNETS, *VITS)
