"""Sound files in the wrong places: whatever reads one refuses it by name."""

import itertools
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from extracting import run as extract
from PIL import Image
from stores_examples import quick_disk  # noqa: F401  (a fixture)

from clipnlc.cli import main
from clipnlc.errors import StoreError
from clipnlc.labels import Labels
from clipnlc.reports import files as record_files
from clipnlc.runs import records
from clipnlc.stages.diversity import diversity
from clipnlc.stages.evaluate import evaluate
from clipnlc.stages.export import export
from clipnlc.stages.merge import merge
from clipnlc.stages.train_heads import train_heads
from clipnlc.stages.train_nlc import train_nlc
from clipnlc.stages.verify import verify
from clipnlc.stores import shards
from clipnlc.stores._h5 import reading, writing
from clipnlc.stores.features import read_feature_header, read_features
from clipnlc.stores.layout import Layout, locate
from clipnlc.stores.shards import shard_files
from clipnlc.stores.status import store_status
from clipnlc.stores.texts import read_texts
from clipnlc.stores.verify import verify_file

BACKBONES = ("nano-ViT-B-32", "nano-ViT-B-16")  # whose features have the same width
DATASETS = {"birds": ("one", "two"), "figures": ("circle", "square")}
HEADS = ("zero-shot", "linear")
LABELS = (Labels.shots(1), Labels.shots(2))
COMBINERS = ("log-avg", "static", "nlc")
ARCHIVE = Path(__file__).parent / "data" / "archives" / "store-v1" / "store"


def write_images(root: Path, names: tuple[str, ...]) -> None:
    random = np.random.default_rng(len(root.name))
    for split, name, number in itertools.product(("train", "test"), names, range(4)):
        path = root / split / name / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(path)


@pytest.fixture(scope="module")
def images(once) -> Path:
    def make(root: Path) -> None:
        for dataset, names in DATASETS.items():
            write_images(root / dataset, names)

    return once("places/images", make)


def make_all(store: Path, images: Path) -> None:
    """Make two files or more of every kind, each by its stage."""
    for dataset in DATASETS:
        extract(store, images / dataset, BACKBONES)
    for stage in stages(store, images):
        stage()


@pytest.fixture(scope="module")
def made(once, images, tmp_path_factory) -> Path:
    """A store with two files or more of every kind."""
    first = once("places/made/store", lambda store: make_all(store, images))
    return shutil.copytree(first, tmp_path_factory.mktemp("made") / "store")


def stages(store: Path, images: Path) -> list[partial[object]]:
    """Return every stage that reads a store, each on all that it can read."""
    settings = {"nlc": {"steps": 3}}
    fit = {"labels": LABELS, "seeds": (0,), "combiners": COMBINERS, "settings": settings}
    found: list[partial[object]] = [
        partial(extract, store, images / dataset, BACKBONES) for dataset in DATASETS
    ]
    found.append(partial(train_heads, store=store, settings={"epochs": 1}, holdout=0.5))
    found.append(
        partial(train_heads, store=store, settings={"epochs": 1}, labels=LABELS, seeds=(0,))
    )
    for head in HEADS:
        found.append(partial(train_nlc, store=store, head=head, **fit))
        found.append(partial(evaluate, store=store, head=head))
        found.append(partial(evaluate, store=store, head=head, datasets=["birds"]))
        found.append(partial(evaluate, store=store, head=head, keep_scores=True))
        found.append(partial(diversity, store=store, head=head))
        found.append(partial(diversity, store=store, head=head, datasets=["figures"]))
        out = store.parent / f"export-{head}"
        found.append(
            partial(
                export,
                store=store,
                out=out,
                dataset="birds",
                head=head,
                which=LABELS[0],
                combiner="nlc",
            )
        )
    return found


@pytest.fixture
def store(made) -> Path:
    """The store; whoever changes it puts it back."""
    return made


