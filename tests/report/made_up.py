"""A report with everything that a report can hold, made up."""

from __future__ import annotations

from orchestrator.report.data import (
    AdviceReport,
    AlternativeReport,
    AtomReport,
    EdgeReport,
    MethodReport,
    PlanReport,
    RejectionReport,
    Report,
    SegmentReport,
    TensorReport,
)

IMAGE = TensorReport("image", "float32", ("s0", 3, 224, 224), 602_112)
FEATURES = TensorReport(
    "aten_hardtanh_default_34", "float32", (1, 1280, 7, 7), 250_880, "channels_last"
)
POOLED = TensorReport("aten_mean_dim", "float32", (1, 1280, 1, 1), 5_120)
SCALE = TensorReport("a_rather_long_name_of_a_tensor_that_comes_in_too", "float32", (), 4)

_SEGMENTS = (
    SegmentReport(
        "ggml",
        tuple(f"node_{index}" for index in range(97)),
        {"aten.convolution.default": 52, "aten.hardtanh.default": 35, "aten.add.Tensor": 10},
        (IMAGE, SCALE),
        (FEATURES,),
        weight_bytes=8_900_000,
        atoms=("conv", "act"),
        modules=tuple(f"features.{index}" for index in range(19)),
        conversions=("image",),
        predicted_ns=7_100_000.0,
        spread_ns=90_000.0,
        atoms_ns=7_000_000.0,
        overhead_ns=2_000.0,
        boundary_ns=98_000.0,
        measured_ns=7_250_000.0,
    ),
    SegmentReport(
        "xnnpack",
        ("n",),
        {"aten.mean.dim": 1},
        (FEATURES,),
        (POOLED,),
        atoms=("mean",),
        modules=("head.pool",),
        predicted_ns=28_000.0,
        spread_ns=1_000.0,
        atoms_ns=25_000.0,
        overhead_ns=3_000.0,
        boundary_ns=0.0,
        measured_ns=31_000.0,
    ),
    SegmentReport(
        "portable",
        ("t", "i", "j"),
        {"aten.linalg_inv_ex.default": 2, "aten.topk.default": 1},
        (POOLED,),
        (POOLED,),
        is_delegate=False,
        atoms=("top",),
        modules=("head.a_module_with_a_name_so_long_that_no_line_of_the_table_has_room_for_it",),
        predicted_ns=512.0,
        spread_ns=0.0,
        atoms_ns=512.0,
        overhead_ns=0.0,
        boundary_ns=0.0,
    ),
)

_PLAN = PlanReport(
    "exact",
    predicted_ns=7_128_512.0,
    spread_ns=90_005.6,
    lower_bound_ns=7_000_000.0,
    gap=0.018,
    measured_ns=7_281_000.0,
    private_bytes=12_400_000,
    notes=("2 partitions instead of 4: the difference of 900 ns is within the spread.",),
    alternatives=(
        AlternativeReport(
            "ggml alone", "single", 1, problem="no kernel here for 2 ops", backends=("ggml",)
        ),
        AlternativeReport("xnnpack alone", "single", 1, 12_100_000.0, 12_000_000.0),
        AlternativeReport("no delegate", "single", 0, 2_280_000_000.0),
        AlternativeReport("greedy: ggml, xnnpack", "greedy", 2, 7_128_512.0, 7_300_000.0),
    ),
    advice=(
        AdviceReport(
            "support",
            "if ggml took aten.topk.default: ggml has no rule for aten.topk.default",
            1_900_000.0,
            "ggml",
            ("top",),
            "write it with ops that ggml has, or add a rule for it",
            assumed=True,
        ),
        AdviceReport("pin", "pinning layers.3 to ggml", -400_000.0, "ggml", ("conv",)),
        AdviceReport("partitions", "at most 1 delegate call instead of 2", -1_500.0, tie=True),
    ),
)

_ATOMS = (
    AtomReport(
        "conv",
        ("conv", "act"),
        ("aten.convolution.default", "aten.hardtanh.default"),
        "ggml",
        0,
        "features.0",
        "models/mobilenet.py:42",
        "float32[1,32,112,112]",
        {"ggml": 300_000.0, "xnnpack": 450_000.0, "portable": None},
        300_000.0,
        310_000.0,
    ),
    AtomReport("act", ("act2",), ("aten.hardtanh.default",), "ggml", 0),
    AtomReport("mean", ("n",), ("aten.mean.dim",), "xnnpack", 1, "head.pool"),
    AtomReport("top", ("t",), ("aten.topk.default",), "portable", 2),
)


def made_up_report() -> Report:
    """Two methods, one of them empty; an unknown price, a missing kernel, every kind of advice."""
    rejections = (
        RejectionReport("ggml", "n", "aten.mean.dim", "mean over several dims", "head"),
        RejectionReport(
            "ggml",
            "t",
            "aten.topk.default",
            "ggml has no rule for aten.topk.default",
            remedy="write it with ops that ggml has, or add a rule for it",
        ),
        *(
            RejectionReport(
                "xnnpack", f"c{index}", op, "has rank 5, at most 4 is possible", remedy="reshape"
            )
            for index, op in enumerate(["aten.add.Tensor"] * 3 + ["aten.mul.Tensor"])
        ),
    )
    forward = MethodReport(
        "forward",
        _SEGMENTS,
        missing_kernels={"aten.linalg_inv_ex.default": "aten::linalg_inv_ex.inverse"},
        rejections=rejections,
        atoms=_ATOMS,
        edges=(
            EdgeReport("image", "", ("conv",), 602_112),
            EdgeReport("act", "conv", ("act",), 1_605_632),
            EdgeReport("act2", "act", ("mean",), 250_880),
            EdgeReport("n", "mean", ("top",), 5_120),
            EdgeReport("t", "top", (), 5_120, is_output=True),
        ),
        plan=_PLAN,
        calls=(0, 1),
        profile="median of 20 runs",
    )
    return Report(
        ("ggml", "xnnpack"),
        (forward, MethodReport("nothing")),
        {"executorch": "1.5.1"},
        "a CPU, 2 threads",
    )
