"""Sessions in files: the tokens that were run, and the caches that they left."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.frontend.errors import ModelError
from orchestrator.native import ProgramState
from orchestrator.program import write_whole

_PROGRAM, _TOKENS, _SHARED, _METHOD = "program", "tokens", "shared", "method."


def write_session(
    path: str | os.PathLike[str], program: str, tokens: list[int], state: ProgramState
) -> None:
    """Write a session as a .npz file.

    program: the SHA-256 of the program, in hexadecimal. tokens: what the caches hold, in order.

    Raises:
        OSError: the file cannot be written.
    """
    blocks = {_METHOD + name: block for name, block in state.methods.items()}
    if state.shared is not None:
        blocks[_SHARED] = state.shared
    arrays: dict[str, Any] = {name: np.frombuffer(each, np.uint8) for name, each in blocks.items()}
    arrays |= {_PROGRAM: np.array(program), _TOKENS: np.array(tokens, np.int64)}
    file = io.BytesIO()
    np.savez(file, **arrays)
    write_whole(Path(path), file.getbuffer())


def read_session(
    path: str | os.PathLike[str], program: str, context: int
) -> tuple[list[int], ProgramState]:
    """Read what `write_session` wrote.

    program: as it was given to `write_session`. context: tokens that the caches hold.

    Raises:
        ModelError: not a session, a damaged one, or one of another program.
        OSError: the file cannot be read.
    """
    with Path(path).open("rb") as file:
        arrays = _arrays(path, file.read())
    try:
        found, tokens = str(arrays.pop(_PROGRAM)), arrays.pop(_TOKENS)
    except KeyError as missing:
        raise ModelError(f"{path} is no session: it has no {missing}") from None
    if found != program:
        raise ModelError(
            f"{path} is a session of another program: of the one whose SHA-256 is {found}, "
            f"expected {program}"
        )
    if tokens.dtype != np.int64 or tokens.ndim != 1 or len(tokens) > context:
        raise ModelError(
            f"{path}: the tokens are {tokens.dtype} {list(tokens.shape)}; expected int64, "
            f"at most {context}"
        )
    blocks = {name: array.tobytes() for name, array in arrays.items()}
    shared = blocks.pop(_SHARED, None)
    methods = {name.removeprefix(_METHOD): block for name, block in blocks.items()}
    return tokens.tolist(), ProgramState(shared, methods)


def _arrays(path: str | os.PathLike[str], data: bytes) -> dict[str, NDArray[np.generic]]:
    """Read all arrays; each has a checksum."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return dict(arrays.items())
    except (ValueError, EOFError, KeyError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise ModelError(f"{path} is no session, or a damaged one: {error}") from error
