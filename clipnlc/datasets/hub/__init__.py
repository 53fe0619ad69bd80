"""The published data sets: the paper's 21 and five shifted ImageNets, from the hub or a copy.

`registry/<key>.json` is all there is to say of one, so one more is one more file: its class names
in label order, its prompts, and where to get it, in order of preference. The fields are those of
`entries.Entry` and `entries.Source`; `names_of` and `prompts_of` borrow from another file.

What a source calls its classes is matched to our names by `classes`; `fetch` is the only module
that talks to the hub; `dataset` puts it together.
"""

from functools import cache

from clipnlc.datasets.hub.entries import FOLDER, Entry, read_entry


@cache
def entries() -> dict[str, Entry]:
    """Return all entries by key, in alphabetical order."""
    return {file.stem: read_entry(file.stem) for file in sorted(FOLDER.glob("*.json"))}


def keys(group: str) -> tuple[str, ...]:
    """Return the keys of a group: `all`, `ood`."""
    return tuple(key for key, entry in entries().items() if entry.group == group)
