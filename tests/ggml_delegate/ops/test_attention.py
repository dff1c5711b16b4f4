"""Scaled dot-product attention, not decomposed, against eager."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.export import Dim
from torch.nn.functional import scaled_dot_product_attention as attention

from ggml_delegate import ir, preprocess
from ggml_delegate.registry import check_node
from orchestrator.native import NativeProgram
from tests.harness.ops import check_op, lower_ggml

LOWEST = torch.finfo(torch.float32).min
"""What models add to the scores of keys that do not count; without any other, these count alike."""


def _input(*sizes: int, seed: int = 0) -> Tensor:
    return torch.randn(sizes, generator=torch.Generator().manual_seed(seed))


def _qkv(
    *batch: int, queries: int, keys: int, depth: int, width: int | None = None
) -> list[Tensor]:
    return [
        _input(*batch, queries, depth, seed=1) * 2,
        _input(*batch, keys, depth, seed=2) * 2,
        _input(*batch, keys, depth if width is None else width, seed=3),
    ]


@pytest.mark.parametrize(
    ("batch", "queries", "keys", "depth"),
    [
        ((), 5, 7, 8),
        ((3,), 1, 9, 16),
        ((3,), 17, 17, 5),
        ((1, 3), 197, 197, 64),
        ((2, 2), 4, 33, 24),
        ((2, 3), 7, 5, 1),
        ((1, 2), 3, 1, 4),
        ((1, 1), 110, 700, 32),
    ],
)
def test_sizes(batch: tuple[int, ...], queries: int, keys: int, depth: int) -> None:
    def function(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        plain = attention(q, k, v)
        scaled = attention(q, k, v, scale=0.3)
        causal = attention(q, k, v, is_causal=True)
        return plain + 1, scaled, causal, attention(q, k, v[..., :1], scale=-0.1)

    check_op(function, _qkv(*batch, queries=queries, keys=keys, depth=depth))


@pytest.mark.parametrize("queries", [3, 20])
def test_masks(queries: int) -> None:
    keys, batch, heads = 21, 2, 3
    whole = _input(batch, heads, queries, keys, seed=4)

    def function(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> list[Tensor]:
        floats = [
            mask,
            mask[0, 0],
            mask[:, :1],
            mask[:, :1, :1],
            mask[:, :, :, :1],
            torch.relu(mask).transpose(2, 3).contiguous().transpose(2, 3),
        ]
        return [attention(q, k, v, attn_mask=m) for m in floats]

    q, k, v = _qkv(batch, heads, queries=queries, keys=keys, depth=12)
    check_op(function, [q, k, v, whole])

    def selected(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> list[Tensor]:
        masks = [mask, mask[0, 0], mask[:, :1, :1]]
        return [attention(q, k, v, attn_mask=m) for m in masks]

    keep = whole > -0.5
    keep[1, 0, 0] = False  # this query sees no key: 0
    check_op(selected, [q, k, v, keep])
    minus_infinity = torch.zeros(whole.shape).masked_fill(~keep, -torch.inf)
    check_op(lambda *inputs: attention(*inputs), [q, k, v, minus_infinity])


def _band(queries: int, keys: int, start: int, reach: int | None) -> Tensor:
    """Which keys queries see: query i stands at start + i and sees `reach` keys up to there."""
    places, at = torch.arange(keys), torch.arange(start, start + queries)[:, None]
    seen = places <= at
    return seen if reach is None else seen & (places > at - reach)


@pytest.mark.parametrize(
    ("queries", "keys", "start", "reach"),
    [
        (1, 300, 0, None),  # a cache with one row in it
        (1, 300, 17, None),
        (1, 301, 299, 40),
        (4, 257, 64, 33),
        (5, 257, 0, None),
        (40, 400, 100, None),
        (40, 333, 200, 16),
        (130, 700, 3, 100),
        (33, 65, 32, 1),
    ],
)
@pytest.mark.parametrize("as_floats", [False, True])
def test_keys_behind_a_mask_do_not_count(
    queries: int, keys: int, start: int, reach: int | None, as_floats: bool
) -> None:
    keep = _band(queries, keys, start, reach)
    mask = torch.zeros(keep.shape).masked_fill(~keep, -torch.inf) if as_floats else keep
    q = _input(2, 4, queries, 20, seed=1)
    k, v = (_input(2, 2, keys, 20, seed=seed) for seed in (2, 3))

    def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> list[Tensor]:
        grouped = attention(q, k, v, attn_mask=mask, enable_gqa=True)
        single = attention(q[:, :2], k, v[..., :3], attn_mask=mask[None, None])
        return [grouped, single]

    check_op(attend, [q, k, v, mask])


@pytest.mark.parametrize("queries", [3, 40])
@pytest.mark.parametrize("hidden", [None, [-torch.inf], [LOWEST], [LOWEST, -torch.inf]])
def test_masks_that_hide_other_keys_from_each_head(
    queries: int, hidden: list[float] | None
) -> None:
    """Rows, heads and batches differ in what they see; some see nothing, or all keys alike.

    hidden: what is added to the scores of keys that are not seen, in turn; None: a bool mask.
    """
    batch, heads, keys = 2, 6, 210
    keep = torch.zeros(batch, heads, queries, keys, dtype=torch.bool)
    for b in range(batch):
        for h in range(heads):
            keep[b, h] = _band(queries, keys, 23 * h + 11 * b, 5 + 9 * h)
    keep[0, 1] = False
    keep[1, 0, : queries // 2] = False
    keep[1, 4, :, 37::3] = False
    mask = keep
    if hidden is not None:
        added = torch.tensor(hidden).repeat(keys)[:keys]
        mask = torch.where(keep, torch.zeros(()), added)
    q = _input(batch, heads, queries, 16, seed=1)
    k, v = (_input(batch, 3, keys, 16, seed=seed) for seed in (2, 3))

    def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> list[Tensor]:
        return [
            attention(q, k, v, attn_mask=mask, enable_gqa=True),
            attention(q[:, ::2], k, v, attn_mask=mask[:, :1]),
            attention(q[:, ::2], k, v, attn_mask=mask[:1, :1, :1]),
        ]

    check_op(attend, [q, k, v, mask])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("queries", [1, 20])
def test_hidden_keys_of_half_types(dtype: torch.dtype, queries: int) -> None:
    keep = _band(queries, 150, 50, 30)
    mask = torch.zeros(keep.shape).masked_fill(~keep, -torch.inf).to(dtype)
    q, k, v = (x.to(dtype) for x in _qkv(1, 2, queries=queries, keys=150, depth=16))
    check_op(lambda *inputs: attention(*inputs), [q, k, v, mask], rtol=2e-2)


@pytest.mark.parametrize("queries", [1, 20])
@pytest.mark.parametrize("added", [None, -torch.inf, LOWEST, torch.finfo(torch.bfloat16).min])
def test_what_lies_behind_a_mask_is_not_read(queries: int, added: float | None) -> None:
    """The rows of a cache that nothing wrote yet may hold anything."""
    keep = _band(queries, 200, 100, 40)
    mask = keep if added is None else torch.zeros(keep.shape).masked_fill(~keep, added)
    q, k, v = _qkv(1, 2, queries=queries, keys=200, depth=16)
    clean = attention(q, k, v, attn_mask=keep)
    hidden = ~keep.any(0)
    hidden[48:64] = False  # a vector of keys is read whole
    k[..., hidden, :], v[..., hidden, :] = torch.nan, torch.inf

    class Model(torch.nn.Module):
        def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
            return attention(q, k, v, attn_mask=mask)

    program, _, _ = lower_ggml(Model(), (q, k, v, mask))
    (result,) = NativeProgram(program.buffer).run("forward", [q, k, v, mask])
    torch.testing.assert_close(result, clean, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("queries", [3, 20, 300])
def test_a_mask_of_all_queries_that_look_back(
    monkeypatch: pytest.MonkeyPatch, queries: int
) -> None:
    """The first ones see low keys alone, which the later ones do not see at all."""
    serialize = ir.serialize

    def as_causal(program: Any) -> bytes:
        (node,) = (node for node in program.nodes if ir.op_name(node) == "Attention")
        node.op.causal = True
        return serialize(program)

    class Model(torch.nn.Module):
        def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
            return attention(q, k, v, attn_mask=mask)

    monkeypatch.setattr(preprocess.ir, "serialize", as_causal)
    q, k, v = _qkv(1, 2, queries=queries, keys=queries, depth=8)
    padding = torch.zeros(1, 1, 1, queries)
    padding[..., : queries * 3 // 4] = LOWEST
    program, _, _ = lower_ggml(Model(), (q, k, v, padding))
    (result,) = NativeProgram(program.buffer).run("forward", [q, k, v, padding])
    later = torch.ones(queries, queries, dtype=torch.bool).triu(1)
    expected = attention(q, k, v, attn_mask=padding.masked_fill(later, -torch.inf))
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("queries", [1, 20])
def test_a_mask_that_is_not_a_number(queries: int) -> None:
    """NaN hides no key: the row's result is NaN."""
    keep = _band(queries, 90, 40, None)
    mask = torch.zeros(keep.shape).masked_fill(~keep, -torch.inf)
    mask[0, 80] = torch.nan
    inputs = [*_qkv(1, 2, queries=queries, keys=90, depth=8), mask]
    check_op(lambda *x: attention(*x), inputs, may_be_constant=True)


