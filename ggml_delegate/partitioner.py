"""GgmlPartitioner: an ExecuTorch partitioner that gives ggml all it can run."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from executorch.exir.backend.canonical_partitioners.pattern_op_partitioner import (
    generate_partitions_from_list_of_nodes,
)
from executorch.exir.backend.partitioner import DelegationSpec, Partitioner, PartitionResult
from executorch.exir.backend.utils import tag_constant_data
from torch.export import ExportedProgram
from torch.fx.passes.operator_support import OperatorSupportBase

from ggml_delegate.aten_ops import Trait, traits
from ggml_delegate.copy_attention_results import copy_attention_results
from ggml_delegate.node_view import Constants, op_name
from ggml_delegate.preprocess import GgmlBackend
from ggml_delegate.recurrent_ops import keep_recurrent_layers
from ggml_delegate.registry import check_node, preserved_ops

_COMPUTES_NOTHING = Trait.VIEW | Trait.MOVES


class _Support(OperatorSupportBase):
    def __init__(self, program: ExportedProgram) -> None:
        self._program = program
        self._constants = Constants(program)

    def is_node_supported(
        self, submodules: Mapping[str, torch.nn.Module], node: torch.fx.Node
    ) -> bool:
        if node.op != "call_function":
            return False
        return check_node(node, self._program, self._constants) is None


class GgmlPartitioner(Partitioner):  # type: ignore[misc]
    """Tags, in as few partitions as stay legal, every node that ggml runs exactly."""

    def __init__(self) -> None:
        super().__init__()
        self.delegation_spec = DelegationSpec(GgmlBackend.__name__, [])

    def partition(self, exported_program: ExportedProgram) -> PartitionResult:
        """Tags the program's nodes in place, as ExecuTorch asks of a partitioner."""
        support = _Support(exported_program)
        tags: dict[str, DelegationSpec] = {}
        for partition in generate_partitions_from_list_of_nodes(
            exported_program.graph_module, op_support=support
        ):
            nodes = list(partition.nodes)
            if all(traits(op_name(node)) & _COMPUTES_NOTHING for node in nodes):
                continue  # not worth a delegate call
            tag = f"ggml_{len(tags)}"
            tags[tag] = self.delegation_spec
            for node in nodes:
                node.meta["delegation_tag"] = tag
        tag_constant_data(exported_program)
        return PartitionResult(tagged_exported_program=exported_program, partition_tags=tags)

    def transform_for_pre_decomposition(self, exported_program: ExportedProgram) -> ExportedProgram:
        """Makes room for the ops that stay undecomposed; changes no result."""
        program = copy_attention_results(exported_program)
        constants = Constants(program)
        return keep_recurrent_layers(
            program, lambda node: check_node(node, program, constants) is None
        )

    def ops_to_not_decompose(
        self, ep: ExportedProgram
    ) -> tuple[list[torch._ops.OpOverload], Callable[[torch.fx.Node], bool] | None]:
        """The composite ops that rules take, and a filter for the nodes they accept."""
        constants = Constants(ep)

        def accepts(node: torch.fx.Node) -> bool:
            return check_node(node, ep, constants) is None

        return preserved_ops(), accepts
