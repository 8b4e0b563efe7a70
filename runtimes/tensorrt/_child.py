"""A program that the runner starts: its lines as they come, and what it used. It dies with the runner."""

from __future__ import annotations

import ctypes
import os
import selectors
import signal
import subprocess

POLL_S = 0.5
MAX_OUTPUT = 256 << 20
MAX_LINE = 1 << 20
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)  # loaded here: between fork and exec nothing may be


class ChildError(Exception):
    """The program said more than it may."""


class Ended:
    """How a program ended.

    Attributes:
        code: Its exit code; negative: the signal that ended it.
        text: All that it printed, both streams as they came.
        peak_kib: Its largest resident set, None where it is not told.
    """

    def __init__(self, code, text, peak_kib):
        self.code, self.text, self.peak_kib = code, text, peak_kib


def run(words, folder=None, on_line=lambda line, pid: None, on_poll=lambda: None, stdout_only=False):
    """Runs a program to its end.

    Args:
        words: The program and its arguments.
        folder: Where it runs.
        on_line: Called with each line as it comes, and the program's process number.
        on_poll: Called now and then, for signs of life.
        stdout_only: Whether its standard error goes where the runner's own goes.

    Raises:
        ChildError: It printed more than 256 MiB, or a line of more than 1 MiB.
        OSError: It cannot be started.
    """
    process = subprocess.Popen(
        words,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=None if stdout_only else subprocess.STDOUT,
        preexec_fn=_die_with_parent,
        bufsize=0,
    )
    lines = []
    try:
        for line in _lines(process.stdout, on_poll):
            lines.append(line)
            on_line(line, process.pid)
        usage = _wait(process)
    except BaseException:
        process.kill()
        process.wait()
        raise
    finally:
        process.stdout.close()
    return Ended(process.returncode, "\n".join(lines), usage)


def _lines(stream, on_poll):
    pending, total = b"", 0
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while True:
            ready = selector.select(POLL_S)
            on_poll()
            if not ready:
                continue
            chunk = os.read(stream.fileno(), 1 << 16)
            if not chunk:
                break
            total += len(chunk)
            whole = (pending + chunk).split(b"\n")
            pending = whole.pop()
            if total > MAX_OUTPUT or len(pending) > MAX_LINE:
                raise ChildError("it printed more than %d bytes, or a line of more than %d" % (MAX_OUTPUT, MAX_LINE))
            for line in whole:
                yield line.decode("utf-8", "replace")
    if pending:
        yield pending.decode("utf-8", "replace")


def _wait(process):
    """Waits for the end, and returns the largest resident set in KiB."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    return usage.ru_maxrss or None


def _die_with_parent():
    """The kernel ends this process when its parent ends, whatever ended that."""
    if hasattr(_LIBC, "prctl"):  # elsewhere it ends by itself, when nobody reads what it prints
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
