"""A stranger's family: a tower that gives the mean colour of an image, its weights a file of bytes."""

from importlib.metadata import version
from pathlib import Path

import torch

from clipnlc.backbones import Backbone
from clipnlc.backbones.families.base import Family, Outline, Towers
from clipnlc.backbones.preprocessing import Preprocessing


class MeanColour(torch.nn.Module):
    """Mean of each channel, times a factor."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = torch.nn.Parameter(torch.ones(()))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.factor * images.mean(dim=(2, 3))


class Toy(Family):
    """Backbones `toy-mean@FILE`."""

    name = "toy"
    meaning = "mean colours"
    needs = "nothing; weights are a file"
    embeds_texts = False

    def release(self):
        return version("torch")

    def names(self):
        yield from ()

    def parse(self, name, *, weights_dir):  # noqa: ARG002
        file = Path(name.partition("@")[2])
        return Backbone(f"toy-mean@{file.stem}", "mean", "file", file=file, family=self.name)

    def at_hand(self, backbone):
        return backbone.file.is_file()

    def weights_file(self, backbone):
        return backbone.file

    def facts(self, backbone, file):  # noqa: ARG002
        return {"torch": self.release(), "inference": "as in torch"}

    def preprocessing(self, backbone):  # noqa: ARG002
        return Preprocessing((8, 8), "bicubic", "squash", 0, (0.0,) * 3, (1.0,) * 3)

    def outline(self, architecture):  # noqa: ARG002
        with torch.device("meta"):
            model = MeanColour()
        return Outline(model, model, model, 3, (8, 8))

    def load(self, backbone, *, device, precision, trained):  # noqa: ARG002
        model = MeanColour()
        if trained:
            with torch.no_grad():
                model.factor.fill_(float(backbone.file.read_text()))
        return Towers(model.to(device).eval(), model, self.preprocessing(backbone), 3)
