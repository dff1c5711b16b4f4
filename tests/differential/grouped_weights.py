"""Constants of random graphs that are integers in groups, as `dequantize_groups` takes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from orchestrator.llm.blocks import GroupedWeight


@dataclass(frozen=True)
class Scheme:
    """How floats become integers.

    limits: of the integers. dtype: of scales and minimums. group: elements that share them, or 0
    for a row. by_rows: of a table, only the rows that are looked up become floats.
    """

    bits: int
    limits: tuple[int, int]
    minimums: bool
    dtype: torch.dtype = torch.float16
    group: int = 32
    by_rows: bool = False


_F32, _BF16 = torch.float32, torch.bfloat16
SCHEMES: Sequence[Scheme] = (
    # As in Q4_0, Q4_1, Q8_0, Q4_K, Q5_K and Q6_K of GGUF files.
    *(
        each
        for by_rows in (False, True)
        for each in (
            Scheme(4, (-8, 7), False, by_rows=by_rows),
            Scheme(4, (0, 15), True, by_rows=by_rows),
            Scheme(8, (-128, 127), False, by_rows=by_rows),
            Scheme(4, (0, 15), True, _F32, by_rows=by_rows),
            Scheme(8, (0, 31), True, _F32, by_rows=by_rows),
            Scheme(8, (-32, 31), False, _F32, 16, by_rows=by_rows),
        )
    ),
    Scheme(8, (-128, 127), True, _BF16, 8),
    Scheme(4, (-8, 7), False, _BF16, 4),
    Scheme(4, (0, 15), True, _F32, 0),
    Scheme(8, (-128, 127), False, _F32, 0),
)


@dataclass(frozen=True)
class GroupedConstant:
    """A weight or a table [n, k]; dtype: of what it stands for."""

    weight: GroupedWeight
    by_rows: bool = False
    dtype: torch.dtype = torch.float32

    @classmethod
    def of(cls, value: Tensor, scheme: Scheme) -> GroupedConstant:
        """The integers nearest to floats [n, k], whose rows the scheme's groups divide."""
        low, high = scheme.limits
        n, k = value.shape
        group = scheme.group or k
        parts = value.reshape(n, k // group, group)
        if scheme.minimums:
            least, most = parts.amin(2), parts.amax(2)
            scales = ((most - least) / (high - low)).clamp(min=1e-6).to(scheme.dtype)
            mins = (least - low * scales.float()).to(scheme.dtype)
        else:
            scales, mins = (parts.abs().amax(2) / high).clamp(min=1e-6).to(scheme.dtype), None
        start = 0.0 if mins is None else mins.float()[:, :, None]
        q = ((parts - start) / scales.float()[:, :, None]).round().clamp(low, high)
        integers = q.reshape(n, k).to(torch.uint8 if low == 0 and high == 15 else torch.int8)
        return cls(GroupedWeight(integers, scales, mins, scheme.bits, group), scheme.by_rows)

    @property
    def sizes(self) -> tuple[int, ...]:
        """(n, k)."""
        return tuple(self.weight.integers.shape)

    def matrix(self) -> Tensor:
        """All of it as floats."""
        return self.weight.floats(self.dtype)

    def rows(self, indices: Tensor) -> Tensor:
        """Rows as floats [..., k]."""
        if not self.by_rows:
            return functional.embedding(indices, self.matrix())
        found = functional.embedding(indices, self.weight.integers)
        found = found.unflatten(-1, (-1, self.weight.group)).to(torch.float32)
        found = found * functional.embedding(indices, self.weight.scales).float()[..., None]
        if self.weight.mins is not None:
            found = found + functional.embedding(indices, self.weight.mins).float()[..., None]
        return found.flatten(-2).to(self.dtype)

    def registered(self, module: nn.Module, name: str) -> None:
        """Makes its tensors buffers of a module."""
        for part in _PARTS:
            tensor = getattr(self.weight, part)
            module.register_buffer(f"{name}_{part}", None if tensor is None else tensor.clone())

    def of_buffers(self, module: nn.Module, name: str) -> GroupedConstant:
        """The same constant, of the buffers that `registered` made."""
        parts = {part: getattr(module, f"{name}_{part}") for part in _PARTS}
        return replace(self, weight=replace(self.weight, **parts))

    def __str__(self) -> str:
        weight = self.weight
        kind = " by rows" if self.by_rows else ""
        mins = "no minimums" if weight.mins is None else "minimums"
        return (
            f"{weight.integers.dtype} {list(weight.integers.shape)} of {weight.bits} bits in groups"
            f" of {weight.group}, {weight.scales.dtype} scales, {mins}{kind}"
        )


_PARTS = ("integers", "scales", "mins")
