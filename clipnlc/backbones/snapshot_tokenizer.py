"""The tokenizer of a snapshot, and the one door to the package transformers, which is optional."""

from __future__ import annotations

import importlib
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from clipnlc.backbones import snapshots as files
from clipnlc.errors import BackboneError

if TYPE_CHECKING:
    from torch import Tensor

INSTALL: Final = "run: pip install --upgrade 'clipnlc[transformers]'"


class SnapshotTokenizer:
    """Prompts to tokens of a fixed length, as the snapshot's processor makes them.

    SigLIP and SigLIP 2 were trained on lower case. SigLIP's own tokenizer sees to it; the published
    snapshots of SigLIP 2 ask for it (`do_lower_case`) of a tokenizer of Gemma's that does not do it.

    `lower_case` is whether the model was trained so; where the snapshot says it was not, that counts.

    Raises:
        BackboneError: it cannot be read, is code of the snapshot, or pads on the left.
    """

    def __init__(self, folder: Path, *, context: int, lower_case: bool) -> None:
        self._context = context
        config = folder / "tokenizer_config.json"
        settings = files.read_json(config) if config.is_file() else {}
        if settings.get("auto_map"):  # transformers would take another tokenizer without a word
            raise BackboneError(
                f"{config} asks for a tokenizer of the snapshot's own code (auto_map), and no code of a "
                "snapshot is run; give one whose tokenizer transformers has"
            )
        self._lower = lower_case and settings.get("do_lower_case", True)
        try:
            with quiet():
                self._its = library().AutoTokenizer.from_pretrained(
                    str(folder.resolve()), local_files_only=True, trust_remote_code=False
                )
            self(["a"])
        except MemoryError:
            raise
        except Exception as problem:  # noqa: BLE001  (each kind of tokenizer raises its own)
            raise BackboneError(
                f"the tokenizer of {folder} cannot be read ({first_line(problem)}); fetch "
                f"tokenizer.json and tokenizer_config.json of the snapshot, or {INSTALL}"
            ) from None
        if self._its.padding_side != "right":
            raise BackboneError(
                f"the tokenizer of {folder} pads on the {self._its.padding_side}; CLIP and SigLIP "
                'read prompts padded on the right: write "padding_side": "right" in '
                "tokenizer_config.json"
            )

    def __call__(self, prompts: list[str], context_length: int | None = None) -> Tensor:
        """Make tokens (prompts, context), cut and padded to one length; `TextTower` asks for others."""
        texts = [prompt.lower() for prompt in prompts] if self._lower else prompts
        found: Tensor = self._its(
            texts,
            padding="max_length",
            truncation=True,
            max_length=context_length or self._context,
            return_tensors="pt",
        ).input_ids
        return found


def first_line(problem: Exception) -> str:
    """Return the first line of what a library says, shortened."""
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
    return (lines[0] if lines else type(problem).__name__)[:160]


def library() -> Any:  # noqa: ANN401  (its classes are not typed)
    """Import transformers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("transformers")


@contextmanager
def quiet() -> Iterator[None]:
    """Silence reports and progress bars: what matters in them is an error of ours."""
    its = library().utils.logging
    bars = its.is_progress_bar_enabled()
    logging.disable(logging.CRITICAL)
    its.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
        if bars:
            its.enable_progress_bar()
