"""The phone as the genuine adb finds it: let in or not, commands, files, state."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys

import pytest

from edge_sdk.testing import AdbServer, Phone
from edge_sdk.testing._adb_sync import host_path
from edge_sdk.testing._ports import EMULATORS

from .conftest import wait_for

pytestmark = pytest.mark.debian("adb")


def _states(server: AdbServer) -> dict[str, str]:
    lines = server.run("devices", text=True).stdout.splitlines()
    return dict(line.split("\t") for line in lines if "\t" in line)


def test_adb_lists_it(server, phone):
    assert f"{phone.serial}" in server.run("devices", "-l", text=True).stdout
    line = next(line for line in server.run("devices", "-l", text=True).stdout.splitlines() if phone.serial in line)
    assert line.split()[1:5] == ["device", "product:e2sxeea", "model:SM_S926B", "device:e2s"]
    assert phone.port not in EMULATORS
    assert phone.uri == f"adb://127.0.0.1:{phone.port}"


def test_a_key_that_the_phone_knows_is_let_in_at_once(tmp_path):
    with Phone(tmp_path / "phone") as phone, AdbServer(tmp_path / "adb") as server:
        server.connect(phone)
    # The same phone, whose user now allows no computer: the known key alone opens.
    with Phone(tmp_path / "phone", authorized=False) as phone, AdbServer(tmp_path / "adb") as server:
        assert server.run("connect", phone.serial, text=True).stdout == f"connected to {phone.serial}\n"
        assert _states(server) == {phone.serial: "device"}


def test_an_unknown_key_waits_for_the_user(tmp_path):
    with Phone(tmp_path / "phone", authorized=False) as phone, AdbServer(tmp_path / "adb") as server:
        with pytest.raises(ConnectionError, match="failed to authenticate to 127.0.0.1"):
            server.connect(phone)
        assert _states(server) == {phone.serial: "unauthorized"}
        assert b"device unauthorized" in server.run("-s", phone.serial, "shell", "true").stderr
        phone.authorize()
        wait_for(lambda: _states(server) == {phone.serial: "device"})
        assert server.run("-s", phone.serial, "shell", "echo in").stdout == b"in\n"
        phone.unauthorized()
        server.run("disconnect", phone.serial)
        server.run("connect", phone.serial)
        assert _states(server) == {phone.serial: "unauthorized"}


def test_a_command_has_its_streams_apart_and_its_exit_code(adb):
    done = adb("shell", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"out\n", b"err\n")
    assert adb("shell", "kill -9 $$").returncode == 137


def test_the_first_shell_protocol_has_neither(adb):
    done = adb("shell", "-x", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"out\nerr\n", b"")
    assert adb("exec-out", "printf 'a\\r\\nb'").stdout == b"a\r\nb"


def test_commands_find_an_android_like_place(adb, phone):
    done = adb("shell", 'echo "$TMPDIR $EXTERNAL_STORAGE $USER"; pwd; command -v getprop; env | grep -c PYTEST')
    assert done.stdout.decode().split() == [
        str(phone.tmp),
        str(phone.sdcard),
        "shell",
        str(phone.folder),
        f"{phone.folder}/system/bin/getprop",
        "0",
    ]


@pytest.mark.parametrize("way", [["shell"], ["shell", "-T"], ["exec-in"]])
def test_binary_input_arrives_whole(adb, phone, way):
    data = os.urandom(3_000_001)
    done = adb(*way, 'cat > "$TMPDIR/new" && mv "$TMPDIR/new" "$TMPDIR/in"', input=data)
    assert done.returncode == 0, done.stderr
    wait_for((phone.tmp / "in").exists)  # exec-in does not wait for the command
    assert (phone.tmp / "in").read_bytes() == data


def test_a_command_that_ends_before_its_input_does_not_block(adb):
    done = adb("shell", "head -c 10", input=b"0123456789" * 300_000)
    assert (done.returncode, done.stdout) == (0, b"0123456789")


def test_binary_output_arrives_whole(adb, phone):
    (phone.tmp / "out").write_bytes(data := os.urandom(3_000_001))
    assert adb("shell", "cat $TMPDIR/out").stdout == data
    assert adb("exec-out", "cat $TMPDIR/out").stdout == data


def test_files_go_and_come(adb, phone, tmp_path):
    data = os.urandom(3_000_001)
    (tmp_path / "file").write_bytes(data)
    (tmp_path / "file").chmod(0o755)
    os.utime(tmp_path / "file", (1e9, 1e9))
    done = adb("push", tmp_path / "file", "/data/local/tmp/deep/er/file")
    assert b"1 file pushed" in done.stdout, done
    there = phone.tmp / "deep/er/file"
    assert hashlib.sha256(there.read_bytes()).digest() == hashlib.sha256(data).digest()
    assert stat.S_IMODE(there.stat().st_mode) == 0o777 and there.stat().st_mtime == 1e9
    adb("pull", "/data/local/tmp/deep/er/file", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == data
    # A path that a command on the phone names is taken as it is.
    adb("pull", there, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == data


def test_folders_go_and_come(adb, phone, tmp_path):
    for name in ("a", "b/c", "b/empty"):
        (tmp_path / "from" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "from" / name).write_bytes(b"" if "empty" in name else name.encode())
    assert b"3 files pushed" in adb("push", tmp_path / "from", "/sdcard").stdout
    assert (phone.sdcard / "from/b/c").read_bytes() == b"b/c"
    assert b"3 files pulled" in adb("pull", "/sdcard/from", tmp_path / "to").stdout
    assert (tmp_path / "to/b/c").read_bytes() == b"b/c"
    names = {line.split(maxsplit=3)[3] for line in adb("ls", "/sdcard/from", text=True).stdout.splitlines()}
    assert names >= {"a", "b"}


def test_a_file_that_is_not_there_is_said(adb, tmp_path):
    done = adb("pull", "/sdcard/none", tmp_path / "x", text=True)
    assert done.returncode and "'/sdcard/none': No such file or directory" in done.stdout + done.stderr


@pytest.mark.parametrize("path", ["/etc/x", "../../x", "/data/../../../x", "//x", "x"])
def test_every_path_lies_in_the_folder(tmp_path, path):
    assert host_path(tmp_path, path).is_relative_to(tmp_path)


def test_a_link_leads_no_push_out_of_the_folder(adb, phone, tmp_path):
    (tmp_path / "outside").mkdir()
    (phone.tmp / "way").symlink_to(tmp_path / "outside")
    (tmp_path / "file").write_bytes(b"x")
    done = adb("push", tmp_path / "file", "/data/local/tmp/way/file", text=True)
    assert done.returncode and "Permission denied" in done.stdout + done.stderr
    assert not any((tmp_path / "outside").iterdir())


def test_properties(adb, phone):
    phone.props["ro.test"] = "two words"
    assert adb("shell", "getprop ro.test; getprop none; getprop none fallback").stdout == b"two words\n\nfallback\n"
    lines = adb("shell", "getprop", text=True).stdout.splitlines()
    assert "[ro.product.model]: [SM-S926B]" in lines and "[ro.test]: [two words]" in lines
    del phone.props["ro.test"]
    assert adb("shell", "getprop ro.test").stdout == b"\n"
    with pytest.raises(ValueError, match="'../x' is no name of a property"):
        phone.props["../x"] = "1"


def test_battery(adb, phone):
    phone.battery.set(level=55, voltage=3987, current_now=-612)
    lines = adb("shell", "dumpsys battery", text=True).stdout.splitlines()
    assert lines[0] == "Current Battery Service state:"
    for line in ("USB powered: false", "status: 3", "level: 55", "voltage: 3987", "current now: -612"):
        assert f"  {line}" in lines
    phone.charge()
    lines = adb("shell", "dumpsys battery", text=True).stdout.splitlines()
    for line in ("USB powered: true", "status: 2", "current now: 612"):
        assert f"  {line}" in lines
    phone.charge(False)
    phone.battery.vendor_lines = False
    assert "current now" not in adb("shell", "dumpsys battery", text=True).stdout
    with pytest.raises(AttributeError, match="there is no 'volts'"):
        phone.battery.volts = 4


def test_heat(adb, phone):
    lines = adb("shell", "dumpsys thermalservice", text=True).stdout.splitlines()
    assert "Thermal Status: 0" in lines
    assert "\tTemperature{mValue=31.4, mType=3, mName=SKIN, mStatus=0}" in lines
    phone.throttle()
    phone.thermal.temperatures["NPU"] = 81
    lines = adb("shell", "dumpsys thermalservice", text=True).stdout.splitlines()
    assert "Thermal Status: 3" in lines
    assert "\tTemperature{mValue=46.0, mType=3, mName=SKIN, mStatus=3}" in lines
    assert "\tTemperature{mValue=81.0, mType=9, mName=NPU, mStatus=0}" in lines
    phone.throttle(False)
    assert "Thermal Status: 0" in adb("shell", "dumpsys thermalservice", text=True).stdout


def test_packages_and_settings(adb, phone):
    phone.installed.add("org.example.app")
    assert adb("shell", "pm list packages example").stdout == b"package:org.example.app\n"
    assert adb("shell", "pm path org.none").returncode == 1
    assert b"Package [org.example.app]" in adb("shell", "dumpsys package org.example.app").stdout
    assert adb("shell", "dumpsys package org.none").stdout == b"Unable to find package: org.none\n"
    script = "settings get global low_power; settings put global low_power 1; settings get global low_power"
    assert adb("shell", script).stdout == b"null\n1\n"


def _instrument(request: str, runtime: str = "fake") -> str:
    return f"am instrument -w -r -e runtime {runtime} -e request {request} dev.edgesdk.runner/.RunnerInstrumentation"


def test_instrumentation_runs_the_runner(adb, phone):
    (phone.tmp / "request").write_text("well")
    lines = adb("shell", _instrument("$TMPDIR/request"), text=True).stdout.splitlines()
    assert lines[0].startswith('INSTRUMENTATION_STATUS: edge_sdk={"type": "hello"')
    assert lines[1] == "INSTRUMENTATION_STATUS_CODE: 1"
    assert lines[2] == f'INSTRUMENTATION_STATUS: edge_sdk={{"type": "result", "where": "{phone.tmp}"}}'
    assert lines[3:] == ["INSTRUMENTATION_STATUS_CODE: 1", "INSTRUMENTATION_CODE: -1"]
    assert phone.logcat.read_text() == "chatter\n"


def test_instrumentation_that_is_not_installed(adb, phone):
    phone.installed.discard("dev.edgesdk.runner")
    done = adb("shell", _instrument("x"), text=True)
    name = "dev.edgesdk.runner/dev.edgesdk.runner.RunnerInstrumentation"
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        f"INSTRUMENTATION_STATUS: Error=Unable to find instrumentation info for: ComponentInfo{{{name}}}",
        "INSTRUMENTATION_STATUS: id=ActivityManagerService",
        "INSTRUMENTATION_STATUS_CODE: -1",
        f"onError: commandError=true message=INSTRUMENTATION_FAILED: {name}",
    ]
    assert f"android.util.AndroidException: INSTRUMENTATION_FAILED: {name}" in done.stderr


def test_a_crash_of_the_app(adb, phone):
    (phone.tmp / "request").write_text("crash")
    lines = adb("shell", _instrument("$TMPDIR/request"), text=True).stdout.splitlines()
    assert lines[-2:] == ["INSTRUMENTATION_RESULT: shortMsg=Process crashed.", "INSTRUMENTATION_CODE: 0"]


def test_force_stop_ends_the_app(adb, server, phone):
    (phone.tmp / "request").write_text("sleep")
    command = [server.client, "-s", phone.serial, "shell", _instrument("$TMPDIR/request")]
    with subprocess.Popen(command, env=os.environ | server.env, stdout=subprocess.PIPE) as running:
        wait_for(lambda: any("runner.py" in process.command for process in phone.processes()))
        adb("shell", "am force-stop dev.edgesdk.runner")
        assert running.stdout and b"Process crashed." in running.stdout.read()
    assert phone.processes() == []


@pytest.mark.parametrize("script", ["exec {}", "(cd / && {})\necho end"])
def test_the_app_ends_with_its_link(server, phone, script):
    (phone.tmp / "request").write_text("sleep")
    command = [server.client, "-s", phone.serial, "shell", script.format(_instrument("$TMPDIR/request"))]
    with subprocess.Popen(command, env=os.environ | server.env, stdout=subprocess.DEVNULL) as running:
        wait_for(lambda: any("runner.py" in process.command for process in phone.processes()))
        running.kill()
    wait_for(lambda: phone.processes() == [])


def test_nothing_is_left_behind(tmp_path, server):
    with Phone(tmp_path / "phone") as phone:
        server.connect(phone)
        server.run("-s", phone.serial, "shell", "setsid sleep 100 > /dev/null 2>&1 < /dev/null &")
        wait_for(lambda: [process.command for process in phone.processes()] == ["sleep 100"])
        command = [server.client, "-s", phone.serial, "shell", "trap '' HUP; sleep 100; sleep 100"]
        running = subprocess.Popen(command, env=os.environ | server.env)
        wait_for(lambda: len(phone.processes()) >= 3)
        left = phone.processes()
    assert phone.processes() == []
    assert not any(os.path.exists(f"/proc/{process.pid}/cwd") for process in left)
    running.kill()
    running.wait()
    server.run("disconnect", phone.serial)


def test_the_adb_server_goes_too(tmp_path):
    with AdbServer(tmp_path) as server:
        server.run("devices")
    assert server._process and server._process.poll() is not None
    assert (tmp_path / "home/.android/adbkey").exists()


def test_importing_costs_nothing_heavy():
    probe = "import sys, edge_sdk.testing as t; assert all(hasattr(t, n) for n in t.__all__); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert not {"numpy", "torch", "pydantic", "rich", "asyncio"} & set(done.stdout.split())
