"""Bringing the kinds of model that users have into exported programs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import nn
from torch.export import ExportedProgram

Model = nn.Module | ExportedProgram | Mapping[str, ExportedProgram]

# Modules whose results in training mode are random or depend on the batch.
_MODAL_MODULES = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)


class ModelError(ValueError):
    """A model, or its example inputs, is not what lowering needs."""


def as_programs(
    model: Model,
    example_inputs: Iterable[Any] | torch.Tensor | None = None,
    example_kwargs: Mapping[str, Any] | None = None,
    dynamic_shapes: Any = None,
) -> dict[str, ExportedProgram]:
    """Return exported programs by method name; one program is the method "forward".

    Raises:
        ModelError: inputs that do not fit the kind of model, or a module in training mode.
    """
    if isinstance(model, nn.Module):
        return {"forward": _export(model, example_inputs, example_kwargs, dynamic_shapes)}
    if example_inputs is not None or example_kwargs is not None or dynamic_shapes is not None:
        raise ModelError(
            "the model is exported already; leave out example inputs and dynamic_shapes, or pass "
            "the module itself"
        )
    if isinstance(model, ExportedProgram):
        return {"forward": model}
    if not isinstance(model, Mapping):
        raise ModelError(
            f"cannot lower a {type(model).__name__}; expected a torch.nn.Module, a "
            "torch.export.ExportedProgram, or a mapping of method names to ExportedPrograms"
        )
    return _checked_methods(model)


def _export(
    module: nn.Module,
    example_inputs: Iterable[Any] | torch.Tensor | None,
    example_kwargs: Mapping[str, Any] | None,
    dynamic_shapes: Any,
) -> ExportedProgram:
    if example_inputs is None and example_kwargs is None:
        raise ModelError(
            "a module needs example inputs to be exported: lower(model, (x,)); pass () if its "
            "forward() takes none"
        )
    for name, part in module.named_modules():
        if part.training and isinstance(part, _MODAL_MODULES):
            raise ModelError(
                f"{name or 'the model'} ({type(part).__name__}) is in training mode; call "
                "model.eval() first"
            )
    lone = isinstance(example_inputs, torch.Tensor)
    args = (example_inputs,) if lone else tuple(example_inputs or ())
    args, kwargs = _distinct((args, dict(example_kwargs or {})))
    return torch.export.export(module, args, kwargs, dynamic_shapes=dynamic_shapes)


def _distinct(inputs: Any) -> Any:
    """Copy tensors that occur more than once.

    torch.export takes arguments that are the same object for one argument, now and ever after.
    """
    seen: set[int] = set()

    def copy_if_seen(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) in seen:
            return tensor.clone()
        seen.add(id(tensor))
        return tensor

    return pytree.tree_map_only(torch.Tensor, copy_if_seen, inputs)


def _checked_methods(methods: Mapping[str, ExportedProgram]) -> dict[str, ExportedProgram]:
    if not methods:
        raise ModelError("the mapping of methods is empty; expected at least one")
    for name, program in methods.items():
        if not isinstance(name, str) or not name:
            raise ModelError(f"method names are non-empty strings; found {name!r}")
        if not isinstance(program, ExportedProgram):
            raise ModelError(
                f"method {name!r} is a {type(program).__name__}; export it first with "
                "torch.export.export"
            )
    return dict(methods)
