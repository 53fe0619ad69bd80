"""`predict`: the classes of photos, by a fit of a store or by class names alone."""

import csv
import json
import os
import pty
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from command_line import BACKBONES, command, contents, environment, good, refusal
from PIL import Image

from clipnlc import backbones as backbone_names
from clipnlc.backbones.identity import identity
from clipnlc.cli import predicting
from clipnlc.combiners import COMBINERS
from clipnlc.datasets import open_dataset
from clipnlc.datasets.photos import list_photos
from clipnlc.errors import BackboneError, DataError
from clipnlc.extraction.models import Models
from clipnlc.labels import Labels
from clipnlc.runs.fitted import apply
from clipnlc.runs.predictor import open_predictor
from clipnlc.runs.targets import stored_target
from clipnlc.stages.predict import predict, require_row_wise, zero_shot
from clipnlc.stages.predict.members import downloads, find_backbones, models_for
from clipnlc.stores.layout import Layout
from clipnlc.wording import printable

ROW_WISE = tuple(name for name in COMBINERS if COMBINERS.get(name).row_wise)
ZERO_SHOT = ("--classes", "red,green,blue", "--backbones", BACKBONES)
CLOSE = 1e-5  # scores as close as this may be ordered by rounding


def rows(out):
    """Read the lines with tabs."""
    return [line.split("\t") for line in out.splitlines()]


def objects(out):
    return [json.loads(line) for line in out.splitlines()]


@pytest.fixture
def ask(here, fitted):
    """Predict with the fits of a store at two shots, within this process."""

    def run(*arguments):
        of_nlc = () if "--combiner" in arguments else ("--combiner", "nlc")
        return here("predict", "--store", fitted, "--shots", 2, *of_nlc, *arguments)

    return run


