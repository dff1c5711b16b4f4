"""Any partitioner of ExecuTorch's as a backend: it tags a copy of the program, and that is read."""

from __future__ import annotations

import copy
import importlib
import importlib.metadata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from executorch.exir import to_edge
from executorch.exir.backend.compile_spec_schema import CompileSpec
from executorch.exir.backend.partitioner import DelegationSpec, Partitioner, PartitionResult
from torch.export import ExportedProgram
from torch.fx import Node

from orchestrator.backends.base import (
    Backend,
    BackendError,
    Candidate,
    Estimates,
    NodeFilter,
    Rejection,
    Support,
)
from orchestrator.edge import edge_compile_config
from orchestrator.graph.copies import copy_of
from orchestrator.graph.quantized import (
    is_choose_qparams,
    is_dequantize,
    is_quantization,
    is_quantize,
)
from orchestrator.graph.queries import (
    compute_nodes,
    constant_nodes,
    mutated_buffers,
    tensors_of,
)
from orchestrator.planner import Layout
from orchestrator.quiet import quiet_imports
from orchestrator.versions import executorch_version

Groups = Callable[[ExportedProgram], Iterable[Iterable[Node]]]
_TAG = "delegation_tag"


class PartitionerBackend(Backend):
    """A backend whose partitioner says what it takes.

    The partitioner tags a copy of the program, once per plan. What has a tag, the planner may give
    to the backend in any cut, but for groups of a quantized op with its dequantizes and quantize.
    Ops that the partitioner wants kept whole are kept, and are decomposed in another round where
    it does not tag them.
    """

    def __init__(
        self,
        name: str,
        make_partitioner: Callable[[], Partitioner] | str,
        *,
        backend_id: str | None = None,
        groups: Groups | None = None,
        layouts: Callable[[int], tuple[Layout, ...]] | None = None,
        estimates: Estimates | None = None,
        unavailable: Callable[[], str | None] | None = None,
        libraries: Sequence[Path] = (),
        tolerance: float = 0.0,
    ) -> None:
        """Nothing is imported before the backend is asked for something.

        Args:
            name: what users write, for example "vulkan".
            make_partitioner: makes one with the options that it is to have; or its class, as
                "module:Class", which is imported when it is needed.
            backend_id: the delegate's. If left out, what the partitioner's `delegation_spec` says,
                or else the tags that it gives a linear layer.
            groups: of a program, the nodes that may not be parted where all of them are tagged. If
                left out, those of quantized ops.
            layouts: in which its delegates take and give tensors of a rank; contiguous if left out.
            estimates: for prices where nothing was measured.
            unavailable: why the backend cannot lower here, None if it can; asked before the
                partitioner is made.
            libraries: shared libraries that bring the delegate, where the process lacks it.
            tolerance: how far float32 results may be off; see `Backend`.
        """
        self.name = name
        self._make = make_partitioner
        self._given_id = backend_id
        self._groups = groups or quantized_groups
        self._layouts = layouts
        self._unavailable = unavailable
        self._libraries = tuple(libraries)
        self.tolerance = tolerance
        self._made: Partitioner | None = None
        self._found: DelegationSpec | None = None
        if estimates is not None:
            self.estimates = estimates

    @property
    def backend_id(self) -> str:  # type: ignore[override]  # found when it is first asked for
        """The id of the delegate; of a partitioner that cannot be made, "unknown"."""
        if self._given_id is not None:
            return self._given_id
        return self._spec().backend_id if self._problem() is None else "unknown"

    @property
    def partitioner(self) -> Partitioner:
        """The partitioner, which is made when it is first asked for."""
        if self._made is None:
            self._made = self._new()
        return self._made

    def available(self) -> str | None:
        """Return what its maker says, or why the partitioner cannot be made."""
        reason = None if self._unavailable is None else self._unavailable()
        return reason or self._problem()

    def libraries(self) -> Sequence[Path]:
        """Return those that were given."""
        return self._libraries

    def propose(self, ep: ExportedProgram) -> Support:
        """Return what the partitioner tags, by single nodes and by groups."""
        tags = self._tags(ep)
        tagged = {node: tags[node.name] for node in compute_nodes(ep) if node.name in tags}
        packs = any(node.op == "placeholder" and node.name in tags for node in ep.graph.nodes)
        packable = constant_nodes(ep) - mutated_buffers(ep) if packs else set()
        candidates = []
        # A size that a kernel finds reaches a delegate; some fail on calls that give nothing else.
        numbers = {node for node in tagged if not tensors_of(node.meta.get("val"))}
        for node in numbers:
            del tagged[node]
        for nodes in self._units(ep, tagged):
            inputs = (source for node in nodes for source in node.all_input_nodes)
            constants = tuple(dict.fromkeys(each for each in inputs if each in packable))
            candidates.append(Candidate(nodes, constants, divisible=len(nodes) == 1))
        reason = f"{type(self.partitioner).__name__} does not tag it"
        rejections = [
            Rejection(node, "it gives a number", "run-time")
            if node in numbers
            else Rejection(node, reason)
            for node in compute_nodes(ep)
            if node not in tagged
        ]
        return Support(candidates, rejections)

    def preserved_ops(
        self, ep: ExportedProgram
    ) -> tuple[Sequence[torch._ops.OpOverload], NodeFilter]:
        """Return the ops that the partitioner wants kept whole."""
        ops, accepted = self.partitioner.ops_to_not_decompose(ep)
        return list(ops or ()), accepted or (lambda node: True)

    def compile_specs(self) -> list[CompileSpec]:
        """Return those of the partitioner."""
        return list(self._spec().compile_specs)

    def boundary_layouts(self, rank: int) -> tuple[Layout, ...]:
        """Return the layouts that were given."""
        return super().boundary_layouts(rank) if self._layouts is None else self._layouts(rank)

    def versions(self) -> str:
        """Return ExecuTorch's version, and that of the distribution the partitioner is from."""
        package = type(self.partitioner).__module__.partition(".")[0]
        found = importlib.metadata.packages_distributions().get(package, [])
        named = [f"{each} {importlib.metadata.version(each)}" for each in sorted(set(found))]
        return ", ".join(dict.fromkeys([executorch_version(), *(named or [package])]))

    def _problem(self) -> str | None:
        try:
            _ = self.partitioner
        except BackendError:
            raise
        except Exception as error:
            return f"its partitioner cannot be made: {type(error).__name__}: {error}"
        return None

    def _new(self) -> Partitioner:
        make = self._make
        if isinstance(make, str):
            module, _, attribute = make.partition(":")
            with quiet_imports():
                make = getattr(importlib.import_module(module), attribute)
        made: Any = make()
        if not isinstance(made, Partitioner):
            raise BackendError(
                f"backend {self.name!r}: its partitioner is a {type(made).__name__}; expected an "
                "executorch.exir.backend.partitioner.Partitioner"
            )
        return made

    def _spec(self) -> DelegationSpec:
        if self._found is None:
            spec = getattr(self.partitioner, "delegation_spec", None)
            self._found = spec if isinstance(spec, DelegationSpec) else self._spec_of_sample()
        return self._found

    def _spec_of_sample(self) -> DelegationSpec:
        """What the partitioner says of a linear layer, where it does not say it beforehand."""
        sample = torch.export.export(torch.nn.Linear(8, 8).eval(), (torch.zeros(2, 8),))
        program = to_edge(sample, compile_config=edge_compile_config()).exported_program()
        for spec in self.partitioner.partition(program).partition_tags.values():
            return spec
        if self._given_id is not None:
            return DelegationSpec(self._given_id, [])
        raise BackendError(
            f"backend {self.name!r}: {type(self.partitioner).__name__} has no delegation_spec, and "
            "tags nothing in a linear layer; pass backend_id="
        )

    def _tags(self, ep: ExportedProgram) -> dict[str, str]:
        """The tags that a copy of the program gets, by node; other notes, nodes get themselves."""
        scratch = copy_of(ep, copy.deepcopy(ep.graph_module))
        with quiet_imports():  # some log what they find
            result: Any = self.partitioner.partition(scratch)
        where = f"backend {self.name!r}: {type(self.partitioner).__name__}"
        if not isinstance(result, PartitionResult):
            raise BackendError(
                f"{where}.partition returned a {type(result).__name__}; expected a PartitionResult"
            )
        specs = list(result.partition_tags.values())
        for spec in specs:
            if spec != DelegationSpec(self.backend_id, self.compile_specs()):
                raise BackendError(
                    f"{where} has partitions for {spec.backend_id} with the options "
                    f"{_keys(spec.compile_specs)}; expected all for {self.backend_id} with "
                    f"{_keys(self.compile_specs())}"
                )
        known, tags = {node.name: node for node in ep.graph.nodes}, {}
        for node in result.tagged_exported_program.graph.nodes:
            own = known.get(node.name)
            if own is None:
                raise BackendError(
                    f"{where}.partition adds the node {node.name!r}; a partitioner has to tag the "
                    "program, and may not change it"
                )
            notes = {key: value for key, value in node.meta.items() if key not in own.meta}
            tag = notes.pop(_TAG, None)
            own.meta.update(notes)  # that its delegate reads later, as XNNPACK's does
            if tag is not None:
                tags[node.name] = tag
        return tags

    def _units(self, ep: ExportedProgram, tagged: dict[Node, str]) -> Iterator[tuple[Node, ...]]:
        """Yield what may not be parted, and every other node that is tagged by itself."""
        grouped: set[Node] = set()
        for group in self._groups(ep):
            nodes = tuple(group)
            if len(nodes) > 1 and all(node in tagged for node in nodes) and not grouped & {*nodes}:
                grouped.update(nodes)
                yield nodes
        yield from ((node,) for node in tagged if node not in grouped)


