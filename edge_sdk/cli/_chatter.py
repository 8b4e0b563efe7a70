"""Keeps what libraries print away from our own output.

Exporters and runtimes write to standard output and standard error, from Python and from C++. Here
file descriptor 1 is pointed at standard error, so that standard output holds only what Edge SDK
says, and lines that are known to mean nothing are dropped on the way. A line that is not known
passes: no error is hidden.
"""

from __future__ import annotations

import ctypes
import logging
import os
import re
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from typing import TextIO

NOISE = re.compile(
    rb"\[cpuinfo_utils\.cpp:\d+\] |"  # ExecuTorch looks for ARM's identification registers on every processor
    rb"[IW]\d{4} \d\d:\d\d:\d\d\.\d+ |"  # torch's own information and warnings, in glog's form
    rb"[DI] \d\d:\d\d:\d\d\.\d+ executorch:|"
    rb"(\x1b\[[\d;]*m)?[\d-]+ [\d:.]+ \[[VIW]:onnxruntime:"
)
_DRAIN_S = 1.0
"""How long to wait for the last lines; a process that the command left running holds the pipe open."""


@contextmanager
def apart(verbose: bool) -> Iterator[tuple[TextIO, TextIO]]:
    """Yields the standard output and standard error that are ours alone inside the block.

    Args:
        verbose: Let all lines through, with the libraries' warnings.
    """
    with _logging(verbose):
        if _fileno(sys.stdout) == 1 and _fileno(sys.stderr) == 2:
            with _descriptors_apart(verbose) as streams:
                yield streams
        else:
            # Embedded in a program that replaced the streams: only what Python prints can be moved.
            stdout = sys.stdout
            with redirect_stdout(sys.stderr):
                yield stdout, sys.stderr


@contextmanager
def _descriptors_apart(verbose: bool) -> Iterator[tuple[TextIO, TextIO]]:
    _flush()
    # The filter is started first, so that it does not hold the copies below open.
    child, entry = (None, 2) if verbose or not hasattr(os, "fork") else _start_filter()
    kept = os.dup(1), os.dup(2)
    os.dup2(entry, 1)
    if child is not None:
        os.dup2(entry, 2)
        os.close(entry)
    stdout, stderr = _text(kept[0], sys.stdout), _text(kept[1], sys.stderr)
    try:
        yield stdout, stderr
        stdout.flush()
    finally:
        _flush()
        os.dup2(kept[0], 1)
        os.dup2(kept[1], 2)
        for stream in (stdout, stderr):
            with suppress(OSError):  # where it cannot be flushed, the block has already ended with that error
                stream.close()
        if child is not None:
            _wait(child)


def _start_filter() -> tuple[int, int]:
    """Starts a process that passes on what is not noise; gives its number and the pipe to write to.

    A process and not a thread: a library that writes while it holds the interpreter's lock would
    wait for ever for a thread to read, and after a crash the last words must still come through.
    """
    exit_, entry = os.pipe()
    child = os.fork()
    if child:
        os.close(exit_)
        return child, entry
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        for descriptor in (entry, 0, 1):
            os.close(descriptor)
        with open(exit_, "rb") as lines:
            for line in lines:
                if not NOISE.match(line):
                    os.write(2, line)
    finally:
        os._exit(0)


def _wait(child: int) -> None:
    until = time.monotonic() + _DRAIN_S
    while os.waitpid(child, os.WNOHANG)[0] == 0 and time.monotonic() < until:
        time.sleep(0.002)


def _flush() -> None:
    """Flushes Python's streams and those of C, which would otherwise spill at exit into what stdout is then."""
    sys.stdout.flush()
    sys.stderr.flush()
    if os.name == "posix":
        ctypes.CDLL(None).fflush(None)


def _text(descriptor: int, like: TextIO) -> TextIO:
    at_once = os.isatty(descriptor) or like is sys.stderr
    return open(descriptor, "w", 1 if at_once else -1, encoding=like.encoding, errors="backslashreplace")


def _fileno(stream: TextIO) -> int | None:
    try:
        return stream.fileno()
    except (OSError, ValueError):
        return None


@contextmanager
def _logging(verbose: bool) -> Iterator[None]:
    """Shows our own warnings and everyone's errors; with ``verbose`` also our steps and everyone's warnings."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("edge-sdk: %(levelname)s: %(name)s: %(message)s"))
    root, ours = logging.getLogger(), logging.getLogger("edge_sdk")
    before = root.level, ours.level
    root.addHandler(handler)
    root.setLevel(logging.WARNING if verbose else logging.ERROR)
    ours.setLevel(logging.INFO if verbose else logging.WARNING)
    try:
        with warnings.catch_warnings():
            if not verbose and not sys.warnoptions:
                warnings.simplefilter("ignore")
            yield
    finally:
        root.removeHandler(handler)
        root.setLevel(before[0])
        ours.setLevel(before[1])
