"""`status` and `verify`: what a store holds."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from clipnlc.cli.options import AsJson, Store, existing
from clipnlc.cli.output import Sayer, echo, print_json, print_table, progress
from clipnlc.commands import DEFAULT_STORE
from clipnlc.errors import StoreError
from clipnlc.wording import count

if TYPE_CHECKING:
    from clipnlc.stages.verify import Unverified

NAMED = 5  # of the files that cannot be checked; --json names them all


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

    Reads every byte, and names the files that carry nothing to be checked by.
    Exit code 2 if there is any damage.

    Example: clipnlc verify --store clipnlc-store
    """
    from clipnlc.stages.verify import verify as stage

    say = Sayer(quiet=as_json)
    with progress(say, "verify") as advance:

        def on_file(path: Path, done: int, total: int) -> None:
            advance(path.name, done, total, "")

        files, damage, unverified = stage(store=existing(store), on_file=on_file)
    if as_json:
        print_json(
            {
                "files": files,
                "damage": [one._asdict() for one in damage],
                "not_verifiable": [one._asdict() for one in unverified],
            }
        )
    else:
        for found in damage:
            echo(found.problem)
        told = f"{count(files, 'file')} read, {len(damage) or 'no'} damage{'d' * bool(damage)}"
        echo("; ".join([told, *_not_verifiable(unverified, store)]))
    if damage:
        raise StoreError(
            f"{len(damage)} of {count(files, 'file')} in {store} damaged, first "
            f"{damage[0].path}; delete what is damaged and run its stage again"
        )


def _not_verifiable(unverified: "Sequence[Unverified]", store: Path) -> Iterator[str]:
    """Name the first few files that cannot be checked, if there are any."""
    if not unverified:
        return
    named = [f"{one.path.relative_to(store)} ({one.why})" for one in unverified[:NAMED]]
    if len(unverified) > NAMED:
        named.append(f"and {len(unverified) - NAMED} more, see --json")
    yield f"{len(unverified)} not verifiable: {', '.join(named)}"
