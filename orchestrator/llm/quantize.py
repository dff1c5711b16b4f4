"""Quantizing the matrices of a decoder by torchao's recipes, and activations beside them."""

from __future__ import annotations

from collections import Counter

import torch
import torchao  # noqa: F401  (its ops)
from torch import Tensor, nn

from orchestrator.frontend.errors import ModelError
from orchestrator.frontend.quantize import (
    TORCHAO_RECIPES,
    left_in_floats,
    quantize_linears,
    recipe_note,
)
from orchestrator.llm.decoder import Decoder, Matrix
from orchestrator.options import OptionError


def check_recipe(recipe: str) -> None:
    """Refuse recipes that are none for decoders.

    Raises:
        OptionError: it is unknown, or one of PT2E's, whose graphs have their sizes.
    """
    if recipe not in TORCHAO_RECIPES:
        raise OptionError(
            f"quantize={recipe!r}; expected {', '.join(TORCHAO_RECIPES[:-1])} or "
            f"{TORCHAO_RECIPES[-1]} for a language model"
        )


def quantize_matrices(decoder: Decoder, recipe: str, name: str) -> str:
    """Quantize the matrices of floats that a decoder multiplies by, in place; return a note.

    The table of words stays as it is stored, and a head that was the same matrix becomes one of its
    own: rows of integers would change what every word starts from. name: of the file.

    Raises:
        ModelError: it has no such matrix.
    """
    left: Counter[str] = Counter()
    places = [
        (part, key)
        for part in decoder.modules()
        # Not named_children, which leaves out a head that is the table as well.
        for key, matrix in part._modules.items()
        if isinstance(matrix, Matrix) and (part, key) != (decoder, "words")
    ]
    for part, key in places:
        matrix = part.get_submodule(key)
        assert isinstance(matrix, Matrix)
        reason = _reason_against(matrix, recipe)
        if reason is None:
            setattr(part, key, _quantized(matrix, recipe))
        else:
            left[reason] += 1
    return recipe_note(name, recipe, len(places), left)


def round_activations(decoder: Decoder, name: str) -> str:
    """Have what matrices of integers multiply become integers as well; return a note.

    In every run each row of an activation gets a scale and a zero point of its own, as torchao's
    recipes "8da4w" and "8da8w" have it. name: of the file.

    Raises:
        ModelError: it has no such matrix.
    """
    found = [part for part in decoder.modules() if isinstance(part, Matrix) and part.grouped]
    if not found:
        raise ModelError(
            f"{name} has no matrix of integers that activations='int8' would be for; quantize="
            "'8da4w' quantizes matrices of floats with their activations"
        )
    for matrix in found:
        matrix.prepare = _rounded_rows
    count = "1 matrix" if len(found) == 1 else f"{len(found)} matrices"
    return f"What {count} of integers multiply is rounded to 8 bits (activations='int8')."


def _rounded_rows(x: Tensor) -> Tensor:
    """Quantize each row to int8 by its own range, and dequantize it."""
    rows = [1] * (x.dim() - 1) + [x.shape[-1]]
    scale, zero = torch.ops.torchao.choose_qparams_affine(
        x, "ASYMMETRIC", rows, torch.int8, None, None, None, torch.float32, torch.int8
    )
    integers = torch.ops.torchao.quantize_affine(x, rows, scale, zero, torch.int8)
    rounded: Tensor = torch.ops.torchao.dequantize_affine(integers, rows, scale, zero, torch.int8)
    return rounded


def _reason_against(matrix: Matrix, recipe: str) -> str | None:
    if matrix.grouped:
        return "linear of integers, as the file has them"
    return left_in_floats(matrix.weight.shape[1], recipe)


def _quantized(matrix: Matrix, recipe: str) -> nn.Module:
    n, k = matrix.weight.shape
    layer = nn.Linear(k, n, bias=matrix.bias is not None, device="meta")
    layer.weight = _parameter(matrix.weight)
    if matrix.bias is not None:
        layer.bias = _parameter(matrix.bias)
    quantize_linears(layer, recipe, {""})
    return layer.requires_grad_(False)


def _parameter(value: Tensor) -> nn.Parameter:
    return nn.Parameter(value.to(torch.float32), requires_grad=False)
