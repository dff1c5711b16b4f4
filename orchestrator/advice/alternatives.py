"""Prices of alternatives that the chosen plan's own graph cannot give.

Where a composite op (attention, say) is preserved because one backend takes it so, the others have
no way to run that graph. Alone they would get the op decomposed, so that graph is priced.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from orchestrator.options import OptionError
from orchestrator.planner import PlannerError
from orchestrator.planning.choice import Choice
from orchestrator.report.data import AlternativeReport, MethodReport


def with_decomposed_alternatives(
    method: MethodReport, backends: Sequence[str], plan_with: Callable[[Choice], MethodReport]
) -> MethodReport:
    """Price the plans on one backend, or on none, that the method's graph has no kernels for.

    backends: names of the delegates. plan_with: plans the same method anew, given what was decided
        beforehand.
    """
    plan = method.plan
    if plan is None:
        return method
    gaps = {each.key for each in plan.alternatives if each.problem}
    found: dict[tuple[str, ...], AlternativeReport] = {}
    for choice in (*map(Choice.of_one, backends), Choice("no delegate", only=(), order=())):
        if ("single", *(choice.only or ())) not in gaps - found.keys():
            continue
        try:
            other = plan_with(choice).plan
        except (PlannerError, OptionError):
            continue  # pins leave no such plan
        priced = () if other is None else other.alternatives
        found.update({each.key: each for each in priced if not each.problem})
    filled = [
        found.get(each.key, replace(each, remedy="")) if each.problem else each
        for each in plan.alternatives
    ]
    return replace(method, plan=replace(plan, alternatives=tuple(filled)))
