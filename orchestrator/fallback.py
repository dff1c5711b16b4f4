"""Methods that run where the delegates of others cannot be used.

The runtime runs "name__fallback" in place of "name" where a delegate that "name" calls is missing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from executorch.exir import EdgeProgramManager
from executorch.exir.lowered_backend_module import get_lowered_submodules
from torch.export import ExportedProgram

from orchestrator.backends import Backend, resolve_backends
from orchestrator.options import OptionError, PlanOptions

SUFFIX = "__fallback"
"""As in runtime/program/program.cpp."""
_EVERYWHERE = "xnnpack"
"""The backend that ExecuTorch has on every CPU."""


@dataclass(frozen=True)
class Fallbacks:
    """The fallbacks of some methods.

    originals: by a fallback's name, the method that it stands in for. backends: those that it may
    use. options: how it is planned.
    """

    originals: Mapping[str, str] = field(default_factory=dict)
    backends: tuple[Backend, ...] = ()
    options: PlanOptions = field(default_factory=PlanOptions)

    @classmethod
    def of(
        cls,
        methods: Collection[str],
        others: Iterable[str],
        backends: Iterable[Backend],
        options: PlanOptions,
    ) -> Fallbacks:
        """Name the fallbacks of methods that may use some backends.

        others: names that the program offers values under.

        Raises:
            OptionError: a fallback's name is taken.
        """
        originals = {name + SUFFIX: name for name in methods}
        for name in originals:
            if name in (*methods, *others):
                raise OptionError(
                    f"fallback=True makes a method {name!r}, and there is one already"
                )
        everywhere = [each for each in backends if each.name == _EVERYWHERE]
        # Pins, limits and times of the method are about other backends.
        plain = PlanOptions(
            strategy=options.strategy,
            tune="off" if options.tune == "off" else "cached",
            threads=options.threads,
            target=options.target,
            cost_table=options.cost_table,
        )
        return cls(originals, resolve_backends(everywhere or [_EVERYWHERE]), plain)

    def added_to(self, programs: Mapping[str, ExportedProgram]) -> dict[str, ExportedProgram]:
        """Return the programs with those of the fallbacks, which compute the same."""
        return {**programs, **{name: programs[method] for name, method in self.originals.items()}}

    def note(self, name: str) -> str:
        """Return what a fallback's report says of it."""
        names = ", ".join(each.name for each in self.backends)
        return (
            f"This runs in place of {self.originals[name]!r} where a delegate of it cannot be "
            f"used; it needs {names} and kernels alone."
        )

    def without_needless(self, edge: EdgeProgramManager) -> Fallbacks:
        """Take those out of a lowered program whose methods run wherever they do."""
        known = {each.backend_id for each in self.backends}
        programs: dict[str, Any] = edge._edge_programs
        needed = {}
        for name, method in self.originals.items():
            modules = get_lowered_submodules(edge.exported_program(method).graph_module)
            if {module.backend_id for _, module, _ in modules} <= known:
                del programs[name]
            else:
                needed[name] = method
        return replace(self, originals=needed)


def is_fallback(method: str) -> bool:
    """Whether a method's name is one of a fallback."""
    return method.endswith(SUFFIX)
