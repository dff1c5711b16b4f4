"""Caches of half types: written and read where they lie, and widened for ops that need floats."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.export import export

from orchestrator import LoweredProgram, lower

ROWS, HEADS, GROUPS, DEPTH = 70, 4, 2, 20
WIDTH = HEADS * DEPTH
STEP = {torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}


class _Cached(nn.Module):
    """Attention over caches.

    as_rows: caches are [1, rows, groups, depth], and heads are read across. Else they are
    [1, groups, rows, depth]. repeated: each group is read once per head, as Hugging Face's models
    write it.
    """

    def __init__(self, as_rows: bool = False, repeated: bool = False) -> None:
        super().__init__()
        self.as_rows, self.repeated = as_rows, repeated
        self.project = nn.Linear(WIDTH, WIDTH + 2 * GROUPS * DEPTH)
        sizes = (1, ROWS, GROUPS, DEPTH) if as_rows else (1, GROUPS, ROWS, DEPTH)
        self.register_buffer("keys", torch.zeros(sizes))
        self.register_buffer("values", torch.zeros(sizes))

    def forward(self, x: Tensor, at: Tensor) -> Tensor:
        count = x.shape[1]
        q, k, v = self.project(x).split([WIDTH, GROUPS * DEPTH, GROUPS * DEPTH], -1)
        q = q.view(1, count, HEADS, DEPTH).transpose(1, 2)
        k, v = (each.view(1, count, GROUPS, DEPTH) for each in (k, v))
        if self.as_rows:
            self.keys[:, at], self.values[:, at] = k, v
            k, v = self.keys.transpose(1, 2), self.values.transpose(1, 2)
        else:
            self.keys[:, :, at], self.values[:, :, at] = k.transpose(1, 2), v.transpose(1, 2)
            k, v = self.keys, self.values
        if self.repeated:
            k, v = (
                each[:, :, None]
                .expand(1, GROUPS, HEADS // GROUPS, ROWS, DEPTH)
                .reshape(1, HEADS, ROWS, DEPTH)
                for each in (k, v)
            )
        seen = torch.arange(ROWS) <= at[:, None]
        y = nn.functional.scaled_dot_product_attention(
            q, k, v, attn_mask=seen, enable_gqa=not self.repeated
        )
        return y.transpose(1, 2).reshape(1, count, WIDTH)


class _Read(_Cached):
    """Ops that read floats, of the whole cache, a part, and across, beside the attention."""

    def forward(self, x: Tensor, at: Tensor) -> Tensor:
        y = super().forward(x, at)
        return y + self.keys.mean() + self.values[:, 1, 3:9, 1].sum() * self.keys.mT[0, 0, 3, :1]


class _Kept(nn.Module):
    """Rows that are returned, and written by a copy of numbers alone: given ones, and constants."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("rows", torch.zeros(ROWS, 5))
        self.register_buffer("fixed", torch.randn(2, 5))

    def forward(self, x: Tensor, at: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        self.rows[at] = x[0, :, :5]
        self.rows[torch.tensor([7, 2])] = self.fixed
        return self.rows.view(5, ROWS), self.rows[at], torch.cat([self.rows[3:5], x[0, :, :5]])


MODELS = {
    "groups": lambda: _Cached(),
    "rows": lambda: _Cached(as_rows=True),
    "repeated": lambda: _Cached(repeated=True),
    "read": lambda: _Read(),
    "kept": lambda: _Kept(),
}
COUNTS = (1, 6)


def _inputs(first: int, count: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(first)
    x = torch.randn(1, count, WIDTH, generator=generator)
    return x.to(dtype), torch.arange(first, first + count)


@pytest.fixture(scope="module", params=list(STEP), ids=str)
def lowered(request: pytest.FixtureRequest) -> tuple[LoweredProgram, dict[str, nn.Module]]:
    """A method per model and count of rows, each with caches of its own; and the models."""
    torch.manual_seed(0)
    models = {
        f"{name}_{count}": make().eval().to(request.param)
        for name, make in MODELS.items()
        for count in COUNTS
    }
    methods = {
        name: export(copy.deepcopy(model), _inputs(0, int(name[-1]), request.param))
        for name, model in models.items()
    }
    program = lower(methods, backends=["ggml"], share_buffers=False, tune="off")
    return program, models


def test_steps_are_those_of_eager(lowered: tuple[LoweredProgram, dict[str, nn.Module]]) -> None:
    program, models = lowered
    for name, model in models.items():
        assert [each.backend for each in program.plan[name].partitions] == ["ggml"], name
        count = int(name[-1])
        dtype = next(model.buffers()).dtype
        for first in (0, count, 40):
            if first == 40:
                # An index outside is an error, and leaves the caches as they were.
                with pytest.raises(RuntimeError):
                    program(*_inputs(ROWS - count + 1, count, dtype), method=name)
            inputs = _inputs(first, count, dtype)
            with torch.no_grad():
                wanted = torch.utils._pytree.tree_leaves(model(*inputs))
            found = torch.utils._pytree.tree_leaves(program(*inputs, method=name))
            for got, want in zip(found, wanted, strict=True):
                assert got.dtype == want.dtype == dtype
                error = (got.float() - want.float()).abs().max() / want.float().abs().max()
                exact = isinstance(model, _Kept)
                assert error <= (0 if exact else 4 * STEP[dtype]), f"{name} from {first}: {error}"
