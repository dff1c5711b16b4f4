"""Importing other packages: without their chatter, and without what they need for other parts."""

from __future__ import annotations

import contextlib
import importlib
import logging
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType


@contextlib.contextmanager
def quiet_imports() -> Iterator[None]:
    """Drop warnings and log records below ERROR while the body runs.

    For imports of packages that report optional parts of theirs that are missing. Failures
    still raise.
    """
    previous = logging.root.manager.disable
    logging.disable(max(previous, logging.WARNING))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)


@contextlib.contextmanager
def without_init(package: str) -> Iterator[None]:
    """Have modules of a package imported in the body without running the package's own file.

    For packages that import, in `__init__.py`, what the modules themselves do not need. A package
    that was imported already stays as it is.
    """
    if package in sys.modules:
        yield
        return
    parent_name, _, name = package.rpartition(".")
    parent = importlib.import_module(parent_name)
    bare = ModuleType(package)
    bare.__path__ = [str(Path(each, name)) for each in parent.__path__]
    sys.modules[package] = bare
    try:
        yield
    finally:
        del sys.modules[package]
        vars(parent).pop(name, None)
