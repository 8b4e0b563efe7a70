"""A target profile: what a piece of hardware is, and what may run on it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from edge_sdk.schema._base import Frozen, Precision, Transport

SCHEMA_VERSION = 1


class Figure(Frozen):
    """A number with its source. ``value`` is None where there is none; ``source`` then says why."""

    value: float | None = Field(default=None, ge=0)
    source: str = Field(min_length=8)


class Memory(Frozen):
    """Main memory: size in MiB and peak bandwidth in 10^9 bytes a second."""

    total_mib: Figure
    bandwidth_gb_s: Figure


class ComputeUnit(Frozen):
    """A processor. ``peak_gops`` counts a multiply-accumulate as two operations, in 10^9 a second."""

    name: str
    kind: Literal["cpu", "gpu", "npu"]
    description: str
    cores: Figure
    clock_mhz: Figure
    peak_gops: dict[Precision, Figure]


class OperatorRules(Frozen):
    """Operators by the runtime's own names; ``deny`` wins. ``allow`` None means all."""

    allow: list[str] | None = None
    deny: dict[str, str] = Field(default={}, description="operator name to reason")


class RuntimeRule(Frozen):
    """A runtime with one delegate that serves the target, and its limits.

    ``cpus`` are the processor numbers to pin to (the big cores), None to leave it to the system.
    """

    name: str
    delegate: str
    unit: str
    precisions: list[Precision] = Field(min_length=1)
    shapes: Literal["static", "dynamic"]
    threads: int | None = Field(default=None, ge=1)
    cpus: list[int] | None = None
    options: dict[str, str | int | float | bool] = {}
    operators: OperatorRules = OperatorRules()
    note: str | None = None


class Power(Frozen):
    """Where the energy comes from and what can be read."""

    source: Literal["mains", "battery", "supply"]
    battery_mwh: Figure | None = None
    sensors: list[Literal["rapl", "nvml", "ina3221", "jtop", "tegrastats", "battery", "power_supply"]] = []


class Thermal(Frozen):
    """The gate: wait until under ``start_below_c``; throttling is expected from ``throttles_at_c``."""

    start_below_c: Figure
    throttles_at_c: Figure


class Target(Frozen):
    """A target profile, as `edge_sdk.schema.load_target` reads it from YAML.

    ``runtimes`` stand in order of preference.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")
    title: str
    soc: str
    os: Literal["linux", "android", "any"]
    abi: list[Literal["x86_64", "aarch64", "arm64-v8a"]] = Field(min_length=1)
    memory: Memory
    units: list[ComputeUnit] = Field(min_length=1)
    runtimes: list[RuntimeRule] = Field(min_length=1)
    power: Power
    thermal: Thermal
    transport: Transport
    transports: list[Transport] = Field(min_length=1)
    notes: list[str] = []

    @field_validator("units")
    @classmethod
    def _unit_names_differ(cls, units: list[ComputeUnit]) -> list[ComputeUnit]:
        names = [unit.name for unit in units]
        if len(set(names)) != len(names):
            raise ValueError(f"two units have the same name: {names}")
        return units

    @model_validator(mode="after")
    def _consistent(self) -> Target:
        units = {unit.name for unit in self.units}
        for rule in self.runtimes:
            if rule.unit not in units:
                raise ValueError(f"runtime '{rule.name}' names the unit '{rule.unit}'; known: {sorted(units)}")
        if self.transport not in self.transports:
            raise ValueError(f"transport '{self.transport}' is not among transports {self.transports}")
        return self

    def unit(self, name: str) -> ComputeUnit:
        """The compute unit of that name (a validated profile has every unit that its runtimes name)."""
        return next(unit for unit in self.units if unit.name == name)
