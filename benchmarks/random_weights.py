"""Full-size weights that nobody trained: for timing, dry runs and tests without a network.

    python benchmarks/random_weights.py --out weights --half
    python benchmarks/random_weights.py --out weights --architectures RN50,ViT-B-32

Writes `<ARCHITECTURE>.openai.safetensors`, the names that `clipnlc extract --weights-dir weights`
looks for. The same seed gives the same file; an existing file is kept. The values are open_clip's
own initial ones, so accuracies are chance and speed is that of the trained model. The nine take
10 GB, 5 GB with `--half`; one is in memory at a time (twice its size: 5 GB for RN50x64).
"""

import argparse
from pathlib import Path

from clipnlc.backbones.openclip import untrained

NINE = (
    "RN50",
    "RN101",
    "RN50x4",
    "RN50x16",
    "RN50x64",
    "ViT-B-32",
    "ViT-B-16",
    "ViT-L-14",
    "ViT-L-14-336",
)


def write(architecture: str, folder: Path, *, seed: int = 0, half: bool = False) -> Path:
    """Write one architecture's random weights into a folder, unless they are there.

    Args:
        architecture: open_clip's name.
        folder: made if missing.
        seed: of the values.
        half: store float16; loading turns it into the precision asked for.
    """
    from safetensors.torch import save_file  # noqa: PLC0415  (torch takes seconds to import)

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{architecture}.openai.safetensors"
    if path.is_file():
        return path
    state = untrained(architecture, seed=seed).state_dict()
    for name in list(state):
        value = state[name]
        # Counters of batch norm are integers and stay.
        state[name] = (value.half() if half and value.is_floating_point() else value).contiguous()
    unfinished = path.with_suffix(".tmp")
    save_file(state, unfinished)
    return unfinished.replace(path)


def main() -> None:
    """Write the files asked for, one after another."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--architectures", default=",".join(NINE), help="comma-separated")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--half", action="store_true", help="float16, half the disk")
    options = parser.parse_args()
    for architecture in options.architectures.split(","):
        path = write(architecture, options.out, seed=options.seed, half=options.half)
        print(f"{path}  {path.stat().st_size / 1e9:.2f} GB", flush=True)


if __name__ == "__main__":
    main()
