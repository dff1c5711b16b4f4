"""Cost-based placement of PyTorch models on several ExecuTorch backends."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from orchestrator.quiet import quiet_imports

if TYPE_CHECKING:
    from orchestrator.backends import BackendError
    from orchestrator.failures import LoweringError
    from orchestrator.frontend.errors import ModelError
    from orchestrator.llm.lower_llm import lower_llm
    from orchestrator.llm.model import LanguageModel
    from orchestrator.lowering import LoweringWarning, lower
    from orchestrator.options import OptionError, PlanOptions, TuneEvent
    from orchestrator.partitioner import OrchestratorPartitioner
    from orchestrator.program import LoweredProgram
    from orchestrator.report.data import Report
    from orchestrator.report.embed import read_report
    from orchestrator.report.text import render_text

__all__ = [
    "BackendError",
    "LanguageModel",
    "LoweredProgram",
    "LoweringError",
    "LoweringWarning",
    "ModelError",
    "OptionError",
    "OrchestratorPartitioner",
    "PlanOptions",
    "Report",
    "TuneEvent",
    "lower",
    "lower_llm",
    "read_report",
    "render_text",
]

# Imported on first use: torch and ExecuTorch take seconds to import, and the planner and the
# reports need neither.
_HOMES = {
    "BackendError": "orchestrator.backends",
    "LanguageModel": "orchestrator.llm.model",
    "LoweredProgram": "orchestrator.program",
    "LoweringError": "orchestrator.failures",
    "LoweringWarning": "orchestrator.lowering",
    "ModelError": "orchestrator.frontend.errors",
    "OptionError": "orchestrator.options",
    "OrchestratorPartitioner": "orchestrator.partitioner",
    "PlanOptions": "orchestrator.options",
    "Report": "orchestrator.report.data",
    "TuneEvent": "orchestrator.options",
    "lower": "orchestrator.lowering",
    "lower_llm": "orchestrator.llm.lower_llm",
    "read_report": "orchestrator.report.embed",
    "render_text": "orchestrator.report.text",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with quiet_imports():
        value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
