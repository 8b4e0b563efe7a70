"""The genuine adb server, on a port of its own and with a key of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from time import monotonic, sleep

from edge_sdk.testing import _ports
from edge_sdk.testing._phone import Phone
from edge_sdk.testing._proxy import LinkProxy

_START_S = 20.0
_CALL_S = 60.0
_ASKING_S = 1.0


class AdbServer:
    """Runs ``adb nodaemon server`` for as long as the block lasts. A context manager.

    Args:
        folder: Holds its key and its log; made where it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder).absolute()
        self.port = 0
        self.client = ""
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def env(self) -> dict[str, str]:
        """What clients need in their environment to reach this server."""
        return {"ANDROID_ADB_SERVER_PORT": str(self.port)}

    def __enter__(self) -> AdbServer:
        self.client = shutil.which("adb") or ""
        if not self.client:
            raise FileNotFoundError("the program 'adb' is not on this machine. Debian: apt-get install adb.")
        (self.folder / "home").mkdir(parents=True, exist_ok=True)
        self.port = _ports.free()
        with open(self.folder / "server.log", "ab") as log:
            self._process = subprocess.Popen(
                [self.client, "-P", str(self.port), "nodaemon", "server"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment(),
                start_new_session=True,
            )
        deadline = monotonic() + _START_S
        while not _ports.is_open(self.port):
            if self._process.poll() is not None or monotonic() > deadline:
                self.__exit__()
                raise RuntimeError(f"the adb server did not start: {self.log()[-500:]}")
            sleep(0.02)
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self.port and _ports.is_open(self.port):  # a client started another one
            self.run("kill-server")

    def run(self, *arguments: str | Path, **options) -> subprocess.CompletedProcess:
        """Runs ``adb ARGUMENTS`` as a client of this server. ``options`` are those of `subprocess.run`."""
        options = {"capture_output": True, "timeout": _CALL_S, "env": self._environment(), **options}
        if "input" not in options:
            options.setdefault("stdin", subprocess.DEVNULL)
        return subprocess.run([self.client, *map(str, arguments)], **options)

    def connect(self, device: Phone | LinkProxy | str) -> str:
        """Connects to a phone, or to the proxy or ``HOST:PORT`` in front of one, and returns its serial.

        Raises:
            ConnectionError: It is not let in; adb's words say why.
        """
        serial = device if isinstance(device, str) else f"{device.host}:{device.port}"
        words = self.run("connect", serial, text=True).stdout
        # adb ends with 0 when it fails: its words tell. That it fails to authenticate it also says of a phone that
        # is just being asked, and allows it in the next moment.
        deadline = monotonic() + (_ASKING_S if "failed to authenticate" in words else 0.0)
        while "connected to" not in words:
            if monotonic() > deadline:
                raise ConnectionError(f"adb connect {serial}: {words.strip()}")
            sleep(0.02)
            if self.run("-s", serial, "get-state", text=True).stdout.strip() == "device":
                break
        return serial

    def log(self) -> str:
        """What the server has said."""
        return (self.folder / "server.log").read_text(errors="replace")

    def _environment(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("ADB_", "ANDROID_"))}
        return kept | self.env | {"HOME": str(self.folder / "home"), "TMPDIR": str(self.folder)}
