"""Every public name says what it is, and shows it with an example that runs (`--doctest-modules`)."""

import ast
import doctest
import inspect
import re
import sys
from collections.abc import Iterator
from itertools import pairwise
from types import ModuleType

import pytest

import clipnlc
import clipnlc.testing

MODULES = (clipnlc, clipnlc.testing)
NAMES = [(module, name) for module in MODULES for name in module.__all__]


def examples(docstring: str | None) -> str:
    """Return the code of the examples of a docstring; a `>>>` within a sentence does not count."""
    return "".join(one.source for one in doctest.DocTestParser().get_examples(docstring or ""))


def methods(cls: type) -> Iterator[tuple[str, str]]:
    """Yield the public methods and properties that a class defines, with their docstrings."""
    for name, value in vars(cls).items():
        function = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
        if inspect.isfunction(function) and not name.startswith("_"):
            yield name, function.__doc__ or ""


def said_of_constant(module: ModuleType, name: str) -> str:
    """Return the string below a constant, in the module of the package where it is assigned."""
    for home in list(sys.modules.values()):
        if home is module or not home.__name__.startswith(f"{module.__name__}."):
            continue
        body = ast.parse(inspect.getsource(home)).body
        for one, below in pairwise(body):
            if isinstance(one, ast.AnnAssign) and getattr(one.target, "id", "") == name:
                text = getattr(below, "value", None)
                return str(text.value) if isinstance(text, ast.Constant) else ""
    return ""


def lacking(module: ModuleType, name: str) -> list[str]:
    """Return what a public name lacks."""
    value = getattr(module, name)
    if not callable(value):
        shown = re.search(rf"\b{name}\b", examples(module.__doc__))
        return ["docstring"] * (not said_of_constant(module, name)) + ["example"] * (not shown)
    own = value.__doc__ or ""
    found = ["docstring"] * (not own or own.startswith(f"{name}(")) + ["example"] * (
        not examples(own)
    )
    for method, text in methods(value) if isinstance(value, type) else ():
        found += [f"docstring of {method}"] * (not text)
        used = re.search(rf"\.{method}\b", examples(own) + examples(text))
        found += [f"example of {method}"] * (not used)
    return found


@pytest.mark.parametrize(("module", "name"), NAMES, ids=lambda one: getattr(one, "__name__", one))
def test_a_public_name_has_a_docstring_and_an_example(module, name):
    assert lacking(module, name) == []


class Bare:
    def predict(self):
        pass

    @property
    def size(self):
        """Say how many."""


class Shown:
    """Show how it is used.

    >>> Shown().size
    """

    @property
    def size(self):
        """Say how many."""


def test_what_lacks_is_seen():
    here = ModuleType("here", "A module without examples.")
    here.Bare, here.Shown, here.NUMBERS = Bare, Shown, (1, 2)
    assert lacking(here, "Shown") == []
    assert lacking(here, "NUMBERS") == ["docstring", "example"]
    assert lacking(here, "Bare") == [
        "docstring",
        "example",
        "docstring of predict",
        "example of predict",
        "example of size",
    ]


def test_nothing_public_is_left_out():
    """What is imported into `clipnlc.testing` by name is listed; helpers stay in their modules."""
    public = {name for name in vars(clipnlc.testing) if not name.startswith("_")}
    modules = {name for name in public if inspect.ismodule(getattr(clipnlc.testing, name))}
    assert public - modules == set(clipnlc.testing.__all__)
    assert set(clipnlc.__all__) <= set(dir(clipnlc))
