"""Every command that a message spells: it is provoked, run as printed, and must lead somewhere.

A case makes the message in a small store and says which places of the source spell it. The test of
the places fails where a new one spells a command that no case provokes.
"""

import ast
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from command_line import MEMBERS, QUICK, Ended, environment, flip_a_byte, write_photos
from datasets_on_disk import png, put
from test_pretrain import write_corpus

import clipnlc
from clipnlc.stores.feature_writing import write_features
from clipnlc.stores.features import read_features
from clipnlc.stores.fits import add_fits, read_fits
from clipnlc.stores.layout import Layout
from clipnlc.stores.logits import read_logits

PACKAGE = Path(clipnlc.__file__).parent
NANO = "nano-RN50,nano-ViT-B-16"
TWO = ["--backbones", NANO]

# Where commands are spelled ---------------------------------------------------------------------

ELSEWHERE = {
    "cli.app": "help, run by test_cli",
    "cli.extracting.extract#help": "help",
    "cli.making.nano_data": "after the public packages were downloaded: tests/test_nano_rebuild.py",
    "cli.measuring._of_protocol": "run by tests/test_cli_protocols.py",
    "cli.output.say_next": "spells what its callers say",
    "cli.refusals._message": "`--help`, which test_cli runs of every command",
    "reports.card._accuracy": "a model card, for people without the store",
    "reports.card._use": "a model card; tests/test_export.py runs it",
    "reports.tables._published_notes": "of published data sets: tests/test_reports.py",
    "runs.inputs._check_of_all": "takes the person's --labels too: test_datasets_labels_file.py",
    "runs.exported.open_exported": "of exports forged with fresh digests: tests/test_export.py",
    "runs.fitted.Fitted.combiner": "of fits forged with fresh digests: tests/test_runs_fitted.py",
    "runs.fitted._unfit": "of fits forged with fresh digests: tests/test_fuzz_stores.py",
    "runs.mixture.part_of": "of an import that is half there: tests/test_heads_auto.py",
    "stages.evaluate.applying._outcome": "of fits forged with fresh digests",
    "stages.evaluate.applying._stored": "of what fits gave, forged: tests/test_fuzz_stores.py",
    "stages.merge._newest_key": "while another process removes shards",
    "stages.verify.verify": "as cli.options.existing, for callers in Python",
    "stores.export._spelled.refuse": "of fits that no combiner makes",
    "stores.aligned._aligned_features": "of logits forged with fresh digests: tests/test_cli_errors",
    "stores.fitted.not_written": "of fits that no combiner makes",
    "stores.logits.write_logits.refuse": "of logits that no head makes",
    "stores.shards._tiling": "of shards forged to overlap: tests/test_merge.py",
    "stores.status.store_status": "as cli.options.existing, for callers in Python",
}
"""Places that no case provokes, and why."""

SPELLERS = ("command", "import_command", "maker", "maker_of_test", "say_next", "_say_fit", "_maker",
            "_aligning_command", "_one_ensemble", "_remake_logits", "_without_train",
            "without_import", "without_train")  # fmt: skip
ONLY_RETURN = ("cli.extracting._say_fit", "extraction.request.Request.spelled",
               "reports.files._maker", "runs.freshness._remake_logits",
               "stores.aligned._aligning_command", "stores.layout.maker",
               "stores.layout.maker_of_test", "stores.layout.without_import",
               "stores.layout.without_train",
               "stores.layout.Location.command", "stores.layout.import_command",
               "runs.inputs._without_train", "stages.evaluate.finding._one_ensemble")  # fmt: skip
"""Spell a command for the places that call them, which are listed instead."""


