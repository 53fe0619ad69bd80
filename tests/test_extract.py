"""Extraction: what it writes, what it leaves alone, and what interrupts it."""

import itertools
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from command_line import seconds_of_children
from datasets_on_disk import png, put, write, write_table
from extracting import files
from extracting import run as run_extract
from hub_on_disk import write_all
from PIL import Image
from safetensors.torch import load_file, save_file
from stores_examples import quick_disk  # noqa: F401  (a fixture for all tests of this file)
from tiny_backbones import save

from clipnlc import backbones as backbone_names
from clipnlc import datasets
from clipnlc.backbones import nano
from clipnlc.backbones.families import family
from clipnlc.backbones.loaded import LoadedBackbone
from clipnlc.backbones.preprocessing import Preprocessing
from clipnlc.cli import main
from clipnlc.datasets.source import open_split
from clipnlc.errors import DataError, StoreError, UnknownNameError
from clipnlc.extraction import pixels
from clipnlc.extraction.finishing import write_zero_shot_logits
from clipnlc.extraction.request import Request
from clipnlc.heads.zero_shot import ZeroShotHead
from clipnlc.stages.extract import Watch, extract
from clipnlc.stores import locks
from clipnlc.stores.features import read_features
from clipnlc.stores.layout import Layout
from clipnlc.stores.logits import read_logits, write_logits

