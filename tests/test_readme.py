"""What the README promises is there: its Python runs, its files, targets and commands exist."""

import re
from pathlib import Path

from typer.main import get_command

from clipnlc.cli.app import app

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")


def test_the_python_runs():
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names = {}
    exec(block, names)  # noqa: S102  (our own README)
    assert names["predicted"].shape == (30,)


def test_links_to_files_lead_somewhere():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if not link.startswith("http")]
    assert len(links) > 5
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_targets_exist():
    targets = set(re.findall(r"make ([a-z-]+)", README))
    assert {"reproduce", "test"} <= targets
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert [t for t in targets if not re.search(rf"^{t}:", makefile, re.MULTILINE)] == []


def test_commands_and_their_options_exist():
    commands = get_command(app).commands
    lines = re.findall(r"^clipnlc (\S+)(.*)$", README, re.MULTILINE)
    assert len(lines) >= 3
    for name, rest in lines:
        known = {option for p in commands[name].params for option in p.opts}
        assert set(re.findall(r"--[a-z-]+", rest)) <= known
