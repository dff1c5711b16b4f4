"""OpenVINO: what ExecuTorch's partitioner tags and preprocesses, run by this project's delegate."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from executorch.exir.backend.compile_spec_schema import CompileSpec
from executorch.exir.backend.partitioner import Partitioner
from torch.export import ExportedProgram
from torch.fx import Node

from ggml_delegate.reasons import Reason, unfit_dtype
from orchestrator.backends.base import Candidate, Estimates, PrivateMemory, Rejection, Support
from orchestrator.backends.of_partitioner import PartitionerBackend
from orchestrator.backends.openvino_compile import openvino_compile
from orchestrator.graph.quantized import is_dequantize, is_quantize
from orchestrator.graph.queries import op_name, tensors_of
from orchestrator.quiet import quiet_imports, without_init
from orchestrator.versions import executorch_version

# What frontend and compiler of 2025.4.1 cannot do, or do otherwise. Results of the last three would
# be their inputs themselves.
_LACKING = ("aten.as_strided_copy.", "aten.copy.", "aten.clone.", "aten.alias_copy.", "dim_order_")
# Integers are taken as numbers of rows; it computes with them in other types than PyTorch.
_LOOK_UPS = ("aten.embedding.", "aten.index.", "aten.index_select.", "aten.gather.")


class OpenvinoDelegate(PartitionerBackend):
    """OpenVINO on floats, bools and quantized values of fixed sizes, in contiguous tensors."""

    # Measured by benchmarks/estimates.py.
    estimates = Estimates(call_ns=22_000.0)
    private_memory: ClassVar[PrivateMemory] = PrivateMemory(per_weight_byte=1.0)
    is_reproducible: ClassVar[bool] = False  # names in it count up in the process
    remedies: ClassVar[Mapping[str, str]] = {
        "op": "write it with ops that OpenVINO has",
        "half": "use float32: model.float() before exporting",
        "float64": "use float32: model.float() before exporting",
        "integers": "use floats",
        "dynamic": "export this size as a fixed one",
    }

    def __init__(self, device: str = "CPU", precision: Literal["f32", "bf16"] = "f32") -> None:
        """Nothing of OpenVINO is imported before the backend is asked for something.

        device: OpenVINO's name of it; the number of threads holds for "CPU". precision: that floats
        are computed in; "bf16" is faster where the processor has it, and less exact.
        """
        super().__init__(
            "openvino",
            self._partitioner_of_executorch,
            backend_id="OpenvinoBackend",
            unavailable=_unavailable,
            tolerance=0.0 if precision == "f32" else 0.3,
        )
        options = {"device": device, "precision": precision}.items()
        self._specs = [CompileSpec(key, value.encode()) for key, value in options]

    def propose(self, ep: ExportedProgram) -> Support:
        """Return what the partitioner tags, without what OpenVINO would not compute alike."""
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not take
            tagged = super().propose(ep)
        candidates: list[Candidate] = []
        rejections = [Rejection(each.node, "OpenVINO lacks it", "op") for each in tagged.rejections]
        for candidate in tagged.candidates:
            first = next(filter(None, map(_unfit, candidate.nodes)), None)
            if first is None:
                candidates.append(candidate)
            else:
                rejections += [Rejection(node, first, first.code) for node in candidate.nodes]
        return Support(candidates, rejections)

    def libraries(self) -> Sequence[Path]:
        """Return OpenVINO's C API, where its package is installed; the delegate looks for it."""
        spec = importlib.util.find_spec("openvino")
        folders = (spec.submodule_search_locations or ()) if spec else ()
        return [path for each in folders for path in Path(each, "libs").glob("libopenvino_c.so*")]

    def runnable(self) -> str | None:
        """Return what the delegate needs, or why it is not in this process."""
        return _unavailable() or super().runnable()

    def compile_specs(self) -> list[CompileSpec]:
        """Return the device and the precision."""
        return list(self._specs)

    def versions(self) -> str:
        """Return the versions of ExecuTorch and OpenVINO."""
        return f"{executorch_version()}, openvino {importlib.metadata.version('openvino')}"

    def _partitioner_of_executorch(self) -> Partitioner:
        with quiet_imports(), without_init("executorch.backends.openvino"):  # it needs nncf
            module = importlib.import_module("executorch.backends.openvino.partitioner")
            preprocess: Any = importlib.import_module("executorch.backends.openvino.preprocess")
        preprocess.openvino_compile = openvino_compile
        made: Partitioner = module.OpenvinoPartitioner(self.compile_specs())
        return made


def _unavailable() -> str | None:
    needs = "needs openvino >= 2025.1, < 2026: pip install executorch-orchestrator[openvino]"
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        version = importlib.metadata.version("openvino")
        release = [int(part) for part in version.split(".")[:2] if part.isdigit()]
        return None if [2025, 1] <= release < [2026] else f"{needs}; found {version}"
    return f"{needs}; found none"


def _unfit(node: Node) -> Reason | None:
    """Why the delegate is not to get a node that the partitioner tags."""
    name, takes = op_name(node), {torch.float32, torch.bool}
    if name.startswith(_LACKING) or _is_unlike(node, name):
        return Reason("op", "OpenVINO lacks this form of it")
    if is_dequantize(node) or is_quantize(node):
        takes |= {torch.int8, torch.uint8}
    elif name.startswith(_LOOK_UPS):
        takes |= {torch.int64, torch.int32}
    for each in (node, *node.all_input_nodes):
        tensors = tensors_of(each.meta.get("val"))
        for tensor in tensors:
            if any(isinstance(size, torch.SymInt) for size in tensor.shape):
                return Reason("dynamic", "a size is dynamic")
            if tensor.numel() == 0:
                return Reason("empty", "a tensor has no elements")
            if tensor.dtype not in takes:
                return unfit_dtype(tensor.dtype, f"OpenVINO does not compute in {tensor.dtype}")
        if not tensors:
            return Reason("run-time", "an argument is a number that is known at run time only")
    return None


def _is_unlike(node: Node, name: str) -> bool:
    """Whether an op has a form that OpenVINO's frontend takes for another, or not at all."""
    if name.startswith(("aten.amax.", "aten.amin.")) and not any(node.args[1:2]):
        return True  # over all dimensions
    used = {user.args[1] for user in node.users} if name.startswith("aten.split") else set()
    if name.startswith("aten.split") and len(used) < len(tensors_of(node.meta["val"])):
        return True
    if name.startswith("aten.elu.") and (node.kwargs.get("input_scale", 1), *node.args[3:]) != (1,):
        return True
    first = node.all_input_nodes[0].meta.get("val") if node.all_input_nodes else None
    return isinstance(first, torch.Tensor) and first.dim() == 0
