"""XNNPACK, through the delegate and the partitioner configs that come with ExecuTorch."""

from orchestrator.backends.xnnpack.delegate import XnnpackDelegate

__all__ = ["XnnpackDelegate"]
