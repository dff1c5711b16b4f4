"""Toys with one fault each, for the rules of the test kit that find it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from executorch.exir.backend.backend_details import PreprocessResult
from executorch.exir.backend.compile_spec_schema import CompileSpec
from torch._subclasses import FakeTensor
from torch.export import ExportedProgram
from torch.fx import Node

from orchestrator.backends import Candidate, Rejection, Support
from orchestrator.graph.queries import compute_nodes, has_default_dim_order, op_name
from orchestrator.planner import Layout
from tests.backends.toy import Toy

Compile = Callable[[ExportedProgram, list[CompileSpec]], PreprocessResult]
_WIDE = torch.randn(256, 256)
BOTH_LAYOUTS = (Layout.CONTIGUOUS, Layout.CHANNELS_LAST)


class Broken(Toy):
    """A toy whose delegates can be compiled, and whose results can come back, with a fault."""

    also: Sequence[str] = ()
    """Ops that it takes beside the toy's."""

    def propose(self, ep: ExportedProgram) -> Support:
        support = super().propose(ep)
        more = [each.node for each in support.rejections if op_name(each.node) in self.also]
        return Support(
            [*support.candidates, *(Candidate((node,)) for node in more)],
            [each for each in support.rejections if each.node not in more],
        )

    def compile(
        self, program: ExportedProgram, specs: list[CompileSpec], well: Compile
    ) -> PreprocessResult:
        """In place of its `preprocess`, which is `well`."""
        return well(program, specs)

    def distort(self, results: list[Any], run: int, threads: int) -> list[Any]:
        """What its program gives in a run, of which there were some before."""
        return results

    def help(self) -> None:
        """What other threads do, again and again, while its program is timed."""
        time.sleep(0.01)


def _ops(program: ExportedProgram) -> list[Node]:
    return list(compute_nodes(program))


class SaysNothing(Broken):
    def available(self) -> str | None:
        return ""


class RunsByYes(Broken):
    def runnable(self) -> Any:
        return True


class TolerancePercent(Broken):
    tolerance = 5.0


class NoLayouts(Broken):
    def boundary_layouts(self, rank: int) -> tuple[Layout, ...]:
        return (Layout.CHANNELS_LAST,) if rank == 4 else (Layout.CONTIGUOUS,)


class FractionToLoad(Broken):
    def load_options(self, threads: int) -> Any:
        return {"share": 0.5}


class OtherOptionsToLoad(Broken):
    def __init__(self) -> None:
        self._asked = itertools.count()

    def load_options(self, threads: int) -> Mapping[str, int | bool | str]:
        return {"stream": next(self._asked)}


class TextToCompile(Broken):
    def compile_specs(self) -> Any:
        return [CompileSpec("precision", "half")]  # type: ignore[arg-type]


class OtherOptionsToCompile(Broken):
    def __init__(self) -> None:
        self._asked = itertools.count()

    def compile_specs(self) -> list[CompileSpec]:
        return [CompileSpec("build", str(next(self._asked)).encode())]


class LongOption(Broken):
    def load_options(self, threads: int) -> Mapping[str, int | bool | str]:
        return {} if threads == 1 else {"cores " * 100: threads}


class OtherByThreads(Broken):
    def distort(self, results: list[Any], run: int, threads: int) -> list[Any]:
        return results if threads == 1 else [each * 1.01 for each in results]


class NamesNoSoftware(Broken):
    def fingerprint(self) -> str:
        return "toy"


class NewFingerprints(Broken):
    def __init__(self) -> None:
        self._asked = itertools.count()

    def fingerprint(self) -> str:
        return f"{self.versions()}, session {next(self._asked)}"


class NamesNoOptions(Broken):
    def fingerprint(self) -> str:
        return self.versions()


class TakesNothing(Broken):
    def propose(self, ep: ExportedProgram) -> Support:
        return Support((), [Rejection(node, "not today") for node in compute_nodes(ep)])


class TakesTotals(Broken):
    """XNNPACK's delegate has none."""

    also = ("aten.sum.dim_IntList",)


class RefusesOne(Broken):
    def compile(
        self, program: ExportedProgram, specs: list[CompileSpec], well: Compile
    ) -> PreprocessResult:
        if len(_ops(program)) == 1:
            raise RuntimeError("one op is not worth it")
        return well(program, specs)


class RefusesTwo(Broken):
    def compile(
        self, program: ExportedProgram, specs: list[CompileSpec], well: Compile
    ) -> PreprocessResult:
        if len(_ops(program)) == 2:
            raise RuntimeError("two ops do not get on")
        return well(program, specs)


class RefusesAlone(Broken):
    def check_segment(self, nodes: Sequence[Node]) -> str | None:
        sums = any(op_name(node) == "aten.mul.Tensor" for node in nodes)
        return "toy multiplies no more" if sums else super().check_segment(nodes)