def _keys(specs: Iterable[CompileSpec]) -> str:
    return str([spec.key for spec in specs])


def quantized_groups(ep: ExportedProgram) -> Iterator[tuple[Node, ...]]:
    """Yield quantized ops, each with its dequantizes and its quantize, as backends match them.

    What lies between an op and its quantize (an activation) is in the group. The integers that one
    group hands to the next are its boundary, but for those that are computed in every run.
    """
    nodes = list(compute_nodes(ep))
    places = {node: place for place, node in enumerate(nodes)}
    parents = list(range(len(nodes)))

    def root(place: int) -> int:
        while parents[place] != place:
            parents[place] = parents[parents[place]]
            place = parents[place]
        return place

    for node in nodes:
        for source in node.all_input_nodes:
            if source in places and _belong(source, node):
                parents[root(places[source])] = root(places[node])
    groups = defaultdict(list)
    for node in nodes:
        groups[root(places[node])].append(node)
    for group in groups.values():
        if any(map(is_quantization, group)):
            yield tuple(group)


def _belong(source: Node, node: Node) -> bool:
    """Whether a node and its input are of one quantized group."""
    if is_quantize(source) and is_dequantize(node):
        return any(map(_is_chosen, source.all_input_nodes))
    if is_quantization(source) or is_quantization(node):
        return True
    # An op, and what follows it alone before the quantize.
    quantizes = len(node.users) == 1 and any(map(is_quantize, node.users))
    alone = len(source.users) == 1
    return alone and quantizes and any(map(is_dequantize, source.all_input_nodes))


def _is_chosen(node: Node) -> bool:
    """Whether a scale or zero point is found in every run."""
    return is_choose_qparams(node) or any(map(is_choose_qparams, node.all_input_nodes))