@pytest.fixture
def mixed(photos, tmp_path):
    """A folder with two photos and three other files."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    for name, source in (("a.png", "red/00.png"), ("z.JPG", "blue/00.png")):
        shutil.copy(photos / "test" / source, folder / name)
    (folder / "broken\x1b[2J.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing more")
    (folder / "empty.jpg").touch()
    (folder / "notes.txt").write_text("no image")
    return folder


class TestSameAnswers:
    """What `evaluate` measured on the test split is what comes out for its image files."""

    def predicted(self, store, dataset, combiner, which, files, names, settings):  # noqa: PLR0917
        predictor = open_predictor(
            Layout(store), dataset, head="zero-shot", combiner=combiner, which=which
        )
        found = find_backbones(predictor.backbones, (), None)
        blocks = predict(
            predictor, files, backbones=found, models=self.models, explain=True, **settings
        )
        answers = [one for block in blocks for one in block.predictions]
        assert [one.file for one in answers] == files
        return np.array([names.index(one.answer) for one in answers]), answers

    def check(self, store, dataset, combiners, folder, *, shots, **settings):
        split = open_dataset(dataset).open("test")
        ended = json.loads(
            good("evaluate", "--json", "--dataset", dataset, "--store", store, by=self.by)
        )
        (record,) = ended["datasets"]
        accuracy = {row["method"]: row["accuracy"] for row in record["rows"]}
        layout = Layout(store)
        backbones = sorted(layout.logit_backbones(dataset, "zero-shot"))
        with stored_target(
            layout, dataset, "test", head="zero-shot", backbones=backbones
        ) as target:
            block = target.read(np.arange(len(target.sample_id)), True)
        files = {}
        wanted = set(target.sample_id)
        for sample in split.read(0, len(split)):
            if sample.sample_id in wanted:
                files[sample.sample_id] = folder / f"{len(files):05}.png"
                sample.image().save(files[sample.sample_id])
        files = [files[one] for one in target.sample_id]
        self.models = Models("cpu", "fp32")
        for combiner in combiners:
            needs = COMBINERS.get(combiner).learns_from_labels()
            which = Labels.shots(shots) if needs else Labels.none()
            mine, answers = self.predicted(
                store, dataset, combiner, which, files, list(target.class_names), settings
            )
            assert (mine == target.labels).mean() == accuracy[combiner], combiner
            predictor = open_predictor(
                layout, dataset, head="zero-shot", combiner=combiner, which=which
            )
            given = apply(predictor.fitted, block)
            scores = given.combined(block)
            top = np.sort(scores, axis=1)[:, -2:]
            clear = top[:, 1] - top[:, 0] > CLOSE
            assert clear.any()
            assert (mine == scores.argmax(axis=1))[clear].all(), combiner
            self.check_explained(answers, given, block, scores)

    def check_explained(self, answers, given, block, scores):
        weights = [[each.weight for each in one.opinions] for one in answers]
        if given.weights is None:
            assert {weight for row in weights for weight in row} == {None}
        else:
            np.testing.assert_allclose(weights, given.weights, rtol=1e-3, atol=1e-3)
        own = np.array([[each.answer or "" for each in one.opinions] for one in answers])
        stored = np.array(block.class_names)[block.logits.argmax(axis=2)].T
        asked = own != ""  # a cascade stops
        assert asked.any(axis=1).all()
        assert (own == stored)[asked].mean() > 0.99
        if answers[0].probability is not None:
            powers = np.exp(scores - scores.max(axis=1, keepdims=True))
            top = np.sort(powers / powers.sum(axis=1, keepdims=True), axis=1)
            np.testing.assert_allclose([a.probability for a in answers], top[:, -1], atol=1e-3)
            np.testing.assert_allclose(
                [a.runner_up_probability for a in answers], top[:, -2], atol=1e-3
            )

    @pytest.fixture
    def nano(self, tmp_path, here):
        """Make a store of a nano set, with fits at two shots."""

        def make(dataset, test, *names):
            store = ("--store", tmp_path / "store")
            limit = ("--limit", f"train=60,test={test}")
            self.by = here
            good("extract", "-q", "-d", dataset, "-b", BACKBONES, *limit, *store, by=here)
            combiners = ("--combiners", ",".join(names))
            good("train-nlc", "-q", "--shots", 2, "--seeds", 1, *combiners, *store, by=here)
            return tmp_path / "store"

        return make

    def test_on_some_of_a_nano_set(self, nano, tmp_path):
        several = ("nlc", "vote-1", "log-avg", "c-conf")
        store = nano("digits", 40, *several)
        self.check(store, "digits", several, tmp_path, shots=2, batch_size=7)

    @pytest.mark.parametrize(
        "dataset",
        [
            pytest.param("digits", marks=pytest.mark.slow),
            pytest.param("shapes", marks=pytest.mark.long),
        ],
    )
    def test_by_every_row_wise_combiner(self, dataset, nano, tmp_path):
        store = nano(dataset, 400, *ROW_WISE)
        self.check(store, dataset, ROW_WISE, tmp_path, shots=2)


class TestWithAFit:
    def test_a_row_per_image(self, ask, photos):
        ended = ask(photos / "test")
        assert (ended.code, ended.err) == (0, "")
        found = rows(ended.out)
        assert [row[0] for row in found] == [str(p) for p in sorted((photos / "test").rglob("*"))
                                             if p.is_file()]  # fmt: skip
        assert {row[1] for row in found} == {"red", "green", "blue"}
        assert all(re.fullmatch(r"[01]\.\d{3}", row[2]) for row in found)
        assert all(re.fullmatch(r"(red|green|blue) [01]\.\d{3}", row[3]) for row in found)

    def test_writes_nothing_to_the_store(self, ask, fitted, photos):
        before = {path: path.stat().st_mtime_ns for path in fitted.rglob("*")}
        bytes_before = contents(fitted)
        assert ask(photos / "test/red", "--explain").code == 0
        assert {path: path.stat().st_mtime_ns for path in fitted.rglob("*")} == before
        assert contents(fitted) == bytes_before

    def test_lines_with_backbones_have_a_heading(self, ask, photos):
        plain = rows(ask(photos / "test/red").out)
        heading, *explained = rows(ask(photos / "test/red", "--explain").out)
        assert heading == ["file", "class", "probability", "runner-up", *BACKBONES.split(",")]
        assert [row[:4] for row in explained] == plain
        assert {len(row) for row in explained} == {6}

    def test_json_is_one_object_a_line(self, ask, photos):
        found = objects(ask(photos / "test", "--json", "--explain", "--unsure", "0.9").out)
        assert len(found) == 36
        for one in found:
            assert one["class"] != one["runner_up"]
            assert one["probability"] >= one["runner_up_probability"] >= 0
            assert one["probability"] + one["runner_up_probability"] < 1 + 1e-9
            assert one["look"] is (one["probability"] < 0.9)
            assert list(one["backbones"]) == BACKBONES.split(",")
            assert all(b["answer"] in ("red", "green", "blue") for b in one["backbones"].values())
            assert all(isinstance(b["weight"], float) for b in one["backbones"].values())
        assert len({one["look"] for one in found}) == 2

    def test_csv_has_what_json_has(self, ask, photos, tmp_path):
        file = tmp_path / "new" / "answers.csv"
        more = ("--explain", "--unsure", "0.9", "--csv", file)
        found = objects(ask(photos / "test", "--json", *more).out)
        with file.open(newline="") as stream:
            written = list(csv.DictReader(stream))
        assert len(written) == len(found)
        for one, line in zip(found, written, strict=True):
            assert (line["file"], line["class"]) == (one["file"], one["class"])
            assert float(line["probability"]) == one["probability"]
            assert line["look"] == str(one["look"]).lower()
            for name, said in one["backbones"].items():
                assert line[f"{name} answer"] == said["answer"]
                assert float(line[f"{name} weight"]) == said["weight"]
        assert [path.name for path in file.parent.iterdir()] == ["answers.csv"]

    def test_csv_to_a_pipe(self, ask, photos, tmp_path):
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        with ThreadPoolExecutor(1) as other:
            written = other.submit(pipe.read_text)
            assert ask(photos / "test", "-q", "--csv", pipe).code == 0
            assert written.result().count("\n") == 37
        assert pipe.is_fifo()

    def test_a_probability_only_where_there_is_one(self, ask, photos):
        one, *_ = objects(ask(photos / "test/red", "--combiner", "vote-1", "--json").out)
        assert (one["probability"], one["runner_up_probability"]) == (None, None)
        row, *_ = rows(ask(photos / "test/red", "--combiner", "vote-1").out)
        assert row[2] == ""
        assert row[3] in ("red", "green", "blue")

    def test_combiners_that_do_not_weigh_have_no_weights(self, ask, photos):
        more = ("--combiner", "vote-1", "--explain", "--json")
        one, *_ = objects(ask(photos / "test/red", *more).out)
        assert {said["weight"] for said in one["backbones"].values()} == {None}

    def test_unsure_marks_rows(self, ask, photos):
        marks = [row[4] for row in rows(ask(photos / "test", "--unsure", "0.9").out)]
        assert set(marks) == {"", "?"}

    def test_the_only_fit_is_the_default(self, here, extracted, photos):
        store = ("--store", extracted)
        one = ("--shots", 1, "--seeds", 1, "--combiners", "gp")
        good("train-nlc", "-q", *one, *store, by=here)
        assert len(rows(here("predict", photos / "test/red", *store).out)) == 12

    def test_the_linear_head_and_a_fit_on_every_label(self, here, extracted, photos):
        store = ("--store", extracted)
        good("train-heads", "-q", "--epochs", 2, *store, by=here)
        linear = ("--head", "linear", *store)
        one = ("--shots", "all", "--seeds", 1, "--combiners", "static")
        good("train-nlc", "-q", *one, *linear, by=here)
        more = ("--combiner", "static", "--shots", "all", *linear)
        ended = here("predict", photos / "test/red", *more)
        assert (ended.code, len(rows(ended.out))) == (0, 12), ended

    def test_a_few_answers_are_a_table_on_a_terminal(self, fitted, photos):
        said = on_a_terminal(
            "predict", photos / "test/red", "--shots", 2, "--store", fitted, "--unsure", "0.9"
        )
        assert "gp, 2 backbones, fitted at 2 per class on photos" in said
        assert re.search(r"file +class +probability +runner-up +look", said)
        assert "\t" not in said

    def test_many_answers_are_lines_on_a_terminal(self, fitted, photos):
        twice = (photos / "test", photos / "test")
        said = on_a_terminal("predict", *twice, "--shots", 2, "--store", fitted)
        assert said.count("\t") == 3 * 72


def on_a_terminal(*arguments):
    """Run a command whose standard output is a terminal."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        command(*arguments),
        env=environment(COLUMNS="200", TERM="dumb"),
        stdout=slave,
        stderr=subprocess.DEVNULL,
    )
    os.close(slave)
    said = b""
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        said += part
    os.close(master)
    assert process.wait() == 0
    return said.decode()


