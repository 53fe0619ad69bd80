"""What a family of backbones is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

    from clipnlc.backbones import Backbone
    from clipnlc.backbones.preprocessing import Preprocessing
    from clipnlc.backbones.text import TextTower


Precision = Literal["fp32", "fp16", "bf16"]


@dataclass(frozen=True)
class Towers:
    """A backbone in memory, in eval mode on its device.

    Attributes:
        model: all of it.
        encode_image: normalised images (samples, 3, height, width) to features (samples, dim).
        preprocessing: how images become its input.
        dim: width of a feature.
        text: its text tower; None without one.
        logit_scale: its own factor on cosines; None without a text tower.
        logit_bias: its own offset on logits; 0 where it has none.
    """

    model: nn.Module
    encode_image: Callable[[Tensor], Tensor]
    preprocessing: Preprocessing
    dim: int
    text: TextTower | None = None
    logit_scale: float | None = None
    logit_bias: float = 0.0


@dataclass(frozen=True)
class Outline:
    """A backbone without values, on torch's `meta` device: for counting.

    Attributes:
        model: all of it.
        visual: the image tower.
        encode_image: as of `Towers`.
        dim: width of a feature.
        size: height and width of an image, in pixels.
        encode_text: tokens (prompts, context) to embeddings; None without a text tower.
        context: tokens of a prompt.
    """

    model: nn.Module
    visual: nn.Module
    encode_image: Callable[[Tensor], Tensor]
    dim: int
    size: tuple[int, int]
    encode_text: Callable[[Tensor], Tensor] | None = None
    context: int = 0


class Family(ABC):
    """Backbones that are named, loaded and prompted in one way.

    A name of the family is `NAME-...`; only names of open_clip have no family in front. A backbone's own
    name (`Backbone.name`) has a tag or a file in it, so a dot or an `@`: others are those of `import`.

    Attributes:
        name: as in `FAMILIES`.
        meaning: what its backbones are, in a line.
        needs: what must be installed, and where weights come from, in a line.
        embeds_texts: whether its backbones embed texts; without, heads must learn from labels.
        costs_by_name: whether the name of a backbone as stores have it tells what an image costs.
        finds_in_folder: whether `weights_dir` is enough to find what stores call by a name with an `@`.
    """

    name: ClassVar[str]
    meaning: ClassVar[str]
    needs: ClassVar[str]
    embeds_texts: ClassVar[bool] = True
    costs_by_name: ClassVar[bool] = True
    finds_in_folder: ClassVar[bool] = False

    def templates(self, class_names: Sequence[str]) -> tuple[str, ...]:  # noqa: ARG002
        """Return the prompt templates for classes of which nobody says how to prompt them.

        By default CLIP's own (Radford et al. 2021, section 3.1.4). A family that was trained on
        other captions returns templates like those.

        Args:
            class_names: the classes, as they go into the prompts.
        """
        return ("a photo of a {c}.",) if self.embeds_texts else ()

    def has_texts(self, backbone: Backbone) -> bool:  # noqa: ARG002
        """Return whether a backbone embeds texts, for families of both kinds."""
        return self.embeds_texts

    @abstractmethod
    def release(self) -> str | None:
        """Return the version of the package it needs; None where that is not installed."""

    @abstractmethod
    def names(self) -> Iterator[str]:
        """Yield the names of the backbones that the installed package knows."""

    @abstractmethod
    def parse(self, name: str, *, weights_dir: Path | None) -> Backbone:
        """Read a backbone's name; nothing is loaded.

        Args:
            name: `NAME-...`.
            weights_dir: the folder that weights come from, where one was given.

        Raises:
            BackboneError: a weights file that the name gives does not exist.
            UnknownNameError: the family has no such backbone.
        """

    @abstractmethod
    def at_hand(self, backbone: Backbone) -> bool:
        """Return whether a backbone's weights need no download."""

    @abstractmethod
    def weights_file(self, backbone: Backbone) -> Path:
        """Return a backbone's weights file, downloaded first where it must be.

        Raises:
            BackboneError: it is missing, or cannot be downloaded.
        """

    def beside(self, backbone: Backbone) -> tuple[Path, ...]:  # noqa: ARG002
        """Return the files beside the weights that shape features or preprocessing, as well."""
        return ()

    def architecture_of(self, name: str) -> str:
        """Return the architecture in a backbone's name as stores have it, the file left out."""
        return name

    def repository(self, backbone: Backbone) -> str:  # noqa: ARG002
        """Return the hub's repository of the weights; empty if they are not on the hub."""
        return ""

    def placed(self, name: str) -> str:
        """Spell the name of weights in a file, as stores have it, with the folder to be filled in."""
        return name.replace("@", "@FOLDER/") + ".safetensors"

    @abstractmethod
    def facts(self, backbone: Backbone, file: Path) -> dict[str, str | bool]:
        """Return what shapes features beside architecture, weights and preprocessing.

        They become part of the key; the version of the package is among them.

        Args:
            backbone: which one.
            file: its weights.
        """

    @abstractmethod
    def preprocessing(self, backbone: Backbone) -> Preprocessing:
        """Return how images become the backbone's input, without its weights."""

    @abstractmethod
    def outline(self, architecture: str) -> Outline:
        """Make a model without values.

        Raises:
            UnknownNameError: the family has no such architecture.
        """

    def outline_of(self, backbone: Backbone) -> Outline:
        """Make a backbone without values, where its architecture alone does not say its size.

        Raises:
            UnknownNameError: the family has no such architecture.
        """
        return self.outline(backbone.architecture)

    @abstractmethod
    def load(
        self, backbone: Backbone, *, device: str, precision: Precision, trained: bool
    ) -> Towers:
        """Load a backbone, or make one with random weights, to measure its speed.

        Raises:
            BackboneError: the weights cannot be loaded.
        """

    def described(self, backbone: Backbone) -> dict[str, Any]:
        """Return embedding width, input size and parameters, without weights.

        Raises:
            UnknownNameError: the family has no such architecture.
        """
        outline = self.outline_of(backbone)
        return {
            "dim": outline.dim,
            "input": outline.size[0],
            "parameters": sum(p.numel() for p in outline.model.parameters()),
        }
