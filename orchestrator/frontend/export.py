"""Bringing the kinds of model that users have into exported programs."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from contextlib import nullcontext, suppress
from typing import Any

import torch
import torch.fx.experimental._config as torch_config
import torch.utils._pytree as pytree
from executorch.exir.sym_util import eval_upper_bound
from torch import nn
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputKind, TensorArgument

from ggml_delegate.program_editor import is_written
from ggml_delegate.recurrent_ops import RecurrentLayersPreserved
from orchestrator.frontend.errors import ModelError
from orchestrator.frontend.export_guards import is_violation, unmet_condition
from orchestrator.frontend.passes.plain_results import plain_spec
from orchestrator.frontend.torch_state import ONE_AT_A_TIME
from orchestrator.graph.queries import dtype_name

Model = nn.Module | ExportedProgram | Mapping[str, ExportedProgram]

# Modules whose results in training mode are random or depend on the batch.
_MODAL_MODULES = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)


def as_programs(
    model: Model,
    example_inputs: Iterable[Any] | torch.Tensor | None = None,
    example_kwargs: Mapping[str, Any] | None = None,
    dynamic_shapes: Any = None,
) -> dict[str, ExportedProgram]:
    """Return exported programs by method name; one program is the method "forward".

    Raises:
        ModelError: inputs that do not fit the kind of model, a module in training mode or one that
            does not export, or inputs and outputs that ExecuTorch cannot express.
    """
    with ONE_AT_A_TIME:
        return _as_programs(model, example_inputs, example_kwargs, dynamic_shapes)


def _as_programs(
    model: Model,
    example_inputs: Iterable[Any] | torch.Tensor | None,
    example_kwargs: Mapping[str, Any] | None,
    dynamic_shapes: Any,
) -> dict[str, ExportedProgram]:
    if isinstance(model, nn.Module):
        program = _export(model, example_inputs, example_kwargs, dynamic_shapes)
        return {"forward": _checked("forward", program)}
    if example_inputs is not None or example_kwargs is not None or dynamic_shapes is not None:
        raise ModelError(
            "the model is exported already; leave out example inputs and dynamic_shapes, or pass "
            "the module itself"
        )
    if isinstance(model, ExportedProgram):
        return {"forward": _checked("forward", model)}
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
        drops = isinstance(part, nn.RNNBase) and part.dropout > 0 and part.num_layers > 1
        if part.training and (drops or isinstance(part, _MODAL_MODULES)):
            raise ModelError(
                f"{name or 'the model'} ({type(part).__name__}) is in training mode; call "
                "model.eval() first"
            )
    lone = isinstance(example_inputs, torch.Tensor)
    args = (example_inputs,) if lone else tuple(example_inputs or ())
    args, kwargs = _distinct((args, dict(example_kwargs or {})))
    try:
        with RecurrentLayersPreserved():
            return _exported(module, args, kwargs, dynamic_shapes)
    except Exception as error:
        raise ModelError(
            f"torch.export cannot export the model with these example inputs: {_why(error)}"
        ) from error


def _exported(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], dynamic_shapes: Any
) -> ExportedProgram:
    """Export, asking torch.export to be less strict in two ways if it refuses the sizes allowed.

    First conditions on sizes are to go into the program; if those that the model itself needs hold
    for all sizes, that is fine. Where they do not, because the example took a branch that others do
    not take (it needs no padding to a multiple of 8, say), sizes are to count as unknown while
    exporting, as those that depend on data do: then no branch is taken for the example's sake.
    """
    export = functools.partial(
        torch.export.export, module, args, kwargs, dynamic_shapes=dynamic_shapes
    )
    try:
        return export()
    except Exception as error:
        if not is_violation(error):
            raise
        for how in (nullcontext(), torch_config.patch(backed_size_oblivious=True)):  # type: ignore[attr-defined]
            with how, suppress(Exception):  # the first error says what to change
                program = export(prefer_deferred_runtime_asserts_over_guards=True)
                if unmet_condition(program) is None:
                    return program
        raise


def _why(error: Exception) -> str:
    """What torch says, and what to do."""
    name = type(error).__name__
    # The rest of what it says is about its own tools.
    said = str(error).partition("The error above occurred when calling torch.export")[0]
    lines = said.strip().splitlines()
    if is_violation(error):
        first = lines[0].partition("!")[0]
        rest = "\n".join(line for line in lines[1:] if line.strip())
        return (
            f"{name}: {first}. Change dynamic_shapes, or the model, so that every size they allow "
            f"is one that the model can have:\n{rest}"
        )
    return (
        f"{name}: {lines[0] if lines else 'no reason given'}. Check that "
        "model(*example_inputs) runs, and that nothing in it depends on a tensor's values in "
        "Python (torch.cond and torch.where do); the error that led here has the details"
    )


def _checked(name: str, program: ExportedProgram) -> ExportedProgram:
    """Return the program if ExecuTorch can express its inputs and outputs.

    Raises:
        ModelError: it cannot, and would say so late or not at all.
    """
    where = f"method {name!r}"
    outputs = program.graph_signature.output_specs
    written = [spec.target for spec in outputs if spec.kind == OutputKind.USER_INPUT_MUTATION]
    inputs = set(program.graph_signature.user_inputs)
    written += [
        node.name
        for node in program.graph.nodes
        if node.op == "placeholder"
        and node.name in inputs
        and is_written(node, by_higher_order=False)
    ]
    if written:
        raise ModelError(
            f"{where} writes to its input {written[0]!r}, which the caller would not see; have "
            "the model change a copy of it (x.clone()) and return that"
        )
    if not any(isinstance(spec.arg, TensorArgument) for spec in outputs):
        raise ModelError(f"{where} returns no tensor; there is nothing to compute")
    _refuse_complex(where, program)
    _refuse_unbounded(where, program)
    try:
        for tree in (program.call_spec.in_spec, plain_spec(program.call_spec.out_spec)):
            pytree.treespec_dumps(tree)
    except NotImplementedError as error:
        raise ModelError(
            f"{where} takes or returns a container that ExecuTorch cannot store ({error}); "
            "use tuples, lists and dicts"
        ) from error
    return program


def _refuse_complex(where: str, program: ExportedProgram) -> None:
    """Refuse what ExecuTorch cannot store: complex tensors at the boundary, and complex numbers."""
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    for spec in (*program.graph_signature.input_specs, *program.graph_signature.output_specs):
        value = values.get(getattr(spec.arg, "name", ""))
        if isinstance(value, torch.Tensor) and value.is_complex():
            dtype = dtype_name(value.dtype)
            raise ModelError(
                f"{where}: {spec.arg.name} is {dtype}, which cannot cross a method's boundary; "
                "take real and imaginary parts as tensors of their own, and return "
                "torch.view_as_real(...)"
            )
    for node in program.graph.nodes:
        for number in pytree.tree_leaves((node.args, node.kwargs)):
            if isinstance(number, complex):
                raise ModelError(
                    f"{where}: {node.name} has the complex number {number}, which ExecuTorch "
                    "cannot store; compute with real and imaginary parts as tensors of their own"
                )


def _refuse_unbounded(where: str, program: ExportedProgram) -> None:
    """Refuse tensors without an upper bound: ExecuTorch reserves memory for all there may be."""
    for node in program.graph.nodes:
        for value in pytree.tree_leaves(node.meta.get("val")):
            if not isinstance(value, torch.Tensor):
                continue
            for dim, size in enumerate(value.shape):
                # Sizes of inputs without a bound count as in the example.
                if isinstance(size, int) or size.node.hint is not None:
                    continue
                try:
                    eval_upper_bound(size)
                except RuntimeError as error:
                    raise ModelError(
                        f"{where}: dimension {dim} of {node.name} depends on data and has no upper "
                        "bound, for which memory would be reserved; give it one with torch._check, "
                        "for example torch._check(y.shape[0] <= 64)"
                    ) from error


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
        _checked(name, program)
    return dict(methods)
