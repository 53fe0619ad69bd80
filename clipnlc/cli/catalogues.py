"""`backbones`, `combiners` and `datasets`: what there is to choose from."""

from typing import Annotated

import typer

from clipnlc.cli.options import AsJson, listed
from clipnlc.cli.output import print_json, print_table


def backbones(
    names: Annotated[
        str, typer.Argument(help="Names or groups; the embedded and the OpenAI ones if empty.")
    ] = "nano,all",
    as_json: AsJson = False,
) -> None:
    """List backbones, their groups and sizes.

    Width of the embedding, side of the input, parameters, whether the weights are on disk.

    Example: clipnlc backbones nano
    """
    from clipnlc.backbones.catalogue import catalogue

    rows = catalogue(names)
    if as_json:
        print_json(rows)
        return
    from rich.table import Table

    table = Table(box=None)
    for column in ("backbone", "groups", "embedding", "input", "parameters", "weights"):
        table.add_column(column, justify="left" if column in ("backbone", "groups") else "right")
    for row in rows:
        table.add_row(
            row.name,
            " ".join(row.groups),
            str(row.dim),
            f"{row.input} px",
            f"{row.parameters / 1e6:.2f} M",
            "on disk" if row.at_hand else "to download",
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
