"""Numbers, modules, source lines and reasons as text."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any, cast

import pytest
from torch.fx import Node

from orchestrator.report.sources import covering_modules, source_line
from orchestrator.report.words import (
    against,
    bytes_text,
    modules_text,
    percent,
    shortened,
    time_text,
)


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (None, "-"),
        (0.0, "0 ns"),
        (999.4, "999 ns"),
        (999.6, "1.00 us"),
        (1_234.0, "1.23 us"),
        (99_960.0, "100 us"),
        (1_999_000_000.0, "2.00 s"),
        (3.6e12, "3600 s"),
        (-1_900_000.0, "-1.90 ms"),
    ],
)
def test_times_have_three_digits(ns: float | None, text: str) -> None:
    assert time_text(ns) == text


def test_changes_have_a_sign() -> None:
    assert time_text(1_500.0, signed=True) == "+1.50 us"
    assert time_text(-1_500.0, signed=True) == "-1.50 us"


def test_shares_and_ratios() -> None:
    assert percent(1.0, 3.0) == "33.3 %"
    assert percent(None, 3.0) == percent(1.0, 0.0) == "-"
    assert against(2.0, 1.0) == "+100.0 %"
    assert against(51.5, 1.0) == "51.5 x"
    assert against(0.9, 1.0) == "-10.0 %"
    assert against(None, 1.0) == against(1.0, None) == ""


def test_sizes() -> None:
    assert [bytes_text(count) for count in (0, 999, 1000, 999_600, 5_000_000_000)] == [
        *("0 B", "999 B", "1 kB", "1 MB", "5 GB")
    ]


def test_long_texts_keep_both_ends() -> None:
    assert shortened("features.0.conv.weight", 12) == "featu..eight"
    assert shortened("short", 12) == "short"


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (39, "blocks.*.attention, encoder.norm, head"),
        (37, "blocks.*.attention, encoder.norm, +1"),
        (35, "blocks.*.attention, +2"),
        (20, "blocks...tention, +2"),
    ],
)
def test_names_that_do_not_fit_are_counted(width: int, expected: str) -> None:
    names = ("blocks.*.attention", "encoder.norm", "head")
    assert modules_text(names, width) == expected


class TestModules:
    def test_a_module_that_is_inside_as_a_whole_stands_for_its_parts(self) -> None:
        inside = ["a.0", "a.1", "b.0"]
        assert covering_modules(inside, ["b.1", "c"]) == ("a", "b.0")

    def test_all_of_a_model_is_its_root(self) -> None:
        assert covering_modules(["a", "b.c", ""], []) == ("",)
        assert modules_text(("",)) == "the whole model"

    def test_a_module_on_both_sides_is_named_itself(self) -> None:
        assert covering_modules(["a"], ["a"]) == ("a",)
        assert covering_modules(["", "b"], ["a"]) == (".", "b")

    def test_numbered_neighbours_are_a_range(self) -> None:
        assert modules_text(("f.0", "f.1", "f.2", "head")) == "f.0 to f.2, head"
        assert modules_text(("f.0", "g.1")) == "f.0, g.1"
        assert modules_text(("f.9", "f.11")) == "f.{9, 11}"

    def test_neighbours_in_one_module_share_its_path(self) -> None:
        paths = ("blocks.0.attention.query", "blocks.0.attention.key", "blocks.0.norm", "head")
        assert modules_text(paths) == "blocks.0.attention.{query, key}, blocks.0.norm, head"


def node(*frames: tuple[str, int]) -> Node:
    trace = "\n".join(f'  File "{path}", line {line}, in forward' for path, line in frames)
    made: Any = SimpleNamespace(meta={"stack_trace": trace} if frames else {})
    return cast(Node, made)


class TestSources:
    def test_the_innermost_line_outside_of_torch_counts(self, monkeypatch: Any) -> None:
        monkeypatch.setattr(sys, "path", ["/home/me", "/lib/site-packages"])
        found = source_line(
            node(
                ("/home/me/app/net.py", 7),
                ("/lib/site-packages/timm/vit.py", 42),
                ("/lib/site-packages/torch/nn/modules/conv.py", 99),
            )
        )
        assert found == "timm/vit.py:42"

    def test_folders_of_the_machine_are_left_out(self, monkeypatch: Any) -> None:
        monkeypatch.setattr(sys, "path", ["", "/elsewhere"])
        assert source_line(node(("/home/me/secret/net.py", 7))) == "net.py:7"

    def test_torch_itself_is_better_than_nothing(self, monkeypatch: Any) -> None:
        monkeypatch.setattr(sys, "path", ["/lib"])
        assert source_line(node(("/lib/torch/nn/linear.py", 3))) == "torch/nn/linear.py:3"

    def test_no_trace_is_no_line(self) -> None:
        assert source_line(node()) == ""
