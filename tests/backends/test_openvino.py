"""OpenVINO beside the others: its numbers, what it is not given, and its options."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from orchestrator import lower
from orchestrator.backends import find_backend, openvino
from orchestrator.backends.openvino import OpenvinoDelegate
from orchestrator.dry_run import edge_program
from orchestrator.native import ExecuTorchError, NativeProgram
from orchestrator.options import PlanOptions

REASON = find_backend("openvino").runnable()
needs_openvino = pytest.mark.skipif(REASON is not None, reason=str(REASON))
IMAGE = (torch.randn(2, 3, 9, 7),)


def small_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.SiLU(), nn.Flatten(), nn.Linear(504, 5)
    ).eval()


def rejections(model: nn.Module, inputs: tuple[Tensor, ...], **export: object) -> dict[str, str]:
    backend = OpenvinoDelegate()
    exported = torch.export.export(model, inputs, **export)  # type: ignore[arg-type]
    support = backend.propose(edge_program(exported, [backend], PlanOptions(tune="off")))
    return {each.code: each.reason for each in support.rejections}


@needs_openvino
def test_a_fresh_process_needs_nothing_set(tmp_path: Path) -> None:
    file = tmp_path / "network.pte"
    program = lower(small_network(), IMAGE, backends=["openvino"], strategy="greedy")
    file.write_bytes(program.buffer)
    np.save(tmp_path / "x.npy", IMAGE[0].numpy())
    code = (
        "import sys, numpy; from orchestrator.native import NativeProgram\n"
        "x = [numpy.load(sys.argv[2])]\n"
        "print(NativeProgram(sys.argv[1]).run('forward', x)[0].sum())"
    )
    arguments = [sys.executable, "-c", code, file, tmp_path / "x.npy"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert float(done.stdout) == pytest.approx(float(small_network()(*IMAGE).sum()), abs=1e-4)
    import _ggml_delegate

    runner = Path(_ggml_delegate.__file__).parent / "bin" / "orchestrator-run"
    done = subprocess.run(
        [runner, file, "--input", tmp_path / "x.npy"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@needs_openvino
def test_it_computes_in_float32_unless_asked_otherwise() -> None:
    model, inputs = small_network(), IMAGE
    expected = model(*inputs)
    errors = {}
    for precision in ("f32", "bf16"):
        backend = OpenvinoDelegate(precision=precision)  # type: ignore[arg-type]
        program = lower(
            model, inputs, backends=[backend], strategy="greedy", tolerance=backend.tolerance
        )
        (found,) = NativeProgram(program.buffer).run("forward", inputs)
        errors[precision] = float((found - expected).abs().max() / expected.abs().max())
    assert errors["f32"] < 1e-5
    assert errors["bf16"] < 0.3


@needs_openvino
def test_three_backends_are_planned_and_right_by_default() -> None:
    program = lower(small_network(), IMAGE, backends=["openvino", "ggml", "xnnpack"])
    plan = program.report.methods[0].plan
    assert plan is not None
    assert "openvino alone" in {each.name for each in plan.alternatives}
    (found,) = NativeProgram(program.buffer).run("forward", IMAGE)
    torch.testing.assert_close(found, small_network()(*IMAGE), rtol=1e-4, atol=1e-5)


@needs_openvino
def test_images_in_channels_last_reach_it_contiguous() -> None:
    class Sums(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.softmax(x * 2.0 + x.cos(), 1)

    image = (torch.randn(2, 3, 5, 4).to(memory_format=torch.channels_last),)
    program = lower(Sums(), image, backends=["openvino"], strategy="greedy")
    (found,) = NativeProgram(program.buffer).run("forward", image, relayout=True)
    torch.testing.assert_close(
        found.contiguous(), Sums()(*image).contiguous(), rtol=1e-5, atol=1e-6
    )


@needs_openvino
def test_integers_are_left_to_others() -> None:
    class Wraps(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * x

    big = torch.tensor([2**40, 3])
    assert "integers" in rejections(Wraps(), (big,))
    program = lower(Wraps(), (big,), backends=["openvino"], strategy="greedy")
    (found,) = NativeProgram(program.buffer).run("forward", (big,))
    assert torch.equal(found, big * big)


@needs_openvino
def test_dynamic_sizes_and_half_types_are_left_to_others() -> None:
    batch = torch.export.Dim("batch", max=4)
    found = rejections(nn.Linear(3, 2), (torch.randn(2, 3),), dynamic_shapes=({0: batch},))
    assert found == {"dynamic": "a size is dynamic"}
    half = rejections(nn.Linear(3, 2).half(), (torch.randn(2, 3).half(),))
    assert half == {"half": "OpenVINO does not compute in float16"}


@needs_openvino
def test_a_program_for_another_precision_or_too_many_threads_is_an_error() -> None:
    program = lower(small_network(), IMAGE, backends=["openvino"], strategy="greedy")
    for options, text in (
        ({"precision": "f3"}, 'precision is "f3", expected f32, bf16 or f16'),
        ({"num_threads": -1}, "option num_threads is -1, expected 0"),
        ({"num_threads": "two"}, "option num_threads is not an integer"),
        ({"precision": 1}, "option precision is not a text"),
    ):
        with pytest.raises(ExecuTorchError) as caught:
            NativeProgram(
                program.buffer,
                backend_options={"OpenvinoBackend": options},  # type: ignore[dict-item]
            ).run("forward", IMAGE)
        assert text in "\n".join(caught.value.log)


@needs_openvino
def test_a_damaged_program_is_an_error() -> None:
    program = lower(small_network(), IMAGE, backends=["openvino"], strategy="greedy")
    buffer = bytearray(program.buffer)
    start = buffer.find(b"<?xml")
    assert start > 0
    buffer[start : start + 2000] = bytes(2000)
    with pytest.raises(ExecuTorchError) as caught:
        NativeProgram(bytes(buffer)).run("forward", IMAGE)
    assert "openvino: cannot read a program" in "\n".join(caught.value.log)


@pytest.mark.parametrize(
    ("version", "fits"),
    [("2025.1.0", True), ("2025.4.1", True), ("2024.6.0", False), ("2026.4.1", False)],
)
def test_versions_that_do_not_fit_are_told(
    monkeypatch: pytest.MonkeyPatch, version: str, fits: bool
) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda _: version)
    reason = openvino._unavailable()
    assert (reason is None) == fits
    assert fits or reason == (
        "needs openvino >= 2025.1, < 2026: pip install executorch-orchestrator[openvino]; "
        f"found {version}"
    )


def test_without_its_package_it_is_told_what_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> str:
        raise importlib.metadata.PackageNotFoundError

    monkeypatch.setattr(importlib.metadata, "version", missing)
    reason = OpenvinoDelegate().available()
    assert reason is not None
    assert reason.endswith("pip install executorch-orchestrator[openvino]; found none")


@needs_openvino
def test_results_that_are_inputs_or_alike_have_values_of_their_own() -> None:
    class Alike(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
            r = torch.relu(y)
            return x.clone(), r, r.clone(), x.t(), r.view(3, 2) * 2.0

    inputs = (torch.randn(2, 3), torch.randn(2, 3))
    program = lower(Alike(), inputs, backends=["openvino"], strategy="greedy")
    native = NativeProgram(program.buffer)
    for _ in range(2):
        inputs = (torch.randn(2, 3), torch.randn(2, 3))
        for found, expected in zip(native.run("forward", inputs), Alike()(*inputs), strict=True):
            assert torch.equal(found, expected)
