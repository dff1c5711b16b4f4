"""The flows that ExecuTorch's backend test suite runs through: this project's, and XNNPACK's alone.

This project's greedy flows of float models rewrite a program and partition it in ExecuTorch's own
call. The others lower just as `lower()` does, under several plans side by side, and run in this
project's runtime: float models by cost, under which models as small as the suite's mostly stay on
kernels, and under a random legal plan; quantized ones, as the suite's own XNNPACK flows quantize
them, under both and greedily.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import executorch.kernels.quantized  # noqa: F401  (the kernels of quantized ops, for XNNPACK alone)
import torch
from executorch.backends.test.harness import Tester
from executorch.backends.test.harness.stages import Export, Serialize, ToEdgeTransformAndLower
from executorch.backends.test.suite.flow import TestFlow
from executorch.backends.test.suite.flows.xnnpack import (
    XNNPACK_DYNAMIC_INT8_PER_CHANNEL_TEST_FLOW,
    XNNPACK_STATIC_INT8_PER_CHANNEL_TEST_FLOW,
    XNNPACK_STATIC_INT8_PER_TENSOR_TEST_FLOW,
)
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner

import orchestrator.native  # noqa: F401  (registers the ggml backend in this process's runtime)
from orchestrator.options import PlanOptions
from orchestrator.partitioner import OrchestratorPartitioner
from tests.differential.plans import random_plan
from tests.suite.stages import BACKENDS, Lower, LowerAsWeDo, RewriteAndLower, RunNatively, Way
from tests.suite.testers import (
    DynamicExport,
    DynamicTester,
    FloatTester,
    PlansTester,
    QuantizedTester,
)

# The plans must not depend on what this machine has measured.
_GREEDY = PlanOptions(strategy="greedy", tune="off")
_BY_COST = PlanOptions(tune="off")
_QUANTIZED = {
    "static_int8_per_channel": XNNPACK_STATIC_INT8_PER_CHANNEL_TEST_FLOW,
    "static_int8_per_tensor": XNNPACK_STATIC_INT8_PER_TENSOR_TEST_FLOW,
    "dynamic_int8_per_channel": XNNPACK_DYNAMIC_INT8_PER_CHANNEL_TEST_FLOW,
}


def _under_plans() -> LowerAsWeDo:
    return LowerAsWeDo({"forward": Way(_BY_COST), "random": _at_random()})


def _under_all_plans() -> LowerAsWeDo:
    return LowerAsWeDo({"forward": Way(_GREEDY), "cost": Way(_BY_COST), "random": _at_random()})


def _at_random() -> Way:
    # The suite has just set torch's seed, by the test's name and the seed of the whole run.
    return Way(_BY_COST, random_plan(torch.initial_seed()))


def _in_one_call() -> Lower:
    return RewriteAndLower(lambda: OrchestratorPartitioner(BACKENDS, _GREEDY))


def _xnnpack() -> Lower:
    return Lower(XnnpackPartitioner)


def _flow(
    name: str,
    lower: Callable[[], ToEdgeTransformAndLower],
    tester: type[FloatTester] = FloatTester,
    *,
    export: type[Export] = Export,
    serialize: type[Serialize] = Serialize,
    **options: Any,
) -> TestFlow:
    def make(module: torch.nn.Module, example_inputs: tuple[Any, ...]) -> Tester:
        return tester(lower, export, serialize, module, example_inputs)

    return TestFlow(name, backend=name.partition("_")[0], tester_factory=make, **options)


def _all() -> list[TestFlow]:
    dynamic: dict[str, Any] = {"tester": DynamicTester, "export": DynamicExport}
    # Programs without a delegate run as well.
    ours: dict[str, Any] = {"serialize": RunNatively, "is_delegated": False}
    flows = [
        _flow("orchestrator", _in_one_call),
        _flow("orchestrator_dynamic", _in_one_call, **dynamic),
        _flow("orchestrator_plans", _under_plans, PlansTester, **ours),
        _flow("xnnpack", _xnnpack),
        _flow("xnnpack_dynamic", _xnnpack, **dynamic),
    ]
    for name, flow in _QUANTIZED.items():
        quantized: dict[str, Any] = {
            "tester": QuantizedTester,
            "quantize": True,
            "quantize_stage_factory": flow.quantize_stage_factory,
        }
        flows += [
            _flow(f"orchestrator_{name}", _under_all_plans, **quantized | ours),
            _flow(f"xnnpack_{name}", _xnnpack, **quantized, is_delegated=False),
        ]
    return flows


FLOWS: dict[str, TestFlow] = {flow.name: flow for flow in _all()}
