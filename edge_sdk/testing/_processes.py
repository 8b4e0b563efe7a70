"""The processes that a stand-in's commands left running, known by an environment variable that they inherit."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep

MARK = "EDGE_SDK_STANDIN"
"""Environment variable that names the stand-in in every process that its commands start."""


@dataclass(frozen=True)
class Process:
    """A running process."""

    pid: int
    command: str


def marked(token: str) -> list[Process]:
    """The running processes that inherited ``MARK=token``. One that clears its environment is not found."""
    mark = f"{MARK}={token}".encode()
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        with suppress(OSError):  # it ended meanwhile, or it is another user's
            if mark in (folder / "environ").read_bytes().split(b"\0"):
                found.append(Process(int(folder.name), command_line(int(folder.name))))
    return sorted(found, key=lambda process: process.pid)


def command_line(pid: int) -> str:
    """A process's command line as one string."""
    words = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    return " ".join(word.decode(errors="replace") for word in words)


def descendants(pid: int) -> list[Process]:
    """The processes below one, its children first."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError, ValueError):
                # The command's name stands in brackets and may hold anything: what counts comes after them.
                fields = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
                if fields[0] != "Z":
                    children.setdefault(int(fields[1]), []).append(int(folder.name))
    found: list[Process] = []
    level = [pid]
    while level:
        level = [child for parent in level for child in children.get(parent, [])]
        for child in level:
            with suppress(OSError):
                found.append(Process(child, command_line(child)))
    return found


def end(token: str, timeout_s: float = 5.0) -> None:
    """Kills what `marked` finds until nothing is left.

    Raises:
        RuntimeError: Something does not go.
    """
    deadline = monotonic() + timeout_s
    while left := marked(token):
        for process in left:
            with suppress(OSError):
                os.kill(process.pid, signal.SIGKILL)
        if monotonic() > deadline:
            raise RuntimeError(f"processes that this stand-in started do not end: {left}")
        sleep(0.01)
