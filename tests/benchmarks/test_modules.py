"""Every benchmark can be imported, and says first how it is called."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

import benchmarks

NAMES = sorted(path.stem for path in Path(benchmarks.__path__[0]).glob("*.py"))


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("_")])
def test_it_is_importable(name: str) -> None:
    module = importlib.import_module(f"benchmarks.{name}")
    if hasattr(module, "main"):
        assert f"python benchmarks/{name}.py" in (module.__doc__ or "")
