"""Keeping other packages' chatter off the user's terminal while they are imported or called."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator


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
