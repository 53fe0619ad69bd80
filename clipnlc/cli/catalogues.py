"""`backbones`, `combiners` and `datasets`: what there is to choose from."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Final

import typer

from clipnlc.cli.options import AsJson, listed
from clipnlc.cli.output import print_json, print_table

if TYPE_CHECKING:
    from clipnlc.backbones.catalogue import FamilyEntry


_SIZES: Final = ("groups", "embedding", "input", "parameters")


def backbones(
    names: Annotated[
        str,
        typer.Argument(
            help="Names, groups, or parts of names; the families, the embedded and the OpenAI ones "
            "if empty. With --families, those to list; all if empty."
        ),
    ] = "",
    families: Annotated[bool, typer.Option(help="List the families alone.")] = False,
    as_json: AsJson = False,
) -> None:
    """List families of backbones, and backbones by part of a name.

    What a family needs; width of the embedding, side of the input, parameters (for names in full), whether there is a
    text tower, whether the weights are on disk.

    Example: clipnlc backbones siglip
    """
    from clipnlc.backbones.catalogue import catalogue
    from clipnlc.backbones.catalogue import families as all_families

    if families or not (names or as_json):
        kinds = all_families(listed(names) if families else ())
        if as_json:
            print_json(kinds)
        else:
            _print_families(kinds)
        if families:
            return
    rows = catalogue(names or "nano,all")
    if as_json:
        print_json(rows)
        return
    from rich.table import Table

    sizes = any(row.dim is not None for row in rows)  # else room is left for long names
    table = Table(box=None)
    for column in ("backbone", *_SIZES * sizes, "texts", "weights"):
        left = column in ("backbone", "groups")
        table.add_column(column, justify="left" if left else "right", no_wrap=column == "backbone")
    for row in rows:
        described = (
            " ".join(row.groups),
            "" if row.dim is None else str(row.dim),
            "" if row.input is None else f"{row.input} px",
            "" if row.parameters is None else f"{row.parameters / 1e6:.2f} M",
        )
        table.add_row(
            row.name,
            *described * sizes,
            "yes" if row.texts else "no",
            "on disk" if row.at_hand else "to download",
        )
    print_table(table)


def _print_families(rows: "Sequence[FamilyEntry]") -> None:
    from rich.table import Table

    table = Table(box=None)
    for column in ("family", "installed", "names", "texts", "what it is", "what it needs"):
        table.add_column(column, justify="right" if column == "names" else "left")
    for row in rows:
        table.add_row(
            row.name,
            row.release or "no",
            str(row.known),
            "yes" if row.texts else "no",
            row.meaning + f" (of {row.package})" * bool(row.package),
            row.needs,
        )
    print_table(table)


def combiners(
    names: Annotated[str, typer.Argument(help="Names or groups; all if empty.")] = "all",
    as_json: AsJson = False,
) -> None:
    """List combiners, and what each of them means.

    What it learns from: nothing, labels, unlabelled images of train, or the test images themselves;
    and what its default settings were selected on, groups and more with --json.

    Example: clipnlc combiners controls
    """
    from clipnlc.combiners.catalogue import catalogue

    rows = catalogue(names)
    if as_json:
        print_json(rows)
        return
    from rich.table import Table

    table = Table(box=None)
    for column in ("combiner", "learns from", "meaning"):
        table.add_column(column)
    for row in rows:
        labels = {"no": [], "yes": ["labels"], "optional": ["labels if any"]}[row.labels]
        learns = labels + ["unlabelled images"] * row.unlabelled
        learns += ["the test images"] * row.reads_test
        meaning = row.meaning + f" (of {row.package})" * bool(row.package)
        table.add_row(row.name, ", ".join(learns) or "nothing", meaning)
    print_table(table)


def datasets(
    group: Annotated[
        str,
        typer.Argument(
            help="Groups, comma-separated: nano, all (the paper's), ood, plugins (of other packages)."
        ),
    ] = "nano,all,ood,plugins",
    as_json: AsJson = False,
) -> None:
    """List the data sets that need no path.

    Classes, images to learn from and to be measured on, where they come from, what is on disk. A
    `*` marks a source whose terms must be accepted first; what is shown, and notes, with --json.

    Example: clipnlc datasets all
    """
    from clipnlc.datasets import GROUPS
    from clipnlc.datasets.catalogue import catalogue
    from clipnlc.plugins import GROUP as PLUGINS
    from clipnlc.registry import unknown_name

    asked = listed(group)
    for name in asked:
        if name not in (*GROUPS, PLUGINS):
            raise unknown_name("group", name, (*GROUPS, PLUGINS))
    rows = [row for row in catalogue() if row.group in asked]
    if as_json:
        print_json(rows)
        return
    from rich.table import Table

    table = Table(box=None)
    for column in ("dataset", "group", "classes", "train", "test", "on disk", "source", "licence"):
        right = column in ("classes", "train", "test")
        table.add_column(column, justify="right" if right else "left")
    for row in rows:
        sizes = (
            "?" if rows is None else str(rows) if rows else "" for rows in (row.train, row.test)
        )
        source = row.source.split("@")[0] + "*" * row.gated
        at_hand = " ".join(row.at_hand) or ("?" if row.group == PLUGINS else "no")
        classes = "?" if row.classes is None else str(row.classes)
        table.add_row(row.key, row.group, classes, *sizes, at_hand, source, row.licence)
    print_table(table)
