"""Operands of ops that promote: tensors of several dtypes, and numbers."""

from __future__ import annotations

from typing import Any

import torch

from ggml_delegate import ir
from ggml_delegate.builder import Builder
from ggml_delegate.node_view import NodeView
from ggml_delegate.ranges import argument_range, is_int32
from ggml_delegate.reasons import Reason, unfit_dtype
from ggml_delegate.registry import FLOAT_DTYPES, HALF_DTYPES, INTEGER_DTYPES
from ggml_delegate.scalars import float32, is_number

_KNOWN = (*FLOAT_DTYPES, *INTEGER_DTYPES)


def common_dtype(node: NodeView, indices: tuple[int, ...]) -> torch.dtype:
    """The dtype to which torch promotes these arguments, by its own rules."""
    samples: list[Any] = []
    for index in indices:
        value = node.value(index)
        if value is None:
            samples.append(node.arg(index, ""))
        else:
            samples.append(torch.empty([1] * value.dim(), dtype=value.dtype, device="meta"))
    dtype = torch.result_type(samples[0], samples[1])
    for sample in samples[2:]:
        dtype = torch.promote_types(dtype, torch.result_type(samples[0], sample))
    return dtype


def check_operands(node: NodeView, indices: tuple[int, ...]) -> Reason | None:
    """Why these arguments have no place in the runtime, or None.

    Numbers must be known at lowering time, and integers among them must fit 32 bits.
    """
    for index in indices:
        value, argument = node.value(index), node.arg(index, "")
        if value is None and not is_number(argument):
            return Reason("run-time", "a scalar operand is only known at run time")
        if value is not None and value.dtype not in _KNOWN:
            return unfit_dtype(value.dtype, f"an operand has dtype {value.dtype}")
        values = argument_range(node.fx.args[index], node.constants)
        fixed = value is None or node.is_constant(index)
        if fixed and values is not None and not is_int32(values):
            return Reason("range", f"the number {max(values, key=abs)} does not fit int32")
    dtype = common_dtype(node, indices)
    return None if dtype in _KNOWN else unfit_dtype(dtype, f"operands are promoted to {dtype}")


def operand(
    node: NodeView, builder: Builder, index: int, dtype: torch.dtype, *, rounded: bool = False
) -> int:
    """The tensor number of an argument as floats, or as integers if `dtype` is one.

    rounded: to `dtype`, where that is a half type; arithmetic takes numbers as they are.
    """
    target = torch.float32 if dtype.is_floating_point and not rounded else dtype
    constant = node.constant(index)
    if constant is not None:
        return builder.constant(constant.to(target))
    value = node.value(index)
    if value is None:
        return builder.constant(_number(node.arg(index, ""), target))
    number = builder.value(node.node(index))
    if rounded and target in HALF_DTYPES and value.dtype != target:
        return builder.temp(ir.Copy(), [number], list(value.shape), target)
    if value.dtype.is_floating_point == target.is_floating_point and target != torch.bool:
        return number
    if value.dtype == target:
        return number
    return builder.temp(ir.Copy(), [number], list(value.shape), target)


def _number(value: Any, dtype: torch.dtype) -> torch.Tensor:
    if dtype.is_floating_point:
        return torch.tensor(float32(value), dtype=torch.float32).to(dtype)
    return torch.tensor(value).to(dtype)
