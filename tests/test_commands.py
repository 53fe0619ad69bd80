"""Commands in messages can be pasted into a shell, and name the store."""

import shlex
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from clipnlc.commands import DEFAULT_STORE, command


@given(st.text(min_size=1).filter(lambda t: "\0" not in t), st.text(min_size=1))
def test_a_shell_reads_back_every_value(store, dataset):
    spelled = command("extract", store=Path(store), dataset=dataset)
    words = shlex.split(spelled)
    assert words[:2] == ["clipnlc", "extract"]
    options = dict(zip(words[2::2], words[3::2], strict=True))
    assert options["--dataset"] == dataset
    assert options.get("--store", str(DEFAULT_STORE)) == str(Path(store))


def test_lists_flags_and_what_is_empty():
    spelled = command("train-nlc", shots=["1", "4"], strict_shots=True, head=None, dataset=[], x="")
    assert spelled == "clipnlc train-nlc --shots 1,4 --strict-shots"
