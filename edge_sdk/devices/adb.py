"""Android devices reached by adb, through the genuine adb server."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from time import monotonic, sleep
from typing import Any, ClassVar

from edge_sdk.devices import _instrument, _watch
from edge_sdk.devices._link import Link, quoted
from edge_sdk.devices._protocol import plain
from edge_sdk.devices._remote import RemoteDevice
from edge_sdk.errors import DeviceError, LinkLostError
from edge_sdk.schema.messages import Message
from edge_sdk.schema.reading import Reading
from edge_sdk.schema.report import ReportDevice
from edge_sdk.schema.request import RunRequest

_SERIAL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:\[\]%-]{0,99}")
_CALL_S = 30.0
_SETTLE_S, _LOOK_S = 3.0, 0.05
_QUIET: dict[str, Any] = {"stdin": subprocess.DEVNULL, "capture_output": True, "timeout": _CALL_S}
_STATES = {
    "unauthorized": "it has not allowed this computer: unlock it and accept 'Allow USB debugging'",
    "offline": "it is offline: unplug it and plug it in again, or run: adb reconnect offline",
    "no permissions": "this account may not open its USB port; adb's udev rules mend that (Debian: the package "
    "android-sdk-platform-tools-common)",
    "authorizing": "it is still asking for permission: unlock it and accept 'Allow USB debugging'",
}

_REFUSED = {
    "unauthorized": "unauthorized",
    "no permissions": "device (still )?no permissions|insufficient permissions",
    "authorizing": "authorizing",
}
"""State to what adb says of it when a command cannot be run; no further try mends these."""


@dataclass(frozen=True)
class Attached:
    """A line of ``adb devices -l``: serial, state (``device`` is well), and what is wrong with any other state."""

    serial: str
    state: str

    @property
    def problem(self) -> str | None:
        """What is wrong and what to do, None where it is ready."""
        if self.state == "device":
            return None
        return next(
            (words for state, words in _STATES.items() if self.state.startswith(state)), f"adb calls it {self.state}"
        )


class AdbLink(Link):
    """Commands by ``adb shell``.

    Args:
        uri: ``adb://[serial]``; without a serial the only device that is attached. A serial of the form
            ``host:port`` is connected to first.

    Raises:
        DeviceError: There is no such device, or it is not ready.
        MissingDependencyError: There is no ``adb`` here.
    """

    client: ClassVar[str] = "adb"
    package: ClassVar[str] = "Android's platform tools (Debian: adb)"

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        serial = uri.removeprefix("adb://").rstrip("/")
        if serial and not _SERIAL.fullmatch(serial):
            raise DeviceError(f"device '{plain(uri)[:200]}' is no URI of that kind; expected adb://[serial].")
        self._is_network = bool(re.search(r":\d+$", serial))
        self._serial = serial or self._only()
        if serial:
            self._find()

    def command(self, script: str) -> list[str]:
        """``adb -s SERIAL shell SCRIPT``."""
        return [self._client, "-s", self._serial, "shell", script]

    def refusal(self, words: str) -> DeviceError | None:
        """What adb says of a device that does not let us in, with what mends it."""
        text = plain(words)
        for state, pattern in _REFUSED.items():
            if re.search(pattern, text):
                return DeviceError(f"device '{self.uri}': {_STATES[state]}.")
        if "more than one device" in text or "cannot connect to daemon" in text or "failed to start daemon" in text:
            return DeviceError(f"device '{self.uri}': adb says: {' '.join(text.split())[:300]}.")
        return None

    def open(self) -> None:
        """Connects again to a device that is reached by network; a USB device comes back by itself."""
        one = self._state() if self._is_network else None
        if self._is_network and (one is None or one.problem):
            self._connect()

    def _only(self) -> str:
        found = attached()
        ready = [one for one in found if one.problem is None]
        if len(ready) == 1:
            return ready[0].serial
        if not found:
            raise DeviceError(
                f"device '{self.uri}': no Android device is attached. Plug one in with USB debugging on, or connect by "
                "network: adb connect HOST:PORT."
            )
        lines = "; ".join(f"{one.serial}: {one.problem or 'ready'}" for one in found)
        hint = "Name one: adb://SERIAL." if len(ready) > 1 else ""
        raise DeviceError(
            f"device '{self.uri}': {len(ready)} of {len(found)} attached are ready: {lines}. {hint}".rstrip()
        )

    def _find(self) -> None:
        """Checks that the device is attached and ready; connects to one that is reached by network."""
        one, said = self._state(), ""
        if self._is_network and (one is None or one.state in ("offline", "connecting")):
            said = self._connect()
            deadline = monotonic() + _SETTLE_S
            # For a moment every device is one that has not allowed this computer yet.
            while (one := self._state()) is not None and one.problem and monotonic() < deadline:
                sleep(_LOOK_S)
        if one is None:
            known = ", ".join(sorted(other.serial for other in attached())) or "none"
            why = f"adb connect says: {' '.join(plain(said).split())[:200]}" if said else f"attached: {known}"
            raise DeviceError(f"device '{self.uri}' is not attached ({why}). See 'edge-sdk devices'.")
        if one.problem:
            raise DeviceError(f"device '{self.uri}': {one.problem}.")

    def _state(self) -> Attached | None:
        return next((one for one in attached() if one.serial == self._serial), None)

    def _connect(self) -> str:
        """What ``adb connect`` says; its exit code tells nothing, as adb 29 ends with 0 when it fails.

        A connection that adb still keeps for an offline device is closed first.
        """
        _adb(self._client, self.uri, "disconnect", self._serial)
        return _adb(self._client, self.uri, "connect", self._serial)


class AdbDevice(RemoteDevice):
    """An Android device. Runners are the app's instrumentation, or a native program of the user's.

    Args:
        uri: ``adb://[serial]``.
    """

    scheme = "adb"
    home = "${TMPDIR:-/data/local/tmp}/edge-sdk"
    about = """\
