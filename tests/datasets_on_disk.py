"""Writes one small data set in every form that `clipnlc.datasets.source` opens."""

import io
import tarfile
from pathlib import Path

import datasets as hf
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

CLASSES = ("cat", "dog", "test_tube")


def png(seed, mode="RGB", size=(7, 5)):
    """Encode a random image."""
    rng = np.random.default_rng(seed)
    image = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    buffer = io.BytesIO()
    image.convert(mode).save(buffer, "PNG")
    return buffer.getvalue()


def rows_of(split, count=8):
    """Make the rows of a split, ordered as an image folder lists them: (name, label, bytes)."""
    offset = {"train": 0, "test": 100}[split]
    rows = [(f"{i:02d}", i * 3 // count, png(offset + i)) for i in range(count)]
    return sorted(rows, key=lambda r: (CLASSES[r[1]], r[0]))


def put(path, data=None):
    """Write a file, its folders first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(0) if data is None else data)
    return path


def write_folder(root):
    for split in ("train", "test"):
        for name, label, data in rows_of(split):
            put(root / split / CLASSES[label] / f"{name}.png", data)


def hf_dataset(split, **features):
    rows = rows_of(split)
    columns = {
        "image": [{"bytes": data, "path": None} for _, _, data in rows],
        "label": [label for _, label, _ in rows],
    }
    return hf.Dataset.from_dict(
        columns,
        features=hf.Features(
            {"image": hf.Image(decode=False), "label": hf.ClassLabel(names=list(CLASSES))}
        ),
    )


def write_parquet_hf(root):
    for split in ("train", "test"):
        path = root / "data" / f"{split}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        hf_dataset(split).to_parquet(path)


def write_table(path, image, label, **columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"image": image, "label": label, **columns}), path)


def write_parquet_binary(root):
    for split in ("train", "test"):
        rows = rows_of(split)
        words = [CLASSES[r[1]] for r in rows]
        for shard in range(3):  # several files, several row groups
            write_table(
                root / split / f"{shard}.parquet",
                pa.array([r[2] for r in rows][shard * 3 : shard * 3 + 3], pa.large_binary()),
                words[shard * 3 : shard * 3 + 3],
            )


def write_parquet_struct(root):
    for split in ("train", "test"):
        rows = rows_of(split)
        cells = [{"path": f"{r[0]}.png", "bytes": r[2], "width": 7} for r in rows]
        write_table(root / f"{split}.parquet", cells, [r[1] for r in rows])
    (root / "classnames.txt").write_text("\n".join(CLASSES))


def write_saved_dict(root):
    hf.DatasetDict({s: hf_dataset(s) for s in ("train", "test")}).save_to_disk(root)


def write_tar(path, members):
    """Write a tar of (name, bytes)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def write_tars(root, shards=1):
    for split in ("train", "test"):
        rows = rows_of(split)
        size = -(-len(rows) // shards)
        for shard in range(shards):
            members = []
            for i, (_, label, data) in enumerate(rows[shard * size : (shard + 1) * size]):
                key = f"s{shard * size + i:07d}"
                members += [(f"{key}.cls", str(label).encode()), (f"{key}.png", data)]
            write_tar(root / split / f"{shard}.tar", members)
        (root / split / "nshards.txt").write_text(str(shards))
    (root / "classnames.txt").write_text("\n".join(CLASSES))


WRITERS = {
    "folder": write_folder,
    "parquet-hf": write_parquet_hf,
    "parquet-binary": write_parquet_binary,
    "parquet-struct": write_parquet_struct,
    "saved-dict": write_saved_dict,
    "tars-one": write_tars,
    "tars-eight": lambda root: write_tars(root, shards=8),
}


def write(kind, root):
    """Write the data set as `kind` and return its root."""
    Path(root).mkdir(parents=True, exist_ok=True)
    WRITERS[kind](root)
    return root
