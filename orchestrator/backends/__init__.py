"""The backends that plans choose from; each is one module behind one small protocol."""

from orchestrator.backends.base import Backend, BackendError, Candidate, Rejection, Support
from orchestrator.backends.registry import backend_names, find_backend, resolve_backends

__all__ = [
    "Backend",
    "BackendError",
    "Candidate",
    "Rejection",
    "Support",
    "backend_names",
    "find_backend",
    "resolve_backends",
]
