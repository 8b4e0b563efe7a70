"""What this machine can do for a target, and what to do next where it cannot."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import textwrap

import pytest

from edge_sdk.backends import BACKENDS
from edge_sdk.devices import DEVICES
from edge_sdk.schema import load_target
from edge_sdk.support import Machine, support

PC = Machine(os="linux", abi="x86_64", model="Some PC")
PI = Machine(os="linux", abi="aarch64", model="Raspberry Pi 5 Model B Rev 1.0")


def test_this_machine_is_described_in_the_words_of_profiles():
    machine = Machine.this()
    assert machine.os == sys.platform
    if platform.machine() in ("x86_64", "AMD64"):
        assert machine.abi == "x86_64"


def test_a_pc_compiles_for_the_desktop_and_runs_it():
    pytest.importorskip("executorch")
    found = support(load_target("desktop-cpu"), PC)
    assert found.target == "desktop-cpu"
    assert [runtime.runtime for runtime in found.runtimes] == ["onnxruntime", "executorch"]
    assert found.compile.ok
    assert found.run.ok
    assert found.run.reason is None


def test_a_phone_is_compiled_for_but_not_run_here():
    pytest.importorskip("executorch")
    found = support(load_target("galaxy-s24-cpu"), PC)
    assert found.compile.ok
    assert not found.run.ok
    assert found.run.reason == "'galaxy-s24-cpu' is a device of its own"
    expected = "use --device adb://[serial]" if "adb" in DEVICES else "devices by adb come with a later version"
    assert (found.run.next_step or "").startswith(expected)


def test_another_abi_another_system_and_another_board():
    pi = load_target("raspberry-pi-5")
    assert support(pi, PC).run.reason == "this machine's ABI is x86_64, the target's aarch64"
    windows = support(load_target("desktop-cpu"), Machine(os="win32", abi="x86_64", model=""))
    assert windows.run.reason == "this machine's system is win32, the target's linux"
    model = "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super"
    jetson = Machine(os="linux", abi="aarch64", model=model)
    reason = support(pi, jetson).run.reason
    assert reason is not None
    assert reason.startswith("this machine calls itself 'NVIDIA Jetson Orin Nano")
    assert reason.endswith("', the target Raspberry Pi 5")
    for name in ("jetson-orin-nano", "raspberry-pi-5"):
        machine = jetson if name == "jetson-orin-nano" else PI
        reasons = [runtime.run.reason or "" for runtime in support(load_target(name), machine).runtimes]
        assert not any(reason.startswith("this machine") for reason in reasons)


def test_any_machine_fits_a_target_for_any_machine():
    pytest.importorskip("executorch")
    assert support(load_target("xnnpack-cpu"), Machine(os="darwin", abi="aarch64", model="")).run.ok


def test_a_delegate_that_the_backend_does_not_have():
    found = support(load_target("galaxy-s24-npu"), PC).runtimes[0]
    if "nnapi" not in BACKENDS.load("onnxruntime").delegates:
        assert found.compile.reason == "this version of Edge SDK has no delegate 'nnapi' for onnxruntime (it has: cpu)"


FRESH = """
    import json, sys
    from edge_sdk.schema import load_target, target_names
    from edge_sdk.support import support
    heavy = {"torch", "executorch", "onnxruntime", "onnx", "numpy", "rich"}
    found = {name: support(load_target(name)) for name in [*target_names(), *sys.argv[1:]]}
    print(json.dumps({
        "heavy": sorted(heavy & set(sys.modules)),
        "found": {name: [[one.compile.reason, one.compile.next_step] for one in every.runtimes]
                  for name, every in found.items()},
    }))
"""


def fresh(*arguments: str, path: str = "") -> dict:
    """Runs the look-up in a process of its own, with one more folder to import from."""
    command = [sys.executable, "-c", textwrap.dedent(FRESH), *arguments]
    environment = {**os.environ, "EDGE_SDK_TARGETS": "", "PYTHONPATH": os.pathsep.join([path, *sys.path])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_nothing_heavy_is_imported():
    assert fresh()["heavy"] == []


def plugin(tmp_path, attributes: str) -> str:
    """Installs a third party's backend 'abacus' and a profile that names it; returns the profile's path."""
    info = tmp_path / "abacus-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: abacus\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[edge_sdk.backends]\nabacus = abacus_backend:Abacus\n")
    (tmp_path / "abacus_backend.py").write_text(attributes)
    profile = tmp_path / "mine.yaml"
    rule = "{name: abacus, delegate: beads, unit: cpu, precisions: [fp32], shapes: static}"
    profile.write_text(f"name: mine\nextends: desktop-cpu\nruntimes:\n  - {rule}\n")
    return str(profile)


def test_a_backend_that_is_not_there(tmp_path):
    profile = plugin(tmp_path, "")
    [[reason, _]] = fresh(profile)["found"][profile]
    assert reason.startswith(
        "this version of Edge SDK has no backend 'abacus' (it has: aotinductor, executorch, onnxruntime"
    )


def test_a_backend_whose_modules_are_missing_names_the_extra(tmp_path):
    attributes = """
        from edge_sdk.backends.base import Backend

        class Abacus(Backend):
            name, extra = "abacus", "abacus"
            requires, runner_requires = ("json", "no_such_module.inside"), ()
            delegates = frozenset({"beads"})
    """
    profile = plugin(tmp_path, textwrap.dedent(attributes))
    expected = ["runtime 'abacus' needs no_such_module.inside, not installed here", "pip install 'edge-sdk[abacus]'"]
    assert fresh(profile, path=str(tmp_path))["found"][profile] == [expected]


def test_a_backend_that_cannot_be_imported_says_why(tmp_path):
    profile = plugin(tmp_path, "import no_such_module\n")
    [[reason, _]] = fresh(profile, path=str(tmp_path))["found"][profile]
    assert reason == "runtime 'abacus' cannot be imported: No module named 'no_such_module'."
