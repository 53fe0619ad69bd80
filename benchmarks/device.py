"""What one accelerator does: forwards of the nine architectures, and `clipnlc extract` as a whole.

    benchmarks/device.sh

prints one table within eight minutes, and says what it did not run. At random weights, for speed
does not hang on them. Everything is measured in one process, on one device:

1. *Forwards*, images a second: the bare image tower in fp32 and in fp16 (bf16 on a CPU that knows
   it) on a batch that lies on the device, channels last; and clipnlc's own way from resized uint8
   pixels in memory (copied to the device, normalised, embedded, features copied back), whose share
   of the bare rate in the same precision is what clipnlc loses or gains.
2. *Extract*, a whole run on JPEGs of 500 x 375 by all backbones together: images a second from the
   first batch to the last, beside what the bare forwards alone would give, and the share of their
   time that forwards wait for pixels.
3. *Compiled*: the image tower after `torch.compile`, as `extract --compile` has it, and the seconds
   until its first batch is there.

Each part ends where the time is out; what is left is named.
"""

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from extract import photographs, write_folder
from heads import ROWS, head_row
from random_weights import NINE, write

from clipnlc.backbones import parse
from clipnlc.backbones.compiled import Compiled
from clipnlc.backbones.families.base import Precision
from clipnlc.backbones.loaded import (
    LoadedBackbone,
    choose_device,
    choose_precision,
    cpu_knows_bf16,
)
from clipnlc.backbones.openclip import open_clip, quiet
from clipnlc.extraction.order import Progress
from clipnlc.extraction.request import Engine, Request
from clipnlc.stages.extract import Watch, extract
from clipnlc.wording import count

SMALL = ("RN50", "RN101", "ViT-B-32", "ViT-B-16")
_FEW_BATCHES = 8


@dataclass
class Clock:
    """The seconds that are left."""

    seconds: float
    began: float = field(default_factory=time.perf_counter)

    @property
    def left(self) -> float:
        """Seconds until the end."""
        return self.began + self.seconds - time.perf_counter()


@dataclass
class Report:
    """Rows by part, and what was not run."""

    facts: dict[str, str]
    forwards: list[dict[str, Any]] = field(default_factory=list)
    whole: list[dict[str, Any]] = field(default_factory=list)
    compiled: list[dict[str, Any]] = field(default_factory=list)
    heads: list[dict[str, Any]] = field(default_factory=list)
    not_run: list[str] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        """Yield the tables as Markdown."""
        yield "; ".join(f"{name} {value}" for name, value in self.facts.items())
        for rows in (self.forwards, self.whole, self.compiled, self.heads):
            if rows:
                yield ""
                yield "| " + " | ".join(rows[0]) + " |"
                yield "|---" * len(rows[0]) + "|"
                yield from ("| " + " | ".join(map(_cell, row.values())) + " |" for row in rows)
        yield ""
        yield from (f"not run: {what}" for what in self.not_run)


def _cell(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.2f}" if value < 10 else f"{value:,.0f}"


def rate(work: Callable[[], object], images: int, device: str, *, seconds: float) -> float:
    """Return images a second: the median of repetitions, after two that warm up."""
    found: list[float] = []
    end = time.perf_counter() + seconds
    while len(found) < 5 or (time.perf_counter() < end and len(found) < 60):
        began = time.perf_counter()
        work()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        found.append(time.perf_counter() - began)
    return images / float(np.median(found[2:]))


def bare(architecture: str, device: str, precision: Precision, *, batch: int) -> float:
    """Images a second of the image tower alone, on a batch that is ready on the device."""
    with quiet():
        model = open_clip().create_model(
            f"{architecture}-quickgelu", precision=precision, device=device, load_weights=False
        )
    tower = model.visual.eval().to(memory_format=torch.channels_last)
    given = ready(tower, device, precision, batch=batch)
    with torch.inference_mode():
        return rate(lambda: tower(given), batch, device, seconds=1.0)


def ready(tower: Any, device: str, precision: Precision, *, batch: int) -> torch.Tensor:  # noqa: ANN401
    """Draw a batch of the tower's input on the device."""
    side = tower.image_size[0] if isinstance(tower.image_size, tuple) else tower.image_size
    kind = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]
    given = torch.rand(batch, 3, side, side, device=device, dtype=kind)
    return given.to(memory_format=torch.channels_last)


def half(device: str) -> Precision:
    """Return the precision below full that this device is fast in, or fp32."""
    if device == "cpu":
        return "bf16" if cpu_knows_bf16() else "fp32"
    return choose_precision("auto", device)


def forward_row(architecture: str, device: str, *, batch: int) -> dict[str, Any]:
    """Measure one architecture's forwards."""
    lower = half(device)
    full, fast = (bare(architecture, device, p, batch=batch) for p in ("fp32", lower))
    loaded = LoadedBackbone(
        parse(f"{architecture}.openai"), device=device, precision=lower, trained=False
    )
    height, width = loaded.preprocessing.size
    pixels = np.random.default_rng(0).integers(256, size=(batch, height, width, 3), dtype=np.uint8)
    ours = rate(lambda: loaded.embed_images(pixels), batch, device, seconds=1.0)
    return {
        "backbone": architecture,
        "bare fp32, images/s": full,
        f"bare {lower}, images/s": fast,
        f"{lower} / fp32": fast / full,
        f"clipnlc {lower}, images/s": ours,
        "clipnlc / bare": ours / fast,
    }


