"""What ATen's ops are, as far as more than one place asks: one table for all.

Ops go by their names without namespace and overload, functional copies by those of the views
("view" for `view_copy`), or with an overload where that matters ("pow.Tensor_Scalar").
"""

from __future__ import annotations

import enum


class Trait(enum.Flag):
    """A fact about an op."""

    NONE = 0
    # Changes how a tensor is seen, and moves nothing.
    VIEW = enum.auto()
    # Moves elements, and computes nothing.
    MOVES = enum.auto()
    # Each element of its result is one that it reads.
    PICKS = enum.auto()
    # Of tensors of a half type, takes numbers rounded to that type; others take them as they are.
    ROUNDS_NUMBERS = enum.auto()
    # Delegates compute it in channels-last, on tensors of rank 4.
    IMAGE = enum.auto()
    # Inside a delegate, its result has the layout of what it reads, at no cost.
    TRANSPARENT = enum.auto()
    # Computes the same numbers whichever dim order images are in, and keeps that.
    ORDER_FREE = enum.auto()
    # Families of ops for estimates: a product of matrices or a convolution; a recurrent layer; a
    # function that takes a dozen operations for an element; a look-up in a table.
    PRODUCT = enum.auto()
    RECURRENT = enum.auto()
    TRANSCENDENTAL = enum.auto()
    LOOKUP = enum.auto()


