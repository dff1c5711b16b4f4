"""What is raised about models; apart, as reading a model's file needs no exporting."""

from __future__ import annotations


class ModelError(ValueError):
    """A model, or its example inputs, is not what lowering needs."""