say manufacturer getprop ro.product.manufacturer
say model getprop ro.product.model
say soc-maker getprop ro.soc.manufacturer
say soc getprop ro.soc.model
say platform getprop ro.board.platform
say release getprop ro.build.version.release
say api getprop ro.build.version.sdk
say abi getprop ro.product.cpu.abi
say meminfo cat /proc/meminfo
printf '\\n@@ external\\n%s\\n' "${EXTERNAL_STORAGE:-/sdcard}"
"""

    def __init__(self, uri: str, **options) -> None:
        super().__init__(AdbLink(uri), **options)

    def describe(self) -> ReportDevice:
        """Model, SoC, Android version and ABI, from the system's properties."""
        return android_device(self.uri, self.facts)

    def scratch(self, name: str) -> str:
        """A path for a file that the runner writes; the app may only write to a folder of its own."""
        if self._native is not None:
            return super().scratch(name)
        self._used = True
        return f"{self._outputs}/{name}"

    def _run_packaged(self, runtime: str, request: RunRequest) -> Generator[Message, None, None]:
        """Runs a request by the app; see android/README.md."""
        words = _instrument.command(runtime, f"{self._base}/runs/{self._session}/request.json")
        yield from self._converse(runtime, f"exec {quoted(*words)}", request, _instrument.lines)

    def _monitor(self, period_s: float, count: int) -> tuple[str, Callable[[Iterable[bytes]], Iterator[Reading]]]:
        """By Android's own programs."""
        return _watch.android_script(period_s, count), _watch.android_readings

    @property
    def _clean_up(self) -> str:
        stop = f"am force-stop {_instrument.PACKAGE} 2>/dev/null"
        return f"{stop}\nrm -rf {quoted(self._outputs)}" if self._native is None else ""

    @property
    def _sweep(self) -> str:
        folder = quoted(self._outputs.rpartition("/")[0])
        return (
            f"{super()._sweep}\nfor d in {folder}/*; do\n"
            f'  [ "${{d##*/}}" = {self._session} ] || [ ! -d "$d" ] || rm -rf "$d"\ndone'
        )

    @property
    def _outputs(self) -> str:
        external = self.facts.get("external", "")
        if not re.fullmatch(r"/[\w./@+-]{1,200}", external) or ".." in external:
            raise DeviceError(f"device '{self.uri}': it names no storage that apps can write to.")
        return f"{external}/Android/data/{_instrument.PACKAGE}/files/edge-sdk/{self._session}"

    @property
    def _advice(self) -> str:
        return "Install the runner's app: see android/README.md"


def android_device(uri: str, facts: Mapping[str, str]) -> ReportDevice:
    """An Android device's description from its facts."""

    def fact(name: str) -> str:
        return " ".join(facts.get(name, "").split())[:100]

    model = " ".join(filter(None, (fact("manufacturer"), fact("model"))))
    soc = " ".join(filter(None, (fact("soc-maker"), fact("soc")))) or fact("platform")
    release = f"Android {fact('release')}" + (f" (API {fact('api')})" if fact("api") else "")
    return ReportDevice(
        uri=uri,
        model=model or "unknown",
        soc=soc or "unknown",
        os=release if fact("release") else "Android",
        abi=fact("abi") or "unknown",
    )


def attached() -> list[Attached]:
    """What ``adb devices`` lists.

    Raises:
        DeviceError: adb fails.
        MissingDependencyError: There is no adb here.
    """
    client = AdbLink.program()
    found = []
    for line in plain(_adb(client, "adb://", "devices")).splitlines():
        serial, _, state = line.partition("\t")
        if state and _SERIAL.fullmatch(serial):
            found.append(Attached(serial, state.strip()[:60]))
    return found


def _adb(client: str, uri: str, *words: str) -> str:
    """What adb prints for a command to its server, with what it prints on standard error."""
    try:
        done = subprocess.run([client, *words], **_QUIET)
    except subprocess.TimeoutExpired:
        raise LinkLostError(f"device '{uri}': 'adb {words[0]}' did not answer within {_CALL_S:g} s") from None
    text = (done.stdout + done.stderr).decode(errors="replace")
    if done.returncode and words[0] not in ("connect", "disconnect"):
        raise DeviceError(f"device '{uri}': 'adb {' '.join(words)}' failed: {' '.join(plain(text).split())[:300]}")
    return text
