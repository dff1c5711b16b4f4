"""Quantizing is most of what tests of quantized models take: it exports the same patterns anew."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from torch.fx import GraphModule
from torchao.quantization.pt2e import qat_utils

_EXPORT, _FOLD = "_get_aten_graph_module_for_pattern", "_fold_conv_bn_qat_helper"


@contextlib.contextmanager
def exported_once() -> Iterator[None]:
    """Inside, XNNPACK's quantizer exports each of its patterns once in the process.

    They are convolutions with batch norms, which it looks for in every model: nine tenths of the
    time of `prepare_pt2e` for a small one. `convert_pt2e` exports more than ninety of another kind
    for every model with a batch norm, but only where the model may have what they match. What is
    quantized, and how, stays the same.
    """
    from executorch.backends.xnnpack.quantizer import xnnpack_quantizer_utils as utils

    with (
        mock.patch.object(utils, _EXPORT, _Patterns(getattr(utils, _EXPORT))),
        mock.patch.object(qat_utils, _FOLD, _where_trained(getattr(qat_utils, _FOLD))),
    ):
        yield


def _where_trained(fold: Callable[..., GraphModule]) -> Callable[..., GraphModule]:
    """`_fold_conv_bn_qat_helper`, looking for nothing in models that were not trained quantized.

    All that it looks for divides by a batch norm's scale, as models do that are prepared for it.
    """

    def folded(module: GraphModule, *more: Any, **named: Any) -> GraphModule:
        if any(node.target is torch.ops.aten.div.Tensor for node in module.graph.nodes):
            return fold(module, *more, **named)
        with (
            mock.patch.object(qat_utils, _EXPORT, lambda *_, **__: None),
            mock.patch.object(qat_utils, "replace_pattern_with_filters", lambda *_, **__: []),
        ):
            return fold(module, *more, **named)

    return folded


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
