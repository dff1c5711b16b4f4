"""The example models by name, for the command line: `orchestrator plan examples.zoo:vit_tiny`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from examples.models import MODELS


def __getattr__(name: str) -> Callable[[], tuple[Any, tuple[Any, ...]]]:
    """Return what makes the model of that name, with example inputs.

    Raises:
        AttributeError: there is no such model.
    """
    if name not in MODELS:
        raise AttributeError(f"no example model is called {name!r}; known: {', '.join(MODELS)}")
    spec = MODELS[name]
    return lambda: (spec.build(), spec.inputs(1, 0))


def __dir__() -> list[str]:
    return list(MODELS)
