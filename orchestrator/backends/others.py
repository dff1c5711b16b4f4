"""ExecuTorch's backends for the GPUs and NPUs of phones and tablets, by their partitioners.

They lower anywhere, and run on the device: they are planned by costs that were measured there
(`orchestrator calibrate`), or by the estimates below, which are rough.
"""

from __future__ import annotations

import os
from typing import Any

from orchestrator.backends.base import Estimates, Rates
from orchestrator.backends.of_partitioner import PartitionerBackend

_VULKAN = "executorch.backends.vulkan.partitioner.vulkan_partitioner:VulkanPartitioner"
_COREML = "executorch.backends.apple.coreml.partition:CoreMLPartitioner"

# Of GPUs and NPUs of phones nothing was measured here. What matters for a plan is that a call waits
# for another processor, and that a product is fast once it is there.
_PHONE_GPU = Estimates(
    rates={
        "product": Rates(200.0, 30.0, 5_000.0, 0.6),
        "int8 product": Rates(300.0, 30.0, 5_000.0, 0.6),
        "depthwise": Rates(60.0, 30.0, 5_000.0, 0.6),
        "other": Rates(30.0, 30.0, 5_000.0, 0.7),
    },
    call_ns=300_000.0,
    parallel=False,
)
_PHONE_NPU = Estimates(
    rates={
        "product": Rates(1_000.0, 40.0, 3_000.0, 0.7),
        "int8 product": Rates(2_000.0, 40.0, 3_000.0, 0.7),
        "depthwise": Rates(150.0, 40.0, 3_000.0, 0.7),
        "other": Rates(60.0, 40.0, 3_000.0, 0.7),
    },
    call_ns=400_000.0,
    parallel=False,
)


def vulkan() -> PartitionerBackend:
    """Return ExecuTorch's backend for GPUs with Vulkan."""
    return PartitionerBackend("vulkan", _VULKAN, backend_id="VulkanBackend", estimates=_PHONE_GPU)


def coreml() -> PartitionerBackend:
    """Return ExecuTorch's backend for Apple's devices; needs coremltools."""
    return PartitionerBackend("coreml", _COREML, backend_id="CoreMLBackend", estimates=_PHONE_NPU)


def qnn(soc: str = "SM8650", *, float16: bool = True) -> PartitionerBackend:
    """Return ExecuTorch's backend for Qualcomm's NPUs; needs Qualcomm's SDK.

    Args:
        soc: the chip's name in `QcomChipset`.
        float16: whether floats are computed in float16; the NPU has no float32.
    """
    return PartitionerBackend(
        "qnn",
        lambda: _qnn_partitioner(soc, float16),
        backend_id="QnnBackend",
        estimates=_PHONE_NPU,
        unavailable=_without_qnn,
    )


def _without_qnn() -> str | None:
    if os.environ.get("QNN_SDK_ROOT"):
        return None
    return "it needs Qualcomm's AI Engine Direct SDK, and QNN_SDK_ROOT is not set to its folder"


def _qnn_partitioner(soc: str, float16: bool) -> Any:
    from executorch.backends.qualcomm.partition.qnn_partitioner import QnnPartitioner
    from executorch.backends.qualcomm.serialization.qc_schema import QcomChipset
    from executorch.backends.qualcomm.utils.utils import (
        generate_htp_compiler_spec,
        generate_qnn_executorch_compiler_spec,
    )

    options = generate_htp_compiler_spec(use_fp16=float16)
    return QnnPartitioner(generate_qnn_executorch_compiler_spec(QcomChipset[soc], options))
