"""Zero-shot accuracy of freshly trained nano backbones, beside what `recipe.json` records.

    python benchmarks/nano_accuracy.py --weights build/nano/weights

Exits with 1 where a mean over the sets is more than a point from the record. `--record` writes
`recipe.json` from these weights instead (done once, by whoever ships new weights).
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np

from clipnlc.backbones import nano
from clipnlc.datasets.nano import KEYS
from clipnlc.extraction.request import Request
from clipnlc.metrics.accuracy import accuracy
from clipnlc.stages.extract import extract
from clipnlc.stages.train_nlc import TEST
from clipnlc.stores.layout import Layout
from clipnlc.stores.logits import read_split

TOLERANCE = 1.0


def measure(weights: Path, names: list[str]) -> dict[str, dict[str, float]]:
    """Accuracy in percent, by backbone and set."""
    with tempfile.TemporaryDirectory() as folder:
        layout = Layout(Path(folder))
        given = [f"{name}@{weights / name}.safetensors" for name in names]
        extract(Request(store=layout.root, dataset=["nano"], backbones=given, split=[TEST]))
        found: dict[str, dict[str, float]] = {}
        for name in names:
            found[name] = {}
            for key in KEYS:
                logits, _ = read_split(layout.logits(key, "zero-shot", f"{name}@{name}"), TEST)
                found[name][key] = round(100 * accuracy(logits.logits, logits.labels), 2)
    return found


def main() -> None:
    """Measure, print, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    names = [n for n in nano.NAMES if (options.weights / f"{n}.safetensors").is_file()]
    found = measure(options.weights, names)
    if options.record:
        recipe = {
            name: {
                **json.loads((options.weights / f"{name}.json").read_text("utf-8")),
                "zero_shot_accuracy": found[name],
                "mean_zero_shot_accuracy": round(float(np.mean(list(found[name].values()))), 2),
            }
            for name in names
        }
        nano.RECIPE.write_text(json.dumps(recipe, indent=2) + "\n", "utf-8")
    recorded = json.loads(nano.RECIPE.read_text("utf-8"))
    far = False
    for name in names:
        mean = float(np.mean(list(found[name].values())))
        wanted = recorded[name]["mean_zero_shot_accuracy"]
        far |= abs(mean - wanted) > TOLERANCE
        print(f"{name:18} {mean:5.1f} % (recorded {wanted:.1f} %)")
    sys.exit(far)


if __name__ == "__main__":
    main()