def files(store: Path) -> dict[str, list[Path]]:
    """Return the files of a store by kind."""
    found: dict[str, list[Path]] = {}
    for path in sorted(store.rglob("*.h5")):
        location = locate(path)
        assert location is not None
        found.setdefault(location.kind, []).append(path)
    for stage in ("evaluate", "diversity"):
        found[stage] = sorted(store.rglob(f"{stage}-*.json"))
    return found


@contextmanager
def swapped(one: Path, two: Path) -> Iterator[None]:
    def swap() -> None:
        between = one.rename(one.with_name("between"))
        two.rename(one)
        between.rename(two)

    swap()
    try:
        yield
    finally:
        swap()


def verify_one(store: Path, path: Path) -> None:
    if path.suffix == ".h5":
        verify_file(path)
    else:
        records.verify_record(Layout(store), path)


def check_refused(store: Path, pair: tuple[Path, Path]) -> None:
    """Swap two files and read both."""
    with swapped(*pair):
        for path in pair:
            with pytest.raises(StoreError, match=rf"^{path} is misplaced: it is ") as caught:
                verify_one(store, path)
            assert "\n" not in str(caught.value)


KINDS = ("features", "logits", "fits", "given", "texts", "evaluate", "diversity")


def test_there_are_several_files_of_every_kind(store):
    assert {kind: len(paths) for kind, paths in files(store).items()} == {
        "features": 8,
        "logits": 16,
        "fits": 12,
        "given": 12,
        "texts": 4,
        "evaluate": 6,
        "diversity": 4,
    }
    assert verify(store=store).damage == []
    assert not any(row.why for row in store_status(store))
    places = [path.relative_to(store).as_posix() for path in store.rglob("*.h5")]
    found = [row.path for row in store_status(store)]
    assert sorted(places) == sorted(found)


def neighbours(one: Path, two: Path) -> bool:
    """Tell whether two paths differ in one part: every other swap is made of such differences."""
    parts = itertools.zip_longest(one.parts, two.parts)
    return len(one.parts) == len(two.parts) and sum(a != b for a, b in parts) == 1


Reads = list[tuple[partial[object], set[Path]]]


@pytest.fixture(scope="module")
def reads(made, images) -> Reads:
    """Every stage, and the files of the store that it opens."""
    found: Reads = []
    opened: list[Path] = []
    with pytest.MonkeyPatch.context() as patch:

        def record(module: object, name: str) -> None:
            read = getattr(module, name)
            patch.setattr(module, name, lambda path: opened.append(path) or read(path))

        record(reading, "_check_signature")
        record(record_files, "record_bytes")
        record(records, "record_bytes")
        for stage in stages(made, images):
            opened.clear()
            stage()
            found.append((stage, set(opened)))
    return found


def check_swaps(store: Path, reads: Reads, kind: str, *, every: bool) -> None:
    """Swap pairs of files and run what reads one of the two.

    Every pair and every call of a stage, or pairs of neighbours and each stage once.
    """
    for pair in itertools.combinations(files(store)[kind], 2):
        readers = [stage for stage, paths in reads if paths & set(pair)]
        assert readers or kind == "texts"  # which are read where features are made
        check_refused(store, pair)
        if not every:
            once = {stage.func: stage for stage in readers}
            readers = list(once.values()) if neighbours(*pair) else []
        with swapped(*pair):
            for stage in readers:
                with pytest.raises(StoreError, match=rf"^({pair[0]}|{pair[1]}) is misplaced: "):
                    stage()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_two_files_that_were_swapped_are_refused_by_every_stage_that_reads_them(store, reads, kind):
    check_swaps(store, reads, kind, every=False)


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_any_two_files_that_were_swapped_are_refused_by_every_call_of_a_stage(store, reads, kind):
    check_swaps(store, reads, kind, every=True)


