"""Writes small copies of the published data sets, each in a repository's own format.

Every image tells its class (`shown`), so a test can see whether a label came out right. Sources
that name their classes list them in another order than ours: a label taken by position is wrong.
"""

import io
import json
from pathlib import Path

import datasets as hf
import pyarrow as pa
import pyarrow.parquet as pq
from datasets_on_disk import put, write_tar
from PIL import Image

from clipnlc.datasets import hub

FORMATS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}
EXTENSION = {
    **dict.fromkeys(("cars", "fgvc", "country211", "imagenet", "food"), "jpg"),
    **dict.fromkeys(("imagenet-a", "imagenet-r", "imagenet-sketch"), "jpg"),
    **dict.fromkeys(("objectnet", "sst2", "mnist", "stl10"), "png"),
}
"""Of the images in tars; webp for the others."""

EXTRA = {
    "uoft-cs/cifar100": {"coarse_label": hf.ClassLabel(names=["animals", "things"])},
    "mteb/cifar100": {"coarse_label": hf.ClassLabel(names=["animals", "things"])},
    "mteb/FGVCAircraft": {
        "family": hf.ClassLabel(names=["A320", "F-16"]),
        "manufacturer": hf.ClassLabel(names=["Airbus", "Boeing"]),
    },
    "timm/eurosat-rgb": {"image_id": hf.Value("string")},
    "timm/oxford-iiit-pet": {
        "image_id": hf.Value("string"),
        "label_cat_dog": hf.ClassLabel(names=["cat", "dog"]),
    },
    "bentrevett/caltech-ucsd-birds-200-2011": {"bbox": hf.Value("string")},
    "axiong/imagenet-r": {"class_name": hf.Value("string")},
}
"""Columns beside image and label, where they are known."""

_EUROSAT = [
    "AnnualCrop",
    "Forest",
    "HerbaceousVegetation",
    "Highway",
    "Industrial",
    "Pasture",
    "PermanentCrop",
    "Residential",
    "River",
    "SeaLake",
]


