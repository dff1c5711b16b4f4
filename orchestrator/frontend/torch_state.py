"""What holds around everything that exports, plans or lowers."""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Iterable, Iterator

import torch
from torch.export import ExportedProgram

from orchestrator.frontend.dynamic_sizes import dynamic_sizes_kept
from orchestrator.frontend.torch_speed import repeated_work_spared

# torch.export and ExecuTorch's passes keep state in globals: whether somebody exports, what a node
# that is made was made from, filters of warnings. Each puts back what it found, which is another
# thread's state where two overlap. So one thread at a time; nested uses in one thread are fine.
ONE_AT_A_TIME = threading.RLock()


@contextlib.contextmanager
def as_in_lowering(programs: Iterable[ExportedProgram]) -> Iterator[None]:
    """Inside, programs are passed on to ExecuTorch and planned; other threads wait meanwhile."""
    with (
        ONE_AT_A_TIME,
        # ExecuTorch re-runs the graph's in-place updates of buffers, which autograd would refuse.
        torch.no_grad(),
        warnings.catch_warnings(),
        repeated_work_spared(),
        dynamic_sizes_kept(programs),
    ):
        # Raised inside torch when executorch copies a program.
        warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)
        # `lower` sees to it that the .pte holds what buffers contain.
        warnings.filterwarnings("ignore", message="Mutation on a buffer")
        yield
