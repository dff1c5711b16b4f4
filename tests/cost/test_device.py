"""Costs of another device, with this machine's native runner in the place of the device."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from _ggml_delegate import RUNNER
from torch import nn

from orchestrator import lower
from orchestrator.cli import main
from orchestrator.cost.calibration import BASELINE
from orchestrator.cost.device import DeviceError, import_results
from orchestrator.cost.measure import BESIDE
from orchestrator.cost.table import CostTable

MODEL = """
import torch
def small():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.GELU(), torch.nn.Linear(32, 4))
    return model.eval(), (torch.ones(2, 16),)
"""


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An exported folder, and the results of measuring it with one thread."""
    folder = tmp_path_factory.mktemp("device")
    (folder / "models_for_calibration.py").write_text(MODEL)
    exported, results = folder / "ops", folder / "results.tsv"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", [str(folder), *sys.path])
        command = ["calibrate", "export", "models_for_calibration:small", "-o", str(exported)]
        assert main(command) == 0
    arguments = ["--calibrate", str(exported), "--results", str(results), "--threads", "1"]
    subprocess.run([str(RUNNER), *arguments], check=True)
    return exported, results


def test_every_method_that_was_exported_is_measured(device: tuple[Path, Path]) -> None:
    exported, results = device
    manifest = json.loads((exported / "manifest.json").read_text())
    wanted = {(file, method) for file, row in manifest["files"].items() for method in row}
    lines = [line.split("\t") for line in results.read_text().splitlines() if line[0] != "#"]
    assert {(line[0], line[1]) for line in lines} == wanted
    assert all(float(line[2]) > 0 and int(line[4]) >= 5 for line in lines)
    backends = {entry["backend"] for row in manifest["files"].values() for entry in row.values()}
    assert backends == {"ggml", "xnnpack", "portable"}


def test_a_program_is_planned_for_the_device(
    device: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "costs.sqlite"
    exported, results = device
    arguments = [str(exported), str(results), "--target", "phone", "--cost-table", str(path)]
    assert main(["calibrate", "import", *arguments]) == 0
    assert "for target 'phone'" in capsys.readouterr().out
    assert main(["calibrate", "list", "--cost-table", str(path)]) == 0
    assert capsys.readouterr().out.startswith("phone, 1 threads, ")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 4)).eval()
    program = lower(model, (torch.ones(2, 16),), target="phone", cost_table=path)
    (note,) = [note for note in program.plan["forward"].notes if "were measured" in note]
    known, _, wanted = note.split()[:3]
    assert known == wanted
    torch.testing.assert_close(program(torch.ones(2, 16)), model(torch.ones(2, 16)))


def test_what_is_around_an_op_is_taken_off(device: tuple[Path, Path], tmp_path: Path) -> None:
    """Every delegate's addition takes 100 ns, the kernels' 40, and everything else 1,000."""
    exported, _ = device
    files = json.loads((exported / "manifest.json").read_text())["files"]
    entries = [(file, method, each) for file, row in files.items() for method, each in row.items()]
    around = {"ggml": 100, "xnnpack": 100, "portable": 40}
    lines = [
        f"{file}\t{method}\t{around[each['backend']] if each['key'] == BASELINE else 1000}\t3\t5"
        for file, method, each in entries
    ]
    assert {each["backend"] for *_, each in entries if each["key"] == BASELINE} == set(around)
    table = CostTable(tmp_path / "costs.sqlite")
    found = import_results(exported, _damaged(tmp_path, HEAD + "\n".join(lines)), "phone", table)
    assert found.measured == sum(each["key"] not in BESIDE for *_, each in entries)
    for *_, each in entries:
        (environment,) = table.environments(each["backend"]) or [None]
        times = table.get(environment, each["backend"], [each["key"]]) if environment else {}
        if each["key"] == BASELINE:
            assert not times
        else:
            (measured,) = times.values()
            assert measured.median_ns == 1000 - around[each["backend"]]
            assert measured.spread_ns == pytest.approx(math.hypot(3, 3))


