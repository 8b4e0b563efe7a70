"""The local device: what it tells of itself, its lock, its files, and runners that behave badly."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edge_sdk.devices import open_device
from edge_sdk.devices.local import LocalDevice
from edge_sdk.errors import DeviceError, MissingDependencyError, StorageError


def gone(pid: int) -> bool:
    """Whether a process has ended (or is a zombie that nobody has fetched yet) within a few seconds."""
    for _ in range(50):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.1)
    return False


def failure(device, request, runtime="fake") -> str:
    with pytest.raises(DeviceError) as caught:
        list(device.run(runtime, request))
    return str(caught.value)


def test_open_device_gives_this_machine():
    with open_device("local") as device:
        about = device.describe()
    assert about.uri == "local" and about.abi == os.uname().machine
    assert about.soc and about.model and "Linux" in about.os


def test_another_name_is_refused():
    with pytest.raises(DeviceError, match="device 'local://x' is not known; this machine is called 'local'"):
        open_device("local://x")


def test_nothing_is_copied(tmp_path):
    assert LocalDevice().push(tmp_path) == str(tmp_path.resolve())


def test_scratch_is_removed_on_close(tmp_path):
    with LocalDevice() as device:
        path = Path(device.scratch("outputs.npz"))
        path.write_bytes(b"x")
        device.pull(str(path), tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"x"
    assert not path.exists() and not path.parent.exists()


def test_a_file_that_the_runner_did_not_write(tmp_path):
    with LocalDevice() as device, pytest.raises(DeviceError, match="the runner did not write /nowhere"):
        device.pull("/nowhere", tmp_path / "copy")


def test_unknown_runner(request_of):
    message = failure(LocalDevice(), request_of, "onnxruntim")
    assert "unknown runner 'onnxruntim'. Did you mean 'onnxruntime'?" in message
    assert "Known: aotinductor, executorch, onnxruntime, tensorrt." in message


def test_a_run_that_goes_well(fake, request_of):
    device = fake('say(HELLO, \'{"type":"progress","stage":"load"}\', RESULT)')
    assert [message.type for message in device.run("fake", request_of)] == ["hello", "progress", "result"]


def test_the_runners_environment_is_clean(fake, request_of, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("EDGE_SDK_SECRET", "x")
    program = """
assert os.environ["PATH"] and not {"OMP_NUM_THREADS", "EDGE_SDK_SECRET"} & set(os.environ), os.environ
assert os.getpgid(0) == os.getpid() and sys.stdin.read() == ""
say(HELLO, RESULT)
"""
    assert len(list(fake(program).run("fake", request_of))) == 2


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("say('good morning')", "it sent a line that is no message of the protocol: 'good morning'"),
        ('say(\'{"type":"greeting"}\')', "it sent a line that is no message"),
        ("say('\\x1b[31mred\\x07')", "'red'"),
        ("say(HELLO[:-1] + ',\"color\":1}')", "color: Extra inputs are not permitted"),
        ("say(HELLO.replace(':1,', ':2,'))", "it sent a line that is no message"),
        ("say('[' * 10000)", "it sent a line that is no message"),
        ("say(RESULT)", "it sent 'result' before hello"),
        ("say(HELLO, HELLO)", "it sent 'hello' again"),
        ("say(HELLO.replace('fake', 'other'))", "it calls itself 'other'"),
        ("say(HELLO)", "it ended without a result"),
        ("say(HELLO); sys.stdout.write('{'); sys.stdout.flush()", "its last line was cut off"),
        ("say(HELLO); os._exit(3)", "it ended with exit code 3 and said no reason"),
        ("os.kill(os.getpid(), 9)", "it was killed by signal 9 (Killed); perhaps the machine ran out of memory"),
        ("import ctypes; say(HELLO); ctypes.string_at(0)", "it was killed by signal 11"),
    ],
)
def test_runners_that_behave_badly(program, message, fake, request_of):
    found = failure(fake(program), request_of)
    assert message in found
    assert found.startswith("device 'local': the fake runner failed at step 'start': ")


def test_the_step_and_the_end_of_standard_error_are_named(fake, request_of):
    program = """
say(HELLO, '{"type":"progress","stage":"warmup"}')
print("\\x1b[1mthe cause\\x1b[0m", file=sys.stderr)
sys.exit(9)
"""
    found = failure(fake(program), request_of)
    assert "failed at step 'warmup': it ended with exit code 9" in found
    assert found.endswith("The end of its standard error:\nthe cause")


def test_a_crash_shows_where_python_was(fake, request_of):
    found = failure(fake("import ctypes; say(HELLO); ctypes.string_at(0)"), request_of)
    assert "Fatal Python error: Segmentation fault" in found


def test_what_a_runner_explains_is_passed_on(fake, request_of):
    program = """
say('{"type":"error","stage":"request","kind":"request","message":"no such part"}')
print("noise", file=sys.stderr)
sys.exit(1)
"""
    found = failure(fake(program), request_of)
    assert found == "device 'local': the fake runner failed at step 'request': no such part (request)."


def test_a_missing_runtime_names_the_extra(fake, request_of):
    program = """
