"""Images that XNNPACK quantizes for convolutions which it computes as linear layers.

It does so with those of a 1x1 kernel and no stride, padding or groups, and quantizes what they read
pixel by pixel then, where other convolutions have one scale for an image. What both read, it hands
to both the one way, and the others' numbers are wrong, without an error (XNNPACK of ExecuTorch
1.5.1).
"""

from __future__ import annotations

from typing import Any

from executorch.backends.xnnpack._passes.xnnpack_pass import XNNPACKPass
from executorch.exir.dialects._ops import ops as exir_ops
from torch.fx import GraphModule, Node
from torch.fx.passes.infra.pass_base import PassResult

from orchestrator.graph.queries import op_name

QUANTIZE = exir_ops.edge.quantized_decomposed.quantize_per_tensor.tensor
"""By a scale that is found in every run."""
_CONVOLUTION = "aten.convolution.default"


class SplitQuantizedImages(XNNPACKPass):  # type: ignore[misc]  # executorch is untyped
    """Quantizes an image twice that is read by convolutions of both kinds."""

    def call(self, graph_module: GraphModule) -> PassResult:
        graph = graph_module.graph
        changed = False
        for quantize in graph.find_nodes(op="call_function", target=QUANTIZE):
            readers = [
                reader
                for dequantize in quantize.users
                for reader in dequantize.users
                if op_name(reader) == _CONVOLUTION
            ]
            pointwise = [reader for reader in readers if is_pointwise(reader)]
            if pointwise and len(pointwise) < len(readers):
                _give_own(graph_module, quantize, pointwise)
                changed = True
        graph_module.recompile()
        return PassResult(graph_module, changed)


def is_pointwise(convolution: Node) -> bool:
    """Whether XNNPACK computes a convolution as a linear layer over its pixels."""
    arguments: tuple[Any, ...] = convolution.args
    _, weight, _, stride, padding, _, transposed, _, groups = arguments
    steps = (*weight.meta["val"].shape[2:], *stride)
    return not transposed and groups == 1 and not any(padding) and all(step == 1 for step in steps)


def _give_own(graph_module: GraphModule, quantize: Node, readers: list[Node]) -> None:
    """Have convolutions read an image that is quantized for them alone."""
    graph = graph_module.graph
    with graph.inserting_after(quantize):
        own_quantize = graph.node_copy(quantize)
    for reader in readers:
        dequantize = reader.all_input_nodes[0]
        with graph.inserting_before(reader):
            own = graph.node_copy(dequantize)
        own.replace_input_with(quantize, own_quantize)
        reader.replace_input_with(dequantize, own)
