"""Changes IR programs into well-formed ones with wrong contents, as fuzz/mutator.cpp does."""

from __future__ import annotations

import copy
import math
import random
import struct
from typing import Any

import numpy as np

from ggml_delegate import ir

MAX_ELEMENTS = 1 << 20
"""Of a program's tensors together: larger ones are slow, not wrong."""
_INTEGERS = [0, 1, 2, 3, 4, 8, 15, 16, 17, 255, 65535, 1 << 20, (1 << 31) - 1, 1 << 40, -1, -2]
_REALS = [0.0, -0.0, 1.0, -1.0, 0.5, 1e-5, 1e38, math.inf, -math.inf, math.nan]


def mutated(program: Any, rng: random.Random) -> bytes | None:
    """The bytes of a changed copy; None if the change has no bytes, or asks for too much."""
    changed = copy.deepcopy(program)
    for _ in range(rng.randint(1, 3)):
        rng.choice(_CHANGES)(changed, rng)
    try:
        data = ir.serialize(changed)
    except (TypeError, ValueError, OverflowError, AttributeError, struct.error):
        return None  # a number that its field cannot hold
    return data if _elements(changed) <= MAX_ELEMENTS else None


def _elements(program: Any) -> int:
    return sum(math.prod(max(d.value, 1) for d in t.dims or []) for t in program.tensors)


def _scramble(program: Any, rng: random.Random) -> None:
    """Another number somewhere."""
    holders = _holders(program)
    owner, name = rng.choice(holders)
    old = owner[name] if isinstance(owner, list) else getattr(owner, name)
    new: Any
    if isinstance(old, bool):
        new = not old
    elif isinstance(old, float):
        new = rng.choice(_REALS)
    else:
        new = rng.choice([old + 1, old - 1, rng.randrange(20), rng.choice(_INTEGERS)])
    if isinstance(owner, list):
        owner[name] = new
    else:
        setattr(owner, name, new)


def _holders(value: Any) -> list[tuple[Any, Any]]:
    """Every place of a number below an object: it and an attribute, or a list and an index."""
    found: list[tuple[Any, Any]] = []
    items = enumerate(value) if isinstance(value, list) else vars(value).items()
    for name, item in list(items):
        if isinstance(item, np.ndarray):
            item = item.tolist()
            setattr(value, str(name), item)
        if isinstance(item, bool | int | float):
            found.append((value, name))
        elif isinstance(item, list) or hasattr(item, "__dict__"):
            found += _holders(item)
    return found


def _copy_node(program: Any, rng: random.Random) -> None:
    """A node again, later, with a result of its own that may be an output."""
    if not program.nodes or len(program.nodes) > 40:
        return
    place = rng.randrange(len(program.nodes))
    node = copy.deepcopy(program.nodes[place])
    if node.outputs is not None and len(node.outputs) and node.outputs[0] < len(program.tensors):
        program.tensors.append(copy.deepcopy(program.tensors[node.outputs[0]]))
        node.outputs = [len(program.tensors) - 1]
    program.nodes.insert(rng.randint(place, len(program.nodes)), node)


def _drop_node(program: Any, rng: random.Random) -> None:
    if program.nodes:
        program.nodes.pop(rng.randrange(len(program.nodes)))


def _change_op(program: Any, rng: random.Random) -> None:
    if program.nodes:
        node, name = rng.choice(program.nodes), rng.choice(list(ir.OPS))
        node.op, node.opType = ir.make(name), ir.OPS[name]


def _change_inputs(program: Any, rng: random.Random) -> None:
    if not program.nodes:
        return
    node = rng.choice(program.nodes)
    inputs = [int(number) for number in node.inputs] if node.inputs is not None else []
    kind = rng.randrange(6)
    if kind == 0:
        inputs.append(rng.randrange(len(program.tensors)))
    elif kind == 1 and inputs:
        inputs.pop(rng.randrange(len(inputs)))
    elif inputs:
        inputs[rng.randrange(len(inputs))] = rng.choice([-1, *range(len(program.tensors))])
    node.inputs = inputs


def _change_sizes(program: Any, rng: random.Random) -> None:
    dims = rng.choice(program.tensors).dims
    kind = rng.randrange(5)
    if kind == 0:
        dims.insert(rng.randint(0, len(dims)), ir.Dim(value=rng.randrange(4), expr=-1))
    elif kind == 1 and dims:
        dims.pop(rng.randrange(len(dims)))
    elif kind == 2:
        rng.shuffle(dims)
    elif dims:
        rng.choice(dims).value = rng.choice([rng.randrange(20), rng.choice(_INTEGERS)])


def _share_sizes(program: Any, rng: random.Random) -> None:
    one, other = rng.choice(program.tensors), rng.choice(program.tensors)
    one.dims = copy.deepcopy(other.dims)


def _change_tensor(program: Any, rng: random.Random) -> None:
    tensor = rng.choice(program.tensors)
    kind = rng.randrange(4)
    if kind == 0:
        tensor.dtype = rng.randrange(7)
    elif kind == 1:
        tensor.dataKey = rng.choice(program.tensors).dataKey
    elif kind == 2:
        tensor.isScalar = not tensor.isScalar
    else:
        tensor.dimOrder = rng.sample(range(len(tensor.dims)), len(tensor.dims))


_CHANGES = [
    _scramble,
    _scramble,
    _copy_node,
    _drop_node,
    _change_op,
    _change_inputs,
    _change_inputs,
    _change_sizes,
    _share_sizes,
    _change_tensor,
]
