"""What ExecuTorch's kernels cannot do shows with ExecuTorch alone; once it does not, it can go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from executorch.exir import to_edge_transform_and_lower
from torch import nn
from torch.nn import functional

from orchestrator.backends.portable import QUIRKS, Quirk
from orchestrator.edge import edge_compile_config
from orchestrator.native import NativeProgram
from orchestrator.versions import executorch_version

_ROW = torch.randn(5)
CASES: dict[str, tuple[Callable[..., Any], torch.Tensor]] = {
    "aten::linear": (lambda x: functional.linear(x, torch.ones(3, 4)), torch.randn(4)),
    "aten::convolution": (
        lambda x: functional.conv3d(x, torch.ones(2, 3, 2, 2, 2)),
        torch.randn(1, 3, 4, 4, 4),
    ),
    "aten::cumsum": (lambda x: (x * 2).cumsum(-1), torch.tensor(1.5)),
    "aten::copy": (lambda x: torch.ops.aten.copy.default(x, _ROW, True).sin(), torch.randn(3, 5)),
}


class _Function(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(x)


def _runs_right(function: Callable[..., Any], x: torch.Tensor, kept: list[Any]) -> bool:
    """Whether kernels alone compute what eager PyTorch does.

    kept: ops that are not to be decomposed, as where a backend wanted them preserved.
    """
    exported = torch.export.export(_Function(function), (x,))
    try:
        config = edge_compile_config()
        config.preserve_ops = kept
        edge = to_edge_transform_and_lower(exported, compile_config=config)
        (result,) = NativeProgram(edge.to_executorch().buffer).run("forward", [x])
        torch.testing.assert_close(result, function(x))
    except Exception:  # it fails to lower, to load or to run, or the numbers are wrong
        return False
    return True


@pytest.mark.parametrize("quirk", QUIRKS, ids=lambda quirk: quirk.kernel)
def test_executorch_has_not_mended_it(quirk: Quirk) -> None:
    function, x = CASES[quirk.kernel]
    kept = [torch.ops.aten.linear.default] if quirk.kernel == "aten::linear" else []
    assert not _runs_right(function, x, kept), (
        f"{executorch_version()} has mended {quirk.kernel} {quirk.reason}, which was missing in "
        f"{quirk.version}: take it out of QUIRKS"
    )


def test_what_kernels_can_do_runs_right() -> None:
    """The check can say yes, with and without ops that are kept."""
    linear = [torch.ops.aten.linear.default]
    assert _runs_right(lambda x: functional.linear(x, torch.ones(3, 4)), torch.randn(2, 4), linear)
    assert _runs_right(lambda x: (x * 2).cumsum(-1), torch.randn(3), [])