def image(label, row, split, extension="png"):
    """Draw a class: the left half is its label, the right half the row."""

    def colour(number):  # three digits to base 16, each in the middle of its step: JPEG errs
        return tuple(16 * (number // 16**place % 16) + 8 for place in (2, 1, 0))

    picture = Image.new("RGB", (32, 16), colour(label))
    picture.paste(colour(row + 1000 * (split != "test")), (16, 0, 32, 16))
    buffer = io.BytesIO()
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}
    picture.save(buffer, FORMATS[extension], **options.get(FORMATS[extension], {}))
    return buffer.getvalue()


def shown(picture):
    """Read the label off an image."""
    red, green, blue = (value // 16 for value in picture.getpixel((4, 8)))
    return red * 256 + green * 16 + blue


def class_names(key):
    """Return our class names; those of ObjectNet, which only its sources know, are made up."""
    return hub.entries()[key].class_names or tuple(f"object {i:03d}" for i in range(113))


def _snake(names, _):
    return [n.replace(" ", "_") for n in names]


def _aliased(names, entry):
    theirs = {ours: theirs for theirs, ours in entry.aliases.items()}
    return [theirs.get(n, n).replace(" ", "_").lower() for n in names]


def _filed(names, _):
    """Spell as SUN397's folders: /a/abbey, /a/apartment_building/outdoor."""
    *_, last = zip(*(n.rpartition(" ") for n in names), strict=True)
    inside = [word in ("indoor", "outdoor", "interior", "exterior") for word in last]
    paths = [
        n[::-1].replace(" ", "/", 1)[::-1] if i else n for n, i in zip(names, inside, strict=True)
    ]
    return [f"/{path[0]}/{path.replace(' ', '_')}" for path in paths]


SPELLING = {
    "barkermrl/imagenet-a": lambda _, entry: entry.wnids,
    "timm/eurosat-rgb": lambda *_: _EUROSAT,
    "mteb/eurosat-rgb": lambda *_: _EUROSAT,
    "tanganke/eurosat": lambda names, _: names,
    "tanganke/gtsrb": lambda names, _: names,
    "bentrevett/caltech-ucsd-birds-200-2011": lambda names, entry: [
        f"{i:03d}.{name}" for i, name in enumerate(_snake(names, entry), start=1)
    ],
    "dpdl-benchmark/sun397": _filed,
    "mteb/sun397": _filed,
    "mteb/Caltech101": _aliased,
    "dpdl-benchmark/caltech101": _aliased,
    "dpdl-benchmark/oxford_flowers102": _aliased,
    "uoft-cs/cifar100": _aliased,
    "timm/oxford-iiit-pet": _aliased,
    "zacharielegault/PatchCamelyon": lambda *_: ["0", "1"],
}
"""What repositories call the classes in `ClassLabel`; `_` for a space in the others."""


def spelled(key, source):
    """Return what a source calls our classes, in our order."""
    entry, names = hub.entries()[key], class_names(key)
    if source.format == "tars":
        return names  # classnames.txt is a list for prompts
    if source.own_names_begin:
        return [*source.own_names_begin, *(f"lemma {i}, lemma" for i in range(3, len(names)))]
    return SPELLING.get(source.id, _snake)(names, entry)


def order(key, source):
    """Return our label of each of the source's; another order unless only numbers tell."""
    ours = range(len(class_names(key)))
    if source.own_names_begin or not names_told(source) or hub.entries()[key].class_names is None:
        return list(ours)
    return [*ours[1:], ours[0]]


def names_told(source):
    """Tell whether a source names its classes; `index` ones are written without names."""
    return source.labels == "name" or bool(source.own_names_begin)


def our_labels(key, rows):
    """Return the labels of a split's rows, spread over the classes."""
    classes = len(class_names(key))
    return [i % classes if rows >= classes else i * classes // rows for i in range(rows)]


def write_entry(root, key, *, source=0, rows=8, splits=None):
    """Write a copy of one of the sources of a data set, with `rows` images a split.

    `splits` (our names) restricts it. Returns the root.
    """
    root = Path(root)
    found = hub.entries()[key].sources[source]
    write = _write_tars if found.format == "tars" else _write_parquet
    for name in found.splits:
        if splits is None or name in splits:
            write(root, key, found, name, rows)
    put(root / "README.md", b"---\nlicense: unknown\n---\n")
    return root


def write_all(root, *, rows=8, keys=None):
    """Write every data set, one subfolder per key, from its first source. Returns the root."""
    for key in keys or hub.entries():
        write_entry(Path(root) / key, key, rows=rows)
    return Path(root)


def write_folder(root, key, *, rows=8, splits=("train", "test"), names=None):
    """Write an image folder whose class folders are called by `names` (ours by default)."""
    folders = [n.replace("/", "-") for n in names or class_names(key)]
    for split in splits:
        for folder in folders:
            (root / split / folder).mkdir(parents=True, exist_ok=True)
        for row, label in enumerate(our_labels(key, rows)):
            put(root / split / folders[label] / f"{row:04d}.png", image(label, row, split))
    return root


def _write_tars(root, key, source, name, rows):
    split = source.splits[name].name
    theirs = {ours: label for label, ours in enumerate(order(key, source))}
    extension = EXTENSION.get(key, "webp")
    shards = 2 if name == "test" else 1  # one tar beside nshards.txt is what loaders trip over
    members = [[] for _ in range(shards)]
    for row, label in enumerate(our_labels(key, rows)):
        members[row * shards // rows] += [
            (f"s{row:07d}.cls", str(theirs[label]).encode()),
            (f"s{row:07d}.{extension}", image(label, row, name, extension)),
        ]
    for shard, files in enumerate(members):
        write_tar(root / split / f"{shard}.tar", files)
    put(root / split / "nshards.txt", str(shards).encode())
    if names_told(source):
        spelling = spelled(key, source)
        listed = "\n".join(spelling[ours] for ours in order(key, source))
        put(root / "classnames.txt", listed.encode())


def _write_parquet(root, key, source, name, rows):
    split = source.splits[name].name
    spelling, back = spelled(key, source), order(key, source)
    theirs = {ours: label for label, ours in enumerate(back)}
    labels = our_labels(key, rows)
    if source.id == "1aurent/PatchCamelyon":
        feature, values = hf.Value("bool"), [bool(label) for label in labels]
    elif source.id == "axiong/imagenet-r":
        wnids = hub.entries()[key].wnids
        feature, values = hf.Value("string"), [wnids[label] for label in labels]
    elif names_told(source):
        feature = hf.ClassLabel(names=[spelling[ours] for ours in back])
        values = [theirs[label] for label in labels]
    else:
        feature, values = hf.Value("int64"), labels
    extra = EXTRA.get(source.id, {})
    features = hf.Features(
        {source.image_column: hf.Image(decode=False), source.label_column: feature, **extra}
    )
    cells = {
        source.image_column: [
            {"bytes": image(label, row, name), "path": f"{row}.png"}
            for row, label in enumerate(labels)
        ],
        source.label_column: values,
        **{c: ["0"] * rows if f.dtype == "string" else [0] * rows for c, f in extra.items()},
    }
    # `datasets` writes the features into the files' metadata; so does the schema made of them.
    table = pa.table(cells, schema=features.arrow_schema)
    assert json.loads(table.schema.metadata[b"huggingface"])
    folder = root / (source.config or "data")
    folder.mkdir(parents=True, exist_ok=True)
    half = rows // 2
    for shard, part in enumerate((table.slice(0, half), table.slice(half))):
        pq.write_table(part, folder / f"{split}-{shard:05d}-of-00002.parquet")
