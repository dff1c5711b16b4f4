"""How ExecuTorch's backend test suite tests a lowered model.

The static testers take the suite's tests as they are. The dynamic one leaves every size dynamic
that the model allows, and runs the program on the example inputs and on inputs of other sizes. The
quantized one takes what the flow's Quantize stage makes of a model. Outputs are compared a thousand
times closer than the suite itself does; of quantized models by what one step here and there changes
in eager PyTorch (tests/harness/quantized.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from executorch.backends.test.harness import Tester
from executorch.backends.test.harness.stages import (
    Export,
    Serialize,
    StageType,
    ToEdgeTransformAndLower,
)
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree as pytree

from tests.harness.quantized import allowed_outputs
from tests.suite.stages import RunNatively

# The largest size that a dimension left dynamic may take, as a multiple of the example's.
_GROWTH = 2
# Absolute and relative.
_TOLERANCE = 1e-4


class DynamicExport(Export):  # type: ignore[misc]
    """Exports with every size dynamic; torch.export specializes those that the model fixes."""

    def run(self, artifact: torch.nn.Module, inputs: tuple[Any, ...]) -> None:
        """Exports `artifact`, or says why none of its sizes can be dynamic."""
        shapes = self.dynamic_shapes or pytree.tree_map(_dynamic_sizes, inputs)
        self.exported_program = torch.export.export(
            artifact, inputs, dynamic_shapes=shapes, strict=False
        )
        if not _symbols(self.exported_program):
            raise StaticModelError("the model fixes every size of its inputs")


class StaticModelError(ValueError):
    """A model none of whose input sizes can change: there is no dynamic variant of its test."""


def _dynamic_sizes(value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return None
    return {
        dim: Dim.AUTO(min=1, max=_GROWTH * size) if size > 1 else None
        for dim, size in enumerate(value.shape)
    }


def _symbols(program: ExportedProgram) -> bool:
    return any(
        isinstance(node.meta.get("val"), torch.Tensor)
        and any(isinstance(size, torch.SymInt) for size in node.meta["val"].shape)
        for node in program.graph.nodes
        if node.op == "placeholder"
    )


class FloatTester(Tester):  # type: ignore[misc]
    """Compares one program with eager PyTorch, for the inputs that the suite chooses."""

    __test__ = False

    def __init__(
        self,
        lower: Callable[[], ToEdgeTransformAndLower],
        export: type[Export],
        serialize: type[Serialize],
        module: torch.nn.Module,
        example_inputs: tuple[Any, ...],
    ) -> None:
        stages = Tester.default_stage_classes() | {
            StageType.EXPORT: export,
            StageType.TO_EDGE_TRANSFORM_AND_LOWER: lower,
            StageType.SERIALIZE: serialize,
        }
        super().__init__(module, example_inputs, stage_classes=stages)

    def run_method_and_compare_outputs(self, *args: Any, **kwargs: Any) -> Any:
        """As in Tester, but closer."""
        kwargs |= {"atol": _TOLERANCE, "rtol": _TOLERANCE}
        return super().run_method_and_compare_outputs(*args, **kwargs)


class DynamicTester(FloatTester):
    """Compares for the example inputs, then for others of smaller and larger sizes."""

    __test__ = False

    def run_method_and_compare_outputs(self, *args: Any, inputs: Any = None, **kwargs: Any) -> Any:
        """As in Tester, for more than one set of inputs."""
        inputs = next(self.generate_random_inputs()) if inputs is None else inputs
        super().run_method_and_compare_outputs(*args, inputs=inputs, **kwargs)
        program = self.stages[StageType.EXPORT].artifact
        for scale in (1, -1):
            other = other_sizes(program, inputs, scale)
            if other is not None and _holds(program, self.original_module, other):
                super().run_method_and_compare_outputs(*args, inputs=other, **kwargs)
        return self


class PlansTester(FloatTester):
    """Compares every method of a program that has one per plan (see `RunNatively`)."""

    __test__ = False

    def run_method_and_compare_outputs(self, *args: Any, inputs: Any = None, **kwargs: Any) -> Any:
        """As in Tester, for each plan in turn."""
        inputs = next(self.generate_random_inputs()) if inputs is None else inputs
        stage = self.stages[StageType.SERIALIZE]
        for method in stage.program.method_names:
            stage.method = method
            try:
                self._compare(*args, inputs=inputs, **kwargs)
            except AssertionError as error:
                raise AssertionError(f"plan of {method}: {error}") from error
        return self

    def _compare(self, *args: Any, **kwargs: Any) -> None:
        super().run_method_and_compare_outputs(*args, **kwargs)


class QuantizedTester(PlansTester):
    """Compares with the quantized model in eager PyTorch, by quantization steps."""

    __test__ = False

    def run_method_and_compare_outputs(self, *args: Any, inputs: Any = None, **kwargs: Any) -> Any:
        """Runs the program and raises an AssertionError where it differs by too much."""
        if isinstance(self.stages[StageType.SERIALIZE], RunNatively):
            return super().run_method_and_compare_outputs(*args, inputs=inputs, **kwargs)
        self._compare(inputs=next(self.generate_random_inputs()) if inputs is None else inputs)
        return self

    def _compare(self, *args: Any, inputs: Any, **kwargs: Any) -> None:
        wanted = allowed_outputs(self.stages[StageType.EXPORT].artifact.module(), inputs)
        results = self.stages[self.cur].run_artifact(inputs)
        for i, (got, want) in enumerate(zip(results, wanted, strict=True)):
            what = want.difference(got)
            assert what is None, f"output {i}: {what}"


def other_sizes(program: ExportedProgram, inputs: Sequence[Any], change: int) -> Any:
    """Inputs like `inputs` in which every size that `program` leaves dynamic differs by `change`.

    Returns None when no input has a dynamic size, or the change breaks what the program demands of
    the sizes.
    """
    names = program.graph_signature.user_inputs
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    limits = program.range_constraints
    leaves, spec = pytree.tree_flatten(tuple(inputs))
    changed = False
    results = []
    for name, leaf in zip(names, leaves, strict=True):
        fake = values.get(name)
        if not isinstance(leaf, torch.Tensor) or not isinstance(fake, torch.Tensor):
            results.append(leaf)
            continue
        sizes = list(leaf.shape)
        for dim, size in enumerate(fake.shape):
            if not isinstance(size, torch.SymInt):
                continue
            symbols = {
                symbol: size.node.shape_env.backed_var_to_val[symbol] + change
                for symbol in size.node.expr.free_symbols
            }
            if any(
                symbol in limits and not limits[symbol].lower <= value <= limits[symbol].upper
                for symbol, value in symbols.items()
            ):
                return None
            sizes[dim] = int(size.node.expr.subs(symbols))
            changed = True
        results.append(_like(leaf, sizes))
    return pytree.tree_unflatten(results, spec) if changed else None


def _like(example: torch.Tensor, sizes: Sequence[int]) -> torch.Tensor:
    """A tensor of these sizes with values as in `example`, the last ones repeated, or cut off.

    What is sorted stays so (offsets).
    """
    result = example
    for dim, size in enumerate(sizes):
        if size > result.shape[dim]:
            more = size - result.shape[dim]
            result = torch.cat([result, result.narrow(dim, result.shape[dim] - more, more)], dim)
        result = result.narrow(dim, 0, size)
    return result.contiguous()


def _holds(program: ExportedProgram, module: torch.nn.Module, inputs: Sequence[Any]) -> bool:
    """Whether the exported program does with these inputs what the module does.

    torch.export does not tell all that a program demands of sizes: one that splits 6 rows by two
    has three results, and leaves out the fourth one of 7 rows.
    """
    try:
        wanted, got = module(*inputs), program.module()(*inputs)
    except (RuntimeError, IndexError, ValueError, AssertionError):
        return False
    return _shapes(wanted) == _shapes(got)


def _shapes(results: Any) -> list[torch.Size]:
    return [leaf.shape for leaf in pytree.tree_leaves(results) if isinstance(leaf, torch.Tensor)]