def spelling_places() -> set[str]:
    """Find every function that spells a command: by a call, `.command`, or word for word."""
    found = set()

    def visit(node: ast.AST, place: str) -> None:
        for child in ast.iter_child_nodes(node):
            below = place
            if isinstance(child, ast.FunctionDef | ast.ClassDef):
                below = f"{place}.{child.name}"
            docstring = isinstance(child, ast.Constant) and isinstance(node, ast.Expr)
            if _spells(child) and not docstring:
                in_help = isinstance(child, ast.Constant) and not isinstance(node, ast.JoinedStr)
                found.add(f"{below}#help" if in_help and place.startswith("cli.extr") else below)
            visit(child, below)

    for path in PACKAGE.rglob("*.py"):
        module = path.relative_to(PACKAGE).with_suffix("").as_posix().replace("/", ".")
        if module != "commands":
            visit(ast.parse(path.read_text("utf-8")), module)
    return found - set(ONLY_RETURN)


def _spells(node: ast.AST) -> bool:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return node.func.id in SPELLERS
    if isinstance(node, ast.Attribute) and node.attr in ("command", "spelled"):
        return not (isinstance(node.value, ast.Name) and node.value.id in ("app", "trait"))
    words = r"clipnlc (extract|merge|train|eval|div|predict|export|status|verify|doctor|--help)"
    help_of = r"`.*--help`"
    text = node.value if isinstance(node, ast.Constant) else None
    return isinstance(text, str) and bool(re.search(rf"{words}|{help_of}|--help`", text))


def test_every_place_that_spells_a_command_has_a_case():
    covered = {place for one in CASES.values() for place in one.places}
    assert covered & set(ELSEWHERE) == set()
    assert spelling_places() == covered | set(ELSEWHERE)


def test_a_new_place_would_be_seen():
    for code in ("command('x')", "location.command", "f'run `clipnlc extract {x}`'", "maker(path)"):
        assert any(map(_spells, ast.walk(ast.parse(code)))), code


# Cases ------------------------------------------------------------------------------------------


@dataclass
class Box:
    """A folder with photos and a store of them, where commands run."""

    root: Path
    here: Callable[..., Ended]

    @property
    def store(self) -> Path:
        return self.root / "my store"  # to be quoted

    @property
    def layout(self) -> Layout:
        return Layout(self.store)

    def good(self, *words: object) -> None:
        ended = self.here(*words, "--store", self.store)
        assert ended.code == 0, ended

    def logits(self, backbone: str = "nano-RN50") -> Path:
        return self.layout.logits("photos", "zero-shot", backbone)

    def features(self, backbone: str = "nano-RN50", split: str = "train") -> Path:
        return self.layout.features("photos", split, backbone)


Provoking = Iterator[list[object]]


@dataclass(frozen=True)
class Case:
    """What provokes a message, and the places that spell its command.

    Attributes:
        fill: what stands for the words that a reader must put in.
        again: whether the first command is run again, to succeed or to be refused otherwise.
    """

    provoke: Callable[[Box], Provoking]
    places: tuple[str, ...]
    fill: dict[str, str]
    again: bool


CASES: dict[str, Case] = {}


def case(*places: str, fill: dict[str, str] | None = None, again: bool = True):
    def register(provoke: Callable[[Box], Provoking]) -> Callable[[Box], Provoking]:
        CASES[provoke.__name__] = Case(provoke, places, fill or {}, again)
        return provoke

    return register


MORE = {"--dataset …": "--dataset ./photos"}


@case("cli.extracting.extract")
def after_extract(box):
    yield ["extract", "-d", "photos", *TWO]


@case("cli.extracting.extract")
def after_extract_of_rows(box):
    shutil.rmtree(box.store)
    yield ["extract", "-d", "photos", "-b", "nano-RN50", "--split", "train", "--rows", "0:5"]


@case("cli.extracting.merge")
def merged_too_early(box):
    shutil.rmtree(box.store)
    box.good("extract", "-d", "photos", "-b", "nano-RN50", "--split", "train", "--rows", "0:5")
    yield ["merge"]


@case("cli.fitting.train_heads")
def after_train_heads(box):
    yield ["train-heads", "--epochs", 1]


@case("cli.fitting.train_nlc")
def after_train_nlc(box):
    yield ["train-nlc", *QUICK]


