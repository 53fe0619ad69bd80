"""The fit store: what each combiner of one run learnt (`docs/formats/fit-store.md`).

What a fit gives on a split lies apart (`clipnlc.stores.given`). Files of version 1, which hold both,
are read as well.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from clipnlc.digests import content_digest
from clipnlc.stores import _h5, checks
from clipnlc.stores.fitted import (
    Fact,
    combiners_of,
    current,
    fitted_attributes,
    fitted_datasets,
    group_of,
    not_written,
    read_facts,
    read_learnt,
)
from clipnlc.stores.key import Key
from clipnlc.stores.layout import locate

FORMAT = "clipnlc-fits"
VERSION_1 = "clipnlc-combined"


@dataclass(frozen=True)
class Fit:
    """What one combiner learnt in a run.

    Attributes:
        key: every resolved input by name, `settings` among them; `inputs` names what it was made
            from.
        learnt: fitted arrays by name; empty for a combiner that learns nothing.
        facts: `drawn`, the run's name; `labels`, how many were used; `labelled_samples`, a digest
            of their ids.
        digest: names all of the above; empty until it is read from a file.
    """

    key: Key
    learnt: Mapping[str, np.ndarray]
    facts: Mapping[str, Fact]
    digest: str = ""


@dataclass(frozen=True)
class FitStore:
    """All fits of one run on one head's logits.

    Attributes:
        backbones: the ensemble, in the order that the learnt arrays follow.
        class_names: in the order that the learnt arrays follow; names may repeat.
        fits: by combiner.
        digest: names the content of the file; empty until it is read from one.
    """

    backbones: tuple[str, ...]
    class_names: tuple[str, ...]
    fits: Mapping[str, Fit]
    digest: str = ""


@dataclass(frozen=True)
class FitHeader:
    """Facts of a fit file that need no reading of what was learnt.

    Attributes:
        keys, facts: by combiner.
        digests: by combiner; each names one fit.
        backbones: the ensemble.
        classes: number of classes.
        digest: names the content of the file.
    """

    keys: Mapping[str, Key]
    facts: Mapping[str, Mapping[str, Fact]]
    digests: Mapping[str, str]
    backbones: tuple[str, ...]
    classes: int
    digest: str


def add_fits(path: Path, store: FitStore) -> str:
    """Write the fits of `store`, beside those in the file that still fit.

    A fit already there stays when it is not written anew, the file has the same backbones and
    classes, and no input it was made from has another digest now. The file is replaced at once;
    the caller holds `locks.writing(path)`. Returns the digest of the content.

    Raises:
        StoreError: a learnt array is NaN or infinite; the present file is damaged; the disk is
            full.
    """
    if path.exists():
        present = read_fits(path)
        if (present.backbones, present.class_names) == (store.backbones, store.class_names):
            store = replace(store, fits={**current(present.fits, store.fits), **store.fits})
    return _write(path, store)


def read_fits(path: Path, combiners: Sequence[str] | None = None) -> FitStore:
    """Read and check a fit file, or a combined file of version 1; all of it or some combiners.

    Raises:
        MissingStageError: there is no such file.
        StoreError: the file is damaged, foreign, newer than this clipnlc, or breaks the format.
    """
    wanted = None if combiners is None else {f"{group_of(name)}/" for name in combiners}

    def reads(name: str) -> bool:
        if name in ("backbones", "class_names"):
            return True
        mine = wanted is None or any(name.startswith(group) for group in wanted)
        return mine and "/learnt/" in name

    content = _h5.read(path, format_of(path), reads)
    names = [n for n in combiners_of(content.header) if combiners is None or n in combiners]
    store = FitStore(
        backbones=content.strings("backbones"),
        class_names=content.strings("class_names"),
        fits={name: _fit(content, name) for name in names},
        digest=content.header.digest,
    )
    _check(store, lambda problem: _h5.damaged(path, f"breaks the format: {problem}"))
    return store


def read_fit_header(path: Path) -> FitHeader:
    """Read keys, facts and digests of every fit, checked, without what was learnt.

    Raises:
        MissingStageError: there is no such file.
        StoreError: the header is damaged, foreign or newer than this clipnlc.
    """
    content = _h5.read(path, format_of(path), lambda name: name == "backbones")
    header = content.header
    names = combiners_of(header)
    return FitHeader(
        keys={name: header.key(group_of(name)) for name in names},
        facts={name: _facts(header, name) for name in names},
        digests={name: _digest(header, name) for name in names},
        backbones=content.strings("backbones"),
        classes=header.shape("class_names", 1)[0],
        digest=header.digest,
    )


def format_of(path: Path) -> str:
    """Return which format the place of a file calls for: version 1 kept runs elsewhere."""
    location = locate(path)
    return VERSION_1 if location is not None and location.kind == "combined" else FORMAT


def _write(path: Path, store: FitStore) -> str:
    refuse = not_written(path)
    _check(store, refuse)
    datasets: dict[str, _h5.Dataset] = {
        "backbones": store.backbones,
        "class_names": store.class_names,
    }
    groups = {}
    for name, fit in store.fits.items():
        datasets.update(fitted_datasets(fit.learnt, refuse, group_of(name)))
        groups[group_of(name)] = fitted_attributes(fit.key, fit.facts)
    return _h5.write_sealed(path, FORMAT, attributes={}, datasets=datasets, groups=groups)


def _fit(content: _h5.Content, name: str) -> Fit:
    return Fit(
        key=content.header.key(group_of(name)),
        learnt=read_learnt(content, group_of(name)),
        facts=_facts(content.header, name),
        digest=_digest(content.header, name),
    )


def _facts(header: _h5.Header, name: str) -> dict[str, Fact]:
    """Return the facts; those of version 1 spell the draw in three of them."""
    facts = read_facts(header, group_of(name))
    location = locate(header.path)
    if "drawn" not in facts and location is not None and location.run is not None:
        facts["drawn"] = location.run
    return facts


def _digest(header: _h5.Header, name: str) -> str:
    """Name one fit by its attributes, the checksums of its arrays, and the order they follow."""
    group = group_of(name)
    arrays = {
        entry: found.blake2b
        for entry, found in header.entries.items()
        if entry.startswith(f"{group}/learnt/") or entry in ("backbones", "class_names")
    }
    return content_digest({"attributes": dict(header.attributes[group]), "arrays": arrays})


def _check(store: FitStore, refuse: checks.Refuse) -> None:
    checks.check_names("backbone", store.backbones, refuse)
    checks.check_text("class name", store.class_names, refuse)
