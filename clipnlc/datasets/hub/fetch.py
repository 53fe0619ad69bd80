"""The files of one split of a repository on the hub: in the hub's cache, or downloaded into it.

This is the only module that talks to the hub. Which files make a split is read off their names,
as for a folder on disk, since what `datasets` infers from a repository can be wrong without a word
(one tar beside `nshards.txt` is read as text, and a split cannot be downloaded without the others).
"""

import contextlib
import errno
import socket
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit
from urllib.request import getproxies

from clipnlc.datasets import splits as split_names
from clipnlc.datasets.hf import one_line
from clipnlc.datasets.hub.entries import Source
from clipnlc.errors import DataError

_SUFFIX: Final = {"parquet": ".parquet", "tars": ".tar"}


@dataclass(frozen=True)
class Fetched:
    """A split whose files lie in the hub's cache.

    Attributes:
        root: the snapshot's folder.
        commit: the revision it is of.
        files: of the split, in order, relative to the root.
    """

    root: Path
    commit: str
    files: tuple[str, ...]


class UnavailableError(Exception):
    """A repository that is unavailable although the hub can be reached; another may be available."""


class UnreachableError(Exception):
    """The hub cannot be reached, or the connection broke off."""


def at_hand(source: Source, split: str) -> Fetched | None:
    """Return a split that is in the hub's cache with all its files; never asks the network."""
    from huggingface_hub import constants  # noqa: PLC0415

    folder = Path(constants.HF_HUB_CACHE) / f"datasets--{source.id.replace('/', '--')}"
    try:
        commit = source.revision or (folder / "refs" / "main").read_text("utf-8").strip()
    except OSError:
        return None
    root = folder / "snapshots" / commit
    if not root.is_dir():
        return None
    present = [p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()]
    files = _of_split(source, split, present)
    complete = files and _shards(source, root, files) in (None, len(files))
    return Fetched(root, commit, files) if complete else None


def download(source: Source, split: str) -> Fetched:
    """Download a split's files into the hub's cache; what is there already is not fetched again.

    Raises:
        UnavailableError: there is no such repository, revision or split, or it is gated.
        UnreachableError: the hub cannot be reached, or the connection broke off.
        DataError: there is no room in the hub's cache.
    """
    import huggingface_hub as hub  # noqa: PLC0415

    sizes = _listing(source)
    files = _of_split(source, split, sizes)
    if not files:
        name = source.splits[split].name
        raise UnavailableError(f"{source.id} has no split {name!r} any more")
    beside = {"classnames.txt", f"{Path(files[0]).parent.as_posix()}/nshards.txt"}
    with _told(source), _bars():
        root = hub.snapshot_download(
            source.id,
            repo_type="dataset",
            revision=source.revision,
            allow_patterns=[escape(name) for name in (*files, *sorted(beside & set(sizes)))],
        )
    return Fetched(Path(root), Path(root).name, files)


def download_size(source: Source, split: str) -> int | None:
    """Return the bytes of a split's files; None where the hub cannot be asked."""
    try:
        sizes = _listing(source)
    except (UnavailableError, UnreachableError):
        return None
    return sum(sizes[name] for name in _of_split(source, split, sizes)) or None


def _listing(source: Source) -> Mapping[str, int]:
    """Ask the hub for the sizes of a repository's files in bytes."""
    import huggingface_hub as hub  # noqa: PLC0415

    if not _resolves():
        raise UnreachableError("no network")  # at once: the hub's client retries for a minute
    with _told(source):
        info = hub.HfApi().dataset_info(source.id, revision=source.revision, files_metadata=True)
    return {f.rfilename: f.size or 0 for f in info.siblings or []}


def _of_split(source: Source, split: str, names: Iterable[str]) -> tuple[str, ...]:
    """Choose a split's files by their names, of one configuration where there are several."""
    wanted = [n for n in names if n.endswith(_SUFFIX[source.format])]
    inside = [n for n in wanted if n.startswith(f"{source.config}/")]
    groups = split_names.group_files(inside or wanted, Path(source.id))
    return tuple(groups.get(split_names.canonical(source.splits[split].name), ()))


def _shards(source: Source, root: Path, files: tuple[str, ...]) -> int | None:
    """Return how many files a split should have, if the files say so."""
    if source.format == "tars":
        try:
            return int((root / files[0]).with_name("nshards.txt").read_text("utf-8"))
        except (OSError, ValueError):
            return None
    *_, of = Path(files[0]).stem.partition("-of-")
    digits = of.split("-")[0]  # train-00000-of-00002-0a1b2c
    return int(digits) if digits.isdecimal() else None


@contextlib.contextmanager
def _told(source: Source) -> Iterator[None]:
    """Sort what the hub's client raises into a source's own fault, and everything else."""
    from huggingface_hub import errors  # noqa: PLC0415

    try:
        yield
    except errors.GatedRepoError as problem:
        raise UnavailableError(
            f"{source.id} is gated (accept its terms on its page of the hub and set HF_TOKEN)"
        ) from problem
    except (
        errors.RepositoryNotFoundError,
        errors.RevisionNotFoundError,
        errors.DisabledRepoError,
    ) as problem:
        what = f"{source.id}@{source.revision}" if source.revision else source.id
        raise UnavailableError(f"{what} is not on the hub, or not public") from problem
    except Exception as problem:
        if isinstance(problem, OSError) and problem.errno == errno.ENOSPC:
            from huggingface_hub import constants  # noqa: PLC0415

            raise DataError(
                f"no room for {source.id} in {constants.HF_HUB_CACHE}; free some, or move it with HF_HUB_CACHE"
            ) from problem
        # The client passes on whatever its transports raise: none is a common child of anything.
        raise UnreachableError(one_line(problem)) from problem


@contextlib.contextmanager
def _bars() -> Iterator[None]:
    """Show the client's progress bars on a terminal only."""
    from huggingface_hub import utils as hub  # noqa: PLC0415

    quiet = not sys.stderr.isatty() and not hub.are_progress_bars_disabled()  # type: ignore[attr-defined]
    if quiet:
        hub.disable_progress_bars()  # type: ignore[attr-defined]
    try:
        yield
    finally:
        if quiet:
            hub.enable_progress_bars()  # type: ignore[attr-defined]


def _resolves() -> bool:
    """Return whether the hub's name can be looked up; with a proxy, the proxy does."""
    from huggingface_hub import constants  # noqa: PLC0415

    if getproxies():
        return True
    try:
        socket.getaddrinfo(urlsplit(constants.ENDPOINT).hostname, 443)
    except OSError:
        return False
    return True
