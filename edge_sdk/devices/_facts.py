"""What a device tells of itself, read from the files and programs of its system. Nothing of it is trusted."""

from __future__ import annotations

import re
from collections.abc import Mapping

from edge_sdk.devices._protocol import plain
from edge_sdk.schema.report import ReportDevice

_MARK = "@@ "
_MOST = 300
_ABI = {"amd64": "x86_64", "arm64": "aarch64"}

SAY = 'say() { printf "\\n@@ %s\\n" "$1"; shift; "$@" 2>/dev/null | head -c 8192; }\n'
"""Defines ``say NAME COMMAND...`` for a script: what a command prints becomes the fact of that name."""

LINUX = """\
say kernel uname -sr
say machine uname -m
say bits getconf LONG_BIT
say os-release cat /etc/os-release
say l4t cat /etc/nv_tegra_release
say cpuinfo cat /proc/cpuinfo
say compatible sh -c "tr '\\000' '\\n' < /proc/device-tree/compatible"
say model sh -c "tr -d '\\000' < /proc/device-tree/model"
say product cat /sys/class/dmi/id/product_name
say meminfo cat /proc/meminfo
say gpu nvidia-smi -L
"""
"""The lines of a script that tell what a Linux machine is."""


def parse(text: str) -> dict[str, str]:
    """The facts that ``say`` printed, by name; of a name that comes twice the first."""
    facts: dict[str, str] = {}
    for block in f"\n{text}".split(f"\n{_MARK}")[1:]:
        name, _, value = block.partition("\n")
        facts.setdefault(name.strip(), plain(value).strip())
    return facts


def linux_device(uri: str, facts: Mapping[str, str]) -> ReportDevice:
    """A Linux machine's description from its facts."""
    machine = abi(facts.get("machine", ""))
    distribution = _os_release(facts.get("os-release", ""))
    l4t = re.match(r"# R(\d+) \(release\), REVISION: ([\d.]+)", facts.get("l4t", ""))
    names = (distribution, f"L4T {l4t[1]}.{l4t[2]}" if l4t else "", _line(facts, "kernel"))
    return ReportDevice(
        uri=uri,
        model=_line(facts, "model") or _line(facts, "product") or machine or "unknown",
        soc=processor(facts.get("cpuinfo", ""), facts.get("compatible", "")) or "unknown",
        os=", ".join(filter(None, names)) or "unknown",
        # A 64-bit kernel may run a 32-bit system, whose programs are of another ABI.
        abi="armv7l" if machine == "aarch64" and facts.get("bits") == "32" else machine or "unknown",
    )


def abi(machine: str) -> str:
    """The ABI's name in target profiles for what ``uname -m`` says."""
    name = machine.strip().lower()[:_MOST]
    return _ABI.get(name, name)


def processor(cpuinfo: str, compatible: str) -> str:
    """The processor's name: of ``/proc/cpuinfo`` (x86), else the last of the device tree's ``compatible`` (ARM)."""
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip().lower() in ("model name", "hardware") and value.strip():
            return value.strip()[:_MOST]
    names = compatible.split()
    return names[-1][:_MOST] if names else ""


def memory_mib(meminfo: str) -> float | None:
    """The size of main memory, of ``/proc/meminfo``."""
    found = re.search(r"^MemTotal:\s+(\d{1,15}) kB", meminfo, re.MULTILINE)
    return int(found[1]) / 1024 if found else None


def free_bytes(df: str) -> int | None:
    """The free space that the last line of ``df -Pk`` tells."""
    lines = df.strip().splitlines()
    fields = lines[-1].split() if lines else []
    places = [place for place, field in enumerate(fields) if re.fullmatch(r"\d{1,3}%", field)]
    if not places or places[0] < 1 or not re.fullmatch(r"\d{1,15}", fields[places[0] - 1]):
        return None
    return int(fields[places[0] - 1]) * 1024


def _os_release(text: str) -> str:
    found = re.search(r'^PRETTY_NAME="?([^"\n]{1,100})"?$', text, re.MULTILINE)
    return found[1] if found else ""


def _line(facts: Mapping[str, str], name: str) -> str:
    return " ".join(facts.get(name, "").split())[:_MOST]
