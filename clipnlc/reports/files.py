"""Records as JSON files (`docs/formats/record.md`): written, checked and read back.

A record carries a digest of all it says: one that was altered is refused. Records of older versions
are read as today's.
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args
from urllib.parse import unquote

from clipnlc.commands import command
from clipnlc.digests import matches_digest, read_exactly, with_digest
from clipnlc.errors import DataError, StoreError
from clipnlc.files import write_whole
from clipnlc.labels import KINDS, Labels
from clipnlc.measures import Bounds, Direction, Facts, Unit
from clipnlc.reports.older import todays_diversity, todays_evaluation
from clipnlc.reports.record import (
    Correlation,
    DatasetEvaluation,
    Diversity,
    DiversityReport,
    Evaluation,
    Kind,
    Published,
    Row,
    Source,
)

EVALUATION_FORMAT = "clipnlc-evaluation"
DIVERSITY_FORMAT = "clipnlc-diversity"
VERSIONS = {EVALUATION_FORMAT: 3, DIVERSITY_FORMAT: 2}
DIGEST_SINCE = {EVALUATION_FORMAT: 3, DIVERSITY_FORMAT: 2}
"""The first versions whose records carry a digest."""

MAKERS = {EVALUATION_FORMAT: "evaluate", DIVERSITY_FORMAT: "diversity"}

SHARE: Bounds = (0.0, 1.0)
DIFFERENCE: Bounds = (-1.0, 1.0)
ROUNDING = 1e-9
"""How far a value may lie outside its bounds."""

T = TypeVar("T")


def to_json(record: Evaluation | DiversityReport) -> str:
    """Write a record as the one JSON text it has.

    Raises:
        ValueError: a number is NaN or infinite.
    """
    name = EVALUATION_FORMAT if isinstance(record, Evaluation) else DIVERSITY_FORMAT
    tree = with_digest({"format": name, "format-version": VERSIONS[name], **_plain(record)})
    return json.dumps(tree, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def evaluation_from_json(text: str | bytes, *, where: str) -> Evaluation:
    """Read back what `to_json` wrote of an evaluation; `where` names the text in errors.

    Raises:
        StoreError: the text is no evaluation record, an altered one, or one of a newer clipnlc.
    """
    return _read(text, EVALUATION_FORMAT, _evaluation, where)


def diversity_from_json(text: str | bytes, *, where: str) -> DiversityReport:
    """Read back what `to_json` wrote of a diversity report; `where` names the text in errors.

    Raises:
        StoreError: the text is no diversity record, an altered one, or one of a newer clipnlc.
    """
    return _read(text, DIVERSITY_FORMAT, _diversity_report, where)


def _read(text: str | bytes, name: str, build: Callable[[dict[str, Any]], T], where: str) -> T:
    again = f"delete it and run `{_maker(where, name)}` again"
    newest = VERSIONS[name]
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
        return build(said if version == newest else TODAYS[name](said))
    except (
        *(KeyError, TypeError, AttributeError, ValueError, OverflowError, RecursionError),
        DataError,
    ) as error:
        kind = name.removeprefix("clipnlc-")
        raise StoreError(f"{where} is no {kind} record ({error}); {again}") from error


def _maker(where: str, name: str) -> str:
    """Spell the command that makes the record at this place; those of one data set lie deeper."""
    folder = Path(where).parent
    if folder.name == "records":
        dataset, store = unquote(folder.parent.name), folder.parent.parent
        return command(MAKERS[name], dataset=dataset, store=store)
    return command(MAKERS[name], store=folder)


def _is_unaltered(text: str | bytes) -> bool:
    """Return whether a record says, digit by digit, what its digest was made of."""
    try:
        return matches_digest(read_exactly(text))
    except ValueError:
        return False


def save(path: Path, record: Evaluation | DiversityReport) -> None:
    """Write a record to `path`; another one that is there is kept beside it.

    The older record moves to `<stem>.<8 digits of its digest>.json`. A file with the same bytes is
    left alone.

    Raises:
        OSError: the disk refuses.
    """
    data = to_json(record).encode()
    if path.exists():
        old = path.read_bytes()
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


# Reading: each function makes one value of its JSON, and refuses by name what it cannot be -------


def _evaluation(tree: dict[str, Any]) -> Evaluation:
    facts = _facts(tree["measures"])
    return Evaluation(
        **{
            **tree,
            "backbones": tuple(tree["backbones"]),
            "measures": facts,
            "datasets": tuple(_dataset(one, facts) for one in tree["datasets"]),
            "summary": _rows(tree["summary"], facts),
            "notes": tuple(tree["notes"]),
        }
    )


def _dataset(tree: dict[str, Any], facts: Mapping[str, Facts]) -> DatasetEvaluation:
    return DatasetEvaluation(
        **{
            **tree,
            "rows": _rows(tree["rows"], facts),
            "sources": tuple(Source(**one) for one in tree["sources"]),
            "notes": tuple(tree["notes"]),
            "published": tuple(Published(**one) for one in tree["published"]),
        }
    )


def _rows(trees: Sequence[dict[str, Any]], facts: Mapping[str, Facts]) -> tuple[Row, ...]:
    return tuple(_row(one, facts) for one in trees)


def _row(tree: dict[str, Any], facts: Mapping[str, Facts]) -> Row:
    drawn = _labels(tree["drawn"])
    which = f"{tree['method']} {drawn.phrase}"
    if tree["kind"] not in get_args(Kind):
        raise ValueError(f"{which} is of the kind {tree['kind']!r}")
    if tree["measures"].keys() != facts.keys():
        raise ValueError(
            f"{which} has the measures {', '.join(tree['measures'])}; expected {', '.join(facts)}"
        )
    for value in (tree["accuracy"], *tree["accuracies"]):
        _check(f"{which}: accuracy", value, SHARE)
    _check(f"{which}: gain", tree["gain"], DIFFERENCE)
    for name, its in facts.items():
        _check_known(f"{which}: {name}", tree["measures"][name], its.bounds)
    return Row(
        **{
            **tree,
            "drawn": drawn,
            "seeds": tuple(tree["seeds"]),
            "accuracies": tuple(tree["accuracies"]),
        }
    )


def _labels(tree: dict[str, Any]) -> Labels:
    if tree["kind"] not in KINDS:
        raise ValueError(f"labels are of the kind {tree['kind']!r}; expected {', '.join(KINDS)}")
    _check(f"amount of {tree['kind']}", tree["amount"], (0.0, None))
    return Labels(tree["kind"], tree["amount"])


def _facts(trees: Mapping[str, dict[str, Any]]) -> dict[str, Facts]:
    for name, one in trees.items():
        if one["unit"] not in get_args(Unit) or one["better"] not in get_args(Direction):
            raise ValueError(f"{name} is in {one['unit']!r}, {one['better']!r} is better")
    return {
        name: Facts(**{**one, "bounds": _bounds(*one["bounds"])}) for name, one in trees.items()
    }


def _bounds(low: float | None, high: float | None) -> Bounds:
    return low, high


def _check(what: str, value: object, bounds: Bounds) -> None:
    low, high = bounds
    if (
        not isinstance(value, int | float)
        or isinstance(value, bool)
        or not math.isfinite(value)
        or (low is not None and value < low - ROUNDING)
        or (high is not None and value > high + ROUNDING)
    ):
        raise ValueError(f"{what} is {value!r}, expected a number {_spelled(bounds)}")


def _check_known(what: str, value: object, bounds: Bounds) -> None:
    """Check a value that may be undefined."""
    if value is not None:
        _check(what, value, bounds)


def _spelled(bounds: Bounds) -> str:
    low, high = bounds
    parts = (f"from {low:g}" if low is not None else "", f"to {high:g}" if high is not None else "")
    return " ".join(part for part in parts if part)


def _diversity_report(tree: dict[str, Any]) -> DiversityReport:
    facts, count = _facts(tree["measures"]), len(tree["backbones"])
    return DiversityReport(
        **{
            **tree,
            "backbones": tuple(tree["backbones"]),
            "measures": facts,
            "datasets": tuple(_diversity(one, facts, count) for one in tree["datasets"]),
            "mean": _diversity(tree["mean"], facts, count),
            "correlations": tuple(_correlation(one) for one in tree["correlations"]),
        }
    )


def _diversity(tree: dict[str, Any], facts: Mapping[str, Facts], backbones: int) -> Diversity:
    if tree["matrices"].keys() != facts.keys() or tree["pair_means"].keys() != facts.keys():
        raise ValueError(f"{tree['dataset']} has other measures than {', '.join(facts)}")
    for name, its in facts.items():
        matrix = tree["matrices"][name]
        if [len(row) for row in matrix] != [backbones] * backbones:
            raise ValueError(f"{tree['dataset']}: {name} is not of {backbones} backbones")
        for value in (tree["pair_means"][name], *(value for row in matrix for value in row)):
            _check_known(f"{tree['dataset']}: {name}", value, its.bounds)
    for value in (*tree["accuracies"], tree["oracle"], tree["best_single"], tree["right_for_some"]):
        _check(f"{tree['dataset']}: a share of samples", value, SHARE)
    return Diversity(
        **{
            **tree,
            "accuracies": tuple(tree["accuracies"]),
            "matrices": {
                name: tuple(tuple(row) for row in matrix)
                for name, matrix in tree["matrices"].items()
            },
            "sources": tuple(Source(**one) for one in tree["sources"]),
            "notes": tuple(tree["notes"]),
        }
    )


def _correlation(tree: dict[str, Any]) -> Correlation:
    return Correlation(**{**tree, "drawn": _labels(tree["drawn"])})
