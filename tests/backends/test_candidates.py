"""How backends' offers become atoms."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from orchestrator.backends.candidates import Candidates, collect_candidates
from orchestrator.backends.xnnpack import XnnpackDelegate
from tests.harness.fakes import OpsBackend, edge_program, short_name


def _atoms(candidates: Candidates) -> list[tuple[list[str], tuple[str, ...]]]:
    return [([short_name(node) for node in atom.nodes], atom.backends) for atom in candidates.atoms]


class Chain(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x + x).relu().exp()


class Diamond(nn.Module):
    """add -> neg -> mul and add -> mul."""

    def forward(self, x: Tensor) -> Tensor:
        y = x + x
        return y * -y


def test_each_node_is_an_atom_of_the_backends_that_take_it() -> None:
    ep = edge_program(Chain(), torch.ones(2))
    found = collect_candidates(ep, [OpsBackend("p", ["add", "exp"]), OpsBackend("q", ["exp"])])
    assert _atoms(found) == [(["add"], ("p",)), (["relu"], ()), (["exp"], ("p", "q"))]


def test_rejections_keep_backend_node_and_reason() -> None:
    ep = edge_program(Chain(), torch.ones(2))
    found = collect_candidates(ep, [OpsBackend("p", ["add", "exp"]), OpsBackend("q", ["exp"])])
    told = [(item.backend, short_name(item.node), item.reason) for item in found.rejections]
    assert told == [
        ("p", "relu", "p lacks relu"),
        ("q", "add", "q lacks add"),
        ("q", "relu", "q lacks relu"),
    ]


def test_a_group_is_one_atom_for_every_backend_that_takes_all_of_it() -> None:
    ep = edge_program(Chain(), torch.ones(2))
    fusing = OpsBackend("p", ["add", "relu"], groups=[["add", "relu"]])
    other = OpsBackend("q", ["add", "relu", "exp"])
    partial = OpsBackend("r", ["relu"])
    found = collect_candidates(ep, [fusing, other, partial])
    assert _atoms(found) == [(["add", "relu"], ("p", "q")), (["exp"], ("q",))]


def test_overlapping_groups_become_one_atom_if_one_backend_takes_their_union() -> None:
    ep = edge_program(Chain(), torch.ones(2))
    p = OpsBackend("p", ["add", "relu", "exp"], groups=[["add", "relu"]])
    q = OpsBackend("q", ["relu", "exp"], groups=[["relu", "exp"]])
    assert _atoms(collect_candidates(ep, [p, q])) == [(["add", "relu", "exp"], ("p",))]


def test_overlapping_groups_whose_union_nobody_takes_stay_apart() -> None:
    ep = edge_program(Chain(), torch.ones(2))
    p = OpsBackend("p", ["add", "relu"], groups=[["add", "relu"]])
    q = OpsBackend("q", ["relu", "exp"], groups=[["relu", "exp"]])
    assert _atoms(collect_candidates(ep, [p, q])) == [
        (["add", "relu"], ("p",)),
        (["exp"], ("q",)),
    ]


def test_an_indivisible_group_that_was_taken_apart_is_not_offered() -> None:
    ep = edge_program(Chain(), torch.ones(2))
    p = OpsBackend("p", ["add", "relu"], groups=[["add", "relu"]])
    q = OpsBackend("q", ["relu", "exp"], groups=[["relu", "exp"]], divisible=False)
    assert _atoms(collect_candidates(ep, [p, q])) == [(["add", "relu"], ("p",)), (["exp"], ())]


def test_a_group_that_would_make_a_cycle_is_taken_apart() -> None:
    ep = edge_program(Diamond(), torch.ones(2))
    p = OpsBackend("p", ["add", "mul"], groups=[["add", "mul"]])
    assert _atoms(collect_candidates(ep, [p])) == [
        (["add"], ("p",)),
        (["neg"], ()),
        (["mul"], ("p",)),
    ]


def test_a_node_with_several_results_is_one_atom_with_its_getitems() -> None:
    class TopK(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            values, indices = torch.topk(x, 2)
            return values.exp(), indices

    ep = edge_program(TopK(), torch.rand(4))
    found = collect_candidates(ep, [OpsBackend("p", ["topk", "exp"])])
    assert _atoms(found) == [(["topk", "getitem", "getitem"], ("p",)), (["exp"], ("p",))]
    assert found.rejections == ()


def test_xnnpack_takes_a_convolution_and_its_activation_as_one() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU6(), nn.Conv2d(4, 4, 1), nn.Sigmoid())
    ep = edge_program(module, torch.ones(1, 3, 8, 8))
    assert _atoms(collect_candidates(ep, [XnnpackDelegate()])) == [
        (["convolution", "hardtanh"], ("xnnpack",)),
        (["convolution"], ("xnnpack",)),
        (["sigmoid"], ("xnnpack",)),
    ]


def test_weights_belong_to_the_node_that_reads_them() -> None:
    ep = edge_program(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), torch.ones(1, 3, 8, 8))
    found = collect_candidates(ep, [XnnpackDelegate()])
    (atom,) = found.atoms
    wanted = found.constants["xnnpack"]
    assert [{node.name for node in wanted.get(node, ())} for node in atom.nodes] == [
        {"p_0_weight", "p_0_bias"},
        set(),
    ]
