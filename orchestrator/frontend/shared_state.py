"""State that several methods share: a cache that prefill fills and decode extends.

ExecuTorch tells the mutable buffers of methods apart by their qualified names alone, and shares
them if its memory planning is asked to. Two things are seen to here before: methods that were
exported from one module by way of different wrappers, so that one buffer goes by several names,
and methods that only read what others write, to which the buffer is a constant otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

import torch
from executorch.exir import ExecutorchBackendConfig
from executorch.exir.passes import MemoryPlanningPass
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from ggml_delegate.program_editor import ProgramEditor, is_written
from orchestrator.frontend.errors import ModelError
from orchestrator.options import OptionError

Programs = Mapping[str, ExportedProgram]


@dataclass(frozen=True)
class SharedPrograms:
    """Programs whose buffers are named and declared so that ExecuTorch shares them.

    methods: by buffer that is shared, the names of the methods that read or write it.
    """

    programs: Programs
    methods: Mapping[str, tuple[str, ...]]

    def notes(self, method: str) -> Iterator[str]:
        """Yield what a method's report says about its state."""
        by_others: dict[str, list[str]] = {}
        for buffer, names in self.methods.items():
            if method in names:
                others = ", ".join(name for name in names if name != method)
                by_others.setdefault(others, []).append(buffer)
        for others, buffers in by_others.items():
            bytes_ = self._bytes(method, buffers)
            size = f" ({bytes_ / 1e6:.2f} MB)" if bytes_ > 10_000 else ""
            if len(buffers) == 1:
                yield f"Buffer {buffers[0]} is shared with {others}{size}."
            elif len(buffers) <= 4:
                yield f"Buffers {', '.join(buffers)} are shared with {others}{size}."
            else:
                some = f"{', '.join(buffers[:2])}, ..., {buffers[-1]}"
                yield f"{len(buffers)} buffers are shared with {others}{size}: {some}."

    def _bytes(self, method: str, buffers: Sequence[str]) -> int:
        program = self.programs[method]
        tensors = {**program.constants, **program.state_dict}
        return sum(tensors[buffer].nbytes for buffer in buffers)


def share_state(programs: Programs) -> SharedPrograms:
    """Find the buffers that some method writes and others name too, and prepare them for sharing.

    Args:
        programs: by method name, as torch.export.export gives them; they are left as they were.

    Raises:
        ModelError: buffers of one name that cannot be one: their sizes, dtypes or contents differ.
    """
    if len(programs) < 2:
        return SharedPrograms(programs, {})
    programs = _under_one_name(programs)
    named = {name: _buffers(program) for name, program in programs.items()}
    written = {name: _written(program) for name, program in programs.items()}
    methods = {}
    for buffer in dict.fromkeys(each for buffers in named.values() for each in buffers):
        names = tuple(name for name, buffers in named.items() if buffer in buffers)
        if len(names) > 1 and any(buffer in written[name] for name in names):
            methods[buffer] = names
    for buffer, names in methods.items():
        _check_alike(buffer, {name: named[name][buffer] for name in names})
    declared = {
        name: _declared_mutable(program, methods.keys() & named[name].keys() - written[name])
        for name, program in programs.items()
    }
    return SharedPrograms(declared, methods)


def shared_config(
    config: ExecutorchBackendConfig | None, buffers: Mapping[str, tuple[str, ...]]
) -> ExecutorchBackendConfig | None:
    """Return a configuration under which ExecuTorch gives shared buffers one place.

    config: the user's, or None for the default. buffers: see `SharedPrograms.methods`.

    Raises:
        OptionError: the user's memory planning cannot do that.
    """
    if not buffers:
        return config
    config = config or ExecutorchBackendConfig()
    planning = config.memory_planning_pass
    if isinstance(planning, Mapping):
        methods = dict.fromkeys(name for names in buffers.values() for name in names)
        used = {id(planning.get(name)): planning.get(name) for name in methods}
        if len(used) > 1 or None in used.values():
            _refuse(buffers, "it has passes of their own for methods that share them; give one")
        (planning,) = used.values()
        if set(config.memory_planning_pass) - set(methods):
            _refuse(buffers, "it has a pass by method; give one for all")
    if not getattr(planning, "alloc_mutable_buffers", True):
        return config  # Whoever runs the program provides them, by name.
    if type(planning) is not MemoryPlanningPass:
        if getattr(planning, "share_mutable_buffers", False):
            return config
        _refuse(buffers, f"its pass is a {type(planning).__name__}; use a MemoryPlanningPass")
    # A new one each time: the pass collects buffers, and never forgets them.
    shared = MemoryPlanningPass(
        memory_planning_algo=planning.memory_planning_algo,
        allow_lifetime_and_storage_overlap=planning.allow_lifetime_and_storage_overlap,
        alloc_graph_input=planning.alloc_graph_input,
        alloc_graph_output=planning.alloc_graph_output,
        share_mutable_buffers=True,
        alignment=planning.alignment,
    )
    return replace(config, memory_planning_pass=shared)


