"""The backends that plans choose from: what is asked of one, those shipped here, and others.

Each backend is one module with one subclass of `Backend`.
"""

from orchestrator.backends.base import (
    Backend,
    BackendError,
    Candidate,
    Estimates,
    PrivateMemory,
    Rates,
    Rejection,
    Support,
    load_options,
)
from orchestrator.backends.of_partitioner import PartitionerBackend
from orchestrator.backends.registry import backend_names, find_backend, resolve_backends

__all__ = [
    "Backend",
    "BackendError",
    "Candidate",
    "Estimates",
    "PartitionerBackend",
    "PrivateMemory",
    "Rates",
    "Rejection",
    "Support",
    "backend_names",
    "find_backend",
    "load_options",
    "resolve_backends",
]
