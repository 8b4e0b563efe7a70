"""The genuine OpenSSH server on loopback, as a board that has a home of its own."""

from __future__ import annotations

import getpass
import os
import shlex
import shutil
import signal
import subprocess
import sys
import uuid
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep

from edge_sdk.testing import _ports, _processes
from edge_sdk.testing._faults import Fault, FaultBook
from edge_sdk.testing._processes import Process

_START_S = 20.0
_STARTS = 3
_FAULTS = Path(__file__).with_name("_faults.py")
_PRIVSEP = Path("/run/sshd")
_SFTP = ("/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server", "/usr/libexec/sftp-server")

_WRAPPER = """\
#!/bin/sh
# Every session of this server comes through here.
unset XDG_CACHE_HOME XDG_CONFIG_HOME XDG_DATA_HOME XDG_STATE_HOME XDG_RUNTIME_DIR XDG_SESSION_ID
export HOME={home} {mark}={token}
cd "$HOME" || exit 1
script=$SSH_ORIGINAL_COMMAND
unset SSH_ORIGINAL_COMMAND
[ -n "$script" ] || exec /bin/sh
[ -e {faults}/armed ] && exec {python} -I -S {program} {faults} "$script"
exec /bin/sh -c "$script"
"""


class SshServer:
    """Runs ``sshd`` for as long as the block lasts, for the present user and one key. A context manager.

    ``ssh -F CONFIG ALIAS`` and ``ssh -F CONFIG -p PORT 127.0.0.1`` reach it. Sessions find ``FOLDER/home`` as
    their home and none of the user's own settings.

    Args:
        folder: Holds its keys, its log and its home; made where it is missing.
        python: Plays faults.
    """

    host = _ports.HOST

    def __init__(self, folder: Path, *, python: str = sys.executable) -> None:
        self.folder = Path(folder).absolute()
        self.home = self.folder / "home"
        self.config = self.folder / "ssh_config"
        self.known_hosts = self.folder / "known_hosts"
        self.user = getpass.getuser()
        self.port = 0
        self._python = python
        self._token = uuid.uuid4().hex
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def alias(self) -> str:
        """The name that `config` gives it."""
        return f"board-{self.port}"

    @property
    def uri(self) -> str:
        """What Edge SDK calls it."""
        return f"ssh://{self.user}@{self.host}:{self.port}"

    @property
    def env(self) -> dict[str, str]:
        """What Edge SDK needs in its environment to reach it with its own keys."""
        return {"EDGE_SDK_SSH_CONFIG": str(self.config)}

    def __enter__(self) -> SshServer:
        self._sshd = shutil.which("sshd", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")
        if self._sshd is None:
            raise FileNotFoundError("the program 'sshd' is not here. Debian: apt-get install openssh-server.")
        self.home.mkdir(parents=True, exist_ok=True)
        self._faults = FaultBook(self.folder / "faults")
        if os.geteuid() == 0:
            _PRIVSEP.mkdir(mode=0o755, exist_ok=True)  # root's sshd insists on it
        for name in ("host_key", "user_key"):
            self._make_key(name)
        shutil.copyfile(self.folder / "user_key.pub", self.folder / "authorized_keys")
        for attempt in range(_STARTS):
            self.port = _ports.free()
            self._write_wrapper()
            self._write_server_config()
            if self._start():
                break
            if attempt == _STARTS - 1:
                raise RuntimeError(f"sshd did not start: {self.log()[-500:]}")
        self._write_client_config()
        self.trust()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        _processes.end(self._token)

    def fault(self, kind: str, on: str | None = None, *, times: int = 1, **options: int | float | str) -> Fault:
        """Lets the next command fail whose script the expression ``on`` finds, once or ``times`` times.

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

    def forget_host(self) -> None:
        """Empties known_hosts: the host is then unknown."""
        self.known_hosts.write_text("")

    def trust(self) -> None:
        """Writes the present host key into known_hosts, for this server and for any proxy before it."""
        key = (self.folder / "host_key.pub").read_text().split()
        self.known_hosts.write_text(f"[{self.host}]:* {key[0]} {key[1]}\n")

    def change_host_key(self) -> None:
        """Gives the host another key than known_hosts has, as after a new installation; sessions end."""
        self._stop()
        for path in (self.folder / "host_key", self.folder / "host_key.pub"):
            path.unlink()
        self._make_key("host_key")
        if not self._start():
            raise RuntimeError(f"sshd did not start: {self.log()[-500:]}")

    def sessions(self) -> list[Process]:
        """The server's processes for the connections that are open, one each."""
        if self._process is None or self._process.poll() is not None:
            return []
        mine = _processes.descendants(self._process.pid)
        return [process for process in mine if process.command.startswith("sshd: ") and "@" in process.command]

    def processes(self) -> list[Process]:
        """What the commands of this server have left running."""
        return _processes.marked(self._token)

    def log(self) -> str:
        """What the server has said."""
        return (self.folder / "sshd.log").read_text(errors="replace")

    def _start(self) -> bool:
        assert self._sshd
        with open(self.folder / "sshd.log", "ab") as log:
            self._process = subprocess.Popen(
                [self._sshd, "-D", "-e", "-f", str(self.folder / "sshd_config")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = monotonic() + _START_S
        while monotonic() < deadline:
            if self._process.poll() is not None:
                return False
            if _ports.is_open(self.port):
                return True
            sleep(0.01)
        self._stop()
        return False

    def _stop(self) -> None:
        if self._process is None:
            return
        sessions = _processes.descendants(self._process.pid)
        self._process.kill()
        self._process.wait()
        for process in sessions:
            if process.command.startswith("sshd"):
                with suppress(OSError):
                    os.kill(process.pid, signal.SIGKILL)
        self._process = None

    def _make_key(self, name: str) -> None:
        path = self.folder / name
        if not path.exists():
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"edge-sdk-{name}", "-f", str(path)]
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def _write_wrapper(self) -> None:
        path = self.folder / "session"
        quoted = {
            "home": shlex.quote(str(self.home)),
            "faults": shlex.quote(str(self.folder / "faults")),
            "python": shlex.quote(self._python),
            "program": shlex.quote(str(_FAULTS)),
        }
        path.write_text(_WRAPPER.format(mark=_processes.MARK, token=self._token, **quoted))
        path.chmod(0o755)

    def _write_server_config(self) -> None:
        sftp = next((path for path in _SFTP if Path(path).exists()), None)
        lines = [
            f"ListenAddress {self.host}:{self.port}",
            f"HostKey {_word(self.folder / 'host_key')}",
            f"AuthorizedKeysFile {_word(self.folder / 'authorized_keys')}",
            f"PidFile {_word(self.folder / 'sshd.pid')}",
            f"ForceCommand {shlex.quote(str(self.folder / 'session'))}",
            "StrictModes no",
            f"UsePAM {'yes' if _is_locked(self.user) else 'no'}",
            "PermitRootLogin prohibit-password",
            "PubkeyAuthentication yes",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "PermitUserRC no",
            # The account's login shell reads its settings from there too, which is none of the user's own.
            f'SetEnv "HOME={self.home}"',
            "PrintMotd no",
            "PrintLastLog no",
            "UseDNS no",
            "MaxStartups 200",
            "MaxSessions 100",
            "LogLevel VERBOSE",
            *([f"Subsystem sftp {sftp}"] if sftp else []),
        ]
        (self.folder / "sshd_config").write_text("\n".join(lines) + "\n")

    def _write_client_config(self) -> None:
        text = (
            f"Host {self.alias}\n  HostName {self.host}\n  Port {self.port}\n"
            f"Host {self.alias} {self.host} localhost\n"
            f"  User {self.user}\n"
            f"  IdentityFile {_word(self.folder / 'user_key')}\n"
            "  IdentitiesOnly yes\n"
            "  IdentityAgent none\n"
            f"  UserKnownHostsFile {_word(self.known_hosts)}\n"
            "  GlobalKnownHostsFile /dev/null\n"
            "  BatchMode yes\n"
        )
        self.config.write_text(text)


def _word(path: Path) -> str:
    """A path as OpenSSH's configuration files take it."""
    return f'"{path}"'


def _is_locked(user: str) -> bool:
    """Whether the account has no password for good: sshd then lets it in through PAM only."""
    try:
        lines = Path("/etc/shadow").read_text().splitlines()
    except OSError:  # not root: sshd cannot read it either
        return False
    return any(line.startswith(f"{user}:!") for line in lines)
