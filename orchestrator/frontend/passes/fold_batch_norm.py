"""Removes inference-mode BatchNorm from a program.

A BatchNorm whose statistics are constants is an affine map per channel: `y = x * scale + shift`
with `scale = weight / sqrt(running_var + eps)` and `shift = bias - running_mean * scale` (Ioffe and
Szegedy 2015, section 3.1). Where `x` comes from a convolution or a linear layer that nothing else
uses, the map is folded into that layer's weight and bias. Elsewhere one multiplication and one
addition take its place. Both are cheaper than the op and, unlike it, known to every backend.
"""

from __future__ import annotations

import operator
import warnings
from dataclasses import dataclass
from typing import Literal

import torch
from torch.export import ExportedProgram
from torch.fx import Node

from ggml_delegate.program_editor import ProgramEditor, named_arguments
from orchestrator.frontend.passes.producers import find_producer

aten = torch.ops.aten

_RETURNS_TENSOR = {aten.batch_norm.default}
_RETURNS_TUPLE = {
    aten._native_batch_norm_legit_no_training.default,
    aten._native_batch_norm_legit.default,
    aten._native_batch_norm_legit.no_stats,
    aten._native_batch_norm_legit_functional.default,
    aten.native_batch_norm.default,
}


@dataclass(frozen=True)
class FoldNote:
    """What became of one BatchNorm.

    Attributes:
        node: Name of the BatchNorm node in the program as it was given.
        action: "folded" into the layer before it, replaced by "scale_shift", or "kept" as it was.
        reason: Why it was not folded; empty if it was.
    """

    node: str
    action: Literal["folded", "scale_shift", "kept"]
    reason: str = ""


@dataclass(frozen=True)
class FoldResult:
    """The rewritten program and one note per BatchNorm, in graph order."""

    program: ExportedProgram
    notes: tuple[FoldNote, ...]


@dataclass(frozen=True)
class _BatchNorm:
    """A BatchNorm in the graph with its affine map, both of shape [channels], float64."""

    node: Node
    output: Node
    input: Node
    operands: tuple[Node, ...]
    scale: torch.Tensor
    shift: torch.Tensor


def fold_batch_norm(program: ExportedProgram) -> ExportedProgram:
    """Returns a program without inference-mode BatchNorm; `program` is left as it was.

    Args:
        program: ATen-dialect program, before or after `run_decompositions()`.

    Returns:
        An equivalent program. Unused BatchNorm parameters and statistics are gone from it.

    Warns:
        UserWarning: A BatchNorm that updates its statistics (training mode) was found and kept.
    """
    result = fold_batch_norm_with_notes(program)
    training = [note.node for note in result.notes if note.reason == _TRAINING]
    if training:
        warnings.warn(
            f"BatchNorm kept in training mode: {', '.join(training)}. The program normalises with "
            "the statistics of each input and updates its buffers; call model.eval() before "
            "torch.export.export for inference",
            stacklevel=2,
        )
    return result.program


def fold_batch_norm_with_notes(program: ExportedProgram) -> FoldResult:
    """As `fold_batch_norm`, and says for each BatchNorm what was done and why."""
    targets = _RETURNS_TENSOR | _RETURNS_TUPLE
    if not any(node.target in targets for node in program.graph.nodes):
        return FoldResult(program, ())
    editor = ProgramEditor(program)
    nodes = [node for node in editor.graph.nodes if node.target in targets]
    notes = tuple(_remove(editor, node) for node in nodes)
    return FoldResult(editor.finish(), notes)


_TRAINING = "it is in training mode and updates its running statistics"
_NO_STATISTICS = "it normalises with the statistics of each input (track_running_stats=False)"


def _remove(editor: ProgramEditor, node: Node) -> FoldNote:
    norm = _read(editor, node)
    if isinstance(norm, str):
        return FoldNote(node.name, "kept", norm)
    result = _folded(editor, norm)
    if isinstance(result, Node):
        note = FoldNote(node.name, "folded")
    else:
        note = FoldNote(node.name, "scale_shift", result)
        result = _scale_and_shift(editor, norm)
    editor.replace(norm.output, result)
    for old in dict.fromkeys((norm.output, node)):
        editor.graph.erase_node(old)
    editor.remove_if_unused(norm.operands)
    return note


