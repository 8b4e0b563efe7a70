"""The protocol's channel: JSON lines where the runtime's own chatter cannot reach."""

from __future__ import annotations

import json
import os
import sys
from time import monotonic

MAX_TEXT = 2000
BEAT_S = 1.0


class Channel:
    """Writes messages, each as one line. ``stage`` is what an ``error`` names."""

    def __init__(self, descriptor):
        self.stage = "start"
        self._descriptor = descriptor
        self._sending = False
        self._interrupted = None
        self._last_beat = monotonic()

    @classmethod
    def claim(cls):
        """Takes the original standard output for messages and points descriptor 1 at standard error.

        To be called before anything else is imported: what a library then prints, in Python or in
        C, ends on standard error. Child processes do not inherit the channel.
        """
        sys.stdout.flush()
        descriptor = os.dup(1)
        os.dup2(2, 1)
        return cls(descriptor)

    def send(self, kind, /, **fields):
        """Sends one message; ``kind`` is its type."""
        line = json.dumps(dict(type=kind, **fields), separators=(",", ":"), allow_nan=False).encode() + b"\n"
        self._sending = True
        rest = memoryview(line)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]
        self._sending = False
        if self._interrupted is not None:
            self._end(self._interrupted)

    def progress(self, stage, done=None, total=None):
        """Says that a stage begins, or how far it is."""
        self.stage = stage
        self._last_beat = monotonic()
        self.send("progress", stage=stage, done=done, total=total)

    def beat(self, done, total=None):
        """Says how far the present stage is, at most once a second, so that the host knows of life.

        Returns:
            Whether it was said now.
        """
        due = monotonic() - self._last_beat >= BEAT_S
        if due:
            self.progress(self.stage, done, total)
        return due

    def error(self, kind, text):
        """Sends the one message that ends a run that failed."""
        self.send("error", stage=self.stage, kind=kind, message=text[:MAX_TEXT])

    def interrupt(self, number, _frame):
        """The signal handler: ends the process at once, but not in the middle of a line."""
        if self._sending:
            self._interrupted = number
        else:
            self._end(number)

    def _end(self, number):
        self._interrupted = None
        try:
            self.error("interrupted", "stopped by signal %d" % number)
        finally:
            os._exit(128 + number)