class TestPhotos:
    def test_files_folders_and_globs(self, photos, monkeypatch):
        monkeypatch.chdir(photos)
        assert [
            str(p) for p in list_photos(["test/red/03.png", "train/blue", "test/*/00.png"])
        ] == [
            "test/red/03.png",
            *(f"train/blue/{n:02}.png" for n in range(8)),
            *(f"test/{c}/00.png" for c in ("blue", "green", "red")),
        ]

    def test_globs_of_folders_and_of_everything_below(self, photos, monkeypatch):
        monkeypatch.chdir(photos)
        assert len(list(list_photos(["t*t"]))) == 36
        assert len(list(list_photos(["**"]))) == 60
        assert len(list(list_photos(["**/*.png"]))) == 60

    def test_a_file_may_be_called_like_a_glob(self, tmp_path):
        (tmp_path / "a[1].png").touch()
        assert list(list_photos([str(tmp_path / "a[1].png")])) == [tmp_path / "a[1].png"]

    def test_folders_give_images_by_their_suffix(self, mixed):
        names = [path.name for path in list_photos([str(mixed)])]
        assert names == ["a.png", "broken\x1b[2J.png", "empty.jpg", "z.JPG"]

    def test_what_is_missing_is_left_to_the_reader(self, tmp_path):
        assert [p.name for p in list_photos([str(tmp_path / "no.png"), str(tmp_path / "*.png")])] == [
            "no.png",
            "*.png",
        ]  # fmt: skip

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may list every folder")
    def test_a_folder_that_cannot_be_listed_is_yielded(self, mixed):
        (mixed / "closed").mkdir(mode=0)
        assert [p.name for p in list_photos([str(mixed)])][-1] == "closed"

    def test_a_list_is_read_as_it_comes(self):
        def lines():
            yield b"one.png\n"
            yield b"\n"
            yield "zwölf [1].png\r\n".encode()
            raise AssertionError("read too far")

        found = list_photos(["first.png", "-"], lines())
        assert [next(found).name for _ in range(3)] == ["first.png", "one.png", "zwölf [1].png"]

    def test_a_list_on_standard_input(self, fitted, photos):
        names = "".join(f"{photos}/test/red/{n:02}.png\n" for n in (5, 3))
        done = subprocess.run(
            command("predict", "-", "--shots", 2, "--store", fitted, "--json"),
            env=environment(),
            input=names,
            capture_output=True,
            text=True,
            check=True,
        )
        assert [one["file"] for one in objects(done.stdout)] == names.split()