def test_batches_count_as_at_the_speed_of_the_first(
    device: tuple[Path, Path], tmp_path: Path
) -> None:
    """The device is half as fast from the second batch on: its reference tells."""
    exported, _ = device
    folder = tmp_path / "ops"
    folder.mkdir()
    manifest = json.loads((exported / "manifest.json").read_text())
    files = manifest["files"]
    again = {
        f"again_{file}": {
            method: {
                **each,
                "batch": "1",
                "key": each["key"] + (" again" * (each["key"] not in BESIDE)),
            }
            for method, each in row.items()
        }
        for file, row in files.items()
    }
    (folder / "manifest.json").write_text(json.dumps({**manifest, "files": {**files, **again}}))
    lines = [
        f"{file}\t{method}\t{1000 * factor if each['key'] != BASELINE else 0}\t3\t5"
        for factor, rows in ((1, files), (2, again))
        for file, row in rows.items()
        for method, each in row.items()
    ]
    table = CostTable(tmp_path / "costs.sqlite")
    import_results(folder, _damaged(tmp_path, HEAD + "\n".join(lines)), "phone", table)
    for backend in ("ggml", "xnnpack", "portable"):
        keys = {each["key"] for row in again.values() for each in row.values()}
        (environment,) = table.environments(backend)
        found = table.get(environment, backend, keys - BESIDE)
        assert found
        assert {each.median_ns for each in found.values()} == {1000}
        assert {each.spread_ns for each in found.values()} == {math.hypot(3, 3) / 2}


def _damaged(folder: Path, text: str) -> Path:
    path = folder / "results.tsv"
    path.write_text(text)
    return path


HEAD = "# orchestrator calibration 1\n# cpu\ta cpu\n# threads\t1\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "does not begin with"),
        ("median\n", "does not begin with"),
        ("# orchestrator calibration 1\n", "does not say how many threads"),
        (f"{HEAD}ops_0000.pte\tm0\tfast\t0\t5\n", "line 4: expected file, method, median"),
        (f"{HEAD}ops_0000.pte\tm0\tnan\t0\t5\n", "line 4: expected file, method, median"),
        (f"{HEAD}ops_0000.pte\tm0\t-1\t0\t5\n", "line 4: expected file, method, median"),
        (f"{HEAD}ops_0000.pte\tm0\n", "line 4: expected file, method, median"),
        (f"{HEAD}other.pte\tm0\t1\t0\t5\n", "other.pte, method 'm0', is not in the manifest"),
    ],
)
def test_results_that_do_not_fit_are_refused_and_nothing_is_stored(
    device: tuple[Path, Path], tmp_path: Path, text: str, message: str
) -> None:
    table = CostTable(tmp_path / "costs.sqlite")
    with pytest.raises(DeviceError, match=message):
        import_results(device[0], _damaged(tmp_path, text), "phone", table)
    assert table.environments() == []


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path) -> None:
    table = CostTable(tmp_path / "costs.sqlite")
    with pytest.raises(DeviceError, match="expected a folder from"):
        import_results(tmp_path, _damaged(tmp_path, HEAD), "phone", table)


def test_export_refuses_a_folder_with_something_in_it(
    device: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["calibrate", "export", "torch:nothing", "-o", str(device[0])]) == 1
    assert capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--calibrate", "/nowhere/at/all"], 3, "cannot read the folder"),
        (["--calibrate", "{empty}"], 3, "holds no program"),
        (["--calibrate", "{empty}", "model.pte"], 2, "model excludes --calibrate"),
        (["--results", "x", "model.pte"], 2, "--results requires --calibrate"),
    ],
)
def test_the_runner_refuses_what_it_cannot_calibrate(
    tmp_path: Path, arguments: list[str], status: int, message: str
) -> None:
    filled = [argument.replace("{empty}", str(tmp_path)) for argument in arguments]
    done = subprocess.run([str(RUNNER), *filled], capture_output=True, text=True, check=False)
    assert done.returncode == status
    assert message in done.stderr
