"""The delegate's IR: the classes generated from schema/ir.fbs, with keyword constructors.

`ir.LeakyRelu(negativeSlope=0.1)` makes the object-API class `LeakyReluT` of the generated module;
an attribute that the schema lacks is an error, so the schema stays the one source of truth.
"""

from __future__ import annotations

from typing import Any

import flatbuffers
from _ggml_delegate import ir_generated as generated

IR_VERSION = generated.Limit.Version
FILE_IDENTIFIER = b"GGIR"

Limit = generated.Limit
DType = generated.DType
ExprOp = generated.ExprOp
ConvAlgorithm = generated.ConvAlgorithm
BinaryKind = generated.BinaryKind
UnaryKind = generated.UnaryKind
ReduceKind = generated.ReduceKind
PoolKind = generated.PoolKind
RecurrentKind = generated.RecurrentKind
CompareKind = generated.CompareKind
IntegerKind = generated.IntegerKind
ResizeKind = generated.ResizeKind

# Union member name -> number, e.g. {"Conv2d": 1, ...}.
OPS: dict[str, int] = {
    name: number
    for name, number in vars(generated.Op).items()
    if isinstance(number, int) and number
}


def make(table: str, **attributes: Any) -> Any:
    """A new object of a schema table, e.g. make("Tensor", dtype=...).

    Raises:
        TypeError: when the schema's table has no such attribute.
    """
    result = getattr(generated, f"{table}T")()
    for name, value in attributes.items():
        if not hasattr(result, name):
            known = ", ".join(sorted(vars(result)))
            raise TypeError(f"{table} has no attribute {name!r}; it has: {known}")
        setattr(result, name, value)
    return result


def __getattr__(table: str) -> Any:
    """`ir.Conv2d(...)` is `make("Conv2d", ...)` for every table and struct of the schema."""
    if table.startswith("_") or not hasattr(generated, f"{table}T"):
        raise AttributeError(f"the IR schema has no table {table!r}")

    def constructor(**attributes: Any) -> Any:
        return make(table, **attributes)

    return constructor


def op_name(node: Any) -> str:
    """The union member's name of a node's op."""
    return type(node.op).__name__.removesuffix("T")


def serialize(program: Any) -> bytes:
    """The bytes of a Program object, with the file identifier."""
    builder = flatbuffers.Builder(4096)
    builder.Finish(program.Pack(builder), file_identifier=FILE_IDENTIFIER)
    return bytes(builder.Output())


def deserialize(data: bytes) -> Any:
    """The Program object in bytes made by `serialize`.

    Raises:
        ValueError: when the bytes lack the identifier or have another version.
    """
    if len(data) < 16 or data[4:8] != FILE_IDENTIFIER:
        raise ValueError(
            f"not a ggml delegate program: identifier {data[4:8]!r}, expected {FILE_IDENTIFIER!r}"
        )
    program = generated.ProgramT.InitFromObj(generated.Program.GetRootAs(data))
    if program.version != IR_VERSION:
        raise ValueError(
            f"IR version {program.version}, expected {IR_VERSION}; lower the model again"
        )
    return program
