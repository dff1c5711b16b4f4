"""How far results of a quantized model may be from what it computes in eager PyTorch.

Backends that compute in integers round at other places than `dequantize -> op -> quantize` in float
does: a number half-way between two steps goes to the one or the other, and from there on the two
differ. So what one step here and there changes in eager itself is the measure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from tests.harness.allowed import Allowed, largest

BASE = 2e-5
"""Of an output's largest value: what float32 costs."""
NOISE = 2e-5
"""Of its largest element, in every result that is no quantized number."""
STEPS_FACTOR = 1.5
"""Times the largest change that shaken steps made in eager."""
SHARE_OFF = 1 / 16
"""How many numbers of a given scale are a step off; of scales that depend on data all may be, as
XNNPACK chooses them row by row where the model does so by tensor."""
DRAWS = 3
BLOCK_SCALE = 2.0**-9
"""XNNPACK keeps the scales of weights in blocks as bfloat16."""


def allowed_outputs(module: fx.GraphModule, inputs: Sequence[Any]) -> list[Allowed]:
    """What a module of an exported quantized program returns, with what may differ.

    module: from `ExportedProgram.module()`; its outputs are flattened.
    """
    with torch.no_grad():
        exact = _tensors(module(*inputs))
        worst = [0.0] * len(exact)
        for draw in range(DRAWS):
            shaken = _tensors(_Shaken(module, draw).run(*inputs))
            for i, (a, b) in enumerate(zip(shaken, exact, strict=True)):
                if b.is_floating_point() and b.numel():
                    worst[i] = max(worst[i], (a.double() - b.double()).abs().max().item())
    return [
        Allowed(value, STEPS_FACTOR * error + BASE * largest(value))
        for value, error in zip(exact, worst, strict=True)
    ]


def _tensors(results: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(results) if isinstance(leaf, Tensor)]


class _Shaken(fx.Interpreter):
    """Runs a quantized program with every quantized number up to one step off, by chance."""

    def __init__(self, module: fx.GraphModule, seed: int) -> None:
        super().__init__(module)
        self._generator = torch.Generator().manual_seed(seed)

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Calls the op and shakes its result."""
        result = super().call_function(target, args, kwargs)
        name = target.name() if isinstance(target, torch._ops.OpOverload) else ""
        if not isinstance(result, Tensor) or "choose_qparams" in name:
            return result
        if "::quantize" in name:
            is_static = name == "quantized_decomposed::quantize_per_tensor"
            return self._off_by_steps(result, SHARE_OFF if is_static else 1.0)
        if not result.is_floating_point() or result.numel() == 0:
            return result
        noise = torch.rand(result.shape, generator=self._generator) * 2 - 1
        if "dequantize_affine" in name:
            return result * (1 + BLOCK_SCALE * noise).to(result.dtype)
        return result + (NOISE * largest(result) * noise).to(result.dtype)

    def _off_by_steps(self, numbers: Tensor, share: float) -> Tensor:
        lowest, highest = int(numbers.min()), int(numbers.max())
        steps = torch.randint(-1, 2, numbers.shape, generator=self._generator)
        steps *= torch.rand(numbers.shape, generator=self._generator) < share
        return (numbers.long() + steps).clamp(lowest, highest).to(numbers.dtype)
