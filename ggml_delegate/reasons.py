"""Why a node is not taken: a sentence for people, with a code for programs."""

from __future__ import annotations

from typing import Literal

import torch

Code = Literal[
    "unsupported",  # the op has arguments, or a form, that is not taken
    "op",  # there is no rule, or operator, for the op
    "rank",
    "unbatched",  # an image without a batch dimension
    "volume",  # a convolution over three dimensions
    "groups",  # a transposed convolution in groups
    "dims",  # a reduction over several dimensions
    "integers",  # a tensor of integers or bools where floats are needed
    "float64",
    "half",
    "dtype",  # another dtype
    "converts",  # the op converts its input to another dtype
    "run-time",  # an argument is known at run time only
    "computed",  # a weight or another parameter is computed
    "changed",  # a weight that the model changes
    "shared",  # a constant with other users
    "dynamic",  # a size is dynamic that has to be fixed
    "training",  # the op is in training mode
    "empty",  # a tensor without elements
    "negative-index",  # an index or a start that may be below 0
    "range",  # a result may exceed the integers that there are
    "device",  # a tensor that is not on the CPU
    "layout",  # a tensor that is not dense
    "dim-order",  # an image in a dim order that is not known, or that would get lost
    "quantization",  # a quantized group of another kind
    "elsewhere",  # left to others on purpose, which are faster
    "neighbours",  # the node would be taken, but not with those around it
    "failed",  # the backend raised an exception
]


class Reason(str):
    """A sentence fragment that says why a node is not taken, and the code of its kind."""

    code: Code

    def __new__(cls, code: Code, text: str) -> Reason:
        """Make a reason of a kind."""
        made = super().__new__(cls, text)
        made.code = code
        return made


def unfit_dtype(dtype: torch.dtype | None, text: str) -> Reason:
    """Return the reason that a tensor has a dtype that is not taken there.

    dtype: None for a number. text: says so; "torch." in it is left out.
    """
    code: Code = "dtype"
    if dtype in (torch.float16, torch.bfloat16):
        code = "half"
    elif dtype == torch.float64:
        code = "float64"
    elif dtype is not None and not dtype.is_floating_point and not dtype.is_complex:
        code = "integers"
    return Reason(code, text.replace("torch.", ""))
