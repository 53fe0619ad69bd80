"""Recognise what photos are: with a split, to be divided, or labelled in part.

Nothing is opened but what says where the images and their labels are.
"""

from dataclasses import dataclass
from typing import Final

from clipnlc.datasets import source
from clipnlc.datasets.dataset import Dataset, LocalDataset
from clipnlc.datasets.division import TEST
from clipnlc.datasets.drawn import NOT_DRAWN, Draw, Row, doubt, record_of
from clipnlc.datasets.folder import list_images
from clipnlc.datasets.layouts import LayoutError
from clipnlc.datasets.rows import Options
from clipnlc.datasets.tree import images_below
from clipnlc.errors import DataError
from clipnlc.labels import UNLABELLED
from clipnlc.wording import some

_KINDS: Final = {
    "folder": "class folders",
    "parquet": "parquet files",
    "saved": "a data set saved by `datasets`",
    "tars": "webdataset tars",
}


@dataclass(frozen=True)
class Recognised:
    """What a data set is.

    Attributes:
        path: where it lies, as it was given.
        what: how images and labels are stored, in a few words.
        splits: its splits, before any division.
        chosen: of photos labelled in part, why the labelled ones are no random draw from them; None
            where they are one.
        all_drawn: whether the command label drew every photo that there is, and each has its label.
    """

    path: str
    what: str
    splits: tuple[str, ...]
    chosen: str | None = None
    all_drawn: bool = False

    @property
    def is_divided(self) -> bool:
        """Whether there is a test split."""
        return TEST in self.splits

    @property
    def is_own_judge(self) -> bool:
        """Whether all labels are fitted on and judged by cross-fitting, rather than some made test.

        So it is where only some photos have labels, and where the command label drew them all: who
        labels the last photo is not to lose 30 % of the labels.
        """
        return not self.is_divided and (UNLABELLED in self.splits or self.all_drawn)

    def sentence(self, test_share: float | None) -> str:
        """Say in one line what it is and how it is used.

        Args:
            test_share: what is made test, where it is divided.
        """
        said = f"{self.path}: {self.what}"
        if self.is_divided:
            return f"{said} with a split ({', '.join(self.splits)})"
        if test_share is None and self.all_drawn:
            return (
                f"{said} for all, as the command label drew them; all labels are fitted on, and the "
                "accuracy is cross-fitted on them (--test-share 0.3 makes a test split instead)"
            )
        if test_share is None:
            return f"{said} for some; all labels are fitted on, the other images without labels"
        return (
            f"{said} without a test split; {100 * test_share:g} % of each class become test "
            "(--test-share)"
        )


def recognise(
    dataset: Dataset, *, image_column: str | None = None, label_column: str | None = None
) -> Recognised:
    """Say what a data set is.

    Args:
        dataset: as it was opened, undivided.
        image_column: as in `Dataset.open`.
        label_column: likewise.

    Raises:
        DataError: nothing says which classes its images are of.
    """
    try:
        splits = dataset.split_names(image_column=image_column, label_column=label_column)
    except DataError as error:
        if not isinstance(error.__cause__, LayoutError):
            raise
        raise DataError(
            f'{error}; for photos without labels give --classes "cat,dog", or some labels with --labels '
            "FILE"
        ) from error
    assert dataset.path is not None, "photos lie somewhere"
    if isinstance(dataset, LocalDataset) and dataset.labels is not None:
        options = Options(image_column, label_column, labels=dataset.labels)
        listing = list_images(dataset.path, options)
        rows = [
            Row(file, "", "", name)
            for classes in listing.splits.values()
            for name, files in classes.items()
            for file in files
        ]
        if listing.draw is not None:  # else the blank rows were not drawn either
            rows += [Row(file, "", "") for file in listing.blank]
        files = set(images_below(dataset.path))
        chosen = doubt(rows, files, listing.draw or Draw())
        if chosen == NOT_DRAWN and listing.draw is None:
            record = record_of(dataset.labels)
            chosen += f" (if it did, put the record that it wrote beside the CSV, as {record})"
        return Recognised(
            str(dataset.path),
            f"images with labels in {dataset.labels}",
            splits,
            chosen,
            all_drawn=listing.draw is not None and not listing.unlabelled,
        )
    kind = source.kind_of(dataset.path)
    what = _KINDS[kind]
    if kind == "folder":
        listed = list_images(dataset.path, Options(image_column, label_column))
        if listed.tables:
            what = f"images with labels in {some(listed.tables)}"
    return Recognised(str(dataset.path), what, splits)
