"""ExecuTorch's own call with `OrchestratorPartitioner`, where nothing of torch is patched."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.e2e.documented_flow import CASES
from tests.harness.compare import SENSITIVITY_FACTOR


@pytest.fixture(scope="module")
def found() -> dict[str, dict[str, Any]]:
    """What one process found of all models, by name."""
    command = [sys.executable, "-m", "tests.e2e.documented_flow"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [line["name"] for line in lines] == list(CASES), done.stderr[-3000:]
    return {line["name"]: line for line in lines}


@pytest.mark.parametrize("name", CASES)
def test_it_gives_what_eager_gives(name: str, found: dict[str, dict[str, Any]]) -> None:
    case, result = CASES[name], found[name]
    assert "failed" not in result, result["failed"]
    assert not result["patched"]
    assert result["used"] and set(result["used"]) >= case.uses
    assert result["error"] <= case.tolerance
    assert result["sensitivity"] >= SENSITIVITY_FACTOR * case.tolerance
