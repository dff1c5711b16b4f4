"""Partitioners of ExecuTorch's as backends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import to_edge
from executorch.exir.backend.compile_spec_schema import CompileSpec
from executorch.exir.backend.partitioner import DelegationSpec, Partitioner, PartitionResult
from executorch.exir.backend.utils import tag_constant_data
from torch import Tensor, nn
from torch.export import ExportedProgram, export

from examples.quantization import pt2e
from orchestrator import lower
from orchestrator.backends import BackendError, PartitionerBackend
from orchestrator.backends.of_partitioner import quantized_groups
from orchestrator.edge import edge_compile_config
from orchestrator.graph.quantized import is_dequantize, is_quantize
from orchestrator.graph.queries import compute_nodes, op_name
from orchestrator.planner import Layout

VULKAN = "executorch.backends.vulkan.partitioner.vulkan_partitioner:VulkanPartitioner"


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv(x))
        return self.head(x.mean((2, 3)))


def image() -> Tensor:
    return torch.randn(1, 3, 12, 12, generator=torch.Generator().manual_seed(1))


def small() -> nn.Module:
    torch.manual_seed(0)
    return Small().eval()


def edge(model: nn.Module, *inputs: Tensor) -> ExportedProgram:
    program = export(model, inputs)
    return to_edge(program, compile_config=edge_compile_config()).exported_program()


class Toy(Partitioner):  # type: ignore[misc]  # executorch is untyped
    """Tags the nodes of some ops, for XNNPACK's delegate."""

    def __init__(self, *ops: str, packs: bool = True) -> None:
        super().__init__()
        self.ops, self.packs = ops, packs
        self.specs = [DelegationSpec("XnnpackBackend", [])]

    def partition(self, exported_program: ExportedProgram) -> PartitionResult:
        tags = {}
        for place, node in enumerate(compute_nodes(exported_program)):
            if op_name(node).split(".")[1] in self.ops:
                node.meta["delegation_tag"] = tag = f"tag{place}"
                node.meta["note"] = place
                tags[tag] = self.specs[place % len(self.specs)]
        if self.packs:
            tag_constant_data(exported_program)
        return PartitionResult(exported_program, tags)


# ---- whole programs ------------------------------------------------------------------------


@pytest.mark.parametrize("quantize", [False, True], ids=["float32", "int8"])
def test_xnnpack_by_its_partitioner_is_xnnpack(quantize: bool) -> None:
    x = image()
    model = pt2e(small(), (x,), calibration=[(x,)]) if quantize else small()
    one = lower(model, (x,), backends=[PartitionerBackend("one", XnnpackPartitioner)], tune="off")
    other = lower(model, (x,), backends=["xnnpack"], tune="off")
    assert "one" in [part.backend for part in one.report.methods[0].segments]
    torch.testing.assert_close(one(x), other(x), rtol=1e-5, atol=1e-6)


def test_two_of_them_beside_ggml() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.small = small()

        def forward(self, x: Tensor) -> Tensor:
            return torch.softmax(self.small(x), -1)

    model, x = Model().eval(), image()
    backends = [
        PartitionerBackend("one", lambda: Toy("convolution"), backend_id="XnnpackBackend"),
        PartitionerBackend("two", lambda: Toy("relu", "mean"), backend_id="XnnpackBackend"),
        "ggml",
    ]
    program = lower(model, (x,), backends=backends, strategy="greedy")
    assert {part.backend for part in program.report.methods[0].segments} >= {"one", "two", "ggml"}
    torch.testing.assert_close(program(x), model(x), rtol=1e-4, atol=1e-5)


def test_vulkan_lowers_here() -> None:
    backend = PartitionerBackend("vulkan", VULKAN)
    assert backend.available() is None
    program = lower(small(), (image(),), backends=[backend], tune="off")
    assert [part.backend for part in program.report.methods[0].segments] == ["vulkan"]
    assert b"VulkanBackend" in program.buffer
    with pytest.raises(RuntimeError, match="VulkanBackend"):
        program(image())


# ---- what is read of tags ------------------------------------------------------------------


def test_the_program_stays_as_it_is() -> None:
    program = edge(small(), image())
    before = str(program)
    support = PartitionerBackend(
        "toy", lambda: Toy("convolution", "relu"), backend_id="XnnpackBackend"
    ).propose(program)
    assert str(program) == before
    assert not any("delegation_tag" in node.meta for node in program.graph.nodes)
    taken = [op_name(c.nodes[0]) for c in support.candidates]
    assert taken == ["aten.convolution.default", "aten.relu.default"]
    assert {r.reason for r in support.rejections} == {"Toy does not tag it"}


