"""Which array of a person's file is what: told by its usual name, or by the person."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

import numpy as np

from clipnlc.datasets.array_files import ENDINGS, ArrayFile, open_arrays
from clipnlc.datasets.fingerprints import digest_texts, hash_file
from clipnlc.datasets.name_files import read_names
from clipnlc.errors import DataError
from clipnlc.wording import count, quoted, shown

NONE: Final = "none"
"""What leaves out an array that would be found by its name."""

USUAL: Final[Mapping[str, tuple[str, ...]]] = {
    "features": (
        "features",
        "image_features",
        "embeddings",
        "embedding",
        "image_embeddings",
        "image_embeds",
        "feats",
        "x",
    ),
    "logits": (
        "logits",
        "logit",
        "probabilities",
        "probability",
        "probs",
        "prob",
        "proba",
        "predict_proba",
    ),
    "texts": ("texts", "text_features", "text_embeddings", "text_embeds"),
    "labels": ("labels", "label", "targets", "target", "y", "y_true"),
    "sample_id": ("sample_id", "sample_ids", "ids", "id", "__key__", "filename", "file", "path"),
    "class_names": ("class_names", "classes", "label_names", "names"),
    "logit_scale": ("logit_scale", "scale"),
}
"""What arrays are usually called, the first that is there being taken; case does not matter."""


@dataclass(frozen=True)
class Names:
    """Which array is what: a name in the file, another file, `NONE`, or None to find it by name."""

    features: str | None = None
    logits: str | None = None
    texts: str | None = None
    labels: str | None = None
    sample_id: str | None = None
    class_names: str | None = None


@dataclass(frozen=True)
class Arrays:
    """The arrays of a file by their roles.

    Attributes:
        main: the file.
        names: by role, what its array is called.
        others: by role, the file that it has of its own.
        digest: names the content of all files.
    """

    main: ArrayFile
    names: dict[str, str]
    others: Mapping[str, ArrayFile]
    digest: str

    @classmethod
    def open(cls, path: Path, split: str, names: Names) -> "Arrays":
        """Find the array of every role.

        Raises:
            DataError: a file cannot be opened, or has no array of a name that was given.
        """
        main = open_arrays(path, split)
        folded = {name.casefold(): name for name in main.names}
        found: dict[str, str] = {}
        others: dict[str, ArrayFile] = {}
        asked = {field.name: getattr(names, field.name) for field in fields(names)}
        for role, usual in USUAL.items():
            given = asked.get(role)
            if given is None:
                called = next((folded[name] for name in usual if name in folded), None)
                if called is not None:
                    found[role] = called
            elif given in main.names:
                found[role] = given
            elif given != NONE:
                found[role] = given
                if Path(given).suffix.lower() in ENDINGS or Path(given).is_file():
                    others[role] = _other(Path(given), split, role)
                    found[role] = others[role].names[0]
                else:
                    main.read(given)  # says what there is
        digests = [main.digest, *(text for r, o in others.items() for text in (r, o.digest))]
        digest = main.digest if len(digests) == 1 else digest_texts(digests)
        return cls(main, found, others, digest)

    def read(self, role: str) -> np.ndarray | None:
        """Return the array of a role, or None."""
        if role not in self.names:
            return None
        return self.others.get(role, self.main).read(self.names[role])

    def where(self, role: str) -> str:
        """Say where an array is: `'labels' of rows.npz`."""
        return f"{quoted(self.names[role])} of {self.others.get(role, self.main).path}"


def _other(path: Path, split: str, role: str) -> ArrayFile:
    """Open the file that one role has of its own; class names may be a text file."""
    if role == "class_names" and path.suffix.lower() not in ENDINGS:
        listed, _ = read_names(path, None)
        return ArrayFile(
            path, (path.name,), hash_file(path), lambda _name: np.array(listed, dtype=object)
        )
    found = open_arrays(path, split)
    if len(found.names) != 1:
        option = role.replace("_", "-")
        raise DataError(
            f"{path} has {count(len(found.names), 'array')}, and --{option} takes a file of one: "
            "save it by itself, as with np.save"
        )
    return found


def row_name(row: int, sample_id: Sequence[str] | None) -> str:
    """Name a row by its number and its sample id, where it has one."""
    return (
        f"row {row}"
        if sample_id is None or row >= len(sample_id)
        else (f"row {row} ({quoted(sample_id[row])})")
    )


def kind_of(found: np.ndarray) -> str:
    """Say what an array holds: `float32 [10, 512]`."""
    kind = "texts" if found.dtype.kind == "O" else shown(found.dtype)
    return f"{kind} {list(found.shape)}"
