"""Devices reached by SSH: Linux boards and machines, through the user's own OpenSSH client."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

from edge_sdk._paths import data_dir
from edge_sdk.devices import _facts, _watch
from edge_sdk.devices._link import Link, quoted
from edge_sdk.devices._protocol import plain
from edge_sdk.devices._remote import RemoteDevice
from edge_sdk.devices.session import SESSION, Session
from edge_sdk.errors import DeviceError, unknown_name
from edge_sdk.schema.messages import Message
from edge_sdk.schema.reading import Reading
from edge_sdk.schema.report import ReportDevice
from edge_sdk.schema.request import RunRequest

CONFIG = "EDGE_SDK_SSH_CONFIG"
"""Environment variable: an ssh configuration file to use instead of the user's."""

_OPTIONS = {
    "BatchMode": "yes",
    "StrictHostKeyChecking": "yes",
    "ConnectTimeout": "10",
    "ServerAliveInterval": "5",
    "ServerAliveCountMax": "3",
    # The first command makes the connection and leaves it open for the next ones; where it broke, the
    # next one makes it anew. It ends by itself should this process be killed.
    "ControlMaster": "auto",
    "ControlPersist": "60",
    "LogLevel": "ERROR",
    "RequestTTY": "no",
    "ForwardX11": "no",
    "ForwardAgent": "no",
    "ClearAllForwardings": "yes",
    "PermitLocalCommand": "no",
}
_RAILS = {"ina3221", "jtop"}
"""Sensors whose readers lie in ``jetson/``, which the runners find by ``EDGE_SDK_JETSON``."""
_FORM = "ssh://[user@]host[:port]"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}|[0-9A-Fa-f:.]{2,45}(%[\w.-]+)?")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,63}\$?")


class SshLink(Link):
    """Commands by ``ssh``; all share one connection.

    Args:
        uri: ``ssh://[user@]host[:port]``; the host may be an alias of the user's ssh configuration.

    Raises:
        DeviceError: The URI is not of that form.
        MissingDependencyError: There is no ``ssh`` here.
    """

    client: ClassVar[str] = "ssh"
    package: ClassVar[str] = "OpenSSH's client (Debian: openssh-client)"

    def __init__(self, uri: str) -> None:
        self.user, self.host, self.port = _parse(uri)
        super().__init__(uri)
        # The path of a socket holds about 100 characters: the folder is made where paths are short.
        self._folder = Path(tempfile.mkdtemp(prefix="edge-ssh-", dir="/tmp" if os.path.isdir("/tmp") else None))

    def command(self, script: str) -> list[str]:
        """``ssh ... sh -c SCRIPT``: the login shell of the account may be any."""
        return [*self._words(), "--", self.host, f"exec {quoted('sh', '-c', script)}"]

    def refusal(self, words: str) -> DeviceError | None:
        """What ``ssh`` says of keys, passwords and names, with the line that mends it."""
        text = plain(words)
        said = " ".join(text.split())[-300:]
        port = f"-p {self.port} " if self.port else ""
        account = f"{self.user}@{self.host}" if self.user else self.host
        if "REMOTE HOST IDENTIFICATION HAS CHANGED" in text or "host key for" in text and "has changed" in text:
            name = f"[{self.host}]:{self.port}" if self.port and self.port != 22 else self.host
            return self._refused(
                "its host key is not the one that known_hosts holds: it was set up anew, or somebody stands between. "
                f"If you know why, forget the old key: ssh-keygen -R '{name}', and connect once by hand: "
                f"ssh {port}{account}"
            )
        if "Host key verification failed" in text or "host key is known for" in text:
            return self._refused(
                "its host key is not known here, and unknown keys are not accepted. Compare its fingerprint and accept "
                f"it once by hand: ssh {port}{account}"
            )
        if "Permission denied" in text:
            return self._refused(
                f"it does not let us in ({said}). Passwords are not asked for: give it your key with "
                f"ssh-copy-id {port}{account}, and load the key with ssh-add where it has a passphrase."
            )
        if "Could not resolve hostname" in text:
            return self._refused(
                f"no machine of that name is known: {said}. Check the host, or your ssh configuration."
            )
        if "Bad configuration option" in text or "Can't open user config file" in text:
            return self._refused(f"ssh does not take its configuration: {said}.")
        return None

    def close(self) -> None:
        """Ends the shared connection."""
        command = [*self._words(), "-O", "exit", "--", self.host]
        subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=20)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _refused(self, why: str) -> DeviceError:
        return DeviceError(f"device '{self.uri}': {why}")

    def _words(self) -> list[str]:
        config = os.environ.get(CONFIG)
        words = [self._client, *(["-F", config] if config else []), "-S", str(self._folder / "s")]
        for name, value in _OPTIONS.items():
            words += ["-o", f"{name}={value}"]
        if self.user:
            words += ["-l", self.user]
        if self.port:
            words += ["-p", str(self.port)]
        return words


