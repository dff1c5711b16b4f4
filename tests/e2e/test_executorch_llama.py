"""The transformer of ExecuTorch's own examples for LLMs, as its export script sets it up."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from executorch.examples.models.llama.llama_transformer import construct_transformer
from executorch.examples.models.llama.model_args import ModelArgs
from executorch.examples.models.llama.source_transformation.custom_kv_cache import (
    replace_kv_cache_with_custom_kv_cache,
)
from executorch.examples.models.llama.source_transformation.sdpa import replace_sdpa_with_custom_op
from executorch.exir._serialize._program import deserialize_pte_binary
from torch import Tensor, nn
from torch.export import Dim, export

from orchestrator import lower

ROOM = 32


def _transformer(dynamic: bool, custom_ops: bool) -> nn.Module:
    sizes = ModelArgs(
        dim=64,
        n_layers=2,
        n_heads=4,
        n_kv_heads=2,
        vocab_size=100,
        hidden_dim=128,
        max_seq_len=ROOM,
        max_context_len=ROOM,
        max_batch_size=1,
        use_kv_cache=True,
        enable_dynamic_shape=dynamic,
        generate_full_logits=True,
    )
    model: nn.Module = construct_transformer(sizes).eval()
    if custom_ops:
        model = replace_sdpa_with_custom_op(replace_kv_cache_with_custom_kv_cache(model))
    return model


def _inputs(tokens: list[int], place: int) -> tuple[Tensor, dict[str, Tensor]]:
    return torch.tensor([tokens]), {"input_pos": torch.tensor([place])}


@pytest.mark.parametrize("custom_ops", [False, True], ids=["aten", "custom ops"])
@pytest.mark.parametrize("dynamic", [False, True], ids=["one token", "dynamic"])
def test_ggml_takes_it_whole_with_caches_in_place(dynamic: bool, custom_ops: bool) -> None:
    model = _transformer(dynamic, custom_ops)
    example = _inputs([1, 2, 3, 4] if dynamic else [1], 0)
    shapes: Any = ({1: Dim("n", min=1, max=ROOM - 1)}, {"input_pos": {0: None}})
    with torch.no_grad():
        exported = export(copy.deepcopy(model), example, dynamic_shapes=shapes if dynamic else None)
    program = lower(exported, backends=["ggml"], tune="off", strategy="greedy")
    (plan,) = deserialize_pte_binary(program.buffer).program.execution_plan
    assert len(plan.delegates) == 1
    assert {operator.name for operator in plan.operators} <= {"aten::sym_size"}
    place = 0
    for tokens in [[5, 6, 7, 8, 9], [1], [2], [3, 4]] if dynamic else [[i] for i in range(6)]:
        call = _inputs(tokens, place)
        place += len(tokens)
        with torch.no_grad():
            torch.testing.assert_close(program(*call), model(*call), rtol=1e-5, atol=1e-5)
