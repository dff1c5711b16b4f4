"""Whatever a file says, loading or running it ends in an error, never in a crash."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import torch

from ggml_delegate import ir, preprocess
from orchestrator.native import NativeProgram
from tests.harness.ops import lower_ggml

Mutation = Callable[[Any], None]


class _Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.linear(x)) + 1.0


def _lower(
    monkeypatch: pytest.MonkeyPatch,
    mutate: Mutation | None = None,
    mutate_bytes: Callable[[bytes], bytes] | None = None,
    dynamic: bool = False,
    model: torch.nn.Module | None = None,
    x: torch.Tensor | None = None,
) -> bytes:
    serialize = ir.serialize

    def patched(program: Any) -> bytes:
        if mutate is not None:
            mutate(program)
        data = serialize(program)
        return mutate_bytes(data) if mutate_bytes is not None else data

    monkeypatch.setattr(preprocess.ir, "serialize", patched)
    torch.manual_seed(0)
    shapes = ({0: torch.export.Dim("n", min=2, max=32)},) if dynamic else None
    model = _Model() if model is None else model
    program, _, _ = lower_ggml(model, (torch.randn(3, 16) if x is None else x,), shapes)
    return bytes(program.buffer)


def _fails(buffer: bytes, rows: int = 3) -> str:
    with pytest.raises(RuntimeError) as error:
        NativeProgram(buffer).run("forward", [torch.randn(rows, 16)])
    return str(error.value)


def test_the_unchanged_program_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = _lower(monkeypatch, mutate=lambda program: None)
    x = torch.randn(3, 16)
    torch.manual_seed(0)
    torch.testing.assert_close(NativeProgram(buffer).run("forward", [x])[0], _Model()(x))


def _op(program: Any, name: str) -> Any:
    return next(node for node in program.nodes if ir.op_name(node) == name)


def _set_identifier(data: bytes) -> bytes:
    return data[:4] + b"XXXX" + data[8:]


def _set(path: str, value: Any) -> Mutation:
    """Sets program.<path>, e.g. "nodes.0.outputs"."""

    def mutate(program: Any) -> None:
        *owners, name = path.split(".")
        target = program
        for owner in owners:
            target = target[int(owner)] if owner.isdigit() else getattr(target, owner)
        setattr(target, name, value)

    return mutate


def _replace(
    program: Any,
    sizes: list[list[int]],
    ops: list[Any],
    inputs: dict[int, list[int]] | None = None,
) -> None:
    """Makes the program a chain of ops on its first input, with results of these sizes.

    inputs: of some ops by number, as numbers of results; the input of the program is 0.
    """
    first = program.tensors[program.inputs[0]]
    results = [ir.Tensor(dims=[ir.Dim(value=n, expr=-1) for n in shape]) for shape in sizes]
    program.tensors = [first, *results]
    program.inputs, program.outputs = [0], [len(sizes)]
    program.nodes = [
        ir.Node(
            op=op,
            opType=ir.OPS[type(op).__name__.removesuffix("T")],
            inputs=(inputs or {}).get(number, [number]),
            outputs=[number + 1],
            debugHandles=[],
        )
        for number, op in enumerate(ops)
    ]


MUTATIONS: dict[str, Mutation] = {
    "another version": _set("version", 999),
    "no tensors": _set("tensors", []),
    "input out of range": _set("inputs", [1_000_000]),
    "input given twice": lambda p: p.inputs.append(p.inputs[0]),
    "input is a constant": lambda p: p.inputs.append(
        next(i for i, t in enumerate(p.tensors) if t.dataKey)
    ),
    "output out of range": _set("outputs", [1_000_000]),
    "output never computed": lambda p: (
        p.tensors.append(ir.Tensor(dims=[])),
        p.outputs.append(len(p.tensors) - 1),
    ),
    "node input out of range": _set("nodes.0.inputs", [1_000_000, 0, 0]),
    "node input negative": _set("nodes.0.inputs", [-7, 0, 0]),
    "node input absent": _set("nodes.0.inputs", [-1, -1, -1]),
    "node without inputs": _set("nodes.0.inputs", []),
    "forward reference": lambda p: setattr(p.nodes[0], "inputs", [p.nodes[-1].outputs[0]] * 3),
    "cyclic reference": lambda p: setattr(p.nodes[0], "inputs", [p.nodes[0].outputs[0]] * 3),
    "node output defined twice": lambda p: setattr(p.nodes[1], "outputs", p.nodes[0].outputs),
    "node output is an input": lambda p: setattr(p.nodes[0], "outputs", [p.inputs[0]]),
    "node with no output": _set("nodes.0.outputs", []),
    "node with two outputs": lambda p: p.nodes[0].outputs.append(p.nodes[1].outputs[0]),
    "unknown op": lambda p: (setattr(p.nodes[0], "opType", 0), setattr(p.nodes[0], "op", None)),
    "op beyond the union": _set("nodes.0.opType", 250),
    "missing nodes": _set("nodes", []),
    "weight key unknown": lambda p: [
        setattr(t, "dataKey", "ggml/none") for t in p.tensors if t.dataKey
    ],
    "weight too large": lambda p: [
        setattr(t, "dims", [ir.Dim(value=1 << 20, expr=-1)] * 2) for t in p.tensors if t.dataKey
    ],
    "weight of other sizes": lambda p: [
        setattr(t, "dims", list(reversed(t.dims))) for t in p.tensors if t.dataKey
    ],
    "weight with a wrong dtype": lambda p: [
        setattr(t, "dtype", ir.DType.Int64) for t in p.tensors if t.dataKey
    ],
    "unknown dtype": _set("tensors.0.dtype", 77),
    "rank 9": _set("tensors.0.dims", [ir.Dim(value=1, expr=-1)] * 9),
    "size negative": _set("tensors.0.dims", [ir.Dim(value=-3, expr=-1)] * 2),
    "sizes overflow": lambda p: [
        setattr(t, "dims", [ir.Dim(value=1 << 39, expr=-1)] * 8) for t in p.tensors if not t.dataKey
    ],
    "intermediate of other sizes": lambda p: setattr(
        p.tensors[p.nodes[0].outputs[0]], "dims", [ir.Dim(value=5, expr=-1)]
    ),
    "dim order of another rank": _set("tensors.0.dimOrder", [0, 1, 2]),
    "dim order with a repeat": _set("tensors.0.dimOrder", [1, 1]),
    "expression out of range": _set("tensors.0.dims", [ir.Dim(value=3, expr=9)] * 2),
    "scalar as an output": lambda p: (
        setattr(p.tensors[p.inputs[0]], "isScalar", True),
        setattr(p.tensors[p.inputs[0]], "dims", []),
        setattr(p, "nodes", []),
        setattr(p, "outputs", p.inputs),
    ),
    "scalar computed by a node": lambda p: (
        setattr(p.tensors[p.outputs[0]], "isScalar", True),
        setattr(p.tensors[p.outputs[0]], "dims", []),
    ),
    "padded to another rank": lambda p: _replace(
        p,
        [[3, 16, 2], [3, 4]],
        [ir.Pad(before=[0, 0], after=[0, 0]), ir.Reshape()],
    ),
    "operands that do not broadcast to a number": lambda p: _replace(
        p, [[48], [], [3, 4]], [ir.Reshape(), ir.Binary(), ir.Expand()], {1: [0, 1]}
    ),
    "scalar as a tensor": lambda p: (
        setattr(p.tensors[p.inputs[0]], "isScalar", True),
        setattr(p.tensors[p.inputs[0]], "dims", []),
    ),
}


@pytest.mark.parametrize("mutation", MUTATIONS.values(), ids=MUTATIONS.keys())
def test_a_wrong_program_is_an_error(monkeypatch: pytest.MonkeyPatch, mutation: Mutation) -> None:
    assert _fails(_lower(monkeypatch, mutate=mutation))


DYNAMIC: dict[str, Mutation] = {
    "symbol bound by nothing": _set("bindings", []),
    "binding of an unknown symbol": _set("bindings.0.symbol", 5),
    "binding of an unknown input": _set("bindings.0.input", 5),
    "binding of an unknown dimension": _set("bindings.0.dim", 7),
    "binding scaled by zero": _set("bindings.0.scale", 0),
    "bounds reversed": lambda p: (
        setattr(p.symbols[0], "min", 9),
        setattr(p.symbols[0], "max", 3),
    ),
    "expression empty": _set("exprs.0.tokens", []),
    "expression lacks operands": _set("exprs.0.tokens", [ir.ExprToken(op=ir.ExprOp.Add, value=0)]),
    "expression leaves two values": _set(
        "exprs.0.tokens", [ir.ExprToken(op=ir.ExprOp.Const, value=3)] * 2
    ),
    "expression names an unknown symbol": _set(
        "exprs.0.tokens", [ir.ExprToken(op=ir.ExprOp.Symbol, value=5)]
    ),
    "unknown operator": _set("exprs.0.tokens", [ir.ExprToken(op=99, value=5)]),
    "division by zero": lambda p: setattr(
        p.exprs[0],
        "tokens",
        [
            ir.ExprToken(op=ir.ExprOp.Symbol, value=0),
            ir.ExprToken(op=ir.ExprOp.Const, value=0),
            ir.ExprToken(op=ir.ExprOp.FloorDiv, value=0),
        ],
    ),
    "remainder of the least number": lambda p: setattr(
        p.exprs[0],
        "tokens",
        [
            ir.ExprToken(op=ir.ExprOp.Const, value=-(1 << 63)),
            ir.ExprToken(op=ir.ExprOp.Const, value=7),
            ir.ExprToken(op=ir.ExprOp.Mod, value=0),
        ],
    ),
    "overflow": lambda p: setattr(
        p.exprs[0],
        "tokens",
        [
            ir.ExprToken(op=ir.ExprOp.Const, value=(1 << 62)),
            ir.ExprToken(op=ir.ExprOp.Const, value=(1 << 62)),
            ir.ExprToken(op=ir.ExprOp.Mul, value=0),
        ],
    ),
    "above its bound": _set("exprs.0.tokens", [ir.ExprToken(op=ir.ExprOp.Const, value=1000)]),
}


@pytest.mark.parametrize("mutation", DYNAMIC.values(), ids=DYNAMIC.keys())
def test_a_wrong_size_expression_is_an_error(
    monkeypatch: pytest.MonkeyPatch, mutation: Mutation
) -> None:
    assert _fails(_lower(monkeypatch, mutate=mutation, dynamic=True))


def test_a_converted_input_beyond_the_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Found by fuzzing: a file may ask for memory to convert an input in; the limit holds there."""

    def enlarge(program: Any) -> None:
        for tensor in program.tensors:
            tensor.dims = [ir.Dim(value=1 << 18, expr=-1), ir.Dim(value=1 << 20, expr=-1)]

    class Exponents(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.float().exp()

    x = torch.ones(3, 16, dtype=torch.int64)
    for dtype in (torch.float32, torch.int64):
        with monkeypatch.context() as patch:
            buffer = _lower(patch, mutate=enlarge, model=Exponents(), x=x.to(dtype))
        with pytest.raises(RuntimeError) as error:
            NativeProgram(buffer).run("forward", [x.to(dtype)])
        # Float32 needs no copy; the tensor is not the one that the partition was made for.
        assert ("bytes of memory; the limit is" in str(error.value)) == (dtype == torch.int64)


def test_a_wrong_identifier_is_an_error_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    message = _fails(_lower(monkeypatch, mutate_bytes=_set_identifier))
    assert "GGIR" in message


# Where the schema has vectors of structs: from the program to the table that holds one, and the
# field's place in that table.
_STRUCTS: dict[str, Callable[[Any], tuple[Any, int]]] = {
    "expression 0": lambda p: (p.Exprs(0), 0),
    "sizes of tensor": lambda p: (p.Tensors(0), 1),
    "bindings": lambda p: (p, 7),
}


@pytest.mark.parametrize("what", _STRUCTS)
def test_structs_at_an_odd_address_are_an_error_that_names_them(
    monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Found by fuzzing: FlatBuffers' verifier lets them pass, and they were read as if aligned."""

    def misalign(data: bytes) -> bytes:
        holder, field = _STRUCTS[what](ir.generated.Program.GetRootAs(data))
        table = holder._tab
        place = table.Pos + table.Offset(4 + 2 * field)
        old = place + int.from_bytes(data[place : place + 4], "little")
        count = int.from_bytes(data[old : old + 4], "little")
        assert count > 0
        # Structs of 8-byte alignment start 4 bytes behind the count, which goes to a multiple of 8.
        moved = data + bytes(-len(data) % 8)
        offset = (len(moved) - place).to_bytes(4, "little")
        copy = data[old : old + 4 + 32 * count]
        return moved[:place] + offset + moved[place + 4 :] + copy + bytes(64 * count)

    message = _fails(_lower(monkeypatch, mutate_bytes=misalign, dynamic=True))
    assert what in message
    assert "misaligned" in message


def test_a_run_on_no_rows_gives_no_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Found by fuzzing: where all activations are empty, ggml allocated a tensor twice."""

    def chain(program: Any) -> None:
        sizes = program.tensors[program.inputs[0]].dims
        kinds = (ir.UnaryKind.Neg, ir.UnaryKind.Exp, ir.UnaryKind.Abs, ir.UnaryKind.Neg)
        ops = [ir.Unary(kind=kind) for kind in kinds]
        _replace(program, [[3, 16]] * 3 + [[3, 4]], [*ops[:3], ir.Slice(start=ir.Dim(value=0))])
        program.nodes[3].op.dim = 1
        program.nodes[3].op.start.expr = -1
        program.symbols[0].min = 0
        for tensor in program.tensors:
            tensor.dims = [sizes[0], *tensor.dims[1:]]

    program = NativeProgram(_lower(monkeypatch, mutate=chain, dynamic=True))
    for rows in (0, 5, 0):
        x = torch.randn(rows, 16)
        result = program.run("forward", [x])[0]
        torch.testing.assert_close(result, (-x).exp()[:, :4])


def test_a_program_of_empty_tensors_asks_for_empty_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    def empty(program: Any) -> None:
        _replace(program, [[0, 16], [0, 4]], [ir.Unary(), ir.Reshape()])
        program.tensors[0].dims[0].value = 0

    assert "expected 0" in _fails(_lower(monkeypatch, mutate=empty))


def test_huge_sizes_next_to_one_of_zero_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Found by fuzzing: the strides of such a tensor overflowed."""

    def empty(program: Any) -> None:
        huge = [2**31, 2**40, 0]
        _replace(program, [[0, 16], huge, [0, 4]], [ir.Unary(), ir.Reshape(), ir.Reshape()])
        program.tensors[0].dims[0].value = 0

    assert "has over" in _fails(_lower(monkeypatch, mutate=empty), rows=0)


def test_attention_beyond_any_tensor_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of repeated queries, which take no memory: the count of elements wraps to a small one."""
    heads, width, count = 1099510579201, 16777232, 16
    assert heads * width == 2**64 + count

    def attend(program: Any) -> None:
        start = ir.Dim(value=0, expr=-1)
        one, few = ir.Slice(dim=3, start=start, step=1), ir.Slice(dim=0, start=start, step=1)
        ops = [ir.Reshape(), one, ir.Expand(), ir.Expand(), ir.Attention(), few, ir.Reshape()]
        sizes = [[1, 1, 1, 48], [1, 1, 1, 1], [1, heads, 1, 1], [1, 1, 1, width], [count]]
        _replace(program, [*sizes, [12], [3, 4]], ops, {3: [2], 4: [3, 2, 4]})

    assert "over 1099511627776 elements" in _fails(_lower(monkeypatch, mutate=attend))


@pytest.mark.parametrize("keys", [2**24, 2**39])
def test_a_mask_beyond_any_tensor_is_an_error(monkeypatch: pytest.MonkeyPatch, keys: int) -> None:
    def attend(program: Any) -> None:
        one = ir.Slice(dim=3, start=ir.Dim(value=0, expr=-1), step=1)
        ops = [ir.Reshape(), one, *[ir.Expand()] * 3, ir.Attention(), ir.Reshape()]
        many = [1, 1, 2**40, 1]
        sizes = [[1, 1, 1, 48], [1, 1, 1, 1], many, [1, 1, keys, 1], many, many, [3, 4]]
        inputs = {3: [2], 4: [2], 5: [3, 4, 4, 5]}
        _replace(program, sizes, ops, inputs)

    assert "over 1099511627776 elements" in _fails(_lower(monkeypatch, mutate=attend))


@pytest.mark.parametrize("kind", [ir.ResizeKind.Nearest, ir.ResizeKind.Bilinear])
def test_steps_far_beyond_an_image_give_its_last_element(
    monkeypatch: pytest.MonkeyPatch, kind: int
) -> None:
    """Found by fuzzing: the place was converted to an integer that cannot hold it."""

    def resize(program: Any) -> None:
        op = ir.Resize2d(kind=kind, stepH=1e38, stepW=1e38)
        shapes = [[1, 1, 3, 16], [1, 1, 3, 4], [3, 4]]
        _replace(program, shapes, [ir.Reshape(), op, ir.Reshape()])

    x = torch.randn(3, 16)
    result = NativeProgram(_lower(monkeypatch, mutate=resize)).run("forward", [x])[0]
    assert torch.as_tensor(result)[2, 3] == x[2, 15]


@pytest.mark.parametrize("keep", [0, 1, 7, 15, 16, 40, 100, 200, -8, -1])
def test_truncated_bytes_are_an_error(monkeypatch: pytest.MonkeyPatch, keep: int) -> None:
    assert _fails(_lower(monkeypatch, mutate_bytes=lambda data: data[:keep]))


@pytest.mark.parametrize("seed", range(40))
def test_random_bytes_in_a_program_never_crash(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)

    def scramble(data: bytes) -> bytes:
        changed = bytearray(data)
        for _ in range(1 + seed % 4):
            place = int(torch.randint(8, len(changed), (1,), generator=generator))
            changed[place] = int(torch.randint(0, 256, (1,), generator=generator))
        return bytes(changed)

    buffer = _lower(monkeypatch, mutate_bytes=scramble)
    # An error is right; so is a result, when the change meant nothing.
    with contextlib.suppress(RuntimeError):
        NativeProgram(buffer).run("forward", [torch.randn(3, 16)])
