"""A link to a device: commands that run there through the user's own ``ssh`` or ``adb``.

One primitive carries everything else (push, pull, lock, run): a script of POSIX sh with bytes in
and bytes out. The genuine clients are used as they are, so that what the user reaches in a
terminal is reached here too: their configuration, agents, jump hosts and server.
"""

from __future__ import annotations

import os
import shlex
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

from edge_sdk.devices._process import Child, Limits
from edge_sdk.devices._protocol import BrokenStreamError, plain
from edge_sdk.errors import DeviceError, LinkLostError, MissingDependencyError

END = b"@edge-sdk-end "
"""Before the exit code on the last line of what a script prints: where it is missing, the link dropped."""
_MOST_BYTES = 1 << 20
_CODE_BYTES = 16
_QUICK_S = 30.0


@dataclass(frozen=True)
class Done:
    """How a script ended: its exit code, its standard output, the end of its standard error."""

    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        """Standard output as text of the device: no terminal escapes, no control characters."""
        return plain(self.out.decode(errors="replace"))

    @property
    def reason(self) -> str:
        """Standard error as one line."""
        return " ".join(plain(self.err).split())[-400:] or f"exit code {self.code}"


class Link(ABC):
    """Runs scripts on one device. It is safe to use from several threads.

    Args:
        uri: The device, for messages.
    """

    client: ClassVar[str]
    """The program that makes the link."""
    package: ClassVar[str]
    """What to install for it, in words."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._client = self.program(f"device '{uri}': ")

    @classmethod
    def program(cls, where: str = "") -> str:
        """The path of the client.

        Raises:
            MissingDependencyError: It is not on this machine; the message begins with ``where``.
        """
        if path := shutil.which(cls.client):
            return path
        raise MissingDependencyError(
            f"{where}the program '{cls.client}' is not on this machine. Install {cls.package}."
        )

    @abstractmethod
    def command(self, script: str) -> list[str]:
        """The client's command line that runs a script on the device."""

    @abstractmethod
    def refusal(self, words: str) -> DeviceError | None:
        """The error for words of the client that no further try mends, None where one may."""

    def open(self) -> None:  # noqa: B027 - a link that needs nothing beforehand has nothing to do
        """Makes the link again where it dropped; the next command would find out otherwise."""

    def close(self) -> None:  # noqa: B027 - a link that keeps nothing has nothing to give back
        """Gives back what the link holds on this machine."""

    def child(self, script: str, limits: Limits, *, stdin: bool = False) -> Child:
        """Starts a script as a program of its own; the caller reads it and ends it."""
        return Child(self.command(script), os.environ, limits, stdin=stdin)

    def run(
        self,
        script: str,
        step: str,
        *,
        source: Iterator[bytes] | None = None,
        sink: Callable[[bytes], object] | None = None,
        silence_s: float = _QUICK_S,
        overall_s: float = 3600.0,
        most_bytes: int = _MOST_BYTES,
    ) -> Done:
        """Runs a script to its end.

        Args:
            script: POSIX sh.
            step: What it is for, in messages.
            source: What it reads from standard input.
            sink: Takes standard output as it comes; None keeps it for `Done.out`.
            silence_s: How long nothing may move.
            overall_s: How long it may take.
            most_bytes: How much it may say.

        Raises:
            LinkLostError: The link dropped before the script had ended.
            DeviceError: The device does not let us in, hangs, or says too much.
        """
        limits = Limits(total_bytes=most_bytes + 64, silence_s=silence_s, overall_s=overall_s)
        ended = f"(\n{script}\n)\nprintf '\\n{END.decode()}%s\\n' \"$?\""
        kept = bytearray()
        last = b""
        with self.child(ended, limits, stdin=source is not None) as child:
            try:
                for chunk in child.exchange(source):
                    last += chunk
                    ready, last = last[: -len(END) - _CODE_BYTES], last[-len(END) - _CODE_BYTES :]
                    (sink or kept.extend)(ready)
                child.exit_code()
            except BrokenStreamError as error:
                raise DeviceError(f"device '{self.uri}': step '{step}' failed: {error}") from error
            words = child.tail()
        body, mark, code = last.rpartition(b"\n" + END)
        if not mark or not code.strip().isdigit():
            raise self.lost(words, step)
        (sink or kept.extend)(body)
        return Done(int(code), bytes(kept), words)

    def lost(self, words: str, step: str) -> DeviceError:
        """The error for a command whose end never came, by what the client said."""
        if refused := self.refusal(words):
            return refused
        said = " ".join(plain(words).split())[-300:] or f"{self.client} ended without a word"
        return LinkLostError(f"device '{self.uri}': the link dropped at step '{step}': {said}")


def quoted(*words: str) -> str:
    """Words as arguments of a shell line."""
    return " ".join(map(shlex.quote, words))