def _refuse(buffers: Mapping[str, tuple[str, ...]], why: str) -> NoReturn:
    buffer, names = next(iter(buffers.items()))
    raise OptionError(
        f"the memory planning of backend_config cannot share buffers such as {buffer!r}, of "
        f"methods {', '.join(names)}: {why}, or lower with share_buffers=False"
    )


def _buffers(program: ExportedProgram) -> dict[str, torch.Tensor]:
    """Buffers by qualified name."""
    found = {}
    for spec in program.graph_signature.input_specs:
        if spec.kind == InputKind.BUFFER and spec.target is not None:
            value = program.state_dict.get(spec.target, program.constants.get(spec.target))
            if isinstance(value, torch.Tensor):
                found[spec.target] = value
    return found


def _written(program: ExportedProgram) -> set[str]:
    """Qualified names of the buffers that a program writes to, functionalized or not."""
    names = program.graph_signature.inputs_to_buffers
    in_place = {
        names[node.name]
        for node in program.graph.nodes
        if node.op == "placeholder"
        and node.name in names
        and is_written(node, by_higher_order=False)
    }
    return in_place | set(program.graph_signature.buffers_to_mutate.values())


def _under_one_name(programs: Programs) -> Programs:
    """Rename buffers that are one tensor in memory, and written to, as in the first method."""
    owners: dict[tuple[object, ...], str] = {}
    state = {
        _place(buffers[target])
        for program in programs.values()
        if (buffers := _buffers(program))
        for target in _written(program) & buffers.keys()
    }
    renamed = {}
    for name, program in programs.items():
        buffers = _buffers(program)
        wanted: dict[str, str] = {}
        for target, value in buffers.items():
            place = _place(value)
            if place in state and owners.setdefault(place, target) != target:
                wanted[target] = owners[place]
        renamed[name] = _renamed(name, program, wanted)
    return renamed


def _renamed(method: str, program: ExportedProgram, wanted: Mapping[str, str]) -> ExportedProgram:
    if not wanted:
        return program
    taken = program.state_dict.keys() | program.constants.keys()
    editor = ProgramEditor(program)
    for old, new in wanted.items():
        if new in taken:
            raise ModelError(
                f"method {method!r} has buffer {old!r}, which another method knows as {new!r}, and "
                f"another tensor under that name; export both from the same module"
            )
        node = editor.placeholder_for(old)
        assert node is not None
        editor.rename(node, new)
    return editor.finish()


def _place(value: torch.Tensor) -> tuple[object, ...]:
    if value.numel() == 0:
        return (id(value),)
    return (value.data_ptr(), tuple(value.shape), value.stride(), value.dtype)


def _check_alike(buffer: str, values: Mapping[str, torch.Tensor]) -> None:
    (first, one), *others = values.items()
    for name, other in others:
        what = _difference(one, other)
        if what:
            raise ModelError(
                f"method {name!r} cannot share the mutable buffer {buffer!r} with {first!r}: "
                f"{what}. Export both methods from one module in one state, rename one of the "
                "buffers, or lower with share_buffers=False to give each method its own"
            )


def _difference(one: torch.Tensor, other: torch.Tensor) -> str:
    if one.dtype != other.dtype:
        return f"it is {_dtype(other)} here and {_dtype(one)} there"
    if one.shape != other.shape:
        return f"its sizes are {list(other.shape)} here and {list(one.shape)} there"
    if one.data_ptr() == other.data_ptr() and one.stride() == other.stride():
        return ""
    if not torch.equal(torch.nan_to_num(one), torch.nan_to_num(other)) or not torch.equal(
        one.isnan(), other.isnan()
    ):
        return "its contents differ"
    return ""


def _dtype(value: torch.Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def _declared_mutable(program: ExportedProgram, buffers: set[str]) -> ExportedProgram:
    """Return the program as one that writes back what is in buffers that it only reads.

    No pass then takes them for constants, and no delegate keeps a copy; no op comes of it.
    """
    if not buffers:
        return program
    editor = ProgramEditor(program)
    for target in sorted(buffers):
        node = editor.placeholder_for(target)
        assert node is not None
        if node.users:
            editor.declare_mutated(node)
    return editor.finish()
