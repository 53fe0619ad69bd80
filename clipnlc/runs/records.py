"""Where the records of evaluations and diversities lie, and reading those that lie there."""

import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from clipnlc.errors import StoreError
from clipnlc.reports.files import (
    AGAINST,
    CROSS_FIT,
    Record,
    comparison_from_json,
    cross_fit_from_json,
    delete_and_run,
    diversity_from_json,
    evaluation_from_json,
    kept_digest,
    record_bytes,
    save,
)
from clipnlc.reports.record import Comparison, CrossFit, DiversityReport, Evaluation
from clipnlc.runs.members import members_name
from clipnlc.stores.disk import disk_errors
from clipnlc.stores.layout import Layout, as_part, from_part


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


def comparison_path(
    layout: Layout,
    head: str,
    members: str,
    against: str,
    *,
    dataset: str | None = None,
    fitted_on: str | None = None,
) -> Path:
    """Return where `evaluate --against` leaves what it compared.

    >>> comparison_path(Layout(Path("store")), "zero-shot", "nano", "nlc").as_posix()
    'store/compare-zero-shot-nano-against-nlc.json'
    """
    on = f"-on-{as_part(fitted_on)}" if fitted_on else ""
    stem = f"compare-{as_part(head)}-{as_part(members)}{on}{AGAINST}{as_part(against)}"
    return _folder(layout, dataset) / f"{stem}.json"


def cross_fit_path(
    layout: Layout, head: str, members: str, combiner: str, run: str, *, dataset: str
) -> Path:
    """Return where the accuracy of one fit on its own labels is left.

    >>> where = cross_fit_path(
    ...     Layout(Path("store")), "zero-shot", "nano", "gp", "all-labels-seed-0", dataset="own"
    ... )
    >>> where.as_posix()
    'store/own/records/cross-fit-zero-shot-nano-all-labels-seed-0-of-gp.json'
    """
    stem = f"{CROSS_FIT}{as_part(head)}-{as_part(members)}-{as_part(run)}-of-{as_part(combiner)}"
    return _folder(layout, dataset) / f"{stem}.json"


KEPT: Final = re.compile(r"\.([0-9a-f]{8})$")
"""The end of the stem of an older record, which was kept beside a newer one."""


def read_evaluation(layout: Layout, path: Path) -> Evaluation:
    """Read and check the record of an evaluation, which is the one that belongs there.

    Raises:
        StoreError: it cannot be read, is no such record, an altered one, or one of a newer clipnlc;
            or it is of another head, ensemble or data set.
    """
    record = evaluation_from_json(record_bytes(path), where=str(path))
    on = f"-on-{as_part(record.fitted_on)}" if record.fitted_on else ""
    _check_place(layout, path, "evaluate", record, on)
    return record


def read_diversity(layout: Layout, path: Path) -> DiversityReport:
    """Read and check the record of diversity, which is the one that belongs there.

    Raises:
        StoreError: as `read_evaluation`.
    """
    record = diversity_from_json(record_bytes(path), where=str(path))
    _check_place(layout, path, "diversity", record)
    return record


def read_comparison(layout: Layout, path: Path) -> Comparison:
    """Read and check the record of a comparison, which is the one that belongs there.

    Raises:
        StoreError: as `read_evaluation`.
    """
    record = comparison_from_json(record_bytes(path), where=str(path))
    on = f"-on-{as_part(record.fitted_on)}" if record.fitted_on else ""
    _check_place(layout, path, "compare", record, f"{on}{AGAINST}{as_part(record.against)}")
    return record


def read_cross_fit(layout: Layout, path: Path) -> CrossFit:
    """Read and check the record of a cross-fitted accuracy, which is the one that belongs there.

    Raises:
        StoreError: as `read_evaluation`.
    """
    record = cross_fit_from_json(record_bytes(path), where=str(path))
    own = cross_fit_path(
        layout,
        record.head,
        members_name(record.backbones),
        record.combiner,
        record.run,
        dataset=record.dataset,
    )
    if path.parent != own.parent or own.stem not in (path.stem, KEPT.sub("", path.stem)):
        raise StoreError(
            f"{path} is misplaced: it is the record {own.stem} of {record.dataset}; "
            f"{delete_and_run(str(path))}"
        )
    return record


def save_record(layout: Layout, path: Path, record: Record) -> None:
    """Write a record to its place; another one that is there, and belongs there, is kept beside it.

    Raises:
        StoreError: what is there is no record of this place, or the disk refuses.
    """
    if os.path.lexists(path):
        _reader(path)(layout, path)
    with disk_errors(path):
        save(path, record)


READERS: Final[Mapping[str, Callable[[Layout, Path], object]]] = {
    "evaluate-": read_evaluation,
    "diversity-": read_diversity,
    "compare-": read_comparison,
    CROSS_FIT: read_cross_fit,
}


def _reader(path: Path) -> Callable[[Layout, Path], object]:
    return next(read for start, read in READERS.items() if path.name.startswith(start))


def is_record(path: Path) -> bool:
    """Return, from its name, whether a file is a record."""
    return path.suffix == ".json" and path.name.startswith(tuple(READERS))


def verify_record(layout: Layout, path: Path) -> str | None:
    """Check the record in a file; return why that cannot be done, None where it was.

    An older record, which was kept beside a newer one, also has a digest in its name.

    Raises:
        StoreError: it cannot be read, was altered, is misplaced, or is no record of the stage that
            its name tells.
    """
    _reader(path)(layout, path)
    data, kept = record_bytes(path), KEPT.search(path.stem)
    if kept is not None and kept[1] != kept_digest(data):
        raise StoreError(
            f"{path} was altered: it does not match the digest in its name; delete it: it is an "
            "older record, which nothing else needs"
        )
    if kept is not None or "digest" in json.loads(data):
        return None
    return "a record of before records carried a digest"


def _check_place(
    layout: Layout,
    path: Path,
    stage: str,
    record: Evaluation | DiversityReport | Comparison,
    on: str = "",
) -> None:
    """Check that a record is of the head, the ensemble and the data sets of its place.

    Raises:
        StoreError: it is not.
    """
    first = f"{stage}-{as_part(record.head)}"  # in the first versions the ensemble was not named
    own = f"{first}-{as_part(members_name(record.backbones))}{on}"
    stem = path.stem if path.stem in (first, own) else KEPT.sub("", path.stem)
    datasets = [one.dataset for one in record.datasets]
    if stem not in (first, own):
        problem = f"is the record {own}, expected {stem}"
    elif path.parent != layout.root and [as_part(d) for d in datasets] != [path.parts[-3]]:
        problem = f"is of {', '.join(datasets)}, expected {from_part(path.parts[-3])}"
    elif path.parent == layout.root and len(datasets) == 1 and stem == own:
        problem = f"is of {datasets[0]} alone, expected several data sets"
    else:
        return
    raise StoreError(f"{path} is misplaced: it {problem}; {delete_and_run(str(path))}")


def _folder(layout: Layout, dataset: str | None) -> Path:
    return layout.root if dataset is None else layout.records(dataset)
