"""What `clipnlc.load` returns: a fitted ensemble that predicts images, in Python."""

import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from clipnlc.backbones import resolve
from clipnlc.datasets.images import MAX_PIXELS
from clipnlc.errors import DataError
from clipnlc.extraction.models import Models
from clipnlc.extraction.photos import Encoded
from clipnlc.runs.predictor import Predictor
from clipnlc.stages.predict import Prediction, predict
from clipnlc.stages.predict.members import find_backbones, models_for
from clipnlc.wording import count

AnyImage = str | Path | Image.Image | np.ndarray
"""A file, an image of Pillow's, or uint8 `[height, width, 3]` in RGB."""


class LoadedEnsemble:
    """A fitted ensemble; backbones are loaded by the first prediction and stay loaded.

    `clipnlc.load` makes one of a folder that `clipnlc export` wrote. Here from images to a
    prediction, with a miniature backbone:

    >>> import clipnlc, tempfile
    >>> from clipnlc.cli import main
    >>> folder = tempfile.TemporaryDirectory()
    >>> store, made = f"{folder.name}/store", f"{folder.name}/ensemble"
    >>> for line in (
    ...     "extract --dataset digits --backbones nano-RN50 --limit 8",
    ...     "train-nlc --combiners log-avg",
    ...     f"export --combiner log-avg --out {made}",
    ... ):
    ...     assert main([*line.split(), "--store", store, "--quiet"]) == 0
    >>> loaded = clipnlc.load(made)
    >>> loaded.backbones, loaded.class_names[:3]
    (('nano-RN50',), ('zero', 'one', 'two'))
    >>> loaded.describe()
    'log-avg of nano-RN50 with zero-shot heads, fitted without labels on digits: 10 classes'
    >>> bar = np.zeros((28, 28, 3), np.uint8)  # black, with a white bar
    >>> bar[4:24, 12:16] = 255
    >>> [found.answer for found in loaded.predict([bar])]
    ['one']
    >>> folder.cleanup()
    """

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self._ready: tuple[object, Models] | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes that images are sorted into."""
        return self._predictor.heads.class_names

    @property
    def backbones(self) -> tuple[str, ...]:
        """The names of the backbones, sorted."""
        return self._predictor.backbones

    def describe(self) -> str:
        """Say in one line what it is and what it was fitted on."""
        fitted = self._predictor.fitted
        return (
            f"{fitted.name} of {', '.join(self.backbones)} with {self._predictor.heads.name} heads, "
            f"fitted {fitted.labels.phrase} on {self._predictor.dataset}: "
            f"{count(len(self.class_names), 'class')}"
        )

    def __repr__(self) -> str:
        """Return the description."""
        return f"<{self.describe()}>"

    def predict(
        self,
        images: Iterable[AnyImage],
        *,
        backbones: str | Sequence[str] | None = None,
        weights_dir: Path | str | None = None,
        device: str = "auto",
        precision: str = "auto",
        batch_size: int | None = None,
        max_pixels: int | None = None,
        explain: bool = False,
    ) -> list[Prediction]:
        """Return the class of each image, in order, as `clipnlc predict` gives it.

        Args:
            images: files, images of Pillow's, or uint8 arrays `[height, width, 3]`; those in memory
                are called `image 0`, `image 1`, and so on, by their place.
            backbones: where weights files are (`ARCHITECTURE@FILE`), if any backbone is one.
            weights_dir: a folder with the weights, instead of a download.
            device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.
            precision: `auto` is that of the features that it was fitted on.
            batch_size: images of one forward; by default as in `extract`.
            max_pixels: a larger image is refused; by default one of 178,956,970 pixels.
            explain: say what each backbone says.

        Raises:
            DataError: an image cannot be read, or is of another kind.
            BackboneError: weights are missing, or are not those that it was fitted with.
        """
        if isinstance(images, str | Path | Image.Image):
            raise DataError(f"images is one {type(images).__name__}; give a list of images")
        folder = None if weights_dir is None else Path(weights_dir)
        given = resolve(backbones, folder) if backbones else ()
        found = find_backbones(self.backbones, given, folder)
        wanted = (found, device, precision)
        predictor = self._predictor
        if self._ready is not None and self._ready[0] == wanted:
            models = self._ready[1]
            predictor = replace(predictor, identities={})  # checked when they were loaded
        else:
            models = models_for(predictor, device=device, precision=precision)
        blocks = predict(
            predictor,
            _files(images),
            backbones=found,
            models=models,
            batch_size=batch_size,
            max_pixels=max_pixels or MAX_PIXELS,
            explain=explain,
        )
        self._ready = wanted, models
        predictions: list[Prediction] = []
        with closing(blocks):
            for block in blocks:
                if block.unreadable:
                    file, reason = block.unreadable[0]
                    raise DataError(f"cannot use {file}: {reason}; replace it or leave it out")
                predictions += block.predictions
        return predictions


def _files(images: Iterable[AnyImage]) -> Iterator[Path | Encoded]:
    for number, image in enumerate(images):
        if isinstance(image, str | Path):
            yield Path(image)
        elif isinstance(image, Image.Image):
            yield Encoded(f"image {number}", encoded(image))
        elif _is_rgb(image):
            yield Encoded(f"image {number}", encoded(Image.fromarray(image)))
        else:
            found = (
                f"an array of {image.dtype} {list(image.shape)}"
                if isinstance(image, np.ndarray)
                else f"of type {type(image).__name__}"
            )
            raise DataError(
                f"image {number} is {found}; expected a path, an image of Pillow's, or uint8 "
                "[height, width, 3]"
            )


def _is_rgb(image: object) -> bool:
    channels = 3
    return (
        isinstance(image, np.ndarray)
        and image.dtype == np.uint8
        and image.ndim == channels
        and image.shape[2] == channels
        and image.size > 0
    )


def encoded(image: Image.Image) -> bytes:
    """Write an image as a file in memory that holds the same pixels in the same mode.

    So images in memory take the very road of files. Modes that TIFF does not have become RGB.
    """
    bare = image.copy()
    bare.info.clear()  # orientation, compression and the like are the file's that it came from
    file = io.BytesIO()
    try:
        bare.save(file, "TIFF", compression="raw")
    except (OSError, KeyError, ValueError):
        file = io.BytesIO()
        bare.convert("RGB").save(file, "TIFF", compression="raw")
    return file.getvalue()
