"""How a message spells a `clipnlc` command: quoted, with the store where it is not the default."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Final

DEFAULT_STORE: Final = Path("clipnlc-store")
"""The store of every command that names none."""

_OWN_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")

Value = str | int | float | Path | bool | Sequence[str] | None


def command(stage: str, *arguments: str, store: Path | None = None, **options: Value) -> str:
    """Spell a command that can be pasted into a shell as it is.

    Args:
        stage: the command's name, with what needs no quotes.
        arguments: what follows it, before the options.
        store: the store it is about; left out where it is the default or None.
        options: by name, underscores for hyphens, and one at the end where Python has the word
            (`from_`); lists are joined by commas, True is a flag, and None, False and what is empty
            are left out.

    >>> command("extract", store=Path("my store"), dataset=["cub", "dtd"], backbones="RN50.openai")
    "clipnlc extract --dataset cub,dtd --backbones RN50.openai --store 'my store'"
    >>> command("evaluate", store=DEFAULT_STORE, head=None)
    'clipnlc evaluate'
    """
    words = ["clipnlc", *stage.split(), *map(shlex.quote, arguments)]
    if store is not None and store != DEFAULT_STORE:
        options["store"] = store
    for name, value in options.items():
        option = f"--{name.rstrip('_').replace('_', '-')}"
        if value is True:
            words.append(option)
        elif isinstance(value, Sequence) and not isinstance(value, str):
            words += [option, shlex.quote(",".join(value))] if value else []
        elif value not in (None, False, ""):
            words += [option, shlex.quote(str(value))]
    return " ".join(words)


def is_own_name(backbone: str) -> bool:
    """Return whether `import` makes a backbone of this name, and not `extract`.

    Those of `extract` have a tag or a file, or begin with `nano-`.

    >>> [is_own_name(name) for name in ("forest", "RN50.openai", "nano-RN50", "a@b.pt", "hf:a/b")]
    [True, False, False, False, False]
    """
    return bool(_OWN_NAME.fullmatch(backbone)) and not backbone.startswith("nano-")
