"""The embedded data sets: what the package promises of them, read from the files it ships."""

import hashlib
import io
import itertools
import json
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from clipnlc import datasets
from clipnlc.backbones import nano as backbones
from clipnlc.datasets import nano
from clipnlc.datasets.catalogue import catalogue
from clipnlc.datasets.clusters import cluster_of
from clipnlc.datasets.nano.corpus import FASHION_USED
from clipnlc.datasets.nano.palette import SIZE, generator
from clipnlc.datasets.nano.sets import POOL, SETS
from clipnlc.datasets.source import open_split, splits

MEGABYTE = 1_000_000
RENDERED = ("colors", "counts", "patterns", "shapes")
FEW_PER_CLASS = {"emoji_kind", "icon_kind"}  # the artists drew no more of some kinds


def card(key):
    return json.loads((nano.FOLDER / key / "dataset.json").read_text("utf-8"))


@cache
def rows(key):
    """Every row of a set: (part, id, label, digest of the pixels)."""
    found = []
    for file in sorted((nano.FOLDER / key).glob("*.parquet")):
        for row in pq.read_table(file).to_pylist():
            image = Image.open(io.BytesIO(row["image"]["bytes"]))
            assert (image.mode, image.size) == ("RGB", (SIZE, SIZE))
            pixels = hashlib.sha256(image.tobytes()).digest()
            found.append((file.stem, row["id"], row["label"], pixels))
    return found


def part(key, name):
    return [row for row in rows(key) if row[0].split("-")[0] == name]


class TestTheFamily:
    def test_at_least_nine_sets_five_of_them_real(self):
        assert len(nano.KEYS) >= 9
        assert sum(card(key)["kind"].startswith("real") for key in nano.KEYS) >= 5

    def test_keys_definitions_and_folders_agree(self):
        folders = {path.name for path in nano.FOLDER.iterdir() if path.is_dir()}
        assert nano.KEYS == tuple(d.key for d in SETS) == tuple(sorted(folders))

    def test_the_cards_are_the_definitions(self):
        for definition in SETS:
            found = card(definition.key)
            for field in ("key", "kind", "note", "licence"):
                assert found[field] == getattr(definition, field)
            assert found["class_names"] == list(definition.class_names)
            assert found["templates"] == list(definition.templates)

    def test_the_record_of_the_build_agrees_with_the_cards(self):
        record = json.loads((nano.FOLDER / "data.json").read_text("utf-8"))
        assert set(record["sets"]) == set(nano.KEYS)
        for key, facts in record["sets"].items():
            assert facts == {k: card(key)[k] for k in ("rows", "digest")}
        assert record["corpus"]["rows"] == sum(record["corpus"]["sources"].values())

    def test_the_catalogue_lists_them(self):
        entries = {entry.key: entry for entry in catalogue()}
        for key in nano.KEYS:
            assert entries[key].test == len(part(key, "test"))
            assert entries[key].train == len(part(key, "train"))
            assert entries[key].classes == len(card(key)["class_names"])

    def test_the_package_stays_small(self):
        data = sum(p.stat().st_size for p in nano.FOLDER.rglob("*") if p.is_file())
        weights = [p.stat().st_size for p in backbones.WEIGHTS.glob("*")]
        assert data + sum(weights) <= 25 * MEGABYTE
        assert max(weights) <= 1.6 * MEGABYTE

    def test_no_weights_of_an_unknown_backbone(self):
        assert {p.stem for p in backbones.WEIGHTS.glob("*.safetensors")} <= set(backbones.NAMES)


@pytest.mark.parametrize("key", nano.KEYS)
class TestEachSet:
    def test_sizes(self, key):
        assert len(part(key, "test")) >= 600
        pool = Counter(label for _, _, label, _ in part(key, "train"))
        assert set(pool) == set(range(len(card(key)["class_names"])))
        if key not in FEW_PER_CLASS:
            assert min(pool.values()) >= POOL >= 32
        assert Counter(stem for stem, *_ in rows(key)) == card(key)["rows"]

    def test_every_class_is_tested(self, key):
        counts = Counter(label for _, _, label, _ in part(key, "test"))
        assert set(counts) == set(range(len(card(key)["class_names"])))

    def test_identifiers_are_unique(self, key):
        identifiers = [identifier for _, identifier, _, _ in rows(key)]
        assert len(set(identifiers)) == len(identifiers)

    def test_no_image_is_in_train_and_in_test(self, key):
        train, test = ({pixels for *_, pixels in part(key, p)} for p in ("train", "test"))
        assert not train & test

    def test_it_opens_like_any_data_set(self, key):
        found = datasets.open_dataset(key)
        assert splits(found.root) == ("train", "test")
        for name in ("train", "test"):
            split = open_split(found.root, name)
            assert split.class_names == tuple(card(key)["class_names"])
            assert sorted(split.labels) == sorted(label for _, _, label, _ in part(key, name))
        assert found.templates == tuple(card(key)["templates"])

    def test_several_templates_and_distinct_class_names(self, key):
        names, templates = card(key)["class_names"], card(key)["templates"]
        assert len(templates) >= 2
        assert all("{c}" in template for template in templates)
        assert len(set(names)) == len(names) >= 6

    def test_its_licence_is_stated(self, key):
        assert card(key)["licence"].split()[0] in ("MIT", "CC-BY-4.0")


