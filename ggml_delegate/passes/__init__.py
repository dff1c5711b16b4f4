"""Graph rewrites that help every backend, applied to a program before it is partitioned."""

from __future__ import annotations

from collections.abc import Callable

from torch.export import ExportedProgram

from ggml_delegate.passes.copy_attention_results import copy_attention_results
from ggml_delegate.passes.decompose_custom import decompose_custom
from ggml_delegate.passes.dense_constants import dense_constants
from ggml_delegate.passes.flatten_nonzero import flatten_nonzero
from ggml_delegate.passes.flatten_volumes import flatten_volumes
from ggml_delegate.passes.fold_batch_norm import (
    FoldNote,
    FoldResult,
    fold_batch_norm,
    fold_batch_norm_with_notes,
)
from ggml_delegate.passes.fold_constants import expand_weights, fold_constants
from ggml_delegate.passes.keep_pooled_dims import keep_pooled_dims
from ggml_delegate.passes.own_constants import own_constants
from ggml_delegate.passes.own_dequantizes import own_dequantizes
from ggml_delegate.passes.plain_results import plain_results
from ggml_delegate.passes.quantize_embeddings import quantize_embeddings
from ggml_delegate.passes.remainders import modulo_of_sizes
from ggml_delegate.passes.remove_dropout import remove_dropout
from ggml_delegate.passes.settle_sizes import settle_sizes
from ggml_delegate.passes.sort_by_topk import sort_by_topk
from ggml_delegate.passes.spell_out_alpha import spell_out_alpha
from ggml_delegate.passes.unwrap_subclasses import unwrap_subclasses
from ggml_delegate.passes.write_out import write_out

Pass = Callable[[ExportedProgram], ExportedProgram]

PASSES: tuple[Pass, ...] = (
    unwrap_subclasses,
    settle_sizes,
    remove_dropout,
    write_out,
    modulo_of_sizes,
    flatten_nonzero,
    sort_by_topk,
    spell_out_alpha,
    flatten_volumes,
    quantize_embeddings,
    fold_constants,
    fold_batch_norm,
    own_constants,
    own_dequantizes,
    dense_constants,
    keep_pooled_dims,
    copy_attention_results,
    plain_results,
)
"""All passes in the order in which they run: dropout may stand between a layer and BatchNorm, and
a layer's weight may be computed. What is written out may be a sort. Constants that passes make are
computed where they come before."""


def apply_passes(program: ExportedProgram) -> ExportedProgram:
    """Runs `PASSES` over an ATen-dialect program and returns the result.

    `program` is left as it was.
    """
    for rewrite in PASSES:
        program = rewrite(program)
    return program


__all__ = [
    "PASSES",
    "FoldNote",
    "FoldResult",
    "Pass",
    "apply_passes",
    "copy_attention_results",
    "decompose_custom",
    "dense_constants",
    "expand_weights",
    "flatten_nonzero",
    "flatten_volumes",
    "fold_batch_norm",
    "fold_batch_norm_with_notes",
    "fold_constants",
    "keep_pooled_dims",
    "modulo_of_sizes",
    "own_constants",
    "own_dequantizes",
    "plain_results",
    "quantize_embeddings",
    "remove_dropout",
    "settle_sizes",
    "sort_by_topk",
    "spell_out_alpha",
    "unwrap_subclasses",
    "write_out",
]
