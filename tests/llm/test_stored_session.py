"""Files of sessions, whole, damaged and hostile: there is an error before much memory is taken."""

from __future__ import annotations

import io
import random
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator import ModelError
from orchestrator.llm.stored_session import read_session, write_session
from orchestrator.native import ProgramState

PROGRAM, CONTEXT, VOCABULARY = "ab" * 32, 8, 10
TOKENS = [3, 0, 9]
STATE = ProgramState(bytes(range(40)), {"prefill": b"\1\2", "decode": b""})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "session.npz"


def read(path: Path) -> tuple[list[int], ProgramState]:
    return read_session(path, PROGRAM, CONTEXT, VOCABULARY)


@pytest.mark.parametrize("tokens", [TOKENS, []])
@pytest.mark.parametrize("state", [STATE, ProgramState(None, {"forward": b"\0"})])
def test_what_is_written_is_read(path: Path, tokens: list[int], state: ProgramState) -> None:
    write_session(path, PROGRAM, tokens, state)
    assert read(path) == (tokens, state)


def npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asarray(array))
    return file.getvalue()


def with_header(descr: str, shape: str, data: bytes = b"") -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + data


def of_members(path: Path, method: int = zipfile.ZIP_STORED, **members: bytes) -> None:
    """A session with these members instead of its own, or besides."""
    own = {"program": npy(PROGRAM), "tokens": npy(np.array(TOKENS)), "shared": npy(np.uint8([1]))}
    with zipfile.ZipFile(path, "w", method) as file:
        for name, data in {**own, **members}.items():
            file.writestr(name + ".npy", data)


MEMBERS: dict[str, tuple[bytes, str]] = {
    "huge": (with_header("'|u1'", "(1000000000000,)"), "'shared' has 0 bytes, expected 10*$"),
    "beyond 64 bits": (with_header("'<i8'", f"({10**40},)"), "'shared' has 0 bytes, expected"),
    "beyond what Python reads": (with_header("'|u1'", "(" + "9" * 5000 + ",)"), "digits"),
    "large texts": (with_header("'<U999999999'", "()"), "is no row of bytes"),
    "text of no length": (with_header("'<U0'", "()"), "is no row of bytes"),
    "objects": (with_header("'|O'", "(1,)", b"cos\nsystem\n(S'exit'\ntR."), "is no row of bytes"),
    "fields": (with_header("[('a', '<i8')]", "(1,)", bytes(8)), "is no row of bytes"),
    "negative": (with_header("'|u1'", "(-1,)"), "is no row of bytes"),
    "nested": (with_header("(" * 60000, "()"), "is no row of bytes"),
    "an open bracket": (with_header("'|u1'", "("), "is no row of bytes"),
    "floats": (npy(np.ones(2)), "is no row of bytes"),
    "a matrix": (npy(np.ones((2, 2), np.uint8)), "is no row of bytes"),
    "cut off": (npy(np.ones(9, np.uint8))[:-1], "'shared' has 8 bytes, expected 9"),
    "empty": (b"", "is no row of bytes"),
}


@pytest.mark.parametrize("name", MEMBERS)
def test_members_that_are_not_as_written_are_errors(path: Path, name: str) -> None:
    data, message = MEMBERS[name]
    of_members(path, shared=data)
    with pytest.raises(ModelError, match=rf"is no session, or a damaged one: .*{message}"):
        read(path)


@pytest.mark.parametrize(
    "program",
    [np.array("x" * 999), np.array(["ab", "cd"]), np.int64(3), np.ones(3, np.uint8)],
    ids=["long", "two", "a number", "bytes"],
)
def test_another_program_is_named_in_brief(path: Path, program: Any) -> None:
    of_members(path, program=npy(program))
    with pytest.raises(ModelError, match="is a session of another program") as error:
        read(path)
    assert len(str(error.value)) < len(str(path)) + 300


def test_text_of_no_characters_is_another_program(path: Path) -> None:
    of_members(path, program=with_header("'<U1'", "()", b"\xff\xff\xff\x7f"))
    with pytest.raises(ModelError, match="whose SHA-256 is \ufffd, expected ab"):
        read(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_small_file_takes_little_memory(path: Path, method: int) -> None:
    of_members(path, method, shared=npy(np.zeros(1 << 22, np.uint8)))
    assert path.stat().st_size < 1 << 17
    tracemalloc.start()
    try:
        with pytest.raises(ModelError, match="it is compressed"):
            read(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_members_that_lie_over_each_other_are_errors(path: Path) -> None:
    """A directory that names one member many times makes much of a small file."""
    of_members(path)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("method.a.npy", npy(np.ones(1000, np.uint8)))
        (one,) = (each for each in file.filelist if each.filename == "method.a.npy")
        file.filelist += [one] * 50
    with pytest.raises(ModelError, match="its arrays are larger than it is"):
        read(path)


def test_a_member_that_is_there_twice_is_an_error(path: Path) -> None:
    of_members(path)
    with zipfile.ZipFile(path, "a") as file, pytest.warns(UserWarning, match="Duplicate"):
        file.writestr("tokens.npy", npy(np.array(TOKENS)))
    with pytest.raises(ModelError, match="it has 'tokens' twice"):
        read(path)


def flipped(data: bytearray, draw: random.Random) -> None:
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)


def overwritten(data: bytearray, draw: random.Random) -> None:
    """In what describes the members, which has no checksum."""
    start = data.index(b"PK\1\2")
    place = draw.randrange(start, len(data) - 4)
    data[place : place + 4] = draw.choice([b"\xff" * 4, bytes(4), b"\0\0\0\x80", b"PK\5\6"])


def cut(data: bytearray, draw: random.Random) -> None:
    del data[draw.randrange(len(data)) :]


@pytest.mark.parametrize("damage", [flipped, overwritten, cut])
def test_damage_anywhere_is_an_error(
    path: Path, damage: Callable[[bytearray, random.Random], None]
) -> None:
    write_session(path, PROGRAM, TOKENS, STATE)
    whole, draw = path.read_bytes(), random.Random(0)
    refused = 0
    for _ in range(150):
        data = bytearray(whole)
        damage(data, draw)
        path.write_bytes(data)
        try:
            assert read(path) == (TOKENS, STATE)  # what was changed means nothing
        except ModelError as error:
            assert str(path) in str(error)
            refused += 1
    assert refused > 50
