"""Sessions in files: the tokens that were run, and the caches that they left."""

from __future__ import annotations

import io
import os
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.frontend.errors import ModelError
from orchestrator.native import ProgramState
from orchestrator.program import write_whole

_PROGRAM, _TOKENS, _SHARED, _METHOD = "program", "tokens", "shared", "method."

# Of a .npy file with what a session has, a number or a row: the dtype, and the size of a row.
_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '(\|u1|<i8|<U[1-9]\d{0,3})', 'fortran_order': False, "
    rb"'shape': \((?:(\d+),)?\), \} *\n",
    re.DOTALL,
)
_SHOWN = 80  # characters of names and texts in messages


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
    path: str | os.PathLike[str], program: str, context: int, vocabulary: int
) -> tuple[list[int], ProgramState]:
    """Read what `write_session` wrote.

    program: as it was given to `write_session`. context: tokens that the caches hold. vocabulary:
    how many tokens there are; they are numbered from 0.

    Raises:
        ModelError: not a session, a damaged one, or one of another program.
        OSError: the file cannot be read.
    """
    arrays = _arrays(path, Path(path).read_bytes())
    try:
        text, tokens = arrays.pop(_PROGRAM), arrays.pop(_TOKENS)
    except KeyError as missing:
        raise ModelError(f"{path} is no session: it has no {missing}") from None
    # Not by numpy, which makes text of anything.
    found = text.tobytes().decode("utf-32-le", "replace")
    if found != program:
        raise ModelError(
            f"{path} is a session of another program: of the one whose SHA-256 is "
            f"{found[:_SHOWN]}, expected {program}"
        )
    if tokens.dtype != np.int64 or tokens.ndim != 1 or len(tokens) > context:
        raise ModelError(
            f"{path}: the tokens are {tokens.dtype} {list(tokens.shape)}; expected int64, "
            f"at most {context}"
        )
    held: list[int] = tokens.tolist()
    if held and not 0 <= min(held) <= max(held) < vocabulary:
        raise ModelError(
            f"{path}: the tokens are from {min(held)} to {max(held)}; expected 0 to "
            f"{vocabulary - 1}"
        )
    blocks = {name: array.tobytes() for name, array in arrays.items()}
    shared = blocks.pop(_SHARED, None)
    if other := [name for name in blocks if not name.startswith(_METHOD)]:
        raise ModelError(f"{path} is no session: it has '{other[0][:_SHOWN]}'")
    methods = {name.removeprefix(_METHOD): block for name, block in blocks.items()}
    return held, ProgramState(shared, methods)


def _arrays(path: str | os.PathLike[str], data: bytes) -> dict[str, NDArray[np.generic]]:
    """Read all arrays of a .npz file; each has a checksum.

    Only as `write_session` writes them: stored as they are, so that a small file cannot ask for
    much memory.
    """
    arrays: dict[str, NDArray[np.generic]] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            members = file.infolist()
            if any(each.compress_type != zipfile.ZIP_STORED for each in members):
                raise ValueError("it is compressed")
            if sum(each.file_size for each in members) > len(data):
                raise ValueError("its arrays are larger than it is")
            for each in members:
                name = each.filename.removesuffix(".npy")
                if name in arrays:
                    raise ValueError(f"it has '{name[:_SHOWN]}' twice")
                arrays[name] = _array(name, file.read(each))
    # A RuntimeError: the zip format asks for what zipfile does not do, or for a password.
    except (ValueError, EOFError, RuntimeError, zipfile.BadZipFile) as error:
        raise ModelError(f"{path} is no session, or a damaged one: {error}") from error
    return arrays


def _array(name: str, data: bytes) -> NDArray[np.generic]:
    """Read a .npy file.

    numpy's own reader evaluates the header as Python, and allocates what that asks for.
    """
    header = _HEADER.match(data)
    if header is None:
        raise ValueError(f"'{name[:_SHOWN]}' is no row of bytes or 64-bit integers, and no text")
    dtype = np.dtype(header[1].decode())
    size, expected = len(data) - header.end(), int(header[2] or 1) * dtype.itemsize
    if size != expected:
        raise ValueError(f"'{name[:_SHOWN]}' has {size} bytes, expected {expected}")
    array: NDArray[np.generic] = np.frombuffer(data, dtype, offset=header.end())
    return array if header[2] else array.reshape(())
