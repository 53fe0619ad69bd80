"""Pretraining: the same bits whatever interrupts it, and what the loss leaves out."""

import io
import signal
import subprocess
import sys
import time

import numpy as np
import open_clip
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors import safe_open
from tiny_backbones import load
from torch.nn.functional import normalize

from clipnlc.backbones import nano
from clipnlc.backbones.openclip import architecture_config, untrained
from clipnlc.backbones.vocabulary import RESERVED, learn_merges, write_merges
from clipnlc.cli import main
from clipnlc.errors import BackboneError, DataError, UnknownNameError
from clipnlc.stages.pretrain import pretrain
from clipnlc.training import loop
from clipnlc.training.captions import CaptionedImages
from clipnlc.training.contrastive import augmented, clip_loss
from clipnlc.training.loop import Recipe, Training

BACKBONE = "nano-RN50"
STEPS = 8
SETTINGS = {"backbone": BACKBONE, "steps": STEPS, "batch_size": 8, "warmup": 2}
COLOURS = {"red": (220, 30, 30), "green": (30, 160, 50), "blue": (40, 70, 220)}


def write_corpus(path, rows=20, seed=0):
    rng = np.random.default_rng(seed)
    columns = {"image": [], "caption": [], "concept": []}
    for _ in range(rows):
        name = list(COLOURS)[rng.integers(3)]
        pixels = np.clip(rng.normal(COLOURS[name], 20, (20, 20, 3)), 0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        columns["image"].append({"bytes": buffer.getvalue(), "path": None})
        columns["caption"].append([name, f"a {name} square", f"a picture in {name}"])
        columns["concept"].append(name)
    pq.write_table(pa.table(columns), path)
    return path


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus") / "corpus.parquet")


@pytest.fixture(scope="module")
def unbroken(corpus, tmp_path_factory):
    """The weights of a run that nothing interrupted."""
    made = pretrain(data=corpus, out=tmp_path_factory.mktemp("unbroken") / "new", **SETTINGS)
    return made.weights.read_bytes()


class Stop(BaseException):
    """An interruption that nothing catches."""


def stopped_after(step):
    def on_progress(done, _loss):
        if done == step:
            raise Stop

    return on_progress


class TestInterruptions:
    @pytest.mark.parametrize("step", [1, 2, 3, 7, 8])
    def test_stopped_after_any_step(self, corpus, unbroken, tmp_path, step):
        settings = {**SETTINGS, "data": corpus, "out": tmp_path, "checkpoint_every": 2}
        with pytest.raises(Stop, match=r"^$"):
            pretrain(on_progress=stopped_after(step), **settings)
        steps = []
        made = pretrain(on_progress=lambda done, _loss: steps.append(done), **settings)
        # The callback of a step runs before its checkpoint is written.
        assert steps == list(range((step - 1) // 2 * 2 + 1, STEPS + 1))
        assert made.weights.read_bytes() == unbroken
        assert sorted(p.suffix for p in tmp_path.iterdir()) == [".json", ".safetensors"]

    @pytest.mark.slow
    def test_killed_and_resumed(self, corpus, tmp_path):
        command = [sys.executable, "-m", "clipnlc", "pretrain", "--data", corpus, "--out", tmp_path]
        options = {"backbone": BACKBONE, "steps": 60, "batch-size": 8, "warmup": 2}
        options["checkpoint-every"] = 3
        running = subprocess.Popen(
            [*command, *(str(x) for k, v in options.items() for x in (f"--{k}", v))],
            stderr=subprocess.DEVNULL,
        )
        checkpoint = tmp_path / f"{BACKBONE}.checkpoint.safetensors"
        while not checkpoint.exists():
            assert running.poll() is None
            time.sleep(0.01)
        time.sleep(0.05)
        running.send_signal(signal.SIGKILL)
        assert running.wait() == -signal.SIGKILL
        with safe_open(checkpoint, "pt") as file:
            reached = int(file.metadata()["step"])
        steps = []
        settings = {**SETTINGS, "data": corpus, "steps": 60}
        resumed = pretrain(
            out=tmp_path, checkpoint_every=3, on_progress=lambda s, _: steps.append(s), **settings
        )
        assert steps[0] == reached + 1 > 3
        whole = pretrain(out=tmp_path / "whole", **settings)
        assert resumed.digest == whole.digest
        assert resumed.weights.read_bytes() == whole.weights.read_bytes()

    def test_another_recipe_is_refused(self, corpus, tmp_path):
        settings = {**SETTINGS, "data": corpus, "out": tmp_path, "checkpoint_every": 2}
        with pytest.raises(Stop, match=r"^$"):
            pretrain(on_progress=stopped_after(5), **settings)
        with pytest.raises(
            BackboneError, match="belongs to another recipe or other data; delete it"
        ):
            pretrain(**{**settings, "learning_rate": 1e-4})

    def test_other_data_are_refused(self, corpus, tmp_path):
        settings = {**SETTINGS, "out": tmp_path, "checkpoint_every": 2}
        with pytest.raises(Stop, match=r"^$"):
            pretrain(data=corpus, on_progress=stopped_after(5), **settings)
        other = write_corpus(tmp_path / "other.parquet", seed=1)
        with pytest.raises(BackboneError, match="belongs to another recipe or other data"):
            pretrain(data=other, **settings)

    def test_a_damaged_checkpoint_is_told(self, corpus, tmp_path):
        (tmp_path / f"{BACKBONE}.checkpoint.safetensors").write_bytes(b"no checkpoint")
        with pytest.raises(BackboneError, match=r"is damaged .* delete it to start again"):
            pretrain(data=corpus, out=tmp_path, **SETTINGS)


class TestResult:
    def test_again_is_cached_and_another_seed_is_not(self, corpus, unbroken, tmp_path):
        first = pretrain(data=corpus, out=tmp_path, **SETTINGS)
        again = pretrain(data=corpus, out=tmp_path, **SETTINGS)
        assert (first.cached, again.cached) == (False, True)
        assert again.digest == first.digest
        assert first.weights.read_bytes() == unbroken
        other = pretrain(data=corpus, out=tmp_path, seed=1, **SETTINGS)
        assert not other.cached
        assert other.digest != first.digest

    def test_weights_that_changed_are_trained_again(self, corpus, unbroken, tmp_path):
        made = pretrain(data=corpus, out=tmp_path, **SETTINGS)
        made.weights.write_bytes(b"changed")
        assert not pretrain(data=corpus, out=tmp_path, **SETTINGS).cached
        assert made.weights.read_bytes() == unbroken

    def test_they_load_like_any_backbone(self, corpus, tmp_path):
        made = pretrain(data=corpus, out=tmp_path, **SETTINGS)
        backbone = load(f"{BACKBONE}@{made.weights}")
        assert np.isfinite(backbone.embed_images(np.zeros((1, 48, 48, 3), np.uint8))).all()

    def test_training_lowers_the_loss(self, corpus, tmp_path):
        losses = []
        pretrain(
            data=corpus,
            out=tmp_path,
            on_progress=lambda _step, loss: losses.append(loss),
            **{**SETTINGS, "steps": 60},
        )
        assert losses[-1] < losses[0]

    def test_the_command_says_what_is_next(self, corpus, tmp_path, capsys):
        options = ["--backbone", BACKBONE, "--steps", "2", "--batch-size", "8"]
        command = ["pretrain", "--data", str(corpus), "--out", str(tmp_path / "new"), *options]
        assert main(command) == 0
        out = capsys.readouterr().out.splitlines()
        assert "trained, digest" in out[0]
        assert out[-1].startswith(f"next: clipnlc extract --dataset … --backbones {BACKBONE}@")
        assert main(command) == 0
        assert "cached, digest" in capsys.readouterr().out


class TestBadData:
    def refused(self, data, tmp_path, match, **changed):
        with pytest.raises(DataError, match=match) as error:
            pretrain(data=data, out=tmp_path / "out", **{**SETTINGS, **changed})
        assert "\n" not in str(error.value)

    def test_fewer_images_than_one_batch(self, corpus, tmp_path):
        self.refused(corpus, tmp_path, "holds 20 images, fewer than one batch of 64", batch_size=64)

    def test_no_file(self, tmp_path):
        self.refused(tmp_path, tmp_path, "no parquet file at")

    def test_not_a_parquet_file(self, tmp_path):
        (tmp_path / "x.parquet").write_text("nothing")
        self.refused(tmp_path, tmp_path, "x.parquet is no parquet file")

    def test_missing_columns(self, tmp_path):
        pq.write_table(pa.table({"image": [b"x"], "text": ["x"]}), tmp_path / "x.parquet")
        self.refused(tmp_path, tmp_path, "has no column 'caption' .it has image, text.")

    def test_a_row_without_caption(self, tmp_path):
        pq.write_table(
            pa.table({"image": [b"x"] * 2, "caption": ["x", None]}), tmp_path / "x.parquet"
        )
        self.refused(
            tmp_path, tmp_path, "cannot decode image 0|row 1 lacks its image or its caption"
        )

    @pytest.mark.parametrize(
        "columns", [{"image": ["x"], "caption": ["x"]}, {"image": [b"x"], "caption": [7]}]
    )
    def test_columns_of_other_types(self, tmp_path, columns):
        pq.write_table(pa.table(columns), tmp_path / "x.parquet")
        self.refused(tmp_path, tmp_path, "row 0 has no image bytes, or a caption that is no text")

    def test_a_damaged_page(self, corpus, tmp_path):
        data = bytearray(
            next(corpus.glob("*.parquet")).read_bytes() if corpus.is_dir() else corpus.read_bytes()
        )
        data[10:2000] = bytes(1990)
        (tmp_path / "x.parquet").write_bytes(data)
        self.refused(tmp_path, tmp_path, "x.parquet is no parquet file|cannot decode image")

    def test_an_unreadable_image(self, tmp_path):
        pq.write_table(pa.table({"image": [b"x"], "caption": ["x"]}), tmp_path / "x.parquet")
        self.refused(tmp_path, tmp_path, "cannot decode image 0 of")

    def test_an_unknown_architecture(self, corpus, tmp_path):
        with pytest.raises(UnknownNameError, match="unknown architecture 'RN51'"):
            pretrain(data=corpus, out=tmp_path, **{**SETTINGS, "backbone": "RN51"})


def loop_loss(image, text, scale, excluded):
    """CLIP's loss, pair by pair."""
    image, text = normalize(image, dim=-1), normalize(text, dim=-1)
    n, total = len(image), 0.0
    for i in range(n):
        kept = [j for j in range(n) if not excluded[i, j]]
        row = torch.stack([scale * image[i] @ text[j] for j in kept])
        column = torch.stack([scale * image[j] @ text[i] for j in kept])
        total += row.logsumexp(0) - row[kept.index(i)] + column.logsumexp(0) - column[kept.index(i)]
    return total / (2 * n)


class TestLoss:
    @pytest.mark.parametrize("concepts", [1, 3, 100])
    def test_against_a_loop(self, concepts):
        generator = torch.Generator().manual_seed(concepts)
        image, text = (torch.randn(12, 5, generator=generator) for _ in range(2))
        concept = torch.randint(0, concepts, (12,), generator=generator)
        excluded = concept[:, None] == concept
        excluded.fill_diagonal_(False)
        found = clip_loss(image, text, torch.tensor(20.0), excluded)
        assert found.item() == pytest.approx(
            loop_loss(image, text, 20.0, excluded).item(), rel=1e-5
        )

    def test_with_every_other_pair_excluded_nothing_is_left(self):
        excluded = ~torch.eye(4, dtype=torch.bool)
        loss = clip_loss(torch.randn(4, 3), torch.randn(4, 3), torch.tensor(50.0), excluded)
        assert loss.item() == pytest.approx(0, abs=1e-6)


class TestBatches:
    @pytest.fixture
    def training(self, tmp_path):
        rng = np.random.default_rng(0)
        # Image i is described by captions 2i and 2i + 1, and all images by the last one.
        captions = [np.array([2 * i, 2 * i + 1, 60]) for i in range(30)]
        data = CaptionedImages(
            images=rng.integers(0, 256, (30, 24, 24, 3), dtype=np.uint8),
            tokens=np.arange(61)[:, None].repeat(16, axis=1),
            captions=captions,
            concept=np.arange(30) // 3,
            digest="none",
        )
        model = untrained("nano-ViT-B-16", seed=0)
        return Training(
            model,
            data,
            Recipe(steps=12, batch_size=8),
            mean=(0.5,) * 3,
            std=(0.5,) * 3,
            checkpoint=tmp_path / "c.safetensors",
        )

    def test_an_epoch_shows_each_image_at_most_once(self, training):
        seen = []
        for step in range(3):
            training.step = step
            seen += training._rows().tolist()
        assert len(set(seen)) == len(seen) == 24
        training.step = 3
        assert training._rows().tolist() != seen[:8]

    def test_captions_are_the_images_own_and_concepts_are_no_negatives(self, training, monkeypatch):
        drawn, masks, rows = [], [], []
        encode = training.model.encode_text

        def encode_text(tokens):
            drawn.append(tokens[:, 0].numpy())
            rows.append(training._rows())
            return encode(tokens)

        def loss(image, text, scale, excluded):
            masks.append(excluded.numpy())
            return clip_loss(image, text, scale, excluded)

        monkeypatch.setattr(training.model, "encode_text", encode_text)
        monkeypatch.setattr(loop, "clip_loss", loss)
        training.run()
        assert len(drawn) == 12
        kinds = set()
        for texts, images, mask in zip(drawn, rows, masks, strict=True):
            for i, (text, image) in enumerate(zip(texts, images, strict=True)):
                assert text in training.data.captions[image]
                kinds.add("shared" if text == 60 else text % 2)
                for j, (other, another) in enumerate(zip(texts, images, strict=True)):
                    same = image // 3 == another // 3 or text == other
                    assert mask[i, j] == (same and i != j)
        assert kinds == {0, 1, "shared"}

    def test_augmentation_depends_on_its_generator_only(self):
        images = torch.arange(2 * 3 * 16 * 16).remainder(256).to(torch.uint8).view(2, 3, 16, 16)
        first, second = (augmented(images, torch.Generator().manual_seed(3)) for _ in range(2))
        assert first.shape == images.shape
        assert torch.equal(first, second)
        assert not torch.equal(first, augmented(images, torch.Generator().manual_seed(4)))


TEXTS = ["a red square", "a red circle", "two red squares", "a photo of a naïve Käfer"] * 3


class TestVocabulary:
    def test_open_clip_reads_the_file(self, tmp_path):
        merges = learn_merges(TEXTS, 30)
        write_merges(tmp_path / "v.txt.gz", merges)
        tokenize = open_clip.get_tokenizer(BACKBONE, bpe_path=str(tmp_path / "v.txt.gz"))
        assert tokenize.vocab_size == RESERVED + len(merges)
        for text in TEXTS:
            assert tokenize.decode(tokenize.encode(text)).strip() == text.lower()
        assert len(tokenize.encode("a red")) == 2

    def test_the_order_of_the_texts_is_irrelevant(self, tmp_path):
        for name, texts in (("a", TEXTS), ("b", TEXTS[::-1])):
            write_merges(tmp_path / name, learn_merges(texts, 25))
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()

    def test_a_prefix_of_more_merges(self):
        assert learn_merges(TEXTS, 30)[:10] == learn_merges(TEXTS, 10)

    def test_a_pair_seen_once_is_no_merge(self):
        assert learn_merges(["xyz"], 5) == []
        assert learn_merges(["ab ab"], 5) == [("a", "b</w>")]

    @settings(max_examples=10)  # open_clip reads its own vocabulary each time
    @given(st.lists(st.text("abcd ", max_size=12), max_size=6))
    def test_no_merge_twice(self, texts):
        merges = learn_merges(texts, 20)
        assert len(set(merges)) == len(merges) <= 20

    def test_the_shipped_vocabulary_fits_every_nano_architecture(self):
        tokenize = open_clip.get_tokenizer(BACKBONE, bpe_path=str(nano.VOCABULARY))
        for name in nano.NAMES:
            assert architecture_config(name)["text_cfg"]["vocab_size"] == tokenize.vocab_size


def test_untrained_models_depend_on_the_seed_only():
    torch.manual_seed(1)
    first = untrained(BACKBONE, seed=0).state_dict()
    state = torch.get_rng_state()
    second = untrained(BACKBONE, seed=0).state_dict()
    other = untrained(BACKBONE, seed=1).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert any(not torch.equal(first[k], other[k]) for k in first)
