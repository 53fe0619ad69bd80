"""Options that several commands share, and how their texts are read."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipnlc.commands import command
from clipnlc.errors import DataError, MissingStageError, StoreError

if TYPE_CHECKING:
    from clipnlc.labels import Labels


MOST_SEEDS = 1000
"""Far more draws than any interval needs; each is a fit of every combiner."""

MOST_WORKERS = 1024
"""As many processes or threads as the largest machines have."""

LARGEST_SEED = 2**32 - 1
MOST_EPOCHS = 100_000
MOST_STEPS = 10_000_000
LARGEST = 10**9
"""Of numbers of images, which a run cuts to what there is."""


def _folder(store: Path) -> Path:
    """Refuse what cannot be a folder before a stage trips over it."""
    nearest = next(path for path in (store, *store.parents) if path.exists())
    if not nearest.is_dir():
        raise StoreError(
            f"--store is {store}, but {nearest} is a file; expected a folder, there or not yet: "
            "choose another --store"
        )
    return store


Store = Annotated[
    Path,
    typer.Option("--store", envvar="CLIPNLC_STORE", help="Folder of the store.", callback=_folder),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON value, and nothing else.")]
LabelTable = Annotated[
    Path | None,
    typer.Option(
        help="CSV, TSV, JSON lines or parquet of a folder's image files and labels; images that "
        "it gives no label are the split unlabelled."
    ),
]
ClassesOfLabels = Annotated[
    str, typer.Option(help="With --labels: all class names, comma-separated.")
]
DatasetsInStore = Annotated[
    str,
    typer.Option(
        "--dataset", "-d", help="Data sets: keys, groups or paths, comma-separated; all if empty."
    ),
]
BackbonesInStore = Annotated[
    str, typer.Option("--backbones", "-b", help="Names or groups; all in the store if empty.")
]
ShotsOfFit = Annotated[
    str,
    typer.Option(help="Labels of each class it was fitted on, 0 or all; if empty, the only fit."),
]
CountOfFit = Annotated[
    str,
    typer.Option(
        "--count",
        help="Instead of shots: labels in all that it was fitted on, as train-nlc --count drew them.",
    ),
]
HoldoutOfFit = Annotated[
    float | None, typer.Option(help="Instead of shots: the share of labels it was fitted on.")
]
SeedOfFit = Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Of the fit.")]
DatasetOfFit = Annotated[
    str,
    typer.Option("--dataset", "-d", help="What the fit was made on; if empty, the only one."),
]


def was_given(parameter: str, context: typer.Context) -> bool:
    """Return whether the user gave an option or argument, by the name of its parameter."""
    source = context.get_parameter_source(parameter)
    return source is not None and source.name not in ("DEFAULT", "DEFAULT_MAP")


def refuse_several_amounts(context: typer.Context) -> None:
    """Refuse more than one of `--shots`, `--count` and `--holdout`: all but one would do nothing.

    Raises:
        DataError: the user gave several.
    """
    given = [f"--{name}" for name in ("shots", "count", "holdout") if was_given(name, context)]
    if len(given) > 1:
        raise DataError(f"{' and '.join(given)} exclude each other; give one of them")


def listed(text: str) -> tuple[str, ...]:
    """Split a comma-separated option."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def labels_of(
    *, shots: str, count: str, holdout: float | None, zero: bool = False
) -> "tuple[Labels, ...]":
    """Read `--shots`, `--count` and `--holdout`: which labels to fit on, whatever the seed.

    With `zero`, 0 shots are no labels; otherwise they are refused.

    Raises:
        DataError: a number is out of range, or both a count and a hold-out were given.
    """
    from clipnlc.labels import Labels

    if holdout is not None and count.strip():
        raise DataError("--count and --holdout exclude each other; give one of them")
    if holdout is not None:
        return (Labels.holdout(holdout),)
    if count.strip():
        return tuple(Labels.count(number) for number in _numbers("--count", count, "10,30"))
    parts = listed(shots)
    none = (Labels.none(),) if zero and "0" in parts else ()
    if "0" in parts and not zero:
        raise DataError(
            f"--shots is {shots!r}; leave out 0, as in --shots 1,4,16: what needs no labels is there "
            "whatever the numbers"
        )
    few = ",".join(part for part in parts if part != "all" and not (none and part == "0"))
    every = (Labels.all(),) if "all" in parts else ()
    if not few and (none or every):
        return (*none, *every)
    return (*none, *(Labels.shots(number) for number in _numbers("--shots", few, "1,4,16")), *every)


