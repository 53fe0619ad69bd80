"""What backbones cost, against open_clip's published profile and a process's real memory."""

import subprocess
import sys

import huggingface_hub
import pytest

from clipnlc.backbones import parse, resolve
from clipnlc.backbones.costs import costs, download_bytes, memory_bytes
from clipnlc.backbones.openclip import untrained

# Both towers, billions of operations per image and prompt: open_clip 3.3, docs/model_profile.csv.
GFLOPS = {
    "RN50": 18.18,
    "RN101": 25.50,
    "RN50x4": 51.82,
    "RN50x16": 162.69,
    "RN50x64": 552.65,
    "ViT-B-32": 14.78,
    "ViT-B-16": 41.09,
    "ViT-L-14": 175.33,
    "ViT-L-14-336": 395.22,
}


@pytest.mark.parametrize("architecture", GFLOPS)
def test_operations_agree_with_open_clips_profile(architecture):
    found = costs(parse(f"{architecture}.openai"))
    assert (found.image_flops + found.text_flops) / 1e9 == pytest.approx(
        GFLOPS[architecture], rel=0.01
    )
    assert 0 < found.image_parameters < found.parameters


def test_parameters_are_the_models():
    found = costs(parse("nano-RN50"))
    model = untrained("nano-RN50", seed=0)
    assert found.parameters == sum(p.numel() for p in model.parameters())
    assert found.image_parameters == sum(p.numel() for p in model.visual.parameters())


def test_memory_grows_with_the_batch_and_shrinks_with_the_precision():
    backbone = parse("ViT-B-32.openai")
    one, two = (memory_bytes(backbone, precision="fp32", batch_size=n) for n in (1, 65))
    assert one > 4 * costs(backbone).parameters
    assert two - one == pytest.approx(64 * (one - 4 * costs(backbone).parameters), rel=1e-6)
    assert memory_bytes(backbone, precision="fp16", batch_size=1) == one // 2


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    "architecture",
    [
        pytest.param("RN50", marks=pytest.mark.long),
        pytest.param("ViT-B-32", marks=pytest.mark.slow),
    ],
)
def test_memory_is_about_what_a_process_takes(architecture):
    script = f"""
import re, torch
from pathlib import Path
from clipnlc.backbones.folding import fold_batch_norms, is_foldable
from clipnlc.backbones.openclip import untrained
torch.set_num_threads(1)
model = untrained({architecture!r}, seed=0)
if is_foldable(model.visual):
    fold_batch_norms(model.visual)
model.eval().visual.to(memory_format=torch.channels_last)
images = torch.zeros(32, 3, 224, 224).contiguous(memory_format=torch.channels_last)
def kilobytes(field):
    return int(re.search(field + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
before = kilobytes("VmRSS")
Path("/proc/self/clear_refs").write_text("5")
with torch.inference_mode():
    model.encode_image(images)
print(1024 * (kilobytes("VmHWM") - before))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    backbone = parse(f"{architecture}.openai")
    estimated = memory_bytes(backbone, precision="fp32", batch_size=32)
    activations = estimated - 4 * costs(backbone).parameters
    assert 0.6 * activations < int(done.stdout) < 1.2 * activations


def test_downloads(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    tag = parse("RN50.openai")
    assert download_bytes(parse("nano-RN50")) == 0
    assert download_bytes(tag) == 4 * costs(tag).parameters == pytest.approx(408e6, rel=0.01)
    assert download_bytes(resolve("RN50.openai", tmp_path)[0]) is None
    (tmp_path / "RN50.pt").touch()
    assert download_bytes(resolve("RN50.openai", tmp_path)[0]) == 0
