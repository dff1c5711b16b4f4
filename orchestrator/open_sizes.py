"""Keeps the sizes that a model was exported with open as they are while it is lowered."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

from torch.export import ExportedProgram


@contextlib.contextmanager
def open_sizes_kept(programs: Iterable[ExportedProgram]) -> Iterator[None]:
    """Inside, no pass narrows what a size may be.

    Passes compute with fake tensors, and some ops' fake versions ask about sizes (a convolution,
    whether a batch is below 16). PyTorch takes the answer for the example's size as a condition
    from then on, and the program would take no other batch. What has to be asked was asked, and
    written into the program, when it was exported.
    """
    values = [node.meta.get("val") for each in programs for node in each.graph.nodes]
    modes = [getattr(value, "fake_mode", None) for value in values]
    envs = {id(mode.shape_env): mode.shape_env for mode in modes if mode and mode.shape_env}
    with contextlib.ExitStack() as stack:
        for env in envs.values():
            stack.enter_context(env.suppress_guards())
        yield
