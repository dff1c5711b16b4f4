"""Op rules: which nodes the delegate takes, and how each is lowered.

One rule object per op (see ops/*.py). `check` decides from metadata alone and returns None or the
reason why not; what it accepts, `lower` must lower and the runtime must compute right.
"""

from __future__ import annotations

import functools
import operator
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

import torch
from torch.export import ExportedProgram

from ggml_delegate import ir
from ggml_delegate.node_view import Constants, NodeView, node_value, op_name
from ggml_delegate.own_sizes import sizes_of, undetermined
from ggml_delegate.reasons import Reason, unfit_dtype
from ggml_delegate.symbols import is_expressible

if TYPE_CHECKING:
    from ggml_delegate.builder import Builder

MAX_RANK = int(ir.Limit.Rank)
# Arithmetic is float32; results of these types are rounded to them.
HALF_DTYPES = (torch.float16, torch.bfloat16)
FLOAT_DTYPES = (torch.float32, *HALF_DTYPES)
INTEGER_DTYPES = (torch.int32, torch.int64, torch.bool)


class OpRule(ABC):
    """How one op, or a few that differ in nothing but a number, goes to ggml."""

    # Names without the dialect, e.g. "aten.add.Tensor".
    targets: ClassVar[tuple[str, ...]] = ()
    # ATen overloads, by the same kind of name, that must not be decomposed on the way here.
    preserve: ClassVar[tuple[str, ...]] = ()
    # Whether int32, int64 and bool tensors may come in and go out.
    integer_inputs: ClassVar[bool] = False
    # That constants may have beside those of floats.
    constant_dtypes: ClassVar[tuple[torch.dtype, ...]] = ()
    # That other tensors may have, of nodes that are taken together with those that read them.
    inner_dtypes: ClassVar[tuple[torch.dtype, ...]] = ()
    # Whether results are read through getitem nodes.
    outputs_via_getitem: ClassVar[bool] = False

    @abstractmethod
    def check(self, node: NodeView) -> Reason | None:
        """None when the node can be lowered, else the reason; reads metadata only."""

    @abstractmethod
    def lower(self, node: NodeView, builder: Builder) -> None:
        """Emits IR for a node that check() accepted."""

    def defined_outputs(self, node: NodeView) -> set[int]:
        """The results that getitem may read, for rules with outputs_via_getitem."""
        return {0}


_RULES: dict[str, OpRule] = {}


def register(rule: type[OpRule]) -> type[OpRule]:
    """Class decorator: adds a rule for its targets.

    Raises:
        ValueError: when a target has a rule already.
    """
    instance = rule()
    for target in instance.targets:
        if target in _RULES:
            raise ValueError(f"{target} has two rules: {_RULES[target]!r} and {instance!r}")
        _RULES[target] = instance
    return rule


@functools.cache
def _load_rules() -> None:
    import ggml_delegate.ops  # noqa: F401  (its modules register their rules)


def rules() -> dict[str, OpRule]:
    """All rules, by target."""
    _load_rules()
    return _RULES


def find_rule(node: torch.fx.Node) -> OpRule | None:
    """The rule for a node's op, or None."""
    return rules().get(op_name(node))


def preserved_ops() -> list[torch._ops.OpOverload]:
    """The ATen overloads that rules want undecomposed."""
    names = sorted({name for rule in rules().values() for name in rule.preserve})
    return [_overload(name) for name in names]


def _overload(name: str) -> torch._ops.OpOverload:
    overload = functools.reduce(getattr, name.split("."), torch.ops)
    assert isinstance(overload, torch._ops.OpOverload), name
    return overload


def check_node(
    node: torch.fx.Node, program: ExportedProgram, constants: Constants | None = None
) -> Reason | None:
    """None when the delegate can run the node exactly, else a short reason.

    Args:
        node: a node of `program`'s graph, in the edge or ATen dialect.
        constants: Constants(program), to save making it for every node.
    """
    constants = Constants(program) if constants is None else constants
    if node.op != "call_function":
        return Reason("unsupported", f"{node.op} nodes are not computed")
    if node.target is operator.getitem:
        return _check_getitem(node, program, constants)
    return check_view(NodeView(node, constants))


