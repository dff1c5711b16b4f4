"""What a network with real weights is: models to lower, and a question whose answer is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from torch import Tensor, nn

Runs = Mapping[str, Callable[..., Any]]
"""By part: what computes it, eager or lowered. Parts take and return tensors."""


@dataclass(frozen=True)
class Part:
    """One model of a network, lowered by itself.

    Attributes:
        model: in eval mode. A part with mutable buffers starts with their first values.
        inputs: example inputs.
        dynamic_shapes: as for torch.export.export.
    """

    model: nn.Module
    inputs: tuple[Tensor, ...]
    dynamic_shapes: Any = None


@dataclass(frozen=True)
class Answer:
    """What a network answered, for people, and whether it is what is known to be right."""

    text: str
    right: bool


@dataclass(frozen=True)
class Network:
    """A network with the weights that a package carries.

    Attributes:
        package: the distribution with the weights.
        question: what `ask` asks, for people.
        build: makes the parts; loads the weights.
        ask: puts the question to parts that were built, eager or lowered.
    """

    package: str
    question: str
    build: Callable[[], dict[str, Part]]
    ask: Callable[[Runs], Answer]


def packaged(package: str, file: str, *, extra: str = "models") -> Path:
    """A file that an installed distribution carries; the package itself is not imported.

    Args:
        package: the distribution.
        file: its path from the folder that packages are installed to.
        extra: the extra of pyproject.toml that asks for the distribution.

    Raises:
        FileNotFoundError: the distribution is not installed, or lacks the file.
    """
    try:
        path = Path(str(distribution(package).locate_file(file)))
    except PackageNotFoundError:
        path = Path(file)
    if not path.is_file():
        raise FileNotFoundError(
            f"{file} of the package {package} is not here; install the packages of the extra "
            f"`{extra}` in pyproject.toml: tools/dependencies.sh .venv/bin/python"
        )
    return path