class TestBadImages:
    def test_some_are_listed_and_the_others_answered(self, ask, mixed, tmp_path):
        ended = ask(mixed, "--csv", tmp_path / "answers.csv")
        assert ended.code == 0
        assert [row[0] for row in rows(ended.out)] == [str(mixed / "a.png"), str(mixed / "z.JPG")]
        lines = ended.err.splitlines()
        assert re.search(r"^cannot use .*broken\\x1b\[2J\.png: .+", lines[0])
        assert lines[1] == f"cannot use {mixed}/empty.jpg: the file is empty"
        assert lines[2:] == ["warning: 2 of 4 images could not be used"]
        assert (tmp_path / "answers.csv").read_text().count("\n") == 3

    def test_quiet_lists_them_all_the_same(self, ask, mixed):
        ended = ask(mixed, "--quiet")
        assert (ended.code, ended.out) == (0, "")
        assert ended.err.count("cannot use") == 2

    def test_all_are_an_error_and_leave_no_csv(self, ask, mixed, tmp_path):
        ended = ask(mixed / "empty.jpg", mixed / "no.png", "--csv", tmp_path / "answers.csv")
        assert (ended.code, ended.out) == (2, "")
        assert ended.err.splitlines() == [
            f"cannot use {mixed}/empty.jpg: the file is empty",
            f"cannot use {mixed}/no.png: No such file or directory",
            "error: none of 2 images can be used, for the reasons above; give others",
        ]
        assert [p.name for p in tmp_path.iterdir() if "answers" in p.name] == []

    def test_of_photos_none_of_which_is_there_the_first_is_named(self, ask, tmp_path):
        said = refusal(tmp_path / "no.png", tmp_path / "*.jpg", by=ask)
        assert said.startswith(f"error: {tmp_path}/no.png does not exist; give files, folders")

    def test_none_are_an_error(self, ask, tmp_path):
        (tmp_path / "empty").mkdir()
        said = refusal(tmp_path / "empty", by=ask)
        assert said.startswith(f"error: no images among {tmp_path}/empty; give files, folders")
        assert ".webp" in said

    def test_names_are_safe_to_print(self):
        assert printable("zwölf.png") == "zwölf.png"
        assert printable("a\x1b]0;b\n\udcff") == r"a\x1b]0;b\n\udcff"


