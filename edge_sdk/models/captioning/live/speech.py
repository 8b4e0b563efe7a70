"""Captions aloud, by pyttsx3 and the voice of the system (espeak-ng on Linux): nothing leaves the machine."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress

# In a process of its own: audio libraries chatter, hang where a device is busy, and cannot be stopped by a call.
# What a player says on its way is why nothing was heard, since pyttsx3 does not look at how it ended.
_PROGRAM = """
import sys
import pyttsx3
engine = pyttsx3.init()
engine.say(sys.argv[1])
engine.runAndWait()
"""
_LONGEST_S = 30.0
_MOST_LETTERS = 500


class Speaker:
    """Says texts, the latest one: another breaks off the one before.

    Args:
        tell: Called once with the reason where nothing can be heard; texts are then passed over.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="edge-sdk-speech-")  # pyttsx3 leaves a file if broken off
        self.is_mute = False
        if problem := _missing():
            self._give_up(problem)

    def say(self, text: str) -> None:
        """Begins to say a text, and returns at once."""
        if self.is_mute or not text:
            return
        self.stop()
        command = [sys.executable, "-c", _PROGRAM, text[:_MOST_LETTERS]]
        with self._lock:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                env={**os.environ, "TMPDIR": self._folder.name},
                start_new_session=True,
            )
        threading.Thread(target=self._listen, args=(self._process,), name="speech", daemon=True).start()

    def stop(self) -> None:
        """Breaks off what is being said."""
        with self._lock:
            process, self._process = self._process, None
        if process is not None and process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def wait(self) -> None:
        """Waits until the latest text was said."""
        with self._lock:
            process = self._process
        if process is not None:
            with suppress(subprocess.TimeoutExpired):
                process.wait(_LONGEST_S)

    def close(self) -> None:
        """Is silent from now on."""
        self.is_mute = True
        self.stop()
        self._folder.cleanup()

    def _listen(self, process: subprocess.Popen[str]) -> None:
        said, _ = process.communicate()
        with self._lock:
            was_stopped = self._process is not process
        if was_stopped:
            return
        words = [line for line in said.splitlines() if line.strip()]
        if process.returncode:
            reason = words[-1][:200] if words else f"the voice ended with exit code {process.returncode}"
            self._give_up(f"{reason} (Linux needs the package espeak-ng)" if _is_linux() else reason)
        elif words:
            self._give_up(words[-1][:200])

    def _give_up(self, reason: str) -> None:
        if not self.is_mute:
            self.is_mute = True
            self._tell(f"no sound: {reason}. Captions go on in text")


def _missing() -> str:
    """What speech lacks on this machine, empty where it lacks nothing that can be seen."""
    if importlib.util.find_spec("pyttsx3") is None:
        return "pyttsx3 is not installed (pip install 'edge-sdk[live]')"
    if _is_linux() and shutil.which("aplay") is None:
        return "the program aplay is not installed (Debian: alsa-utils, and espeak-ng for the voice)"
    return ""


def _is_linux() -> bool:
    return sys.platform.startswith("linux")
