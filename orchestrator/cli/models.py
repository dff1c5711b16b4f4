"""The argument MODEL: where models come from."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.cli.errors import CommandError
from orchestrator.quiet import quiet_imports

MODEL_HELP = "a .pt2 file from torch.export.save, or PACKAGE.MODULE:FUNCTION, where the function \
returns (model, example_inputs), or a dict of exported programs by method name"


def is_model(name: str) -> bool:
    """Whether an argument names a MODEL, not a .pte."""
    path = Path(name)
    return path.suffix == ".pt2" or (":" in name and not path.exists())


def load_model(name: str) -> tuple[Any, ...]:
    """Return the positional arguments for `lower`.

    Raises:
        CommandError: nothing of that name, or no model.
    """
    path = Path(name)
    if path.suffix == ".pt2":
        if not path.exists():
            raise CommandError(f"there is no file {name!r}")
        with quiet_imports():
            import torch
        return (torch.export.load(path),)
    module_name, colon, function_name = name.partition(":")
    if not colon:
        raise CommandError(f"{name!r} is not a model; expected {MODEL_HELP}")
    sys.path.insert(0, "")  # like python -m: modules in the current folder count
    module = _import(module_name)
    try:
        made = getattr(module, function_name)
    except AttributeError as error:
        raise CommandError(
            f"module {module_name!r} has no function {function_name!r}: {error}"
        ) from None
    if not callable(made):
        raise CommandError(
            f"module {module_name!r} has no function {function_name!r}, but a "
            f"{type(made).__name__} of that name"
        )
    result = made()
    if isinstance(result, Mapping):
        return (result,)
    if not isinstance(result, tuple) or len(result) != 2:
        raise CommandError(
            f"{name} returned {type(result).__name__}, not (model, example_inputs) or a dict of "
            "exported programs"
        )
    return result


def _import(module_name: str) -> Any:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the module is there, something that it needs is not
        raise CommandError(f"there is no module {module_name!r}") from None
