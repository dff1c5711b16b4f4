"""What goes wrong around a run (memory, files, disks, inputs) ends in an error, and the next run
works.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import torch
from executorch.exir._serialize._program import deserialize_pte_binary, serialize_pte_binary
from torch import Tensor, nn

import orchestrator
from orchestrator.native import ExecuTorchError, NativeProgram
from tests.harness.pte import make_pte

SITE = sysconfig.get_path("platlib")
ROOT = Path(__file__).resolve().parents[2]
BLOCK = 4096


class _Mixed(nn.Module):
    """Kernels of every kind that allocates: products, convolutions, attention, norms, copies."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.conv = nn.Conv2d(3, 16, 3, padding=1)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.norm = nn.GroupNorm(4, 16)
        self.linear = nn.Linear(16, 24)
        self.embedding = nn.Embedding(10, 24)

    def forward(self, x: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        x = self.norm(self.depthwise(torch.relu(self.conv(x))))
        rows = self.linear(x.flatten(2).transpose(1, 2))
        rows = rows + self.embedding(indices)
        rows = nn.functional.scaled_dot_product_attention(rows, rows, rows)
        return torch.cat([rows, rows.softmax(1)], 2), x.mean(3)


def _inputs(batch: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(batch)
    image = torch.randn(batch, 3, 6, 6, generator=generator)
    return [image, torch.randint(0, 10, (batch, 36), generator=generator)]


@functools.cache
def _pte(dynamic: bool = False) -> bytes:
    size = torch.export.Dim("n", min=1, max=4)
    shapes = ({0: size}, {0: size}) if dynamic else None
    return make_pte(_Mixed(), _inputs(), ggml=True, dynamic_shapes=shapes)


def _run(buffer: bytes, *inputs: Tensor) -> list[Tensor]:
    return [torch.as_tensor(out).clone() for out in NativeProgram(buffer).run("forward", inputs)]


# ---- memory -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def failing_malloc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = tmp_path_factory.mktemp("faults") / "failing_malloc.so"
    source = ROOT / "tests/harness/failing_malloc.cpp"
    subprocess.run(
        ["g++", "-std=c++17", "-O1", "-shared", "-fPIC", source, "-o", library, "-ldl"], check=True
    )
    return library


@pytest.mark.skipif("libasan" in os.environ.get("LD_PRELOAD", ""), reason="malloc is ASan's there")
@pytest.mark.parametrize("dynamic", [False, True])
def test_every_failed_allocation_is_an_error(
    failing_malloc: Path, tmp_path: Path, dynamic: bool
) -> None:
    (tmp_path / "model.pte").write_bytes(_pte(dynamic))
    torch.save(_inputs(), tmp_path / "inputs.pt")
    script = ROOT / "tests/runtime/allocation_faults.py"
    done = subprocess.run(
        [sys.executable, script, tmp_path / "model.pte", tmp_path / "inputs.pt"],
        env={**os.environ, "LD_PRELOAD": str(failing_malloc), "PYTHONPATH": f"{ROOT}:{SITE}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout)
    assert found["sites"] > 100, found
    assert found["wrong"] == 0, found
    assert found["leaked"] == 0, found
    assert set(found["errors"]) == {"MemoryAllocationFailed"}, found


# ---- files --------------------------------------------------------------------------------------


def test_a_file_cut_anywhere_is_an_error(tmp_path: Path) -> None:
    buffer = _pte()
    whole = _run(buffer, *_inputs())
    cuts = [*range(0, len(buffer), BLOCK), len(buffer) - 1]
    assert len(cuts) > 3
    for cut in cuts:
        file = tmp_path / "cut.pte"
        file.write_bytes(buffer[:cut])
        for source in (buffer[:cut], file):
            try:
                outputs = NativeProgram(source).run("forward", _inputs())
            except ExecuTorchError:
                continue
            # Only padding was cut.
            assert all(map(torch.equal, map(torch.as_tensor, outputs), whole)), cut


def test_a_read_only_file_runs(tmp_path: Path) -> None:
    file = tmp_path / "model.pte"
    file.write_bytes(_pte())
    file.chmod(0o400)
    assert NativeProgram(file).run("forward", _inputs())


def test_a_file_that_vanishes_after_loading_still_runs(tmp_path: Path) -> None:
    file = tmp_path / "model.pte"
    file.write_bytes(_pte())
    program = NativeProgram(file)
    file.unlink()
    expected = _run(_pte(), *_inputs())
    outputs = program.run("forward", _inputs())
    assert all(map(torch.equal, map(torch.as_tensor, outputs), expected))


_SAVE_ON_A_FULL_DISK = """
import pickle, resource, signal, sys
from orchestrator.program import LoweredProgram
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
program = LoweredProgram(buffer=bytes(100_000), report=None, plan={}, signatures={})
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    program.save(sys.argv[1])
except OSError as error:
    print("refused:", error.strerror)
"""


def test_a_full_disk_leaves_the_old_file_whole(tmp_path: Path) -> None:
    file = tmp_path / "model.pte"
    file.write_bytes(b"old")
    done = subprocess.run(
        [sys.executable, "-c", _SAVE_ON_A_FULL_DISK, file],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert "refused: File too large" in done.stdout
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


# ---- inputs -------------------------------------------------------------------------------------

_IMAGE, _INDICES = _inputs()
WRONG = {
    "too few": [_IMAGE],
    "too many": [_IMAGE, _INDICES, _IMAGE],
    "dtype": [_IMAGE.double(), _INDICES],
    "dtype of indices": [_IMAGE, _INDICES.int()],
    "rank": [_IMAGE[0], _INDICES],
    "size": [_IMAGE[:, :2].contiguous(), _INDICES],
    "beyond the bounds": _inputs(5),
    "no elements": [_IMAGE[:0], _INDICES[:0]],
    "no tensor": [3, _INDICES],
    "an index too large": [_IMAGE, _INDICES + 10],
    "an index below 0": [_IMAGE, _INDICES - 11],
    "an index beyond 32 bits": [_IMAGE, _INDICES + (1 << 40)],
}


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("inputs", WRONG.values(), ids=WRONG.keys())
def test_wrong_inputs_are_errors_and_the_next_run_works(
    inputs: list[Tensor], dynamic: bool
) -> None:
    program = NativeProgram(_pte(dynamic))
    with pytest.raises((ExecuTorchError, TypeError, ValueError)):
        program.run("forward", inputs)
    expected = _run(_pte(dynamic), *_inputs())
    outputs = program.run("forward", _inputs())
    assert all(map(torch.equal, map(torch.as_tensor, outputs), expected))


def test_an_output_in_the_memory_of_an_input_is_an_error() -> None:
    pte = make_pte(lambda x: torch.exp(-x), (torch.randn(3, 8),), ggml=True, planned=True)
    file = deserialize_pte_binary(pte)
    plan = file.program.execution_plan[0]
    read, written = (plan.values[index].val for index in (plan.inputs[0], plan.outputs[0]))
    written.allocation_info = read.allocation_info
    overlapping = bytes(serialize_pte_binary(file))
    with pytest.raises(ExecuTorchError, match="output 0 and input 0 overlap in memory"):
        _run(overlapping, torch.randn(3, 8))
    x = torch.randn(3, 8)
    torch.testing.assert_close(_run(pte, x)[0], torch.exp(-x))


def test_other_layouts_are_copied_on_request_only() -> None:
    program = NativeProgram(_pte())
    strided = torch.randn(2, 3, 6, 12)[..., ::2]
    flipped = _IMAGE.transpose(2, 3)
    for image in (strided, flipped, _IMAGE.contiguous(memory_format=torch.channels_last)):
        with pytest.raises(ValueError, match="contiguous"):
            program.run("forward", [image, _INDICES])
        expected = _run(_pte(), image.contiguous(), _INDICES)
        outputs = program.run("forward", [image, _INDICES], relayout=True)
        assert all(map(torch.equal, map(torch.as_tensor, outputs), expected))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 1e15, 1e-42])
def test_special_numbers_give_what_eager_gives(value: float) -> None:
    image = _IMAGE.clone()
    image[0, 1, 2, 3] = value
    model = _Mixed().eval()
    with torch.no_grad():
        expected = model(image, _INDICES)
    for got, want in zip(_run(_pte(), image, _INDICES), expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5, equal_nan=True)


def test_memory_beyond_the_machines_is_refused_by_name() -> None:
    model = lambda x: x.expand(1 << 20, 1 << 18).exp().sum(1)  # noqa: E731
    program = orchestrator.lower(_Function(model), (torch.randn(1, 1),), backends=["ggml"])
    with pytest.raises(ExecuTorchError, match="limit"):
        program(torch.randn(1, 1))


class _Function(nn.Module):
    def __init__(self, function: object) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)  # type: ignore[operator,no-any-return]
