"""Faults on demand: what the next command of a stand-in does instead of what it should.

This file is also the program that plays them, where no package is at hand:
``python _faults.py BOOK SCRIPT`` runs SCRIPT with ``sh -c``, or the fault that the book has for it.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import resource
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

KINDS = {
    "garbage": "prints random bytes instead of its output (bytes=4096)",
    "endless": "prints without end until the link closes (line=80, the length of its lines; 0: no line ever ends)",
    "hang": "says nothing and never ends until the link closes",
    "disk_full": "finds the disk full: no new folder, and no file past its first bytes (bytes=4096)",
    "exit": "ends at once (code=1, words='' for its standard error)",
    "kill": "is killed by SIGKILL (after_s=0.5)",
}
"""What can be asked for, with its options and their defaults."""

_DEFAULTS = {
    "garbage": {"bytes": 4096},
    "endless": {"line": 80},
    "hang": {},
    "disk_full": {"bytes": 4096},
    "exit": {"code": 1, "words": ""},
    "kill": {"after_s": 0.5},
}


class Fault:
    """A fault that was asked for."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def _read(self) -> dict:
        return json.loads(self._path.read_text())

    @property
    def kind(self) -> str:
        """One of `KINDS`."""
        return self._read()["kind"]

    @property
    def hits(self) -> int:
        """How many commands it has met so far."""
        return self._read()["hits"]


class FaultBook:
    """The faults that a stand-in's next commands meet, in a folder that several processes read.

    Args:
        folder: Holds one file for each fault; made where it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._armed = folder / "armed"
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def is_armed(self) -> bool:
        """Whether a fault waits for its command."""
        return self._armed.exists()

    def add(self, kind: str, on: str | None, times: int, options: dict) -> Fault:
        """Adds a fault for the next ``times`` commands whose script the expression ``on`` finds.

        Raises:
            ValueError: The kind, an option or the expression is none.
        """
        if kind not in KINDS:
            raise ValueError(f"unknown fault '{kind}'; known: {', '.join(KINDS)}")
        if unknown := set(options) - set(_DEFAULTS[kind]):
            raise ValueError(f"the fault '{kind}' has no option '{sorted(unknown)[0]}': it {KINDS[kind]}")
        try:
            re.compile(on or "")
        except re.error as error:
            raise ValueError(f"'{on}' is no regular expression: {error}") from error
        with self._locked():
            path = self.folder / f"{len(list(self.folder.glob('*.json'))):06}.json"
            entry = {"kind": kind, "on": on or "", "left": times, "hits": 0, "options": _DEFAULTS[kind] | options}
            _write(path, entry)
            self._armed.touch()
        return Fault(path)

    def clear(self) -> None:
        """Takes back all faults that have not met their command."""
        with self._locked():
            for path in self.folder.glob("*.json"):
                _write(path, json.loads(path.read_text()) | {"left": 0})
            self._armed.unlink(missing_ok=True)

    def take(self, script: str) -> tuple[str, dict] | None:
        """The kind and options of the oldest fault for a command; it is then used once."""
        if not self.is_armed:
            return None
        with self._locked():
            entries = {path: json.loads(path.read_text()) for path in sorted(self.folder.glob("*.json"))}
            waiting = {path: entry for path, entry in entries.items() if entry["left"] > 0}
            for path, entry in waiting.items():
                if re.search(entry["on"], script, re.DOTALL):
                    entry.update(left=entry["left"] - 1, hits=entry["hits"] + 1)
                    _write(path, entry)
                    if not any(entry["left"] > 0 for entry in waiting.values()):
                        self._armed.unlink(missing_ok=True)
                    return entry["kind"], entry["options"]
        return None

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with open(self.folder / "lock", "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _write(path: Path, entry: dict) -> None:
    scratch = path.with_suffix(".new")
    scratch.write_text(json.dumps(entry))
    scratch.replace(path)


def _garbage(_script: str, options: dict) -> int:
    os.write(1, os.urandom(options["bytes"]))
    return 0


def _endless(_script: str, options: dict) -> int:
    line = options["line"]
    block = (b"x" * (line - 1) + b"\n") * max(1, 65536 // line) if line else b"x" * 65536
    while True:
        os.write(1, block)


def _hang(_script: str, _options: dict) -> int:
    poll = select.poll()
    poll.register(1, 0)  # an error or a hang-up: nobody reads what we say any more
    poll.poll()
    return 1


def _exit(_script: str, options: dict) -> int:
    if options["words"]:
        os.write(2, options["words"].encode() + b"\n")
    return options["code"]


def _kill(script: str, options: dict) -> int:
    child = subprocess.Popen(["/bin/sh", "-c", script], process_group=0)

    def pass_on(number: int, _frame: object) -> None:
        os.killpg(child.pid, number)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    signal.signal(signal.SIGHUP, pass_on)
    try:
        return child.wait(options["after_s"])
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)
        raise


_MKDIR = """\
#!/bin/sh
# mkdir on a full disk: what is there already is well.
PATH=${PATH#*:}
for word; do
  case $word in -*) continue;; esac
  [ -d "$word" ] || { echo "mkdir: cannot create directory '$word': No space left on device" >&2; exit 1; }
done
exec mkdir "$@"
"""


def _disk_full(script: str, options: dict) -> int:
    """A limit of the kernel's ends every file after its first bytes; its words become those of a full disk."""
    programs = Path(options["folder"]) / "full"
    programs.mkdir(exist_ok=True)
    scratch = programs / f"mkdir.{os.getpid()}"
    scratch.write_text(_MKDIR)
    scratch.chmod(0o755)
    scratch.replace(programs / "mkdir")
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write then fails, instead of killing the writer
        resource.setrlimit(resource.RLIMIT_FSIZE, (options["bytes"], hard))

    child = subprocess.Popen(
        ["/bin/sh", "-c", script],
        env=os.environ | {"PATH": f"{programs}:{os.environ.get('PATH', os.defpath)}"},
        stderr=subprocess.PIPE,
        preexec_fn=limit,  # noqa: PLW1509 - this program has no other thread
    )
    signal.signal(signal.SIGHUP, lambda number, _frame: child.send_signal(number))
    assert child.stderr
    for line in child.stderr:
        os.write(2, line.replace(b"File too large", b"No space left on device"))
    return child.wait()


_PLAYERS = {
    "garbage": _garbage,
    "endless": _endless,
    "hang": _hang,
    "disk_full": _disk_full,
    "exit": _exit,
    "kill": _kill,
}


def main(book: str, script: str) -> int:
    """Plays the fault that the book has for a script; without one the script runs in this process's place."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    fault = FaultBook(Path(book)).take(script)
    if fault is None:
        os.execv("/bin/sh", ["sh", "-c", script])
    kind, options = fault
    code = _PLAYERS[kind](script, options | {"folder": book})
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
