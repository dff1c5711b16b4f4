"""Reports as JSON: the dataclasses' fields under their own names, with a format number."""

from __future__ import annotations

import json
import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, asdict, fields, is_dataclass
from functools import cache
from typing import Any, Union, cast, get_args, get_origin, get_type_hints

from orchestrator.report.data import Report, ReportError

# Bump when a field changes its meaning or its default, or goes away; a new field with a default
# needs no bump.
FORMAT = 2


def to_json(report: Report, *, brief: bool = False) -> str:
    """Return a report as one JSON object; `brief`: without fields that have their default."""
    data = _brief(report) if brief else asdict(report)
    return json.dumps({"format": FORMAT, **data}, separators=(",", ":"))


def from_json(text: str | bytes) -> Report:
    """Return the report in a JSON object made by `to_json`.

    Raises:
        ReportError: not such an object, or one in another format.
    """
    try:
        data = json.loads(text)
        found = data.pop("format")
        if found != FORMAT:
            raise ReportError(f"the report has format {found!r}; this version reads {FORMAT}")
        return cast(Report, _decoder(Report)(data))
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        if isinstance(error, ReportError):
            raise
        raise ReportError(f"not a report: {error!r}") from error


def _brief(data: Any) -> Any:
    """As `asdict`, without fields that have their default."""
    if is_dataclass(data):
        return {
            each.name: _brief(getattr(data, each.name))
            for each in fields(data)
            if getattr(data, each.name) != _default(each)
        }
    if isinstance(data, tuple):
        return [_brief(each) for each in data]
    if isinstance(data, Mapping):
        return {key: _brief(value) for key, value in data.items()}
    return data


def _default(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


@cache
def _decoder(kind: Any) -> Callable[[Any], Any]:
    """A function that turns what JSON makes of a type back into the type, checking on the way."""
    origin, arguments = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        return _dataclass_decoder(kind)
    if origin is tuple:
        item = _decoder(arguments[0])
        return lambda data: tuple(item(each) for each in _expect(data, list))
    if origin is Mapping:
        value = _decoder(arguments[1])
        return lambda data: {
            _expect(key, str): value(each) for key, each in _expect(data, dict).items()
        }
    if origin in (Union, types.UnionType):
        return _union_decoder(arguments)
    if kind is float:
        return lambda data: float(_expect(data, float, int))
    return lambda data: _expect(data, kind)


def _union_decoder(kinds: tuple[Any, ...]) -> Callable[[Any], Any]:
    """For X | None, and for unions of what JSON tells apart."""
    others = [kind for kind in kinds if kind is not type(None)]
    if len(others) == 1:
        decode = _decoder(others[0])
        return lambda data: None if data is None else decode(data)
    return lambda data: _expect(data, *kinds)


def _dataclass_decoder(kind: Any) -> Callable[[Any], Any]:
    hints = get_type_hints(kind)
    decoders = {each.name: _decoder(hints[each.name]) for each in fields(kind)}

    def decode(data: Any) -> Any:
        values = _expect(data, dict)
        return kind(**{name: decoders[name](value) for name, value in values.items()})

    return decode


def _expect(data: Any, *kinds: type) -> Any:
    if not isinstance(data, kinds):
        expected = " or ".join(kind.__name__ for kind in kinds)
        raise TypeError(f"expected {expected}, found {repr(data)[:80]}")
    return data
