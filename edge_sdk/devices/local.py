"""This machine as a device."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import TextIO

from edge_sdk._files import storage_error, write_atomic
from edge_sdk._paths import cache_dir, data_dir
from edge_sdk.devices import _facts, _watch
from edge_sdk.devices._process import Child, Limits
from edge_sdk.devices._protocol import BrokenStreamError, conversation, plain
from edge_sdk.devices.base import Device
from edge_sdk.devices.session import SESSION, Session, endless
from edge_sdk.errors import DeviceError, unknown_name
from edge_sdk.schema.messages import Message
from edge_sdk.schema.reading import Reading
from edge_sdk.schema.report import ReportDevice
from edge_sdk.schema.request import RunRequest

# Variables that change how fast a runtime is (OMP_NUM_THREADS and its like) stay outside.
_KEPT = re.compile(
    "PATH|HOME|USER|LANG|LC_.*|TZ|TMPDIR|PYTHONPATH|PYTHONHOME|VIRTUAL_ENV|LD_LIBRARY_PATH|DYLD_.*|CUDA_.*"
)
_LOCK_POLL_S = 0.1


class LocalDevice(Device):
    """The machine that the SDK runs on. Nothing is copied; the runner is a process of its own.

    Args:
        uri: ``local``.
        runtimes_dir: Where ``NAME/runner.py`` lies, None for those of the SDK.
        python: The interpreter that runs the runners, None for this one.
        limits: What a runner may do before it is stopped.
        lock_wait_s: How long to wait for another measurement to end.
    """

    scheme = "local"

    def __init__(
        self,
        uri: str = "local",
        *,
        runtimes_dir: Path | None = None,
        python: str | None = None,
        limits: Limits | None = None,
        lock_wait_s: float = 3.0,
    ) -> None:
        if uri != "local":
            raise DeviceError(f"device '{uri}' is not known; this machine is called 'local'.")
        self.uri = uri
        self._runtimes = runtimes_dir or data_dir("runtimes")
        self._python = python or sys.executable
        self._limits = limits or Limits()
        self._lock_wait_s = lock_wait_s
        self._scratch: Path | None = None

    def describe(self) -> ReportDevice:
        """Model, SoC, operating system and ABI of this machine."""
        model = _read("/proc/device-tree/model") or _read("/sys/class/dmi/id/product_name")
        return ReportDevice(
            uri=self.uri,
            model=model or platform.machine(),
            soc=_facts.processor(_read("/proc/cpuinfo"), _lines("/proc/device-tree/compatible"))
            or platform.processor()
            or "unknown",
            os=_distribution() or platform.platform(),
            abi=_facts.abi(platform.machine()),
        )

    @property
    def facts(self) -> dict[str, str]:  # type: ignore[override]
        """Size of memory, free space, and whether there is an NVIDIA GPU; the rest is in `describe`."""
        free = shutil.disk_usage(tempfile.gettempdir())
        return {
            "meminfo": _lines("/proc/meminfo"),
            "space": f"- {free.total >> 10} {free.used >> 10} {free.free >> 10} 0%",
            "gpu": "NVIDIA" if Path("/proc/driver/nvidia/version").exists() else "",
        }

    def push(self, path: Path) -> str:
        """The path itself."""
        return str(path.resolve())

    def run(self, runtime: str, request: RunRequest) -> Generator[Message, None, None]:
        """Runs a request in a process of its own; see `Device.run`."""
        with Child(self._command(runtime, request), _environment(), self._limits) as child:
            yield from conversation(child.lines(), self.uri, runtime, child.tail)

    @contextmanager
    def session(self, runtime: str, request: RunRequest) -> Iterator[Session]:
        """Starts a runner that answers calls; see `Device.session`."""
        command = self._command(runtime, request, SESSION)
        with Child(command, _environment(), endless(self._limits), stdin=True) as child:
            session = Session(self.uri, child, conversation(child.lines(), self.uri, runtime, child.tail, session=True))
            yield session
            session.close()

    def _command(self, runtime: str, request: RunRequest, *words: str) -> list[str]:
        """The runner's command line; the request is written to a file."""
        runner = self._runner(runtime)
        path = Path(self.scratch("request.json"))
        write_atomic(path, request.model_dump_json())
        return [self._python, "-X", "faulthandler", str(runner), *words, str(path)]

    def watch(self, period_s: float = 1.0, count: int = 0) -> Generator[Reading, None, None]:
        """What this machine is doing; see `Device.watch`."""
        program = str(self._runtimes / _watch.PROGRAM)
        command = [self._python, program, f"{period_s:g}", str(count)]
        with Child(command, _environment(), _watch.limits(period_s)) as child:
            try:
                yield from _watch.readings(child.lines())
            except BrokenStreamError as error:
                raise _watch.failed(self.uri, error, child.tail()) from error

    def scratch(self, name: str) -> str:
        """A path in a temporary folder that ``close`` removes."""
        if self._scratch is None:
            self._scratch = Path(tempfile.mkdtemp(prefix="edge-sdk-"))
        return str(self._scratch / name)

    def pull(self, remote: str, local: Path) -> None:
        """Copies a file that the runner wrote."""
        try:
            shutil.copyfile(remote, local)
        except FileNotFoundError as error:
            raise DeviceError(f"device '{self.uri}': the runner did not write {remote}.") from error
        except OSError as error:
            raise storage_error(local, error) from error

    @contextmanager
    def lock(self, owner: str) -> Iterator[None]:
        """Holds this machine for one measurement at a time, across processes of this user."""
        import fcntl

        path = _lock_path()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = open(path, "a+", encoding="utf-8")
        except OSError as error:
            raise storage_error(path, error) from error
        with file:
            deadline = monotonic() + self._lock_wait_s
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if monotonic() >= deadline:
                        raise DeviceError(self._held_by(file)) from None
                    sleep(_LOCK_POLL_S)
            file.truncate(0)
            file.write(f"{owner}, process {os.getpid()}")
            file.flush()
            yield

    def held_by(self) -> str | None:
        """Who measures on this machine now; see `Device.held_by`."""
        import fcntl

        try:
            with open(_lock_path(), encoding="utf-8") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    return plain(file.read(200)).strip() or "another process"
        except FileNotFoundError:
            pass  # nobody has ever measured here
        return None

    def close(self) -> None:
        """Removes the temporary folder."""
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)
            self._scratch = None

    def _held_by(self, file: TextIO) -> str:
        file.seek(0)
        holder = plain(file.read(200)).strip() or "another process"
        return (
            f"device '{self.uri}' is being measured by {holder}; two measurements at once would disturb each other. "
            "Wait until it ends."
        )

    def _runner(self, runtime: str) -> Path:
        known = sorted(path.parent.name for path in self._runtimes.glob("*/runner.py"))
        if runtime not in known:
            raise DeviceError(f"device '{self.uri}': " + unknown_name("runner", runtime, known))
        return self._runtimes / runtime / "runner.py"


def _lock_path() -> Path:
    return cache_dir() / "locks" / "local"


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if _KEPT.fullmatch(name)}


def _read(path: str) -> str:
    return plain(_lines(path)).strip()


def _lines(path: str) -> str:
    """The start of a file, as lines where it holds a list of words that end with a zero; empty where there is none."""
    try:
        with open(path, "rb") as file:
            return file.read(8192).replace(b"\0", b"\n").decode(errors="replace")
    except OSError:
        return ""


def _distribution() -> str:
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return ""
    return f"{release.get('PRETTY_NAME', release.get('NAME', 'Linux'))}, {platform.system()} {platform.release()}"
