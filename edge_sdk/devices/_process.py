"""A child process whose output is read within bounds, and which never outlives its use."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import IO

from edge_sdk.devices._protocol import BrokenStreamError

_CHUNK = 1 << 16
_TAIL_BYTES = 1 << 14
_TAIL_LINES = 24
_GRACE_S = 2.0
_EXIT_S = 10.0


@dataclass(frozen=True)
class Limits:
    """What a runner may do before it is stopped.

    Attributes:
        line_bytes: Length of one line.
        total_bytes: Length of all lines together.
        silence_s: Seconds between two lines.
        overall_s: Seconds from start to end.
    """

    line_bytes: int = 1 << 20
    total_bytes: int = 256 << 20
    silence_s: float = 120.0
    overall_s: float = 3600.0


class Child:
    """A program in a process group of its own, its standard output read as lines.

    Use it as a context manager: whatever happens, the whole group is gone afterwards.

    Args:
        command: The program and its arguments.
        env: Its environment.
        limits: What it may do before it is stopped.
        stdin: Whether it is sent anything; else its standard input is empty.
    """

    def __init__(self, command: Sequence[str], env: Mapping[str, str], limits: Limits, *, stdin: bool = False) -> None:
        self._limits = limits
        self._errors: deque[bytes] = deque()
        self._errors_size = 0
        self._process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(env),
            bufsize=0,
            start_new_session=True,
        )

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the program, if it has not ended, and all that it started."""
        self._stop()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def tail(self) -> str:
        """The last lines of standard error so far."""
        self._drain_errors()
        text = b"".join(self._errors)[-_TAIL_BYTES:].decode(errors="replace")
        return "\n".join(text.splitlines()[-_TAIL_LINES:])

    def lines(self, source: Iterator[bytes] | None = None) -> Iterator[bytes]:
        """Standard output line by line until it ends; ``source`` is sent to standard input.

        Raises:
            BrokenStreamError: A limit was passed, or the program ended with a code other than 0.
        """
        pending = bytearray()
        for chunk in self._bounded(source):
            pending += chunk
            *whole, rest = pending.split(b"\n")
            if max(map(len, whole), default=0) > self._limits.line_bytes or len(rest) > self._limits.line_bytes:
                raise BrokenStreamError(f"it sent a line longer than {self._limits.line_bytes} bytes, and was stopped.")
            pending = bytearray(rest)
            yield from map(bytes, whole)
        self._check_exit()
        if pending:
            raise BrokenStreamError("its last line was cut off.")

    def exchange(self, source: Iterator[bytes] | None = None) -> Iterator[bytes]:
        """Sends ``source`` to standard input while it yields what comes on standard output, until that ends.

        Raises:
            BrokenStreamError: A limit was passed.
        """
        yield from self._bounded(source)

    def exit_code(self) -> int:
        """The program's exit code, once its output has ended.

        Raises:
            BrokenStreamError: It does not end.
        """
        try:
            return self._process.wait(_EXIT_S)
        except subprocess.TimeoutExpired:
            raise BrokenStreamError("it closed its channel but did not end, and was stopped.") from None

    def say(self, data: bytes) -> None:
        """Sends a few bytes to standard input.

        Raises:
            BrokenStreamError: Nobody reads them.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(data)
        except (BrokenPipeError, ValueError):
            raise BrokenStreamError("it no longer listens.") from None

    def send(self, data: bytes) -> None:
        """Sends bytes to standard input, however many, while what comes on standard error is kept.

        Raises:
            BrokenStreamError: Nobody reads them.
        """
        stdin, errors = self._process.stdin, self._process.stderr
        assert stdin is not None and errors is not None
        if stdin.closed:
            raise BrokenStreamError("it no longer listens.")
        os.set_blocking(stdin.fileno(), False)
        rest = memoryview(data)
        with selectors.DefaultSelector() as selector:
            selector.register(stdin, selectors.EVENT_WRITE)
            selector.register(errors, selectors.EVENT_READ)
            while rest:
                ready = selector.select(self._limits.silence_s)
                if not ready:
                    raise BrokenStreamError(f"it took nothing for {self._limits.silence_s:g} s.")
                for key, _ in ready:
                    if key.fileobj is stdin:
                        try:
                            rest = rest[os.write(key.fd, rest) :]
                        except BrokenPipeError:
                            raise BrokenStreamError("it no longer listens.") from None
                    elif chunk := os.read(key.fd, _CHUNK):
                        self._keep(chunk)
                    else:
                        selector.unregister(errors)

    def hang_up(self) -> None:
        """Closes standard input, which tells the program to end."""
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()

    def _bounded(self, source: Iterator[bytes] | None) -> Iterator[bytes]:
        total = 0
        for chunk in self._chunks(source):
            total += len(chunk)
            if total > self._limits.total_bytes:
                raise BrokenStreamError(f"it sent more than {self._limits.total_bytes} bytes, and was stopped.")
            yield chunk

    def _chunks(self, source: Iterator[bytes] | None) -> Iterator[bytes]:
        """What comes on standard output; standard error is kept for ``tail`` on the way."""
        output, errors = self._process.stdout, self._process.stderr
        if output is None or errors is None:
            return
        end = monotonic() + self._limits.overall_s
        heard = monotonic()
        with selectors.DefaultSelector() as selector:
            selector.register(output, selectors.EVENT_READ)
            selector.register(errors, selectors.EVENT_READ)
            feed = _Feed(self._process.stdin, source) if source is not None else None
            if feed is not None:
                selector.register(feed.stream, selectors.EVENT_WRITE)
            ended = False
            while True:
                silent_until = heard + self._limits.silence_s
                ready = selector.select(max(0.0, min(end, silent_until) - monotonic()))
                for key, _ in ready:
                    if feed is not None and key.fileobj is feed.stream:
                        if feed.send():
                            heard = monotonic()
                        else:
                            selector.unregister(key.fileobj)
                            feed.close()
                        continue
                    chunk = os.read(key.fd, _CHUNK)
                    if not chunk:
                        selector.unregister(key.fileobj)
                        ended = ended or key.fileobj is output
                    elif key.fileobj is errors:
                        self._keep(chunk)
                    else:
                        yield chunk
                        heard = monotonic()
                now = monotonic()
                if ended:
                    return
                if now >= end:
                    raise BrokenStreamError(f"it took longer than {self._limits.overall_s:g} s, and was stopped.")
                if now >= heard + self._limits.silence_s:
                    raise BrokenStreamError(f"it said nothing for {self._limits.silence_s:g} s, and was stopped.")

    def _keep(self, chunk: bytes) -> None:
        self._errors.append(chunk)
        self._errors_size += len(chunk)
        while self._errors_size - len(self._errors[0]) >= _TAIL_BYTES:
            self._errors_size -= len(self._errors.popleft())

    def _check_exit(self) -> None:
        code = self.exit_code()
        if code < 0:
            hint = "; perhaps the machine ran out of memory" if -code == signal.SIGKILL else ""
            raise BrokenStreamError(f"it was killed by signal {-code} ({signal.strsignal(-code)}){hint}.")
        if code > 0:
            raise BrokenStreamError(f"it ended with exit code {code} and said no reason.")

    def _drain_errors(self) -> None:
        """Takes what still lies in the pipe of standard error, without waiting for more."""
        if self._process.stderr is None:
            return
        os.set_blocking(self._process.stderr.fileno(), False)
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(self._process.stderr.fileno(), _CHUNK):
                self._keep(chunk)

    def _stop(self) -> None:
        """Ends the group: asks first, then kills, and takes what the leader left behind with it."""
        if self._process.poll() is None:
            self._signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_GRACE_S)
        self._signal(signal.SIGKILL)
        self._process.wait()

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)


class _Feed:
    """What a program is sent, as fast as it takes it."""

    def __init__(self, stream: IO[bytes] | None, source: Iterator[bytes]) -> None:
        assert stream is not None
        self.stream = stream
        self._source = source
        self._rest = memoryview(b"")
        os.set_blocking(stream.fileno(), False)

    def send(self) -> bool:
        """Sends a piece; False where nothing is left or nobody listens."""
        if not self._rest:
            self._rest = memoryview(next(self._source, b""))
        if not self._rest:
            return False
        try:
            self._rest = self._rest[os.write(self.stream.fileno(), self._rest) :]
        except BlockingIOError:
            return True
        except BrokenPipeError:
            return False
        return True

    def close(self) -> None:
        """Says that nothing follows."""
        with contextlib.suppress(BrokenPipeError):
            self.stream.close()
