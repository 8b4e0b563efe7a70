"""What a device is doing at a moment, as its monitor tells it; see ``docs/runner-protocol.md``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from edge_sdk.schema._base import Frozen

_Name = Annotated[str, Field(max_length=200)]
_Figure = Annotated[float, Field(ge=0, le=1e9)]
_Many = 4096


class SystemMemory(Frozen):
    """Main memory in MiB; what is available counts caches that can be dropped."""

    total_mib: _Figure
    available_mib: _Figure


class GpuReading(Frozen):
    """One GPU; None for what its driver does not tell."""

    name: _Name
    percent: _Figure | None = None
    memory_used_mib: _Figure | None = None
    memory_total_mib: _Figure | None = None
    mhz: _Figure | None = None
    temperature_c: _Figure | None = None
    power_w: _Figure | None = None


class Charge(Frozen):
    """A battery: how full, and whether energy comes in."""

    percent: _Figure | None = None
    charging: bool | None = None


class Reading(Frozen):
    """One look at a device.

    Attributes:
        t_s: Seconds since the monitor began.
        cpu_percent: How busy each processor was since the look before; None where it is not told.
        cpu_mhz: The clock now of each clock domain, or of the fastest processor.
        memory: Of the whole machine.
        temperatures_c: By sensor.
        throttled: Whether heat or power holds the clock down now, None where nothing tells.
        power_w: Of all that the best sensor measures, since the look before or now.
        rails_w: Of each rail, where the sensor tells them apart; some feed others, so that they do not add up.
        gpus: The GPUs.
        battery: None where there is none.
        unavailable: Why a figure is absent, by name.
    """

    type: Literal["reading"]
    t_s: _Figure
    cpu_percent: Annotated[list[_Figure], Field(max_length=_Many)] | None = None
    cpu_mhz: Annotated[list[_Figure], Field(max_length=_Many)] = []
    memory: SystemMemory | None = None
    temperatures_c: Annotated[dict[_Name, Annotated[float, Field(ge=-100, le=1000)]], Field(max_length=_Many)] = {}
    throttled: bool | None = None
    power_w: _Figure | None = None
    rails_w: Annotated[dict[_Name, _Figure], Field(max_length=_Many)] = {}
    gpus: Annotated[list[GpuReading], Field(max_length=64)] = []
    battery: Charge | None = None
    unavailable: Annotated[dict[_Name, Annotated[str, Field(max_length=4096)]], Field(max_length=64)] = {}