@case("cli.measuring.evaluate", "cli.measuring._offer_diversity")
def after_evaluate(box):
    yield ["evaluate"]


@case("cli.measuring._offer_diversity")
def after_evaluate_where_an_imported_backbone_has_no_texts(box):
    for split in ("train", "test"):
        found = read_features(box.features(split=split))
        np.savez(
            box.root / f"forest-{split}.npz",
            features=found.features[:, :3],
            labels=found.labels,
            sample_id=np.array(found.sample_id),
            class_names=np.array(found.class_names),
        )
        words = ("--backbone", "forest", "--dataset", "photos", "--split", split)
        box.good("import", box.root / f"forest-{split}.npz", *words)
    yield ["evaluate"]


@case("cli.running._say_next", fill={"PHOTOS": "photos/test"})
def after_run(box):
    yield ["run", "photos", *TWO]


@case("cli.labelling.label")
def after_label(box):
    yield ["label", "photos", "--classes", "red,green,blue", "--count", 6, "-b", "nano-RN50"]


@case("cli.unlabelled._say_doubts")
def after_run_without_labels(box):
    yield ["run", "photos/train", "--classes", "red,green,blue", *TWO]


@case("cli.exporting._say_exported", "stages.export.export", fill={"PHOTOS": "photos/test"})
def after_export(box):
    yield ["export", "--shots", 1, "--out", "my ensemble"]


@case("cli.making.pretrain", fill=MORE)
def after_pretrain(box):
    write_corpus(box.root / "corpus.parquet")
    yield [
        *("pretrain", "--data", "corpus.parquet", "--backbone", "nano-RN50", "--out", "weights"),
        *("--steps", 2, "--batch-size", 8, "--warmup", 1),
    ]


@case("cli.options.existing", fill=MORE)
def no_store(box):
    shutil.rmtree(box.store)
    yield ["status"]


@case("cli.predictors.fitted", fill=MORE)
def no_store_to_predict_from(box):
    shutil.rmtree(box.store)
    yield ["predict", "photos"]


@case("extraction.finishing.write_zero_shot_logits", again=False)  # it asks for what cannot be
def splits_with_other_prompts(box):
    (box.root / "prompts.txt").write_text("a picture of a {c}\n")
    yield [
        *("extract", "-d", "photos", "-b", "nano-RN50", "--split", "test"),
        *("--templates", "prompts.txt"),
    ]


@case("reports.files.record_bytes")
def a_folder_in_a_records_place(box):
    box.good("evaluate")
    (record,) = box.store.glob("photos/records/*.json")
    record.unlink()
    record.mkdir()
    yield ["evaluate"]
    record.rmdir()


@case("stores._h5.reading._check_signature")
def a_folder_in_the_place_of_logits(box):
    box.logits().unlink()
    box.logits().mkdir()
    yield ["diversity"]
    box.logits().rmdir()


@case("stores.place.check_place")
def features_of_another_split(box):
    path = box.features(split="train")
    shutil.copy(box.features(split="test"), path)
    yield ["train-heads", "--epochs", 1]
    path.unlink()


@case("runs.finding._runs_of")
def fits_of_other_members(box):
    (path,) = box.store.glob("photos/fits/zero-shot/*/no-labels.h5")
    fits = read_fits(path)
    path.unlink()
    add_fits(path, replace(fits, backbones=(*fits.backbones[1:], "nano-RN101")))
    yield ["evaluate"]
    path.unlink()


@case("reports.files.delete_and_run")
def a_damaged_record(box):
    box.good("evaluate")
    (record,) = box.store.glob("photos/records/*.json")
    record.write_text(record.read_text("utf-8").replace("0.", "0.9", 1))
    yield ["evaluate"]
    record.unlink()


@case("runs.finding.datasets_with_logits")
def a_data_set_that_was_not_extracted(box):
    write_photos(box.root / "birds", train=2, test=2)
    yield ["train-nlc", "-d", "birds", *QUICK]