def drawn(key, packages):
    """Draw a rendered set anew, row by row."""
    (definition,) = (d for d in SETS if d.key == key)
    return definition.rows(packages)


@pytest.mark.parametrize("key", RENDERED)
def test_rendered_sets_are_drawn_again_to_the_recorded_digest(key, tmp_path):
    # The digest covers the pixels as drawn: a WebP file would depend on its library's release.
    digest = hashlib.blake2b(digest_size=16)
    for row in drawn(key, tmp_path):
        digest.update(row.pixels.tobytes())
        digest.update(json.dumps([row.identifier, str(row.label), row.part]).encode())
    assert digest.hexdigest() == card(key)["digest"]


@pytest.mark.parametrize("key", RENDERED)
def test_an_image_depends_on_its_own_number_only(key, tmp_path):
    first, second = (list(itertools.islice(drawn(key, tmp_path), 3)) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert a.pixels.tobytes() == b.pixels.tobytes()
        assert (a.pixels.shape, a.pixels.dtype) == ((SIZE, SIZE, 3), np.uint8)
    assert len({row.pixels.tobytes() for row in first}) == 3


def test_generators_are_seeded_by_section_and_index():
    draws = [generator(s, i).integers(2**62) for s, i in (("a", 0), ("a", 0), ("a", 1), ("b", 0))]
    assert draws[0] == draws[1]
    assert len(set(draws)) == 3


def test_fashion_trains_on_rows_the_corpus_never_drew_from():
    identifiers = [identifier for _, identifier, _, _ in part("fashion", "train")]
    assert min(int(i.split("-")[1]) for i in identifiers) >= FASHION_USED
    assert all(i.startswith("t10k-") for _, i, _, _ in part("fashion", "test"))


def test_the_accuracies_of_the_page_are_rounded_once():
    """Each is a count of test images over all of them, as `recipe.json` has it with two decimals."""
    recipe = json.loads(backbones.RECIPE.read_text("utf-8"))
    page = (Path(__file__).parent.parent / "docs/nano.md").read_text("utf-8")
    table = page.split("<!-- accuracy -->")[1].split("<!-- end -->")[0].strip().splitlines()
    images = {key: len(open_split(nano.dataset_root(key), "test")) for key in nano.KEYS}
    assert len(table[2:]) == len(recipe)
    for line in table[2:]:
        name, *cells = (cell.strip(" *") for cell in line.strip("|").split("|"))
        exact = []
        for key, number in images.items():
            recorded = recipe[name]["zero_shot_accuracy"][key]
            exact.append(100 * round(recorded * number / 100) / number)
            assert round(exact[-1], 2) == recorded
        assert cells == [f"{value:.1f}" for value in (*exact, np.mean(exact))]


def test_images_that_a_pool_shares_with_the_test_of_another_set_are_those_the_page_names():
    images = {
        (key, split): {sample.data for sample in open_split(nano.dataset_root(key), split).read()}
        for key in nano.KEYS
        for split in ("train", "test")
    }
    shared = {
        (pool, test): len(images[pool, "train"] & images[test, "test"])
        for pool in nano.KEYS
        for test in nano.KEYS
    }
    assert {pair: count for pair, count in shared.items() if count} == {
        ("emoji_kind", "emoji_group"): 254,
        ("emoji_group", "emoji_kind"): 71,
    }


def test_sets_that_share_images_are_one_cluster():
    images = {key: {pixels for *_, pixels in rows(key)} for key in nano.KEYS}
    for one, other in itertools.combinations(nano.KEYS, 2):
        together = cluster_of(one) == cluster_of(other)
        assert bool(images[one] & images[other]) == together, (one, other)
    assert cluster_of("my-photos") == "my-photos"
