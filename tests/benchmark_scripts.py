"""Benchmarks as modules: they are scripts beside the package, and import their neighbours."""

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).parents[1] / "benchmarks"


@contextmanager
def loaded(name: str) -> Iterator[ModuleType]:
    """Load `benchmarks/NAME.py`; nothing of it is left behind."""
    sys.path.insert(0, str(FOLDER))
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[name]
    sys.path.remove(str(FOLDER))