@pytest.mark.parametrize("queries", [2, 30])
def test_heads_that_share_keys_and_values(queries: int) -> None:
    def function(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        return (
            attention(q, k, v, is_causal=True, enable_gqa=True),
            attention(q, k[:, :1], v[:, :1], enable_gqa=True),
            attention(q[0], k[0], v[0], enable_gqa=True),
        )

    q = _input(2, 6, queries, 16)
    check_op(function, [q, *_qkv(2, 2, queries=1, keys=30, depth=16)[1:]])


class _Block(torch.nn.Module):
    """Attention as models write it, with the projections in one product or in three."""

    def __init__(self, width: int, heads: int, *, fused: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.heads, self.fused = heads, fused
        self.q = torch.nn.Linear(width, width * (3 if fused else 1))
        self.k = torch.nn.Linear(width, width)
        self.v = torch.nn.Linear(width, width)
        self.out = torch.nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        if self.fused:
            qkv = self.q(x).reshape(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
            q, k, v = qkv.unbind(0)
        else:
            shape = (batch, length, self.heads, width // self.heads)
            q, k, v = (f(x).view(shape).transpose(1, 2) for f in (self.q, self.k, self.v))
        y = attention(q, k, v).transpose(1, 2).reshape(batch, length, width)
        return self.out(y)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("batch", [1, 3])
def test_within_a_transformer(batch: int, fused: bool) -> None:
    check_op(_Block(24, 3, fused=fused), [_input(batch, 19, 24) * 3])


@pytest.mark.parametrize("repeated", [0, 1, 2])
def test_an_operand_with_repeated_elements(repeated: int) -> None:
    """Found by fuzzing a product: repeated elements were read as neighbours."""
    operands = _qkv(2, 3, queries=4, keys=6, depth=8)
    operands[repeated] = operands[repeated][..., :1].contiguous()

    def attend(*operands: Tensor) -> Tensor:
        return attention(*(x.expand(*x.shape[:-1], 8) for x in operands))

    check_op(attend, tuple(operands))


def test_dynamic_sizes() -> None:
    n, t = Dim("n", min=1, max=4), Dim("t", min=2, max=300)
    check_op(
        _Block(24, 3, fused=True),
        [_input(2, 9, 24)],
        dynamic_shapes=({0: n, 1: t},),
        more_inputs=[[_input(1, 2, 24)], [_input(4, 150, 24)], [_input(1, 300, 24)]],
    )


def _reason(function: Callable[..., Tensor], inputs: list[Tensor]) -> str | None:
    """What the rule says of the attention in a program that is not lowered yet."""

    class Model(torch.nn.Module):
        def forward(self, *args: Tensor) -> Tensor:
            return function(*args)

    program = torch.export.export(Model(), tuple(inputs))
    (node,) = (n for n in program.graph.nodes if "attention" in str(n.target))
    return check_node(node, program)


def test_refusals() -> None:
    qkv = _qkv(2, 3, queries=5, keys=5, depth=4)
    cases = {
        "sizes that differ or are repeated": lambda q, k, v: attention(q, k[:1], v[:1]),
        "attention over rank 5": lambda q, k, v: attention(q[None], k[None], v[None]),
        "attention with dropout": lambda q, k, v: attention(q, k, v, dropout_p=0.5),
    }
    for reason, function in cases.items():
        assert reason in (_reason(function, qkv) or "")
    assert _reason(attention, qkv) is None


def test_what_is_refused_whole_runs_decomposed() -> None:
    check_op(
        lambda q, k, v: torch.relu(attention(q, k[:1], v[:1])),
        _qkv(2, 3, queries=5, keys=5, depth=4),
    )
