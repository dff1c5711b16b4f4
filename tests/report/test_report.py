"""Reports: what they hold, how they look, and how they travel inside a .pte."""

from __future__ import annotations

import gzip
import json
import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from orchestrator import LoweredProgram, LoweringWarning, lower, read_report, render_text
from orchestrator.report.data import Report, ReportError
from orchestrator.report.dot import render_dot
from orchestrator.report.embed import KEY, vocabulary
from orchestrator.report.pte import PteError, read_named_data
from tests.harness.fakes import OpsBackend, plain_flow
from tests.report.made_up import made_up_report

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
    return lower(Model().eval(), (X,), backends=backends, strategy="greedy")


@pytest.fixture
def saved(program: LoweredProgram, tmp_path: Path) -> Path:
    path = tmp_path / "model.pte"
    program.save(path)
    return path


class TestData:
    def test_json_and_back(self, program: LoweredProgram) -> None:
        for report in (made_up_report(), program.report):
            assert Report.from_json(report.to_json()) == report

    @pytest.mark.parametrize(
        "text",
        [
            *("", "{", "[]", "3", "{}", '{"format": 2}', '{"format": 2, "backends": 1}'),
            '{"format": 2, "backends": [], "methods": [{"name": "m", "segments": [{}]}]}',
            '{"format": 2, "backends": [], "methods": [], "surprise": 1}',
            '{"format":2,"backends":[],"methods":[{"name":"m","plan":{"solver":"s","gap":"x"}}]}',
            b"\xff\xfe",
            "[" * 100_000,
        ],
    )
    def test_other_json_is_an_error(self, text: str | bytes) -> None:
        with pytest.raises(ReportError, match="not a report"):
            Report.from_json(text)

    def test_another_format_is_an_error_that_says_so(self) -> None:
        data = {**json.loads(made_up_report().to_json()), "format": 99}
        with pytest.raises(ReportError, match="format 99; this version reads 2"):
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
        assert render_text(made_up_report()) == (GOLDEN / "report.txt").read_text()

    def test_colours_paint_and_change_nothing_else(self) -> None:
        plain, painted = (render_text(made_up_report(), color=color) for color in (False, True))
        assert "\x1b[" not in plain
        assert "\x1b[34mggml\x1b[0m" in painted
        assert re.sub(r"\x1b\[\d+m", "", painted) == plain

    def test_it_fits_100_columns(self, program: LoweredProgram) -> None:
        for report in (made_up_report(), program.report):
            for details in (False, True):
                text = render_text(report, details=details)
                assert max(map(len, text.splitlines())) <= 100
                assert not any(line != line.rstrip() for line in text.splitlines())

    def test_many_segments_are_a_table_only_unless_details_are_asked_for(self) -> None:
        report = made_up_report()
        method = replace(report.methods[0], segments=report.methods[0].segments * 4)
        many = replace(report, methods=(method,))
        assert "  ops     " not in render_text(many)
        assert render_text(many, details=True).count("  ops     ") == 12


class TestDot:
    def test_it_looks_like_the_golden_file(self) -> None:
        assert render_dot(made_up_report()) == (GOLDEN / "report.dot").read_text()

    def test_names_are_quoted(self) -> None:
        report = made_up_report()
        method = replace(report.methods[0], name='a "quoted\\" name')
        text = render_dot(replace(report, methods=(method,)))
        assert 'label="a \\"quoted\\\\\\" name";' in text


class TestInsideAProgram:
    def test_the_file_alone_gives_the_report(self, program: LoweredProgram, saved: Path) -> None:
        assert read_report(saved) == program.report

    def test_files_of_before_are_read(self) -> None:
        # What reports were compressed with. After a change, old files are called damaged: then it
        # takes another key, and this number.
        assert zlib.crc32(vocabulary()) == 0xED35FF07

    def test_it_takes_little_room(self, program: LoweredProgram, saved: Path) -> None:
        data = read_named_data(saved, KEY)
        assert data is not None
        assert len(data) < len(gzip.compress(program.report.to_json().encode())) / 1.5

    def test_programs_made_otherwise_have_none(self, tmp_path: Path) -> None:
        from torch.export import export

        from orchestrator import OrchestratorPartitioner

        path = tmp_path / "model.pte"
        path.write_bytes(plain_flow(export(Model().eval(), (X,)), OrchestratorPartitioner([])))
        with pytest.raises(ReportError, match=r"model\.pte holds no report"):
            read_report(path)

    @pytest.mark.parametrize("change", [lambda data: data[:-9], lambda data: b"\0" + data[1:]])
    def test_a_damaged_report_is_an_error(
        self, saved: Path, change: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        data = read_named_data(saved, KEY)
        assert data is not None
        damaged = change(data)
        monkeypatch.setattr("orchestrator.report.embed.read_named_data", lambda *_: damaged)
        with pytest.raises(ReportError, match=r"model\.pte is damaged"):
            read_report(saved)

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
