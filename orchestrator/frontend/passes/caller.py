"""Adds calls of ops to a program that is being edited."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch._dispatch.python import enable_python_dispatcher
from torch.fx import Graph, Node


def arguments_of(node: Node) -> dict[str, Any]:
    """The arguments of a call of an op by name, with their defaults."""
    schema = node.target._schema.arguments  # type: ignore[union-attr]
    found = {argument.name: argument.default_value for argument in schema}
    found.update(zip(found, node.args, strict=False))
    return {**found, **node.kwargs}


class Caller:
    """Makes nodes for what another node did, with fake values of their own."""

    _OWN = ("val", "tensor_meta", "torch_fn", "unbacked_bindings")

    def __init__(self, graph: Graph, instead_of: Node, like: Node | None = None) -> None:
        """Takes the fake mode from `like`, a tensor; by default from the node's first argument."""
        source = like or instead_of.args[0]
        assert isinstance(source, Node)
        self._graph = graph
        self._mode = source.meta["val"].fake_mode
        self._meta = {k: item for k, item in instead_of.meta.items() if k not in self._OWN}

    def __call__(self, target: Callable[..., Any], *args: Any, **kwargs: Any) -> Node:
        node = self._graph.call_function(target, args, kwargs)
        values, named = torch.fx.node.map_arg((args, kwargs), lambda each: each.meta["val"])
        # As while exporting: without the dispatcher, some ops (padding) specialize dynamic sizes.
        with self._mode, enable_python_dispatcher():
            node.meta = {**self._meta, "val": target(*values, **named)}
        return node
