"""Targets, and the tables of plugins, as Rich tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.text import Text

from edge_sdk.reporting.tables import facts, listing
from edge_sdk.reporting.text import clean, figure, plural

if TYPE_CHECKING:
    from edge_sdk.devices._discover import Found
    from edge_sdk.devices._setup import Prepared
    from edge_sdk.schema.target import Figure, RuntimeRule, Target
    from edge_sdk.support import Ability, Support

_FITS = {True: "fits", False: "does not fit", None: "not installed"}


def targets_view(found: Sequence[tuple[Target, Support]], broken: Mapping[str, str]) -> RenderableType:
    """All targets, with what this machine can do for each and what would help where it cannot."""
    rows = [(t.name, t.title, _yes_no(able.compile), _yes_no(able.run), _hindrance(able)) for t, able in found]
    rows += [(name, "broken profile", "no", "no", problem) for name, problem in broken.items()]
    return Group(
        listing(["Target", "What it is", "Compiles here", "Runs here", "Why not, and what to do"], rows),
        Text("\n'edge-sdk targets NAME' shows one with its figures and their sources.", style="dim"),
    )


def target_view(target: Target, able: Support) -> RenderableType:
    """One target with every figure and its source."""
    about = [
        ("System on chip", target.soc),
        ("System", f"{target.os}, {' or '.join(target.abi)}"),
        ("Device", f"{target.transport} (can be: {', '.join(target.transports)})"),
        ("Power", ", ".join([target.power.source, *target.power.sensors])),
        ("Compiles here", _ability(able.compile)),
        ("Runs here", _ability(able.run)),
        *(("Note", note) for note in target.notes),
    ]
    runtimes = [
        (rule.name, rule.delegate, rule.unit, ", ".join(rule.precisions), rule.shapes, _limits(rule))
        for rule in target.runtimes
    ]
    return Group(
        facts(f"{target.name}: {target.title}", about),
        Text(),
        listing(["Runtime", "Delegate", "Unit", "Precisions", "Shapes", "Limits and notes"], runtimes),
        Text(),
        listing(["Figure", "Value", "Source"], _figures(target)),
    )


def devices_view(found: Sequence[Found], notes: Sequence[str]) -> RenderableType:
    """The devices, each with what it is and which targets fit it."""
    rows = [
        (one.uri, _device(one), ", ".join(one.profiles) or "none" if one.about else "-", _state(one)) for one in found
    ]
    views = [listing(["Device", "What it is", "Targets that fit", "State"], rows), Text()]
    return Group(*views, *(Text(clean(note), style="dim") for note in notes))


def prepared_view(uri: str, prepared: Sequence[Prepared]) -> RenderableType:
    """What setting up a device gave."""
    rows = [
        (one.runtime, f"{one.version}, by {one.python}" + ("" if one.changed else " (nothing to do)"))
        for one in prepared
    ]
    return facts(f"Set up on {uri}", rows)


def _device(one: Found) -> str:
    if one.about is None:
        return "-"
    sizes = [f"{figure(one.memory_mib / 1024)} GiB of memory"] if one.memory_mib else []
    sizes += [f"{figure(one.free_bytes / 1e9)} GB free"] if one.free_bytes is not None else []
    lines = [f"{one.about.model}, {one.about.soc}", f"{one.about.os}, {one.about.abi}", ", ".join(sizes)]
    return "\n".join(filter(None, lines))


def _state(one: Found) -> str:
    if one.problem:
        return one.problem
    return f"measured by {one.measured_by}" if one.measured_by else "ready"


def _figures(target: Target) -> list[tuple[str, str, str]]:
    rows = [
        _figure("memory", target.memory.total_mib, "MiB"),
        _figure("memory bandwidth", target.memory.bandwidth_gb_s, "GB/s"),
    ]
    for unit in target.units:
        rows.append(_figure(f"{unit.name}: cores", unit.cores, ""))
        rows.append(_figure(f"{unit.name}: clock", unit.clock_mhz, "MHz"))
        rows += [_figure(f"{unit.name}: peak {name}", peak, "Gop/s") for name, peak in unit.peak_gops.items()]
    if target.power.battery_mwh is not None:
        rows.append(_figure("battery", target.power.battery_mwh, "mWh"))
    rows.append(_figure("start below", target.thermal.start_below_c, "°C"))
    rows.append(_figure("throttles at", target.thermal.throttles_at_c, "°C"))
    return rows


def _figure(name: str, value: Figure, unit: str) -> tuple[str, str, str]:
    shown = "unknown" if value.value is None else f"{value.value:,.10g} {unit}".rstrip()
    return name, shown, value.source


def _limits(rule: RuntimeRule) -> str:
    lines = []
    if rule.threads is not None:
        lines.append(f"{rule.threads} threads")
    if rule.cpus is not None:
        lines.append(f"processors {' '.join(map(str, rule.cpus))}")
    if rule.operators.allow is not None:
        lines.append(f"only the operators {', '.join(rule.operators.allow)}")
    lines += [f"not {operator}: {reason}" for operator, reason in rule.operators.deny.items()]
    if rule.note:
        lines.append(rule.note)
    return "\n".join(lines)


def _hindrance(able: Support) -> str:
    """Why this machine cannot compile or run; one line where both have the same reason."""
    lines = []
    for verb, ability in (("compile", able.compile), ("run", able.run)):
        if not ability.ok:
            lines.append((verb, _why(ability)))
    if len({why for _, why in lines}) == 1:
        return lines[0][1]
    return "\n".join(f"{verb}: {why}" for verb, why in lines)


def _ability(ability: Ability) -> str:
    return "yes" if ability.ok else f"no: {_why(ability)}"


def _why(ability: Ability) -> str:
    return "; ".join(part for part in (ability.reason, ability.next_step) if part)


def _yes_no(ability: Ability) -> str:
    return "yes" if ability.ok else "no"


def _gpus(gpu: Mapping[str, Any]) -> str:
    build = gpu["torch"]
    torch = "PyTorch is not installed" if build is None else f"PyTorch {build['version']}"
    torch += (
        f", built with CUDA {build['cuda']}" if build and build["cuda"] else ", for processors only" if build else ""
    )
    if "unavailable" in gpu:
        return f"none: {gpu['unavailable']}; {torch}"
    cards = ", ".join(
        f"{one['name']} (compute capability {one['capability']}, {one['free_mib']} of {one['memory_mib']} MiB free)"
        for one in gpu["gpus"]
    )
    fits = "does not fit, see below" if gpu["problem"] else "fits"
    return f"{cards}; driver {gpu['driver']}, CUDA up to {gpu['cuda']}; {torch}: {fits}"


def _tensorrt(found: Mapping[str, str | None]) -> str:
    names = {"rtx": "TensorRT for RTX", "tensorrt": "TensorRT", "trtexec": "trtexec at"}
    told = [f"{names[name]} {value}" for name, value in found.items() if value]
    return ", ".join(told) or "none: for RTX cards, pip install 'edge-sdk[rtx]'; a Jetson has its own"


def doctor_view(document: Mapping[str, Any]) -> RenderableType:
    """The machine, the packages with whether they fit together, and what to do."""
    cpu, cache = document["cpu"], document["cache"]
    flags = "unknown" if cpu["int8_flags"] is None else ", ".join(cpu["int8_flags"]) or "none"
    about = [
        ("Edge SDK", document["edge_sdk"]),
        ("Python", f"{document['python']['version']} ({document['python']['executable']})"),
        ("System", f"{document['system']['name']}, {document['system']['abi']}"),
        ("Processor", f"{cpu['model'] or 'unknown'}, {plural(cpu['processors'], 'processor')} usable"),
        ("INT8 features", flags),
        ("NVIDIA GPU", _gpus(document["gpu"])),
        ("TensorRT", _tensorrt(document["tensorrt"])),
        ("Cache", f"{cache['path']}, {figure(cache['free_bytes'] / 1e9)} GB free"),
        ("Reaches", "; ".join(f"{way}: {state}" for way, state in document["reaches"].items())),
    ]
    rows = [
        (one["name"], one["wanted"] or "any", one["installed"] or "-", _FITS[one["fits"]], ", ".join(one["extras"]))
        for one in document["packages"]
    ]
    views: list[RenderableType] = [facts("This machine", about), Text()]
    if rows:
        views += [listing(["Package", "Versions that fit", "Installed", "", "Needed for"], rows), Text()]
    advice = "\n".join(document["advice"]) or "Nothing: all is well."
    return Group(*views, Text("What to do", style="bold cyan"), Text(clean(advice, keep="\n")))
