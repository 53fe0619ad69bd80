"""What the registry says of a data set: one JSON file each, read into plain values."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

FOLDER: Final = Path(__file__).parent / "registry"


@dataclass(frozen=True)
class SourceSplit:
    """A split in a repository.

    Attributes:
        name: what the repository calls it.
        rows: how many images it has there; None where that is not known.
    """

    name: str
    rows: int | None


@dataclass(frozen=True)
class Source:
    """A repository of data sets on the hub.

    Attributes:
        id: `owner/name`.
        revision: the commit, 40 hexadecimal digits; None is the newest, where none is known.
        format: `parquet`, or `tars` for webdataset.
        config: the folder of the files, where a repository has several configurations.
        image_column: name of the column; None takes the only one with images.
        label_column: name of the column; None takes the customary ones.
        labels: `name` demands that the source names its classes; `index` says that bare numbers
            are our label order.
        own_names_begin: the source's own class names (WordNet's lemmas) that cannot be matched with
            ours but stand in the same order, the first few of them.
        gated: terms must be accepted on the hub.
        splits: by our name: train, val, test.
        confidence: what of this has been confirmed, and how; nothing of it by a download of ours.
    """

    id: str
    revision: str | None
    format: Literal["parquet", "tars"]
    config: str | None
    image_column: str | None
    label_column: str | None
    labels: Literal["name", "index"]
    own_names_begin: tuple[str, ...]
    gated: bool
    splits: Mapping[str, SourceSplit]
    confidence: str


@dataclass(frozen=True)
class Entry:
    """A data set of the registry.

    Attributes:
        key: its name for `--dataset`.
        name: its full name.
        group: `all` (the paper's) or `ood` (shifted ImageNets).
        metric: what the CLIP paper reports, `accuracy` or `class-mean-accuracy`.
        classes: how many.
        kind: what the images show.
        note: what to know before comparing numbers.
        licence: a short note, not advice.
        sources: in order of preference.
        class_names: in label order, OpenAI's words; None where only the sources know them.
        wnids: the WordNet ids of the classes, for ImageNet's, else empty.
        aliases: what sources call a class -> the name here.
        templates: OpenAI's prompts.
        templates_clip_benchmark: CLIP_benchmark's; None where it has none.
    """

    key: str
    name: str
    group: Literal["all", "ood"]
    metric: Literal["accuracy", "class-mean-accuracy"]
    classes: int
    kind: str
    note: str
    licence: str
    sources: tuple[Source, ...]
    class_names: tuple[str, ...] | None
    wnids: tuple[str, ...]
    aliases: Mapping[str, str]
    templates: tuple[str, ...]
    templates_clip_benchmark: tuple[str, ...] | None

    def prompts(self, which: str) -> tuple[str, ...]:
        """Return the templates of one prompt set: `openai`, `clip-benchmark`, `simple`."""
        if which == "simple":
            return self.templates[:1]
        if which == "clip-benchmark" and self.templates_clip_benchmark is not None:
            return self.templates_clip_benchmark
        return self.templates

    def rows(self, split: str) -> frozenset[int]:
        """Return every number of rows that some source has for a split."""
        found = (source.splits.get(split) for source in self.sources)
        return frozenset(s.rows for s in found if s is not None and s.rows is not None)


def read_entry(key: str) -> Entry:
    """Read one file of the registry."""
    card = _card(key)
    prompts = _card(card.get("prompts_of", key))
    names, wnids = card.get("class_names"), tuple(card.get("wnids", ()))
    if "names_of" in card:  # the same classes as another set's, or a part of them, by WordNet id
        other = _card(card["names_of"])
        by_wnid = dict(zip(other["wnids"], other["class_names"], strict=True))
        wnids = wnids or tuple(other["wnids"])
        names = [by_wnid[wnid] for wnid in wnids]
    benchmark = prompts["templates_clip_benchmark"]
    return Entry(
        key=key,
        sources=tuple(_source(one) for one in card["sources"]),
        class_names=None if names is None else tuple(names),
        wnids=wnids,
        aliases=card.get("aliases", {}),
        templates=tuple(prompts["templates"]),
        templates_clip_benchmark=None if benchmark is None else tuple(benchmark),
        **{f: card[f] for f in ("name", "group", "metric", "classes", "kind", "note", "licence")},
    )


def _source(card: Mapping[str, Any]) -> Source:
    given = dict(card)
    given["splits"] = {name: SourceSplit(**split) for name, split in given["splits"].items()}
    given["own_names_begin"] = tuple(given.get("own_names_begin", ()))
    given.setdefault("gated", False)
    return Source(**given)


@cache
def _card(key: str) -> dict[str, Any]:
    card: dict[str, Any] = json.loads((FOLDER / f"{key}.json").read_text(encoding="utf-8"))
    return card
