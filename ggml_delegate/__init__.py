"""A ggml backend for ExecuTorch: lowering ahead of time, and running natively.

Importing it loads the native backend, which registers itself with ExecuTorch's runtime, so that
`executorch.runtime` in the same process can run programs that use it.
"""

from _ggml_delegate import _runtime as _runtime
