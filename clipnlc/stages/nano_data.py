"""Rebuild the nano data and the nano vocabulary from the public packages they came from."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

MERGES = 1024


@dataclass(frozen=True)
class Part:
    """One part of what was built.

    Attributes:
        name: `corpus`, `vocabulary`, the key of a set, or that with ` confirmation`.
        digest: of the pixels as drawn, the captions and the labels; of the merges.
        as_shipped: the package ships the same.
    """

    name: str
    digest: str
    as_shipped: bool


def nano_data(
    *, out: Path, packages: Path, on_note: Callable[[str], None] = lambda _: None
) -> list[Part]:
    """Fetch the packages, draw corpus and sets, learn the vocabulary; compare with what ships.

    Args:
        out: folder for `corpus.parquet`, the sets, their confirmation splits, `data.json` and
            `vocabulary.txt.gz`.
        packages: folder for the packages; those already there are kept.
        on_note: called with one line for the user.

    Raises:
        DataError: a package cannot be fetched.
    """
    from clipnlc.backbones import nano as nano_backbones
    from clipnlc.backbones.vocabulary import learn_merges, merges_digest, write_merges
    from clipnlc.datasets import nano as nano_sets
    from clipnlc.datasets.captioned import read_captioned
    from clipnlc.datasets.nano.build import build
    from clipnlc.datasets.nano.packages import fetch

    fetch(packages, lambda package: on_note(f"fetching {package.name} {package.version}"))
    built = build(packages, out, lambda part: on_note(f"drawing {part}"))
    shipped = json.loads((nano_sets.FOLDER / "data.json").read_text("utf-8"))
    fresh = json.loads((nano_sets.CONFIRMATION_FOLDER / "data.json").read_text("utf-8"))
    if built["drawn_with"] != shipped["drawn_with"]:
        on_note(
            f"drawn with {built['drawn_with']}, where what ships was with {shipped['drawn_with']}"
        )
    on_note("learning the vocabulary")
    captions = {c for row in read_captioned(out / "corpus.parquet") for c in row.captions}
    vocabulary = out / nano_backbones.VOCABULARY.name
    write_merges(vocabulary, learn_merges(sorted(captions), MERGES))
    found = {"corpus": built["corpus"]["digest"], "vocabulary": merges_digest(vocabulary)}
    wanted = {
        "corpus": shipped["corpus"]["digest"],
        "vocabulary": merges_digest(nano_backbones.VOCABULARY),
    }
    found |= {key: described["digest"] for key, described in built["sets"].items()}
    wanted |= {key: described["digest"] for key, described in shipped["sets"].items()}
    for digests, sets in ((found, built[nano_sets.CONFIRMATION]), (wanted, fresh["sets"])):
        for key, described in sets.items():
            digests[f"{key} {nano_sets.CONFIRMATION}"] = described["digest"]
    return [Part(name, digest, digest == wanted.get(name)) for name, digest in found.items()]
