"""What goes wrong for the user of a command, and how it is said."""

from __future__ import annotations


class CommandError(Exception):
    """A command cannot be carried out; the message is for the user."""


def describe(error: BaseException) -> str:
    """Return one line about an error; its type is named unless the message was made for users."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    text = str(error).strip()
    expected = isinstance(error, CommandError | ValueError | OSError)
    return text if expected and text else f"{type(error).__name__}: {text}"
