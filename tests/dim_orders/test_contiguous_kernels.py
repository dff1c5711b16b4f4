"""ExecuTorch's kernels get contiguous tensors, whatever dim order the model computes in."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from executorch.exir import to_edge
from torch import Tensor, nn
from torch.export import ExportedProgram, export

import orchestrator
from orchestrator.dim_orders.contiguous_kernels import make_kernels_contiguous
from orchestrator.graph.queries import compute_nodes, op_name

_GENERATOR = torch.Generator().manual_seed(0)


def _image(*sizes: int) -> Tensor:
    return torch.randn(sizes, generator=_GENERATOR).to(memory_format=torch.channels_last)


_IMAGE = _image(2, 4, 6, 5)
_INDEX = torch.randint(0, 4, (2, 4, 6, 5), generator=_GENERATOR)
_NORM = nn.LayerNorm(5)

# The kernels of the first seven take images in channels-last and give wrong numbers; the others'
# refuse them when they run.
CASES: dict[str, Callable[[Tensor], Any]] = {
    "flip": lambda x: x.flip(1),
    "gather": lambda x: x.gather(1, _INDEX),
    "scatter": lambda x: x.scatter(1, _INDEX[:, :1], 3.0),
    "pad": lambda x: nn.functional.pad(x, (1, 1, 2, 0, 1, 0)),
    "layer norm": _NORM,
    "log softmax": lambda x: x.log_softmax(1),
    "unsqueeze": lambda x: x.unsqueeze(1),
    "cat": lambda x: torch.cat([x, x * 2], 1),
    "cumsum": lambda x: x.cumsum(2),
    "split": lambda x: x.split(2, 1),
    "topk": lambda x: list(x.topk(2, 1)),
    "where": lambda x: torch.where(x > 0, x, 2.0),
    "masked_select": lambda x: torch.masked_select(x, x > 0),
    "cdist": lambda x: torch.cdist(x, x),
    "permute": lambda x: x.permute(0, 2, 3, 1),
    "shuffle to one channel": lambda x: nn.functional.pixel_shuffle(x, 2),
    "padding by reflection": lambda x: nn.functional.pad(x, (1, 1, 2, 0), mode="reflect"),
    "kernels around a convolution": lambda x: nn.functional.conv2d(x.flip(3), _KERNEL).flip(2),
}
_KERNEL = _image(3, 4, 3, 3)


class Function(nn.Module):
    """A module that applies a function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(*inputs)


@pytest.mark.parametrize("backends", [[], ["ggml", "xnnpack"]], ids=["kernels", "delegates"])
def test_images_in_channels_last_give_what_eager_gives(backends: list[str]) -> None:
    model = Function(lambda x: [function(x) for function in CASES.values()]).eval()
    program = orchestrator.lower(model, (_IMAGE,), backends=backends, strategy="greedy", tune="off")
    with torch.no_grad():
        found, wanted = program(_IMAGE), model(_IMAGE)
    leaves = torch.utils._pytree.tree_leaves
    for name, one, other in zip(CASES, found, wanted, strict=True):
        torch.testing.assert_close(leaves(one), leaves(other), msg=partial("{}: {}".format, name))


def test_outputs_keep_the_models_dim_order() -> None:
    program = orchestrator.lower(Function(lambda x: x.flip(1)), (_IMAGE,), backends=[])
    assert program(_IMAGE).is_contiguous(memory_format=torch.channels_last)


def test_a_transposed_matrix_reaches_kernels() -> None:
    x = torch.randn(4, 3, generator=_GENERATOR).t()
    program = orchestrator.lower(Function(lambda x: x.flip(0) + 1), (x,), backends=[])
    torch.testing.assert_close(program(x), x.flip(0) + 1)


def conversions(program: ExportedProgram) -> list[str]:
    """Names of the nodes that change dim orders."""
    return [node.name for node in compute_nodes(program) if "_dim_order" in op_name(node)]


def test_only_boundaries_are_converted() -> None:
    model = Function(lambda x: (x.flip(1).flip(2).relu(), x.flip(3)))
    edge = to_edge(export(model, (_IMAGE,)))
    program = edge.exported_program()

    assert make_kernels_contiguous(program)

    # Once for the input that both read, and once for either output.
    assert len(conversions(program)) == 3
    outputs = [str(name) for name in program.graph_signature.user_outputs]
    assert all(name.endswith("_channels_last") for name in outputs)


def test_contiguous_programs_are_left_alone() -> None:
    program = to_edge(export(Function(lambda x: x.flip(1)), (_IMAGE.contiguous(),)))
    before = str(program.exported_program().graph)
    assert not make_kernels_contiguous(program.exported_program())
    assert str(program.exported_program().graph) == before
