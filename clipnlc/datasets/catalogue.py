"""What `clipnlc datasets` lists."""

import json
from dataclasses import dataclass

from clipnlc.datasets import keys, open_dataset


@dataclass(frozen=True)
class Entry:
    """One data set that needs no path.

    Attributes:
        key: as given to `--dataset`.
        classes: number of classes.
        train: images to learn from.
        test: images to be measured on.
        kind: real images, real artwork, or rendered.
        note: what it shows, and how it differs from what the backbones have seen.
        licence: of the images.
        class_names: in label order.
        templates: prompt templates.
    """

    key: str
    classes: int
    train: int
    test: int
    kind: str
    note: str
    licence: str
    class_names: tuple[str, ...]
    templates: tuple[str, ...]


def catalogue() -> list[Entry]:
    """Describe every data set that needs no path, from the card beside it."""
    entries = []
    for key in keys():
        card = json.loads((open_dataset(key).root / "dataset.json").read_text("utf-8"))
        rows = card["rows"]
        entries.append(
            Entry(
                key=key,
                classes=len(card["class_names"]),
                train=sum(n for part, n in rows.items() if part.startswith("train")),
                test=sum(n for part, n in rows.items() if part.startswith("test")),
                kind=card["kind"],
                note=card["note"],
                licence=card["licence"],
                class_names=tuple(card["class_names"]),
                templates=tuple(card["templates"]),
            )
        )
    return entries
