"""Runners that answer calls one by one: here, behind the genuine sshd, and runners that misbehave."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import tiny

from edge_sdk.bundle import Bundle
from edge_sdk.devices import open_device
from edge_sdk.devices.base import Device
from edge_sdk.devices.session import Session
from edge_sdk.errors import DeviceError, MissingDependencyError, UnsupportedError
from edge_sdk.profiling._run import make_request

ANSWER = json.dumps({"type": "answer", "ns": 1, "outputs": [], "memory": None})
READY = json.dumps({"type": "progress", "stage": "session"})


@pytest.fixture(scope="module", params=["onnxruntime", "executorch"])
def either(request, tmp_path_factory) -> Bundle:
    """A bundle of each runtime: of two parts, or of one that is called twice."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "onnxruntime":
        return tiny.bundle(folder, "onnxruntime", tiny.onnx_program(), ("first", "second"))
    return tiny.bundle(folder, "executorch", tiny.pte_program())


@contextmanager
def session(device: Device, bundle: Bundle) -> Iterator[Session]:
    with device.session(bundle.manifest.runtime.name, make_request(bundle, device.push(bundle.path), None, 1)) as found:
        yield found


def test_a_call_takes_what_another_left_on_the_device(either):
    one_part, other = either.manifest.parts[0].name, either.manifest.parts[-1].name
    with open_device("local") as device, session(device, either) as calls:
        for one in tiny.inputs(2):
            first = calls.call(one_part, {"x": one}, outputs=["y"], memory=True)
            second = calls.call(other, {}, kept={"x": (one_part, "y")}, outputs=["y"])
            np.testing.assert_allclose(first.outputs["y"], tiny.layer(one), rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(second.outputs["y"], tiny.layer(tiny.layer(one)), rtol=1e-4, atol=1e-4)
            assert first.ms > 0 and second.memory is None
            assert first.memory is not None and first.memory.resident_mib and first.memory.gpu_mib is None


def test_an_output_that_nobody_asked_for_stays_there(bundle):
    with open_device("local") as device, session(device, bundle) as calls:
        assert calls.call("forward", {"x": tiny.inputs(1)[0]}).outputs == {}


def test_a_board_answers_the_same_and_nothing_is_left_there(board, bundle):
    x = tiny.inputs(1)[0]
    with open_device(board.uri) as device, device.lock("a test"):
        with session(device, bundle) as calls:
            for _ in range(3):
                found = calls.call("forward", {"x": x}, outputs=["y"])
                np.testing.assert_allclose(found.outputs["y"], tiny.layer(x), rtol=1e-4, atol=1e-5)
    assert board.left_behind() == []


def test_a_link_that_drops_ends_a_session(board, bundle):
    x = tiny.inputs(1)[0]
    with open_device(board.uri) as device:
        with pytest.raises(DeviceError, match="the link dropped"), session(device, bundle) as calls:
            calls.call("forward", {"x": x}, outputs=["y"])
            board.link.cut()
            calls.call("forward", {"x": x}, outputs=["y"])
    assert board.left_behind() == []


def test_a_phones_app_takes_no_calls(phone, bundle):
    with open_device(phone.uri) as device, pytest.raises(UnsupportedError, match="answers no single calls"):
        device.session("onnxruntime", make_request(bundle, "/x", None, 1))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ({"part": "third", "inputs": {}}, "a call is for part 'third'; the request has forward"),
        ({"part": "forward", "inputs": {"z": tiny.inputs(1)[0]}}, "part 'forward' takes .'x'."),
        ({"part": "forward", "inputs": {}, "kept": {"x": ("forward", "y")}}, "which no earlier call gave"),
        ({"part": "forward", "inputs": {"x": tiny.inputs(1)[0]}, "outputs": ["z"]}, "wants .'z'."),
        ({"part": "forward", "inputs": {"x": np.zeros((1, 3), np.float32)}}, r"\(runtime\)"),
        ({"part": "forward", "inputs": {"x": np.zeros(3, np.float64)}}, "has name, dtype and shape"),
        ({"part": "forward" + 70_000 * "d", "inputs": {}}, "is not a line of JSON of at most 65536 bytes"),
    ],
)
def test_a_call_that_does_not_fit_ends_it_with_the_reason(bundle, call, said):
    with open_device("local") as device, session(device, bundle) as calls:
        with pytest.raises(DeviceError, match=f"(?s)failed at step 'session': .*{said}"):
            calls.call(**call)
        with pytest.raises(DeviceError):
            calls.call("forward", {"x": tiny.inputs(1)[0]})


@pytest.mark.parametrize(
    ("program", "said"),
    [
        (f"say(HELLO, '{READY}')\nsys.exit(3)", "ended with exit code 3"),
        ("say(HELLO, RESULT)", "ended before it took a call"),
        (f"say(HELLO, '{READY}')\nsys.stdin.buffer.read(4 << 20)\nsay(RESULT)", "answered another call"),
        (f"say(HELLO, '{READY}')\nsys.stdin.readline()\nos.kill(os.getpid(), signal.SIGKILL)", "killed by signal 9"),
        (f"say(HELLO, '{READY}')\ntime.sleep(60)", "took nothing for 1 s|said nothing for 1 s"),
        ("raise ImportError('no')", "ended with exit code 1"),
    ],
)
def test_a_runner_that_misbehaves_is_told(fake, request_of, program, said):
    device = fake(program, silence_s=1.0)
    with pytest.raises(DeviceError, match=said), device.session("fake", request_of) as calls:
        calls.call("forward", {"x": np.zeros(1 << 20, np.float32)}, outputs=["y"])


def test_an_answer_to_no_call_ends_a_run(fake, request_of):
    with pytest.raises(DeviceError, match="it answered a call, and none was made"):
        list(fake(f"say(HELLO, '{ANSWER}', RESULT)").run("fake", request_of))


def test_a_missing_runtime_is_told(fake, request_of):
    error = '{"type":"error","stage":"import","kind":"missing_runtime","message":"no such module"}'
    with pytest.raises(MissingDependencyError, match="no such module"):
        with fake(f"say('{error}')\nsys.exit(1)").session("fake", request_of):
            pass


def test_the_runner_ends_with_the_host(bundle):
    with open_device("local") as device:
        with pytest.raises(RuntimeError, match="on purpose"), session(device, bundle) as calls:
            process = calls.hello.pid
            raise RuntimeError("on purpose")
    with pytest.raises(ProcessLookupError):
        os.kill(process, signal.SIGCONT)
