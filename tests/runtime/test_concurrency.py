"""Programs with ggml delegates on several threads: one each, and one for all."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from orchestrator.native import NativeProgram
from tests.harness.pte import make_pte


class _Model(nn.Module):
    """Large enough for its kernels to be shared out among threads."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.conv = nn.Conv2d(3, 32, 3, padding=1)
        self.norm = nn.GroupNorm(4, 32)
        self.linear = nn.Linear(32, 32)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(torch.relu(self.conv(x))).flatten(2).transpose(1, 2)
        rows = self.linear(x)
        return nn.functional.scaled_dot_product_attention(rows, rows, rows).softmax(1)


@functools.cache
def _pte() -> bytes:
    size = torch.export.Dim("n", min=1, max=4)
    return make_pte(_Model(), (_image(2),), ggml=True, dynamic_shapes=({0: size},))


def _image(batch: int) -> Tensor:
    generator = torch.Generator().manual_seed(batch)
    return torch.randn(batch, 3, 16, 16, generator=generator)


@functools.cache
def _expected(batch: int) -> Tensor:
    with torch.no_grad():
        result: Tensor = _Model().eval()(_image(batch))
    return result


def _in_threads(count: int, work: Callable[[int], None]) -> None:
    errors: list[BaseException] = []

    def guarded(index: int) -> None:
        try:
            work(index)
        except BaseException as error:  # handed to the test's own thread
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def _check(program: NativeProgram, batch: int) -> None:
    result = torch.as_tensor(program.run("forward", [_image(batch)])[0])
    torch.testing.assert_close(result, _expected(batch), rtol=1e-4, atol=1e-5)


@pytest.fixture(autouse=True)
def _warm() -> None:
    for batch in range(1, 5):
        _expected(batch)
    _pte()


@pytest.mark.parametrize("num_threads", [1, 2])
def test_eight_threads_with_a_program_each(num_threads: int) -> None:
    def work(index: int) -> None:
        program = NativeProgram(_pte(), num_threads=num_threads)
        for step in range(6):
            _check(program, 1 + (index + step) % 4)

    _in_threads(8, work)


@pytest.mark.parametrize("num_threads", [1, 2])
def test_four_threads_share_one_program(num_threads: int) -> None:
    program = NativeProgram(_pte(), num_threads=num_threads)

    def work(index: int) -> None:
        for step in range(12):
            _check(program, 1 + (index + step) % 4)

    _in_threads(4, work)


def test_threads_load_and_drop_programs_of_one_file(tmp_path: Path) -> None:
    file = tmp_path / "model.pte"
    file.write_bytes(_pte())

    def work(index: int) -> None:
        for step in range(6):
            _check(NativeProgram(file), 1 + (index + step) % 4)

    _in_threads(8, work)


def test_unloading_while_others_run_is_safe() -> None:
    program = NativeProgram(_pte())

    def work(index: int) -> None:
        for step in range(12):
            if index == 0:
                program.unload("forward")
            else:
                _check(program, 1 + (index + step) % 4)

    _in_threads(4, work)
