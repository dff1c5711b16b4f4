"""Steps for ops that have no proposal of their own: arguments drawn from the op's schema.

So an op gets tested as soon as it has a rule.
"""

from __future__ import annotations

from typing import Any

import torch

from tests.differential.graphs import Ref, Step, overload
from tests.differential.pool import Pool

# The functional op behind each variant that exists for ExecuTorch's sake.
_COPY = "_copy."
_NUMBERS = [0.5, -0.5, 1.0, 2.0, -1.5, 3.0, 0.1]
_CHOICES: dict[str, tuple[Any, ...]] = {
    "approximate": ("none", "tanh"),
    "rounding_mode": (None, "floor", "trunc"),
    "start": (None, 0, 1, 2, -3, -7),
    "end": (None, 1, 3, 5, -1, -2),
}
"""By the argument's name, where its type does not tell what makes sense."""


def step_for(target: str, pool: Pool) -> Step | None:
    """A call of an op, or None when its schema asks for what this does not know."""
    name = natural_name(target)
    if name is None:
        return None
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    first: Ref | None = None
    for argument in overload(name)._schema.arguments:
        kind = str(argument.type)
        is_drawn = kind in _DRAWN or argument.name in (*_CHOICES, "dim")
        if argument.has_default_value() and (not is_drawn or pool.rng.random() < 0.5):
            continue
        value = _argument(kind, argument.name, pool, first)
        if value is _UNKNOWN:
            return None
        if first is None and isinstance(value, Ref):
            first = value
        if argument.kwarg_only or len(args) < _position(name, argument.name):
            kwargs[argument.name] = value
        else:
            args.append(value)
    return Step(name, tuple(args), kwargs)


def natural_name(target: str) -> str | None:
    """The op that a user's model calls where ExecuTorch's programs say `target`."""
    namespace, _, rest = target.partition(".")
    if namespace != "aten":
        return None
    if _COPY in rest:
        target = "aten." + rest.replace(_COPY, ".")
    try:
        return target if overload(target) is not None else None
    except AttributeError:
        return None


_UNKNOWN = object()
_DRAWN = {"number", "float", "int", "bool", "List[int]", "Optional[number]", "Optional[float]"}


def _position(name: str, argument: str) -> int:
    names = [a.name for a in overload(name)._schema.arguments]
    return names.index(argument)


def _argument(kind: str, name: str, pool: Pool, first: Ref | None) -> Any:
    rng = pool.rng
    rank = pool.value(first).dim() if first is not None else 0
    if name in _CHOICES:
        return rng.choice(_CHOICES[name])
    if kind == "Tensor":
        return pool.pick() if first is None else _other(pool, first)
    if kind in ("number", "float", "Optional[number]", "Optional[float]"):
        return rng.choice(_NUMBERS)
    if kind == "bool":
        return rng.random() < 0.5
    if kind == "int" or (kind == "Optional[int]" and name == "dim"):
        if "dim" in name:
            return rng.randint(-max(rank, 1), max(rank, 1) - 1)
        return rng.choice([0, 1, 2, 3])
    if kind == "List[int]" or (kind == "Optional[List[int]]" and name == "dim"):
        return sorted({rng.randrange(max(rank, 1)) for _ in range(rng.choice([1, 2]))})
    if kind.startswith("Optional["):
        return None
    return _UNKNOWN


def _other(pool: Pool, first: Ref) -> Ref:
    """A second tensor: of sizes that broadcast with the first one's."""
    rng = pool.rng
    shape = tuple(pool.value(first).shape)
    fit = [ref for ref in pool.refs() if _broadcasts(shape, tuple(pool.value(ref).shape))]
    if fit and rng.random() < 0.5:
        return rng.choice(fit)
    sizes = [size if rng.random() < 0.7 else 1 for size in shape]
    if pool.dynamic and shape and shape[0] == pool.batch:
        sizes[0] = shape[0]
    sizes = sizes[rng.choice([0, 0, 0, 1]) :]
    if rng.random() < 0.5 and len(pool.graph.inputs) < 5:
        return pool.new_input(sizes)
    return pool.weight(*sizes, around=rng.choice([0.0, 2.0]))


def _broadcasts(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    try:
        torch.broadcast_shapes(a, b)
    except RuntimeError:
        return False
    return True
