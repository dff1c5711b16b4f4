"""The configuration of ExecuTorch's edge dialect."""

from __future__ import annotations

from executorch.exir import EdgeCompileConfig


def edge_compile_config() -> EdgeCompileConfig:
    """Return the configuration under which all backends agree on what a program means.

    Dim orders stay part of the program: it is how a model in channels-last says so, XNNPACK and
    the kernels both read them, and without them a change of memory format would be lost. The
    check for core ATen ops is off, as in ExecuTorch's own XNNPACK flow: ops outside that set can
    have a kernel or a delegate that takes them.
    """
    return EdgeCompileConfig(_check_ir_validity=False, _skip_dim_order=False)
