"""Colours of the terminal; the same backends have the same hues in the HTML report."""

from __future__ import annotations

from collections.abc import Sequence

_RESET = "\x1b[0m"
_BOLD, _DIM, _GREEN, _RED = "\x1b[1m", "\x1b[2m", "\x1b[32m", "\x1b[31m"
_BACKENDS = ("\x1b[34m", "\x1b[33m", "\x1b[35m", "\x1b[36m")


class Style:
    """Paints texts, or leaves them as they are where colour is off."""

    def __init__(self, backends: Sequence[str], color: bool) -> None:
        self._on = color
        self._codes = {
            name: _BACKENDS[index % len(_BACKENDS)] for index, name in enumerate(backends)
        }

    def bold(self, text: str) -> str:
        """Paint a heading."""
        return self._paint(text, _BOLD)

    def kernels(self, text: str) -> str:
        """Paint what is about ExecuTorch's kernels."""
        return self._paint(text, _DIM)

    def backend(self, name: str) -> str:
        """Paint a backend's name in its colour."""
        return self._paint(name, self._codes.get(name, _DIM))

    def padded(self, name: str, width: int) -> str:
        """Paint a backend's name and fill it up to a width."""
        return self.backend(name) + " " * max(0, width - len(name))

    def hidden(self, name: str) -> int:
        """How many characters of a painted backend's name take no place on the screen."""
        return len(self.backend(name)) - len(name)

    def gain(self, text: str, gain_ns: float) -> str:
        """Paint a change of time: green where it is a gain."""
        return self._paint(text, _GREEN if gain_ns > 0 else _RED)

    def _paint(self, text: str, code: str) -> str:
        return f"{code}{text}{_RESET}" if self._on else text