@case("runs.finding.datasets_with_logits", fill=MORE)
def nothing_extracted(box):
    shutil.rmtree(box.store / "photos")
    yield ["diversity"]


@case("runs.finding.datasets_with_logits")
def a_head_that_was_not_trained(box):
    yield ["diversity", "--head", "linear"]


@case("runs.finding.datasets_with_logits")
def neither_fits_nor_logits(box):
    shutil.rmtree(box.store / "photos")
    yield ["evaluate", "-d", "photos"]


@case("runs.finding.find_runs")
def no_fits_of_these_backbones(box):
    yield ["evaluate", "-d", "photos", "-b", "nano-RN50"]


@case("runs.finding.datasets_with_runs")
def no_fits(box):
    shutil.rmtree(box.store / "photos/fits")
    yield ["evaluate"]


@case("runs.finding.others_that_share_classes", fill={"--dataset …": "--dataset ./others"})
def no_other_data_set(box):
    write_photos(box.root / "others", train=1, test=2)
    yield ["evaluate", "--fitted-on", "photos"]


@case("runs.freshness.refuse_stale_logits")
def stale_logits(box):
    box.good("extract", "-d", "photos", *TWO)
    kept = box.logits().read_bytes()
    Path(box.root / "photos/train/red/00.png").unlink()
    box.good("extract", "-d", "photos", *TWO)
    box.logits().write_bytes(kept)
    yield ["diversity"]


@case("runs.freshness.refuse_stale_runs")
def stale_fits(box):
    Path(box.root / "photos/train/red/00.png").unlink()
    box.good("extract", "-d", "photos", *TWO)
    yield ["evaluate"]


@case(
    "runs.freshness.refuse_stale_runs",
    fill={"--class-proportions …": "--class-proportions shares.csv"},
)
def stale_fits_with_class_proportions(box):
    (box.root / "shares.csv").write_text("red,8\ngreen,1\nblue,1\n")
    shutil.rmtree(box.store / "photos/fits")
    fit = ("train-nlc", "--combiners", "balanced", "--shots", 1, "--seeds", 1, "--workers", 1)
    box.good(*fit, "--class-proportions", "shares.csv")
    yield from stale_fits(box)


@case("runs.predictor.missing_fit")
def labels_that_nothing_was_fitted_on(box):
    yield ["predict", "photos/test", "--shots", 3, "--combiner", "c-conf"]


@case("runs.predictor.only_labels")
def a_seed_that_nothing_was_fitted_with(box):
    yield ["predict", "photos/test", "--seed", 3, "--combiner", "c-log-avg"]


@case("runs.predictor._feature_key")
def no_features_to_predict_with(box):
    for split in ("train", "test"):
        box.features(split=split).unlink()
    yield ["predict", "photos/test", "--combiner", "c-conf", "--shots", 1]


@case("stages.diversity._refuse_one", fill={"--backbones …": "--backbones nano-ViT-B-32"})
def one_backbone(box):
    shutil.rmtree(box.store)
    box.good("extract", "-d", "photos", "-b", "nano-RN50")
    yield ["diversity"]


@case("stages.doctor.__init__.doctor")
def logits_of_other_class_names(box):
    (box.root / "photos/train/red").rename(box.root / "photos/train/rose")
    (box.root / "photos/test/red").rename(box.root / "photos/test/rose")
    yield ["doctor", "photos"]


@case("stages.doctor.__init__.doctor")
def no_logits_for_the_doctor(box):
    shutil.rmtree(box.store / "photos")
    yield ["doctor", "photos"]


@case("stages.doctor.__init__.doctor")
def no_test_split_and_a_broken_image_for_the_doctor(box):
    shutil.move(box.root / "photos/train", box.root / "away from here")
    (box.root / "away from here/red/broken.png").write_bytes(b"")
    yield ["doctor", str(box.root / "away from here"), "--name", "elsewhere"]


def second(box, *words):
    """Extract a second data set."""
    write_photos(box.root / "second", train=3, test=3)
    box.good("extract", "-d", "second", *words)


