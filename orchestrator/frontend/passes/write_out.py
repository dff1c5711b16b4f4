"""Writes ops that no backend takes, and that ExecuTorch has no kernel for, with ops that run.

What comes out is traced again, so only programs with such an op are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram, default_decompositions
from torch.fx import Node

from orchestrator.frontend.passes.remainders import is_signed_integer, remainder

aten = torch.ops.aten

# Integers above lose digits in a float, so their powers of two are not written as products.
_MOST_SHIFT = 31


def write_out(program: ExportedProgram) -> ExportedProgram:
    """Returns a program without the ops of `WRITTEN_OUT`, as far as each can be written.

    Args:
        program: ATen-dialect program as `torch.export.export` gives it; it is left as it was.
    """
    found = {_functional(node.target) for node in program.graph.nodes if _has_to_be_written(node)}
    if not found:
        return program
    composed = default_decompositions()
    # All of them: what one is written with may be among the others.
    table = {
        op: written or composed[op]
        for op, written in WRITTEN_OUT.items()
        if op in found or op not in FOR_PLACES
    }
    result: ExportedProgram = program.run_decompositions(table)
    return result


def _has_to_be_written(node: Node) -> bool:
    if node.target in FOR_PLACES:
        return any(user.users and user.args[1] == 1 for user in node.users)
    if _functional(node.target) in FOR_INTEGERS:
        value = node.meta.get("val")
        return isinstance(value, Tensor) and is_signed_integer(value.dtype)
    return _functional(node.target) in WRITTEN_OUT


def _functional(target: object) -> object:
    """The op that gives as a new tensor what an in-place one writes, which export knows apart."""
    if not isinstance(target, torch._ops.OpOverload) or not target._schema.is_mutable:
        return target
    packet = getattr(aten, target._schema.name.removeprefix("aten::").removesuffix("_"), None)
    return getattr(packet, target._overloadname, target)


# ---- products -----------------------------------------------------------------------------------


def _int_mm(x: Tensor, y: Tensor) -> Tensor:
    """In float32, exact up to sums of 2**24; beyond, as exact as the scales that follow."""
    return torch.mm(x.float(), y.float()).round().to(torch.int32)


# ---- elementwise --------------------------------------------------------------------------------


def _erfc(x: Tensor) -> Tensor:
    return 1.0 - torch.erf(x)


def _exp2(x: Tensor) -> Tensor:
    return torch.exp(x * math.log(2.0))


def _hypot(x: Tensor, y: Tensor) -> Tensor:
    """Squares overflow where the result need not, so they are taken of what is at most 1."""
    x, y = x.abs(), y.abs()
    largest = torch.maximum(x, y)
    scale = torch.where((largest == 0) | largest.isinf(), torch.ones_like(largest), largest)
    return scale * torch.sqrt((x / scale).square() + (y / scale).square())


def _signbit(x: Tensor) -> Tensor:
    """Of -0.0 it is what 1 / x tells; that of a negative NaN is not told from NaN's."""
    if not x.is_floating_point():
        return x < 0
    return (x < 0) | ((x == 0) & (x.reciprocal() < 0))


def _copysign(x: Tensor, y: Tensor | float) -> Tensor:
    if isinstance(y, Tensor):
        return torch.where(_signbit(y), -x.abs(), x.abs())
    return -x.abs() if math.copysign(1.0, y) < 0 else x.abs()


def _round_decimals(x: Tensor, *, decimals: int) -> Any:
    if not x.is_floating_point():
        return NotImplemented
    scale = 10.0 ** abs(decimals)
    return torch.round(x * scale) / scale if decimals >= 0 else torch.round(x / scale) * scale


def _rrelu(
    x: Tensor,
    lower: float = 0.125,
    upper: float = 1 / 3,
    training: bool = False,
    generator: torch.Generator | None = None,
) -> Any:
    if training:
        return NotImplemented
    return torch.nn.functional.leaky_relu(x, (lower + upper) / 2)


def _shift_left(x: Tensor, places: int) -> Tensor:
    return x * 2**places if 0 <= places < _MOST_SHIFT else NotImplemented


def _shift_right(x: Tensor, places: int) -> Any:
    if not 0 <= places < _MOST_SHIFT:
        return NotImplemented
    return torch.div(x, 2**places, rounding_mode="floor")


# ---- along a dim --------------------------------------------------------------------------------


