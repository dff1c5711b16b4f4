"""What a user may ask of a plan."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

Strategy = Literal["cost", "greedy"]
Tune = Literal["off", "cached", "measure"]
HOST = "host"
KERNELS = "portable"
"""The name of ExecuTorch's own kernels, which run whatever no delegate takes."""
DEFAULT_BACKENDS = ("ggml", "xnnpack")


class OptionError(ValueError):
    """Options that make no sense, alone or together; the message says what to do."""


@dataclass(frozen=True)
class TuneEvent:
    """Where tuning is, for a progress bar.

    stage: what is going on, such as "timing ops" or "timing plans". done, total: of its steps.
    remaining_s: an estimate, None if there is none yet.
    """

    stage: str
    done: int
    total: int
    remaining_s: float | None = None


@dataclass(frozen=True)
class PlanOptions:
    """How to plan a program.

    strategy: "cost" for the cheapest plan, "greedy" for the first backend that takes a node, as
        ExecuTorch does it with a list of partitioners.
    tune: where costs come from. "off": estimated from shapes, the same on every machine. "cached":
        what the cost table has of this machine, and estimates for the rest. "measure": what the
        table lacks is measured; then the best few plans, every backend alone and every greedy plan
        are timed end to end, and the fastest is taken and remembered. A program that was tuned
        before, on the same software, is not tuned again.
    threads: that the program will run on; None for as many as this process may use.
    target: the name under which another device's costs were imported, or "host".
    pins: backends by pattern. A pattern names modules ("layers.3" with all in it, "layers.*"),
        ops ("aten.linear.default", "linear") or nodes, with the wildcards of fnmatch.
    exclude: backends not to use by pattern; or patterns of what is not to be delegated at all.
    max_partitions: of delegate calls per method.
    max_duplicated_bytes: of weights that more than one backend holds, per method.
    max_private_bytes: of memory that delegates hold beside the file, per method, as predicted.
    cost_table: a file; None for the user's own, in the cache folder. One that ends in .json has
        rates of the target, see `orchestrator.cost.rates`.
    weight_error: what an element of a weight may be off by, over the largest of its row; 0 for not
        at all. Weights of floats are then stored in float16 or bfloat16 where that is near enough
        and a backend takes them, and so are scales of groups of integers.
    tolerance: by how much of the largest value float32 results may be off because a backend
        computes in less than float32; one that may be off by more is refused.
    budget_s: for measuring, in seconds; None for as long as it takes.
    progress: called while measuring.

    Raises:
        OptionError: values out of range, or options that exclude each other.
    """

    strategy: Strategy = "cost"
    tune: Tune = "cached"
    threads: int | None = None
    target: str = HOST
    pins: Mapping[str, str] = field(default_factory=dict)
    exclude: Mapping[str, str | Sequence[str]] | Sequence[str] = ()
    max_partitions: int | None = None
    max_duplicated_bytes: int | None = None
    max_private_bytes: int | None = None
    cost_table: str | os.PathLike[str] | None = None
    weight_error: float = 0.0
    tolerance: float = 0.0
    budget_s: float | None = None
    progress: Callable[[TuneEvent], None] | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        _check_choice("strategy", self.strategy, get_args(Strategy))
        _check_choice("tune", self.tune, get_args(Tune))
        if self.threads is not None and self.threads < 1:
            raise OptionError(f"threads is {self.threads}; expected 1 or more")
        if self.budget_s is not None and not self.budget_s > 0:
            raise OptionError(f"budget_s is {self.budget_s}; expected more than 0 seconds")
        if not 0 <= self.tolerance < 1:
            raise OptionError(
                f"tolerance is {self.tolerance}; expected 0 to below 1, of the largest value"
            )
        if not 0 <= self.weight_error < 1:
            raise OptionError(
                f"weight_error is {self.weight_error}; expected 0 to below 1, of a row's largest "
                "element: 5e-4 is enough for float16, 4e-3 for bfloat16"
            )
        for name in ("max_partitions", "max_duplicated_bytes", "max_private_bytes"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise OptionError(f"{name} is {value}; expected 0 or more")
        if isinstance(self.exclude, str):
            raise OptionError(f"exclude is the string {self.exclude!r}; pass a list of patterns")
        if self.tune == "measure" and self.table_path and self.table_path.suffix == ".json":
            raise OptionError(
                f"cost_table is {self.cost_table}, a file of rates, where no measurement can be "
                "stored; use tune='cached'"
            )
        if self.tune == "measure" and self.target != HOST:
            raise OptionError(
                f"cannot measure target {self.target!r} from here; run `orchestrator calibrate "
                "export`, `orchestrator-run --calibrate` on the device and `orchestrator "
                "calibrate import`, then lower with tune='cached'"
            )

    @property
    def thread_count(self) -> int:
        """The number of threads that costs are for."""
        return self.threads if self.threads is not None else len(os.sched_getaffinity(0))

    @property
    def table_path(self) -> Path | None:
        """The cost table's file; None for the default."""
        return None if self.cost_table is None else Path(self.cost_table)

    def excluded(self, delegates: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Return the backends not to use by pattern.

        delegates: names of all.
        """
        if not isinstance(self.exclude, Mapping):
            return dict.fromkeys(self.exclude, tuple(delegates))
        return {
            pattern: (names,) if isinstance(names, str) else tuple(names)
            for pattern, names in self.exclude.items()
        }


def _check_choice(name: str, value: object, known: Sequence[str]) -> None:
    if value not in known:
        raise OptionError(f"{name} is {value!r}; known: {', '.join(map(repr, known))}")
