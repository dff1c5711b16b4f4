"""Running ExecuTorch programs natively, on torch tensors or numpy arrays.

Importing this module does not import torch; tensors are recognised if the caller has done so.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from _ggml_delegate import _runtime
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

Scalar: TypeAlias = "bool | int | float | str | None"
Input: TypeAlias = "torch.Tensor | NDArray[Any] | Scalar"
Output: TypeAlias = "torch.Tensor | NDArray[Any] | Scalar"

ExecuTorchError: type[RuntimeError] = _runtime.ExecuTorchError
"""ExecuTorch refused a program or failed while running it.

`code` is ExecuTorch's name of the error ("InvalidProgram", "NotFound", ...), `log` the lines that
it logged about it, oldest first.
"""

# The name that numpy works out anew for each dtype takes longer than a small method runs.
_NUMPY_NAMES = {
    np.dtype(name): name
    for name in (
        *("float16", "float32", "float64", "bool"),
        *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    )
}


def missing_backends(ids: Iterable[str]) -> tuple[str, ...]:
    """Returns those ids of delegates that are not registered in this process, sorted."""
    return tuple(sorted(set(ids) - set(_runtime.registered_backends())))


def load_libraries(paths: Iterable[str | os.PathLike[str]]) -> None:
    """Loads shared libraries that register delegates; those that are loaded stay as they are.

    Raises:
        OSError: one cannot be loaded; the dynamic linker's message names it.

    """
    for path in paths:
        try:
            _runtime.load_library(os.fspath(path))
        except RuntimeError as error:
            raise OSError(f"a library that brings a delegate cannot be loaded: {error}") from None


@dataclass(frozen=True)
class TensorInfo:
    """A tensor that a method takes or returns.

    `sizes` are upper bounds when `is_dynamic`: a program does not say which of its dimensions
    vary. `dim_order` lists the dimensions from outermost to innermost in memory: (0, 2, 3, 1) is
    channels-last. `is_memory_planned` tensors live in the method's own memory, so that inputs are
    copied there and outputs copied from there; the others are read and written in place.
    """

    dtype: str
    sizes: tuple[int, ...]
    dim_order: tuple[int, ...]
    is_dynamic: bool
    is_memory_planned: bool

    @property
    def strides(self) -> tuple[int, ...]:
        """Strides, in elements, of a tensor of `sizes`."""
        strides = [0] * len(self.sizes)
        stride = 1
        for dim in reversed(self.dim_order):
            strides[dim] = stride
            stride *= max(self.sizes[dim], 1)
        return tuple(strides)


@dataclass(frozen=True)
class ScalarInfo:
    """A scalar that a method takes or returns.

    `kind` is "bool", "int", "float", "str" or "None". A method is specialised on its scalar inputs
    when it is exported: it takes only `value`, which is None for outputs.
    """

    kind: str
    value: Scalar = None


@dataclass(frozen=True)
class MethodInfo:
    """What a method takes, returns, and runs on; `backends` are the ids of its delegates."""

    name: str
    inputs: tuple[TensorInfo | ScalarInfo, ...]
    outputs: tuple[TensorInfo | ScalarInfo, ...]
    backends: tuple[str, ...]


@dataclass(frozen=True)
class ProgramState:
    """What runs of a program leave behind for the next ones.

    shared: the memory of the mutable buffers that its methods share; None if there are none.
    methods: that of each method's own tensors, mutable buffers among them, by its name.
    """

    shared: bytes | None
    methods: Mapping[str, bytes]


class NativeProgram:
    """An ExecuTorch program (.pte), loaded into this process.

    `source` is a path or the file's bytes. A file is mapped and must not change meanwhile; bytes
    are kept alive and used in place, other writable buffers are copied.

    `num_threads` limits what this program computes with: 1 keeps it off ExecuTorch's thread pool,
    0 uses the whole pool, numbers above its size mean its size. Programs with different numbers
    above 1 wait for each other while they run, because ExecuTorch has one pool per process.

    `backend_options` are options to load delegates with, by their ids and then by name; those for
    delegates that the program does not use are left out. `num_threads`, where it is given, is one
    more option of every delegate.

    `etdump` records a profile of loading and running methods, for etdump(). `values` records what
    every delegate call and kernel takes and gives, for values(), which takes memory for all of it.

    All methods may be called from any thread; runs of one program go one after another, those of
    different programs at once. Python's lock is released meanwhile. A process that forks must load
    its programs afterwards: threads do not survive a fork.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: the library of a delegate that it calls cannot be loaded.
        ExecuTorchError: the file is truncated, corrupt or no program.
        TypeError, ValueError: an argument of a wrong type, a negative `num_threads`, or an option
            whose name or text is too long.

    """

    def __init__(
        self,
        source: str | os.PathLike[str] | bytes | bytearray | memoryview,
        *,
        num_threads: int = 0,
        etdump: bool = False,
        values: bool = False,
        backend_options: Mapping[str, Mapping[str, bool | int | str]] | None = None,
    ) -> None:
        """Loads the program; methods load when they are first needed."""
        if isinstance(source, os.PathLike):
            source = os.fspath(source)
        if isinstance(source, str) and not os.path.exists(source):  # noqa: PTH110
            raise FileNotFoundError(f"there is no program file '{source}'")
        self._program = _runtime.Program(
            source,
            num_threads=num_threads,
            etdump=etdump,
            values=values,
            backend_options={key: dict(each) for key, each in (backend_options or {}).items()},
        )
        self._infos: dict[str, MethodInfo] = {}
        self._bring_delegates()

    @classmethod
    def mapped(
        cls,
        buffer: bytes,
        *,
        num_threads: int = 0,
        backend_options: Mapping[str, Mapping[str, bool | int | str]] | None = None,
    ) -> NativeProgram:
        """Loads bytes through a temporary file, mapped as where a program is deployed.

        Weights are aligned there as in the file; bytes in place lie anywhere, and are slower to
        read: what is timed should be loaded like this.
        """
        with tempfile.NamedTemporaryFile(suffix=".pte") as file:
            file.write(buffer)
            file.flush()
            return cls(file.name, num_threads=num_threads, backend_options=backend_options)

    def __repr__(self) -> str:
        """Names the source and the methods."""
        return f"NativeProgram({self._program.source}, methods: {', '.join(self.method_names)})"

    @property
    def method_names(self) -> tuple[str, ...]:
        """The methods' names, in the file's order."""
        return tuple(self._program.method_names())

    @property
    def fallbacks(self) -> Mapping[str, str]:
        """Methods whose delegates cannot be used here, and those that run in their place.

        A program has such methods if it was lowered with `fallback=True`.
        """
        return dict(self._program.fallbacks())

    @property
    def num_threads(self) -> int:
        """The number of threads that runs use."""
        return int(self._program.num_threads)

    def backends(self, method: str = "forward") -> tuple[str, ...]:
        """The ids of the delegates that a method calls; the method need not be loadable."""
        return tuple(self._program.peek(method).backends)

    def _bring_delegates(self) -> None:
        """Loads the libraries of delegates that are not in this process, where they are known.

        A delegate that stays away is an error where a method that calls it is loaded.

        Raises:
            OSError: a library that a backend names cannot be loaded.

        """
        with contextlib.suppress(ExecuTorchError):
            needed = {each for name in self.method_names for each in self.backends(name)}
            missing = missing_backends(needed)
            if missing:
                with contextlib.suppress(ImportError):  # without torch nothing is known of backends
                    from orchestrator.backends.registry import libraries_of

                    for backend_id in missing:
                        load_libraries(libraries_of(backend_id))

    def method(self, method: str = "forward") -> MethodInfo:
        """Describes a method, and loads it for that the first time.

        Raises:
            ValueError: there is no such method.
            ExecuTorchError: the method cannot be loaded; missing backends and kernels are named.

        """
        known = self._infos.get(method)
        if known is None:
            info = self._program.method(method)
            known = self._infos[method] = MethodInfo(
                name=info.name,
                inputs=tuple(map(_value_info, info.inputs)),
                outputs=tuple(map(_value_info, info.outputs)),
                backends=tuple(info.backends),
            )
        return known

    def run(self, method: str, inputs: Sequence[Input], *, relayout: bool = False) -> list[Output]:
        """Runs a method.

        Tensors must have the method's dtype, its sizes (at most its upper bounds where they are
        dynamic) and the dense layout of its dim order; they are read in place. With `relayout`,
        tensors in another layout are copied into the right one instead of being refused.

        Outputs are new and of the inputs' kind: numpy arrays if all tensors given are arrays,
        torch tensors otherwise. They have the actual sizes and the layout that the method gave
        them. numpy has no bfloat16, so such outputs need a torch tensor among the inputs, or none.

        Raises:
            TypeError: an input is no tensor or scalar, or one of another kind or dtype.
            ValueError: a wrong number of inputs, sizes, layout or scalar value; no such method.
            ExecuTorchError: the method cannot be loaded or failed.

        """
        buffers, as_numpy = _buffers(inputs)
        if as_numpy:
            self._refuse_bfloat16_arrays(method)
        if relayout:
            buffers = self._relayout(method, buffers)
        outputs = self._program.run(method, buffers)
        return [_from_native(output, as_numpy) for output in outputs]

    def time(
        self,
        method: str,
        inputs: Sequence[Input],
        *,
        runs: int,
        warmup: int = 1,
        in_cache: bool = False,
    ) -> list[int]:
        """Times a method: the nanoseconds that each of `runs` runs took, after `warmup` others.

        Only the method counts, not handing its inputs and outputs over. Raises as run() does.

        Args:
            method: its name.
            inputs: as for run().
            runs: how many, 1 or more.
            warmup: how many before them, 0 or more.
            in_cache: bring the method's memory into the caches before each run, as an op finds it
                inside a program; else it is as whatever ran before left it.

        """
        buffers, _ = _buffers(inputs)
        return list(
            self._program.time(method, buffers, runs=runs, warmup=warmup, in_cache=in_cache)
        )

    def __call__(self, *inputs: Input) -> list[Output]:
        """Runs "forward": see run()."""
        return self.run("forward", inputs)

    def unload(self, method: str) -> None:
        """Frees a method's memory and delegates until it is needed again.

        Its mutable buffers start anew then, but for those that it shares with other methods:
        these live as long as the program, and what was written to them stays.
        """
        self._program.unload(method)

    def state(self) -> ProgramState:
        """Copies the mutable buffers, with whatever lies in the memory of tensors beside them.

        All methods are loaded for that.

        Raises:
            ExecuTorchError: a method cannot be loaded.

        """
        return ProgramState(*self._program.state())

    def restore(self, state: ProgramState) -> None:
        """Puts back a state of this program, which may be of another process.

        What decides the layout of memory is the file: give a state only to the program that it is
        of.

        Raises:
            ValueError: the state has other methods or sizes. Nothing has changed then.
            ExecuTorchError: a method cannot be loaded.

        """
        self._program.restore(state.shared, dict(state.methods))

    def reset(self) -> None:
        """Gives all mutable buffers their first values; methods are loaded again when needed."""
        self._program.reset()

    def etdump(self) -> bytes:
        """Takes the profile recorded since the last call, for ExecuTorch's Inspector.

        Raises:
            ValueError: the program was not loaded with `etdump=True`.

        """
        return bytes(self._program.etdump())

    def values(self) -> list[tuple[int, Output]]:
        """Takes the values recorded since the last call, as torch tensors and integers.

        Each with the number of the program's instruction that it belongs to, in the order of the
        calls. A delegate call has its inputs, then its outputs; a kernel has its outputs. None
        stands for what is neither a tensor with data nor an integer.

        Raises:
            ValueError: the program was not loaded with `values=True`.

        """
        return [
            (instruction, _from_native(value, as_numpy=False))
            for instruction, value in self._program.values()
        ]

    def _refuse_bfloat16_arrays(self, method: str) -> None:
        for index, output in enumerate(self.method(method).outputs):
            if isinstance(output, TensorInfo) and output.dtype == "bfloat16":
                raise TypeError(
                    f"{self._program.source}: method '{method}', output {index} is bfloat16, which "
                    f"numpy does not have: give the inputs as torch tensors"
                )

    def _relayout(self, method: str, buffers: list[Any]) -> list[Any]:
        """Copies tensors into the dim orders of a method's inputs, where they differ."""
        result = []
        infos = self.method(method).inputs
        for value, info in zip_longest(buffers, infos[: len(buffers)]):
            if isinstance(value, tuple) and isinstance(info, TensorInfo):
                array, dtype = value
                if array.ndim == len(info.dim_order):
                    array = in_dim_order(array, info.dim_order)
                value = (array, dtype)
            result.append(value)
        return result