def _scan(
    parts: Sequence[Tensor],
    neutral: Sequence[float],
    combine: Callable[[Sequence[Tensor], Sequence[Tensor]], Sequence[Tensor]],
    dim: int,
) -> Sequence[Tensor]:
    """Combines each element with all before it, in about log2 of their number of steps.

    Daniel Hillis and Guy Steele, "Data parallel algorithms", 1986.
    """
    parts = [part.movedim(dim, -1) for part in parts]
    shift, count = 1, parts[0].shape[-1]
    while shift < count:
        before = [
            torch.constant_pad_nd(part[..., :-shift], [shift, 0], value)
            for part, value in zip(parts, neutral, strict=True)
        ]
        parts = combine(before, parts)
        shift *= 2
    return [part.movedim(-1, dim) for part in parts]


def _scans(x: Tensor, dim: int) -> bool:
    return x.dim() > 0 and isinstance(x.shape[dim], int) and x.is_floating_point()


def _cumprod(x: Tensor, dim: int, *, dtype: torch.dtype | None = None) -> Any:
    if not _scans(x, dim) or dtype not in (None, x.dtype):
        return NotImplemented
    return _scan([x], [1.0], lambda before, here: [before[0] * here[0]], dim)[0]


def _logcumsumexp(x: Tensor, dim: int) -> Any:
    if not _scans(x, dim):
        return NotImplemented
    lowest = torch.finfo(x.dtype).min
    return _scan([x], [lowest], lambda before, here: [torch.logaddexp(before[0], here[0])], dim)[0]


def _running(extreme: Callable[[Tensor, Tensor], Tensor], sign: float) -> Callable[..., Any]:
    def combine(before: Sequence[Tensor], here: Sequence[Tensor]) -> Sequence[Tensor]:
        # Of equal elements the last one counts; NaN is above all.
        newer = extreme(here[0], before[0]) & ~(before[0].isnan() & ~here[0].isnan())
        newer = newer | here[0].isnan()
        return [torch.where(newer, new, old) for old, new in zip(before, here, strict=True)]

    def run(x: Tensor, dim: int) -> Any:
        if not _scans(x, dim):
            return NotImplemented
        sizes = [1] * x.dim()
        sizes[dim] = x.shape[dim]
        places = torch.arange(x.shape[dim]).reshape(sizes).expand(x.shape)
        values, found = _scan([x, places], [-sign * math.inf, 0], combine, dim)
        return values, found

    return run


