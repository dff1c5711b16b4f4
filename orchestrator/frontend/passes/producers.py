"""Layers that can absorb an affine map of their output channels: convolutions and linear layers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.fx import Node

from ggml_delegate.program_editor import ProgramEditor, named_arguments

aten = torch.ops.aten

CONVOLUTIONS = {
    aten.conv1d.default,
    aten.conv1d.padding,
    aten.conv2d.default,
    aten.conv2d.padding,
    aten.conv3d.default,
    aten.conv3d.padding,
    aten.convolution.default,
}
TRANSPOSED_CONVOLUTIONS = {
    aten.conv_transpose1d.default,
    aten.conv_transpose2d.input,
    aten.conv_transpose3d.input,
}
_LINEARS = {aten.linear.default}
_MATRIX_PRODUCTS = {aten.addmm.default, aten.mm.default}
_TRANSPOSES = {aten.permute.default, aten.t.default, aten.transpose.int}


@dataclass(frozen=True)
class Producer:
    """A layer that only the BatchNorm uses and whose weight and bias are constants of its own.

    Attributes:
        node: The layer's node.
        weight: Placeholder of the weight.
        weight_user: The node that takes `weight`: the layer, or the transpose before a matrix
            product.
        bias: Placeholder of the bias, of shape [channels], or None.
        channel_axis: Axis of the weight that runs over the output channels (of one group).
        groups: Into how many blocks axis 0 of the weight is divided, each with its own output
            channels. 1 unless the layer is a transposed convolution, whose weight is
            [in_channels, out_channels / groups, *kernel].
    """

    node: Node
    weight: Node
    weight_user: Node
    bias: Node | None
    channel_axis: int
    groups: int = 1

    def folded(
        self, editor: ProgramEditor, scale: torch.Tensor, shift: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight and bias, in the layer's dtypes, that make it yield `layer(x) * scale + shift`.

        Args:
            editor: The program that holds the layer.
            scale: float64, [channels].
            shift: float64, [channels].
        """
        weight = editor.constant(self.weight)
        assert weight is not None
        bias = None if self.bias is None else editor.constant(self.bias)
        folded_weight = self._scaled(weight.detach().double(), scale).to(weight.dtype)
        if bias is None:
            return folded_weight, shift.to(weight.dtype)
        return folded_weight, (bias.detach().double() * scale + shift).to(bias.dtype)

    def install(self, editor: ProgramEditor, weight: torch.Tensor, bias: torch.Tensor) -> Node:
        """Gives the layer a weight and a bias; what it had goes unless something else uses it.

        Returns:
            The node of the layer with the new parameters.
        """
        weight_name = editor.target_of(self.weight) or self.node.name
        bias_name = editor.target_of(self.bias) if self.bias else None
        bias_name = bias_name or _sibling(weight_name, "bias")
        new_weight = editor.add_parameter(f"{weight_name}_folded", weight)
        new_bias = editor.add_parameter(f"{bias_name}_folded", bias)
        result = self._with_parameters(editor, new_weight, new_bias)
        editor.remove_if_unused([self.weight] if self.bias is None else [self.weight, self.bias])
        return result

    def _scaled(self, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        blocks = weight.reshape(self.groups, -1, *weight.shape[1:])
        shape = [self.groups, *[1] * weight.dim()]
        shape[self.channel_axis + 1] = -1
        return torch.mul(blocks, scale.reshape(shape)).reshape(weight.shape)

    def _with_parameters(self, editor: ProgramEditor, weight: Node, bias: Node) -> Node:
        self.weight_user.args = tuple(
            weight if value is self.weight else value for value in self.weight_user.args
        )
        if self.node.target not in _MATRIX_PRODUCTS:
            self.node.args = (*self.node.args[:2], bias, *self.node.args[3:])
            return self.node
        with editor.graph.inserting_before(self.node):
            operands = (bias, *self.node.args[-2:])
            result = editor.graph.call_function(aten.addmm.default, operands)
        result.meta = dict(self.node.meta)
        editor.replace(self.node, result)
        editor.graph.erase_node(self.node)
        return result


def find_producer(editor: ProgramEditor, node: Node, channels: int) -> Producer | str:
    """The layer that can absorb an affine map of `node`'s channels (axis 1), or why there is none.

    Args:
        editor: The program that holds `node`.
        node: The node whose output is to be scaled and shifted.
        channels: Number of channels.
    """
    found = _layer(node)
    if isinstance(found, str):
        return found
    users = len(node.users)
    if users != 1:
        return f"the output of '{node.name}' has {users} users"
    if node.meta["val"].dim() != found.batched_rank:
        return f"axis 1 of the output of '{node.name}' is not its channel axis"
    weight = editor.constant(found.weight)
    if weight is None or not isinstance(found.weight, Node):
        return f"the weight of '{node.name}' is computed or written to in the program"
    if len(found.weight.users) != 1 or len(found.weight_user.users) != 1:
        return f"the weight of '{node.name}' is shared with another layer"
    if editor.is_tied(found.weight):
        return f"the weight of '{node.name}' is shared with another layer"
    if not weight.is_floating_point():
        return f"the weight of '{node.name}' is {weight.dtype}, not a floating-point type"
    bias = None
    if found.bias is not None:
        tensor = editor.constant(found.bias)
        if tensor is None or not isinstance(found.bias, Node):
            return f"the bias of '{node.name}' is computed or written to in the program"
        if tuple(tensor.shape) != (channels,):
            return f"the bias of '{node.name}' has shape {tuple(tensor.shape)}, not ({channels},)"
        bias = found.bias
    return Producer(node, found.weight, found.weight_user, bias, found.channel_axis, found.groups)


@dataclass(frozen=True)
class _Layer:
    """A layer as the graph shows it, before it is known whether its parameters are constants."""

    weight: object
    weight_user: Node
    bias: object
    channel_axis: int
    batched_rank: int
    groups: int = 1


def _layer(node: Node) -> _Layer | str:
    if node.target in _MATRIX_PRODUCTS:
        return _matrix_product(node)
    if node.target not in CONVOLUTIONS | TRANSPOSED_CONVOLUTIONS | _LINEARS:
        return f"'{node.name}' before it is no convolution or linear layer"
    if node.kwargs:
        return f"'{node.name}' has keyword arguments: {', '.join(node.kwargs)}"
    arguments = named_arguments(node)
    weight, bias = arguments["weight"], arguments.get("bias")
    if node.target in _LINEARS:
        return _Layer(weight, node, bias, channel_axis=0, batched_rank=2)
    rank = weight.meta["val"].dim() if isinstance(weight, Node) else 0
    if node.target in TRANSPOSED_CONVOLUTIONS or arguments.get("transposed", False):
        groups = arguments.get("groups", 1)
        assert isinstance(groups, int)
        return _Layer(weight, node, bias, channel_axis=1, batched_rank=rank, groups=groups)
    return _Layer(weight, node, bias, channel_axis=0, batched_rank=rank)


def _matrix_product(node: Node) -> _Layer | str:
    """mm(x, w) or addmm(bias, x, w), which a linear layer decomposes to."""
    if node.kwargs:
        return f"'{node.name}' has factors: {dict(node.kwargs)}"
    weight, bias = node.args[-1], node.args[0] if len(node.args) == 3 else None
    if isinstance(weight, Node) and weight.target in _TRANSPOSES:
        return _Layer(weight.args[0], weight, bias, channel_axis=0, batched_rank=2)
    return _Layer(weight, node, bias, channel_axis=1, batched_rank=2)


def _sibling(target: str, name: str) -> str:
    """`name` in the module that owns `target`: ("a.b.weight", "bias") gives "a.b.bias"."""
    prefix, dot, _ = target.rpartition(".")
    return f"{prefix}{dot}{name}"
