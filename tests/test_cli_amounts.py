"""Amounts of labels and names on the command line that cannot be meant as they stand."""

import subprocess
import sys

import pytest
from command_line import refusal


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("train-nlc --shots 4 --count 30", "--shots and --count exclude each other"),
        ("train-nlc --shots 4 --holdout 0.1", "--shots and --holdout exclude each other"),
        ("train-heads --head rla --shots 4 --count 4", "--shots and --count exclude each other"),
        ("train-heads --holdout 0.1 --shots 4", "--shots and --holdout exclude each other"),
        ("train-nlc --shots 0,4", "--shots is '0,4'; leave out 0, as in --shots 1,4,16"),
        ("train-nlc -d photo", "did you mean 'photos'? or run `clipnlc extract --dataset photo"),
        ("evaluate -d photo", "did you mean 'photos'? or run `clipnlc extract --dataset photo"),
    ],
)
def test_it_is_refused_by_name(line, said, extracted, here):
    assert said in refusal(*line.split(), "--store", extracted, by=here)


def test_a_misspelt_backbone_is_told_without_torch():
    """Importing torch and open_clip takes seconds."""
    code = (
        "import sys\n"
        "from clipnlc.backbones import resolve\n"
        "try:\n"
        "    resolve('nano-RN51')\n"
        "except Exception as error:\n"
        "    print(error)\n"
        "print('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "did you mean 'nano-RN50'?" in done.stdout
    assert done.stdout.endswith("False\n")