def _kthvalue(x: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> Any:
    if x.dim() == 0 or not isinstance(k, int):
        return NotImplemented
    values, found = torch.topk(x, k, dim, largest=False)
    pair = values.narrow(dim, k - 1, 1), found.narrow(dim, k - 1, 1)
    return pair if keepdim else (pair[0].squeeze(dim), pair[1].squeeze(dim))


def _median_dim(x: Tensor, dim: int, keepdim: bool = False) -> Any:
    """The lower one of two in the middle; NaN where there is one, as `argmax` finds."""
    if x.dim() == 0 or not isinstance(x.shape[dim], int):
        return NotImplemented
    values, found = _kthvalue(x, (x.shape[dim] + 1) // 2, dim, keepdim)
    if not x.is_floating_point():
        return values, found
    unknown = x.isnan()
    some = unknown.any(dim, keepdim)
    first = unknown.to(torch.float32).argmax(dim, keepdim)
    return torch.where(some, torch.nan, values), torch.where(some, first, found)


def _median(x: Tensor) -> Any:
    if x.dim() == 0 or not isinstance(x.numel(), int) or x.numel() == 0:
        return NotImplemented
    return _median_dim(x.reshape(-1), 0)[0]


def _searchsorted(
    sequence: Tensor,
    values: Tensor,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Tensor | None = None,
) -> Tensor:
    """Counts what is before, as `bucketize` is written for a sequence of one dim."""
    if sorter is not None:
        sequence = sequence.gather(-1, sorter)
    right = side == "right" if side is not None else right
    dtype = torch.int32 if out_int32 else torch.int64
    if sequence.dim() == 1:
        return _counted(values.unsqueeze(-1), sequence, right).to(dtype)
    return _counted(values.unsqueeze(-1), sequence.unsqueeze(-2), right).to(dtype)


def _bucketize(
    x: Tensor, boundaries: Tensor, *, out_int32: bool = False, right: bool = False
) -> Tensor:
    return _searchsorted(boundaries, x, out_int32=out_int32, right=right)


def _counted(values: Tensor, sequence: Tensor, right: bool) -> Tensor:
    after = sequence > values if right else sequence >= values
    return (~after).to(torch.int64).sum(-1)


# ---- matrices -----------------------------------------------------------------------------------

# Without their checks for errors, which trace as effects that ExecuTorch does not know; so what it
# lacks is a kernel, and that gets reported.


def _inverse(x: Tensor) -> Any:
    return torch.linalg.inv_ex(x)[0]


def _cholesky(x: Tensor, *, upper: bool = False) -> Any:
    return torch.linalg.cholesky_ex(x, upper=upper)[0]


def _solution(x: Tensor, y: Tensor, *, left: bool = True) -> Any:
    return torch.linalg.solve_ex(x, y, left=left)[0]


# ---- tables and volumes -------------------------------------------------------------------------


def _embedding_bag(
    table: Tensor,
    indices: Tensor,
    offsets: Tensor,
    scale_grad_by_freq: bool = False,
    mode: int = 0,
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int = -1,
) -> Any:
    """By a matrix that says which row is in which bag; mode is 0 (sum), 1 (mean) or 2 (max).

    Where the last offset is the end, what comes after it is in the last bag for torch all the same,
    and counts for means, but is not added unless an index is left out.
    """
    rows = torch.embedding(table, indices)
    places = torch.arange(indices.shape[0])
    starts = offsets[:-1] if include_last_offset else offsets
    bag = (places.unsqueeze(-1) >= starts).to(torch.int64).sum(-1) - 1
    inside = torch.arange(starts.shape[0]).unsqueeze(-1) == bag
    if padding_idx >= 0:
        inside = inside & (indices != padding_idx)
    sizes = inside.to(torch.int64).sum(-1)
    if per_sample_weights is not None:
        rows = rows * per_sample_weights.unsqueeze(-1)
    if mode == 2:
        members = torch.where(inside.unsqueeze(-1), rows, torch.full_like(rows, -math.inf))
        bags = torch.where(sizes.unsqueeze(-1) > 0, members.amax(1), 0.0)
    else:
        if include_last_offset and padding_idx < 0:
            inside = inside & (places < offsets[-1])
        bags = inside.to(table.dtype) @ rows
    if mode == 1:
        bags = bags / sizes.clamp(min=1).to(table.dtype).unsqueeze(-1)
    return bags, bag, sizes, torch.zeros_like(starts)


def _windows(size: int, count: int) -> list[tuple[int, int]]:
    """Where each of `count` windows of an adaptive pool starts along a dim, and how long it is."""
    starts = [i * size // count for i in range(count)]
    return [(start, -(-(i + 1) * size // count) - start) for i, start in enumerate(starts)]


def _adaptive_avg_pool3d(x: Tensor, output_size: Sequence[int]) -> Any:
    if not all(isinstance(size, int) for size in x.shape[-3:]):
        return NotImplemented
    for dim, count in zip((-3, -2, -1), output_size, strict=True):
        if count != x.shape[dim]:
            windows = _windows(x.shape[dim], count)
            means = [x.narrow(dim, *window).mean(dim, keepdim=True) for window in windows]
            x = torch.cat(means, dim)
    return x


def _adaptive_max_pool(x: Tensor, output_size: Sequence[int]) -> Any:
    """Along one dim after the other, the last one first: of equal elements the first one counts.

    The places are those in an image or volume that is flat.
    """
    sizes = x.shape[-len(output_size) :]
    if not all(isinstance(size, int) and size > 0 for size in sizes) or 0 in output_size:
        return NotImplemented
    places: Tensor | None = None
    stride = 1
    for dim in range(-1, -len(output_size) - 1, -1):
        largest, found = [], []
        for start, length in _windows(sizes[dim], output_size[dim]):
            value, at = x.narrow(dim, start, length).max(dim, keepdim=True)
            place = (at + start) * stride
            if places is not None:
                place = place + places.narrow(dim, start, length).gather(dim, at)
            largest.append(value)
            found.append(place)
        x, places = torch.cat(largest, dim), torch.cat(found, dim)
        stride *= sizes[dim]
    return x, places


def _conv_transpose3d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sequence[int] = (1, 1, 1),
    padding: Sequence[int] = (0, 0, 0),
    output_padding: Sequence[int] = (0, 0, 0),
    groups: int = 1,
    dilation: Sequence[int] = (1, 1, 1),
) -> Any:
    """A transposed convolution of images per slice of the kernel, spread over depth and added."""
    depth = x.shape[-3]
    if x.dim() != 5 or not isinstance(depth, int):
        return NotImplemented
    stride, padding, output_padding, dilation = (
        list(each) * (3 // len(each)) for each in (stride, padding, output_padding, dilation)
    )
    images = x.transpose(1, 2).flatten(0, 1)
    spread = (depth - 1) * stride[0] + 1
    reach = (weight.shape[2] - 1) * dilation[0]
    total: Tensor | None = None
    for place in range(weight.shape[2]):
        slices = torch.conv_transpose2d(
            images,
            weight[:, :, place],
            None,
            stride[1:],
            padding[1:],
            output_padding[1:],
            groups,
            dilation[1:],
        )
        volume = slices.reshape(-1, depth, *slices.shape[1:]).transpose(1, 2)
        if stride[0] > 1:
            apart = torch.constant_pad_nd(volume.unsqueeze(3), [0, 0, 0, 0, 0, stride[0] - 1])
            volume = apart.flatten(2, 3)[:, :, :spread]
        start = place * dilation[0]
        volume = torch.constant_pad_nd(volume, [0, 0, 0, 0, start, reach - start])
        total = volume if total is None else total + volume
    assert total is not None
    if output_padding[0]:
        total = torch.constant_pad_nd(total, [0, 0, 0, 0, 0, output_padding[0]])
    count = spread + reach + output_padding[0] - 2 * padding[0]
    total = total.narrow(2, padding[0], count)
    return total if bias is None else total + bias.reshape(1, -1, 1, 1, 1)


WRITTEN_OUT: dict[torch._ops.OpOverload, Callable[..., Any] | None] = {
    aten.erfc.default: _erfc,
    aten.special_erfc.default: _erfc,
    aten.exp2.default: _exp2,
    aten.special_exp2.default: _exp2,
    aten.hypot.default: _hypot,
    aten.signbit.default: _signbit,
    aten.copysign.Tensor: _copysign,
    aten.copysign.Scalar: _copysign,
    aten.__lshift__.Scalar: _shift_left,
    aten.bitwise_left_shift.Tensor_Scalar: _shift_left,
    aten.__rshift__.Scalar: _shift_right,
    aten.bitwise_right_shift.Tensor_Scalar: _shift_right,
    aten.round.decimals: _round_decimals,
    aten.rrelu.default: _rrelu,
    aten._int_mm.default: _int_mm,
    aten.remainder.Scalar: remainder,
    aten.remainder.Tensor: remainder,
    aten.remainder.Scalar_Tensor: remainder,
    aten.cumprod.default: _cumprod,
    aten.logcumsumexp.default: _logcumsumexp,
    aten.cummax.default: _running(torch.ge, 1.0),
    aten.cummin.default: _running(torch.le, -1.0),
    aten.kthvalue.default: _kthvalue,
    aten.median.dim: _median_dim,
    aten.median.default: _median,
    aten.searchsorted.Tensor: _searchsorted,
    aten.bucketize.Tensor: _bucketize,
    aten.inverse.default: _inverse,
    aten.linalg_inv.default: _inverse,
    aten.linalg_cholesky.default: _cholesky,
    aten.linalg_solve.default: _solution,
    aten.embedding_bag.padding_idx: None,
    aten.embedding_bag.default: None,
    aten._embedding_bag.default: _embedding_bag,
    aten._embedding_bag_forward_only.default: _embedding_bag,
    aten.adaptive_avg_pool3d.default: _adaptive_avg_pool3d,
    aten._adaptive_avg_pool3d.default: _adaptive_avg_pool3d,
    aten.adaptive_max_pool1d.default: _adaptive_max_pool,
    aten.adaptive_max_pool2d.default: _adaptive_max_pool,
    aten.adaptive_max_pool3d.default: _adaptive_max_pool,
    aten.conv_transpose3d.input: _conv_transpose3d,
    aten.quantile.default: None,
    aten.quantile.scalar: None,
    aten.linalg_vander.default: None,
    aten.vander.default: None,
}
"""By op, a function that computes the same, or returns NotImplemented where it cannot.

None stands for how torch itself composes the op.
"""

FOR_INTEGERS = {aten.remainder.Scalar, aten.remainder.Tensor}
"""Ops that only integers need written."""

FOR_PLACES = {aten.adaptive_max_pool1d.default, aten.adaptive_max_pool2d.default}
"""Ops of two results, written only where the second one is read: backends give the first one."""
