"""`status` and `verify`: what a store holds."""

from pathlib import Path

import typer

from clipnlc.cli.options import DEFAULT_STORE, AsJson, Store, existing
from clipnlc.cli.output import Sayer, count, print_json, print_table, progress
from clipnlc.errors import StoreError


def status(store: Store = DEFAULT_STORE, as_json: AsJson = False) -> None:
    """List what a store holds.

    Rows, size, whether it is complete, and whether it is stale and why.

    Example: clipnlc status --store clipnlc-store
    """
    from clipnlc.stores.status import store_status

    rows = store_status(existing(store))
    if as_json:
        print_json(rows)
        return
    from rich.table import Table

    table = Table(title=f"{store}: {count(len(rows), 'file')}", title_justify="left", box=None)
    for column in ("file", "rows", "kB", "state"):
        table.add_column(column, justify="right" if column in ("rows", "kB") else "left")
    for row in rows:
        state = "complete" if row.complete else "incomplete"
        state = f"stale: {row.why}" if row.stale else f"{state}{': ' * bool(row.why)}{row.why}"
        size = f"{row.bytes / 1000:.0f}"
        table.add_row(row.path, "" if row.rows is None else str(row.rows), size, state)
    print_table(table)


def verify(store: Store = DEFAULT_STORE, as_json: AsJson = False) -> None:
    """Report the damage in a store, file by file.

    Reads every byte. Exit code 2 if there is any damage.

    Example: clipnlc verify --store clipnlc-store
    """
    from clipnlc.stores.verify import verify_store

    checked = 0
    say = Sayer(quiet=as_json)
    with progress(say, "verify") as advance:

        def on_file(path: Path, done: int, total: int) -> None:
            nonlocal checked
            checked = total
            advance(path.name, done, total, "")

        damage = verify_store(existing(store), on_file)
    if as_json:
        print_json([{"path": str(d.path), "problem": d.problem} for d in damage])
    else:
        for found in damage:
            typer.echo(found.problem)
        if not damage:
            typer.echo(f"{count(checked, 'file')} read, no damage")
    if damage:
        raise StoreError(
            f"{len(damage)} of {count(checked, 'file')} in {store} damaged, first "
            f"{damage[0].path}; delete what is damaged and run its stage again"
        )
