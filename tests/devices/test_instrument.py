"""The output of ``am instrument``, as AOSP's Instrument.java prints it, turned into the protocol's lines."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter

from edge_sdk.devices._instrument import INSTRUMENTATION, PACKAGE, command, lines
from edge_sdk.devices._protocol import BrokenStreamError, conversation
from edge_sdk.errors import DeviceError, MissingDependencyError
from edge_sdk.schema.messages import Failure, Message

HELLO = (
    '{"type":"hello","protocol_version":1,"runtime":"onnxruntime","version":"1.32.0","pid":4711,'
    '"device":{"os":"Android 14 (API 34)","abi":"arm64-v8a","cpus":10}}'
)
PROGRESS = '{"type":"progress","stage":"load"}'
RESULT = '{"type":"result","latency":null,"memory":null,"conditions":{},"outputs":null}'
WELL = "INSTRUMENTATION_CODE: -1\n"
MISSING = (
    f"INSTRUMENTATION_STATUS: Error=Unable to find instrumentation info for: ComponentInfo{{{PACKAGE}/"
    f"{PACKAGE}.RunnerInstrumentation}}\n"
    "INSTRUMENTATION_STATUS: id=ActivityManagerService\n"
    "INSTRUMENTATION_STATUS_CODE: -1\n"
)
FAILED = f"onError: commandError=true message=INSTRUMENTATION_FAILED: {PACKAGE}/{PACKAGE}.RunnerInstrumentation\n"
TRACE = (
    f"android.util.AndroidException: INSTRUMENTATION_FAILED: {PACKAGE}/{PACKAGE}.RunnerInstrumentation\n"
    "\tat com.android.commands.am.Instrument.run(Instrument.java:543)\n"
)


def status(message: str, code: int = 1) -> str:
    return f"INSTRUMENTATION_STATUS: edge_sdk={message}\nINSTRUMENTATION_STATUS_CODE: {code}\n"


def read(text: str) -> list[str]:
    return [line.decode() for line in lines(text.encode().split(b"\n"))]


def broken(text: str) -> str:
    with pytest.raises(BrokenStreamError) as caught:
        read(text)
    return str(caught.value)


def missing(text: str) -> str:
    """The message of the one line that stands for an app that is not there."""
    (line,) = read(text)
    message = TypeAdapter(Message).validate_json(line)
    assert isinstance(message, Failure) and message.kind == "missing_runtime"
    return message.message


def test_the_command_line():
    words = ["am", "instrument", "-w", "-r", "-e", "runtime", "onnxruntime", "-e", "request", "/data/local/tmp/r.json"]
    assert command("onnxruntime", "/data/local/tmp/r.json") == [*words, INSTRUMENTATION]
    assert INSTRUMENTATION == "dev.edgesdk.runner/.RunnerInstrumentation"


def test_messages_come_in_order():
    assert read(status(HELLO) + status(PROGRESS) + status(RESULT) + WELL) == [HELLO, PROGRESS, RESULT]


def test_a_message_comes_as_soon_as_it_is_whole():
    def raw():
        yield b"INSTRUMENTATION_STATUS: edge_sdk=" + HELLO.encode()
        yield b"INSTRUMENTATION_STATUS_CODE: 1"
        raise AssertionError("read too far")

    assert next(lines(raw())) == HELLO.encode()


def test_a_terminals_line_ends():
    assert read((status(HELLO) + WELL).replace("\n", "\r\n")) == [HELLO]


def test_other_keys_and_lines_are_ignored():
    text = (
        "WARNING: linker: something\n"
        "INSTRUMENTATION_STATUS: class=dev.edgesdk.Test\n"
        f"INSTRUMENTATION_STATUS: edge_sdk={HELLO}\n"
        "INSTRUMENTATION_STATUS: id=Runner\n"
        "INSTRUMENTATION_STATUS: stream=\n"
        "a text over several lines\n"
        "INSTRUMENTATION_STATUS without a value\n"
        "INSTRUMENTATION_STATUS_CODE: 1\n"
        "INSTRUMENTATION_STATUS: numtests=1\n"
        "INSTRUMENTATION_STATUS_CODE: 0\n"
    )
    assert read(text + status(RESULT) + "INSTRUMENTATION_RESULT: stream=\n\nTime: 1\n" + WELL) == [HELLO, RESULT]


def test_a_value_over_several_lines_stays_whole():
    """A message with a raw line break is no JSON, and is shown as what was sent."""
    assert read(status('{"type":\n"progress"}') + WELL) == ['{"type":\n"progress"}']


def test_nothing_is_read_after_the_end():
    assert read(status(RESULT) + WELL + "INSTRUMENTATION_RESULT: shortMsg=x\nINSTRUMENTATION_CODE: 0\n") == [RESULT]


@pytest.mark.parametrize(
    "text", [MISSING + FAILED + TRACE, FAILED + MISSING, FAILED + TRACE, TRACE.partition(": ")[2], MISSING]
)
def test_an_app_that_is_not_there(text):
    assert missing(text) == "the app dev.edgesdk.runner is not installed (adb install APK)"


def test_an_app_that_is_not_there_as_the_sdk_says_it():
    def raw():
        yield from (MISSING + FAILED).encode().split(b"\n")
        raise BrokenStreamError("it ended with exit code 1 and said no reason.")

    with pytest.raises(MissingDependencyError) as caught:
        list(conversation(lines(raw()), "adb://R5", "onnxruntime", str, "Install the app: see android/README.md"))
    assert str(caught.value) == (
        "device 'adb://R5': the runtime 'onnxruntime' cannot be imported there: the app dev.edgesdk.runner is not "
        "installed (adb install APK). Install the app: see android/README.md"
    )


def test_an_app_that_the_system_refuses():
    text = (
        "INSTRUMENTATION_STATUS: Error=Permission Denial: starting instrumentation ComponentInfo{x} from pid=1, uid=2 "
        "not allowed because package dev.edgesdk.runner does not have a signature matching the target x\n"
        "INSTRUMENTATION_STATUS: id=ActivityManagerService\nINSTRUMENTATION_STATUS_CODE: -1\n"
    )
    found = broken(text)
    assert found.startswith("the system does not start it: Permission Denial: starting instrumentation")
    assert found.endswith("does not have a signature matching the target x.")


def test_a_system_that_goes_down():
    assert broken(status(HELLO) + "INSTRUMENTATION_ABORTED: System has crashed.\n") == (
        "the device's system went down: INSTRUMENTATION_ABORTED: System has crashed."
    )


def test_a_crash_is_told():
    crash = "INSTRUMENTATION_RESULT: shortMsg=Process crashed.\nINSTRUMENTATION_CODE: 0\n"
    assert broken(status(HELLO) + crash) == "the app crashed: Process crashed. See adb logcat."


def test_a_crash_with_its_reason():
    crash = (
        "INSTRUMENTATION_RESULT: longMsg=java.lang.OutOfMemoryError: Failed to allocate a 16 byte allocation\n"
        "  with 8 free bytes\n"
        "INSTRUMENTATION_RESULT: shortMsg=java.lang.OutOfMemoryError\n"
        "INSTRUMENTATION_CODE: 0\n"
    )
    assert broken(crash) == (
        "the app crashed: java.lang.OutOfMemoryError: Failed to allocate a 16 byte allocation with 8 free bytes. See "
        "adb logcat."
    )


def test_a_crash_keeps_what_came_before_it():
    text = (
        status(HELLO) + status(PROGRESS) + "INSTRUMENTATION_RESULT: shortMsg=Process crashed.\nINSTRUMENTATION_CODE: 0"
    )
    answer = conversation(lines(text.encode().split(b"\n")), "adb://R5", "onnxruntime", str)
    assert [next(answer).type, next(answer).type] == ["hello", "progress"]
    with pytest.raises(DeviceError) as caught:
        next(answer)
    assert str(caught.value) == (
        "device 'adb://R5': the onnxruntime runner failed at step 'load': the app crashed: Process crashed. See adb "
        "logcat."
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "INSTRUMENTATION_CODE: 0\n",
            "its instrumentation ended with code 0 and said no reason; expected -1. See adb lo",
        ),
        (status(HELLO, code=-2), "it sent a message with the status code -2; expected 1."),
        (status(HELLO), "'am instrument' ended before the instrumentation did."),
        ("", "'am instrument' ended before the instrumentation did."),
        ("INSTRUMENTATION_CODE: 99999999999999999999\n", "'am instrument' ended before the instrumentation did."),
    ],
)
def test_ends_that_are_not_well(text, message):
    assert broken(text).startswith(message)


def test_a_broken_channel_is_told_as_it_is():
    def raw():
        yield b"INSTRUMENTATION_STATUS: edge_sdk={}"
        raise BrokenStreamError("it said nothing for 120 s, and was stopped.")

    with pytest.raises(BrokenStreamError, match="it said nothing for 120 s"):
        list(lines(raw()))


def test_hostile_text_is_made_harmless():
    text = "INSTRUMENTATION_RESULT: shortMsg=\x1b[2J\x1b]0;owned\x07" + "x" * 10**6 + "\nINSTRUMENTATION_CODE: 0\n"
    found = broken(text)
    assert "\x1b" not in found and "\x07" not in found and len(found) < 1000


def test_a_message_without_end_is_stopped():
    def raw():
        yield b"INSTRUMENTATION_STATUS: edge_sdk={"
        while True:
            yield b"x" * 10**5

    with pytest.raises(BrokenStreamError, match="it sent a message longer than 1048576 bytes, and was stopped"):
        list(lines(raw()))


def test_keys_without_end_take_no_memory():
    text = "".join(f"INSTRUMENTATION_STATUS: key{index}=x\n" for index in range(10**4))
    assert read(text + "INSTRUMENTATION_STATUS_CODE: 1\n" + status(RESULT) + WELL) == [RESULT]


def test_a_key_that_comes_twice():
    text = f"INSTRUMENTATION_STATUS: edge_sdk={HELLO}\nINSTRUMENTATION_STATUS: edge_sdk={RESULT}\nmore\n"
    assert read(text + "INSTRUMENTATION_STATUS_CODE: 1\n" + WELL) == [HELLO]
