"""The passes that ExecuTorch's delegate runs over what it is given: ours before, some not at all.

To look for patterns, some of its own export models to have the patterns: seconds, once in a
process, more than all else that it does to most programs, and there can be none in most.
"""

from __future__ import annotations

import functools
import inspect
import operator
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from unittest import mock

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
from orchestrator.frontend.shared_patches import SharedPatches
from orchestrator.versions import digest_of, is_known_executorch

PATTERN_OPS: dict[type[PassBase], object] = {
    ConvertToSDPAPass: exir_ops.edge.aten.any.dim,  # whether a mask leaves any key
    ConvertToUpsampleBilinear2d: exir_ops.edge.aten.upsample_bilinear2d.vec,
}
"""By pass, an op that each of its patterns has, the rarest one."""


_FIRST: Mapping[type[PassBase], Callable[[Any], bool]] = {
    ExpandOps: is_expanded,
    SplitQuantizedImages: functools.partial(operator.eq, QUANTIZE),
}
"""Our passes, in order, and the ops without which each changes nothing."""


def passes_digest() -> str:
    """Return a digest of our passes and of this module, which says what runs and what does not."""
    files = (inspect.getfile(kind) for kind in _FIRST)
    return digest_of([Path(__file__), *map(Path, files)])


def run_where_needed() -> None:
    """Have passes run only on graphs with the ops that they change or have in their patterns."""
    for kind, op in PATTERN_OPS.items():
        changes_only(kind, functools.partial(operator.eq, op))
    for kind, changes in _FIRST.items():
        changes_only(kind, changes)


def run_ours_first() -> None:
    """Have the delegate's passes start with ours from now on, in the version that was read.

    ExecuTorch runs them after a partitioner has returned. In another version nothing is patched,
    and no op is taken that ours would have to expand (`is_expandable`).
    """
    _OURS_FIRST.keep()


def _patches() -> Iterator[AbstractContextManager[Any]]:
    if is_known_executorch():
        init = XNNPACKPassManager.__init__
        yield mock.patch.object(XNNPACKPassManager, "__init__", _ours_first(init))


def _ours_first(init: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(init)
    def ours_first(self: Any, exported_program: ExportedProgram, passes: Any = None) -> None:
        init(self, exported_program, passes)
        self.passes = [*_FIRST, *self.passes]

    return ours_first


_OURS_FIRST = SharedPatches(_patches)
