"""Every fault of a profile at once, with its line, its key path and the nearest key."""

from __future__ import annotations

import pytest

from edge_sdk.errors import TargetError
from edge_sdk.schema import load_target


def faults(path) -> list[str]:
    """The lines of the message without the path of the file."""
    with pytest.raises(TargetError) as caught:
        load_target(path)
    first, *lines = str(caught.value).splitlines()
    assert first.startswith(f"the target profile {path} has ")
    return [line.strip().removeprefix(f"{path}:") for line in lines]


def at(text: str, fragment: str) -> int:
    """The line of the first line that holds the fragment."""
    return next(number for number, line in enumerate(text.splitlines(), 1) if fragment in line)


def test_several_faults_are_told_at_once_in_the_order_of_the_file(write, pi):
    text = (
        pi.replace("os: linux", "os: beos")
        .replace("  bandwidth_gb_s:", "  bandwith_gb_s:")
        .replace("    unit: cpu", "    unit: npu", 1)
        .replace("precisions: [fp32, int8, int4]", "precisions: [fp32, int7]")
        .replace("value: 60", "value: warm")
        .replace("transport: ssh", "transport: adb")
        + "colour: red\ntitle: again\n"
    )
    path = write(text)
    memory = at(text, "memory:")
    assert faults(path) == [
        f"{at(text, 'os: beos')}: os: input should be 'linux', 'android' or 'any' (found 'beos')",
        f"{memory}: memory.bandwidth_gb_s: this key is required",
        f"{at(text, 'bandwith')}: memory.bandwith_gb_s: unknown key. Did you mean 'bandwidth_gb_s'?",
        f"{at(text, 'unit: npu')}: runtimes[0].unit: no unit has this name; known: cpu (found 'npu')",
        f"{at(text, 'int7')}: runtimes[0].precisions[1]: input should be 'fp32', 'tf32', 'fp16', 'bf16', 'int8' "
        "or 'int4' (found 'int7')",
        f"{at(text, 'warm')}: thermal.start_below_c.value: input should be a valid number, unable to parse string as a "
        "number (found 'warm')",
        f"{at(text, 'transport: adb')}: transport: not among the transports ssh, local (found 'adb')",
        f"{at(text, 'colour')}: colour: unknown key. Known: schema_version, name, title, soc, os, abi, device_models, "
        "memory, units, runtimes, power, thermal, transport, transports, beside, notes.",
        f"{at(text, 'again')}: title: the key is there twice (first on line 3)",
    ]


def test_a_key_that_is_there_twice_is_a_fault_by_itself(write, pi):
    text = pi + "power: {source: mains}\n"
    first = at(text, "power:")
    assert faults(write(text)) == [f"{at(text, 'mains')}: power: the key is there twice (first on line {first})"]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("schema_version: 1", "schema_version: 2", "schema_version: this version of Edge SDK reads schema version 1"),
        ("name: my-board", "name: My Board", "name: string should match pattern"),
        ("os: linux", "os: on", "os: input should be 'linux', 'android' or 'any' (found True)"),
        ("value: 8192", "value: .nan", "memory.total_mib.value: input should be a finite number (found nan)"),
        ("value: 8192", "value: .inf", "memory.total_mib.value: input should be a finite number (found inf)"),
        ("value: 8192", "value: -1", "memory.total_mib.value: input should be greater than or equal to 0"),
        ("      int8:", "      int7:", "units[0].peak_gops.int7: input should be 'fp32', 'tf32',"),
        ("power:\n", "power: 5\nspare:\n", "power: expected a mapping with the keys source, battery_mwh, sensors"),
        ("threads: 4", "options: {a: [1]}", "runtimes[0].options.a: expected one plain value: text, a number,"),
        ("threads: 4", "cpus: [-1]", "runtimes[0].cpus[0]: input should be greater than or equal to 0"),
        ("threads: 4", "opreators: {}", "runtimes[0].opreators: unknown key. Did you mean 'operators'?"),
        ("threads: 4", "operators: {dney: {}}", "runtimes[0].operators.dney: unknown key. Did you mean 'deny'?"),
        ("  sensors: []", "  battery_mwh: {vlaue: 1}", "power.battery_mwh.vlaue: unknown key. Did you mean 'value'?"),
        ("- name: executorch\n    delegate: xnnpack", "- name: onnxruntime\n    delegate: cpu", "is there twice"),
        ("abi: [aarch64]", "abi: []", "abi: list should have at least 1 item"),
        ("runtimes:\n", "runtimes:\nspare:\n", "runtimes: input should be a valid list (found None)"),
    ],
)
def test_a_fault_names_its_key_path_and_what_was_expected(write, pi, old, new, expected):
    assert old in pi
    assert any(expected in line for line in faults(write(pi.replace(old, new, 1))))


def test_two_units_of_one_name(write, pi):
    unit = pi[pi.index("  - name: cpu\n") : pi.index("# ONNX Runtime first")]
    text = pi.replace(unit, unit.rstrip("\n") + "\n" + unit)
    assert any("units[1].name: another unit has this name (found 'cpu')" in line for line in faults(write(text)))


def test_thousands_of_faults_are_counted_and_not_all_told(write, pi):
    lines = faults(write(pi + "".join(f"key{number}: 1\n" for number in range(5000))))
    assert len(lines) == 41
    assert lines[-1] == "and 4960 more"


def test_nothing_but_an_unknown_key_still_says_all_that_is_required(write):
    lines = faults(write("nmae: x\n"))
    assert "1: nmae: unknown key. Did you mean 'name'?" in lines
    assert {f"1: {key}: this key is required" for key in ("name", "soc", "memory", "units", "transport")} <= set(lines)
