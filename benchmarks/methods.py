"""One table of every method on the same labels, from the records that `clipnlc evaluate` left.

    python benchmarks/methods.py --store clipnlc-store --dataset nano

reads the records of all heads (`make methods` makes them), writes `methods.md` and `methods.csv`
into the store and prints the table: mean accuracy over the data sets, by head and combiner, and by
labels. Nothing is fitted, applied or chosen here. Every cell is a number or a letter, which the
lines below the table explain. For differences with intervals: `clipnlc evaluate --against`.
"""

import argparse
import csv
import io
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from clipnlc import datasets
from clipnlc.backbones import resolve
from clipnlc.combiners import COMBINERS
from clipnlc.errors import ClipnlcError, MissingStageError, StoreError
from clipnlc.files import write_whole
from clipnlc.heads import HEADS
from clipnlc.labels import Labels
from clipnlc.measures import Facts
from clipnlc.reports.record import GFLOPS, RIVALS, Evaluation, Row
from clipnlc.runs.finding import DEFAULT_HOLDOUT
from clipnlc.runs.inputs import is_for
from clipnlc.runs.members import members_name
from clipnlc.runs.records import evaluation_path, read_evaluation
from clipnlc.stores.layout import Layout

COMPARED: Final = (
    "zero-shot",
    "class-mean-few",
    "linear-few",
    "linear-cv-few",
    "logistic-few",
    "clap",
    "gda",
    "lp-plus-plus",
    "rla",
    "tip-adapter",
    "tip-adapter-f",
    "distilled",
    "class-mean",
    "linear",
    "linear-cv",
)

REASONS: Final = {
    "a": "needs labels",
    "b": "reads no label: its number without labels holds for any",
    "c": "the heads themselves need labels",
    "d": "these heads are fitted on most of train, whose labels are not drawn",
    "e": "labels of another of the paper's protocols",
    "f": "not fitted in this store, on every data set; run `make methods`",
    "g": "reads the labels that it is measured on",
}
READS_TEST: Final = "†"
REST: Final = Labels.holdout(1.0)
"""All of the hold-out, which combiners learn from on heads that are fitted on the rest of train."""

CURE: Final = "run `make methods`, with the same STORE and DATASETS"


@dataclass(frozen=True)
class Cell:
    """A number, or why it is missing.

    Attributes:
        row: of the record; None without a number.
        reason: one of `REASONS`; empty where there is a number.
    """

    row: Row | None
    reason: str = ""

    def __str__(self) -> str:
        """Return the accuracy in percent, or the letter of the reason."""
        return self.reason if self.row is None else f"{100 * self.row.accuracy:.1f}"


@dataclass(frozen=True)
class Line:
    """One method under one head.

    Attributes:
        head: whose logits.
        method: a combiner, or a reference that reads the labels it is measured on.
        cells: by labels, whatever the seed.
    """

    head: str
    method: str
    cells: Mapping[Labels, Cell]


def read(layout: Layout, names: Sequence[str], members: str) -> dict[str, Evaluation]:
    """Read the record of every head.

    Raises:
        MissingStageError: a record is missing.
        StoreError: one is damaged, or of other data sets, another split or other packages.
    """
    found: dict[str, Evaluation] = {}
    for head in COMPARED:
        dataset = names[0] if len(names) == 1 else None
        path = evaluation_path(layout, head, members, dataset=dataset)
        if not path.is_file():
            raise MissingStageError(f"no record of {head} heads at {path}; {CURE}")
        found[head] = read_evaluation(layout, path)
        there = [one.dataset for one in found[head].datasets]
        if sorted(there) != sorted(names):
            raise StoreError(
                f"{path} is of {', '.join(there)}, expected {', '.join(sorted(names))}; {CURE}"
            )
        first = found[COMPARED[0]]
        alike = [(one.split, _measures(one), one.versions) for one in (first, found[head])]
        if alike[0] != alike[1]:
            raise StoreError(
                f"{path} was measured on another split, by other measures or with other versions of "
                f"packages than the record of {COMPARED[0]} heads; {CURE}"
            )
    return found


def _measures(record: Evaluation) -> dict[str, Facts]:
    """Return its measures but GFLOPs, which only records with a cascade have."""
    return {name: facts for name, facts in record.measures.items() if name != GFLOPS}


def table(records: Mapping[str, Evaluation]) -> list[Line]:
    """Make the lines, head by head and in the order of the registry."""
    found = {head: _placed(head, record) for head, record in records.items()}
    columns = sorted({drawn for rows in found.values() for _, drawn in rows})
    lines = [
        Line(
            head, row.method, {d: Cell(row) if d == row.drawn else Cell(None, "g") for d in columns}
        )
        for head, record in records.items()
        for row in record.summary
        if row.kind == "reference" and head == COMPARED[0]
    ]
    for head, rows in found.items():
        fitted = {method for method, _ in rows}  # `make methods` chooses, on heads that are trained
        methods = fitted if is_trained(head) else set(COMBINERS)
        for method in (name for name in COMBINERS if name in methods):
            cells = {
                drawn: Cell(rows[method, drawn])
                if (method, drawn) in rows
                else Cell(None, reason(head, method, drawn))
                for drawn in columns
            }
            lines.append(Line(head, method, cells))
    return lines


