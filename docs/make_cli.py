"""Write `docs/cli.md` from the commands' own help: `make docs`."""  # noqa: INP001

from pathlib import Path
from typing import Any

import typer

from clipnlc.cli.app import app

PAGE = Path(__file__).with_name("cli.md")
EXIT_CODES = """\
Exit codes: 0 done, 1 an internal error, 2 an error that you can fix (standard error says what, in \
one line that starts with `error: `; a full standard output is one), 141 the reader of standard \
output is gone, as of `clipnlc evaluate | head -1` (nothing is said), 130 interrupted by Ctrl-C, 143 \
ended by SIGTERM, 129 by SIGHUP: what was finished stays, and the same command goes on. Characters \
that the output's encoding lacks are spelled with those it has; a closed stream is the null device. \
With `--json`, standard output holds one \
JSON value (`predict`: one a line and image); with `--quiet`, nothing."""


def page() -> str:
    """Return the reference of every command as Markdown."""
    group: Any = typer.main.get_command(app)
    parts = [
        "# The command line",
        "Written by `make docs` from the commands' own help; edit `clipnlc/cli/` instead.",
        *_paragraphs(group.help),
        _table(
            ("command", "makes or shows"),
            [
                (f"[`{name}`](#clipnlc-{name})", _paragraphs(command.help)[0])
                for name, command in group.commands.items()
            ],
        ),
        EXIT_CODES,
    ]
    for name, command in group.commands.items():
        command.fill_help()
        parts += [f"## clipnlc {name}", *_paragraphs(command.help)]
        parts.append(_table(("option", "default", "meaning"), [_row(p) for p in command.params]))
    return "\n\n".join(parts) + "\n"


def _paragraphs(text: str) -> list[str]:
    """Join the lines of each paragraph, and show an example as code."""
    joined = [" ".join(part.split()) for part in text.split("\n\n")]
    return [
        f"```console\n$ {part.removeprefix('Example: ')}\n```"
        if part.startswith("Example: ")
        else part
        for part in joined
    ]


def _row(option: Any) -> tuple[str, str, str]:  # noqa: ANN401  (Typer's classes are private)
    if option.param_type_name == "argument":
        name = option.name.upper() + "..." * (option.nargs == -1)
        names = f"`{name}`" if option.required else f"`[{name}]`"
    else:
        names = ", ".join(f"`{name}`" for name in option.opts)
    empty = option.default in (None, "", False)
    default = "required" if option.required else "" if empty else f"`{option.default}`"
    environment = f" Also `${option.envvar}`." if option.envvar else ""
    return names, default, f"{option.help}{environment}"


def _table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [columns, tuple("---" for _ in columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
