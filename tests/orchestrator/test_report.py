"""Reports: what they hold, how they look, and how they travel inside a .pte."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from orchestrator import LoweredProgram, LoweringWarning, lower, read_report, render_text
from orchestrator.pte import PteError, read_named_data
from orchestrator.report.data import (
    MethodReport,
    PartitionReport,
    RejectionReport,
    Report,
    ReportError,
    TensorReport,
)
from orchestrator.report.embed import KEY
from tests.orchestrator.fakes import OpsBackend, plain_flow

GOLDEN = Path(__file__).parent / "golden"


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.inner(x).exp()
        return torch.cumsum(y, 0), y.neg()


X = torch.ones(4, 6)


@pytest.fixture(scope="module")
def program() -> LoweredProgram:
    whole = [torch.ops.aten.linear.default]
    backends = [OpsBackend("p", ["linear", "exp"], preserved=whole), OpsBackend("q", ["neg"])]
    return lower(Model().eval(), (X,), backends=backends)


@pytest.fixture
def saved(program: LoweredProgram, tmp_path: Path) -> Path:
    path = tmp_path / "model.pte"
    program.save(path)
    return path


def _made_up() -> Report:
    """A report with everything that a report can hold."""
    image = TensorReport("image", "float32", ("s0", 3, 224, 224), 602_112)
    features = TensorReport("aten_hardtanh_default_34", "float32", (1, 1280, 7, 7), 250_880)
    pooled = TensorReport("aten_mean_dim", "float32", (1, 1280, 1, 1), 5_120)
    scale = TensorReport("a_rather_long_name_of_a_tensor_that_comes_in_too", "float32", (), 4)
    return Report(
        backends=("ggml", "xnnpack"),
        methods=(
            MethodReport(
                "forward",
                (
                    PartitionReport(
                        "ggml",
                        tuple(f"node_{index}" for index in range(97)),
                        {
                            "aten.convolution.default": 52,
                            "aten.hardtanh.default": 35,
                            "aten.add.Tensor": 10,
                        },
                        (image, scale),
                        (features,),
                        weight_bytes=8_900_000,
                    ),
                    PartitionReport(
                        "xnnpack", ("n",), {"aten.mean.dim": 1}, (features,), (pooled,)
                    ),
                ),
                kernels={"aten.topk.default": 1, "aten.linalg_inv_ex.default": 2},
                missing_kernels={"aten.linalg_inv_ex.default": "aten::linalg_inv_ex.inverse"},
                rejections=(
                    RejectionReport("ggml", "n", "aten.mean.dim", "mean over several dims", "head"),
                    RejectionReport(
                        "ggml", "t", "aten.topk.default", "no rule for aten.topk.default"
                    ),
                    *(
                        RejectionReport("xnnpack", f"c{index}", op, "dtype not supported")
                        for index, op in enumerate(["aten.add.Tensor"] * 3 + ["aten.mul.Tensor"])
                    ),
                ),
            ),
            MethodReport("nothing"),
        ),
        versions={"executorch": "1.5.1"},
    )


class TestData:
    def test_json_and_back(self, program: LoweredProgram) -> None:
        for report in (_made_up(), program.report):
            assert Report.from_json(report.to_json()) == report

    @pytest.mark.parametrize(
        "text", ["", "{", "[]", "3", '{"format": 1}', '{"format": 1, "backends": 1}', b"\xff\xfe"]
    )
    def test_other_json_is_an_error(self, text: str | bytes) -> None:
        with pytest.raises(ReportError, match="not a report"):
            Report.from_json(text)

    def test_another_format_is_an_error_that_says_so(self) -> None:
        data = {**json.loads(_made_up().to_json()), "format": 99}
        with pytest.raises(ReportError, match="format 99; this version reads 1"):
            Report.from_json(json.dumps(data))

    def test_partitions_rejections_and_kernels_of_a_program(self, program: LoweredProgram) -> None:
        (method,) = program.report.methods
        first, second = method.partitions
        assert first.backend == "p"
        assert first.ops == {"aten.linear.default": 1, "aten.exp.default": 1}
        assert [(tensor.shape, tensor.bytes) for tensor in first.inputs] == [((4, 6), 96)]
        assert [(tensor.shape, tensor.bytes) for tensor in first.outputs] == [((4, 3), 48)]
        assert first.weight_bytes == 4 * (6 * 3 + 3)
        assert second.backend == "q"
        assert second.ops == {"aten.neg.default": 1}
        assert method.kernels["aten.cumsum.default"] == 1
        assert not method.missing_kernels
        rejections = {(item.backend, item.op): item for item in method.rejections}
        assert rejections["q", "aten.exp.default"].reason == "q lacks exp"
        assert rejections["p", "aten.neg.default"].module == ""
        assert rejections["q", "aten.linear.default"].module == "inner"

    def test_a_missing_kernel_is_reported_and_warned_of(self) -> None:
        class Inverse(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return torch.linalg.inv_ex(x)[0]

        with pytest.warns(LoweringWarning, match=r"aten::linalg_inv_ex\.inverse.*no kernel"):
            report = lower(Inverse(), (torch.eye(3),), backends=[]).report
        assert report.methods[0].missing_kernels == {
            "aten.linalg_inv_ex.default": "aten::linalg_inv_ex.inverse"
        }


class TestText:
    def test_it_looks_like_the_golden_file(self) -> None:
        assert render_text(_made_up()) == (GOLDEN / "report.txt").read_text()

    def test_it_fits_100_columns(self, program: LoweredProgram) -> None:
        for report in (_made_up(), program.report):
            assert max(map(len, render_text(report).splitlines())) <= 100


class TestInsideAProgram:
    def test_the_file_alone_gives_the_report(self, program: LoweredProgram, saved: Path) -> None:
        assert read_report(saved) == program.report

    def test_programs_made_otherwise_have_none(self, tmp_path: Path) -> None:
        from torch.export import export

        from orchestrator import OrchestratorPartitioner

        path = tmp_path / "model.pte"
        path.write_bytes(plain_flow(export(Model().eval(), (X,)), OrchestratorPartitioner([])))
        with pytest.raises(ReportError, match=r"model\.pte holds no report"):
            read_report(path)

    def test_other_files_are_an_error(self, tmp_path: Path) -> None:
        path = tmp_path / "model.pte"
        for content in (b"", b"PK\x03\x04", b"x" * 200):
            path.write_bytes(content)
            with pytest.raises(PteError, match=r"model\.pte.*(program|damaged)"):
                read_report(path)

    def test_cut_off_files_are_an_error(self, saved: Path) -> None:
        whole = saved.read_bytes()
        for size in (12, 40, 200, len(whole) // 2, len(whole) - 10_000):
            saved.write_bytes(whole[:size])
            with pytest.raises(PteError, match=r"model\.pte.*(damaged|cut off|program)"):
                read_report(saved)

    def test_corrupt_files_never_raise_anything_else(self, saved: Path) -> None:
        whole = bytearray(saved.read_bytes())
        flatbuffer_size = struct.unpack_from("<Q", whole, 16)[0]
        for place in range(0, flatbuffer_size, 7):
            damaged = bytearray(whole)
            damaged[place : place + 4] = b"\xff\xff\xff\x7f"
            saved.write_bytes(damaged)
            try:
                read_named_data(saved, KEY)
            except PteError as error:
                assert "model.pte" in str(error)