class TestRefusals:
    def test_combiners_that_are_not_row_wise(self, ask, photos):
        said = refusal(photos, "--combiner", "nlc-shuffled", by=ask)
        assert "nlc-shuffled mixes up the rows of a whole split" in said
        with pytest.raises(DataError, match="nlc-shuffled mixes up"):
            require_row_wise("nlc-shuffled")

    def test_unsure_without_probabilities(self, ask, photos):
        said = refusal(photos, "--combiner", "vote-1", "--unsure", "0.5", by=ask)
        assert said.startswith("error: vote-1 gives no probabilities, so --unsure")

    @pytest.mark.parametrize(
        ("asked", "cure"),
        [
            (("--shots", 8, "--seed", 1), "--shots 8 --seeds 2"),
            (("--shots", "all"), "--shots all --seeds 1"),
            (("--count", 5), "--count 5 --seeds 1"),
            (("--holdout", 0.5), "--holdout 0.5 --seeds 1"),
        ],
    )
    def test_a_missing_fit_names_the_command_that_makes_it(self, asked, cure, here, fitted, photos):
        more = ("--combiner", "c-conf", "--store", fitted)
        said = refusal("predict", photos / "test", *asked, *more, by=here)
        (line,) = re.findall(r"run `clipnlc (.*)` first", said)
        assert line == (
            f"train-nlc --dataset photos --head zero-shot --combiners c-conf {cure} "
            f"--store {fitted}"
        )
        good(*line.split(), "--quiet", by=here)
        assert here("predict", photos / "test/red", *asked, *more).code == 0

    def test_a_store_without_fits(self, here, extracted, photos):
        said = refusal("predict", photos, "--store", extracted, by=here)
        assert "holds no fits on zero-shot logits" in said
        assert 'or give --classes "cat,dog"' in said
        asked = ("--dataset", "photos", "--shots", 2, "--store", extracted)
        said = refusal("predict", photos, *asked, by=here)
        assert "--combiners gp --shots 2 --seeds 1" in said

    def test_no_store(self, here, photos, tmp_path):
        said = refusal("predict", photos, "--store", tmp_path / "none", by=here)
        assert f"there is no store at {tmp_path}/none" in said
        assert 'give --classes "cat,dog"' in said

    def test_several_amounts_of_labels(self, here, fitted, photos):
        said = refusal("predict", photos, "--store", fitted, by=here)
        assert "holds fits of gp on photos for several amounts of labels (1 shot, 2 shots)" in said
        said = refusal("predict", photos, "--shots", "1,2", "--store", fitted, by=here)
        assert "give one number: one fit is used" in said

    def test_several_data_sets(self, here, fitted, photos):
        shutil.copytree(fitted / "photos", fitted / "again")
        said = refusal("predict", photos, "--shots", 2, "--store", fitted, by=here)
        assert "holds fits of several data sets (again, photos); give one with --dataset" in said

    @pytest.mark.parametrize(
        ("more", "said"),
        [
            (("--classes", "a,b", "--dataset", "photos"), "--dataset and --classes exclude"),
            (("--classes", "a,b", "--class-names", "x"), "--classes and --class-names exclude"),
            (("--from", "x", "--classes", "a,b"), "--from and --classes exclude"),
            (("--from", "x"), "leave out --combiner, --shots"),
            (("--classes", "a,b"), "need no fit; leave out --shots"),
            (("--templates", "x"), "--templates goes with --classes"),
        ],
    )
    def test_sources_exclude_each_other(self, more, said, ask, photos):
        assert said in refusal(photos, *more, by=ask)

    def test_a_backbone_that_the_ensemble_lacks(self):
        given = backbone_names.resolve("nano-RN50")
        with pytest.raises(BackboneError, match="names nano-RN50, which the ensemble does not"):
            find_backbones(["nano-RN101"], given, None)

    def test_a_csv_that_cannot_be_written(self, ask, photos):
        said = refusal(photos / "test", "-q", "--csv", "/proc/no/answers.csv", by=ask)
        assert "cannot write /proc/no/answers.csv" in said


