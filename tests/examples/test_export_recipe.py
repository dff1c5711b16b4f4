"""The partitioner in ExecuTorch's own flows."""

from __future__ import annotations

import torch
from executorch.devtools.backend_debug import get_delegation_info
from torch import Tensor, nn

from examples.export_recipe import export_by_recipe, lower_plainly
from orchestrator.native import NativeProgram


class Net(nn.Module):
    """Two delegates and a kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cumsum(torch.relu(self.conv(x)).mean((2, 3)), 1)


X = torch.randn(2, 3, 6, 6)


def test_delegation_info_counts_what_was_delegated() -> None:
    edge = lower_plainly(Net().eval(), (X,))
    info = get_delegation_info(edge.exported_program().graph_module)
    assert info.num_delegated_subgraphs >= 1
    by_op = info.delegation_by_operator
    assert (by_op["aten_convolution_default"].delegated, by_op["aten_relu_default"].delegated) == (
        1,
        1,
    )
    assert by_op["aten_cumsum_default"].non_delegated == 1


def test_a_recipe_makes_a_program_that_runs_like_eager() -> None:
    model = Net().eval()
    (actual,) = NativeProgram(export_by_recipe(model, (X,)))(X)
    with torch.no_grad():
        torch.testing.assert_close(actual, model(X))
