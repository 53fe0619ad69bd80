"""What a family of backbones is."""

from abc import ABC
from collections.abc import Sequence
from typing import ClassVar


class Family(ABC):
    """Backbones that are named, loaded and prompted in one way.

    Attributes:
        name: as in `FAMILIES`.
    """

    name: ClassVar[str]

    def templates(self, class_names: Sequence[str]) -> tuple[str, ...]:  # noqa: ARG002
        """Return the prompt templates for classes of which nobody says how to prompt them.

        By default CLIP's own (Radford et al. 2021, section 3.1.4). A family that was trained on
        other captions returns templates like those.

        Args:
            class_names: the classes, as they go into the prompts.
        """
        return ("a photo of a {c}.",)
