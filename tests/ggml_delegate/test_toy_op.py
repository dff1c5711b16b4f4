"""The op of docs/adding-an-op.md."""

from __future__ import annotations

import math

import pytest
import torch

from ggml_delegate import ir, registry
from ggml_delegate.builder import Builder
from ggml_delegate.node_view import NodeView
from ggml_delegate.reasons import Reason
from ggml_delegate.registry import OpRule, register, rules
from tests.harness.ops import check_op


class RadiansRule(OpRule):
    """aten.deg2rad."""

    targets = ("aten.deg2rad.default",)
    preserve = ("aten.deg2rad.default",)

    def check(self, node: NodeView) -> Reason | None:
        return None if node.rank(0) <= 4 else Reason("rank", "radians of rank 5 or more")

    def lower(self, node: NodeView, builder: Builder) -> None:
        factor = builder.constant(torch.tensor([math.pi / 180]))
        x = builder.value(node.node(0))
        builder.emit(ir.Binary(kind=ir.BinaryKind.Mul), [x, factor], node.fx)


@pytest.fixture
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_RULES", dict(rules()))
    register(RadiansRule)


@pytest.mark.usefixtures("_registered")
class TestRadians:
    def test_it_is_computed(self) -> None:
        check_op(torch.deg2rad, [torch.randn(2, 3, 5)])

    def test_what_it_refuses_is_decomposed(self) -> None:
        check_op(torch.deg2rad, [torch.randn(1, 2, 1, 2, 3)])

    def test_another_rule_for_the_same_op_is_an_error(self) -> None:
        with pytest.raises(ValueError, match=r"aten\.deg2rad\.default has two rules"):
            register(RadiansRule)