def has_tiles() -> bool:
    """Whether the ggml delegate multiplies with this processor's tile instructions (AMX)."""
    return bool(_runtime.has_tiles())


def has_byte_products() -> bool:
    """Whether the ggml delegate multiplies bytes by an instruction for it (AVX-512 VNNI)."""
    return bool(_runtime.has_byte_products())


def _value_info(info: Any) -> TensorInfo | ScalarInfo:
    if info.kind != "tensor":
        return ScalarInfo(kind=info.kind, value=info.value)
    return TensorInfo(
        dtype=info.dtype,
        sizes=info.sizes,
        dim_order=info.dim_order,
        is_dynamic=info.is_dynamic,
        is_memory_planned=info.is_memory_planned,
    )


def _buffers(inputs: Sequence[Input]) -> tuple[list[Any], bool]:
    """Inputs as the native module takes them, and whether all tensors among them are arrays."""
    torch = sys.modules.get("torch")
    tensor_type: Any = torch.Tensor if torch is not None else ()
    buffers: list[Any] = []
    arrays = tensors = 0
    for index, value in enumerate(inputs):
        if isinstance(value, tensor_type):
            tensors += 1
            buffers.append(_tensor_buffer(torch, value, index))
        elif isinstance(value, np.ndarray):
            arrays += 1
            buffers.append(_array_buffer(value, index))
        elif isinstance(value, np.generic) and not isinstance(value, bool | int | float | str):
            buffers.append(_array_buffer(np.asarray(value), index))
        else:
            buffers.append(value)
    return buffers, arrays > 0 and tensors == 0