_ELEMENTWISE = Trait.TRANSPARENT | Trait.ORDER_FREE
_FUNCTION = _ELEMENTWISE | Trait.TRANSCENDENTAL
_TABLE: dict[str, Trait] = {
    # Views and copies.
    "alias": Trait.VIEW,
    "clone": Trait.VIEW | Trait.TRANSPARENT,
    "_clone_dim_order": Trait.VIEW | Trait.TRANSPARENT,
    "squeeze": Trait.VIEW,
    "unsqueeze": Trait.VIEW,
    "view": Trait.VIEW,
    "detach": Trait.MOVES,
    "expand": Trait.MOVES,
    "permute": Trait.MOVES,
    "t": Trait.MOVES,
    "transpose": Trait.MOVES,
    "slice": Trait.TRANSPARENT | Trait.PICKS,
    "split_with_sizes": Trait.TRANSPARENT | Trait.PICKS,
    "_to_copy": Trait.PICKS,
    "_to_dim_order": Trait.PICKS,
    "as_strided": Trait.PICKS,
    "copy": Trait.PICKS,
    "flip": Trait.PICKS,
    "gather": Trait.PICKS,
    "index": Trait.PICKS,
    "index_put": Trait.PICKS,
    "index_select": Trait.PICKS,
    "lift_fresh": Trait.PICKS,
    "masked_fill": Trait.PICKS,
    "repeat": Trait.PICKS,
    "scatter": Trait.PICKS,
    "select": Trait.PICKS,
    "select_scatter": Trait.PICKS,
    "slice_scatter": Trait.PICKS,
    "split": Trait.PICKS,
    "stack": Trait.PICKS,
    "unbind": Trait.PICKS,
    "where": Trait.PICKS,
    # Images.
    "convolution": Trait.IMAGE | Trait.PRODUCT,
    "avg_pool2d": Trait.IMAGE | Trait.ORDER_FREE,
    "max_pool2d": Trait.IMAGE | Trait.ORDER_FREE,
    "max_pool2d_with_indices": Trait.IMAGE | Trait.ORDER_FREE,
    "adaptive_avg_pool2d": Trait.IMAGE,
    "upsample_bilinear2d": Trait.IMAGE,
    "upsample_bilinear2d.vec": Trait.IMAGE | Trait.ORDER_FREE,
    "upsample_nearest2d": Trait.IMAGE,
    "upsample_nearest2d.vec": Trait.IMAGE | Trait.ORDER_FREE,
    "pixel_shuffle": Trait.IMAGE,
    "constant_pad_nd": _ELEMENTWISE,
    "cat": _ELEMENTWISE | Trait.PICKS,
    "mean": Trait.TRANSPARENT,
    "mean.dim": _ELEMENTWISE,
    # Products.
    "linear": Trait.PRODUCT,
    "addmm": Trait.PRODUCT,
    "mm": Trait.PRODUCT,
    "bmm": Trait.PRODUCT,
    "scaled_dot_product_attention": Trait.PRODUCT,
    "lstm": Trait.RECURRENT,
    "gru": Trait.RECURRENT,
    "rnn_tanh": Trait.RECURRENT,
    "rnn_relu": Trait.RECURRENT,
    "embedding": Trait.LOOKUP | Trait.PICKS,
    "embedding_byte": Trait.LOOKUP,
    "embedding_4bit": Trait.LOOKUP,
    "embedding_2bit": Trait.LOOKUP,
    # Norms.
    "_native_batch_norm_legit_no_training": _ELEMENTWISE,
    "batch_norm": Trait.TRANSPARENT,
    "native_group_norm": _FUNCTION,
    "group_norm": Trait.TRANSPARENT | Trait.TRANSCENDENTAL,
    "native_layer_norm": Trait.TRANSCENDENTAL,
    "layer_norm": Trait.TRANSCENDENTAL,
    "rms_norm": Trait.TRANSCENDENTAL,
    "_softmax": Trait.TRANSCENDENTAL,
    "_log_softmax": Trait.TRANSCENDENTAL,
    # Element by element.
    "add": _ELEMENTWISE | Trait.ROUNDS_NUMBERS,
    "sub": _ELEMENTWISE | Trait.ROUNDS_NUMBERS,
    "rsub": Trait.ROUNDS_NUMBERS,
    "eq": Trait.ROUNDS_NUMBERS,
    "ne": Trait.ROUNDS_NUMBERS,
    "lt": Trait.ROUNDS_NUMBERS,
    "le": Trait.ROUNDS_NUMBERS,
    "gt": Trait.ROUNDS_NUMBERS,
    "ge": Trait.ROUNDS_NUMBERS,
    "mul": _ELEMENTWISE,
    "div": _ELEMENTWISE,
    "neg": _ELEMENTWISE,
    "abs": _ELEMENTWISE,
    "sqrt": _ELEMENTWISE,
    "rsqrt": _ELEMENTWISE,
    "maximum": _ELEMENTWISE,
    "minimum": _ELEMENTWISE,
    "relu": _ELEMENTWISE,
    "hardtanh": _ELEMENTWISE,
    "clamp": _ELEMENTWISE,
    "hardswish": _ELEMENTWISE,
    "hardsigmoid": _ELEMENTWISE,
    "leaky_relu": _ELEMENTWISE,
    "prelu": Trait.TRANSPARENT,
    "mish": Trait.ORDER_FREE,
    "exp": _FUNCTION,
    "log": Trait.TRANSCENDENTAL,
    "pow": Trait.TRANSPARENT | Trait.TRANSCENDENTAL | Trait.ROUNDS_NUMBERS,
    "pow.Tensor_Scalar": _FUNCTION | Trait.ROUNDS_NUMBERS,
    "sigmoid": _FUNCTION,
    "tanh": _FUNCTION,
    "silu": _FUNCTION,
    "gelu": _FUNCTION,
    "elu": _FUNCTION,
    "softplus": Trait.TRANSCENDENTAL,
}


def base_name(op: str) -> str:
    """Shorten a name: "aten.view_copy.default" to "view"."""
    parts = op.split(".")
    return parts[1].removesuffix("_copy") if len(parts) > 1 else parts[0]


def traits(op: str) -> Trait:
    """Return what is known of an op, given as "namespace.name.overload"."""
    name = base_name(op)
    overload = op.rpartition(".")[2]
    return _TABLE.get(f"{name}.{overload}", _TABLE.get(name, Trait.NONE))
