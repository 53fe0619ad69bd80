"""`backbones` and `datasets`: what there is to choose from."""

from typing import Annotated

import typer

from clipnlc.cli.options import AsJson
from clipnlc.cli.output import print_json, print_table


def backbones(
    names: Annotated[
        str, typer.Argument(help="Names or groups; the embedded and the OpenAI ones if empty.")
    ] = "nano,all",
    as_json: AsJson = False,
) -> None:
    """List backbones, their groups and sizes.

    Width of the embedding, side of the input, parameters, whether the weights are at hand.

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
            "at hand" if row.at_hand else "to download",
        )
    print_table(table)


def datasets(as_json: AsJson = False) -> None:
    """List the data sets that need no path.

    Classes, images to learn from and to be measured on, what they show; the licence with --json.

    Example: clipnlc datasets
    """
    from clipnlc.datasets.catalogue import catalogue

    rows = catalogue()
    if as_json:
        print_json(rows)
        return
    from rich.table import Table

    table = Table(box=None)
    for column in ("dataset", "classes", "train", "test", "kind", "what it shows"):
        right = column in ("classes", "train", "test")
        table.add_column(column, justify="right" if right else "left")
    for row in rows:
        counts = (str(row.classes), str(row.train), str(row.test))
        table.add_row(row.key, *counts, row.kind, row.note)
    print_table(table)
