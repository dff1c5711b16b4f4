"""What it would take for a backend to accept what it rejects: reasons matched to remedies."""

from __future__ import annotations

import re

# The first pattern that occurs in a reason gives the remedy; {1} is the pattern's first group.
_REMEDIES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), remedy)
    for pattern, remedy in (
        (r"left to other backends", ""),  # on purpose, others are faster
        (r"accepts the node, but not the nodes around it", ""),
        (r"has rank \d+, at most (\d+)", "reshape to rank {1} or less around it"),
        (r"only supports averaging 4D tensors", "reshape to rank 4 around it"),
        (
            r"unsqueeze_copy only supported on the trailing",
            "unsqueeze the last dimension, or reshape",
        ),
        (r"pooling of rank", "add a batch dimension (unsqueeze) before it"),
        (r"convolution over 3 dimensions", "write it as 2d convolutions over slices"),
        (r"dtype (?:int|uint|bool)|are (?:bool|int)", "compute it in float32: x.float() before it"),
        (r"dtype float64|are float64", "use float32: model.float() before exporting"),
        (r"dtype (?:float16|bfloat16)", "use float32 activations: model.float() before exporting"),
        (r"dropout", "call model.eval() before exporting"),
        (r"running statistics", "call model.eval() before exporting"),
        (r"(?:weight|bias|parameters?) .*computed", "make it a parameter or a buffer of the model"),
        (r"computed weight", "make the weight a parameter or a buffer of the model"),
        (r"changes the buffer", "keep the weight out of in-place updates"),
        (r"whose weight \S+ has other users", "give the convolution a weight of its own"),
        (r"dynamic", "export this size as a fixed one"),
        (
            r"(?:only )?known (?:only )?at run time|not known",
            "make it a number in the model's code",
        ),
        (r"transposed convolution in groups", "write it as one convolution per group"),
        (r"over several dims", "reduce one dimension after the other"),
        (r"converts its input", "convert the input in an op of its own: x.to(dtype) before it"),
        (r"without elements|has no elements", "leave the empty tensor out"),
        (r"may be below 0", "use an index counted from the start"),
        (r"is on (?!cpu)", "move the model to the CPU before exporting"),
        (r"no XNNPACK operator for", "write it with ops that XNNPACK has"),
        (r"ggml has no rule for", "write it with ops that ggml has, or add a rule for it"),
    )
)


def remedy(reason: str) -> str:
    """Return what it would take, as a sentence fragment; "" where nothing general can be said."""
    for pattern, text in _REMEDIES:
        found = pattern.search(reason)
        if found:
            return text.replace("{1}", found.group(1) if found.groups() else "")
    return ""
