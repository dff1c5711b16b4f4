"""Lowers networks with real weights and puts their questions: python -m examples.real [NAME ...].

Prints what each answers, lowered and in eager PyTorch; exits with 1 if an answer is wrong.
"""

from __future__ import annotations

import copy
import sys

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

import orchestrator

from . import NETWORKS, Part


class _Lowered:
    """A part on ggml and XNNPACK; its results stay as they are when it runs again."""

    def __init__(self, part: Part) -> None:
        self._program = orchestrator.lower(
            copy.deepcopy(part.model),
            part.inputs,
            backends=["ggml", "xnnpack"],
            dynamic_shapes=part.dynamic_shapes,
            tune="off",
        )

    def __call__(self, *inputs: Tensor) -> object:
        return tree_map(torch.clone, self._program(*inputs))


def main() -> int:
    """Runs the command."""
    wrong = 0
    for name in sys.argv[1:] or NETWORKS:
        network = NETWORKS[name]
        parts = network.build()
        with torch.no_grad():
            eager = network.ask({key: part.model for key, part in parts.items()})
            answer = network.ask({key: _Lowered(part) for key, part in network.build().items()})
        print(f"{name}: {network.question}")
        print(f"  lowered: {answer.text}{'' if answer.right else '  WRONG'}")
        print(f"  eager:   {eager.text}", flush=True)
        wrong += not answer.right
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
