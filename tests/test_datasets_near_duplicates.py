"""Images that show nearly the same picture stay on one side of a division into train and test."""

import io
import itertools
import sqlite3

import numpy as np
import pytest
from datasets_on_disk import png, put
from PIL import Image

from clipnlc.datasets import open_dataset
from clipnlc.datasets.division import choose_test
from clipnlc.datasets.fingerprints import digest_image, verify_cache
from clipnlc.datasets.near_duplicates import MOST, MOST_MEAN, cells_of, chains, groups_of_images
from clipnlc.errors import DataError


def photo(seed, size=(160, 120)):
    """Make a smooth picture with detail, as a photo has."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC), dtype=np.int16)
    noisy = smooth + rng.integers(-20, 21, smooth.shape)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def versions(seed):
    """One picture saved in three ways."""
    image = photo(seed)
    half = image.resize((80, 60), Image.Resampling.LANCZOS)
    return [encoded(image), encoded(image, "JPEG", quality=50), encoded(half, "JPEG", quality=85)]


class Stored:
    """Encoded images in memory."""

    def __init__(self, data):
        self.data, self.reads = data, 0
        self.digests = np.array([list(digest_image(one)) for one in data], dtype=np.uint8)

    def read(self, start, stop):
        self.reads += stop - start
        return iter(self.data[start:stop])


def test_a_picture_saved_again_is_in_its_group_and_another_is_not():
    stored = Stored([data for seed in range(12) for data in versions(seed)])
    groups = groups_of_images(stored, stored.digests)
    assert groups.reshape(12, 3).tolist() == [[seed] * 3 for seed in groups[::3]]
    assert len(set(groups.tolist())) == 12


def test_cells_are_means_of_colours():
    pixels = np.zeros((16, 16, 3), dtype=np.uint8)
    pixels[:2, :2] = [[[10, 20, 30], [20, 20, 30]], [[10, 40, 30], [20, 40, 30]]]
    cells = np.frombuffer(cells_of(encoded(Image.fromarray(pixels))), np.uint8).reshape(8, 8, 3)
    assert cells[0, 0].tolist() == [15, 30, 30]
    assert not cells[0, 1:].any()
    assert cells_of(b"no image") == b""


def test_chains_agree_with_every_pair_compared():
    rng = np.random.default_rng(0)
    base = rng.integers(0, 256, (12, 192))
    near = [base[i % 12] + rng.integers(-9, 10, 192) for i in range(60)]
    cells = np.clip([*near, *rng.integers(0, 256, (20, 192))], 0, 255).astype(np.uint8)
    first = list(range(len(cells)))
    for a, b in itertools.combinations(range(len(cells)), 2):
        apart = np.abs(cells[a].astype(int) - cells[b])
        means = abs(cells[a].astype(int).sum() - cells[b].astype(int).sum()) / 192
        if apart.max() <= MOST and means <= MOST_MEAN:
            low, high = sorted((first[a], first[b]))
            first = [low if one == high else one for one in first]
    assert 32 < len(set(first)) < len(cells)
    assert chains(cells).tolist() == first
    order = rng.permutation(len(cells))
    again = chains(cells[order])
    assert {frozenset(order[again == g].tolist()) for g in again} == {
        frozenset(np.flatnonzero(np.array(first) == g).tolist()) for g in first
    }


def test_groups_by_hand():
    cells = np.full((5, 192), 100, dtype=np.uint8)
    cells[1, 0] = 116  # one cell by 16 levels: alike
    cells[2, 0] = 117  # by 17: not like the first, but like the second
    cells[3] += 3  # every cell by three: the means are too far apart
    cells[4, :2] = 140
    assert chains(cells).tolist() == [0, 0, 0, 3, 4]


def test_versions_of_a_picture_are_on_one_side_whatever_they_are_called(tmp_path):
    def made(root, name):
        for number, (seed, kind) in enumerate(itertools.product(range(10), range(3))):
            put(root / ("cat", "dog")[seed % 2] / name(number), versions(seed)[kind])
        return root

    def sides(root, cache=None):
        found = open_dataset(str(root), test_share=0.3)
        return {
            s: {x.data for x in found.open(s, hash_cache=cache).read()} for s in ("train", "test")
        }

    want = sides(made(tmp_path / "a", "{:02}.png".format))
    for seed in range(10):
        assert len({s for s in want for data in versions(seed) if data in want[s]}) == 1
    assert sum(map(len, want.values())) == 30
    assert 6 <= len(want["test"]) <= 12
    assert sides(made(tmp_path / "b", lambda n: f"{97 - n}.jpg"), tmp_path / "cache") == want
    (note,) = (
        one
        for one in open_dataset(str(tmp_path / "a"), test_share=0.3).open("test").notes
        if "nearly" in one
    )
    assert note == (
        "30 images of 10 groups that look nearly the same stay on one side each; the largest has 3 "
        "images: cat/00.png, cat/01.png, cat/02.png"
    )


def test_what_was_seen_is_not_decoded_again_and_damage_is_found(tmp_path):
    stored, cache = Stored([png(1), png(2), b"no image"]), tmp_path / "cache.sqlite"
    first = groups_of_images(stored, stored.digests, cache)
    assert (first.tolist(), stored.reads) == (
        sorted(set(first.tolist()), key=first.tolist().index),
        3,
    )
    np.testing.assert_array_equal(groups_of_images(stored, stored.digests, cache), first)
    assert stored.reads == 3
    verify_cache(cache)
    with sqlite3.connect(cache) as connection:
        connection.execute("UPDATE cells SET cells = x'00' WHERE length(cells) > 0")
    with pytest.raises(DataError, match=r"a row of how an image looks does not match its digest"):
        verify_cache(cache)
    np.testing.assert_array_equal(groups_of_images(stored, stored.digests, cache), first)
    assert stored.reads == 5


def test_a_division_without_groups_is_as_it_was():
    rng = np.random.default_rng(0)
    digests, labels = rng.integers(0, 256, (300, 16), dtype=np.uint8), rng.integers(0, 7, 300)
    want = choose_test(digests, labels, 0.3)
    np.testing.assert_array_equal(choose_test(digests, labels, 0.3, rng.permutation(300)), want)
    whole = choose_test(digests, labels, 0.3, np.arange(300) // 3)
    assert all(len(set(one)) == 1 for one in whole.reshape(-1, 3).tolist())
