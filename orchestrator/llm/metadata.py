"""What a model's file says about it, by key, as GGUF names the keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.frontend.errors import ModelError

_SHOWN = 80  # characters of a value, in errors


class Metadata:
    """Values by key, as numbers, strings and lists.

    name: what errors call the file that they come from.
    """

    def __init__(self, name: str, metadata: Mapping[str, Any]) -> None:
        """Take values as they are; what is asked for is checked then."""
        self.name = name
        self.metadata = metadata

    def get(self, key: str, kind: type | tuple[type, ...]) -> Any:
        """Return a value that has to be there.

        Raises:
            ModelError: it is missing, or of another kind.
        """
        value = self.metadata.get(key)
        if not isinstance(value, kind):
            raise ModelError(f"{self.name}: {key} {_found(value)}; expected {_wanted(kind)}")
        return value

    def get_size(self, key: str, default: int | None = None) -> int:
        """Return a size; the default where it is missing, if there is one.

        Raises:
            ModelError: it is missing, or no size.
        """
        if default is not None and key not in self.metadata:
            return default
        size = self.get(key, int)
        if size < 1:
            raise ModelError(f"{self.name}: {key} is {size}; expected 1 or more")
        return int(size)

    def get_list(self, key: str, kind: type, default: list[Any] | None = None) -> list[Any]:
        """Return a list of values of one kind; the default where it is missing, if there is one.

        Raises:
            ModelError: it is missing, no list, or one with values of another kind.
        """
        if default is not None and key not in self.metadata:
            return default
        values: list[Any] = self.get(key, list)
        for index, value in enumerate(values):
            if not isinstance(value, kind):
                raise ModelError(
                    f"{self.name}: {key}[{index}] {_found(value)}; expected {_wanted(kind)}"
                )
        return values


def _found(value: Any) -> str:
    if value is None:
        return "is missing"
    shown = repr(value)
    return f"is {shown if len(shown) <= _SHOWN else shown[:_SHOWN] + '...'}"


def _wanted(kind: type | tuple[type, ...]) -> str:
    return " or ".join(each.__name__ for each in (kind if isinstance(kind, tuple) else (kind,)))
