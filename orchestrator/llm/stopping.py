"""Text that is shown as it comes, up to one of several texts that end it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from orchestrator.options import OptionError


class StopAt:
    """Collects text, and hands on what cannot belong to a stop text any more.

    shown: what was handed on so far.
    """

    def __init__(self, stops: Sequence[str], stream: Callable[[str], None] | None = None) -> None:
        """Start with no text.

        Raises:
            OptionError: a lone string in place of several, or an empty one.
        """
        if isinstance(stops, str) or not all(stops):
            raise OptionError(
                f"stop is {stops!r}; expected texts of a character or more, in a list"
            )
        self._stops = tuple(stops)
        self._stream = stream
        self._held = ""
        self.shown = ""

    def add(self, piece: str) -> bool:
        """Add text; whether it ends here."""
        self._held += piece
        found = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            self._show(min(found))
            self._held = ""
            return True
        self._show(len(self._held) - max(map(self._begun, self._stops), default=0))
        return False

    def finish(self) -> None:
        """Show what was held back."""
        self._show(len(self._held))

    def _begun(self, stop: str) -> int:
        """How many characters at the end may be the beginning of a stop text."""
        sizes = range(min(len(stop) - 1, len(self._held)), 0, -1)
        return next((size for size in sizes if self._held.endswith(stop[:size])), 0)

    def _show(self, count: int) -> None:
        piece, self._held = self._held[:count], self._held[count:]
        self.shown += piece
        if piece and self._stream is not None:
            self._stream(piece)
