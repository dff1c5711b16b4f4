"""Stores weights in half types where the user allows them to be off by as much.

A weight of float32 becomes one of float16 or bfloat16, from which `orchestrator::dequantize_half`
makes float32; scales of groups of integers become the nearest numbers of such a type. A backend
that takes these multiplies by what is stored, in float32: weights are all that is rounded.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

import torch
from torch.export import ExportedProgram
from torch.fx import Node

from ggml_delegate.node_view import op_name
from ggml_delegate.program_editor import ProgramEditor
from orchestrator.frontend.half_weights import HALF_DTYPES, dequantize_half
from orchestrator.frontend.passes.producers import CONVOLUTIONS, TRANSPOSED_CONVOLUTIONS
from orchestrator.graph.quantized import is_dequantize, quantization

_LAYERS = {*CONVOLUTIONS, *TRANSPOSED_CONVOLUTIONS, torch.ops.aten.linear.default}
_EMBEDDING = torch.ops.aten.embedding.default


@dataclass(frozen=True)
class Narrowed:
    """What became of a program's weights.

    weights: how many are stored in a half type. scales: of how many weights of integers the scales
    are. saved: bytes. error: the largest difference of an element from what it was, over the
    largest value of its row. kept: names of those that might be, but that no delegate takes so.
    """

    weights: int = 0
    scales: int = 0
    saved: int = 0
    error: float = 0.0
    kept: frozenset[str] = frozenset()

    def adding(self, saved: int, error: float, *, scales: bool) -> Narrowed:
        """Return what counts one more."""
        return replace(
            self,
            weights=self.weights + (not scales),
            scales=self.scales + scales,
            saved=self.saved + saved,
            error=max(self.error, error),
        )

    def notes(self, most: float) -> Iterator[str]:
        """Yield what to tell of a plan; most: what the user allows."""
        if most <= 0:
            return
        kinds = {"weights": self.weights, "scales of weights of integers": self.scales}
        stored = " and ".join(f"{count} {kind}" for kind, count in kinds.items() if count)
        bought = (
            f"{stored} stored in half types, off by {self.error:.2g} of a row's largest element at "
            f"most: {self.saved / 1e6:.2f} MB less"
            if stored
            else "no weight stored in a half type"
        )
        kept = f"; {len(self.kept)} left, as no delegate takes them so" if self.kept else ""
        yield f"weight_error={most:g}: {bought}{kept}."


def narrow_weights(
    program: ExportedProgram, most: float, keep: Collection[str] = ()
) -> tuple[ExportedProgram, Narrowed]:
    """Returns a program with smaller weights, and what that saves; `program` is left as it was.

    Filters of depthwise convolutions stay: they are small.

    Args:
        program: ATen-dialect program as `torch.export.export` gives it.
        most: an element of a weight may be off by, over the largest of its row.
        keep: names of what no delegate takes in a half type, as `dequantized_weights` tells them.
    """
    found = Narrowed()
    if most <= 0:
        return program, found
    editor = ProgramEditor(program)
    for node in [node for node in editor.graph.nodes if node.op == "placeholder"]:
        value = editor.constant(node)
        if value is None or value.dtype != torch.float32 or not node.users:
            continue
        if all(_is_weight_of(node, user) for user in node.users):
            target = f"{editor.target_of(node)}_as_half"
            half, error = _nearest(value.detach().flatten(1), most)
            if half is not None and target in keep:
                found = replace(found, kept=found.kept | {target})
            elif half is not None:
                _store(editor, node, target, half.reshape(value.shape))
                found = found.adding(2 * value.numel(), error, scales=False)
        elif all(_is_scale_of(node, user) for user in node.users):
            half, error = _nearest(value.detach().flatten().unsqueeze(1), most)
            if half is not None and not torch.equal(half.float().flatten(), value.flatten()):
                editor.set_constant(node, half.to(torch.float32).reshape(value.shape))
                found = found.adding(2 * value.numel(), error, scales=True)
    return (program if found == Narrowed() else editor.finish()), found


def _is_weight_of(node: Node, user: Node) -> bool:
    """Whether a layer reads a constant as its weight alone."""
    place = 0 if user.target == _EMBEDDING else 1
    if user.target != _EMBEDDING and user.target not in _LAYERS:
        return False
    if user.args[place] is not node or list(user.args).count(node) != 1:
        return False
    if user.target not in CONVOLUTIONS:
        return True
    return bool(node.meta["val"].shape[1] != 1 or user.args[0].meta["val"].shape[1] == 1)  # type: ignore[union-attr]


def _is_scale_of(node: Node, user: Node) -> bool:
    """Whether a node expands a weight of integers in groups, whose scales a constant is."""
    if not is_dequantize(user) or op_name(user.all_input_nodes[0]):
        return False
    found = quantization(user)
    return found is not None and found.scale is node and found.group_size is not None


def _nearest(rows: torch.Tensor, most: float) -> tuple[torch.Tensor | None, float]:
    """Rows [n, k] in the half type that is nearest to them, and how far off; None if too far."""
    largest = rows.abs().amax(1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    found, least = None, most
    for dtype in HALF_DTYPES:
        half = rows.to(dtype)
        error = ((half.to(torch.float32) - rows).abs() / largest).amax().item()
        if error < least or (found is None and error == least):  # NaN where one is infinite
            found, least = half, error
    return found, least


def _store(editor: ProgramEditor, node: Node, target: str, half: torch.Tensor) -> None:
    """Has users of a weight read floats that are made of numbers of a half type, each its own."""
    stored = editor.add_parameter(target, half)
    for user in list(node.users):
        with editor.graph.inserting_before(user):
            floats = editor.graph.call_function(dequantize_half, (stored,))
        floats.meta = {**user.meta, "val": node.meta["val"]}
        user.replace_input_with(node, floats)
    editor.remove_if_unused([node])
