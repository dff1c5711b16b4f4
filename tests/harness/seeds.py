"""Seeds of the random numbers that tests draw."""

from __future__ import annotations

import hashlib
import random

import numpy as np
import torch


def seed_all(base: int, name: str) -> None:
    """Seeds what tests draw from: torch, numpy's global generator and `random`.

    Args:
        base: the seed of the whole run.
        name: who draws: the same name and base give the same numbers in every process.
    """
    digest = hashlib.sha256(f"{base} {name}".encode()).digest()
    seed = int.from_bytes(digest[:4], "little")  # what numpy takes
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - the generator that tests share
    random.seed(seed)
