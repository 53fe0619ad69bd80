"""How the answers of `predict` are printed and written: a table, lines, JSON lines, CSV."""

import csv
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from clipnlc.cli.output import echo, print_table, writing
from clipnlc.files import replacing
from clipnlc.wording import printable

if TYPE_CHECKING:
    from clipnlc.stages.predict import Opinion, Prediction

TABLE_ROWS: Final = 50
"""As many answers at most are a table on a terminal; more are lines, printed as they come."""

Write = Callable[[Sequence["Prediction"]], None]


@dataclass(frozen=True)
class Form:
    """What of an answer is shown.

    Attributes:
        backbones: whose opinions are shown; none without `--explain`.
        unsure: answers whose probability is below are to be looked at.
        balanced: answers depend on the other photos; JSON and CSV say so of each.
        costs: say what the backbones computed for each photo took, as of a cascade.
    """

    backbones: tuple[str, ...] = ()
    unsure: float | None = None
    balanced: bool = False
    costs: bool = False

    def look(self, one: "Prediction") -> bool:
        """Return whether a person should look at the photo."""
        return self.unsure is not None and (one.probability or 0.0) < self.unsure

    def fields(self, one: "Prediction") -> dict[str, Any]:
        """Return everything about an answer, by name; nothing is rounded."""
        return {
            "file": str(one.file),
            "class": one.answer,
            "probability": one.probability,
            "runner_up": one.runner_up,
            "runner_up_probability": one.runner_up_probability,
            **({} if self.unsure is None else {"look": self.look(one)}),
            **({"balanced": True} if self.balanced else {}),
            **({"gflops": one.gflops} if self.costs else {}),
            **(
                {
                    "backbones": {
                        each.backbone: {"answer": each.answer, "weight": each.weight}
                        for each in one.opinions
                    }
                }
                if self.backbones
                else {}
            ),
        }

    def columns(self) -> tuple[str, ...]:
        """Return the headings of `cells`."""
        return (
            "file",
            "class",
            "probability",
            "runner-up",
            *(() if self.unsure is None else ("look",)),
            *(("GFLOPs",) if self.costs else ()),
            *self.backbones,
        )

    def cells(self, one: "Prediction") -> tuple[str, ...]:
        """Return an answer for people: rounded, and safe for a terminal."""
        opinions = map(_opinion, one.opinions)
        cells = (
            str(one.file),
            one.answer,
            _rounded(one.probability),
            " ".join(filter(None, (one.runner_up, _rounded(one.runner_up_probability)))),
            *(() if self.unsure is None else ("?" if self.look(one) else "",)),
            *(("" if one.gflops is None else f"{one.gflops:.3g}",) if self.costs else ()),
            *opinions,
        )
        return tuple(map(printable, cells))


def _opinion(one: "Opinion") -> str:
    if one.answer is None:  # the cascade had stopped
        return "-"
    return one.answer if one.weight is None else f"{one.weight:+.2f} {one.answer}"


def _rounded(probability: float | None) -> str:
    return "" if probability is None else f"{probability:.3f}"


def json_lines(form: Form) -> Write:
    """Print one JSON object a line."""

    def show(block: Sequence["Prediction"]) -> None:
        for one in block:
            echo(json.dumps(form.fields(one)))
        sys.stdout.flush()

    return show


@dataclass
class Printer:
    """Prints a table where a terminal has room for it, else a line with tabs for each answer.

    Attributes:
        form: what is shown.
        title: of the table.
        waiting: answers that may become a table; None once lines are printed.
        headed: whether lines have got their heading, which they have where backbones are shown.
    """

    form: Form
    title: str
    waiting: "list[Prediction] | None" = field(
        default_factory=lambda: [] if sys.stdout.isatty() else None
    )
    headed: bool = False

    def __call__(self, block: Sequence["Prediction"]) -> None:
        """Print a block, or keep it for the table."""
        if self.waiting is not None:
            self.waiting.extend(block)
            if len(self.waiting) <= TABLE_ROWS:
                return
            block, self.waiting = self.waiting, None
        if self.form.backbones and not self.headed:  # else four columns that explain themselves
            echo("\t".join(map(printable, self.form.columns())))
            self.headed = True
        for one in block:
            echo("\t".join(self.form.cells(one)))
        sys.stdout.flush()

    def finish(self) -> None:
        """Print the table, if it is to be one."""
        if not self.waiting:
            return
        from rich.table import Table
        from rich.text import Text

        table = Table(title=self.title, title_justify="left", box=None)
        for column in self.form.columns():
            table.add_column(column, overflow="fold")
        for one in self.waiting:
            table.add_row(*map(Text, self.form.cells(one)))
        print_table(table)


def csv_file(path: Path | None, form: Form) -> AbstractContextManager[Write]:
    """Write answers to a CSV file as they come; it is there in the end, or not at all.

    Columns: those of `Form.fields`, and `<backbone> answer` and `<backbone> weight` for each
    backbone that is shown.
    """
    return nullcontext(lambda _: None) if path is None else _csv_file(path, form)


@contextmanager
def _csv_file(path: Path, form: Form) -> Iterator[Write]:
    names = ["file", "class", "probability", "runner_up", "runner_up_probability"]
    names += [] if form.unsure is None else ["look"]
    names += ["balanced"] if form.balanced else []
    names += ["gflops"] if form.costs else []
    names += [f"{b} {what}" for b in form.backbones for what in ("answer", "weight")]
    with ExitStack() as stack:
        with writing("--csv", path):
            table = csv.DictWriter(stack.enter_context(_opened(path)), names, lineterminator="\n")
            table.writeheader()

        def add(block: Sequence["Prediction"]) -> None:
            with writing("--csv", path):
                table.writerows(map(spelled, block))

        def spelled(one: "Prediction") -> dict[str, Any]:
            fields = form.fields(one)
            for name in fields.keys() & {"look", "balanced"}:
                fields[name] = str(fields[name]).lower()
            for backbone, opinion in fields.pop("backbones", {}).items():
                fields |= {f"{backbone} {what}": value for what, value in opinion.items()}
            return fields

        yield add
        with writing("--csv", path):
            stack.pop_all().close()


@contextmanager
def _opened(path: Path) -> Iterator[IO[str]]:
    how: dict[str, Any] = {"encoding": "utf-8", "errors": "surrogateescape", "newline": ""}
    if path.exists() and not path.is_file():  # a pipe or a device
        with path.open("w", **how) as file:
            yield file
    else:
        with replacing(path.resolve()) as partial, partial.open("w", **how) as file:
            yield file
