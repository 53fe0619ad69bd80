"""Records as JSON files (`docs/formats/record.md`): written, checked and read back.

A record carries a digest of all it says: one that was altered is refused. Records of older versions
are read as today's.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

from clipnlc.commands import command
from clipnlc.digests import matches_digest, read_exactly, with_digest
from clipnlc.errors import DataError, StoreError
from clipnlc.files import read_regular, reason, write_whole
from clipnlc.labels import Labels
from clipnlc.measures import Bounds
from clipnlc.reports.older import todays_diversity, todays_evaluation
from clipnlc.reports.record import (
    BEST_SINGLE,
    ORACLE,
    Compared,
    Comparison,
    CrossFit,
    Diversity,
    DiversityReport,
    Evaluation,
    Published,
    Row,
    Source,
)
from clipnlc.reports.typed import typed

EVALUATION_FORMAT = "clipnlc-evaluation"
DIVERSITY_FORMAT = "clipnlc-diversity"
COMPARISON_FORMAT = "clipnlc-comparison"
CROSS_FIT_FORMAT = "clipnlc-cross-fit"
VERSIONS = {EVALUATION_FORMAT: 5, DIVERSITY_FORMAT: 2, COMPARISON_FORMAT: 1, CROSS_FIT_FORMAT: 1}
DIGEST_SINCE = {
    EVALUATION_FORMAT: 3,
    DIVERSITY_FORMAT: 2,
    COMPARISON_FORMAT: 1,
    CROSS_FIT_FORMAT: 1,
}
"""The first versions whose records carry a digest."""

LARGEST_RECORD: Final = 32 * 2**20
"""Bytes; one of thirty data sets takes a tenth."""

AGAINST: Final = "-against-"
"""Before the method, in the name of a comparison's file."""

CROSS_FIT: Final = "cross-fit-"
"""How the name of a cross-fitted accuracy's file begins."""

SHARE: Bounds = (0.0, 1.0)
DIFFERENCE: Bounds = (-1.0, 1.0)
ROUNDING = 1e-9
"""How far a value may lie outside its bounds."""


Record = Evaluation | DiversityReport | Comparison | CrossFit

FORMATS: Mapping[type, str] = {
    Evaluation: EVALUATION_FORMAT,
    DiversityReport: DIVERSITY_FORMAT,
    Comparison: COMPARISON_FORMAT,
    CrossFit: CROSS_FIT_FORMAT,
}