@case("stages.evaluate.finding._check_one_ensemble")
def other_backbones_of_another_data_set(box):
    second(box, "-b", "nano-RN50")
    box.good("train-nlc", "-d", "second", *QUICK, "--workers", 1)
    yield ["evaluate"]


@case("stages.evaluate.finding._check_one_ensemble")
def fits_of_another_ensemble(box):
    second(box, *TWO)
    box.good("train-nlc", "-d", "second", "-b", "nano-RN50", *QUICK, "--workers", 1)
    yield ["evaluate"]


@case("stages.merge.merge", fill={**MORE, "--split …": "--split train", "START:STOP": "0:5"})
def nothing_to_merge(box):
    shutil.rmtree(box.store / "photos")
    yield ["merge"]


@case("stages.predict.__init__.zero_shot", again=False)  # it asks for what cannot be
def a_combiner_that_needs_labels(box):
    yield ["predict", "photos/test", "--classes", "red,green", "--combiner", "nlc"]


@case("stages.predict.__init__.zero_shot", again=False)  # it asks for what cannot be
def a_combiner_that_needs_unlabelled_images(box):
    yield ["predict", "photos/test", "--classes", "red,green", "--combiner", "balanced"]


@case("stages.train_heads._with_features", fill=MORE)
def no_features_to_train_on(box):
    shutil.rmtree(box.store / "photos")
    yield ["train-heads", "--epochs", 1]


@case("stages.train_heads._with_train")
def no_features_of_train(box):
    shutil.rmtree(box.store / "photos")
    box.good("extract", "-d", "photos", "-b", "nano-RN50", "--split", "test")
    yield ["train-heads", "-d", "photos", "--epochs", 1]


@case("runs.mixture.refuse_without_texts", again=False)  # the head that was asked for has no logits
def a_backbone_without_texts(box):
    for split in ("train", "test"):
        path = box.features(split=split)
        kept = read_features(path)
        write_features(
            path,
            kept.key,
            features=kept.features,
            labels=kept.labels,
            sample_id=kept.sample_id,
            class_names=kept.class_names,
        )
    box.logits().unlink()
    yield ["train-nlc", *QUICK]


@case("runs.inputs._inputs")
def no_train_to_fit_on(box):
    shutil.rmtree(box.store / "photos")
    box.good("extract", "-d", "photos", "-b", "nano-RN50", "--split", "test")
    yield ["train-nlc", *QUICK]


@case("runs.inputs._inputs")
def neither_train_nor_test(box):
    shutil.rmtree(box.store / "photos")
    (box.root / "photos/test").rename(box.root / "photos.test")
    for name in (box.root / "photos/train").iterdir():
        name.rename(box.root / "photos" / name.name)
    (box.root / "photos/train").rmdir()
    box.good("extract", "-d", "photos", "-b", "nano-RN50")
    yield ["train-nlc", *QUICK]


@case("runs.inputs.inputs_of_runs")
def heads_of_other_labels(box):
    rla = ("--head", "rla", "--seeds", 1)
    box.good("train-heads", *rla, "--shots", 1)
    yield ["train-nlc", *rla, "--shots", 2, "--combiners", "log-avg"]


@case("runs.teacher.find_teachers")
def no_teacher_yet(box):
    yield ["train-heads", "--head", "distilled", "--shots", "0,1", "--seeds", 1]


@case("runs.crops._cure")
def crops_for_one_backbone(box):
    box.good("extract", "-d", "photos", "-b", "nano-RN50", "--crops", 1)
    yield ["train-heads", "--head", "tip-adapter", "--shots", 1, "--seeds", 1]


@case("stages.extract._Work.dataset")
def other_class_names_for_one_backbone(box):
    (box.root / "names.txt").write_text("red = rose\ngreen = grass\nblue = sky\n")
    yield ["extract", "-d", "photos", "-b", "nano-RN50", "--class-names", "names.txt"]