class TestBackbones:
    """The backbones here must be those that the fit was made with."""

    @pytest.fixture
    def predictor(self, first_fitted):
        return open_predictor(
            Layout(first_fitted),
            "photos",
            head="zero-shot",
            combiner="nlc",
            which=Labels.shots(2),
        )

    def ask(self, predictor, **changes):
        found = find_backbones(predictor.backbones, (), None)
        return predict(predictor, (), backbones=found, models=Models("cpu", "fp32"), **changes)

    def changed(self, predictor, **fields):
        identities = dict(predictor.identities)
        identities["nano-RN50"] = {**identities["nano-RN50"], **fields}
        return type(predictor)(**{**vars(predictor), "identities": identities})

    def test_other_weights_are_refused(self, predictor):
        with pytest.raises(BackboneError, match=r"nano-RN50 is not what .* the weights \(0123abcd"):
            self.ask(self.changed(predictor, weights="0123abcd" * 8))

    def test_another_preprocessing_is_refused(self, predictor):
        known = predictor.identities["nano-RN50"]["preprocessing"]
        other = self.changed(predictor, preprocessing={**known, "interpolation": "nearest"})
        with pytest.raises(
            BackboneError, match=r"the preprocessing \(interpolation nearest there, .* here\)"
        ):
            self.ask(other)

    def test_another_activation_is_refused(self, predictor):
        with pytest.raises(BackboneError, match=r"the activation .*True there, False here"):
            self.ask(self.changed(predictor, quick_gelu=True))

    def test_a_backbone_of_which_nothing_is_recorded_is_refused(self, predictor):
        left = {"nano-RN50": predictor.identities["nano-RN50"]}
        other = type(predictor)(**{**vars(predictor), "identities": left})
        with pytest.raises(BackboneError, match="nano-ViT-B-16 is not what"):
            self.ask(other)

    def test_another_release_of_open_clip_is_fine(self, predictor):
        assert list(self.ask(self.changed(predictor, open_clip="0.0.1"))) == []

    def test_the_memory_of_identities_is_read_and_not_written(self, tmp_path):
        backbone = backbone_names.parse("nano-RN50")
        memory = tmp_path / "backbones.json"
        found = identity(backbone, memory, remember=False)
        assert not memory.exists()
        assert identity(backbone, memory) == found
        assert memory.exists()

    def test_the_recorded_precision_is_used(self, predictor):
        assert models_for(predictor, device="cpu", precision="auto").precision == "fp32"

    def test_a_precision_that_cannot_be_used_here_is_replaced_and_said(self, predictor):
        notes = []
        half = self.changed(predictor, precision="fp16")
        half.identities["nano-ViT-B-16"] = {
            **half.identities["nano-ViT-B-16"],
            "precision": "fp16",
        }
        models = models_for(half, device="cpu", precision="auto", tell=notes.append)
        assert models.precision == "fp32"
        assert notes == ["features were made in fp16, which cannot be used here; using fp32"]
        with pytest.raises(BackboneError, match="fp16 is many times slower"):
            _ = models_for(half, device="cpu", precision="fp16").device
        notes.clear()
        mixed = self.changed(predictor, precision="fp16")
        assert models_for(mixed, device="cpu", precision="auto", tell=notes.append).precision == (
            "fp32"
        )
        assert notes == ["features were made in fp16 and fp32; using fp32 for all"]

    def test_a_weights_file_is_named_again(self, here, photos, tmp_path):
        file = tmp_path / "elsewhere" / "mine.safetensors"
        file.parent.mkdir()
        shutil.copy(backbone_names.parse("nano-RN50").file, file)
        both = f"nano-RN50@{file},nano-ViT-B-16"
        store = ("--store", tmp_path / "store")
        good("extract", "-q", "-d", photos, "-b", both, *store, by=here)
        one = ("--shots", 1, "--seeds", 1, "--combiners", "gp")
        good("train-nlc", "-q", *one, *store, by=here)
        said = refusal("predict", photos / "test/red", *store, by=here)
        assert said.startswith("error: the weights of nano-RN50@mine were read from a file")
        assert said.endswith("--backbones nano-RN50@FOLDER/mine.safetensors,nano-ViT-B-16")
        assert here("predict", photos / "test/red", "-b", both, *store).code == 0
        file.write_bytes(backbone_names.parse("nano-RN101").file.read_bytes())
        said = refusal("predict", photos / "test/red", "-b", both, *store, by=here)
        assert "nano-RN50@mine is not what the ensemble was fitted with" in said


