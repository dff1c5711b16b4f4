"""Finding backends, and what the shipped ones say."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest
import torch
from torch import Tensor, nn

from orchestrator.backends import Backend, BackendError, backend_names, registry, resolve_backends
from orchestrator.backends.portable import missing_kernel
from orchestrator.backends.xnnpack import XnnpackDelegate
from orchestrator.graph.queries import compute_nodes, op_name
from tests.harness.fakes import OpsBackend, edge_program


def make_plugin() -> Backend:
    return OpsBackend("plugin", ["add"])


def make_nonsense() -> object:
    return object()


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Entry points as other distributions would declare them."""
    made = [
        EntryPoint(name, f"{__name__}:{function}", registry.ENTRY_POINT_GROUP)
        for name, function in (("plugin", "make_plugin"), ("nonsense", "make_nonsense"))
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: made)


def test_names_resolve_in_the_given_order() -> None:
    for order in (["ggml", "xnnpack"], ["xnnpack", "ggml"], ["xnnpack"], ["ggml"]):
        assert [backend.name for backend in resolve_backends(order)] == order


def test_no_backends_is_a_choice() -> None:
    assert resolve_backends([]) == ()
    assert resolve_backends(["portable"]) == ()


def test_an_unknown_name_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(BackendError, match=r"'xnnpac'.*ggml, xnnpack, .*, portable"):
        resolve_backends(["ggml", "xnnpac"])


def test_a_name_given_twice_is_an_error() -> None:
    with pytest.raises(BackendError, match="'xnnpack' is given 2 times"):
        resolve_backends(["xnnpack", XnnpackDelegate()])


def test_a_bare_string_is_an_error() -> None:
    with pytest.raises(BackendError, match=r"pass a list: \['ggml'\]"):
        resolve_backends("ggml")


def test_a_backend_that_cannot_be_used_here_is_an_error_with_its_reason() -> None:
    with pytest.raises(BackendError, match="'p' cannot be used: no such chip"):
        resolve_backends([OpsBackend("p", [], unavailable="no such chip")])


@pytest.mark.usefixtures("plugins")
def test_entry_points_add_backends() -> None:
    assert backend_names()[:2] == ("ggml", "xnnpack")
    assert backend_names()[-2:] == ("nonsense", "plugin")
    assert [backend.name for backend in resolve_backends(["plugin", "xnnpack"])] == [
        "plugin",
        "xnnpack",
    ]


@pytest.mark.usefixtures("plugins")
def test_an_entry_point_that_makes_no_backend_is_an_error() -> None:
    with pytest.raises(BackendError, match=r"'nonsense'.*lacks parts"):
        resolve_backends(["nonsense"])


class TestXnnpackReasons:
    def _reasons(self, module: nn.Module, *inputs: Tensor) -> dict[str, str]:
        support = XnnpackDelegate().propose(edge_program(module, *inputs))
        return {op_name(item.node): item.reason for item in support.rejections}

    def test_an_op_without_a_config(self) -> None:
        class Model(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return torch.cumsum(x, 0)

        assert self._reasons(Model(), torch.ones(3)) == {
            "aten.cumsum.default": "no XNNPACK operator for aten.cumsum.default"
        }

    def test_a_constraint_that_is_not_met(self) -> None:
        class Model(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return torch.softmax(x, 0)

        assert self._reasons(Model(), torch.ones(3, 2)) == {
            "aten._softmax.default": "dim must be the last dim, got dim = 0 for tensor of rank 2"
        }

    def test_a_constraint_that_xnnpack_gives_no_reason_for(self) -> None:
        class Model(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return x[::2]

        assert self._reasons(Model(), torch.ones(4)) == {
            "aten.slice_copy.Tensor": "a constraint of SliceCopyConfig is not met"
        }

    def test_a_dtype(self) -> None:
        class Model(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return x + x

        assert self._reasons(Model(), torch.ones(4, dtype=torch.int32)) == {
            "aten.add.Tensor": "dtype not supported (tensors are int32)"
        }

    def test_a_weight_that_the_model_changes(self) -> None:
        class Model(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.register_buffer("weight", torch.ones(1, 1, 2))

            def forward(self, x: Tensor) -> Tensor:
                y = nn.functional.conv1d(x, self.weight)
                self.weight.add_(1)
                return y

        # XNNPACK would freeze the buffer's first value.
        reasons = self._reasons(Model(), torch.ones(2, 1, 3))
        assert "the model changes the buffer b_weight" in reasons["aten.convolution.default"]

    def test_asking_does_not_depend_on_what_was_asked_before(self) -> None:
        class Model(nn.Module):
            def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
                return torch.softmax(x, 0), torch.cumsum(x, 0)

        first = self._reasons(Model(), torch.ones(3, 2))
        assert first == self._reasons(Model(), torch.ones(3, 2))
        assert set(first) == {"aten._softmax.default", "aten.cumsum.default"}


def test_ops_without_a_kernel_are_known() -> None:
    class Model(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.linalg.inv(x).exp().reshape(-1)

    missing = {
        op_name(node): missing_kernel(node)
        for node in compute_nodes(edge_program(Model(), torch.eye(3)))
    }
    assert missing["aten.linalg_inv_ex.default"] == "aten::linalg_inv_ex.inverse"
    assert missing["aten.exp.default"] is None
    assert missing["aten.view_copy.default"] is None
    assert missing["getitem"] is None


def test_what_a_kernel_refuses_counts_as_missing() -> None:
    def missing(model: torch.nn.Module, x: torch.Tensor) -> set[str | None]:
        nodes = compute_nodes(edge_program(model.eval(), x))
        return {missing_kernel(node) for node in nodes} - {None}

    class RunningSum(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.cumsum(0)

    volume, image = torch.ones(1, 2, 3, 4, 5), torch.ones(1, 2, 3, 4)
    assert missing(torch.nn.Conv3d(2, 3, 1), volume) == {"aten::convolution.out of volumes"}
    assert not missing(torch.nn.Conv2d(2, 3, 1), image)
    assert missing(RunningSum(), torch.tensor(2.0)) == {"aten::cumsum.out of a number"}
    assert not missing(RunningSum(), torch.ones(3))
