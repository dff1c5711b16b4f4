"""Whether a program's images keep the dim order that the model gives them.

ggml and XNNPACK compute images in channels-last, so `ChannelsLastPass` has them lie so between the
two. A backend that takes contiguous tensors alone then gets none. Where one takes part, plans are
made of the program both ways, and the cheaper one counts: left as they are, images are converted
inside the delegates that want them in channels-last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch.export import ExportedProgram

from orchestrator.backends import Backend
from orchestrator.flow import plan_only
from orchestrator.options import PlanOptions
from orchestrator.planner import Layout
from orchestrator.planning.choice import Choice

AS_GIVEN = Choice("images as they are", contiguous=True)
_RANK = 4


def order_matters(backends: Sequence[Backend]) -> bool:
    """Whether some of the delegates take images in one order, and others turn it into the other."""
    turning = sum(backend.converts_dim_orders for backend in backends)
    return turning > 1 and any(
        Layout.CHANNELS_LAST not in backend.boundary_layouts(_RANK) for backend in backends
    )


def choose_orders(
    programs: Mapping[str, ExportedProgram], backends: Sequence[Backend], options: PlanOptions
) -> dict[str, Choice]:
    """Return the choice for those programs whose images should stay as they are, by name.

    A greedy plan leaves them so: it asks what delegates take, and not what conversions cost.

    Raises:
        PlannerError, OptionError, CostTableError, TargetError: as where plans are made.
    """
    if not order_matters(backends):
        return {}
    if options.strategy == "greedy":
        return dict.fromkeys(programs, AS_GIVEN)
    delegates = tuple(backends)

    def predicted_ns(program: ExportedProgram, choice: Choice) -> float:
        return plan_only(program, delegates, options, choice).plan.total_ns

    return {
        name: AS_GIVEN
        for name, program in programs.items()
        if predicted_ns(program, AS_GIVEN) < predicted_ns(program, Choice())
    }
