"""Where the records of evaluations and diversities lie."""

from pathlib import Path

from clipnlc.stores.layout import Layout, as_part


def evaluation_path(
    layout: Layout,
    head: str,
    members: str,
    *,
    dataset: str | None = None,
    fitted_on: str | None = None,
) -> Path:
    """Return where `evaluate` leaves the record of one data set, or of several together.

    Each ensemble has a record of its own, and so has each data set whose fits are applied.

    >>> evaluation_path(Layout(Path("store")), "zero-shot", "nano", dataset="cub").as_posix()
    'store/cub/records/evaluate-zero-shot-nano.json'
    """
    on = f"-on-{as_part(fitted_on)}" if fitted_on else ""
    return _folder(layout, dataset) / f"evaluate-{as_part(head)}-{as_part(members)}{on}.json"


def diversity_path(layout: Layout, head: str, members: str, *, dataset: str | None = None) -> Path:
    """Return where `diversity` leaves the record of one data set, or of several together."""
    return _folder(layout, dataset) / f"diversity-{as_part(head)}-{as_part(members)}.json"


def _folder(layout: Layout, dataset: str | None) -> Path:
    return layout.root if dataset is None else layout.records(dataset)
