"""Class names and templates to class embeddings; prompts that a text tower cannot read are refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32

from clipnlc.backbones.families import family
from clipnlc.datasets.prompts import fill
from clipnlc.errors import DataError
from clipnlc.wording import quoted

if TYPE_CHECKING:
    from clipnlc.backbones import Backbone
    from clipnlc.backbones.loaded import LoadedBackbone
    from clipnlc.backbones.text import TooLong


def templates_for(
    backbone: Backbone, class_names: Sequence[str], given: Sequence[str] | None
) -> tuple[str, ...]:
    """Return the templates for a backbone: those `given`, else those of its family; none without texts."""
    kind = family(backbone.family)
    if not kind.has_texts(backbone):
        return ()
    return kind.templates(class_names) if given is None else tuple(given)


def embed_classes(
    backbone: LoadedBackbone,
    class_names: Sequence[str],
    templates: Sequence[str],
    *,
    on_cut: Callable[[str], None] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Float32[np.ndarray, "classes dim"]:
    """Embed classes with `LoadedBackbone.embed_classes`.

    Args:
        backbone: that embeds them.
        class_names: the words for the prompts.
        templates: of the prompts.
        on_cut: called with a note where prompts are longer than the text context, and so are cut;
            None raises.
        on_progress: called with the number of prompts done and of all.

    Raises:
        DataError: a prompt is longer than the text context; names the class and the template.
    """

    def on_long(long: TooLong) -> None:
        if on_cut is not None:
            on_cut(
                f"{backbone.name} reads {long.context} tokens of a prompt, and {long.prompts} of "
                f"{len(class_names) * len(templates)} prompts are longer: their ends are cut, which "
                "is for a rehearsal only"
            )
            return
        label, template = divmod(long.first, len(templates))
        raise DataError(
            f"the prompt of class {quoted(class_names[label])} with the template "
            f"{quoted(templates[template])} has {long.tokens} tokens, and {backbone.name} reads "
            f"{long.context}: its end would be lost (so with {long.prompts} of "
            f"{len(class_names) * len(templates)} prompts); shorten the template with --templates "
            f"FILE or the class name with --class-names FILE, or leave out {backbone.name}"
        )

    return backbone.embed_classes(
        [fill(templates, name) for name in class_names], on_long=on_long, on_progress=on_progress
    )