def whole_row(
    names: Sequence[str],
    device: str,
    rates: dict[str, float],
    *,
    images: Path,
    number: int,
    weights: Path,
) -> dict[str, Any]:
    """Measure one run of extract by several backbones together."""
    moments: list[tuple[float, int]] = []
    last: list[Progress] = []

    def progress(its: Progress) -> None:
        moments.append((time.perf_counter(), its.done))
        last[:] = [its]

    with tempfile.TemporaryDirectory() as store:
        began = time.perf_counter()
        extract(
            Request(
                store=Path(store),
                dataset=[str(images)],
                backbones=[f"{name}.openai" for name in names],
                weights_dir=weights,
                prompts="simple",
                precision=half(device),
                engine=Engine(devices=(device,)),
                max_pixels=10**8,
            ),
            watch=Watch(progress=progress),
        )
        seconds = time.perf_counter() - began
    # From the first batch on, start-up is over; of a few batches there is nothing but start-up.
    few = len(moments) < _FEW_BATCHES
    first, done = (began, 0) if few else moments[0]
    spent = last[0].seconds
    ours = (number - done) / (moments[-1][0] - first)
    bare_alone = 1 / sum(1 / rates[name] for name in names)
    return {
        "backbones together": len(names),
        "images": number,
        "whole run, s": seconds,
        "images/s": ours,
        "bare forwards alone, images/s": bare_alone,
        "extract / bare": ours / bare_alone,
        "forwards wait for pixels": f"{spent['wait'] / (spent['wait'] + spent['forward']):.0%}",
        "decode and resize, s of all threads": spent["decode"] + spent["resize"],
    }


def compiled_row(architecture: str, device: str, alone: float, *, batch: int) -> dict[str, Any]:
    """Measure one image tower after it is compiled."""
    lower = half(device)
    with quiet():
        model = open_clip().create_model(
            f"{architecture}-quickgelu", precision=lower, device=device, load_weights=False
        )
    model.eval().visual.to(memory_format=torch.channels_last)
    given = ready(model.visual, device, lower, batch=batch)
    encode = Compiled(architecture, model.encode_image, batch)
    began = time.perf_counter()
    with torch.inference_mode():
        encode(given)
        waited = time.perf_counter() - began
        found = rate(lambda: encode(given), batch, device, seconds=1.0)
    return {
        "backbone": architecture,
        f"compiled {lower}, images/s": found,
        "compiled / bare": found / alone,
        "s until the first batch": waited,
    }


def report_whole(
    report: Report,
    clock: Clock,
    options: argparse.Namespace,
    *,
    device: str,
    rates: dict[str, float],
) -> None:
    """Measure extract by the small backbones and by all, and say which of them had no time."""
    names = options.architectures.split(",")
    small = tuple(name for name in names if name in SMALL)
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / "photos" / "test"
        write_folder(images, photographs(options.images), "jpg")
        for wanted in dict.fromkeys(filter(None, (small, tuple(names)))):
            known = [name for name in wanted if name in rates]
            for name in known:
                if clock.left > options.seconds / 4:
                    write(name, Path(folder) / "weights", half=True)
            ready_ones = [
                n for n in known if (Path(folder) / "weights" / f"{n}.openai.safetensors").is_file()
            ]
            if not ready_ones or clock.left < options.seconds / 5:
                report.not_run.append(f"extract with {count(len(wanted), 'backbone')}: out of time")
                continue
            report.not_run += [
                f"{name} in the run of extract with {count(len(wanted), 'backbone')}: out of time"
                for name in wanted
                if name not in ready_ones
            ]
            row = whole_row(
                ready_ones,
                device,
                rates,
                images=images.parent,
                number=options.images,
                weights=Path(folder) / "weights",
            )
            report.whole.append(row)
            print(json.dumps(row), flush=True)
            _free(device)


def measure(options: argparse.Namespace) -> Report:
    """Measure part by part, until the time is out."""
    clock = Clock(options.seconds)
    device = choose_device(options.device)
    names = options.architectures.split(",")
    on = torch.cuda.get_device_name() if device.startswith("cuda") else platform.processor()
    report = Report(
        {
            "device": f"{device} {on}".strip(),
            "torch": torch.__version__,
            "batch": str(options.batch),
            "cores": str(torch.multiprocessing.cpu_count()),
        }
    )
    if device.startswith("cuda") or device == "cpu":
        report.heads.append(head_row(device, rows=options.rows))
        print(json.dumps(report.heads[-1]), flush=True)
        _free(device)
    else:
        report.not_run.append(f"heads: --device of train-heads does not take {device}")
    if half(device) == "fp32":
        report.not_run.append(f"half precision: {device} here is not fast in any")
    rates: dict[str, float] = {}
    for name in names:
        if clock.left < options.seconds / 3:
            report.not_run.append(f"forwards of {name}: out of time")
            continue
        row = forward_row(name, device, batch=options.batch)
        rates[name] = row[f"bare {half(device)}, images/s"]
        report.forwards.append(row)
        print(json.dumps(row), flush=True)
        _free(device)
    report_whole(report, clock, options, device=device, rates=rates)
    for name in names:
        if name not in rates or clock.left < options.seconds / 10:
            report.not_run.append(f"compiled forwards of {name}: out of time")
            continue
        row = compiled_row(name, device, rates[name], batch=options.batch)
        report.compiled.append(row)
        print(json.dumps(row), flush=True)
        _free(device)
    return report


def _free(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.empty_cache()


def main() -> None:
    """Measure, print the tables, and write them where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seconds", type=float, default=420, help="when to stop")
    parser.add_argument("--architectures", default=",".join(NINE), help="comma-separated")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--images", type=int, default=4000, help="of the whole run")
    parser.add_argument("--rows", type=int, default=ROWS, help="of the heads")
    parser.add_argument("--out", type=Path, help="file for the tables")
    options = parser.parse_args()
    lines = list(measure(options).lines())
    print("\n".join(lines))
    if options.out:
        options.out.write_text("\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    main()
