"""Ctrl-C and termination requests: the work is unwound, so that nothing stays half written."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_DEAF_S = 2.0
"""For how long a second request is not heard, so that it does not tear the clean-up after the first."""


class Stopped(KeyboardInterrupt):
    """A request to stop. ``exit_code`` is 128 and the signal's number, as a shell reports it."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.exit_code = 128 + signum


@contextmanager
def clean_stop() -> Iterator[None]:
    """Raises `Stopped` inside the block on SIGINT and SIGTERM.

    In another thread than the main one, where Python hears no signals, it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    last, asked = float("-inf"), None

    def stop(signum: int, _: object) -> None:
        nonlocal last, asked
        now = time.monotonic()
        if now - last > _DEAF_S:
            last, asked = now, Stopped(signum)
            raise asked

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except Exception as error:
        if asked is not None:  # a compiled module that is interrupted while it loads raises an error of its own
            raise asked from error
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