class OtherLayoutsLater(Broken):
    """Takes images in channels-last until it has compiled one."""

    def __init__(self) -> None:
        self._compiled = False

    def boundary_layouts(self, rank: int) -> tuple[Layout, ...]:
        return BOTH_LAYOUTS if rank == 4 and not self._compiled else (Layout.CONTIGUOUS,)

    def compile(
        self, program: ExportedProgram, specs: list[CompileSpec], well: Compile
    ) -> PreprocessResult:
        self._compiled = True
        return well(program, specs)


class RefusesPairs(Broken):
    def check_segment(self, nodes: Sequence[Node]) -> str | None:
        return "toy takes no pairs" if len(nodes) == 2 else None


class EverySecondTime(Broken):
    def __init__(self) -> None:
        self._asked = itertools.count()

    def propose(self, ep: ExportedProgram) -> Support:
        support = super().propose(ep)
        if next(self._asked) % 2 == 0:
            return support
        (node,) = support.candidates[0].nodes
        return Support(
            support.candidates[1:], [*support.rejections, Rejection(node, "toy is tired")]
        )


class DatedBytes(Broken):
    def __init__(self) -> None:
        self._compiled = itertools.count()

    def compile(
        self, program: ExportedProgram, specs: list[CompileSpec], well: Compile
    ) -> PreprocessResult:
        made = well(program, specs)
        return replace(made, processed_bytes=made.processed_bytes + bytes([next(self._compiled)]))


class ReadsWeights(Broken):
    def propose(self, ep: ExportedProgram) -> Support:
        assert all(float(weight.abs().max()) > 0 for weight in ep.state_dict.values())
        return super().propose(ep)


class WaitsForWeights(Broken):
    def propose(self, ep: ExportedProgram) -> Support:
        if not any(isinstance(weight, FakeTensor) for weight in ep.state_dict.values()):
            return super().propose(ep)
        return Support((), [Rejection(node, "no values yet") for node in compute_nodes(ep)])


class SwapsTerms(Broken):
    def propose(self, ep: ExportedProgram) -> Support:
        for node in compute_nodes(ep):
            if op_name(node) == "aten.add.Tensor":
                node.args = (*node.args[1::-1], *node.args[2:])
        return super().propose(ep)


class RoundsWeights(Broken):
    def propose(self, ep: ExportedProgram) -> Support:
        for name, weight in ep.state_dict.items():
            ep.state_dict[name] = torch.empty_like(weight)
        return super().propose(ep)


class TakesIntegers(Broken):
    """Which XNNPACK's delegate adds as if they were floats."""

    also = ("aten.add.Tensor", "aten.mul.Tensor")


class SoftmaxOfImages(Broken):
    """XNNPACK's delegate takes it over the last dim in memory, whichever that is."""

    also = ("aten._softmax.default",)

    def boundary_layouts(self, rank: int) -> tuple[Layout, ...]:
        return BOTH_LAYOUTS if rank == 4 else (Layout.CONTIGUOUS,)


class RejectsWhatItNames(Broken):
    def boundary_layouts(self, rank: int) -> tuple[Layout, ...]:
        return BOTH_LAYOUTS if rank == 4 else (Layout.CONTIGUOUS,)

    def propose(self, ep: ExportedProgram) -> Support:
        support = super().propose(ep)
        nodes = [each.nodes[0] for each in support.candidates]
        images = [node for node in nodes if not has_default_dim_order(node)]
        return Support(
            [each for each in support.candidates if each.nodes[0] not in images],
            [*support.rejections, *(Rejection(node, "an image") for node in images)],
        )


class OldSizes(Broken):
    """Gives tensors of the size that it saw first."""

    def __init__(self) -> None:
        self._first: list[torch.Size] = []

    def distort(self, results: list[Any], run: int, threads: int) -> list[Any]:
        self._first = self._first or [each.shape for each in results]
        return [
            each if each.shape == size else each.new_zeros(size)
            for each, size in zip(results, self._first, strict=True)
        ]


class SharesCode(Broken):
    """Gives every call of as many ops the code of the first one."""

    def __init__(self) -> None:
        self._made: dict[int, PreprocessResult] = {}

    def compile(
        self, program: ExportedProgram, specs: list[CompileSpec], well: Compile
    ) -> PreprocessResult:
        return self._made.setdefault(len(_ops(program)), well(program, specs))


class Drifts(Broken):
    def distort(self, results: list[Any], run: int, threads: int) -> list[Any]:
        return [each * (1.0 + run * 2**-20) for each in results]


class OtherEachTime(Broken):
    """Gives other numbers with each program that it makes."""

    def __init__(self) -> None:
        self._programs = 0

    def distort(self, results: list[Any], run: int, threads: int) -> list[Any]:
        self._programs += run == 0
        return [each * (1.0 + self._programs * 2**-20) for each in results]


class HasHelpers(Broken):
    """Another thread multiplies while it computes."""

    def help(self) -> None:
        torch.mm(_WIDE, _WIDE)
