"""Quantizing the matrices of a decoder by torchao's recipes."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor, nn

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
