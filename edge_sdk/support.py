"""What this machine can do for a target: compile for it, run on it, and if not why and what to do next.

Nothing heavy is imported: a runtime counts as present where its modules can be found.
"""

from __future__ import annotations

import importlib.util
import platform
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edge_sdk.backends import BACKENDS
from edge_sdk.devices import DEVICES
from edge_sdk.errors import MissingDependencyError

if TYPE_CHECKING:
    from edge_sdk.backends.base import Backend
    from edge_sdk.schema.target import RuntimeRule, Target, Transport

_ABI = {"amd64": "x86_64", "arm64": "aarch64"}
_URI = {"local": "local", "ssh": "ssh://[user@]host", "adb": "adb://[serial]"}
# Where Linux on a board and Linux on a PC keep the model's name.
_MODEL_FILES = ("/proc/device-tree/model", "/sys/class/dmi/id/product_name")


@dataclass(frozen=True)
class Ability:
    """Whether this machine can do a thing; if not, ``reason`` says why and ``next_step`` what would help."""

    ok: bool
    reason: str | None = None
    next_step: str | None = None


@dataclass(frozen=True)
class RuntimeSupport:
    """What this machine can do with one of a target's runtimes."""

    runtime: str
    delegate: str
    compile: Ability
    run: Ability


@dataclass(frozen=True)
class Support:
    """What this machine can do for a target, by runtime in the target's order of preference."""

    target: str
    runtimes: tuple[RuntimeSupport, ...]

    @property
    def compile(self) -> Ability:
        """Whether it can compile for the target with any of its runtimes."""
        return _any([runtime.compile for runtime in self.runtimes])

    @property
    def run(self) -> Ability:
        """Whether the target's programs run on this machine itself, with any of its runtimes."""
        return _any([runtime.run for runtime in self.runtimes])


@dataclass(frozen=True)
class Machine:
    """The machine that the SDK runs on, in the words of target profiles."""

    os: str
    abi: str
    model: str

    @classmethod
    def this(cls) -> Machine:
        """Reads the system's own description of itself."""
        abi = platform.machine().lower()
        abi = _ABI.get(abi, abi)
        if sys.platform == "android":
            abi = {"aarch64": "arm64-v8a"}.get(abi, abi)
        return cls(os=sys.platform, abi=abi, model=_model())


def support(target: Target, machine: Machine | None = None) -> Support:
    """What a machine can do for a target.

    Args:
        target: The profile.
        machine: The machine; None: the one that this runs on. Installed packages are always those of this one.
    """
    machine = machine or Machine.this()
    misfit = _misfit(target, machine)
    return Support(target.name, tuple(_runtime_support(rule, misfit) for rule in target.runtimes))


def fitting(machine: Machine, transport: Transport, has_gpu: bool) -> list[str]:
    """The targets that a device may be, by name; those that name its very model come first.

    Args:
        machine: What the device is.
        transport: How it is reached.
        has_gpu: Whether it shows an NVIDIA GPU, which the general targets with a GPU need.
    """
    from edge_sdk.errors import TargetError
    from edge_sdk.schema import load_target, target_names

    named, general = [], []
    for name in target_names():
        try:
            target = load_target(name)
        except TargetError:  # 'edge-sdk targets' says what is broken about it
            continue
        needs_gpu = not target.device_models and any(unit.kind == "gpu" for unit in target.units)
        if _misfit(target, machine, transport) is None and (has_gpu or not needs_gpu):
            (named if target.device_models else general).append(name)
    return named + general


def _runtime_support(rule: RuntimeRule, misfit: Ability | None) -> RuntimeSupport:
    backend = _backend(rule)
    if isinstance(backend, Ability):
        return RuntimeSupport(rule.name, rule.delegate, compile=backend, run=misfit or backend)
    return RuntimeSupport(
        rule.name,
        rule.delegate,
        compile=_installed(backend, backend.requires),
        run=misfit or _runs(backend, rule.delegate),
    )


def _backend(rule: RuntimeRule) -> type[Backend] | Ability:
    """The backend of a rule, or why there is none."""
    if rule.name not in BACKENDS:
        return _none_here(f"backend '{rule.name}'", BACKENDS)
    try:
        backend: type[Backend] = BACKENDS.load(rule.name)
    except MissingDependencyError as error:
        return Ability(False, str(error))
    if rule.delegate not in backend.delegates:
        return _none_here(f"delegate '{rule.delegate}' for {rule.name}", backend.delegates)
    if problem := backend.delegate_problem(rule.delegate):
        return Ability(False, problem)
    return backend


def _runs(backend: type[Backend], delegate: str) -> Ability:
    if problem := backend.runner_problem(delegate):
        return Ability(False, problem)
    return _installed(backend, backend.runner_requires or backend.requires)


def _none_here(what: str, known: Iterable[str]) -> Ability:
    return Ability(False, f"this version of Edge SDK has no {what} (it has: {', '.join(sorted(known))})")


def _installed(backend: type[Backend], modules: tuple[str, ...]) -> Ability:
    # Only the top-level package is looked up: finding a submodule would import its parents.
    missing = [name for name in modules if importlib.util.find_spec(name.partition(".")[0]) is None]
    if not missing:
        return Ability(True)
    return Ability(
        False,
        f"runtime '{backend.name}' needs {', '.join(missing)}, not installed here",
        f"pip install 'edge-sdk[{backend.extra}]'",
    )


def _misfit(target: Target, machine: Machine, transport: Transport = "local") -> Ability | None:
    """Why the target is not the given machine, whatever is installed on it; None where it may be."""
    if transport not in target.transports:
        return Ability(False, f"'{target.name}' is a device of its own", _remote_step(target))
    for key, found, wanted in (("system", machine.os, [target.os]), ("ABI", machine.abi, target.abi)):
        if wanted != ["any"] and found not in wanted:
            reason = f"this machine's {key} is {found}, the target's {' or '.join(wanted)}"
            return Ability(False, reason, _remote_step(target))
    models = target.device_models
    if models and not any(model.lower() in machine.model.lower() for model in models):
        reason = f"this machine calls itself '{machine.model or 'nothing'}', the target {' or '.join(models)}"
        return Ability(False, reason, _remote_step(target))
    return None


def _remote_step(target: Target) -> str | None:
    usual: list[Transport] = [target.transport, *target.transports]
    remote = next((transport for transport in usual if transport != "local"), None)
    if remote is None:
        return None
    if remote not in DEVICES:
        return f"devices by {remote} come with a later version of Edge SDK (this one has: {', '.join(DEVICES)})"
    return f"use --device {_URI[remote]}"


def _model() -> str:
    for file in _MODEL_FILES:
        try:
            return Path(file).read_text(errors="replace").strip("\0\n ")
        except OSError:
            # Absent on other kinds of machine, and not readable in some containers.
            continue
    return ""


def _any(abilities: list[Ability]) -> Ability:
    """The first that is there; else the first that something can be done about; else the first."""
    able = [one for one in abilities if one.ok]
    curable = [one for one in abilities if one.next_step]
    return (able or curable or abilities)[0]
