"""Pairwise measures of diversity as heat maps."""

import hashlib
import math
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np

from clipnlc.files import open_regular, replacing
from clipnlc.measures import Facts
from clipnlc.reports.diversity_tables import READ
from clipnlc.reports.record import Diversity, DiversityReport, Matrix
from clipnlc.wording import count

DPI = 130
REVISION = 2
"""Of the drawing: raised when the same record is to look different."""


class Scale(NamedTuple):
    """A colour scale that is the same in every figure, so that figures can be compared.

    `YlGnBu` and `PuOr` can be told apart with every kind of colour vision.
    """

    low: float | None
    high: float | None
    colours: str

    @classmethod
    def of(cls, facts: Facts) -> "Scale":
        """Return the scale of a measure, over its bounds; two-sided where it may be negative.

        A bound that a measure lacks is taken from the values.
        """
        low, high = facts.bounds
        return cls(low, high, "YlGnBu" if low is not None and low >= 0 else "PuOr")


def draw_heatmaps(report: DiversityReport, folder: Path) -> tuple[Path, ...]:
    """Draw one PNG per data set, `diversity-<dataset>.png`, and `diversity-mean.png` of several.

    A picture that shows the same already is left alone. The same record gives the same bytes with
    the same matplotlib.

    Returns:
        The pictures, whether drawn now or before.

    Raises:
        OSError: the disk refuses.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for one in report.datasets:
        path = folder / f"diversity-{quote(one.dataset, safe='')}.png"
        _draw(path, report, one, f"{one.dataset}, {count(one.samples, f'{report.split} image')}")
        drawn.append(path)
    if len(report.datasets) > 1:
        path = folder / "diversity-mean.png"
        title = f"mean of {len(report.datasets)} data sets, {count(report.mean.samples, 'image')}"
        _draw(path, report, report.mean, title)
        drawn.append(path)
    return tuple(drawn)


def _draw(path: Path, report: DiversityReport, one: Diversity, title: str) -> None:
    shown = (
        title,
        report.head,
        report.backbones,
        report.measures,
        one.matrices,
        version("matplotlib"),
        REVISION,
    )
    digest = hashlib.blake2b(repr(shown).encode(), digest_size=16).hexdigest()
    # The digest stands among the first chunks of the file, as a PNG comment.
    if path.is_file():
        with open_regular(path) as file:
            if digest.encode() in file.read(1000):
                return
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415  (half a second)
    from matplotlib.figure import Figure  # noqa: PLC0415

    names = _short(report.backbones)
    columns = min(3, len(report.measures))
    lines = math.ceil(len(report.measures) / columns)
    side = max(3.6, 0.46 * len(names) + 1.4)
    figure = Figure(figsize=(side * columns, side * lines + 0.5), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(f"Diversity of {count(len(names), 'backbone')}: {title}, {report.head} heads")
    for place, (measure, facts) in enumerate(report.measures.items(), start=1):
        axes = figure.add_subplot(lines, columns, place)
        _draw_matrix(axes, facts, one.matrices[measure], names)
    with replacing(path) as partial:
        figure.savefig(partial, format="png", metadata={"Software": None, "Comment": digest})


def _draw_matrix(axes: Any, facts: Facts, matrix: Matrix, names: Sequence[str]) -> None:  # noqa: ANN401  (matplotlib is untyped)
    low, high, colours = Scale.of(facts)
    values = np.array(matrix, dtype=np.float64)  # None becomes nan, which is left white
    image = axes.imshow(values, vmin=low, vmax=high, cmap=colours)
    axes.set_title(f"{facts.title} ({READ[facts.better]})", fontsize=10)
    ticks = range(len(names))
    axes.set_xticks(ticks, names, rotation=45, ha="right", rotation_mode="anchor", fontsize=8)
    axes.set_yticks(ticks, names, fontsize=8)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    for row in ticks:
        for column in ticks:
            value = values[row, column]
            text = axes.text(
                column,
                row,
                "-" if math.isnan(value) else _spelled(value),
                ha="center",
                va="center",
                fontsize=8,
                color="black" if math.isnan(value) else _contrast(image, value),
            )
            text.set_in_layout(False)  # it lies within its cell; asking costs most of the time


def _spelled(value: float) -> str:
    """Write two decimals without the leading zero: cells are small.

    >>> _spelled(0.25), _spelled(-0.5), _spelled(1.0), _spelled(-0.001)
    ('.25', '-.50', '1', '.00')
    """
    rounded = round(value, 2) + 0.0
    if abs(rounded) == 1:
        return f"{rounded:.0f}"
    return f"{rounded:.2f}".replace("0.", ".", 1)


def _contrast(image: Any, value: float) -> str:  # noqa: ANN401  (matplotlib is untyped)
    """Choose black or white, whichever is read more easily on the cell's colour."""
    red, green, blue, _ = image.cmap(image.norm(value))
    luminance = 0.299 * red + 0.587 * green + 0.114 * blue
    return "black" if luminance > 0.5 else "white"  # noqa: PLR2004  (the middle)


def _short(backbones: Sequence[str]) -> list[str]:
    """Drop what all names share: a family's `nano-`, or a tag such as `.openai`.

    >>> _short(["RN50.openai", "ViT-B-32.openai"]), _short(["nano-RN50", "nano-ViT-B-16"])
    (['RN50', 'ViT-B-32'], ['RN50', 'ViT-B-16'])
    """
    tags = {name.rpartition(".")[1:] for name in backbones}
    names = list(backbones)
    if len(tags) == 1 and tags != {("", names[0])}:
        names = [name.rpartition(".")[0] or name for name in names]
    if all(name.startswith("nano-") for name in names):
        names = [name.removeprefix("nano-") for name in names]
    return names
