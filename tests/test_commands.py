"""Commands in messages can be pasted into a shell, and name the store."""

import ast
import re
import shlex
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

import clipnlc
from clipnlc.commands import DEFAULT_STORE, command

PACKAGE = Path(clipnlc.__file__).parent


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


def strings_of(path):
    """Yield the strings of a module that are no docstrings, each with its line."""
    tree = ast.parse(path.read_text("utf-8"))
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docs = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield node.lineno, node.value


def test_no_message_spells_a_command_by_hand():
    """The one place that does quotes it and names the store."""
    stages = "extract merge train-heads train-nlc evaluate diversity status verify doctor predict"
    spelled = re.compile(rf"clipnlc ({'|'.join(stages.split())}|export)\b")
    found = [
        f"{path.relative_to(PACKAGE)}:{line}: {text}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for line, text in strings_of(path)
        if spelled.search(text) and path.name not in ("app.py", "making.py", "commands.py")
        if "help" not in text and not text.startswith("Only this range")
    ]
    assert found == []
