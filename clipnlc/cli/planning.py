"""How `extract --plan` is printed."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from clipnlc.cli.output import print_table
from clipnlc.reports.pace import spelled_rate, spelled_time
from clipnlc.wording import count

if TYPE_CHECKING:
    from clipnlc.cli.output import Sayer
    from clipnlc.stages.plan import Plan, PlannedSplit


def show_plan(plan: "Plan", say: "Sayer") -> None:
    """Print what would be embedded, what each backbone costs, and the totals."""
    from rich.table import Table

    work = Table(box=None)
    columns = ("data set", "split", "images", "to embed", "to download", "cached", "to do")
    for column in columns:
        work.add_column(column, justify="left" if column in ("data set", "split") else "right")
    for split in plan.splits:
        work.add_row(
            split.dataset,
            split.split,
            "?" if split.images is None else str(split.images),
            "?" if split.images is None else _to_embed(split),
            _bytes(split.download_bytes),
            str(len(split.cached)),
            str(len(split.lacking)),
        )
    print_table(work)
    if not plan.backbones:
        say("all features exist: nothing to do")
        return
    costs = Table(box=None)
    for column in ("backbone", "images", "GFLOPs", "prompts", "weights", "memory", "images/s"):
        costs.add_column(column, justify="left" if column == "backbone" else "right")
    for one in plan.backbones:
        costs.add_row(
            one.backbone,
            str(one.images),
            f"{one.gflops:.3g}",
            str(one.prompts),
            _bytes(one.download_bytes),
            _bytes(one.memory_bytes),
            spelled_rate(1 / one.seconds) if one.seconds else "",
        )
    print_table(costs)
    for line in _sums(plan):
        say(line)


def _to_embed(split: "PlannedSplit") -> str:
    """Spell the images that the backbones lack: `1 to 452` where some lack fewer."""
    lacking = {split.to_embed(name) for name in split.lacking} or {0}
    return " to ".join(map(str, sorted({min(lacking), max(lacking)})))


def _sums(plan: "Plan") -> list[str]:
    where = f"{plan.workers} × " * (plan.workers > 1) + plan.device
    lines = [
        f"on {where}, {plan.precision}: {_time(plan)}",
        f"disk: {_bytes(plan.disk_bytes)} of features, twice that while shards are merged",
    ]
    memory = {one.backbone: one.memory_bytes for one in plan.backbones}
    most = max(sum(memory[name] for name in group) for group in plan.groups)
    passes = (
        "all backbones at once"
        if len(plan.groups) == 1
        else f"in {len(plan.groups)} passes over the images"
    )
    lines.append(f"memory: {_bytes(most)} of {_bytes(plan.free_memory)} free, {passes}")
    if plan.pixel_seconds is not None:
        lines.append(
            f"pixels: {1000 * plan.pixel_seconds:.1f} ms a photo of 500 × 375 in one thread, "
            f"{count(plan.decoders, 'thread')}"
        )
    unknown = _unknown(plan.splits)
    if unknown:
        lines.append(f"not known before they are downloaded: {unknown}")
    return lines


def _time(plan: "Plan") -> str:
    if plan.hours is None:
        return "hours unknown" if plan.pixel_seconds is not None else "nothing was measured"
    return f"about {spelled_time(max(1.0, 3600 * plan.hours))} for the images; prompts, downloads and loading come on top"


def _unknown(splits: "Sequence[PlannedSplit]") -> str:
    parts = []
    if any(split.images is None for split in splits):
        parts.append("images of " + ", ".join(s.dataset for s in splits if s.images is None))
    keys = dict.fromkeys(s.dataset for s in splits if s.download_bytes is None)
    if keys:
        parts.append("bytes to download of " + ", ".join(keys))
    return "; ".join(parts)


def _bytes(number: int | None) -> str:
    """Spell a size.

    >>> _bytes(408_028_548), _bytes(0), _bytes(None)
    ('408 MB', '0', '?')
    """
    if number is None:
        return "?"
    if number == 0:
        return "0"
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number / 1e3:.0f} kB"
