"""CLIP_benchmark's own feature extraction, for `extract.py`; runs in CLIP_benchmark's environment.

    python -O clip_benchmark_features.py --images FOLDER --backbones RN50=FILE,… --out FOLDER

It is the first half of its linear probe, `clip_benchmark.metrics.linear_probe.evaluate`, unchanged:
load a model, build a data loader with that model's transform, write `features_train.pt`; then the
next model. The probe insists on a GPU, so its assertion is switched off (`python -O`) and `.cuda()`
does nothing. Asked for more shots than there are images, it returns after the features.
"""

import argparse
from pathlib import Path

import torch
from clip_benchmark.metrics import linear_probe
from clip_benchmark.models import load_clip
from torch.utils.data import DataLoader, Subset
from torchvision.datasets import ImageFolder

MORE_SHOTS_THAN_IMAGES = 10**9
BATCH = 64  # its command line's default


def main() -> None:
    """Extract with one backbone after the other, as its command line loops over models."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", required=True, help="one folder per class")
    parser.add_argument("--backbones", required=True, help="ARCHITECTURE=FILE,…")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--limit", type=int, help="only the first images")
    parser.add_argument("--autocast", action="store_true", help="its default")
    options = parser.parse_args()
    torch.nn.Module.cuda = lambda self: self  # type: ignore[assignment,method-assign,misc]
    for backbone in options.backbones.split(","):
        architecture, _, file = backbone.partition("=")
        model, transform, _ = load_clip("open_clip", architecture, file, "", device="cpu")
        model.eval()
        images = ImageFolder(options.images, transform=transform)
        chosen = Subset(images, range(options.limit or len(images)))
        loader = DataLoader(chosen, batch_size=BATCH, shuffle=False, num_workers=options.workers)
        linear_probe.evaluate(
            model,
            loader,
            None,
            fewshot_k=MORE_SHOTS_THAN_IMAGES,
            batch_size=BATCH,
            num_workers=0,
            lr=0.1,
            epochs=1,
            model_id=architecture,
            seed=0,
            feature_root=str(options.out),
            device="cpu",
            amp=options.autocast,
        )


if __name__ == "__main__":
    main()