class SshDevice(RemoteDevice):
    """A Linux board or machine. Runners run in the environment that ``edge-sdk device setup`` makes there.

    Args:
        uri: ``ssh://[user@]host[:port]``.
    """

    scheme = "ssh"
    about = _facts.LINUX + "say python python3 -VV\n"
    home = "${XDG_DATA_HOME:-$HOME/.local/share}/edge-sdk"

    def __init__(self, uri: str, **options) -> None:
        super().__init__(SshLink(uri), **options)

    def describe(self) -> ReportDevice:
        """Model, SoC, operating system and ABI, from the files that Linux keeps them in."""
        return _facts.linux_device(self.uri, self.facts)

    def _run_packaged(self, runtime: str, request: RunRequest) -> Generator[Message, None, None]:
        """Runs a request by the Python runner, in the environment that was set up for its runtime."""
        yield from self._converse(runtime, self._start(runtime, request), request)

    @contextmanager
    def session(self, runtime: str, request: RunRequest) -> Iterator[Session]:
        """Starts a runner there that answers calls; see `Device.session`."""
        if self._native is not None:
            with super().session(runtime, request) as session:
                yield session
            return
        with self._calling(runtime, self._start(runtime, request, SESSION), request) as session:
            yield session

    def _start(self, runtime: str, request: RunRequest, *words: str) -> str:
        """Lines of a script that run the runner."""
        runtimes = data_dir("runtimes")
        known = sorted(path.parent.name for path in runtimes.glob("*/runner.py"))
        if runtime not in known:
            raise DeviceError(f"device '{self.uri}': " + unknown_name("runner", runtime, known))
        program = f"{self.push(runtimes)}/{runtime}/runner.py"
        command = f'exec "$py" -X faulthandler {quoted(program, *words)} "$PWD/request.json"'
        script = f"{self._python(runtime)}\n{command}"
        if request.power is not None and _RAILS & set(request.power.sensors):
            script = f"export EDGE_SDK_JETSON={quoted(self.push(data_dir('jetson')))}\n{script}"
        return script

    def _monitor(self, period_s: float, count: int) -> tuple[str, Callable[[Iterable[bytes]], Iterator[Reading]]]:
        """By the monitor that Edge SDK brings, which any Python 3.8 of the device runs."""
        program = f"{self.push(data_dir('runtimes'))}/{_watch.PROGRAM}"
        rails = quoted(self.push(data_dir("jetson")))
        missing = "{ echo 'python3 is not on this device' >&2; exit 1; }"
        find = 'py=$(command -v python3) || for py in envs/*/bin/python; do [ -x "$py" ] && break; done'
        script = (
            f'{find}\n[ -x "$py" ] || {missing}\n'
            f'EDGE_SDK_JETSON={rails} exec "$py" {quoted(program)} {period_s:g} {count} < /dev/null'
        )
        return script, _watch.readings

    def _python(self, runtime: str) -> str:
        """Lines of a script that set ``$py`` to the interpreter for a runtime."""
        envs = quoted(f"{self._base}/envs/{runtime}")
        return f'py=$(cat {envs}.python 2>/dev/null)\n[ -x "$py" ] || py={envs}/bin/python\n[ -x "$py" ] || py=python3'

    @property
    def _advice(self) -> str:
        return f"Prepare the device: edge-sdk device setup {self.uri}"


def _parse(uri: str) -> tuple[str | None, str, int | None]:
    try:
        parts = urlsplit(uri)
        user, host, port = parts.username, parts.hostname, parts.port
    except ValueError as error:
        raise DeviceError(
            f"device '{plain(uri)[:200]}' is no URI: {error}. Expected ssh://[user@]host[:port]."
        ) from None
    whole = parts.path in ("", "/") and not parts.query and not parts.fragment and parts.password is None
    if not host or not whole or not _NAME.fullmatch(host) or (user is not None and not _USER.fullmatch(user)):
        raise DeviceError(f"device '{plain(uri)[:200]}' is no URI of that kind; expected {_FORM}, without a password.")
    # urlsplit writes the host in small letters; aliases of an ssh configuration may have capitals.
    place = parts.netloc.rpartition("@")[2]
    start = place.lower().find(host)
    return user, place[start : start + len(host)], port