def labels_of_fit(*, shots: str, count: str, holdout: float | None, seed: int) -> "Labels | None":
    """Read which labels one fit was made on; None where nothing was said.

    Raises:
        DataError: a number is out of range, or several were given.
    """
    from dataclasses import replace

    if [bool(shots.strip()), bool(count.strip()), holdout is not None].count(True) > 1:
        raise DataError("--shots, --count and --holdout exclude each other; give one of them")
    if not shots.strip() and not count.strip() and holdout is None:
        return None
    found = labels_of(shots=shots, count=count, holdout=holdout, zero=True)
    if len(found) > 1:
        raise DataError(
            f"{'--count' if count.strip() else '--shots'} is {count or shots!r}; give one number: "
            "one fit is used"
        )
    return found[0] if found[0].kind == "none" else replace(found[0], seed=seed)


def _numbers(option: str, text: str, example: str) -> tuple[int, ...]:
    parts = listed(text)
    longest = len(str(LARGEST)) - 1
    if not all(part.isdecimal() and len(part) <= longest and int(part) for part in parts or [""]):
        raise DataError(
            f"{option} is {text!r}; give whole numbers from 1 to 999999999, as in {option} {example}"
        )
    return tuple(int(part) for part in parts)


def head_of(name: str, store: Path) -> str:
    """Check `--head` of a command that reads heads of a store.

    Raises:
        UnknownNameError: there is no such head.
        PluginError: it is of a package that is not installed, or cannot be used.
    """
    from clipnlc.heads import HEADS
    from clipnlc.runs.packages import find_member
    from clipnlc.stores.layout import Layout

    find_member(HEADS, name, Layout(store))
    return name


def combiner_of(name: str, store: Path) -> str:
    """Check `--combiner` of a command that reads a fit of a store; raises as `head_of`."""
    from clipnlc.combiners import COMBINERS
    from clipnlc.runs.packages import find_member
    from clipnlc.stores.layout import Layout

    find_member(COMBINERS, name, Layout(store))
    return name


def keys_of(names: str) -> tuple[str, ...]:
    """Read `--dataset` of a command that reads the store: what its data sets are called there."""
    from clipnlc.datasets import store_keys

    return store_keys(names) if names.strip() else ()


def key_of(name: str) -> str:
    """Read an option that names one data set in the store.

    Raises:
        DataError: it names several.
    """
    keys = keys_of(name)
    if len(keys) != 1:
        raise DataError(f"{name!r} names {len(keys)} data sets; give one")
    return keys[0]


def backbones_of(names: str, store: Path) -> tuple[str, ...]:
    """Read `--backbones` of a command that reads the store; imported ones are known by it alone."""
    from clipnlc.backbones import resolve
    from clipnlc.stores.layout import Layout

    if not names.strip():
        return ()
    asked = listed(names)
    own = [name for name in asked if name in Layout(store).own_backbones()]
    rest = [name for name in asked if name not in own]
    return tuple(dict.fromkeys([*own, *(b.name for b in resolve(rest))]))


def existing(store: Path) -> Path:
    """Refuse a store that is not there."""
    if not store.is_dir():
        raise MissingStageError(
            f"there is no store at {store}; make one with `{command('extract --dataset …', store=store)}`, or "
            "name one with --store"
        )
    return store
