"""Prompt embeddings in batches cut to their longest prompt, against full-length batches, in one run.

    python benchmarks/text.py            # 2,000 of the 80,000 prompts, evenly spaced
    python benchmarks/text.py --all      # 1,000 classes x 80 templates

A full-size text tower at random weights, which take as long as trained ones, on the CPU with as
many threads as torch takes (OMP_NUM_THREADS); the prompts are ImageNet's class names in OpenAI's 80 templates. Prints seconds, their ratio
and the smallest cosine between the two; exits with 1 above a quarter of the time or below a cosine
of 0.999999.
"""

import argparse
import sys
import time

import numpy as np
from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES, OPENAI_IMAGENET_TEMPLATES

from clipnlc.backbones.openclip import tokenizer, untrained
from clipnlc.backbones.text import TextTower

RATIO = 0.25
COSINE = 0.999999


def embed(tower: TextTower, prompts: list[str], label: str) -> tuple[np.ndarray, float]:
    """Embed prompts; returns the embeddings in their order, and the seconds."""
    found: dict[int, np.ndarray] = {}

    def show(done: int, of: int) -> None:
        print(f"\r{label}: {done} of {of}", end="", file=sys.stderr, flush=True)

    start = time.perf_counter()
    for rows, block in tower.embed(prompts, on_progress=show):
        found |= dict(zip(rows.tolist(), block, strict=True))
    seconds = time.perf_counter() - start
    print(file=sys.stderr)
    return np.stack([found[i] for i in range(len(prompts))]), seconds


def main() -> None:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architecture", default="RN50")
    parser.add_argument("--prompts", type=int, default=2000)
    parser.add_argument("--all", action="store_true")
    options = parser.parse_args()
    every = [t(c) for c in IMAGENET_CLASSNAMES for t in OPENAI_IMAGENET_TEMPLATES]
    number = len(every) if options.all else min(options.prompts, len(every))
    prompts = [every[i * len(every) // number] for i in range(number)]
    model = untrained(options.architecture, seed=0).eval()
    tokenize = tokenizer(options.architecture)
    cut = TextTower(model, tokenize, device="cpu", full_precision=True)
    full = TextTower(model, tokenize, device="cpu", full_precision=True)
    full.cuts = False
    short, fast = embed(cut, prompts, "cut to the longest prompt")
    if not cut.cuts:
        sys.exit(f"{options.architecture} does not cut its batches")
    long, slow = embed(full, prompts, "full length")
    a, b = short.astype(np.float64), long.astype(np.float64)
    cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    cosine = float(cosines.min())
    print(f"{options.architecture}, {number} of {len(every)} prompts")
    print(f"  full length  {slow:8.1f} s")
    print(f"  cut          {fast:8.1f} s   ratio {fast / slow:.3f} (target at most {RATIO})")
    print(f"  smallest cosine {cosine:.12f}, largest difference {np.abs(short - long).max():.1e}")
    sys.exit(fast / slow > RATIO or cosine < COSINE)


if __name__ == "__main__":
    main()
