"""Files in which a delegate's IR can be replaced by another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch

from ggml_delegate import ir
from tests.harness.ops import lower_ggml


@dataclass(frozen=True)
class ChangeableFile:
    """A .pte in memory. start, room: of the longest IR in it, with what may be added to it."""

    buffer: bytes
    start: int
    room: int

    def program(self) -> Any:
        """The IR, to change; lists in place of arrays, which have no append."""
        program = ir.deserialize(self.buffer[self.start : self.start + self.room])
        for node in program.nodes:
            node.inputs = [] if node.inputs is None else [int(number) for number in node.inputs]
            node.outputs = [] if node.outputs is None else [int(number) for number in node.outputs]
        return program

    def with_ir(self, data: bytes) -> bytes | None:
        """The file with another IR; None where there is no room for it."""
        if len(data) > self.room:
            return None
        padded = data + bytes(self.room - len(data))
        return self.buffer[: self.start] + padded + self.buffer[self.start + self.room :]

    def with_program(self, program: Any) -> bytes:
        """The file with the IR of a changed program."""
        changed = self.with_ir(ir.serialize(program))
        assert changed is not None
        return changed


def changeable_file(
    model: torch.nn.Module, inputs: Sequence[Any], dynamic_shapes: Any = None
) -> ChangeableFile:
    """A model lowered for ggml, with room for an IR three times as long in its largest delegate."""
    made: list[bytes] = []
    serialize = ir.serialize

    def with_room(program: Any) -> bytes:
        data = serialize(program)
        made.append(data + bytes(2 * len(data)))
        return made[-1]

    with mock.patch("ggml_delegate.preprocess.ir.serialize", with_room):
        manager, _, _ = lower_ggml(model.eval(), inputs, dynamic_shapes)
    buffer = bytes(manager.buffer)
    longest = max(made, key=len)
    return ChangeableFile(buffer, buffer.index(longest), len(longest))


#: Changes an IR program by one of its nodes.
Mutation = Callable[[Any, Any], None]


def set_input(to: int, source: int | None) -> Mutation:
    """Input `to` of a node becomes the tensor that is input `source`, or none."""

    def mutate(program: Any, node: Any) -> None:
        node.inputs[to] = -1 if source is None else node.inputs[source]

    return mutate


def resize(number: int, *dims: int) -> Mutation:
    """An input of a node has other sizes."""

    def mutate(program: Any, node: Any) -> None:
        program.tensors[node.inputs[number]].dims = [ir.Dim(value=dim, expr=-1) for dim in dims]

    return mutate


def retype(number: int, dtype: int) -> Mutation:
    """An input of a node has another dtype, of the IR's."""

    def mutate(program: Any, node: Any) -> None:
        program.tensors[node.inputs[number]].dtype = dtype

    return mutate
