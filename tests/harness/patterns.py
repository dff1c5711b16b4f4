"""Quantizing is most of what tests of quantized models take: it exports the same patterns anew."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from torch.fx import GraphModule


@contextlib.contextmanager
def exported_once() -> Iterator[None]:
    """Inside, XNNPACK's quantizer exports each of its patterns once in the process.

    They are convolutions with batch norms, which it looks for in every model: nine tenths of the
    time of `prepare_pt2e` for a small one. What is quantized, and how, stays the same.
    """
    from executorch.backends.xnnpack.quantizer import xnnpack_quantizer_utils as utils

    name = "_get_aten_graph_module_for_pattern"
    with mock.patch.object(utils, name, _Patterns(getattr(utils, name))):
        yield


class _Patterns:
    def __init__(self, export: Callable[..., GraphModule]) -> None:
        self._export = export
        self._known: dict[Any, GraphModule] = {}

    def __call__(self, pattern: Any, inputs: tuple[torch.Tensor, ...], *more: Any) -> GraphModule:
        function = pattern.fn  # a closure over the ops that the pattern is made of
        variables = tuple(cell.cell_contents for cell in function.__closure__ or ())
        sizes = tuple((tuple(each.shape), each.dtype) for each in inputs)
        key = (function.__code__, variables, sizes, more)
        if key not in self._known:
            self._known[key] = self._export(pattern, inputs, *more)
        return copy.deepcopy(self._known[key])
