"""What the ggml delegate tells ExecuTorch's profiler, as ExecuTorch's Inspector reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from executorch.devtools import Inspector
from torch import Tensor, nn
from torch.export import Dim

import orchestrator
from examples.models import MODELS
from orchestrator.native import ExecuTorchError, NativeProgram
from tests.harness.pte import make_pte


def events(dump: bytes, folder: Path, etrecord: Path | None = None) -> list[Any]:
    """All events of the runs in a profile."""
    path = folder / "profile.etdump"
    path.write_bytes(dump)
    inspector = Inspector(etdump_path=str(path), etrecord=str(etrecord) if etrecord else None)
    return [
        event
        for block in inspector.event_blocks
        if block.name == "Execute"
        for event in block.events
    ]


def delegated(found: list[Any]) -> list[str]:
    return [event.name for event in found if event.is_delegated_op]


class Net(nn.Module):
    """Fused and unfused ops, and one that is several ops of the IR."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.norm = nn.LayerNorm(6)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(torch.relu(self.conv(x))).exp()


X = torch.randn(1, 3, 8, 8)


@pytest.fixture(scope="module")
def net_pte() -> bytes:
    return make_pte(Net(), (X,), ggml=True)


def test_events_carry_the_names_of_exported_nodes(net_pte: bytes, tmp_path: Path) -> None:
    program = NativeProgram(net_pte, etdump=True)
    for _ in range(3):
        program(X)
    found = events(program.etdump(), tmp_path)
    names = [name for name in delegated(found) if not name.startswith("ggml: ")]
    assert names == [
        "aten_convolution_default",
        "aten_native_layer_norm_default",
        "aten_exp_default",
    ]
    timed = [event for event in found if event.name in names]
    assert all(len(event.perf_data.raw) == 3 for event in timed)
    assert all(time > 0 for event in timed for time in event.perf_data.raw)


def test_results_are_the_same_as_without_a_profile(net_pte: bytes) -> None:
    plain, traced = NativeProgram(net_pte), NativeProgram(net_pte, etdump=True)
    for seed in range(3):
        x = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
        assert torch.equal(traced(x)[0], plain(x)[0])


def test_every_size_of_a_dynamic_program_is_profiled(tmp_path: Path) -> None:
    shapes = ({0: Dim("batch", max=4)},)
    pte = make_pte(Net(), (torch.randn(2, 3, 8, 8),), dynamic_shapes=shapes, ggml=True)
    program = NativeProgram(pte, etdump=True)
    plain = NativeProgram(pte)
    for batch in (1, 3, 1):
        x = torch.randn(batch, 3, 8, 8)
        assert torch.equal(program(x)[0], plain(x)[0])
    names = delegated(events(program.etdump(), tmp_path))
    assert names.count("aten_convolution_default") == 1  # three runs of one kind


def test_conversions_at_the_boundary_have_events_of_their_own(tmp_path: Path) -> None:
    class Lookup(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(10, 4)

        def forward(self, indices: Tensor) -> Tensor:
            return self.table(indices)

    indices = torch.tensor([[1, 2, 3]])
    program = NativeProgram(make_pte(Lookup(), (indices,), ggml=True), etdump=True)
    program(indices)
    assert "ggml: convert inputs" in delegated(events(program.etdump(), tmp_path))


def test_one_value_returned_twice_keeps_its_times_apart(tmp_path: Path) -> None:
    def twice(x: Tensor) -> tuple[Tensor, Tensor]:
        y = x.exp()
        return y, y.view(4, 3)

    x = torch.randn(3, 4)
    program = NativeProgram(make_pte(twice, (x,), ggml=True), etdump=True)
    program(x)
    names = delegated(events(program.etdump(), tmp_path))
    assert len(names) == len(set(names))


def test_an_error_stays_an_error_under_a_profile() -> None:
    def pick(x: Tensor, i: Tensor) -> Tensor:
        return x.exp().index_select(0, i)

    x, i = torch.randn(3, 4), torch.tensor([0, 2])
    program = NativeProgram(make_pte(pick, (x, i), ggml=True), etdump=True)
    with pytest.raises(ExecuTorchError, match="index is outside"):
        program(x, torch.tensor([0, 7]))
    assert program(x, i)[0].shape == (2, 4)


@pytest.fixture(scope="module")
def mobilenet(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, Path]:
    """A .pte of both backends, and its ETRecord."""
    spec = MODELS["mobilenet_v2"].small
    assert spec is not None
    record = tmp_path_factory.mktemp("etrecord") / "model.etrecord"
    program = orchestrator.lower(
        spec.build(), spec.inputs(1, 0), strategy="greedy", etrecord=record
    )
    return program.buffer, record


@pytest.mark.filterwarnings("ignore:Unsupported kwarg", "ignore:Output Buffer")
def test_an_etrecord_maps_the_ops_of_both_backends_to_the_model(
    mobilenet: tuple[bytes, Path], tmp_path: Path
) -> None:
    pte, record = mobilenet
    program = NativeProgram(pte, etdump=True)
    spec = MODELS["mobilenet_v2"].small
    assert spec is not None
    program(*spec.inputs(1, 0))
    found = events(program.etdump(), tmp_path, record)
    by_name = {event.name: event for event in found}
    first = by_name["aten_convolution_default"]
    assert first.delegate_backend_name == "GgmlBackend"
    assert first.op_types == ["aten.convolution.default", "aten.hardtanh.default"]  # fused
    (trace, *_) = first.stack_traces.values()
    assert "in forward" in trace
    (modules, *_) = first.module_hierarchy.values()
    assert ("features.0.0", "torch.nn.modules.conv.Conv2d") in modules.values()
    backends = {event.delegate_backend_name for event in found if event.is_delegated_op}
    assert backends == {"GgmlBackend", "XnnpackBackend"}
