"""What `clipnlc extract` costs: beside CLIP_benchmark, beside bare forwards, in pixels, in memory.

    python benchmarks/extract.py whole --images 128 --repeats 3 --clip-benchmark-python PYTHON
    python benchmarks/extract.py pixels
    python benchmarks/extract.py memory --rows 1000,10000,100000

Each command prints a table and ratios; both sides of a ratio are measured in the same run, on the
same images and the same cores. `--json FILE` keeps the numbers. Linux only (affinity, /proc).

- `whole` runs `clipnlc extract` as a user does, on random full-size weights and JPEGs of 500 x 375,
  against two things. *CLIP_benchmark*: its own feature extraction of the same backbones one after
  another, with autocast off and with its defaults. (Autocast to bfloat16 makes a CPU that lacks
  bfloat16 instructions many times slower: there only a few images are measured, and the rest is
  extrapolated. One that has them gets faster, with features that differ.) *Bare forwards*: for each backbone the fastest of two memory layouts and two
  ways of using the cores, on tensors that are ready; the sum is the least that can be spent.
- `pixels` is what remains where forwards are cheap, as on a fast GPU: decoding, resizing and
  normalising per input size, and all backbones together against one at a time.
- `memory` is the peak of `clipnlc extract` with a nano backbone on ever more small images.

CLIP_benchmark wants an environment of its own, whose python is given to `whole`:

    python -m venv clip-benchmark
    clip-benchmark/bin/pip install clip-benchmark open_clip_torch scikit-learn

Without it the comparison is left out, and that is said.
"""

import argparse
import io
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from random_weights import write
from sklearn.datasets import load_sample_image

from clipnlc.backbones import parse
from clipnlc.backbones.loaded import LoadedBackbone
from clipnlc.backbones.openclip import open_clip, untrained
from clipnlc.datasets.images import load
from clipnlc.extraction.request import Request
from clipnlc.stages.extract import extract
from clipnlc.stores.features import read_features
from clipnlc.stores.layout import Layout

FIVE = "RN50,RN101,RN50x4,ViT-B-32,ViT-B-16"
WIDTH, HEIGHT = 500, 375
FOUR_SIDES = (224, 224, 224, 224)  # RN50, RN101, ViT-B-32, ViT-B-16
NINE_SIDES = (*FOUR_SIDES, 224, 288, 336, 384, 448)
FEW = 5  # images under an autocast that the CPU has no instructions for

Report = dict[str, Any]


# Images


def photographs(number: int) -> Iterator[tuple[str, bytes]]:
    """Yield class and JPEG (92, 4:2:0): crops, flips and blends of scikit-learn's two photos."""
    rng = np.random.default_rng(0)
    names = ("china", "flower")
    photos = [Image.fromarray(load_sample_image(f"{name}.jpg")) for name in names]
    for i in range(number):
        crops = []
        for photo in photos:
            x, y = rng.integers(photo.width - WIDTH + 1), rng.integers(photo.height - HEIGHT + 1)
            crop = photo.crop((x, y, x + WIDTH, y + HEIGHT))
            flip = Image.Transpose.FLIP_LEFT_RIGHT
            crops.append(crop.transpose(flip) if rng.random() < 0.5 else crop)
        kind = i % 2
        mixed = Image.blend(crops[kind], crops[1 - kind], 0.4 * rng.random())
        file = io.BytesIO()
        mixed.save(file, "JPEG", quality=92, subsampling="4:2:0")
        yield names[kind], file.getvalue()


