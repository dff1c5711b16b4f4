"""What is looked up about ops once is what torch and ExecuTorch would find each time."""

from __future__ import annotations

import pytest
import torch
from executorch.exir.program import _program
from torch.library import Library, impl

from orchestrator.frontend.torch_speed import repeated_work_spared


class _Composites(torch.nn.Module):
    """Composite ops, of which some are kept and one is decomposed by the test's own rule."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = torch.nn.Conv2d(3, 4, 3), torch.nn.LayerNorm(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.nn.functional.silu(self.conv(x)).flatten(2).transpose(1, 2)
        y = torch.nn.functional.scaled_dot_product_attention(y, y, self.norm(y))
        return torch.nn.functional.pixel_shuffle(y[:, :4, None], 1).square().mean()


def _decomposed(kept: tuple[torch._ops.OpOverload, ...]) -> str:
    program = torch.export.export(_Composites().eval(), (torch.ones(1, 3, 6, 6),))
    table = torch.export.default_decompositions()
    for op in kept:
        table.pop(op)
    return str(program.run_decompositions(table).graph)


def test_composite_ops_are_handled_as_torch_does() -> None:
    aten = torch.ops.aten
    kept = (
        (),
        (aten.silu.default,),
        (aten.scaled_dot_product_attention.default, aten.linear.default),
    )
    expected = [_decomposed(ops) for ops in kept]
    assert len(set(expected)) == len(kept)
    with repeated_work_spared():
        for _ in range(2):
            assert [_decomposed(ops) for ops in kept] == expected
    assert [_decomposed(ops) for ops in kept] == expected


def test_composite_ops_are_left_as_they_were() -> None:
    from torch._export.utils import _collect_all_valid_cia_ops
    from torch._subclasses.fake_impls import op_implementations_dict

    _decomposed(())  # torch itself forgets some rules for fake tensors the first time
    ops = _collect_all_valid_cia_ops()
    before = {op: dict(op.py_kernels) for op in ops}, set(op_implementations_dict)
    with repeated_work_spared():
        _decomposed((torch.ops.aten.silu.default,))
        with pytest.raises(RuntimeError, match="stop"), repeated_work_spared():
            raise RuntimeError("stop")
        _decomposed(())
    assert ({op: dict(op.py_kernels) for op in ops}, set(op_implementations_dict)) == before


def test_ops_that_are_registered_later_are_found() -> None:
    def composites() -> set[str]:
        with repeated_work_spared():
            return {str(op) for op in torch.export.default_decompositions() if "later" in str(op)}

    assert composites() == set()
    library = Library("known_ops_test", "DEF")
    library.define("later(Tensor x) -> Tensor")
    impl(library, "later", "CompositeImplicitAutograd")(lambda x: x + 1)
    assert composites() == {"known_ops_test.later.default"}


def test_tables_may_be_changed() -> None:
    silu = torch.ops.aten.silu.default
    expected = _program._default_decomposition_table()
    with repeated_work_spared():
        for _ in range(2):
            table = _program._default_decomposition_table()
            assert set(table.keys()) == set(expected.keys())
            assert table.pop(silu) is not None
            table[torch.ops.aten.relu.default] = torch.relu
        assert silu in _program._default_decomposition_table()


def test_ops_whose_preservation_is_asked_for_are_sifted_alike() -> None:
    aten = torch.ops.aten
    ops = [aten.linear.default, aten.view.default, aten.add_.Tensor, aten.upsample_nearest2d.vec]
    expected = _program._remove_invalid_ops_for_not_decompose(ops)
    assert expected == [aten.linear.default, aten.upsample_nearest2d.vec]
    with repeated_work_spared():
        for _ in range(2):
            assert _program._remove_invalid_ops_for_not_decompose(ops) == expected
