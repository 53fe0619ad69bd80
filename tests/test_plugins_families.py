"""A family of backbones in a package of a stranger's, installed for real."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import toy_family
from command_line import environment
from test_plugins import ROOT, SITE, pip_install

from clipnlc import plugins
from clipnlc.backbones import parse
from clipnlc.backbones.catalogue import families
from clipnlc.backbones.families import FAMILIES, family, family_of
from clipnlc.backbones.identity import identity
from clipnlc.backbones.openclip import open_clip
from clipnlc.errors import PluginError, PluginWarning
from clipnlc.plugins import Plugin
from clipnlc.testing import check_family

PROJECT = """\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"
[project]
name = "coloured"
version = "1.0"
[tool.setuptools]
py-modules = ["toy_family"]
[project.entry-points."clipnlc.families"]
toy = "toy_family:Toy"
"""


@pytest.fixture(scope="session")
def coloured(once):
    """The package of the toy family; a folder for PYTHONPATH."""

    def make(folder):
        source = folder / "source"
        source.mkdir(parents=True)
        (source / "pyproject.toml").write_text(PROJECT)
        shutil.copy(Path(toy_family.__file__), source)
        pip_install(source, folder / SITE)

    return once("plugins/coloured", make) / SITE


def test_an_installed_family_is_checked_and_used(coloured, tmp_path):
    weights = tmp_path / "twice.txt"
    weights.write_text("2")
    code = "from clipnlc.testing import check_package; check_package('coloured')"
    command = ["backbones", f"toy-mean@{weights}", "--json"]
    code += f"\nfrom clipnlc.cli import main\nassert main({command}) == 0"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(PYTHONPATH=f"{coloured}:{ROOT}"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    (row,) = json.loads(done.stdout)
    assert (row["name"], row["family"]) == ("toy-mean@twice", "toy")
    assert (row["texts"], row["dim"], row["at_hand"]) == (False, 3, True)


def test_its_package_is_in_the_key(declare, tmp_path):
    weights = tmp_path / "twice.txt"
    weights.write_text("2")
    declare(toy="toy_family:Toy")
    memory = tmp_path / "backbones.json"
    found = identity(parse(f"toy-mean@{weights}"), memory)
    assert found["family_package"] == "mine 3"
    declare(version="4", toy="toy_family:Toy")
    newer = identity(parse(f"toy-mean@{weights}"), memory)
    assert newer == found | {"family_package": "mine 4"}


def test_conforms(tmp_path):
    weights = tmp_path / "twice.txt"
    weights.write_text("2")
    check_family(toy_family.Toy, f"toy-mean@{weights}")

    class Wordless(toy_family.Toy):
        embeds_texts = True

        def templates(self, class_names):  # noqa: ARG002
            return ()

    with pytest.raises(AssertionError, match="embeds_texts is True"):
        check_family(Wordless)

    class Batchwise(toy_family.Toy):
        def load(self, backbone, **settings):
            towers = super().load(backbone, **settings)
            encode = towers.encode_image
            return replace(towers, encode_image=lambda images: encode(images - images.mean()))

    with pytest.raises(AssertionError, match="a batch changes features"):
        check_family(Batchwise, f"toy-mean@{weights}")


@pytest.fixture
def declare(monkeypatch):
    """Make as if packages declared families; `family` forgets what it made."""

    def make(version="3", **places):
        its = {name: (Plugin(name, place, "mine", version),) for name, place in places.items()}
        monkeypatch.setattr(plugins, "declared", lambda _: its)
        family.cache_clear()
        vars(FAMILIES).pop("_added", None)

    yield make
    family.cache_clear()
    vars(FAMILIES).pop("_added", None)


def test_entry_points_are_read_where_no_family_of_ours_has_the_name(monkeypatch):
    def never(group):
        raise AssertionError(group)

    monkeypatch.setattr(plugins, "declared", never)
    found = [family_of(one) for one in ("nano-RN50", "timm/a.b", "hf-clip@x", "RN50.openai")]
    assert found == ["nano", "timm", "hf", "open_clip"]
    with pytest.raises(AssertionError, match=r"clipnlc\.families"):
        family_of("ViT-B-32.openai")


def test_no_family_takes_names_of_open_clip():
    firsts = {one.partition("-")[0] for one in open_clip().list_models() if "-" in one}
    assert firsts - {"nano", "tiny"} == set(
        FAMILIES.reserved
    )  # ours, and what other tests register


def test_the_longest_name_counts_and_what_it_calls_its_backbones(declare, monkeypatch, tmp_path):
    declare(toy="toy_family:Toy", **{"toy-big": "toy_family:Toy", "ViT": "toy_family:Toy"})
    found = [family_of(one) for one in ("toy-x@y", "toy-big-x@y", "toys.a", "ViT-B-32.openai")]
    assert found == ["toy", "toy-big", "open_clip", "open_clip"]
    with pytest.raises(
        PluginError, match=r"family 'toy-big' of mine 3 .* is called 'toy'; repair or"
    ):
        parse("toy-big-x@y")
    assert parse("toy-mean@x").name == "toy-mean@x"
    monkeypatch.setattr(toy_family, "Backbone", lambda *_, **__: plain("toy-mean"))
    with pytest.raises(
        PluginError, match="calls a backbone 'toy-mean'; expected a name like toy-A"
    ):
        parse("toy-mean@x")


def test_families_are_listed_with_their_package_and_what_is_broken_is_left_out(declare):
    declare(toy="toy_family:Toy", half="toy_family:Nothing", ViT="toy_family:Toy")
    with pytest.warns(PluginWarning) as said:
        found = families()
    assert [(one.name, one.package) for one in found if one.package] == [("toy", "mine 3")]
    ours, half = sorted(str(one.message) for one in said)
    assert "mine 3 calls a family 'ViT', which clipnlc uses itself" in ours
    assert "the family 'half' of mine 3 cannot be imported (AttributeError" in half
    with pytest.raises(PluginError, match="the family 'half' of mine 3 cannot be imported"):
        parse("half-x@y")


def plain(name):
    return parse("nano-RN50").__class__(name, "mean", "file", family="toy")
