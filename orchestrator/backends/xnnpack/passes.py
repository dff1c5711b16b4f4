"""Passes of the delegate that look for patterns, where there can be none.

To have the patterns it exports models of its own: seconds, once in a process, more than all else
that it does to most programs.
"""

from __future__ import annotations

import functools
import operator

from executorch.backends.xnnpack._passes.convert_to_sdpa import ConvertToSDPAPass
from executorch.backends.xnnpack._passes.convert_to_upsample_bilinear2d import (
    ConvertToUpsampleBilinear2d,
)
from executorch.exir.dialects._ops import ops as exir_ops
from torch.fx.passes.infra.pass_base import PassBase

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