def check_view(view: NodeView) -> Reason | None:
    """As `check_node`, of a call that is no getitem."""
    rule = find_rule(view.fx)
    if rule is None:
        return Reason("op", f"ggml has no rule for {op_name(view.fx) or view.fx.target}")
    return _check_tensors(view, rule, view.constants) or rule.check(view) or _check_sizes(view)


def _check_sizes(view: NodeView) -> Reason | None:
    """Sizes of results follow from those of what is read, by an expression of the IR."""
    for size in sizes_of(node_value(view.fx)):
        if not is_expressible(size) and not _is_read(size, view):
            return Reason("unsupported", f"the size {size} has no integer form")
    return undetermined(view.fx)


def _is_read(size: int | torch.SymInt, view: NodeView) -> bool:
    """Whether something that the node reads has the same size."""
    read = (sizes_of(node_value(source)) for source in view.fx.all_input_nodes)
    return any(str(size) == str(other) for sizes in read for other in sizes)


def _check_getitem(
    node: torch.fx.Node, program: ExportedProgram, constants: Constants
) -> Reason | None:
    producer, index = node.args
    if not isinstance(producer, torch.fx.Node):
        return Reason("unsupported", "getitem of no node")
    rule = find_rule(producer)
    if rule is None or not rule.outputs_via_getitem:
        return Reason(
            "op", f"ggml has no rule for results of {op_name(producer) or producer.target}"
        )
    if index not in rule.defined_outputs(NodeView(producer, constants)):
        return Reason("unsupported", f"result {index} of {op_name(producer)} is not computed")
    return check_node(producer, program, constants)


def _check_tensors(view: NodeView, rule: OpRule, constants: Constants) -> Reason | None:
    """What holds for every op: dense CPU tensors of known dtype, rank and extent."""
    results = node_value(view.fx)
    results = results if isinstance(results, (list, tuple)) else [results]
    if rule.outputs_via_getitem:
        results = [results[i] for i in rule.defined_outputs(view) if i < len(results)]
        for user in view.fx.users:
            if user.target is not operator.getitem:
                return Reason("unsupported", f"results of {op_name(view.fx)} are read as a whole")
            if user.users and user.args[1] not in rule.defined_outputs(view):
                return Reason(
                    "unsupported", f"result {user.args[1]} of {op_name(view.fx)} is not computed"
                )
    named = [("an output", value, False) for value in results]
    named += [(f"input {node.name}", value, node in constants) for node, value in view.tensors()]
    for what, value, constant in named:
        if not isinstance(value, torch.Tensor):
            return Reason("unsupported", f"{what} is no tensor")
        if value.dtype in (rule.constant_dtypes if constant else rule.inner_dtypes):
            continue
        reason = _check_tensor(value, rule.integer_inputs)
        if reason is not None:
            return Reason(reason.code, f"{what} {reason}")
    return None


def _check_tensor(value: torch.Tensor, integers: bool) -> Reason | None:
    if value.dtype not in FLOAT_DTYPES and not (integers and value.dtype in INTEGER_DTYPES):
        return unfit_dtype(value.dtype, f"has dtype {value.dtype}, ggml takes float32 and half")
    if value.device.type not in ("cpu", "meta"):
        return Reason("device", f"is on {value.device.type}")
    if value.layout != torch.strided:
        return Reason("layout", f"has layout {value.layout}")
    if value.dim() > MAX_RANK:
        return Reason("rank", f"has rank {value.dim()}, at most {MAX_RANK} is possible")
    if any(isinstance(size, int) and size == 0 for size in value.shape):
        return Reason("empty", "has no elements")
    return None