def to_json(record: Record) -> str:
    """Write a record as the one JSON text it has.

    Raises:
        ValueError: a number is NaN or infinite.
    """
    name = FORMATS[type(record)]
    tree = with_digest({"format": name, "format-version": VERSIONS[name], **_plain(record)})
    return json.dumps(tree, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def evaluation_from_json(text: str | bytes, *, where: str) -> Evaluation:
    """Read back what `to_json` wrote of an evaluation; `where` names the text in errors.

    Raises:
        StoreError: the text is no evaluation record, an altered one, or one of a newer clipnlc.
    """
    record = _read(text, EVALUATION_FORMAT, Evaluation, where)
    assert isinstance(record, Evaluation)
    return record


def diversity_from_json(text: str | bytes, *, where: str) -> DiversityReport:
    """Read back what `to_json` wrote of a diversity report; `where` names the text in errors.

    Raises:
        StoreError: the text is no diversity record, an altered one, or one of a newer clipnlc.
    """
    record = _read(text, DIVERSITY_FORMAT, DiversityReport, where)
    assert isinstance(record, DiversityReport)
    return record


def comparison_from_json(text: str | bytes, *, where: str) -> Comparison:
    """Read back what `to_json` wrote of a comparison; `where` names the text in errors.

    Raises:
        StoreError: the text is no comparison record, an altered one, or one of a newer clipnlc.
    """
    record = _read(text, COMPARISON_FORMAT, Comparison, where)
    assert isinstance(record, Comparison)
    return record


def cross_fit_from_json(text: str | bytes, *, where: str) -> CrossFit:
    """Read back what `to_json` wrote of a cross-fitted accuracy; `where` names the text in errors.

    Raises:
        StoreError: the text is no such record, an altered one, or one of a newer clipnlc.
    """
    record = _read(text, CROSS_FIT_FORMAT, CrossFit, where)
    assert isinstance(record, CrossFit)
    return record


def record_bytes(path: Path) -> bytes:
    """Read the file of a record.

    Raises:
        StoreError: it is no regular file, is too large, or cannot be read.
    """
    try:
        return read_regular(path, at_most=LARGEST_RECORD)
    except OSError as error:
        raise StoreError(
            f"cannot read {path}: {reason(error, path)}; fix its permissions, or delete it and run "
            f"`{_maker(str(path))}` again"
        ) from error


def delete_and_run(where: str) -> str:
    """Spell what to do about a record at this place that cannot be used."""
    return f"delete it and run `{_maker(where)}` again"


def _read(text: str | bytes, name: str, kind: type, where: str) -> Record:
    again, newest = delete_and_run(where), VERSIONS[name]
    try:
        tree = json.loads(text)
        found, version = tree["format"], tree["format-version"]
        if found == name and version > newest:
            raise StoreError(
                f"{where} has format-version {version}, this clipnlc reads up to {newest}: "
                "update clipnlc"
            )
        if found != name or version < 1:
            raise StoreError(
                f"{where} has format {found!r} version {version!r}, expected "
                f"{name!r} version 1 to {newest}; {again}"
            )
        if ("digest" in tree or version >= DIGEST_SINCE[name]) and not _is_unaltered(text):
            raise StoreError(f"{where} was altered: it does not match its digest; {again}")
        envelope = ("format", "format-version", "digest")
        said = {n: value for n, value in tree.items() if n not in envelope}
        record: Record = typed(kind, said if version == newest else TODAYS[name](said))
        CHECKS[name](record)
        to_json(record).encode()  # every text in it is text
    except (
        *(KeyError, TypeError, AttributeError, ValueError, OverflowError, RecursionError),
        DataError,
    ) as error:
        what = name.removeprefix("clipnlc-")
        problem = f"it lacks {error}" if isinstance(error, KeyError) else error
        raise StoreError(f"{where} is no {what} record ({problem}); {again}") from error
    else:
        return record


def _maker(where: str) -> str:
    """Spell the command that makes the record at this place; those of one data set lie deeper."""
    name, folder = Path(where).name, Path(where).parent
    stage = "diversity" if name.startswith("diversity") else "evaluate"
    method = re.sub(r"(\.[0-9a-f]{8})?\.json$", "", name.rpartition(AGAINST)[2])
    against = unquote(method) if AGAINST in name else None
    if name.startswith(CROSS_FIT):
        return command("run PHOTOS", labels="labels.csv", store=folder.parent.parent)
    if folder.name == "records":
        dataset, store = unquote(folder.parent.name), folder.parent.parent
        return command(stage, dataset=dataset, against=against, store=store)
    return command(stage, against=against, store=folder)


def _is_unaltered(text: str | bytes) -> bool:
    """Return whether a record says, digit by digit, what its digest was made of."""
    try:
        return matches_digest(read_exactly(text))
    except ValueError:
        return False


def save(path: Path, record: Record) -> None:
    """Write a record to `path`; another one that is there is kept beside it.

    The older record moves to `<stem>.<8 digits of its digest>.json`. A file with the same bytes is
    left alone.

    Raises:
        StoreError: what is there is no regular file.
        OSError: the disk refuses.
    """
    data = to_json(record).encode()
    if os.path.lexists(path):
        old = record_bytes(path)
        if old == data:
            return
        # A copy first: on a full disk the old record is still under its own name.
        write_whole(path.with_name(f"{path.stem}.{kept_digest(old)}.json"), old)
    write_whole(path, data)


def kept_digest(data: bytes) -> str:
    """Return the 8 hexadecimal digits in the name under which `save` keeps an older record."""
    return hashlib.blake2b(data, digest_size=4).hexdigest()


TODAYS = {EVALUATION_FORMAT: todays_evaluation, DIVERSITY_FORMAT: todays_diversity}


def _plain(value: object) -> Any:  # noqa: ANN401  (any JSON)
    """Turn a value of a record into JSON; `Labels` without the seed."""
    if isinstance(value, Labels):
        return {"kind": value.kind, "amount": value.amount}
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {name: _plain(member) for name, member in value.items()}
    if isinstance(value, tuple):
        return [_plain(member) for member in value]
    return value


# Reading: what the types alone do not say ------------------------------------------------------------


def _check_evaluation(record: Evaluation) -> None:
    _check_backbones(record.backbones)
    for row in record.summary:
        _check_row(row, record)
    for one in record.datasets:
        _check_number(f"samples of {one.dataset}", float(one.samples), (1.0, None))
        _check_number(f"classes of {one.dataset}", float(one.classes), (1.0, None))
        _check_sources(one.sources)
        for row in one.rows:
            _check_row(row, record)
        if one.best_single not in record.backbones:
            raise ValueError(f"the best backbone of {one.dataset} is {one.best_single!r}")
        for beside in one.published:
            _check_published(beside)


def _check_row(row: Row, record: Evaluation) -> None:
    which = f"{row.method} {row.drawn.phrase}"
    known = {"backbone": record.backbones, "reference": (BEST_SINGLE, ORACLE)}
    own = next((kind for kind, names in known.items() if row.method in names), None)
    if row.kind != own and (own or row.kind in known):
        raise ValueError(f"{which} is of the kind {row.kind!r}, expected {own or 'method'}")
    if row.measures.keys() != record.measures.keys():
        raise ValueError(
            f"{which} has the measures {', '.join(row.measures)}; expected "
            f"{', '.join(record.measures)}"
        )
    if len(set(row.seeds)) != len(row.accuracies) or not row.seeds:
        raise ValueError(f"{which} has {len(row.accuracies)} accuracies of seeds {row.seeds}")
    for number in (*row.seeds, row.labels, row.unlabelled):
        _check_number(f"{which}: a seed or number of samples", float(number), (0.0, None))
    _check_known(f"{which}: shared", row.shared, SHARE)
    if not set(row.level) <= record.measures.keys():
        raise ValueError(f"{which} is level in {', '.join(row.level)}, which are no measures")
    for value in (row.accuracy, *row.accuracies):
        _check_number(f"{which}: accuracy", value, SHARE)
    for low, high in ((row.low, row.high), (row.gain_low, row.gain_high)):
        _check_interval(which, low, high)
    _check_number(f"{which}: gain", row.gain, DIFFERENCE)
    for name, its in record.measures.items():
        _check_known(f"{which}: {name}", row.measures[name], its.bounds)


def _check_interval(which: str, low: float | None, high: float | None) -> None:
    if (low is None) != (high is None):
        raise ValueError(f"{which} has half an interval")
    if low is not None and high is not None:
        _check_number(f"{which}: high", high, (low, None))


def _check_published(beside: Published) -> None:
    which = f"published of {beside.backbone}"
    for value in (beside.ours, beside.published):
        _check_number(f"{which}: accuracy", value, SHARE)
    _check_number(f"{which}: difference", beside.difference, DIFFERENCE)
    _check_number(f"{which}: samples", float(beside.published_samples), (1.0, None))


def _check_comparison(record: Comparison) -> None:
    _check_backbones(record.backbones)
    for compared in record.summary:
        _check_compared(compared)
    for one in record.datasets:
        _check_number(f"samples of {one.dataset}", float(one.samples), (1.0, None))
        _check_sources(one.sources)
        for compared in one.rows:
            _check_compared(compared)


def _check_compared(row: Compared) -> None:
    which = f"{row.method} {row.column.phrase}"
    _check_number(f"{which}: difference", row.difference, DIFFERENCE)
    _check_interval(which, row.low, row.high)
    for p in (*row.mcnemar, row.signed_rank, row.holm):
        _check_known(f"{which}: a p-value", p, SHARE)


def _check_cross_fit(record: CrossFit) -> None:
    _check_backbones(record.backbones)
    Labels.parse(record.run)
    for what, number, least in (
        ("labels", record.count, 2.0),
        ("folds", record.folds, 2.0),
        ("other images", record.others, 0.0),
        *(("labels", one.labels, 0.0) for one in record.fewer),
    ):
        _check_number(what, float(number), (least, None))
    for value in (record.accuracy, record.low, record.high, *(f.accuracy for f in record.fewer)):
        _check_number("an accuracy", value, SHARE)
    _check_interval(record.combiner, record.low, record.high)


def _check_diversity(record: DiversityReport) -> None:
    _check_backbones(record.backbones)
    for one in (*record.datasets, record.mean):
        _check_one_diversity(one, record)
    for correlation in record.correlations:
        _check_known("rho", correlation.rho, DIFFERENCE)
        _check_known("p", correlation.p, SHARE)
        _check_number("ranked data sets", float(correlation.datasets), (1.0, None))


def _check_one_diversity(one: Diversity, record: DiversityReport) -> None:
    facts, backbones = record.measures, len(record.backbones)
    if one.matrices.keys() != facts.keys() or one.pair_means.keys() != facts.keys():
        raise ValueError(f"{one.dataset} has other measures than {', '.join(facts)}")
    if len(one.accuracies) != backbones:
        raise ValueError(f"{one.dataset} has {len(one.accuracies)} accuracies of {backbones}")
    _check_number(f"samples of {one.dataset}", float(one.samples), (1.0, None))
    _check_sources(one.sources)
    for name, its in facts.items():
        matrix = one.matrices[name]
        if [len(row) for row in matrix] != [backbones] * backbones:
            raise ValueError(f"{one.dataset}: {name} is not of {backbones} backbones")
        for value in (one.pair_means[name], *(value for row in matrix for value in row)):
            _check_known(f"{one.dataset}: {name}", value, its.bounds)
    for value in (*one.accuracies, one.oracle, one.best_single, one.right_for_some):
        _check_number(f"{one.dataset}: a share of samples", value, SHARE)


def _check_backbones(names: Sequence[str]) -> None:
    if not names or len(set(names)) != len(names) or not all(names):
        raise ValueError(f"backbones are {', '.join(names) or 'none'}, expected one or more, once")


def _check_sources(sources: Sequence[Source]) -> None:
    for source in sources:
        _check_number(f"rows of {source.path}", float(source.rows), (0.0, None))
        if "/" not in source.path:
            raise ValueError(f"{source.path!r} is no file of a data set")


def _check_number(what: str, value: float, bounds: Bounds) -> None:
    low, high = bounds
    if (low is not None and value < low - ROUNDING) or (
        high is not None and value > high + ROUNDING
    ):
        raise ValueError(f"{what} is {value:g}, expected a number {_spelled(bounds)}")


def _check_known(what: str, value: float | None, bounds: Bounds) -> None:
    """Check a value that may be undefined."""
    if value is not None:
        _check_number(what, value, bounds)


def _spelled(bounds: Bounds) -> str:
    low, high = bounds
    parts = (f"from {low:g}" if low is not None else "", f"to {high:g}" if high is not None else "")
    return " ".join(part for part in parts if part)


CHECKS: Mapping[str, Callable[[Any], None]] = {
    EVALUATION_FORMAT: _check_evaluation,
    DIVERSITY_FORMAT: _check_diversity,
    COMPARISON_FORMAT: _check_comparison,
    CROSS_FIT_FORMAT: _check_cross_fit,
}