def _folded(editor: ProgramEditor, norm: _BatchNorm) -> Node | str:
    """The layer before a BatchNorm with the BatchNorm in it, or why it cannot take it."""
    producer = find_producer(editor, norm.input, channels=norm.scale.numel())
    if isinstance(producer, str):
        return producer
    weight, bias = producer.folded(editor, norm.scale, norm.shift)
    if not (weight.isfinite().all() and bias.isfinite().all()):
        return f"the folded parameters of '{norm.input.name}' exceed the range of {weight.dtype}"
    return producer.install(editor, weight, bias)


def _read(editor: ProgramEditor, node: Node) -> _BatchNorm | str:
    """Reads a BatchNorm's affine map, or says why it has to stay."""
    arguments = named_arguments(node)
    mean, variance = arguments.get("running_mean"), arguments.get("running_var")
    if not isinstance(mean, Node) or not isinstance(variance, Node):
        return _NO_STATISTICS
    if arguments.get("training", False) or arguments.get("train", False):
        return _TRAINING
    output = _only_output(node)
    if output is None:
        return "an output other than the normalised tensor is used"
    names = ("weight", "bias", "running_mean", "running_var")
    operands = {name: arguments.get(name) for name in names}
    tensors = {n: editor.constant(value) for n, value in operands.items() if value is not None}
    missing = [name for name, tensor in tensors.items() if tensor is None]
    if missing:
        return f"{missing[0]} is computed or written to in the program"
    eps = arguments["eps"]
    assert isinstance(eps, float)
    scale, shift = _affine_map({n: t for n, t in tensors.items() if t is not None}, eps)
    source = arguments["input"]
    assert isinstance(source, Node)
    dtype = source.meta["val"].dtype
    if not (scale.to(dtype).isfinite().all() and shift.to(dtype).isfinite().all()):
        return f"its scale or its shift is not finite in {dtype}"
    used = [value for value in operands.values() if isinstance(value, Node)]
    return _BatchNorm(node, output, source, (*used, *_batch_counter(editor, mean)), scale, shift)


def _only_output(node: Node) -> Node | None:
    """The node of the normalised tensor, or None if saved statistics are used as well."""
    if node.target in _RETURNS_TENSOR:
        return node
    users = list(node.users)
    if len(users) == 1 and users[0].target is operator.getitem and users[0].args[1] == 0:
        return users[0]
    return None


def _affine_map(tensors: dict[str, torch.Tensor], eps: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and shift, [channels]; float64, so that folding rounds once, to the weight's dtype."""
    values = {name: tensor.detach().double() for name, tensor in tensors.items()}
    mean, variance = values["running_mean"], values["running_var"]
    scale = values.get("weight", torch.ones_like(mean)) / torch.sqrt(variance + eps)
    return scale, values.get("bias", torch.zeros_like(mean)) - mean * scale


def _batch_counter(editor: ProgramEditor, running_mean: Node) -> tuple[Node, ...]:
    """`num_batches_tracked` of the same module: no op uses it, yet it would be serialized."""
    prefix, dot, _ = (editor.target_of(running_mean) or "").rpartition(".")
    counter = editor.placeholder_for(f"{prefix}{dot}num_batches_tracked")
    return () if counter is None else (counter,)


def _scale_and_shift(editor: ProgramEditor, norm: _BatchNorm) -> Node:
    value = norm.output.meta["val"]
    shape = (-1, *[1] * (value.dim() - 2))
    prefix = (editor.target_of(norm.operands[-1]) or norm.node.name).rpartition(".")[0]
    name = prefix or norm.node.name
    scale = editor.add_parameter(f"{name}.scale", norm.scale.to(value.dtype).reshape(shape))
    shift = editor.add_parameter(f"{name}.shift", norm.shift.to(value.dtype).reshape(shape))
    with editor.graph.inserting_before(norm.node):
        scaled = editor.graph.call_function(aten.mul.Tensor, (norm.input, scale))
        shifted = editor.graph.call_function(aten.add.Tensor, (scaled, shift))
    for node in (scaled, shifted):
        node.meta = {k: v for k, v in norm.node.meta.items() if k != "torch_fn"} | {"val": value}
    return shifted