class TestFromAFolder:
    """An exported folder answers as the store does that it came from."""

    @pytest.fixture
    def folder(self, here, fitted, tmp_path):
        asked = ("--combiner", "nlc", "--shots", 2, "--out", tmp_path / "ensemble")
        good("export", "-q", *asked, "--store", fitted, by=here)
        return tmp_path / "ensemble"

    def test_the_same_answers_without_the_store(self, ask, here, folder, fitted, photos):
        asked = (photos / "test", "--json", "--explain")
        stored = objects(ask(*asked).out)
        shutil.rmtree(fitted)
        ended = here("predict", *asked, "--from", folder)
        assert (ended.code, ended.err) == (0, "")
        assert len(stored) == 36
        for one, two in zip(stored, objects(ended.out), strict=True):
            assert one["class"] == two["class"]
            assert one["probability"] == pytest.approx(two["probability"], abs=1e-6)
            assert one["backbones"].keys() == two["backbones"].keys()

    def test_controls_are_not_in_folders_and_options_of_a_fit_do_not_go_with_one(
        self, here, folder, photos
    ):
        said = refusal("predict", photos, "--from", folder, "--head", "linear", by=here)
        assert "says which fit it holds; leave out --combiner, --shots" in said
        said = refusal("predict", photos, "--from", folder, "-b", "nano-RN101", by=here)
        assert "--backbones names nano-RN101, which the ensemble does not have" in said

    def test_no_folder(self, here, photos, tmp_path):
        said = refusal("predict", photos, "--from", tmp_path / "none", by=here)
        assert f"{tmp_path}/none" in said


