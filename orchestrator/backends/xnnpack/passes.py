"""The passes that ExecuTorch's delegate runs over what it is given: ours before, some not at all.

To look for patterns, some of its own export models to have the patterns: seconds, once in a
process, more than all else that it does to most programs, and there can be none in most.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping
from typing import Any

from executorch.backends.xnnpack._passes import XNNPACKPassManager
from executorch.backends.xnnpack._passes.convert_to_sdpa import ConvertToSDPAPass
from executorch.backends.xnnpack._passes.convert_to_upsample_bilinear2d import (
    ConvertToUpsampleBilinear2d,
)
from executorch.exir.dialects._ops import ops as exir_ops
from torch.export import ExportedProgram
from torch.fx.passes.infra.pass_base import PassBase

from orchestrator.backends.xnnpack.expansions import ExpandOps, is_expanded
from orchestrator.backends.xnnpack.pointwise import QUANTIZE, SplitQuantizedImages
from orchestrator.frontend.pass_speed import changes_only

PATTERN_OPS: dict[type[PassBase], object] = {
    ConvertToSDPAPass: exir_ops.edge.aten.any.dim,  # whether a mask leaves any key
    ConvertToUpsampleBilinear2d: exir_ops.edge.aten.upsample_bilinear2d.vec,
}
"""By pass, an op that each of its patterns has, the rarest one."""


def spare_patterns() -> None:
    """Have these passes run only on graphs with the ops of their patterns."""
    for kind, op in PATTERN_OPS.items():
        changes_only(kind, functools.partial(operator.eq, op))


_FIRST: Mapping[type[PassBase], Callable[[Any], bool]] = {
    ExpandOps: is_expanded,
    SplitQuantizedImages: functools.partial(operator.eq, QUANTIZE),
}
"""Our passes, in order, and the ops without which each changes nothing."""


def run_ours_first() -> None:
    """Have the delegate's passes start with ours."""
    for kind, changes in _FIRST.items():
        changes_only(kind, changes)
    XNNPACKPassManager.__init__ = _ours_first(XNNPACKPassManager.__init__)


def _ours_first(init: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(init)
    def ours_first(self: Any, exported_program: ExportedProgram, passes: Any = None) -> None:
        init(self, exported_program, passes)
        self.passes = [*_FIRST, *self.passes]

    return ours_first
