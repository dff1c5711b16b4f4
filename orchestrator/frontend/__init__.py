"""From a user's model to the exported program that is planned: export, rewrites, shared state."""

from __future__ import annotations

from orchestrator.frontend import group_quantization as group_quantization  # registers its op
