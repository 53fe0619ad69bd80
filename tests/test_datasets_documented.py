"""Every layout in `docs/datasets.md` is read, or refused, as it is said there."""

import re
from pathlib import Path

import pytest
from datasets_on_disk import png, put

from clipnlc.datasets.source import open_split, splits
from clipnlc.errors import DataError

DOCUMENT = Path(__file__).parents[1] / "docs/datasets.md"
LAYOUTS = re.findall(
    r"```text\n(.*?)```\n\n(Read as|Refused:) (.*?)\.?\n", DOCUMENT.read_text("utf-8"), re.DOTALL
)


def make(root, shown):
    """Make the folders and files that a tree shows; images differ."""
    above = [(-1, root)]
    for line in shown.splitlines():
        depth = len(line) - len(line.lstrip())
        while above[-1][0] >= depth:
            above.pop()
        _, here = above[-1]
        if line.lstrip().startswith("| "):
            with here.open("a", encoding="utf-8") as table:
                table.write(f"{line.lstrip()[2:]}\n")
            continue
        name, *images = line.split()
        path = here / name
        above.append((depth, path))
        if name.endswith("/"):
            path.mkdir(parents=True)
            for image in images:
                put(path / image, png(sum(1 for _ in root.rglob("*.png"))))
        else:
            path.touch()
    return root / "data"


def counted(root):
    """Spell what was read as the document does."""
    said = []
    for name in splits(root):
        split = open_split(root, name)
        assert len({sample.data for sample in split.read()}) == len(split)
        classes = [
            f"{count} {split.class_names[label]}"
            for label in range(len(split.class_names))
            if (count := int((split.labels == label).sum()))
        ]
        said.append(f"{name}: {', '.join(classes)}")
    return "; ".join(said)


@pytest.mark.parametrize(("shown", "verb", "said"), LAYOUTS, ids=range(len(LAYOUTS)))
def test_each_layout_is_read_as_the_document_says(tmp_path, shown, verb, said):
    root = make(tmp_path, shown)
    if verb == "Read as":
        assert counted(root) == said
    else:
        with pytest.raises(DataError, match=re.escape(said)):
            splits(root)


def test_all_that_the_document_shows_is_tried():
    document = DOCUMENT.read_text("utf-8")
    shown = document.split("## Layouts of image folders")[1].split("\n## ")[0]
    assert len(LAYOUTS) == shown.count("```text") == document.count("```text") > 15
