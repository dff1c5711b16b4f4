"""Graph rewrites that help every backend, applied to a program before it is partitioned."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch.export import ExportedProgram

from ggml_delegate.copy_attention_results import copy_attention_results
from orchestrator.frontend.passes.cache_ops import write_out_cache_ops
from orchestrator.frontend.passes.decompose_custom import decompose_custom
from orchestrator.frontend.passes.dense_constants import dense_constants
from orchestrator.frontend.passes.flatten_nonzero import flatten_nonzero
from orchestrator.frontend.passes.flatten_volumes import flatten_volumes
from orchestrator.frontend.passes.fold_batch_norm import (
    FoldNote,
    FoldResult,
    fold_batch_norm,
    fold_batch_norm_with_notes,
)
from orchestrator.frontend.passes.fold_constants import expand_weights, fold_constants
from orchestrator.frontend.passes.half_numbers import half_numbers
from orchestrator.frontend.passes.keep_pooled_dims import keep_pooled_dims
from orchestrator.frontend.passes.moving_parts import place_moving_parts
from orchestrator.frontend.passes.own_constants import own_constants
from orchestrator.frontend.passes.own_dequantizes import own_dequantizes
from orchestrator.frontend.passes.plain_results import plain_results
from orchestrator.frontend.passes.quantize_embeddings import (
    TablesTaken,
    no_tables,
    quantize_embeddings,
)
from orchestrator.frontend.passes.remainders import modulo_of_sizes
from orchestrator.frontend.passes.remove_asserts import remove_asserts
from orchestrator.frontend.passes.remove_conversions import remove_conversions
from orchestrator.frontend.passes.remove_dropout import remove_dropout
from orchestrator.frontend.passes.sort_by_topk import sort_by_topk
from orchestrator.frontend.passes.specialize_sizes import specialize_sizes
from orchestrator.frontend.passes.spell_out_alpha import spell_out_alpha
from orchestrator.frontend.passes.unwrap_subclasses import unwrap_subclasses
from orchestrator.frontend.passes.write_out import write_out
from orchestrator.frontend.passes.write_out_embeddings import write_out_embeddings

Pass = Callable[[ExportedProgram], ExportedProgram]


def passes(tables: TablesTaken = no_tables) -> tuple[Pass, ...]:
    """Return all passes in the order in which they run.

    Dropout may stand between a layer and BatchNorm, and a layer's weight may be computed. What is
    written out may be a sort. Constants that passes make are computed where they come before.

    tables: which quantized tables to leave to backends, see `quantize_embeddings`.
    """
    return (
        unwrap_subclasses,
        write_out_cache_ops,
        place_moving_parts,
        specialize_sizes,
        remove_dropout,
        remove_conversions,
        write_out,
        modulo_of_sizes,
        flatten_nonzero,
        sort_by_topk,
        spell_out_alpha,
        half_numbers,
        flatten_volumes,
        write_out_embeddings,
        partial(quantize_embeddings, tables=tables),
        fold_constants,
        fold_batch_norm,
        own_constants,
        own_dequantizes,
        dense_constants,
        keep_pooled_dims,
        copy_attention_results,
        plain_results,
    )


def apply_passes(program: ExportedProgram, tables: TablesTaken = no_tables) -> ExportedProgram:
    """Runs all passes over an ATen-dialect program and returns the result.

    `program` is left as it was. tables: as of `passes`.
    """
    for rewrite in passes(tables):
        program = rewrite(program)
    return program


__all__ = [
    "FoldNote",
    "FoldResult",
    "Pass",
    "TablesTaken",
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
    "half_numbers",
    "keep_pooled_dims",
    "modulo_of_sizes",
    "no_tables",
    "own_constants",
    "own_dequantizes",
    "passes",
    "place_moving_parts",
    "plain_results",
    "quantize_embeddings",
    "remove_asserts",
    "remove_conversions",
    "remove_dropout",
    "sort_by_topk",
    "specialize_sizes",
    "spell_out_alpha",
    "unwrap_subclasses",
    "write_out",
    "write_out_cache_ops",
    "write_out_embeddings",
]
