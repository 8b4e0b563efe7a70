"""What every schema shares: frozen models, unknown keys refused, all faults reported at once."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

Precision = Literal["fp32", "tf32", "fp16", "bf16", "int8", "int4"]
Transport = Literal["local", "ssh", "adb"]
Sensor = Literal["rapl", "nvml", "ina3221", "jtop", "battery", "power_supply"]
"""Where power can be read; ``battery`` is Android's BatteryManager, ``power_supply`` Linux's files of a battery."""


class Frozen(BaseModel):
    """A value that travels: immutable, strict about its keys, no NaN or infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())


def faults(error: ValidationError) -> list[str]:
    """Each fault of a validation as ``key.path: what is wrong (found ...)``."""
    lines = []
    for fault in error.errors(include_url=False):
        path = ".".join(str(step) for step in fault["loc"]) or "(top level)"
        found = fault.get("input")
        shown = "" if fault["type"] == "missing" or isinstance(found, (dict, list)) else f" (found {found!r:.60})"
        lines.append(f"{path}: {fault['msg']}{shown}")
    return lines
