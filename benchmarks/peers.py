"""ONNX Runtime and OpenVINO as further alternatives, where they are installed.

Neither is needed by the package. `pip install onnxruntime openvino onnx onnxscript`
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.running import Timed, timed

_NEEDS = {
    "onnxruntime": ("onnxruntime", "onnx", "onnxscript"),
    "openvino": ("openvino", "onnx", "onnxscript"),
}


def missing(peer: str) -> list[str]:
    """Packages that a peer needs and that are not installed."""
    return [name for name in _NEEDS[peer] if importlib.util.find_spec(name) is None]


def alternatives(
    peers: Sequence[str], model: nn.Module, inputs: Sequence[Tensor], threads: int
) -> dict[str, Timed]:
    """The peers that are installed, ready to run the model on these inputs.

    Raises:
        RuntimeError: a peer's result differs from eager PyTorch's: its time would mean nothing.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        _export(model, inputs, path)
        found: dict[str, Timed] = {}
        for peer in peers:
            run = _MAKE[peer](path, inputs, threads)
            _check(peer, run(), model, inputs)
            found[peer] = timed(run)
    return found


def _export(model: nn.Module, inputs: Sequence[Tensor], path: Path) -> None:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(model, tuple(inputs), str(path), dynamo=True, external_data=False)


def _onnxruntime(path: Path, inputs: Sequence[Tensor], threads: int) -> Callable[[], Tensor]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    feed = {i.name: x.numpy() for i, x in zip(session.get_inputs(), inputs, strict=True)}
    return lambda: torch.from_numpy(session.run(None, feed)[0])


def _openvino(path: Path, inputs: Sequence[Tensor], threads: int) -> Callable[[], Tensor]:
    import openvino

    core = openvino.Core()
    config = {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",  # as all others here; bfloat16 is its default
    }
    request = core.compile_model(core.read_model(str(path)), "CPU", config).create_infer_request()
    for index, x in enumerate(inputs):
        request.set_input_tensor(index, openvino.Tensor(x.numpy(), shared_memory=True))

    def run() -> Tensor:
        request.infer()
        return torch.from_numpy(request.get_output_tensor(0).data)

    return run


_MAKE = {"onnxruntime": _onnxruntime, "openvino": _openvino}


def _check(peer: str, result: Tensor, model: nn.Module, inputs: Sequence[Tensor]) -> None:
    with torch.no_grad():
        expected = model(*inputs)
    error = (result - expected).abs().max() / expected.abs().max()
    if not error <= 1e-3:
        raise RuntimeError(f"{peer} is off by {error:.1e} of the output's scale")
