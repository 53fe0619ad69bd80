"""The `datasets` library, used in the ways that are safe and kept quiet.

Map mode: `datasets` writes the rows once into Arrow files below `HF_DATASETS_CACHE` (saved folders
are used as they are) and maps them into memory, so that any row range can be read directly. It is
given explicit files, one split at a time; left to itself it guesses formats and mixes splits. Its
streaming mode copies nothing, but seeks by reading all that lies before, and imports torch.

The library is imported inside the functions: that takes most of a second.
"""

import contextlib
import glob
import lzma
import struct
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pyarrow as pa

from clipnlc.errors import DataError, printable

if TYPE_CHECKING:
    import datasets as hf

_LONGEST = 200

UNREADABLE: Final = (
    pa.ArrowException,
    tarfile.TarError,
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    RuntimeError,  # and RecursionError, NotImplementedError
    struct.error,
    zlib.error,
    lzma.LZMAError,
)
"""What damaged or foreign files make pyarrow and `datasets` raise, besides the latter's own errors."""


def prepare(
    builder: str, root: Path, names: Sequence[str], content: str, **options: object
) -> "hf.Dataset":
    """Let `datasets` write files into its cache and map the result into memory.

    The content's digest is part of the cache's key, since `datasets` itself only compares
    modification times.

    Raises:
        DataError: the files cannot be read, or the cache cannot be written.
    """
    import datasets as hf  # noqa: PLC0415

    # `datasets` takes names as patterns, and "::" as a chain of file systems.
    if "::" in str(root.absolute()):
        raise DataError(f"datasets cannot read a path with '::' in it: {root}; rename the folder")
    files = [glob.escape(str((root / name).absolute())) for name in names]
    try:
        with quiet():
            return hf.load_dataset(
                builder,
                name=f"clipnlc-{content[:16]}",
                data_files={"rows": files},
                split="rows",
                **options,
            )
    except Exception as error:  # members of a tar are decoded by any of a dozen libraries
        cause = error.__cause__ or error
        raise DataError(
            f"datasets cannot read {names[0]} of {root} as {builder}: {one_line(cause)}; check the file, and that the folder HF_DATASETS_CACHE has room and can be written"
        ) from error


def load_saved(folder: Path) -> "hf.Dataset":
    """Map a saved `Dataset` into memory.

    Raises:
        DataError: files are missing or damaged.
    """
    import datasets as hf  # noqa: PLC0415

    try:
        with quiet():
            found = hf.load_from_disk(str(folder))
        if not isinstance(found, hf.Dataset):
            raise TypeError("several splits where one is expected")
    except (hf.exceptions.DatasetsError, *UNREADABLE) as error:
        raise DataError(
            f"cannot read {folder}: {one_line(error)}; save it again with save_to_disk"
        ) from error
    return found


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep `datasets` from printing, and from counting each use with a request to the network."""
    import datasets as hf  # noqa: PLC0415

    level = hf.logging.get_verbosity()
    bars = hf.are_progress_bars_disabled()
    counts = hf.config.HF_UPDATE_DOWNLOAD_COUNTS
    hf.logging.set_verbosity(hf.logging.CRITICAL)
    hf.disable_progress_bars()
    hf.config.HF_UPDATE_DOWNLOAD_COUNTS = False
    try:
        yield
    finally:
        hf.logging.set_verbosity(level)
        hf.config.HF_UPDATE_DOWNLOAD_COUNTS = counts
        if not bars:
            hf.enable_progress_bars()


def one_line(error: BaseException) -> str:
    """Return an error's text as one short line."""
    told = getattr(error, "strerror", None) or str(error)
    text = printable(" ".join(told.split())) or type(error).__name__
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "..."
