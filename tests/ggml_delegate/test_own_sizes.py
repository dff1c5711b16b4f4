"""Sizes inside a partition follow from those of its inputs."""

from __future__ import annotations

from typing import Any

import torch
from executorch.exir.lowered_backend_module import get_lowered_submodules
from torch import nn
from torch.export import Dim, ExportedProgram

from ggml_delegate.own_sizes import own_sizes, sizes_of
from ggml_delegate.symbols import affine, free_symbols
from tests.harness.ops import check_op, lower_ggml

_SHAPES = ({2: Dim("h", min=16, max=64), 3: Dim("w", min=16, max=64)},)


class _Halved(nn.Module):
    """What follows a grouped convolution, which ggml leaves to others, at half the size."""

    def __init__(self) -> None:
        super().__init__()
        self.grouped = nn.Conv2d(4, 8, 3, 2, 1, groups=2)
        self.strided = nn.Conv2d(8, 8, 3, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.grouped(x)
        z = self.strided(y).exp()
        return torch.cat([z, z + 1.0], 1).flatten(2)


def _partition(model: nn.Module, inputs: tuple[Any, ...]) -> ExportedProgram:
    _, _, edge = lower_ggml(model.eval(), inputs, _SHAPES)
    modules = get_lowered_submodules(edge.exported_program().graph_module)
    program = modules[-1][1].original_module
    assert isinstance(program, ExportedProgram)
    return program


def _symbols(program: ExportedProgram, op: str) -> set[Any]:
    return {
        symbol
        for node in program.graph.nodes
        if node.op == op
        for size in sizes_of(node.meta.get("val"))
        for symbol in free_symbols(size)
    }


def test_inner_sizes_are_in_terms_of_the_inputs() -> None:
    program = _partition(_Halved(), (torch.randn(1, 4, 32, 24),))
    before = {node: node.meta.get("val") for node in program.graph.nodes}
    outer = _symbols(program, "placeholder")
    assert outer
    with own_sizes(program):
        (image,) = (
            node
            for node in program.graph.nodes
            if node.name in program.graph_signature.user_inputs
            and isinstance(node.meta["val"], torch.Tensor)
        )
        height, width = image.meta["val"].shape[2:]
        assert affine(height.node.expr)[0].is_Symbol and affine(width.node.expr)[0].is_Symbol
        given = _symbols(program, "placeholder")
        assert _symbols(program, "call_function") <= given
        assert given.isdisjoint(outer)
        result = list(program.graph.nodes)[-1].args[0][0].meta["val"]
        for size, whole in zip(result.shape, (1, 16, 8 * 6), strict=True):
            assert int(size) == whole
    assert {node: node.meta.get("val") for node in program.graph.nodes} == before


def test_sizes_of_one_expression_are_one_symbol() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = (nn.Conv2d(4, 8, 3, 2, 1, groups=2) for _ in range(2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.a(x).relu() + self.b(x).exp()

    inputs = (torch.randn(1, 4, 32, 24),)
    program = _partition(Both(), inputs)
    with own_sizes(program):
        assert len(_symbols(program, "placeholder")) == 2
    more = [(torch.randn(1, 4, *size),) for size in ((17, 64), (64, 16), (16, 16))]
    check_op(Both(), inputs, dynamic_shapes=_SHAPES, more_inputs=more, delegated=False)


def test_a_partition_behind_a_strided_op_runs_at_all_sizes() -> None:
    inputs = (torch.randn(1, 4, 32, 24),)
    more = [(torch.randn(1, 4, *size),) for size in ((17, 64), (64, 16), (64, 64), (18, 35))]
    check_op(_Halved(), inputs, dynamic_shapes=_SHAPES, more_inputs=more, delegated=False)


def test_what_the_inputs_determine_already_stays_as_it_is() -> None:
    program = _partition(
        nn.Sequential(nn.Conv2d(4, 8, 3, 2, 1), nn.ReLU()), (torch.randn(1, 4, 32, 24),)
    )
    before = [node.meta.get("val") for node in program.graph.nodes]
    with own_sizes(program):
        for node, value in zip(program.graph.nodes, before, strict=True):
            assert node.meta.get("val") is value