say('{"type":"error","stage":"import","kind":"missing_runtime","message":"No module named fake"}')
"""
    with pytest.raises(MissingDependencyError) as caught:
        list(fake(program).run("fake", request_of))
    assert "No module named fake" in str(caught.value)
    assert "pip install 'edge-sdk[fake]'" in str(caught.value)


def test_the_real_runner_without_its_runtime(request_of, tmp_path):
    """A bare interpreter: the standard library alone."""
    bare = tmp_path / "bare"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    bare.chmod(0o755)
    (tmp_path / "x").write_bytes(b"")
    (tmp_path / "reference.npz").write_bytes(b"")
    with LocalDevice(python=str(bare)) as device, pytest.raises(MissingDependencyError) as caught:
        list(device.run("onnxruntime", request_of))
    assert "pip install 'edge-sdk[onnxruntime]'" in str(caught.value)


def test_endless_output_is_stopped(fake, request_of):
    found = failure(
        fake('say(HELLO)\nwhile True: say(\'{"type":"progress","stage":"x"}\')', total_bytes=10**5), request_of
    )
    assert "it sent more than 100000 bytes, and was stopped" in found


def test_an_endless_line_is_stopped(fake, request_of):
    found = failure(fake("while True: sys.stdout.write('x' * 1000)", line_bytes=10**5), request_of)
    assert "it sent a line longer than 100000 bytes, and was stopped" in found


def test_silence_is_ended(fake, request_of):
    begin = time.monotonic()
    found = failure(
        fake("say(HELLO)\nwhile True: print('chatter', file=sys.stderr); time.sleep(0.05)", silence_s=0.5), request_of
    )
    assert "it said nothing for 0.5 s, and was stopped" in found
    assert time.monotonic() - begin < 10


def test_the_longest_time_is_kept(fake, request_of):
    program = 'say(HELLO)\nwhile True: say(\'{"type":"progress","stage":"x"}\'); time.sleep(0.05)'
    assert "it took longer than 0.5 s, and was stopped" in failure(fake(program, overall_s=0.5), request_of)


def test_a_closed_channel_with_a_living_process(fake, request_of, monkeypatch):
    monkeypatch.setattr("edge_sdk.devices._process._EXIT_S", 0.3)
    found = failure(fake("say(HELLO); os.close(1); time.sleep(60)"), request_of)
    assert "it closed its channel but did not end" in found


@pytest.mark.parametrize("stubborn", [False, True])
def test_leaving_early_ends_the_whole_group(stubborn, fake, request_of, tmp_path):
    ignore = "signal.signal(signal.SIGTERM, signal.SIG_IGN)" if stubborn else ""
    program = f"""
{ignore}
child = os.fork()
if child:
    open({str(tmp_path / "pids")!r}, "w").write(f"{{os.getpid()}} {{child}}")
    say(HELLO)
time.sleep(600)
"""
    messages = fake(program).run("fake", request_of)
    assert next(messages).type == "hello"
    messages.close()
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 2 and all(gone(pid) for pid in pids)


def test_an_interrupt_ends_the_runner(fake, tmp_path):
    """Ctrl-C at the host, while it waits for a message."""
    fake(f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); say(HELLO); time.sleep(600)")
    host = f"""
import signal
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background is started deaf to it
from edge_sdk.devices.local import LocalDevice
from edge_sdk.schema.request import PartRequest, RunRequest
part = PartRequest(name="forward", program="x", entry="main", inputs=["x"], outputs=["y"])
with LocalDevice(runtimes_dir=Path({str(tmp_path / "runtimes")!r})) as device:
    for message in device.run("fake", RunRequest(bundle="/", parts=[part], reference="r")):
        print(message.type, flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", host], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.readline() == b"hello\n"
        process.send_signal(2)
        process.wait(20)
    assert gone(int((tmp_path / "pid").read_text()))


def test_the_lock_tells_who_holds_it(monkeypatch, tmp_path):
    monkeypatch.setenv("EDGE_SDK_CACHE", str(tmp_path))
    other = LocalDevice(lock_wait_s=0.2)
    with LocalDevice().lock("edge-sdk, bundle 'a'"):
        with pytest.raises(DeviceError) as caught, other.lock("edge-sdk, bundle 'b'"):
            pass
        assert f"device 'local' is being measured by edge-sdk, bundle 'a', process {os.getpid()}" in str(caught.value)
    with other.lock("edge-sdk, bundle 'b'"):
        pass


def test_the_lock_waits_a_little(monkeypatch, tmp_path):
    monkeypatch.setenv("EDGE_SDK_CACHE", str(tmp_path))
    holder = """
import time
from edge_sdk.devices.local import LocalDevice
with LocalDevice().lock("first"):
    print("held", flush=True)
    time.sleep(0.5)
"""
    with subprocess.Popen([sys.executable, "-c", holder], stdout=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.readline() == b"held\n"
        with LocalDevice(lock_wait_s=20).lock("second"):
            assert process.wait(10) == 0


def test_a_cache_that_cannot_be_written(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EDGE_SDK_CACHE", str(tmp_path / "file"))
    with pytest.raises(StorageError, match="a part of the path is a file"), LocalDevice().lock("x"):
        pass