def thumbnails(number: int) -> Iterator[tuple[str, bytes]]:
    """Yield class and PNG of 32 x 32 pixels, each different."""
    rng = np.random.default_rng(0)
    for i in range(number):
        blocks = rng.integers(256, size=(4, 4, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(blocks.repeat(8, 0).repeat(8, 1)).save(file, "PNG", compress_level=1)
        yield ("even", "odd")[i % 2], file.getvalue()


def write_folder(root: Path, images: Iterator[tuple[str, bytes]], extension: str) -> None:
    """Write an image folder, one folder per class."""
    for i, (name, data) in enumerate(images):
        (root / name).mkdir(parents=True, exist_ok=True)
        (root / name / f"{i:07}.{extension}").write_bytes(data)


def write_parquet(root: Path, images: Iterator[tuple[str, bytes]]) -> None:
    """Write one parquet file in row groups of a thousand."""
    schema = pa.schema({"image": pa.binary(), "label": pa.string()})
    root.mkdir(parents=True)
    with pq.ParquetWriter(root / "test.parquet", schema) as file:
        while group := list(itertools.islice(images, 1000)):
            labels, data = zip(*group, strict=True)
            file.write_table(pa.table({"image": data, "label": labels}, schema=schema))


# Processes


@dataclass(frozen=True)
class Cost:
    """What a process and its descendants took.

    Attributes:
        wall: seconds.
        cpu: seconds, user and system.
        largest: peak resident memory of its largest process, in MB.
        tree: peak memory of all its processes together, shared pages counted once, in MB; sampled,
            and only where asked for.
    """

    wall: float
    cpu: float
    largest: float
    tree: float


def run(command: list[str], *, scratch: Path, sample_memory: bool = False) -> Cost:
    """Run a command to its end; exit with its output where it fails.

    Args:
        command: program and arguments.
        scratch: where `datasets` may copy tables to, instead of the user's cache.
        sample_memory: four times a second; costs the command some milliseconds each.
    """
    environment = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    environment["HF_DATASETS_CACHE"] = str(scratch / "datasets")
    with (scratch / "log").open("w+b") as log:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        peak = _Peak(process.pid) if sample_memory else None
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        tree = peak.stop() if peak else 0.0
        if process.returncode:
            log.seek(0)
            sys.exit(f"{' '.join(command)}\nfailed:\n{log.read().decode()[-4000:]}")
    return Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, tree)


class _Peak:
    """Samples the memory of a process and its descendants until stopped."""

    def __init__(self, pid: int) -> None:
        self._pid, self._most, self._over = pid, 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def stop(self) -> float:
        """Return the peak in MB."""
        self._over.set()
        self._thread.join()
        return self._most

    def _watch(self) -> None:
        while not self._over.wait(0.25):
            self._most = max(self._most, sum(_memory(pid) for pid in _descendants(self._pid)))


def _descendants(pid: int) -> Iterator[int]:
    yield pid
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from _descendants(int(child))
    except (FileNotFoundError, ProcessLookupError):
        return  # it ended meanwhile


def _memory(pid: int) -> float:
    """Proportional memory in MB; 0 for a process that ended meanwhile."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    except (FileNotFoundError, ProcessLookupError):
        pass
    return 0.0


# whole: against CLIP_benchmark and bare forwards


@dataclass(frozen=True)
class Whole:
    """The same extraction by different programs."""

    images: Path
    backbones: dict[str, Path]
    scratch: Path
    cores: int
    clip_benchmark_python: str | None

    def clipnlc(self, *, limit: int | None = None, precision: str = "fp32") -> Cost:
        """Run `clipnlc extract` on a fresh store."""
        store = Path(tempfile.mkdtemp(dir=self.scratch))
        files = ",".join(f"{a}@{file}" for a, file in self.backbones.items())
        command = [sys.executable, "-m", "clipnlc", "extract", "--dataset", str(self.images)]
        command += ["--name", "photos", "--store", str(store), "--backbones", files, "--quiet"]
        command += ["--device", "cpu", "--precision", precision]
        command += ["--limit", str(limit)] if limit else []
        cost = run(command, scratch=self.scratch)
        if limit is None and precision == "fp32":
            store.rename(self._fresh("clipnlc-store"))
        return cost

    def clip_benchmark(self, *, limit: int | None = None, autocast: bool = False) -> Cost:
        """Run CLIP_benchmark's extraction, with as many loader processes as cores."""
        assert self.clip_benchmark_python is not None
        out = self._fresh("clip-benchmark")
        files = ",".join(f"{quick(a)}={file}" for a, file in self.backbones.items())
        script = Path(__file__).with_name("clip_benchmark_features.py")
        command = [self.clip_benchmark_python, "-O", str(script), "--images", str(self.images)]
        command += ["--out", str(out), "--backbones", files, "--workers", str(self.cores)]
        command += ["--limit", str(limit)] if limit else []
        return run([*command, *(["--autocast"] if autocast else [])], scratch=self.scratch)

    def least_cosine(self) -> float:
        """Compare the features that the two wrote last: the least cosine over all images."""
        least = 1.0
        for architecture, file in self.backbones.items():
            name = f"{architecture}@{file.stem}"
            ours = read_features(
                Layout(self.scratch / "clipnlc-store").features("photos", "all", name)
            )
            theirs = torch.load(  # noqa: TID251  (CLIP_benchmark's format)
                self.scratch / "clip-benchmark" / quick(architecture) / "features_train.pt"
            )
            # Both go through the class folders by name; ours is put in that order.
            rows = ours.features[np.argsort(ours.sample_id)]
            rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
            least = min(least, float((rows * theirs.float().numpy()).sum(1).min()))
        return least

    def _fresh(self, name: str) -> Path:
        path = self.scratch / name
        if path.exists():
            path.rename(tempfile.mkdtemp(dir=self.scratch) + "/old")
        return path


def quick(architecture: str) -> str:
    """Name the variant with OpenAI's activation, which clipnlc takes for files named `.openai`."""
    return f"{architecture}-quickgelu"


def bare_forwards(architecture: str, *, batch: int, cores: int) -> dict[str, tuple[float, float]]:
    """Milliseconds per image on ready tensors, wall and CPU, by layout and use of the cores."""
    tower = untrained(quick(architecture), seed=0).visual.eval()  # type: ignore[union-attr]
    side = tower.image_size[0] if isinstance(tower.image_size, tuple) else tower.image_size
    layouts = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}
    found: dict[str, list[tuple[float, float]]] = {}

    def forward(x: torch.Tensor) -> None:
        with torch.inference_mode():
            tower(x)

    with ThreadPoolExecutor(cores, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for _ in range(2):  # interleaved, so that a busy moment does not choose the winner
            for layout, memory_format in layouts.items():
                tower.to(memory_format=memory_format)
                x = torch.rand(batch, 3, side, side).to(memory_format=memory_format)
                torch.set_num_threads(cores)
                forward(x[:2])
                ways: dict[str, Callable[[], object]] = {
                    f"1 x {cores}": lambda x=x: [forward(x) for _ in range(cores)],
                    f"{cores} x 1": lambda x=x: list(pool.map(forward, [x] * cores)),
                }
                for way, work in ways.items():
                    wall, cpu = time.perf_counter(), time.process_time()
                    work()
                    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
                    each = 1e3 / batch / cores
                    found.setdefault(f"{layout}, {way}", []).append((each * wall, each * cpu))
    return {variant: min(times) for variant, times in found.items()}


def whole(options: argparse.Namespace) -> Report:
    """Measure `clipnlc extract` as a whole process."""
    names = options.backbones.split(",")
    files = {a: write(a, options.weights) for a in names}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        images = scratch / "photos"
        write_folder(images, photographs(options.images), "jpg")
        sides = Whole(images, files, scratch, options.cores, options.clip_benchmark_python)
        sides.clipnlc(limit=1)  # libraries and weights into the page cache
        if options.clip_benchmark_python:
            sides.clip_benchmark(limit=1)
        for _ in range(options.repeats):
            rows.append(_one_repeat(sides, options))
            print(json.dumps(rows[-1]), flush=True)
        report: Report = {"backbones": names, "images": options.images, "repeats": rows}
        if options.clip_benchmark_python:
            report["least cosine"] = {"autocast off": sides.least_cosine()}
            report["autocast"] = _with_autocast(sides, options)
            if report["autocast"]["images"] == options.images:
                report["least cosine"]["autocast"] = sides.least_cosine()
    _print_whole(report)
    return report


def _one_repeat(sides: Whole, options: argparse.Namespace) -> Report:
    start_up, ours = sides.clipnlc(limit=1), sides.clipnlc()
    bare = {a: bare_forwards(a, batch=options.batch, cores=options.cores) for a in sides.backbones}
    least = {a: min(times.items(), key=lambda item: item[1]) for a, times in bare.items()}
    total, total_cpu = (
        sum(ms[clock] for _, ms in least.values()) * options.images / 1e3 for clock in (0, 1)
    )
    rest = 1 - 1 / options.images  # the run that is taken off as start-up has embedded one image
    found = {
        "bare forwards": bare,
        "fastest": {a: variant for a, (variant, _) in least.items()},
        "seconds": {
            "bare forwards": total,
            "clipnlc": ours.wall,
            "clipnlc, 1 image": start_up.wall,
        },
        "cpu seconds": {
            "bare forwards": total_cpu,
            "clipnlc": ours.cpu,
            "clipnlc, 1 image": start_up.cpu,
        },
        "ratios": {
            "clipnlc / bare forwards": ours.wall / total,
            "clipnlc without start-up / bare forwards": (ours.wall - start_up.wall)
            / (total * rest),
            "the same in CPU time": (ours.cpu - start_up.cpu) / (total_cpu * rest),
        },
    }
    if sides.clip_benchmark_python:
        their_start_up, theirs = sides.clip_benchmark(limit=1), sides.clip_benchmark()
        found["seconds"] |= {
            "CLIP_benchmark": theirs.wall,
            "CLIP_benchmark, 1 image": their_start_up.wall,
        }
        found["cpu seconds"] |= {
            "CLIP_benchmark": theirs.cpu,
            "CLIP_benchmark, 1 image": their_start_up.cpu,
        }
        found["ratios"] |= {
            "clipnlc / CLIP_benchmark": ours.wall / theirs.wall,
            "clipnlc / CLIP_benchmark without start-up": (ours.wall - start_up.wall)
            / (theirs.wall - their_start_up.wall),
            "clipnlc / CLIP_benchmark in CPU time": ours.cpu / theirs.cpu,
        }
    return found


def _with_autocast(sides: Whole, options: argparse.Namespace) -> Report:
    """Its defaults: on all images where the CPU has bfloat16 instructions, else on a few."""
    flags = Path("/proc/cpuinfo").read_text("utf-8")
    native = "avx512_bf16" in flags or "amx_bf16" in flags
    few = options.images if native else min(FEW, options.images)
    start_up = sides.clip_benchmark(limit=1, autocast=True)
    cost = sides.clip_benchmark(limit=few, autocast=True)
    times = (options.images - 1) / (few - 1)
    ours = sides.clipnlc(precision="bf16") if native else None  # refused elsewhere
    return {
        "bfloat16 instructions": native,
        "images": few,
        "seconds": start_up.wall + times * (cost.wall - start_up.wall),
        "cpu seconds": start_up.cpu + times * (cost.cpu - start_up.cpu),
        **({"clipnlc in bf16": {"seconds": ours.wall, "cpu seconds": ours.cpu}} if ours else {}),
    }


def _print_whole(report: Report) -> None:
    repeats = report["repeats"]
    print(
        f"\n{report['images']} images, {', '.join(report['backbones'])}; median of {len(repeats)}"
    )
    for block in ("seconds", "cpu seconds", "ratios"):
        print(f"\n{block}")
        for name in repeats[0][block]:
            values = [r[block][name] for r in repeats]
            spread = f"  ({min(values):.2f} to {max(values):.2f})"
            print(f"  {name:50} {statistics.median(values):8.2f}{spread}")
    if all(r["seconds"]["clipnlc, 1 image"] > r["seconds"]["bare forwards"] for r in repeats):
        print("NOTE start-up outweighs the forwards, so ratios without it are noise: more --images")
    print("\nbare forward, ms per image")
    for architecture, variants in repeats[0]["bare forwards"].items():
        for variant in variants:
            ms = min(r["bare forwards"][architecture][variant][0] for r in repeats)
            print(f"  {architecture:12} {variant:24} {ms:8.1f}")
    if "autocast" not in report:
        print("\nno comparison with CLIP_benchmark: --clip-benchmark-python was not given")
        return
    for setting, cosine in report["least cosine"].items():
        print(f"\nleast cosine of clipnlc's and CLIP_benchmark's features, {setting}: {cosine:.6f}")
    _print_autocast(report)


def _print_autocast(report: Report) -> None:
    theirs = report["autocast"]
    has = "bfloat16" if theirs["bfloat16 instructions"] else "no bfloat16"
    print(f"\nCLIP_benchmark's defaults (autocast; this CPU has {has} instructions)")
    if theirs["images"] < report["images"]:
        print(f"EXTRAPOLATED to all images from {theirs['images']}")
    for clock in ("seconds", "cpu seconds"):
        ours = statistics.median(r[clock]["clipnlc"] for r in report["repeats"])
        print(f"  {clock:12} {theirs[clock]:8.2f}  clipnlc / that {ours / theirs[clock]:6.2f}")
        if half := theirs.get("clipnlc in bf16"):
            print(f"    clipnlc --precision bf16 / that {half[clock] / theirs[clock]:6.2f}")


# pixels: what remains where forwards are cheap


def stub(side: int, folder: Path) -> str:
    """Make a CLIP model whose only size is that of its input; return its name for --backbones.

    Its forward is replaced (`free_forwards`); all else is a backbone like any other.
    """
    architecture = f"stub-{side}"
    tower = {"layers": 1, "width": 64, "head_width": 64}
    config = {
        "embed_dim": 16,
        "vision_cfg": {**tower, "image_size": side, "patch_size": 32},
        "text_cfg": {"layers": 1, "width": 16, "heads": 1, "vocab_size": 49408},
    }
    (folder / f"{architecture}.json").write_text(json.dumps(config), "utf-8")
    open_clip().add_model_config(folder / f"{architecture}.json")
    return f"{architecture}@{write(architecture, folder)}"


@contextmanager
def free_forwards() -> Iterator[None]:
    """Let forwards cost nothing."""

    def forward(self: LoadedBackbone, finished: torch.Tensor) -> np.ndarray:
        return np.ones((len(finished), self.dim), np.float32)

    with patch.object(LoadedBackbone, "forward", forward):
        yield


def pixels(options: argparse.Namespace) -> Report:
    """Measure decoding, resizing and normalising, and what sharing them saves."""
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        names = {side: stub(side, scratch) for side in sorted(set(NINE_SIDES))}
        steps = _steps(names, [data for _, data in photographs(32)])
        write_folder(scratch / "photos", photographs(options.images), "jpg")
        joint = {}
        for label, sides in (("all nine", NINE_SIDES), ("the four small ones", FOUR_SIDES)):
            # Files are named after backbones, so every one has weights of its own.
            backbones = [_copy(names[side], scratch, i) for i, side in enumerate(sides)]
            joint[label] = _together_and_apart(backbones, scratch, options)
    print("ms per image and thread, JPEG of 500 x 375")
    for step, ms in steps.items():
        print(f"  {step:20} {ms:7.2f}")
    print(f"\npreparing {options.images - 1} images, forwards free, median of {options.repeats}")
    for label, found in joint.items():
        print(f"  {label}")
        for name, value in found.items():
            print(f"    {name:24} {value:7.3f}")
    return {"ms per image": steps, "images": options.images, "sharing": joint}


def _steps(names: dict[int, str], files: list[bytes]) -> dict[str, float]:
    """Milliseconds per image in one thread: the median over passes."""
    torch.set_num_threads(1)
    images = [load(data) for data in files]
    found = {"decode": _timed(lambda: [load(data) for data in files]) / len(files)}
    for side, name in names.items():
        backbone = LoadedBackbone(parse(name), device="cpu", precision="fp32")
        resize = backbone.preprocessing.resizer()
        batch = np.stack([resize(image) for image in images])
        resizing = _timed(lambda resize=resize: [resize(image) for image in images])
        finishing = _timed(lambda backbone=backbone, batch=batch: backbone.finish(batch))
        found[f"resize to {side}"] = resizing / len(files)
        found[f"normalise {side}"] = finishing / len(files)
    return found


def _timed(work: Callable[[], object]) -> float:
    """Milliseconds, the median of five."""
    times = []
    for _ in range(5):
        start = time.perf_counter()
        work()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def _copy(name: str, folder: Path, number: int) -> str:
    architecture, _, file = name.partition("@")
    copy = folder / f"{number}-{architecture}.safetensors"
    if not copy.exists():
        copy.hardlink_to(file)
    return f"{architecture}@{copy}"


def _together_and_apart(
    backbones: list[str], scratch: Path, options: argparse.Namespace
) -> dict[str, float]:
    """Seconds of `clipnlc.stages.extract` for all backbones at once, and for one after another.

    What a run on one image takes (loading, texts, making files) is taken off.
    """

    def took(names: list[list[str]], limit: int | None) -> np.ndarray:
        store = Path(tempfile.mkdtemp(dir=scratch))
        start = np.array([time.perf_counter(), time.process_time()])
        for together in names:
            extract(
                Request(
                    store=store,
                    dataset=[str(scratch / "photos")],
                    name="photos",
                    backbones=together,
                    limit=limit,
                )
            )
        return np.array([time.perf_counter(), time.process_time()]) - start

    ways = {"together": [backbones], "one at a time": [[name] for name in backbones]}
    spent: dict[str, list[np.ndarray]] = {way: [] for way in ways}
    with free_forwards():
        took([backbones], 1)  # imports, page cache
        for _ in range(options.repeats):
            for way, names in ways.items():
                spent[way].append(took(names, None) - took(names, 1))
    found = {
        f"{way}, {clock} s": float(np.median(times, axis=0)[i])
        for way, times in spent.items()
        for i, clock in enumerate(("wall", "cpu"))
    }
    ratios = np.array(spent["together"]) / np.array(spent["one at a time"])
    wall, cpu = np.median(ratios, axis=0)
    return {**found, "ratio, wall": float(wall), "ratio, cpu": float(cpu)}


# memory: rows against peak


def memory(options: argparse.Namespace) -> Report:
    """Measure the peak memory of `clipnlc extract` over the number of images."""
    rows: list[Report] = []
    kinds = [("parquet", n) for n in options.rows] + [("folder", n) for n in options.folder_rows]
    print(
        f"{'kind':8} {'images':>9} {'largest MB':>11} {'tree MB':>9} {'seconds':>8} {'images/s':>9}"
    )
    for kind, number in kinds:
        with tempfile.TemporaryDirectory() as folder:
            scratch = Path(folder)
            if kind == "parquet":
                write_parquet(scratch / "small", thumbnails(number))
            else:
                write_folder(scratch / "small", thumbnails(number), "png")
            command = [sys.executable, "-m", "clipnlc", "extract", "--name", "small", "--quiet"]
            command += ["--dataset", str(scratch / "small"), "--store", str(scratch / "store")]
            command += ["--backbones", "nano-RN50", "--device", "cpu"]
            cost = run(command, scratch=scratch, sample_memory=True)
        rows.append({"kind": kind, "images": number, **vars(cost)})
        print(
            f"{kind:8} {number:9,} {cost.largest:11.0f} {cost.tree:9.0f} {cost.wall:8.1f} "
            f"{number / cost.wall:9.0f}",
            flush=True,
        )
    for kind, of_kind in itertools.groupby(rows, key=lambda row: row["kind"]):
        by_size = sorted(of_kind, key=lambda row: row["images"])
        least, most = by_size[0], by_size[-1]
        print(
            f"{kind}: {most['images']:,} images take {most['largest'] - least['largest']:+.0f} MB "
            f"(largest process), {most['tree'] - least['tree']:+.0f} MB (all processes) against "
            f"{least['images']:,}"
        )
    return {"memory": rows}


def main() -> None:
    """Run one part."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--json", type=Path, help="write the numbers here")
    shared.add_argument("--cores", type=int, default=2, help="everything is held to these")
    parts = parser.add_subparsers(dest="part", required=True)

    part = parts.add_parser("whole", parents=[shared])
    part.set_defaults(measure=whole)
    part.add_argument("--backbones", default=FIVE)
    part.add_argument("--weights", type=Path, default=Path("build/random-weights"))
    part.add_argument("--images", type=int, default=128)
    part.add_argument("--repeats", type=int, default=3)
    part.add_argument("--batch", type=int, default=16, help="of the bare forwards")
    part.add_argument("--clip-benchmark-python", help="see above")

    part = parts.add_parser("pixels", parents=[shared])
    part.set_defaults(measure=pixels)
    part.add_argument("--images", type=int, default=512)
    part.add_argument("--repeats", type=int, default=3)

    numbers = {"type": lambda text: [int(n) for n in text.split(",") if n]}
    part = parts.add_parser("memory", parents=[shared])
    part.set_defaults(measure=memory)
    part.add_argument("--rows", **numbers, default=[1_000, 10_000, 100_000], help="of parquet")
    part.add_argument("--folder-rows", **numbers, default=[1_000, 10_000], help="of image folders")

    options = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])
    torch.set_num_threads(options.cores)
    report = options.measure(options)
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
