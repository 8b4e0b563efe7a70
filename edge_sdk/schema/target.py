"""A target profile: what a piece of hardware is, and what may run on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from edge_sdk.schema._base import Frozen, Precision, Sensor, Transport

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

    ``cpus`` are the processor numbers to pin to (the big cores), None to leave it to the system. A rule that
    ``stands_in`` is taken only where it is named (``NAME:DELEGATE``), or where what the others need is not there.
    """

    name: str
    delegate: str
    unit: str
    precisions: list[Precision] = Field(min_length=1)
    shapes: Literal["static", "dynamic"]
    threads: int | None = Field(default=None, ge=1)
    cpus: list[Annotated[int, Field(ge=0)]] | None = None
    options: dict[str, str | int | float | bool] = {}
    operators: OperatorRules = OperatorRules()
    note: str | None = None
    stands_in: bool = False


class Power(Frozen):
    """Where the energy comes from and what can be read."""

    source: Literal["mains", "battery", "supply"]
    battery_mwh: Figure | None = None
    sensors: list[Sensor] = []


class Thermal(Frozen):
    """The gate: wait until under ``start_below_c``; throttling is expected from ``throttles_at_c``."""

    start_below_c: Figure
    throttles_at_c: Figure


class Target(Frozen):
    """A target profile, as `edge_sdk.schema.load_target` reads it from YAML.

    ``runtimes`` stand in order of preference. ``device_models`` are parts of the model name that such
    a device tells of itself; an empty list: any machine of the right system and ABI will do. ``beside``
    names the profile of the same device that a bundle is always compiled for as well, to compare with.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")
    title: str
    soc: str
    os: Literal["linux", "android", "any"]
    abi: list[Literal["x86_64", "aarch64", "arm64-v8a"]] = Field(min_length=1)
    device_models: list[Annotated[str, Field(min_length=3)]] = []
    memory: Memory
    units: list[ComputeUnit] = Field(min_length=1)
    runtimes: list[RuntimeRule] = Field(min_length=1)
    power: Power
    thermal: Thermal
    transport: Transport
    transports: list[Transport] = Field(min_length=1)
    beside: str | None = Field(default=None, pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")
    notes: list[str] = []

    @model_validator(mode="wrap")
    @classmethod
    def _consistent(cls, data: Any, handler: ModelWrapValidatorHandler[Target]) -> Target:
        """Checks the keys against each other as well when some of them are wrong, so that all faults show at once."""
        faults = _inconsistencies(data) if isinstance(data, Mapping) else []
        try:
            target = handler(data)
        except ValidationError as error:
            faults = [*(InitErrorDetails(**_details(fault)) for fault in error.errors(include_url=False)), *faults]
        else:
            if not faults:
                return target
        raise ValidationError.from_exception_data(cls.__name__, faults)

    def unit(self, name: str) -> ComputeUnit:
        """The compute unit of that name (a validated profile has every unit that its runtimes name)."""
        return next(unit for unit in self.units if unit.name == name)


def _details(fault: Mapping[str, Any]) -> dict[str, Any]:
    return {key: fault[key] for key in ("type", "loc", "input", "ctx") if key in fault}


def _inconsistencies(data: Mapping[str, Any]) -> list[InitErrorDetails]:
    """Keys that contradict each other, in data that may be wrong in other ways too."""
    faults: list[InitErrorDetails] = []

    def fault(message: str, found: Any, *loc: str | int) -> None:
        kind = PydanticCustomError("inconsistent", "{message}", {"message": message})
        faults.append(InitErrorDetails(type=kind, loc=loc, input=found))

    units: list[str] = []
    for index, unit in _mappings(data.get("units")):
        if unit.get("name") in units:
            fault("another unit has this name", unit["name"], "units", index, "name")
        units.append(unit.get("name", ""))
    rules: list[tuple[Any, Any]] = []
    for index, rule in _mappings(data.get("runtimes")):
        if units and rule.get("unit", units[0]) not in units:
            known = ", ".join(map(str, units))
            fault(f"no unit has this name; known: {known}", rule["unit"], "runtimes", index, "unit")
        key = (rule.get("name"), rule.get("delegate"))
        if key in rules:
            fault(f"runtime '{key[0]}' with delegate '{key[1]}' is there twice", rule, "runtimes", index)
        rules.append(key)
    if data.get("beside") is not None and data["beside"] == data.get("name"):
        fault("a target cannot stand beside itself", data["beside"], "beside")
    transport, transports = data.get("transport"), data.get("transports")
    if transport is not None and isinstance(transports, list) and transport not in transports:
        fault(f"not among the transports {', '.join(map(str, transports))}", transport, "transport")
    return faults


def _mappings(value: Any) -> list[tuple[int, Mapping[str, Any]]]:
    items = enumerate(value) if isinstance(value, list) else ()
    return [(index, item) for index, item in items if isinstance(item, Mapping)]
