"""What ExecuTorch's preprocessing for OpenVINO calls in place of OpenVINO's own function.

That one compiles in bfloat16 where the processor has it, which fails on some graphs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.fx import GraphModule


def openvino_compile(module: GraphModule, *inputs: Any, options: Mapping[str, str]) -> Any:
    """Return OpenVINO's compiled model of a graph.

    inputs: fake tensors, as the graph's placeholders take them. options: "device" and "precision",
    by OpenVINO's names of them.
    """
    import openvino
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.fx_decoder import TorchFXPythonDecoder

    types = {
        torch.float32: openvino.Type.f32,
        torch.int64: openvino.Type.i64,
        torch.int32: openvino.Type.i32,
        torch.int8: openvino.Type.i8,
        torch.uint8: openvino.Type.u8,
        torch.bool: openvino.Type.boolean,
    }
    frontend = FrontEndManager().load_by_framework("pytorch")
    decoder = TorchFXPythonDecoder(module)  # has to live while it is converted
    model = frontend.convert(frontend.load(decoder))
    for port, value in zip(model.inputs, inputs, strict=True):
        port.get_node().set_element_type(types[value.dtype])
        port.get_node().set_partial_shape(openvino.PartialShape(list(value.shape)))
    model.validate_nodes_and_infer_types()
    config = {"INFERENCE_PRECISION_HINT": options["precision"]}
    return openvino.Core().compile_model(model, options["device"], config)
