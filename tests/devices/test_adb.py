"""Android: the genuine adb and its server, the app's instrumentation, a native runner, and phones that do harm."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import tiny
from devices_remotes import QUICK

from edge_sdk.devices import open_device
from edge_sdk.devices.adb import AdbDevice
from edge_sdk.errors import DeviceError, MissingDependencyError
from edge_sdk.profiling.measure import measure

RUNNER = f"""#!{sys.executable}
# A stand-in for ExecuTorch's executor_runner of version 1.2: it prints what the genuine program prints, and computes
# the layer of the tiny model.
import sys
import numpy as np
given = dict(word[2:].split("=", 1) for word in sys.argv[1:])
count = int(given["num_executions"])
weights = np.random.default_rng(0).standard_normal(({tiny.SIZE}, {tiny.SIZE})).astype(np.float32)
outputs = np.maximum(np.fromfile(given["inputs"], np.float32) @ weights, 0)
if "output_file" in given:
    outputs.tofile(given["output_file"] + "-0.bin")
log = "I 00:00:00.000001 executorch:executor_runner.cpp:1] "
print(log + "Model file " + given["model_path"] + " is loaded.", file=sys.stderr)
print(log + f"Model executed successfully {{count}} time(s) in {{2.5 * count:f}} ms.", file=sys.stderr)
"""


def message_of(uri: str) -> str:
    with pytest.raises(DeviceError) as caught, AdbDevice(uri):
        pass
    assert caught.value.exit_code == 3 and "\n" not in str(caught.value)
    return str(caught.value)


def test_it_tells_what_the_phone_is(phone) -> None:
    with open_device(phone.uri) as device:
        about = device.describe()
    assert about.model_dump() == {
        "uri": phone.uri,
        "model": "samsung SM-S926B",
        "soc": "Samsung s5e9945",
        "os": "Android 14 (API 34)",
        "abi": "arm64-v8a",
    }


def test_the_only_device_needs_no_name(phone) -> None:
    with open_device(phone.uri), open_device("adb://") as device:
        assert device.describe().model == "samsung SM-S926B"


def test_no_device_is_told(phone) -> None:
    assert "no Android device is attached" in message_of("adb://")


def test_an_unknown_serial_lists_what_is_attached(phone) -> None:
    with open_device(phone.uri):
        said = message_of("adb://R5CX12345")
    assert said == (
        f"device 'adb://R5CX12345' is not attached (attached: {phone.uri.removeprefix('adb://')}). "
        "See 'edge-sdk devices'."
    )


def test_an_unauthorised_phone_says_what_to_tap(phone) -> None:
    phone.stand_in.unauthorized()
    assert "it has not allowed this computer: unlock it and accept 'Allow USB debugging'" in message_of(phone.uri)
    phone.stand_in.authorize()
    with open_device(phone.uri) as device:
        assert device.describe().uri == phone.uri


def test_a_phone_out_of_reach_is_told(phone) -> None:
    phone.link.refuse()
    assert "is not attached" in message_of(phone.uri)


@pytest.mark.parametrize("uri", ["adb://-s", "adb://$(touch x)", "adb://a b", "adb://a;b", "adb://a\x1b[31m"])
def test_a_serial_of_another_form_is_refused(uri: str) -> None:
    said = message_of(uri)
    assert "expected adb://[serial]" in said and said.isprintable()


def test_properties_that_do_harm_are_only_text(phone) -> None:
    phone.stand_in.props["ro.product.model"] = "x\x1b[31m$(id); `id`\u202e" + "y" * 500
    phone.stand_in.props["ro.soc.model"] = "../../etc"
    with open_device(phone.uri) as device:
        about = device.describe()
    assert about.model == f"samsung x$(id); `id`{'y' * (100 - len('x$(id); `id`'))}"
    assert about.soc == "Samsung ../../etc"


def test_an_app_that_is_not_there_names_the_cure(phone, bundle) -> None:
    phone.stand_in.installed.clear()
    with pytest.raises(MissingDependencyError, match=r"is not installed.* see android/README\.md"):
        with open_device(phone.uri) as device:
            measure(bundle, device, timing=QUICK)
    assert phone.left_behind() == []


def test_a_native_runner_is_pushed_run_and_believed_no_further_than_it_tells(phone, tmp_path: Path) -> None:
    program = tmp_path / "executor_runner"
    program.write_text(RUNNER)
    bundle = tiny.bundle(tmp_path, "executorch", tiny.pte_program())
    with open_device(phone.uri, str(program)) as device:
        found = measure(bundle, device, timing=QUICK)
    assert found.run.result.latency.p50 == pytest.approx(2.5)
    assert any("mean of" in warning for warning in found.run.result.conditions.warnings)
    assert found.numerics.cosine > 0.9999
    assert phone.left_behind() == []


def test_a_native_runner_that_fails_is_told(phone, tmp_path: Path) -> None:
    program = tmp_path / "executor_runner"
    program.write_text("#!/bin/sh\necho 'E 00:00 no such backend' >&2\nexit 9\n")
    bundle = tiny.bundle(tmp_path, "executorch", tiny.pte_program())
    with pytest.raises(DeviceError, match="the program executor_runner failed at step 'run' with exit code 9: E 00:00"):
        with open_device(phone.uri, str(program)) as device:
            measure(bundle, device, timing=QUICK)
    assert phone.left_behind() == []


def test_the_command_line_lists_it_with_the_targets_that_fit(phone, cli) -> None:
    with open_device(phone.uri):
        done = cli("devices", phone.uri, "--json")
    assert done.returncode == 0, done.stderr
    (one,) = json.loads(done.stdout)["devices"]
    assert one["device"]["model"] == "samsung SM-S926B"
    assert set(one["targets"]) >= {"galaxy-s24-npu", "galaxy-s24-cpu"}
    assert one["free_bytes"] > 0 and one["problem"] is None and one["measured_by"] is None