RESNET, VIT = "nano-RN50", "nano-ViT-B-16"
BOTH = (RESNET, VIT)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Sixteen images in two splits and three classes."""
    return write("folder", tmp_path_factory.mktemp("data") / "animals")


def run(store, dataset, backbones=(RESNET,), **settings):
    return run_extract(store, dataset, backbones, **settings)


def features(store, dataset, split="test", backbone=RESNET):
    return read_features(Layout(store).features(dataset, split, backbone))


def fails(capsys, *arguments):
    """Run the command; return its one line of error."""
    assert main(["extract", "--quiet", *map(str, arguments)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    return line


def embed_nothing(*_):
    raise AssertionError("an image was embedded")


class TestWhatIsWritten:
    def test_features_are_the_backbones_own(self, tmp_path, folder):
        run(tmp_path, folder, BOTH)
        for name, part in itertools.product(BOTH, ("train", "test")):
            found, split = features(tmp_path, "animals", part, name), open_split(folder, part)
            backbone = LoadedBackbone(backbone_names.parse(name), device="cpu", precision="fp32")
            resize = backbone.preprocessing.resizer()
            x = np.stack([resize(sample.image()) for sample in split.read()])
            np.testing.assert_allclose(found.features, backbone.embed_images(x), atol=1e-5)
            assert found.sample_id == split.sample_id
            assert found.class_names == split.class_names
            assert (found.labels == split.labels).all()
            assert found.logit_scale == backbone.logit_scale
            templates = family("nano").templates(split.class_names)
            prompts = [[one.format(c=c) for one in templates] for c in split.class_names]
            np.testing.assert_allclose(found.texts, backbone.embed_classes(prompts), atol=1e-6)

    def test_a_prompt_that_loses_its_end_is_refused(self, tmp_path, folder, capsys):
        names = put(
            tmp_path / "names.json",
            json.dumps(
                {c: f"a small and noisy drawing on a sheet of {c}" for c in ("cat", "test_tube")}
                | {"dog": "dog"}
            ).encode(),
        )
        said = fails(
            capsys, "--dataset", folder, "-b", RESNET, "--store", tmp_path, "--class-names", names
        )
        assert re.search(
            "the prompt of class 'a small and noisy drawing on a sheet of cat' with the template "
            r"'.*\{c\}.*' has [12]\d tokens, and nano-RN50 reads 16: .* with \d+ of \d+ prompts.*"
            "--templates FILE .* --class-names FILE",
            said,
        )
        assert not files(tmp_path)

    def test_published_prompts_are_cut_for_nano_and_that_is_told(self, tmp_path):
        copies = tmp_path / "copies"
        write_all(copies, rows=6, keys=("gtsrb",))
        told, given = [], {"sources": copies, "split": ["test"]}
        given["accept_different_data"] = True
        watch = Watch(note=told.append)
        run_extract(tmp_path / "store", "gtsrb", [RESNET], watch=watch, **given)
        (said,) = [note for note in told if "nano" in note]
        assert said.startswith("nano-RN50 reads 16 tokens of a prompt, and 129 of 129 prompts are ")
        templates = put(tmp_path / "templates.txt", b"a photo of a {c}\n")
        with pytest.raises(DataError, match=r"of class 'red and white .* tokens, and nano-RN50"):
            run_extract(tmp_path / "other", "gtsrb", [RESNET], templates=templates, **given)

    def test_as_many_templates_as_are_read_fit_into_a_store(self, tmp_path, folder, capsys):
        lines = [f"a{' ' * n}{{c}}" for n in range(1, 301)]
        templates = put(tmp_path / "t.txt", "\n".join(lines).encode())
        assert len(json.dumps(lines, separators=(",", ":"))) > 47_000
        given = {"split": ["test"], "templates": templates}
        run(tmp_path / "store", folder, **given)
        assert [o.cached for o in run(tmp_path / "store", folder, **given)] == [True]
        put(templates, "\n".join([*lines, *(line + "." for line in lines[-9:])]).encode())
        said = fails(capsys, "-d", folder, "--store", tmp_path, "--templates", templates)
        assert "t.txt holds 309 templates of " in said

    def test_four_kinds_of_path_give_the_same_features(self, tmp_path):
        kinds = ("folder", "parquet-hf", "saved-dict", "tars-one")
        names = put(tmp_path / "names.txt", b"cat\ndog\ntest tube\n")
        for kind in kinds:
            run(tmp_path / "store", write(kind, tmp_path / "data" / kind), BOTH, class_names=names)
        for name, part in itertools.product(BOTH, ("train", "test")):
            first, *others = (features(tmp_path / "store", kind, part, name) for kind in kinds)
            for other in others:
                assert other.features.tobytes() == first.features.tobytes()
                assert other.texts.tobytes() == first.texts.tobytes()
                assert (other.labels == first.labels).all()
                assert other.class_names == first.class_names

    def test_the_same_command_gives_the_same_bytes(self, tmp_path, folder):
        for store, workers in (("a", 1), ("b", 4)):
            run(tmp_path / store, folder, BOTH, workers=workers)
        assert files(tmp_path / "a") == files(tmp_path / "b")
        assert len(files(tmp_path / "a")) == 8  # features, logits and texts of two backbones

    def test_zero_shot_logits_follow_the_features(self, tmp_path, folder):
        layout = Layout(tmp_path)
        run(tmp_path, folder)
        assert not write_zero_shot_logits(layout, "animals", RESNET)
        before = read_logits(layout.logits("animals", "zero-shot", RESNET))
        assert set(before.splits) == {"train", "test"}
        templates = put(tmp_path / "templates.txt", b"{c}\n")
        run(tmp_path, folder, split=["train", "test"], templates=templates)
        after = read_logits(layout.logits("animals", "zero-shot", RESNET))
        assert not np.array_equal(before.splits["test"].logits, after.splits["test"].logits)

    def test_zero_shot_logits_are_made_again_from_what_the_head_learnt(self, tmp_path, folder):
        run(tmp_path, folder)
        path = Layout(tmp_path).logits("animals", "zero-shot", RESNET)
        stored = read_logits(path)
        head = ZeroShotHead.rebuild({}, stored.learnt)
        for split in ("train", "test"):
            given = features(tmp_path, "animals", split).features
            again = np.concatenate([head.logits(given[i : i + 2]) for i in range(0, len(given), 2)])
            np.testing.assert_array_equal(again, stored.splits[split].logits)

    def test_zero_shot_logits_that_lack_what_was_learnt_stay(self, tmp_path, folder):
        """Version 1 kept no arrays of zero-shot heads; nothing else has changed."""
        run(tmp_path, folder)
        layout = Layout(tmp_path)
        path = layout.logits("animals", "zero-shot", RESNET)
        write_logits(path, replace(read_logits(path), learnt={}))
        before = path.read_bytes()
        assert not write_zero_shot_logits(layout, "animals", RESNET)
        assert path.read_bytes() == before

    def test_images_are_decoded_once_and_resized_once_per_size(self, tmp_path, folder, monkeypatch):
        decoded, resized = [], []
        load, resizer = pixels.load, Preprocessing.resizer

        def counting(preprocessing):
            resize = resizer(preprocessing)
            return lambda image: resized.append(preprocessing.size) or resize(image)

        monkeypatch.setattr(pixels, "load", lambda *a, **k: decoded.append(a[1]) or load(*a, **k))
        monkeypatch.setattr(Preprocessing, "resizer", counting)
        weights = nano.WEIGHTS / f"{RESNET}.safetensors"
        run(tmp_path, folder, (*BOTH, f"{RESNET}@{weights}"), split=["test"])
        assert len(decoded) == 8
        assert sorted(resized) == [(24, 24)] * 8 + [(48, 48)] * 8

    def test_progress_reaches_the_end(self, tmp_path, folder):
        seen = []
        run(
            tmp_path,
            folder,
            batch_size=3,
            watch=Watch(progress=lambda p: seen.append((p.split, p.done, p.total))),
        )
        assert [s for s in seen if s[0] == "test"] == [("test", n, 8) for n in (3, 6, 8, 8)]

    def test_progress_knows_what_comes_after(self, tmp_path):
        sets = ["digits", "shapes"]
        request = Request(store=tmp_path, dataset=sets, backbones=[RESNET], limit=4)
        extract(replace(request, split=["test"]))
        seen = {}
        extract(
            replace(request, dataset=["colors", *sets], limit={"train": 5, "test": 4}),
            watch=Watch(progress=lambda p: seen.setdefault((p.dataset, p.split), p.rest)),
        )
        assert seen == {
            ("colors", "train"): 4 + 5 + 5,
            ("colors", "test"): 5 + 5,
            ("digits", "train"): 5,
            ("shapes", "train"): 0,
        }

    def test_zero_shot_predictions_are_open_clips_image_by_image(self, tmp_path):
        run(tmp_path, "shapes", split=["test"])
        logits = read_logits(Layout(tmp_path).logits("shapes", "zero-shot", RESNET)).splits["test"]
        found = datasets.open_dataset("shapes")
        split = open_split(found.root, "test")
        model, _, transform = open_clip.create_model_and_transforms(
            RESNET, pretrained=str(nano.WEIGHTS / f"{RESNET}.safetensors"), require_pretrained=True
        )
        model.eval()
        classifier = open_clip.build_zero_shot_classifier(
            model,
            open_clip.get_tokenizer(RESNET, bpe_path=str(nano.VOCABULARY)),
            split.class_names,
            [t.replace("{c}", "{}") for t in found.templates],
        )
        with torch.no_grad():
            expected = [
                model.encode_image(transform(sample.image())[None], normalize=True) @ classifier
                for sample in split.read()
            ]
        expected = torch.cat(expected).numpy() * model.logit_scale.exp().item()
        assert len(split) >= 600
        np.testing.assert_allclose(logits.logits, expected, atol=1e-3)
        np.testing.assert_array_equal(logits.logits.argmax(1), expected.argmax(1))


class TestWhatIsLeftAlone:
    def test_again_is_cached(self, tmp_path, folder, monkeypatch):
        first = run(tmp_path, folder, BOTH)
        before = files(tmp_path)
        monkeypatch.setattr(LoadedBackbone, "__init__", embed_nothing)
        again = run(tmp_path, folder, BOTH)
        assert [o.cached for o in first] == [False] * 4
        assert [o.cached for o in again] == [True] * 4
        assert files(tmp_path) == before

    @pytest.mark.parametrize("options", [[], ["--precision", "fp32", "--device", "cpu"]])
    def test_a_cached_command_is_quick_and_imports_no_torch(self, tmp_path, folder, options):
        run(tmp_path, folder, BOTH)
        arguments = ["--dataset", str(folder), "--backbones", ",".join(BOTH), *options]
        script = (
            "import sys\nfrom clipnlc.cli import main\n"
            f"code = main(['extract', '--store', {str(tmp_path)!r}, *{arguments!r}])\n"
            "print(code, [m for m in ('torch', 'open_clip', 'matplotlib') if m in sys.modules])"
        )
        before = seconds_of_children()
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True
        )
        assert seconds_of_children() - before < 4
        *said, modules = done.stdout.splitlines()
        assert modules == "0 []"
        said = [line for line in said if not line.startswith("note: ")]
        assert [line.split()[:2] for line in said[:2]] == [
            ["animals/train:", "8"],
            ["animals/test:", "8"],
        ]
        assert all("2 backbones" in line and "cached" in line for line in said[:2])
        assert said[-1].startswith("next: clipnlc train-nlc")

    def test_a_backbone_more_leaves_the_first_alone(self, tmp_path, folder):
        run(tmp_path, folder)
        assert [o.cached for o in run(tmp_path, folder, BOTH, split=["test"])] == [True, False]

    def test_templates_change_the_texts_only(self, tmp_path, folder, monkeypatch):
        run(tmp_path, folder)
        before = features(tmp_path, "animals")
        monkeypatch.setattr(LoadedBackbone, "forward", embed_nothing)
        templates = put(tmp_path / "templates.txt", "a drawing of a {c}\nKäfer {c}\n".encode())
        outcomes = run(tmp_path, folder, templates=templates)
        after = features(tmp_path, "animals")
        assert [o.cached for o in outcomes] == [False, False]
        assert any(
            "templates" in field and "a drawing of" in field for field in outcomes[0].changed
        )
        assert after.features.tobytes() == before.features.tobytes()
        assert not np.array_equal(after.texts, before.texts)

    def test_class_names_change_the_texts_only(self, tmp_path, folder, monkeypatch):
        run(tmp_path, folder)
        before = features(tmp_path, "animals")
        monkeypatch.setattr(LoadedBackbone, "forward", embed_nothing)
        names = put(tmp_path / "names.txt", b"tabby\npoodle\nglass\n")
        run(tmp_path, folder, class_names=names)
        after = features(tmp_path, "animals")
        assert after.class_names == ("tabby", "poodle", "glass")
        assert after.features.tobytes() == before.features.tobytes()

    def test_labels_change_the_labels_only(self, tmp_path, monkeypatch):
        data = [png(i) for i in range(6)]
        first, second = ["cat", "dog"] * 3, ["dog"] * 3 + ["cat"] * 3
        write_table(tmp_path / "table" / "test.parquet", data, first, other=second)
        run(tmp_path / "store", tmp_path / "table", label_column="label")
        before = features(tmp_path / "store", "table")
        monkeypatch.setattr(LoadedBackbone, "forward", embed_nothing)
        (outcome,) = run(tmp_path / "store", tmp_path / "table", label_column="other")
        after = features(tmp_path / "store", "table")
        assert not outcome.cached
        assert any("labels" in field for field in outcome.changed)
        assert [after.class_names[i] for i in after.labels] == second
        assert [before.class_names[i] for i in before.labels] == first
        assert after.features.tobytes() == before.features.tobytes()

    def test_another_image_is_embedded_again(self, tmp_path, folder):
        root = shutil.copytree(folder, tmp_path / "animals")
        run(tmp_path / "store", root)
        before = features(tmp_path / "store", "animals")
        put(next((root / "test").rglob("*.png")), png(999))
        train, test = run(tmp_path / "store", root)
        after = features(tmp_path / "store", "animals")
        assert (train.cached, test.cached) == (True, False)
        assert any("content" in field for field in test.changed)
        assert (after.features != before.features).any(axis=1).sum() == 1

    def test_other_weights_under_the_same_name_are_noticed(self, tmp_path, folder):
        name = save(tmp_path, RESNET)
        (first,) = run(tmp_path / "store", folder, [name], split=["test"])
        file = Path(name.partition("@")[2])
        tensors = {k: v * 1.5 for k, v in load_file(file).items()}
        save_file(tensors, file)
        (second,) = run(tmp_path / "store", folder, [name], split=["test"])
        assert not second.cached
        assert any("weights" in field for field in second.changed)
        assert first.backbone == second.backbone


class TestOptions:
    def test_limit_of_a_split_that_is_not_there_is_refused(self, tmp_path, folder, capsys):
        asked = ("--dataset", folder, "--backbones", RESNET, "--store", tmp_path, "--limit")
        line = fails(capsys, *asked, "tain=2")
        assert "--limit names split 'tain', but there are only train, test" in line
        line = fails(capsys, *asked, "train=2,tets=2", "--split", "train")
        assert "--limit names split 'tets'" in line
        (outcome,) = run(tmp_path, folder, limit={"training": 2, "test": 1}, split=["train"])
        assert outcome.rows == 2

    def test_limit_spreads_over_the_split(self, tmp_path, folder):
        (outcome,) = run(tmp_path, folder, limit=4, split=["test"])
        assert outcome.rows == 4
        assert set(features(tmp_path, "animals").labels) == {0, 1, 2}
        (outcome,) = run(tmp_path, folder, limit=100, split=["test"])
        assert (outcome.rows, outcome.cached) == (8, False)
        assert any("samples: 4 -> 8" in field for field in outcome.changed)
        (outcome,) = run(tmp_path, folder, split=["test"])
        assert outcome.cached

    def test_name(self, tmp_path, folder):
        (outcome,) = run(tmp_path, folder, split=["test"], name="mine")
        assert outcome.dataset == "mine"
        with pytest.raises(DataError, match="--name names one data set, but 2 were given"):
            run(tmp_path, "digits,letters", name="mine")

    def test_json_holds_the_outcomes_and_nothing_else(self, tmp_path, folder, capsys):
        command = ["extract", "--dataset", str(folder), "--store", str(tmp_path), "--json"]
        assert main([*command, "--backbones", RESNET]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        assert [(o["split"], o["rows"], o["cached"]) for o in json.loads(out)] == [
            ("train", 8, False),
            ("test", 8, False),
        ]

    def test_quiet_says_nothing(self, tmp_path, folder, capsys):
        command = ["extract", "--dataset", str(folder), "--store", str(tmp_path), "--quiet"]
        assert main([*command, "--backbones", RESNET]) == 0
        assert capsys.readouterr() == ("", "")


class TestBadImages:
    @pytest.fixture
    def spoilt(self, tmp_path, folder):
        root = shutil.copytree(folder, tmp_path / "spoilt")
        put(root / "test" / "dog" / "04.png", b"not an image")
        whole = (root / "test" / "cat" / "00.png").read_bytes()
        put(root / "test" / "cat" / "00.png", whole[: len(whole) // 2])
        return root

    def test_fail_names_the_image(self, tmp_path, spoilt, capsys):
        line = fails(
            capsys, "--dataset", spoilt, "--backbones", RESNET, "--store", tmp_path / "store"
        )
        assert "cannot decode test/cat/00.png" in line or "cat/00.png" in line
        assert "--on-bad-image skip" in line

    def test_skip_lists_and_records(self, tmp_path, spoilt, capsys):
        for word in ("extracted", "cached"):
            code = main(
                ["extract", "--dataset", str(spoilt), "--backbones", RESNET, "--on-bad-image", "skip",
                 "--store", str(tmp_path / "store")]
            )  # fmt: skip
            assert code == 0
            out = capsys.readouterr().out
            assert "spoilt/test: 6 images" in out
            assert word in out
            assert "  skipped " in out
            assert "cat/00.png" in out
            assert "dog/04.png" in out
        found = features(tmp_path / "store", "spoilt")
        assert len(found.skipped) == 2
        assert len(found.features) == len(found.labels) == len(found.sample_id) == 6
        logits = read_logits(Layout(tmp_path / "store").logits("spoilt", "zero-shot", RESNET))
        assert logits.splits["test"].sample_id == found.sample_id

    def test_every_backbone_skips_the_same(self, tmp_path, spoilt):
        run(tmp_path / "store", spoilt, BOTH, on_bad_image="skip", batch_size=2)
        first, second = (features(tmp_path / "store", "spoilt", backbone=b) for b in BOTH)
        assert first.sample_id == second.sample_id
        assert first.skipped == second.skipped

    def test_an_image_that_would_take_gigabytes_is_skipped(self, tmp_path, folder):
        root = shutil.copytree(folder, tmp_path / "long")
        Image.new("RGB", (3_000_000, 1)).save(root / "test" / "cat" / "line.png")
        with pytest.raises(DataError, match=r"cat/line.png .* 3000000 x 1 pixels: .*; crop it"):
            run(tmp_path / "store", root, split=["test"])
        run(tmp_path / "store", root, split=["test"], on_bad_image="skip")
        found = features(tmp_path / "store", "long")
        assert [s.rsplit("/", 1)[1] for s, _ in found.skipped] == ["line.png"]
        assert len(found.features) == 8

    def test_more_pixels_are_allowed_by_a_run_that_follows_the_message(
        self, tmp_path, folder, capsys
    ):
        """Images that were skipped for their size are not cached as skipped."""
        root = shutil.copytree(folder, tmp_path / "wide")
        Image.new("1", (18_000, 10_000)).save(root / "test" / "cat" / "pano.png")
        command = ["extract", "--dataset", str(root), "--backbones", RESNET, "--split", "test"]
        command += ["--store", str(tmp_path / "store")]
        line = fails(capsys, *command[1:])
        assert (
            "(180000000 pixels) exceeds limit of 178956970 pixels; allow it with --max-pixels 180000000"
            in line
        )
        assert main([*command, "--on-bad-image", "skip"]) == 0
        assert "wide/test: 8 images" in capsys.readouterr().out
        for word in ("max_pixels", "cached"):
            assert main([*command, "--max-pixels", "180000000"]) == 0
            shown = capsys.readouterr()
            assert "wide/test: 9 images" in shown.out
            assert word in shown.out
            assert shown.err == ""

    def test_what_terminals_obey_is_escaped(self, tmp_path, folder, capsys):
        root = shutil.copytree(folder, tmp_path / "red")
        for name in ("test/dog/\x1b[31m.png", "test/c\x1b]0;title\x07/0.png"):
            put(root / name, b"no image")
        command = ["--dataset", str(root), "--backbones", RESNET, "--on-bad-image", "skip"]
        assert main(["extract", *command, "--store", str(tmp_path / "store")]) == 0
        assert main(["doctor", str(root), "--store", str(tmp_path / "store")]) == 0
        shown = "".join(capsys.readouterr())
        assert r"test/dog/\x1b[31m.png" in shown
        assert r"c\x1b]0;title\x07" in shown
        assert not {*shown} & {"\x1b", "\x07"}

    def test_nothing_readable(self, tmp_path):
        for i in range(3):
            put(tmp_path / "broken" / "test" / "cat" / f"{i}.png", b"nothing")
        with pytest.raises(DataError, match="none of the images 0 to 3 of broken/test can be read"):
            run(tmp_path / "store", tmp_path / "broken", on_bad_image="skip")

    def test_an_unknown_choice(self, tmp_path, folder, capsys):
        line = fails(capsys, "--dataset", folder, "--on-bad-image", "ignore", "--store", tmp_path)
        assert "--on-bad-image is 'ignore'; choose fail or skip" in line


class TestErrors:
    def test_weights_that_give_nan(self, tmp_path, folder, capsys):
        name = save(tmp_path, RESNET)
        file = Path(name.partition("@")[2])
        tensors = load_file(file)
        tensors["visual.conv1.weight"][0] = float("nan")
        save_file(tensors, file)
        line = fails(
            capsys, "--dataset", folder, "--backbones", name, "--store", tmp_path / "store"
        )
        assert f"{file} has weights that are NaN or infinite: " in line
        assert not files(tmp_path / "store")

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (
                ["--backbones", "nano-RN49"],
                "unknown backbone 'nano-RN49'; did you mean 'nano-RN50",
            ),
            (["--backbones", f"RN50@{__file__}"], "test_extract.py is text; give a checkpoint"),
            (
                ["--dataset", "digitz"],
                "unknown dataset 'digitz'; did you mean 'digits'? known: a path that ",
            ),
            (["--dataset", "./nowhere"], "nowhere does not exist"),
            (["--split", "dev"], "dev"),
            (["--limit", "0"], "--limit is 0; give at least 1"),
            (["--precision", "fp16", "--device", "cpu"], "use --precision fp32"),
            (["--precision", "fp12"], "unknown precision 'fp12'"),
            (["--device", "tpu"], "device 'tpu' cannot be used"),
            (["--templates", "nowhere.txt"], "cannot read the templates nowhere.txt"),
        ],
    )
    def test_each_is_one_line(self, tmp_path, folder, capsys, options, message):
        given = {"--dataset": folder, "--backbones": RESNET, "--store": tmp_path / "store"}
        given |= dict(zip(options[::2], options[1::2], strict=True))
        assert message in fails(capsys, *(x for pair in given.items() for x in pair))

    def test_an_empty_folder(self, tmp_path, capsys):
        (tmp_path / "empty").mkdir()
        line = fails(capsys, "--dataset", tmp_path / "empty", "--store", tmp_path / "store")
        assert str(tmp_path / "empty") in line

    def test_an_unknown_group(self, tmp_path, folder):
        with pytest.raises(UnknownNameError, match="unknown backbone 'nanos'; did you mean 'nano'"):
            run(tmp_path, folder, ["nanos"])

    def test_two_at_once(self, tmp_path, folder, capsys):
        path = Layout(tmp_path).features("animals", "test", RESNET)
        with locks.writing(path):
            line = fails(
                capsys, "--dataset", folder, "--split", "test", "--backbones", RESNET,
                "--store", tmp_path,
            )  # fmt: skip
        assert f"another clipnlc is writing {path}; wait for it or stop it (pid " in line
        assert run(tmp_path, folder, split=["test"])[0].rows == 8

    def test_a_damaged_file_is_told(self, tmp_path, folder):
        run(tmp_path, folder)
        path = Layout(tmp_path).features("animals", "test", RESNET)
        path.write_bytes(path.read_bytes()[:200])
        with pytest.raises(StoreError, match="clipnlc extract") as error:
            run(tmp_path, folder)
        assert "\n" not in str(error.value)


HOLDING = """
import sys, time
from pathlib import Path
from clipnlc.extraction.request import Request
from clipnlc.stages.extract import Watch, extract

def hold(_):
    print("holding", flush=True)
    time.sleep(600)

request = Request(store=Path(sys.argv[1]), dataset=[sys.argv[2]], backbones=["nano-RN50"])
extract(request, watch=Watch(progress=hold))
"""


@pytest.mark.slow
def test_a_second_process_is_turned_away_and_follows_a_killed_one(tmp_path, folder):
    at = [str(tmp_path / "store"), str(folder)]
    with subprocess.Popen(
        [sys.executable, "-c", HOLDING, *at], stdout=subprocess.PIPE, text=True
    ) as first:
        assert first.stdout.readline() == "holding\n"
        command = [sys.executable, "-m", "clipnlc", "extract", "--backbones", RESNET]
        command += ["--store", at[0], "--dataset", at[1]]
        second = subprocess.run(command, capture_output=True, text=True, check=False)
        first.kill()
    assert second.returncode == 2
    (line,) = second.stderr.splitlines()
    assert line.startswith("error: another clipnlc is writing ")
    assert f"(pid {first.pid})" in line
    assert subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode == 0
    run(tmp_path / "whole", folder)
    assert files(tmp_path / "store") == files(tmp_path / "whole")
