"""Traces that are spared would have changed nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from executorch.exir import to_edge, to_edge_transform_and_lower
from executorch.exir.delegate import executorch_call_delegate
from executorch.exir.dialects._ops import ops as edge_ops
from executorch.exir.pass_base import ExportPass
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, export
from torch.fx import GraphModule

import orchestrator
from orchestrator.edge import edge_compile_config
from orchestrator.frontend import torch_speed
from orchestrator.frontend.torch_speed import repeated_work_spared
from tests.differential.quantizing import quantized_by_pt2e


class _Mixed(nn.Module):
    """Scalars, mixed dtypes, views, sizes as numbers, copies and a transpose, in one graph."""

    def forward(self, x: Tensor, n: Tensor) -> Tensor:
        y = (x * 2 + n).t().reshape(-1).view(x.shape[1], x.shape[0])
        y = torch.where(y > 0.5, y, 0.0) + torch.minimum(y, n.t().to(torch.int64))
        y = y.to(torch.float32, memory_format=torch.contiguous_format) / (x.shape[0] + 1)
        return torch.cat([y, y.clone(), torch.full_like(y, 3)]).sum(0) / 2 + n.sum()


class _Branches(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cond(
            x.sum() > 0, lambda x: x.t().contiguous() + 1, lambda x: x.relu().t().contiguous(), (x,)
        )


class _InPlace(nn.Module):
    """Writes to its buffer, to a part of a tensor, and to one that is read before and after."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        y = x.reshape(-1, 3)
        z = y + 1
        z[:, 0] = self.calls[0]
        return y * z.relu_() + z.chunk(3, dim=1)[1]


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, stride=2), nn.LayerNorm(8)
        self.batch_norm, self.linear = nn.BatchNorm2d(8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.batch_norm(self.conv(x)).relu().flatten(2).mT
        y = nn.functional.scaled_dot_product_attention(y, self.norm(y), y)
        return self.linear(y).softmax(-1)


def _int8() -> tuple[nn.Module, tuple[Tensor, ...]]:
    x = torch.randn(1, 3, 9, 9)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return quantized_by_pt2e(model.eval(), [(x,)], "static int8 per channel"), (x,)


_Case = Callable[[], tuple[nn.Module, tuple[Tensor, ...]]]
MODELS: dict[str, _Case] = {
    "mixed": lambda: (_Mixed(), (torch.randn(4, 3), torch.ones(4, 3, dtype=torch.int32))),
    "branches": lambda: (_Branches(), (torch.randn(3, 4),)),
    "in place": lambda: (_InPlace(), (torch.randn(4, 3),)),
    "attention": lambda: (_Attention().eval(), (torch.randn(2, 3, 9, 9),)),
    "int8": _int8,
}


@pytest.fixture
def as_executorch_does(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Call the result to have nothing of ExecuTorch's spared from there on."""
    return lambda: monkeypatch.setattr(torch_speed, "is_known_executorch", lambda: False)


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("name", MODELS)
def test_programs_are_the_same(
    name: str, dynamic: bool, as_executorch_does: Callable[[], None]
) -> None:
    model, inputs = MODELS[name]()
    batch = Dim("batch", min=2, max=12)
    shapes = tuple({0: batch} for _ in inputs) if dynamic and inputs[0].shape[0] > 1 else None
    with torch.no_grad():
        program = export(model, inputs, dynamic_shapes=shapes)
    spared = _lowered(program)
    as_executorch_does()
    whole = _lowered(program)
    assert spared == whole


def _lowered(program: ExportedProgram) -> list[Any]:
    """The edge program that ExecuTorch makes, and a file for each list of backends."""
    with repeated_work_spared():
        edge = to_edge_transform_and_lower(program, compile_config=edge_compile_config())
        same_way = to_edge(program, compile_config=edge_compile_config())
    texts = [str(each.exported_program().graph) for each in (edge, same_way)]
    values = [
        str(node.meta["val"])
        for each in (edge, same_way)
        for node in each.exported_program().graph.nodes
        if "val" in node.meta
    ]
    files = [
        orchestrator.lower(program, backends=backends, strategy="greedy").buffer
        for backends in (("ggml",), ("xnnpack",), ())
    ]
    return [texts, values, *map(bytes, files)]


class _Identity(ExportPass):  # type: ignore[misc]  # executorch is untyped
    pass


def _traced() -> GraphModule:
    with torch.no_grad():
        program = to_edge(export(_Attention().eval(), (torch.randn(1, 3, 9, 9),)))
    result = _Identity()(program.exported_program().graph_module)
    assert result is not None
    return result.graph_module


_SOFTMAX = edge_ops.edge.aten._softmax.default


def test_a_graph_that_was_just_traced_is_not_traced_again() -> None:
    with repeated_work_spared():
        module = _traced()
        again = _Identity()(module)
    assert again is not None
    assert again.graph_module is module


@pytest.mark.parametrize("edit", ["target", "argument", "value", "new node"])
def test_a_graph_that_was_edited_is_traced_again(edit: str) -> None:
    with repeated_work_spared():
        module = _traced()
        node = next(each for each in module.graph.nodes if each.target == _SOFTMAX)
        if edit == "target":
            node.target = edge_ops.edge.aten._log_softmax.default
        elif edit == "argument":
            node.update_arg(1, 1)
        elif edit == "value":
            node.meta["val"] = node.meta["val"][:, :1]
        else:
            with module.graph.inserting_after(node):
                module.graph.call_function(edge_ops.edge.aten.relu.default, (node.args[0],))
        again = _Identity()(module)
    assert again is not None
    assert again.graph_module is not module
    assert all("val" in made.meta for made in again.graph_module.graph.nodes)


def _decomposed(program: ExportedProgram, *ops: torch._ops.OpOverload) -> ExportedProgram:
    table = torch.export.default_decompositions()
    return program.run_decompositions({op: table[op] for op in ops})


def test_decompositions_are_not_run_where_there_is_nothing_to_decompose() -> None:
    aten = torch.ops.aten
    with repeated_work_spared():
        program = export(_Attention().eval(), (torch.randn(1, 3, 9, 9),))
        functional = program.run_decompositions({})
        assert functional is not program
        assert functional.run_decompositions({}) is not functional
        assert _decomposed(functional, aten.silu.default) is functional
        again = _decomposed(functional, aten.layer_norm.default)
        assert again is not functional
        called = {node.target for node in again.graph.nodes}
        assert aten.native_layer_norm.default in called
        assert aten.layer_norm.default not in called
        assert _decomposed(again, aten.linear.default) is not again
        assert program.run_decompositions(decomp_table={}) is not program


def test_what_is_decomposed_in_any_case_is_not_made_functional_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tables: list[int] = []
    run = ExportedProgram.run_decompositions

    def counting(self: ExportedProgram, table: Any = None) -> ExportedProgram:
        tables.append(len(table))
        return run(self, table)

    monkeypatch.setattr(counting, "__name__", run.__name__)
    monkeypatch.setattr(ExportedProgram, "run_decompositions", counting)
    program = export(_Attention().eval(), (torch.randn(1, 3, 9, 9),))
    orchestrator.lower(program, backends=["ggml"], tune="off")
    assert len(tables) == 1
    assert tables[0] > 0
    tables.clear()
    # No backend to say what it wants: ExecuTorch might not decompose anything.
    orchestrator.lower(program, backends=[], tune="off")
    assert tables[0] == 0


def test_sizes_that_are_read_leave_nothing_to_decompose() -> None:
    size = torch.ops.aten.sym_size.int
    batch = {0: Dim("batch", min=2, max=12)}
    with repeated_work_spared():
        program = export(_Mixed(), MODELS["mixed"]()[1], dynamic_shapes=(batch, batch))
        functional = program.run_decompositions({})
        assert size in {node.target for node in functional.graph.nodes}
        assert functional.run_decompositions({size: lambda *_: None}) is functional


_RUN = "call_delegate_cpu"  # what runs a delegate's program, in torch


@pytest.mark.parametrize("given", ["what it was made for", "another size", "another type"])
def test_a_delegate_is_run_for_other_inputs_only(
    given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("it was run")

    program = export(_Attention().eval(), (torch.randn(2, 3, 9, 9),))
    partitioner = orchestrator.OrchestratorPartitioner(["ggml"])
    with torch.no_grad(), repeated_work_spared():
        edge = to_edge_transform_and_lower(program, partitioner=[partitioner])
        module = edge.exported_program().graph_module
        monkeypatch.setattr(sys.modules[type(executorch_call_delegate).__module__], _RUN, refuse)
        (x,) = (node for node in module.graph.nodes if node.name == "x")
        if given == "what it was made for":
            (call,) = module.graph.find_nodes(op="call_function", target=executorch_call_delegate)
            (before,) = call.meta["val"]
            again = _Identity()(module)
            assert again is not None
            (call,) = again.graph_module.graph.find_nodes(
                op="call_function", target=executorch_call_delegate
            )
            (after,) = call.meta["val"]
            assert after is not before
            assert (after.shape, after.stride(), after.dtype) == (
                before.shape,
                before.stride(),
                before.dtype,
            )
            return
        value = x.meta["val"]
        x.meta["val"] = value[:1] if given == "another size" else value.double()
        with pytest.raises(AssertionError, match="it was run"):
            _Identity()(module)


def test_a_program_that_is_not_functional_is_made_so() -> None:
    class InPlace(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x + 1).relu_()

    with repeated_work_spared():
        program = export(InPlace(), (torch.randn(2, 3),))
        made = _decomposed(program, torch.ops.aten.silu.default)
    assert torch.ops.aten.relu_.default not in {node.target for node in made.graph.nodes}