def _placed(head: str, record: Evaluation) -> dict[tuple[str, Labels], Row]:
    """Return the combiners' rows by method and labels.

    Heads that are fitted on all of train but a hold-out use labels even where a combiner reads none:
    such a row stands with those of the hold-out.
    """
    rows = [row for row in record.summary if row.kind in (*RIVALS, "transductive")]
    return {
        (row.method, REST if on_rest(head) and row.drawn.kind == "none" else row.drawn): row
        for row in rows
    }


def on_rest(head: str) -> bool:
    """Return whether a head is fitted on all of train but a hold-out."""
    cls = HEADS.get(head)
    return bool(cls.needs_labels and not cls.per_draw)


def is_trained(head: str) -> bool:
    """Return whether a head learns, from labels or from a teacher."""
    cls = HEADS.get(head)
    return bool(cls.needs_labels or cls.needs_teacher)


def reason(head: str, method: str, drawn: Labels) -> str:
    """Return the letter of why a method has no number on these labels."""
    if drawn.kind == "none":
        if HEADS.get(head).needs_labels:
            return "c"
        return "a" if COMBINERS.get(method).needs_labels else "f"
    if on_rest(head):
        return "f" if drawn == REST else "e" if drawn.kind == "holdout" else "d"
    if drawn.kind == "holdout" and (drawn == REST or is_trained(head)):
        return "e"
    return "f" if is_for(head, method, drawn) else "b"


def markdown(lines: Sequence[Line], records: Mapping[str, Evaluation]) -> str:
    """Write the table, and what its letters mean."""
    columns = sorted({drawn for line in lines for drawn in line.cells})
    rows = [["head", "method", *(drawn.heading for drawn in columns)]]
    rows.append(["---", "---", *("---:" for _ in columns)])
    rows += [
        [line.head, _marked(line.method), *(str(line.cells[d]) for d in columns)] for line in lines
    ]
    used = {cell.reason for line in lines for cell in line.cells.values() if cell.reason}
    first = records[COMPARED[0]]
    seeds = {len(cell.row.seeds) for line in lines for cell in line.cells.values() if cell.row}
    seeds -= {0, 1}  # references, and what no label was drawn for
    drawn = " or ".join(map(str, sorted(seeds))) or "1"
    held = [d for d in columns if d.kind == "holdout"]
    head = (
        f"Mean accuracy on {first.split} over {len(first.datasets)} data sets, in percent, by labels; "
        f"{len(first.backbones)} backbones, draws of the labels: {drawn}."
        + "".join(
            f" {d.heading}: heads on {1 - DEFAULT_HOLDOUT:.0%} of train, combiners on the rest, or "
            "on none."
            if d == REST
            else f" {d.heading}: combiners of zero-shot heads on {d.amount:.0%} of train."
            for d in held
        )
        + "\n"
    )
    notes = [f"- {letter}: {REASONS[letter]}" for letter in sorted(used)]
    if any(line.method in COMBINERS and COMBINERS.get(line.method).reads_test for line in lines):
        notes.append(
            f"- {READS_TEST}: reads the test images themselves; comparable with no other row"
        )
    return "\n".join([head, *(f"| {' | '.join(row)} |" for row in rows), "", *notes, ""])


def _marked(method: str) -> str:
    apart = method in COMBINERS and COMBINERS.get(method).reads_test
    return f"{method} {READS_TEST}" if apart else method


def as_csv(lines: Sequence[Line]) -> str:
    """Write one row for each cell, with its interval and seeds, or with its reason."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["head", "method", "labels", "accuracy", "low", "high", "seeds", "reason"])
    for line in lines:
        for drawn, cell in line.cells.items():
            row = cell.row
            numbers = (None, None, None) if row is None else (row.accuracy, row.low, row.high)
            writer.writerow(
                [
                    *(line.head, line.method, drawn.heading),
                    *("" if number is None else f"{number:.6f}" for number in numbers),
                    "" if row is None else len(row.seeds),
                    REASONS[cell.reason] if cell.reason else "",
                ]
            )
    return out.getvalue()


def main() -> None:
    """Read the command line; write and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", type=Path, default=Path("clipnlc-store"))
    parser.add_argument("--dataset", default="nano", help="keys or groups, comma-separated")
    parser.add_argument("--backbones", default="nano", help="names or groups, comma-separated")
    options = parser.parse_args()
    try:
        names = [key for one in options.dataset.split(",") for key in datasets.resolve(one)]
        members = members_name(b.name for b in resolve(options.backbones.split(",")))
        records = read(Layout(options.store), names, members)
        lines = table(records)
        text = markdown(lines, records)
        write_whole(options.store / "methods.md", text)
        write_whole(options.store / "methods.csv", as_csv(lines))
    except ClipnlcError as error:
        sys.exit(f"error: {error}")
    print(text)


if __name__ == "__main__":
    main()
