"""What is measured of a program."""

from __future__ import annotations

import torch
from torch import nn

from orchestrator.backends import resolve_backends
from orchestrator.cost.calibration import calibration_tasks
from orchestrator.frontend.export import as_programs
from orchestrator.graph.queries import dim_order
from orchestrator.tuning.what_to_measure import collect_tasks
from tests.differential.third import STRANGER, Stranger


def test_what_takes_contiguous_images_alone_is_measured_on_such() -> None:
    """Another delegate is measured on images in channels-last as well."""
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()).eval()
    image = (torch.randn(1, 3, 8, 8).to(memory_format=torch.channels_last),)
    backends = (Stranger(), *resolve_backends(["xnnpack"]))
    orders: dict[str, set[tuple[int, ...]]] = {each.name: set() for each in backends}
    tasks = [*collect_tasks(as_programs(network, image), backends, 1), *calibration_tasks(backends)]
    for task in tasks:
        if task.backend is not None:
            inputs = task.extract().example_inputs
            orders[task.backend_name] |= {dim_order(each) for each in inputs if each.dim() == 4}
    assert orders == {STRANGER: {(0, 1, 2, 3)}, "xnnpack": {(0, 1, 2, 3), (0, 2, 3, 1)}}