@case("extraction.stored.refuse_unlike")
def other_class_names_for_one_split(box):
    (box.root / "names.txt").write_text("red = rose\ngreen = grass\nblue = sky\n")
    yield [
        *("extract", "-d", "photos", "-b", "nano-RN50", "--split", "test"),
        *("--class-names", "names.txt"),
    ]


@case("extraction.stored.is_to_be_replaced", again=False)  # it asks for the other's place
def another_data_set_of_the_same_name(box):
    for name in ("cat", "dog"):
        put(box.root / f"elsewhere/photos/test/{name}/0.png", png(len(name), size=(9, 7)))
    yield ["extract", "-d", "elsewhere/photos", "-b", "nano-RN50"]


@case("extraction.stored._cure_of_halves")
def one_half_of_another_division(box):
    shutil.rmtree(box.store / "photos")
    shutil.rmtree(box.root / "photos/test")
    box.good("extract", "-d", "photos", "-b", "nano-RN50")
    yield ["extract", "-d", "photos", "-b", "nano-RN50", "--test-share", 0.3, "--split", "test"]


def flat(box, folder="flat", seed=0):
    """Write photos without class folders, and a CSV of all their labels and of a part of them."""
    rows = []
    for number in range(18):
        name = ("red", "green", "blue")[number % 3]
        put(box.root / folder / f"{number}.png", png(seed + number, size=(20, 20)))
        rows.append(f"{number}.png,{name}")
    (box.root / "all.csv").write_text("\n".join(["file,label", *rows]))
    (box.root / "few.csv").write_text("\n".join(["file,label", *rows[:9]]))


@case("extraction.stored._cure_of_halves", again=False)  # the divided ones stay
def run_after_a_run_that_divided(box):
    flat(box)
    box.good("run", "flat", "--labels", "all.csv", "-b", "nano-RN50")
    yield ["run", "flat", "--labels", "few.csv", "-b", "nano-RN50", "--device", "cpu"]


@case("extraction.stored.is_to_be_replaced", again=False)  # it asks for the other's place
def run_of_other_photos_of_the_same_name(box):
    flat(box)
    box.good("run", "flat", "--labels", "few.csv", "-b", "nano-RN50")
    flat(box, "elsewhere/flat", seed=100)
    yield ["run", "elsewhere/flat", "--labels", "few.csv", "-b", "nano-RN50"]


@case("stores._h5.contents.damaged")
def damaged_logits(box):
    flip_a_byte(box.logits(), read_logits(box.logits()).splits["test"].logits)
    yield ["diversity"]
    box.logits().unlink()


@case("stores._h5.contents.damaged")
def damaged_features(box):
    flip_a_byte(box.features(), read_features(box.features()).features)
    yield ["train-heads", "--epochs", 1]
    box.features().unlink()


@case("stores._h5.contents.damaged")
def a_damaged_fit(box):
    path = box.layout.fits("photos", "zero-shot", MEMBERS, "2-shots-seed-0")
    arrays = [a for fit in read_fits(path).fits.values() for a in fit.learnt.values()]
    flip_a_byte(path, max(arrays, key=lambda array: array.size))
    yield ["evaluate"]
    path.unlink()


@case("stores._h5.contents.damaged")
def what_a_damaged_fit_gave(box):
    box.good("evaluate")
    shutil.rmtree(box.store / "photos/records")
    path = min(box.store.glob("photos/given/**/2-shots-seed-0/test.h5"))
    path.write_bytes(path.read_bytes()[:-1000])
    yield ["evaluate"]
    path.unlink()


@case("stores._h5.contents.missing")
def absent_features(box):
    box.features().unlink()
    yield ["train-nlc", "--shots", 5, "--seeds", 1, "--combiners", "nlc"]


@case("stores.aligned.check_aligned")
def a_folder_that_grew_between_two_backbones(box):
    shutil.rmtree(box.store)
    box.good("extract", "-d", "photos", "-b", "nano-RN50")
    shutil.copy(box.root / "photos/train/red/00.png", box.root / "photos/train/red/000.png")
    box.good("extract", "-d", "photos", "-b", "nano-ViT-B-16")
    yield ["train-nlc", *QUICK, "--workers", 1]


