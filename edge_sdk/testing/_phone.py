"""A phone that is not there: the genuine adb server connects to it and finds an Android device."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import uuid
from contextlib import suppress
from pathlib import Path

from edge_sdk._paths import data_dir
from edge_sdk.testing import _adb_shell, _adb_sync, _phone_programs, _ports, _processes
from edge_sdk.testing._adb_auth import Doorkeeper
from edge_sdk.testing._adb_wire import Link, Stream
from edge_sdk.testing._faults import Fault, FaultBook
from edge_sdk.testing._phone_state import Battery, Saved, SavedSet, Thermal, properties
from edge_sdk.testing._processes import Process

_FEATURES = "shell_v2,stat_v2,ls_v2,fixed_push_mkdir,fixed_push_symlink_timestamp"
_LOOK_S = 0.05
_FAULTS = Path(__file__).with_name("_faults.py")


class Phone:
    """A phone in a folder, reached by ``adb connect 127.0.0.1:PORT``. A context manager.

    ``FOLDER/data`` and ``FOLDER/sdcard`` are its storage; commands of ``adb shell`` run on this machine with
    ``TMPDIR`` and ``EXTERNAL_STORAGE`` set to ``FOLDER/data/local/tmp`` and ``FOLDER/sdcard``.

    Args:
        folder: The root of its file system; made where it is missing.
        model: Its ``ro.product.model``.
        soc: Its ``ro.soc.model``.
        authorized: Whether its user allows computers that it does not know.
        python: Runs the runners of the app's instrumentation.
        runtimes: Holds ``NAME/runner.py`` for the app's instrumentation; the SDK's own by default.
    """

    host = _ports.HOST

    def __init__(
        self,
        folder: Path,
        *,
        model: str = "SM-S926B",
        soc: str = "s5e9945",
        authorized: bool = True,
        python: str = sys.executable,
        runtimes: Path | None = None,
    ) -> None:
        self.folder = folder = Path(folder).absolute()
        self.tmp = folder / "data/local/tmp"
        self.sdcard = folder / "sdcard"
        state = folder / "state"
        for path in (self.tmp, self.sdcard, folder / "data/misc/adb", state):
            path.mkdir(parents=True, exist_ok=True)
        self.port = 0
        self.props: Saved = properties(state / "props", _properties(model, soc))
        self.battery = Battery(state / "battery.txt")
        self.thermal = Thermal(state / "thermal.txt")
        self.installed = SavedSet([_phone_programs.RUNNER], state / "installed.txt")
        self.logcat = state / "logcat.txt"
        _phone_programs.install(folder / "system/bin", state, python, runtimes or data_dir("runtimes"))
        self._token = uuid.uuid4().hex
        self._python = python
        self._faults = FaultBook(state / "faults")
        self._door = Doorkeeper(folder / "data/misc/adb/adb_keys", authorized)
        self._awake = threading.Event()
        self._awake.set()
        self._commands: list[subprocess.Popen[bytes]] = []
        self._links: dict[Link, threading.Thread] = {}
        self._lock = threading.Lock()
        self._listens = threading.Event()
        self._is_closed = False

    @property
    def serial(self) -> str:
        """What adb calls it."""
        return f"{self.host}:{self.port}"

    @property
    def uri(self) -> str:
        """What Edge SDK calls it."""
        return f"adb://{self.serial}"

    def __enter__(self) -> Phone:
        self._socket = _ports.bound()
        self.port = self._socket.getsockname()[1]
        self._acceptor = threading.Thread(target=self._accept, name="edge-sdk-phone", daemon=True)
        self.online()
        self._acceptor.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_closed = True
        self._awake.set()
        self._hang_up()
        self._listens.set()
        self._acceptor.join()
        self._socket.close()
        self._drop_links()
        # Each service ends with the process that it waits for; the last ones may just be starting theirs.
        while threads := list(self._links.values()):
            for process in self._commands:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            _processes.end(self._token)
            threads[0].join(_LOOK_S)
        _processes.end(self._token)

    def fault(self, kind: str, on: str | None = None, *, times: int = 1, **options: int | float | str) -> Fault:
        """Lets the next command fail whose script the expression ``on`` finds, once or ``times`` times.

        A push or pull of ``adb push`` and ``adb pull`` has the script ``push PATH`` or ``pull PATH``.

        Args:
            kind: One of `edge_sdk.testing.KINDS`, which also names the options.
            on: A regular expression; None is any command.
            times: How many commands it meets.
            options: The kind's own.

        Raises:
            ValueError: The kind, an option or the expression is none.
        """
        return self._faults.add(kind, on, times, options)

    def clear_faults(self) -> None:
        """Takes back all faults that have not met their command."""
        self._faults.clear()

    def unauthorized(self) -> None:
        """The user revokes all keys and allows none; connections drop. adb then shows ``unauthorized``."""
        self._door.refuse()
        self._drop_links()

    def authorize(self) -> None:
        """The user allows the computer that asks, and any that will."""
        self._door.allow()

    def offline(self, *, silent: bool = False) -> None:
        """The phone goes out of reach.

        Args:
            silent: Its connections stay and new ones are taken, but nothing is answered. Otherwise they drop
                and new ones are refused, and adb shows ``offline`` until it gives up.
        """
        if silent:
            self._awake.clear()
            return
        self._listens.clear()
        self._hang_up()
        self._drop_links()
        self._awake.set()

    def online(self) -> None:
        """The phone is back. adb tries by itself every ten seconds, ``adb connect`` at once."""
        self._awake.set()
        if not self._listens.is_set():
            self._socket.listen(16)
            self._listens.set()

    def charge(self, is_charging: bool = True) -> None:
        """Plugs the charger in, or out."""
        if is_charging:
            self.battery.set(status="charging", plugged="usb", current_now=abs(self.battery.current_now))
        else:
            self.battery.set(status="discharging", plugged=None, current_now=-abs(self.battery.current_now))

    def throttle(self, is_hot: bool = True) -> None:
        """Heats the phone until it throttles severely, or cools it."""
        warm = {"AP": 78.0, "BAT": 43.0, "SKIN": 46.0} if is_hot else {"AP": 36.1, "BAT": 30.0, "SKIN": 31.4}
        self.thermal.set(status=3 if is_hot else 0, temperatures={**self.thermal.temperatures, **warm})

    def processes(self) -> list[Process]:
        """What the commands of this phone have left running."""
        return _processes.marked(self._token)

    def _environment(self) -> dict[str, str]:
        path = os.environ.get("PATH", os.defpath)
        return {
            "PATH": f"{self.folder / 'system/bin'}{os.pathsep}{path}",
            "TMPDIR": str(self.tmp),
            "EXTERNAL_STORAGE": str(self.sdcard),
            "ANDROID_DATA": str(self.folder / "data"),
            "ANDROID_ROOT": str(self.folder / "system"),
            "HOME": str(self.folder),
            "HOSTNAME": str(self.props.get("ro.product.device", "android")),
            "LOGNAME": "shell",
            "SHELL": "/bin/sh",
            "TERM": "dumb",
            "USER": "shell",
            _processes.MARK: self._token,
        }

    def _launch(self, script: str, stderr: int) -> subprocess.Popen[bytes]:
        command = ["/bin/sh", "-c", script] if script else ["/bin/sh"]
        if script and self._faults.is_armed:
            command = [self._python, "-I", "-S", str(_FAULTS), str(self._faults.folder), script]
        process = subprocess.Popen(
            command,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            cwd=self.folder,
            env=self._environment(),
            start_new_session=True,
        )
        self._commands = [*(one for one in self._commands if one.returncode is None), process]
        return process

    def _serve(self, stream: Stream, service: str) -> None:
        name = service.partition(":")[0].partition(",")[0]
        if name in ("shell", "exec"):
            _adb_shell.serve(stream, service, self._launch)
        elif service == "sync:":
            _adb_sync.serve(stream, self.folder, self._faults)
        elif name in ("root", "remount"):
            stream.write(b"adbd cannot run as root in production builds\n")
        # Any other service is not there: the stream closes.

    def _accept(self) -> None:
        while not self._is_closed:
            self._listens.wait()
            try:
                sock, _ = self._socket.accept()
            except OSError:
                continue  # hung up, for a while or for good
            link = Link(sock, self._awake, self._banner(), self._door.admit, self._serve)
            thread = threading.Thread(target=self._converse, args=(link,), name="edge-sdk-phone-link", daemon=True)
            with self._lock:
                self._links[link] = thread
                if self._is_closed or not self._listens.is_set():
                    link.drop()
            thread.start()

    def _converse(self, link: Link) -> None:
        try:
            link.run()
        finally:
            self._door.forget(link)
            with self._lock:
                self._links.pop(link, None)

    def _hang_up(self) -> None:
        # A socket that listened keeps its port after this, and may listen again.
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def _drop_links(self) -> None:
        with self._lock:
            for link in self._links:
                link.drop()

    def _banner(self) -> bytes:
        names = ("ro.product.name", "ro.product.model", "ro.product.device")
        facts = "".join(f"{name}={self.props.get(name, '')};" for name in names)
        return f"device::{facts}features={_FEATURES}".encode()


def _properties(model: str, soc: str) -> dict[str, str]:
    return {
        "ro.board.platform": soc,
        "ro.build.fingerprint": f"samsung/e2sxeea/e2s:14/UP1A.231005.007/{model}XXU1AXB7:user/release-keys",
        "ro.build.version.release": "14",
        "ro.build.version.sdk": "34",
        "ro.hardware": soc,
        "ro.product.brand": "samsung",
        "ro.product.cpu.abi": "arm64-v8a",
        "ro.product.cpu.abilist": "arm64-v8a",
        "ro.product.device": "e2s",
        "ro.product.manufacturer": "samsung",
        "ro.product.model": model,
        "ro.product.name": "e2sxeea",
        "ro.serialno": "R5CX000STANDIN",
        "ro.soc.manufacturer": "Samsung",
        "ro.soc.model": soc,
    }
