"""Takes tensor subclasses apart: torchao's quantized weights become their integers and scales.

`torch.export` keeps such a weight as one parameter, out of which ops take the tensors inside. These
become parameters of their own, as they do later in ExecuTorch, so that passes see them as they will
be stored.
"""

from __future__ import annotations

import torch
from torch.export import ExportedProgram
from torch.utils._python_dispatch import is_traceable_wrapper_subclass


def unwrap_subclasses(program: ExportedProgram) -> ExportedProgram:
    """Returns a program whose parameters, buffers and constants are plain tensors.

    Args:
        program: ATen-dialect program as `torch.export.export` gives it; it is left as it was, and
            returned itself where all are plain already.
    """
    values = (*program.state_dict.values(), *program.constants.values())
    tensors = (value for value in values if isinstance(value, torch.Tensor))
    if any(map(is_traceable_wrapper_subclass, tensors)):
        program = program.run_decompositions({})
    return program