def keep_one_fit(box):
    """So that `export` needs not be told which."""
    for path in box.store.glob("photos/fits/**/2-shots-*.h5"):
        path.unlink()


@case("stores.export._read")
def no_export(box):
    keep_one_fit(box)
    yield ["predict", "photos/test", "--from", "nowhere"]


@case("stores.export._refused")
def a_damaged_export(box):
    keep_one_fit(box)
    box.good("export", "--shots", 1, "--out", "ensemble")
    data = (box.root / "ensemble/ensemble.json").read_text("utf-8")
    (box.root / "ensemble/ensemble.json").write_text(data[:-40])
    yield ["predict", "photos/test", "--from", "ensemble"]


@case("stores.logits._check_present")
def logits_without_test(box):
    shutil.rmtree(box.store)
    box.good("extract", "-d", "photos", *TWO, "--split", "train")
    box.good("train-nlc", *QUICK, "--workers", 1)
    yield ["evaluate"]


@case("stores.status._shards_row")
def shards_that_wait(box):
    shutil.rmtree(box.store)
    box.good("extract", "-d", "photos", "-b", "nano-RN50", "--split", "train", "--rows", "0:5")
    yield ["status"]


def write_forest(box, *, split="train", backbone="nano-RN50", reverse=False):
    """Write logits for the images of a split, as a random forest might give them."""
    there = read_features(box.features(backbone, split))
    order = slice(None, None, -1 if reverse else 1)
    logits = np.eye(3)[there.labels] + 0.3 * np.random.default_rng(0).normal(
        size=(len(there.labels), 3)
    )
    np.savez(
        box.root / f"{split}.npz",
        logits=logits[order],
        labels=there.labels[order],
        sample_id=np.array(there.sample_id)[order],
        class_names=np.array(there.class_names),
    )


FOREST = ("--backbone", "forest", "--dataset", "photos")


@case("stores._h5.contents.missing")
def diversity_of_a_backbone_of_which_one_split_was_imported(box):
    write_forest(box, split="test")
    box.good("import", "test.npz", *FOREST, "--split", "test")
    yield ["diversity", "--head", "auto"]


@case("stages.import_arrays.import_arrays", again=False)  # it is new once
def a_data_set_that_is_nearly_one_in_the_store(box):
    write_forest(box)
    yield ["import", "train.npz", "--backbone", "forest", "-d", "photo", "--split", "train"]


@case("cli.importing._say_next")
def after_import(box):
    for split in ("test", "train"):
        write_forest(box, split=split)
        box.good("import", f"{split}.npz", *FOREST, "--split", split)
    yield ["import", "train.npz", *FOREST, "--split", "train"]


@case("stores._h5.contents.damaged", fill={"import …": "import train.npz"})
def damaged_features_of_an_imported_backbone(box):
    write_forest(box)
    box.good("import", "train.npz", *FOREST, "--split", "train")
    path = box.features("forest")
    path.write_bytes(path.read_bytes()[:-100])
    yield ["import", "train.npz", *FOREST, "--split", "train"]
    path.unlink()


def import_tower(box, *, texts=True):
    """Import a tower for both splits; with texts it takes part in the head zero-shot."""
    for split in ("train", "test"):
        there = read_features(box.features(split=split))
        np.savez(
            box.root / f"{split}.npz",
            features=there.features,
            sample_id=np.array(there.sample_id),
            **({"texts": there.texts, "logit_scale": there.logit_scale} if texts else {}),
        )
        box.good("import", f"{split}.npz", "--backbone", "tower", "-d", "photos", "--split", split)


@case("runs.imported.refuse_imported", again=False)  # it names another ensemble
def a_prediction_with_a_backbone_that_came_as_arrays(box):
    import_tower(box)
    fit = ("train-nlc", "--shots", 1, "--seeds", 1, "--combiners", "c-conf", "--workers", 1)
    box.good(*fit)
    yield ["predict", "photos/test", "--combiner", "c-conf", "-b", f"tower,{NANO}"]


