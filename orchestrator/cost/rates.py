"""Rates of another device, from a file: a plan for it without a measurement of its ops.

The file is JSON. What it leaves out of a backend is as the backend has it for the machine here:

    {
      "target": "phone",
      "about": "where the rates come from",
      "backends": {
        "xnnpack": {
          "call_ns": 2000,
          "rates": {"product": [60, 12, 400, 0.5], "other": [8, 8, 400, 0.6]}
        },
        ...
      }
    }

`rates` are, by family of ops, those of `orchestrator.backends.base.Rates` in its order; the other
names are those of `Estimates`. "portable" names ExecuTorch's own kernels.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.backends.base import Backend, Estimates, Rates
from orchestrator.cost.model import estimates_of
from orchestrator.cost.table import CostTableError

SUFFIX = ".json"
_PLACES = [each.name for each in dataclasses.fields(Rates)]
_NUMBERS = {
    each.name
    for each in dataclasses.fields(Estimates)
    if each.name not in ("rates", "expanded_ops")
}


@dataclass(frozen=True)
class DeviceRates:
    """What a file says of a device.

    target: its name. about: where the rates come from. backends: the estimates' fields, by backend.
    """

    target: str
    about: str
    backends: Mapping[str, Mapping[str, Any]]

    def estimates(self, backends: Iterable[Backend]) -> dict[str, Estimates]:
        """Return the estimates of delegates on the device, by name, and of ExecuTorch's kernels."""
        return {
            name: _with(here, self.backends.get(name, {}))
            for name, here in estimates_of(backends).items()
        }

    def unknown(self, backends: Iterable[Backend]) -> list[str]:
        """Return the names of those delegates that the file says nothing of."""
        return [each.name for each in backends if each.name not in self.backends]


def read_rates(path: Path) -> DeviceRates:
    """Read a file of rates.

    Raises:
        CostTableError: it is not there, or not what it should be; says where.
    """
    try:
        data = json.loads(path.read_text())
    except FileNotFoundError:
        raise CostTableError(f"there is no file of rates {path}") from None
    except (OSError, ValueError) as error:
        raise CostTableError(f"{path} is no JSON that can be read: {error}") from error
    if not isinstance(data, dict) or not isinstance(data.get("target"), str):
        raise CostTableError(
            f"{path}: expected an object with the name of a device as its 'target'"
        )
    backends = data.get("backends")
    if not isinstance(backends, dict) or not backends:
        raise CostTableError(f"{path}: expected an object of backends as 'backends'")
    read = {name: _fields(each, f"{path}, backend {name!r}") for name, each in backends.items()}
    return DeviceRates(data["target"], str(data.get("about", "")), read)


def _fields(data: Any, where: str) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise CostTableError(f"{where}: expected an object, found {data!r}")
    fields: dict[str, Any] = {}
    for name, value in data.items():
        if name == "rates":
            if not isinstance(value, dict):
                raise CostTableError(f"{where}, rates: expected an object, found {value!r}")
            fields[name] = {key: _rates(each, f"{where}, {key!r}") for key, each in value.items()}
        elif name not in _NUMBERS:
            known = ", ".join(["rates", *sorted(_NUMBERS)])
            raise CostTableError(f"{where}: unknown {name!r}; known: {known}")
        elif not isinstance(value, (int, float)) or not value >= 0:
            raise CostTableError(f"{where}: {name} is {value!r}; expected a number from 0 on")
        else:
            fields[name] = value
    return fields


def _rates(values: Any, where: str) -> Rates:
    right = isinstance(values, list) and len(values) == len(_PLACES)
    if not right or not all(isinstance(each, (int, float)) and each > 0 for each in values):
        raise CostTableError(
            f"{where}: found {values!r}; expected the numbers {', '.join(_PLACES)}, all above 0"
        )
    return Rates(*values)


def _with(here: Estimates, fields: Mapping[str, Any]) -> Estimates:
    changed = dict(fields)
    if "rates" in changed:
        changed["rates"] = {**here.rates, **changed["rates"]}
    return dataclasses.replace(here, **changed)