class TestClassNamesAlone:
    def test_no_store_is_needed(self, here, photos, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        ended = here("predict", photos / "test", *ZERO_SHOT, "--explain", "--json")
        assert (ended.code, ended.err) == (0, "")
        assert list(tmp_path.iterdir()) == []
        found = objects(ended.out)
        assert len(found) == 36
        for one in found:
            assert sum(said["weight"] for said in one["backbones"].values()) == pytest.approx(1)
        right = [one["class"] == one["file"].split("/")[-2] for one in found]
        assert np.mean(right) > 0.5

    def test_answers_are_those_of_log_avg_in_a_store(self, here, extracted, photos, tmp_path):
        """The default templates are those of `extract`."""
        templates = tmp_path / "templates.txt"
        templates.write_text("a photo of a {c}.\n")
        good("train-nlc", "-q", "--combiners", "log-avg", "--store", extracted, by=here)
        asked = (photos / "test", "--json")
        stored = here("predict", *asked, "--combiner", "log-avg", "--store", extracted)
        alone = here("predict", *asked, *ZERO_SHOT)
        assert len(objects(stored.out)) == 36
        for one, two in zip(objects(stored.out), objects(alone.out), strict=True):
            assert one["class"] == two["class"]
            assert one["probability"] == pytest.approx(two["probability"], abs=1e-5)
        others = here("predict", *asked, *ZERO_SHOT, "--templates", templates)
        assert others.out != alone.out

    def test_class_names_from_a_file(self, here, photos, tmp_path):
        names = tmp_path / "names.txt"
        names.write_text("red\n\nlight, green\nblue\n")
        more = ("--class-names", names, "-b", "nano-RN50", "--json")
        found = objects(here("predict", photos / "test", *more).out)
        assert {one["class"] for one in found} <= {"red", "light, green", "blue"}

    def test_another_combiner_that_needs_no_labels(self, here, photos):
        ended = here("predict", photos / "test/red", *ZERO_SHOT, "--combiner", "vote-1")
        assert ended.code == 0
        assert rows(ended.out)[0][2] == ""

    @pytest.mark.parametrize(
        ("more", "said"),
        [
            (("--classes", "cat"), "there is 1 class name to choose from; give at least two"),
            (("--classes", "cat,dog,cat"), "the class 'cat' is named twice"),
            (("--classes", "a,b", "--combiner", "nlc"), "nlc learns from labels"),
            (("--classes", f"a,b{' b' * 20}"), "has 23 tokens, and nano-RN50 reads 16"),
        ],
    )
    def test_refusals(self, more, said, here, photos):
        assert said in refusal("predict", photos, "-b", "nano-RN50", *more, by=here)

    def test_the_default_backbones_are_small(self):
        names = [b.name for b in backbone_names.resolve("small")]
        assert names == ["RN50.openai", "RN101.openai", "ViT-B-32.openai", "ViT-B-16.openai"]

    def test_without_a_network_the_message_says_what_to_do(
        self, here, photos, tmp_path, monkeypatch
    ):
        import huggingface_hub.constants  # noqa: PLC0415  (patched here alone)

        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
        ended = here("predict", photos, "--classes", "cat,dog")
        assert (ended.code, ended.out) == (2, "")
        note, error = ended.err.splitlines()
        assert re.match(
            r"note: downloading about 2\.\d GB of weights, once \(RN50\.openai 0\.", note
        )
        assert "give --weights-dir FOLDER, or rehearse with --backbones nano, which knows" in error

    def test_nothing_is_downloaded_that_is_at_hand(self):
        assert downloads(backbone_names.resolve("nano")) == {}

    def test_in_python(self, photos):
        models = Models("cpu", "fp32")
        found = backbone_names.resolve("nano-ViT-B-16,nano-RN50")
        texts = ("a photo of a {c}",)
        seen = []
        predictor = zero_shot(
            ["red", "green"],
            templates=texts,
            backbones=found,
            models=models,
            on_prompts=lambda *now: seen.append(now),
        )
        assert predictor.backbones == ("nano-RN50", "nano-ViT-B-16")
        assert ("nano-RN50", 2, 2) in seen
        files = sorted((photos / "test/red").iterdir())
        (block,) = predict(predictor, files, backbones=found, models=models)
        assert len(block) == 12
        assert block.predictions[0].opinions == ()
        with pytest.raises(BackboneError, match="needs nano-ViT-B-16, which was not given"):
            predict(predictor, files, backbones=found[1:], models=models)


class TestProgress:
    def shown(self, monkeypatch, ask, *arguments):
        """Predict; return what progress was shown."""
        seen = []

        @contextmanager
        def recorded(_say, _stage):
            yield lambda what, done, total, _remark: seen.append((what, done, total))

        monkeypatch.setattr(predicting, "progress", recorded)
        assert ask(*arguments).code == 0
        return seen

    def test_counts_the_photos_when_it_takes_long(self, monkeypatch, ask, photos):
        monkeypatch.setattr(predicting, "_WAIT", 0.0)
        seen = self.shown(monkeypatch, ask, photos / "test")
        assert seen[-1] == ("photos", 36, 36)
        assert [one for one in seen if one[0] == "backbones"] == [
            ("backbones", 1, 2),
            ("backbones", 2, 2),
        ]
        assert [done for what, done, _ in seen if what == "photos"] == [16, 32, 36]
        assert self.shown(monkeypatch, ask, photos / "test", "--quiet") == []

    def test_is_not_shown_at_once(self, monkeypatch, ask, photos):
        monkeypatch.setattr(predicting, "_WAIT", 1e9)
        assert self.shown(monkeypatch, ask, photos / "test") == []


SCRIPT = """
import re, sys
from pathlib import Path
from clipnlc.cli import main
code = main(sys.argv[1:])
# Not `ru_maxrss`, in which the parent's own memory may be left from before the child's program.
print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1], file=sys.stderr)
sys.exit(code)
"""


def peak_megabytes(folder, count, tmp_path):
    """Predict that many small images in a process of its own; return its peak memory."""
    random = np.random.default_rng(0)
    file = tmp_path / "answers.csv"
    folder.mkdir()
    for number in range(count):
        pixels = random.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:06}.png", compress_level=0)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, "predict", folder, *ZERO_SHOT, "--json", "--csv", file],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(objects(done.stdout)) == count
    return int(done.stderr.splitlines()[-1]) / 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
@pytest.mark.parametrize(
    "count",
    [
        pytest.param(3_000, marks=pytest.mark.long),
        pytest.param(20_000, marks=pytest.mark.long),
    ],
)
def test_memory_does_not_grow_with_the_photos(count, tmp_path):
    few = peak_megabytes(tmp_path / "few", 300, tmp_path)
    many = peak_megabytes(tmp_path / "many", count, tmp_path)
    assert many - few < 40
