"""Options that delegates are loaded with."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from orchestrator import lower
from orchestrator.native import ExecuTorchError, NativeProgram

X = torch.linspace(-1.0, 1.0, 12).reshape(3, 4)
GGML = "GgmlBackend"


@pytest.fixture(scope="module")
def buffer() -> bytes:
    model = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 2)).eval()
    program = lower(model, (X,), backends=["ggml"], strategy="greedy")
    assert NativeProgram(program.buffer).backends() == (GGML,)
    return program.buffer


@pytest.mark.parametrize(
    "options",
    [
        {},
        {GGML: {"num_threads": 1}},
        {GGML: {}, "XnnpackBackend": {"some": True, "other": "text"}},
        {"NoSuchBackend": {"num_threads": 3}},
    ],
)
@pytest.mark.parametrize("threads", [0, 1, 2])
def test_programs_load_with_options(
    buffer: bytes, options: dict[str, dict[str, Any]], threads: int
) -> None:
    plain = NativeProgram(buffer).run("forward", [X])
    program = NativeProgram(buffer, num_threads=threads, backend_options=options)
    torch.testing.assert_close(program.run("forward", [X]), plain)


def test_an_option_that_a_delegate_refuses_is_an_error_with_its_reason(buffer: bytes) -> None:
    for value, reason in ((-5, "option num_threads is -5"), ("many", "is not an integer")):
        program = NativeProgram(buffer, backend_options={GGML: {"num_threads": value}})
        with pytest.raises(ExecuTorchError, match=reason):
            program.run("forward", [X])


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("k" * 64, 1, r"option 'k+' of GgmlBackend: a name has 1 to 63 bytes"),
        ("", 1, r"option '' of GgmlBackend: a name has 1 to 63 bytes"),
        ("path", "p" * 256, r"option 'path' of GgmlBackend: a text has at most 255 bytes"),
    ],
)
def test_an_option_that_executorch_cannot_hold_is_an_error(
    buffer: bytes, key: str, value: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        NativeProgram(buffer, backend_options={GGML: {key: value}})


@pytest.mark.parametrize("value", [1.5, None, [1]])
def test_an_option_of_another_type_is_an_error(buffer: bytes, value: Any) -> None:
    with pytest.raises(TypeError, match=r"num_threads' of GgmlBackend is a .*, expected a bool"):
        NativeProgram(buffer, backend_options={GGML: {"num_threads": value}})


def test_a_number_of_more_than_32_bits_is_an_error(buffer: bytes) -> None:
    with pytest.raises(ValueError, match="does not fit 32 bits"):
        NativeProgram(buffer, backend_options={GGML: {"num_threads": 1 << 40}})
