"""Readings of what a device is doing, from the lines of its monitor; nothing of them is trusted."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from pydantic import ValidationError

from edge_sdk.devices import _android, _facts
from edge_sdk.devices._process import Limits
from edge_sdk.devices._protocol import BrokenStreamError, plain
from edge_sdk.errors import DeviceError
from edge_sdk.schema._base import faults
from edge_sdk.schema.reading import Charge, Reading, SystemMemory

PROGRAM = "monitor.py"
_NO_POWER = "Android tells programs no power; 'edge-sdk profile' measures the energy of a run by the battery"
_NO_GPU = "Android has no file or program that tells every GPU's state"
_END = "end"


def limits(period_s: float) -> Limits:
    """What a monitor may do before it is stopped: it runs until it is told to end."""
    return Limits(line_bytes=1 << 18, total_bytes=1 << 62, silence_s=period_s + 30, overall_s=float("inf"))


def failed(uri: str, error: BrokenStreamError, tail: str) -> DeviceError:
    """The error for a monitor that misbehaved, with the end of its standard error."""
    return DeviceError(f"device '{uri}': its monitor failed: {error}\n{plain(tail).strip()}".rstrip())


def readings(lines: Iterable[bytes]) -> Iterator[Reading]:
    """The readings that ``runtimes/monitor.py`` tells.

    Raises:
        BrokenStreamError: A line is no reading.
    """
    for line in lines:
        try:
            yield Reading.model_validate_json(line)
        except ValidationError as error:
            shown = plain(line[:160].decode(errors="replace"))
            raise BrokenStreamError(f"it sent a line that is no reading: {shown!r} ({faults(error)[0]}).") from error


def android_script(period_s: float, count: int) -> str:
    """A script of Android's shell that tells the same, as `android_readings` takes it."""
    return (
        f"{_facts.SAY}i=0\nwhile :; do\n"
        "say uptime cat /proc/uptime || exit\n"
        "say stat head -n 64 /proc/stat\n"
        "say meminfo cat /proc/meminfo\n"
        "say clocks sh -c 'cat /sys/devices/system/cpu/cpufreq/policy*/scaling_cur_freq'\n"
        "say battery dumpsys battery\n"
        "say thermal dumpsys thermalservice\n"
        f"printf '\\n@@ {_END}\\n\\n' || exit\n"
        f"i=$((i + 1))\n[ $i -eq {count + 1 if count else 0} ] && break\n"
        # The first look is only what the second one's load counts from.
        f"if [ $i -eq 1 ]; then sleep {min(period_s, 0.5):g}; else sleep {period_s:g}; fi\ndone"
    )


def android_readings(lines: Iterable[bytes]) -> Iterator[Reading]:
    """The readings of `android_script`'s lines."""
    block: list[str] = []
    begin: float | None = None
    before: list[tuple[int, int]] | None = None
    for line in lines:
        text = line.decode(errors="replace")
        if text.strip() != f"@@ {_END}":
            block.append(text)
            continue
        facts = _facts.parse("\n".join(block))
        block = []
        uptime = re.match(r"\d{1,12}\.\d{1,3}", facts.get("uptime", ""))
        now, ticks = float(uptime[0]) if uptime else 0.0, _ticks(facts.get("stat", ""))
        if before is not None:
            yield _android_reading(facts, max(0.0, now - (begin or 0.0)), _busy(before, ticks))
        begin = now if begin is None else begin
        before = ticks


def _android_reading(facts: Mapping[str, str], t_s: float, busy: list[float] | None) -> Reading:
    memory = _android.system_memory(facts.get("meminfo", ""))
    thermal = _android.thermal(facts.get("thermal", ""))
    battery = _android.battery(facts.get("battery", ""))
    unavailable = {"power": _NO_POWER, "gpu": _NO_GPU}
    if not thermal.temperatures:
        unavailable["temperatures"] = "its thermal service tells none"
    clocks = [int(word) / 1000 for word in facts.get("clocks", "").split() if re.fullmatch(r"\d{1,9}", word)]
    level = battery.level if battery.level is not None and battery.scale else None
    return Reading(
        type="reading",
        t_s=t_s,
        cpu_percent=busy,
        cpu_mhz=clocks,
        memory=None
        if memory.total_kib is None or memory.available_kib is None
        else SystemMemory(total_mib=memory.total_kib / 1024, available_mib=memory.available_kib / 1024),
        temperatures_c={sensor.name or sensor.kind: sensor.celsius for sensor in thermal.temperatures},
        throttled=thermal.throttled,
        battery=Charge(
            percent=None if level is None else 100 * level / (battery.scale or 100), charging=battery.is_charging
        ),
        unavailable=unavailable,
    )


def _ticks(stat: str) -> list[tuple[int, int]]:
    """``(busy, all)`` ticks of each processor. Source: proc(5), ``/proc/stat``."""
    found = []
    for match in re.finditer(r"^cpu\d{1,4}((?: +\d{1,18}){8})", stat, re.MULTILINE | re.ASCII):
        user, nice, system, idle, waiting, irq, softirq, steal = map(int, match[1].split())
        busy = user + nice + system + irq + softirq + steal
        found.append((busy, busy + idle + waiting))
    return found


def _busy(before: list[tuple[int, int]], now: list[tuple[int, int]]) -> list[float] | None:
    if not now or len(before) != len(now):  # a phone puts processors to sleep
        return None
    pairs = zip(before, now, strict=True)
    spans = [(busy_now - busy, whole_now - whole) for (busy, whole), (busy_now, whole_now) in pairs]
    return [round(min(100.0, max(0.0, 100.0 * busy / span)), 1) if span > 0 else 0.0 for busy, span in spans]
