"""Android's ``am instrument``: how the runner's app is started, and the protocol's lines in what ``am`` prints.

A message comes as the value of the status key ``edge_sdk``. What ``am`` prints with ``-r``:

```
INSTRUMENTATION_STATUS: KEY=VALUE      each key of a status, sorted; a value may go over several lines
INSTRUMENTATION_STATUS_CODE: 1         ends the status
INSTRUMENTATION_RESULT: KEY=VALUE      each key of the end result
INSTRUMENTATION_CODE: -1               the end; -1 (Activity.RESULT_OK) is well
```

Source: AOSP, cmds/am/src/com/android/commands/am/Instrument.java (TextStatusReporter); services/core,
ActivityManagerService (startInstrumentation's failures; ``shortMsg`` and ``longMsg`` of a crash, with code 0).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator

from edge_sdk.devices._protocol import BrokenStreamError, plain

PACKAGE = "dev.edgesdk.runner"
INSTRUMENTATION = f"{PACKAGE}/.RunnerInstrumentation"
KEY = "edge_sdk"

_FIELD = re.compile(rb"INSTRUMENTATION_(STATUS|RESULT): ([^=]{1,200})=(.*)", re.DOTALL)
_CODE = re.compile(rb"INSTRUMENTATION_(STATUS_CODE|CODE): (-?\d{1,10})")
_FAILED = b"INSTRUMENTATION_FAILED: "
_ABORTED = b"INSTRUMENTATION_ABORTED: "
_ON_ERROR = b"onError: commandError="
_NOT_INSTALLED = ("Unable to find instrumentation info for", "Unable to find instrumentation target package")
_STARTED, _WELL = 1, -1
_MOST_MESSAGE = 1 << 20
_MOST_TEXT = 4096
"""Of every value but the messages, the rest is dropped."""
_SHOWN = 400


def command(runtime: str, request_path: str) -> list[str]:
    """The command line, as words, that runs a request by the app.

    Args:
        runtime: Which of the app's runtimes.
        request_path: The request's path on the device.
    """
    return ["am", "instrument", "-w", "-r", "-e", "runtime", runtime, "-e", "request", request_path, INSTRUMENTATION]


def lines(raw: Iterable[bytes]) -> Iterator[bytes]:
    """The protocol's lines in the output of ``am instrument -w -r``.

    Where the app is not there, the one line is an ``error`` of the kind ``missing_runtime``, as a
    runner without its runtime sends it. After an end that went well nothing is read any more.

    Args:
        raw: The output line by line, with or without the carriage return of a terminal.

    Raises:
        BrokenStreamError: The app crashed, was refused by the system, or ended otherwise than well.
    """
    status, result = _Fields(), _Fields()
    last: _Fields | None = None
    failure = ""
    try:
        for line in raw:
            line = line.removesuffix(b"\r")
            if field := _FIELD.fullmatch(line):
                last = status if field[1] == b"STATUS" else result
                last.add(field[2], field[3])
            elif code := _CODE.fullmatch(line):
                last = None
                if code[1] == b"CODE":
                    _end(int(code[2]), result)
                    return
                yield from _message(int(code[2]), status)
                failure = status.text("Error") or failure
                status.clear()
            elif line.startswith((_FAILED, _ABORTED, _ON_ERROR)):
                # am prints the system's reason in a thread of its own, before or after this line.
                last = None
                failure = failure or _text(line)
            elif last is not None:
                last.go_on(line)
    except BrokenStreamError as error:
        # am's own exit code follows a failure whose reason was just read.
        if not failure:
            raise
        yield _failed(failure, error)
        return
    if failure:
        yield _failed(failure)
        return
    raise BrokenStreamError("'am instrument' ended before the instrumentation did.")


class _Fields:
    """The keys and values of a status or a result. Only messages are kept whole."""

    def __init__(self) -> None:
        self._values: dict[bytes, bytearray] = {}
        self._open: bytes | None = None

    def add(self, key: bytes, value: bytes) -> None:
        """A key and the first line of its value; of a key that comes twice the first value stays."""
        self._open = key if key not in self._values else None
        if self._open is not None and len(self._values) < 100:
            self._values[key] = bytearray()
            self._append(value)

    def go_on(self, line: bytes) -> None:
        """A further line of the last value."""
        self._append(b"\n" + line)

    def get(self, key: str) -> bytes | None:
        """A value, None where the key is not there."""
        value = self._values.get(key.encode())
        return None if value is None else bytes(value)

    def text(self, key: str) -> str:
        """A value as one line to show; empty where the key is not there."""
        return _text(self.get(key) or b"")

    def clear(self) -> None:
        """Forgets all."""
        self._values.clear()
        self._open = None

    def _append(self, data: bytes) -> None:
        value = self._values.get(self._open) if self._open is not None else None
        if value is None:
            return
        if self._open != KEY.encode():
            value += data[: max(0, _MOST_TEXT - len(value))]
            return
        value += data
        if len(value) > _MOST_MESSAGE:
            raise BrokenStreamError(f"it sent a message longer than {_MOST_MESSAGE} bytes, and was stopped.")


def _message(code: int, status: _Fields) -> Iterator[bytes]:
    message = status.get(KEY)
    if message is None:
        return
    if code != _STARTED:
        raise BrokenStreamError(f"it sent a message with the status code {code}; expected {_STARTED}.")
    yield message


def _end(code: int, result: _Fields) -> None:
    if code == _WELL:
        return
    short, long = result.text("shortMsg"), result.text("longMsg")
    if not short and not long:
        raise BrokenStreamError(
            f"its instrumentation ended with code {code} and said no reason; expected {_WELL}. See adb logcat."
        )
    said = short if not long or long == short else f"{short}: {long}" if short not in long else long
    raise BrokenStreamError(f"the app crashed: {said.rstrip('.')}. See adb logcat.")


def _failed(reason: str, error: BrokenStreamError | None = None) -> bytes:
    """The line for an instrumentation that never started."""
    if any(words in reason for words in _NOT_INSTALLED) or _FAILED.decode() in reason:
        message = f"the app {PACKAGE} is not installed (adb install APK)"
        return json.dumps(
            {"type": "error", "stage": "start", "kind": "missing_runtime", "message": message}, separators=(",", ":")
        ).encode()
    if reason.startswith(_ABORTED.decode()):
        raise BrokenStreamError(f"the device's system went down: {reason.rstrip('.')}.") from error
    raise BrokenStreamError(f"the system does not start it: {reason.rstrip('.')}.") from error


def _text(value: bytes) -> str:
    return " ".join(plain(value[:_MOST_TEXT].decode(errors="replace")).split())[:_SHOWN]
