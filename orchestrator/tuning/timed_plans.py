"""What timing whole plans of a method has shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from orchestrator.report.data import AlternativeReport, MethodReport


@dataclass(frozen=True)
class TimedPlans:
    """Times of whole plans of one method, for the report.

    name: of the fastest plan. measured_ns: its time. alternatives: the others that were timed.
    problems: sentences on plans that could not be timed.
    """

    name: str
    measured_ns: float
    alternatives: tuple[AlternativeReport, ...]
    problems: tuple[str, ...] = ()

    def add_to(self, method: MethodReport) -> MethodReport:
        """Put the times into a method's report, over mere predictions."""
        if method.plan is None:
            return method
        known = {each.key for each in self.alternatives}
        others = [each for each in method.plan.alternatives if each.key not in known]
        plan = replace(
            method.plan,
            measured_ns=self.measured_ns,
            alternatives=(*self.alternatives, *others),
            notes=(
                *method.plan.notes,
                f"The fastest of the plans that were timed: {self.name}.",
                *self.problems,
            ),
        )
        return replace(method, plan=plan)

    def to_data(self) -> dict[str, Any]:
        """Return it as `from_data` takes it, for JSON."""
        return asdict(self)

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> TimedPlans:
        """Return what `to_data` was called on."""
        alternatives = tuple(
            AlternativeReport(**{**each, "backends": tuple(each.get("backends", ()))})
            for each in data["alternatives"]
        )
        problems = tuple(data.get("problems", ()))
        return cls(data["name"], data["measured_ns"], alternatives, problems)