def _array_buffer(array: NDArray[Any], index: int) -> tuple[NDArray[Any], str]:
    name = _NUMPY_NAMES.get(array.dtype)
    if name is None:
        if not array.dtype.isnative:
            raise TypeError(
                f"input {index}: expected the machine's byte order, found dtype {array.dtype.str}"
            )
        name = array.dtype.name
    return array, name


def _tensor_buffer(torch: Any, tensor: Any, index: int) -> tuple[NDArray[Any], str]:
    if not tensor.is_cpu or tensor.layout is not torch.strided:
        raise TypeError(
            f"input {index}: expected a dense tensor on the CPU, found one on {tensor.device}"
            f" with layout {tensor.layout}"
        )
    try:
        data = tensor.detach() if tensor.requires_grad else tensor
        if data.dtype == torch.bfloat16:  # numpy has no such type
            return data.view(torch.uint16).numpy(), "bfloat16"
        return data.numpy(), str(data.dtype).removeprefix("torch.")
    except (RuntimeError, TypeError) as error:
        raise TypeError(f"input {index}: the tensor's memory cannot be read: {error}") from error


def in_dim_order(array: NDArray[Any], dim_order: tuple[int, ...]) -> NDArray[Any]:
    """Return the same array, copied unless it is dense in that order already."""
    if dim_order == tuple(range(array.ndim)):
        return np.asarray(array, order="C")
    ordered: NDArray[Any] = np.asarray(array.transpose(dim_order), order="C")
    inverse: NDArray[Any] = ordered.transpose(np.argsort(dim_order))
    return inverse


def _from_native(output: Any, as_numpy: bool) -> Output:
    if not isinstance(output, _runtime.Tensor):
        scalar: Scalar = output
        return scalar
    array: NDArray[Any] = np.asarray(memoryview(output))
    if as_numpy:
        return array
    import torch

    tensor = torch.from_numpy(array)
    return tensor.view(torch.bfloat16) if output.dtype == "bfloat16" else tensor