def test_status_and_verify_name_what_is_misplaced_and_go_on(store):
    layout = Layout(store)
    pair = [layout.features(dataset, "test", BACKBONES[0]) for dataset in DATASETS]
    with swapped(*pair):
        damage = dict(verify(store=store).damage)
        rows = {row.path: row.why for row in store_status(store) if not row.complete}
    assert list(damage) == sorted(pair)
    assert sorted(rows) == sorted(map(layout.relative, pair))
    assert all(
        " is misplaced: it is of dataset " in why for why in [*damage.values(), *rows.values()]
    )


@pytest.fixture
def copy(made, tmp_path) -> Path:
    return shutil.copytree(made, tmp_path / "store")


def test_texts_of_other_classes_are_refused_where_features_are_made(copy, images):
    """As when the text cache of one data set is copied over that of another."""
    layout = Layout(copy)
    of = {names: dataset for dataset, names in DATASETS.items()}
    for one, two in itertools.combinations(files(copy)["texts"], 2):
        dataset = of[read_texts(one).class_names]
        left = layout.features(dataset, "test", locate(one).backbone)
        kept = left.read_bytes()
        left.unlink()
        with (
            swapped(one, two),
            pytest.raises(StoreError, match=rf"^{one} is misplaced: it is of "),
        ):
            extract(copy, images / dataset, BACKBONES)
        left.write_bytes(kept)


def test_shards_of_another_split_or_backbone_are_not_merged(copy, images):
    layout = Layout(copy)
    paths = [layout.features("birds", "test", backbone) for backbone in BACKBONES]
    for path in paths:
        shards.reseal(path, read_feature_header(path).key, read_features(path).labels)
        path.unlink()
    one, two = (shard_files(path)[0] for path in paths)
    with swapped(one, two):
        for stage in (
            partial(merge, store=copy),
            partial(extract, copy, images / "birds", BACKBONES),
        ):
            with pytest.raises(StoreError, match=rf"^({one}|{two}) is misplaced: it is of backb"):
                stage()
        assert [path for path, _ in verify(store=copy).damage] == sorted([one, two])
    merge(store=copy)
    assert verify(store=copy).damage == []


def test_a_store_may_be_moved_and_a_data_set_keeps_its_name(copy, tmp_path, images, capsys):
    moved = copy.rename(tmp_path / "elsewhere")
    assert verify(store=moved).damage == []
    layout = Layout(moved)
    layout.dataset("birds").rename(layout.dataset("fowl"))
    assert main(["evaluate", "--store", str(moved)]) == 2
    told = capsys.readouterr().err
    assert "is misplaced: it is of dataset birds, expected dataset fowl; move it to where" in told
    assert " or delete it, and run `clipnlc " in told
    layout.dataset("fowl").rename(layout.dataset("birds"))
    assert main(["evaluate", "--store", str(moved), "--quiet"]) == 0


@pytest.fixture(scope="module")
def older(once, images, tmp_path_factory) -> Path:
    """The store as it was written before files carried their place."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "place_of", lambda _path: None)
        first = once("places/older/store", lambda store: make_all(store, images))
    return shutil.copytree(first, tmp_path_factory.mktemp("older") / "store")


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS[:5])
def test_older_files_are_compared_by_what_their_keys_name(older, kind):
    assert verify(store=older).damage == []
    for pair in itertools.combinations(files(older)[kind], 2):
        one, two = (locate(path) for path in pair)
        # Features name no data set, and fits without labels neither: they are made of names alone.
        alike = kind == "features" or (kind == "fits" and {one.run, two.run} == {"no-labels"})
        if alike and neighbours(*pair) and one.dataset != two.dataset:
            continue
        check_refused(older, pair)


def test_files_of_version_1_are_compared_by_what_their_keys_name(tmp_path):
    store = shutil.copytree(ARCHIVE, tmp_path / "store")
    assert verify(store=store).damage == []
    for kind in ("features", "logits", "combined", "texts"):
        paths = files(store)[kind]
        assert len(paths) > 1
        for pair in itertools.combinations(paths, 2):
            check_refused(store, pair)