@case("runs.mixture.label_free_logits", again=False)  # it names another ensemble
def diversity_of_a_backbone_that_is_fitted_per_draw(box):
    import_tower(box, texts=False)
    yield ["diversity", "--head", "auto"]


@case("stores.aligned.check_aligned", fill={"import …": "import test.npz --split test"})
def photos_that_an_imported_backbone_lacks(box):
    import_tower(box)
    Path(box.root / "photos/test/red/00.png").unlink()
    box.good("extract", "-d", "photos", *TWO)
    yield ["diversity"]
    there = read_features(box.features(split="test"))
    np.savez(box.root / "test.npz", features=there.features, texts=there.texts,
             logit_scale=there.logit_scale, sample_id=np.array(there.sample_id))  # fmt: skip


# Running them -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def first(first_fitted, photos, tmp_path_factory):
    root = tmp_path_factory.mktemp("messages") / "first"
    shutil.copytree(first_fitted, root / "my store")
    shutil.copytree(photos, root / "photos")
    return root


@pytest.fixture
def box(first, tmp_path, here, monkeypatch):
    shutil.copytree(first, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("COLUMNS", "2000")
    return Box(tmp_path / "here", here)


def spelled(said: str) -> list[str]:
    """Return the commands of a message, as printed."""
    return re.findall(r"`(clipnlc [^`]*)`", said) + re.findall(
        r"next: (clipnlc .*)$", said, re.MULTILINE
    )


def words(line: str) -> list[str]:
    """Let a shell split a line."""
    split = f"clipnlc() {{ printf '%s\\0' \"$@\"; }}; {line}"
    done = subprocess.run(["bash", "-c", split], capture_output=True, check=True)
    return done.stdout.decode().split("\0")[:-1]


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_the_command_of_a_message_leads_on(name, box, monkeypatch):
    check(CASES[name], box, monkeypatch, lambda line: box.here(*words(line)))


@pytest.mark.long
@pytest.mark.parametrize("name", CASES)
def test_the_command_of_a_message_leads_on_in_a_shell(name, box, monkeypatch, tmp_path):
    script = tmp_path / "bin/clipnlc"
    script.parent.mkdir()
    python = Path(pytest.__file__).parents[4] / "bin/python"
    script.write_text(f'#!/bin/sh\nexec {python} -m clipnlc "$@"\n')
    script.chmod(0o755)

    def run(line: str) -> Ended:
        store = {k: v for k, v in os.environ.items() if k == "CLIPNLC_STORE"}
        outer = environment(PYTHONPATH=str(PACKAGE.parent), **store)
        outer["PATH"] = f"{script.parent}:{outer['PATH']}"
        done = subprocess.run(
            ["bash", "-c", line], env=outer, capture_output=True, text=True, check=False
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    check(CASES[name], box, monkeypatch, run)


def check(one: Case, box: Box, monkeypatch, run):
    provoking = one.provoke(box)
    line = [str(word) for word in next(provoking)]
    if "--classes" not in line and line[0] != "pretrain" and "--from" not in line:
        line += ["--store", str(box.store)]
    if "--from" in line:
        monkeypatch.setenv("CLIPNLC_STORE", str(box.store))
    before = box.here(*line)
    assert before.code in (0, 2), before
    commands = spelled(before.out + before.err)
    assert commands, before
    for _ in provoking:  # what the message says to do first
        pass
    for command in commands:
        for blank, filled in one.fill.items():
            assert any(blank in each for each in commands), (blank, commands)
            command = command.replace(blank, filled)  # noqa: PLW2901
        assert "…" not in command
        cure = run(command)
        assert cure.code in (0, 2), (command, cure)
        assert not cure.code or cure.err != before.err, (command, cure)
    if before.code and one.again:
        after = box.here(*line)
        assert not after.code or after.err != before.err, (commands, after)