def test_notes_for_the_delegate_are_kept() -> None:
    program = edge(small(), image())
    PartitionerBackend("toy", lambda: Toy("relu"), backend_id="XnnpackBackend").propose(program)
    (relu,) = (n for n in compute_nodes(program) if op_name(n) == "aten.relu.default")
    assert isinstance(relu.meta["note"], int)


@pytest.mark.parametrize("packs", [True, False])
def test_weights_go_inside_where_they_are_tagged(packs: bool) -> None:
    make = lambda: Toy("convolution", packs=packs)  # noqa: E731
    backend = PartitionerBackend("toy", make, backend_id="XnnpackBackend")
    (candidate,) = backend.propose(edge(small(), image())).candidates
    names = [node.name for node in candidate.constants]
    assert names == (["p_conv_weight", "p_conv_bias"] if packs else [])


def test_groups_that_are_given_stay_whole() -> None:
    def groups(program: ExportedProgram) -> list[list[torch.fx.Node]]:
        nodes = list(compute_nodes(program))
        return [nodes[:2], nodes[2:4]]

    backend = PartitionerBackend(
        "toy", lambda: Toy("convolution", "relu"), backend_id="XnnpackBackend", groups=groups
    )
    (candidate,) = backend.propose(edge(small(), image())).candidates
    assert len(candidate.nodes) == 2
    assert not candidate.divisible


def test_quantized_ops_are_groups() -> None:
    x = image()
    program = edge(pt2e(small(), (x,), calibration=[(x,)]), x)
    groups = [group for group in quantized_groups(program) if len(group) > 1]
    convolution = next(g for g in groups if any("convolution" in node.name for node in g))
    assert is_dequantize(convolution[0])
    assert is_quantize(convolution[-1])
    assert len({node for group in groups for node in group}) == sum(map(len, groups))


def test_options_reach_the_plan() -> None:
    layouts = (Layout.CONTIGUOUS, Layout.CHANNELS_LAST)
    backend = PartitionerBackend("toy", Toy, layouts=lambda rank: layouts[: 1 + (rank == 4)])
    assert backend.boundary_layouts(4) == layouts
    assert backend.boundary_layouts(3) == (Layout.CONTIGUOUS,)
    assert backend.versions().startswith("executorch")


# ---- partitioners that are none ------------------------------------------------------------


class AddsANode(Toy):
    def partition(self, exported_program: ExportedProgram) -> PartitionResult:
        graph = exported_program.graph
        last = next(iter(reversed(list(compute_nodes(exported_program)))))
        with graph.inserting_after(last):
            graph.node_copy(last)
        return super().partition(exported_program)


class Nothing(Toy):
    def partition(self, exported_program: ExportedProgram) -> Any:
        return None


def _two_delegates() -> Partitioner:
    toy = Toy("convolution", "relu")
    toy.specs.append(DelegationSpec("XnnpackBackend", [CompileSpec("other", b"")]))
    return toy


BROKEN: dict[str, tuple[Callable[[], Any], str]] = {
    "no partitioner": (lambda: "xnnpack", "is a str; expected an executorch"),
    "nothing": (lambda: Nothing("relu"), "returned a NoneType; expected a PartitionResult"),
    "another node": (lambda: AddsANode("relu"), "adds the node"),
    "two delegates": (_two_delegates, r"with the options \['other'\]; expected all for"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_an_error_names_backend_and_fault(name: str) -> None:
    make, message = BROKEN[name]
    backend = PartitionerBackend("toy", make, backend_id="XnnpackBackend")
    with pytest.raises(BackendError, match=message) as raised:
        backend.propose(edge(small(), image()))
    assert "backend 'toy'" in str(raised.value)


def test_a_delegate_without_a_name_is_an_error() -> None:
    with pytest.raises(BackendError, match="tags nothing in a linear layer; pass backend_id="):
        _ = PartitionerBackend("toy", lambda: Toy("relu")).backend_id


@pytest.mark.parametrize("make", ["no.such.module:Partitioner", "executorch.exir:NoSuchName"])
def test_what_cannot_be_imported_is_not_available(make: str) -> None:
    backend = PartitionerBackend("toy", make)
    reason = backend.available()
    assert reason is not None
    assert reason.startswith("its partitioner cannot be made: ")
    with pytest.raises(BackendError, match="'toy' cannot be used: its partitioner"):
        lower(small(), (image(),), backends=[backend])


def test_what_its_maker_says_against_it() -> None:
    backend = PartitionerBackend("toy", Toy, backend_id="X", unavailable=lambda: "needs its SDK")
    assert backend.available() == "needs its SDK"
