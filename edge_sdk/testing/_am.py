"""The phone's ``am``: runs the SDK's own Python runner where a real phone would start the app.

``python _am.py PYTHON RUNTIMES INSTALLED LOGCAT instrument|force-stop ...``. It imports nothing of the package.

Source of its words: AOSP, cmds/am/src/com/android/commands/am/Instrument.java.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

MARK = "EDGE_SDK_STANDIN"
APP = "EDGE_SDK_STANDIN_APP"
_PR_SET_PDEATHSIG = 1
_LOOK_MS = 200


def say(*lines: str) -> None:
    """Prints at once."""
    for line in lines:
        sys.stdout.write(line + "\n")
    sys.stdout.flush()


def fail(message: str) -> int:
    """Ends as an exception of ``am`` does."""
    sys.stderr.write(f"android.util.AndroidException: {message}\n")
    sys.stderr.write("\tat com.android.commands.am.Instrument.run(Instrument.java:519)\n")
    return 1


class Options:
    """The command line of ``am instrument``."""

    def __init__(self, words: list[str]) -> None:
        self.flags: set[str] = set()
        self.extras: dict[str, str] = {}
        self.component = ""
        words = list(words)
        while words:
            word = words.pop(0)
            if word == "-e" and len(words) >= 2:
                key = words.pop(0)
                self.extras[key] = words.pop(0)
            elif word.startswith("-"):
                self.flags.add(word)
            else:
                self.component = word


def die_with(parent: int) -> None:
    """This process ends when its parent does."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


class Instrumentation:
    """One run of a runner as an app's instrumentation."""

    def __init__(self, python: str, runner: Path, request: str, package: str, logcat: str) -> None:
        parent = os.getpid()
        with open(logcat, "ab") as log:
            self.process = subprocess.Popen(
                [python, str(runner), request],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=os.environ | {APP: package},
                preexec_fn=lambda: die_with(parent),  # noqa: PLW1509 - this program has no other thread
            )
        self.last = b""
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, self._stop)

    def _stop(self, number: int, _frame: object) -> None:
        self.process.kill()
        self.process.wait()
        os._exit(128 + number)

    def lines(self):
        """The runner's lines. Ends this process where nobody reads its output any more, or its parent is gone."""
        assert self.process.stdout
        source, parent = self.process.stdout.fileno(), os.getppid()
        poll = select.poll()
        poll.register(source, select.POLLIN)
        poll.register(1, 0)
        rest = b""
        while True:
            for descriptor, _ in poll.poll(_LOOK_MS):
                if descriptor == 1:
                    self._stop(signal.SIGPIPE, None)
                data = os.read(source, 1 << 18)
                if not data:
                    return
                *whole, rest = (rest + data).split(b"\n")
                yield from whole
            if os.getppid() != parent:
                self._stop(signal.SIGHUP, None)

    def run(self) -> int:
        """Passes the protocol's lines on and ends with how the runner ended."""
        for line in self.lines():
            self.last = line
            try:
                sys.stdout.buffer.write(b"INSTRUMENTATION_STATUS: edge_sdk=" + line + b"\n")
                say("INSTRUMENTATION_STATUS_CODE: 1")
            except BrokenPipeError:
                self._stop(signal.SIGPIPE, None)
        self.process.wait()
        try:
            ended = json.loads(self.last).get("type") in ("result", "error")
        except (ValueError, AttributeError):
            ended = False
        if ended:
            say("INSTRUMENTATION_CODE: -1")
        else:
            say("INSTRUMENTATION_RESULT: shortMsg=Process crashed.", "INSTRUMENTATION_CODE: 0")
        return 0


def instrument(python: str, runtimes: Path, installed: Path, logcat: str, words: list[str]) -> int:
    """``am instrument``."""
    options = Options(words)
    package, _, name = options.component.partition("/")
    if not package or not name:
        sys.stderr.write(f"Error: Bad component name: {options.component}\n")
        return 1
    full = f"{package}/{package + name if name.startswith('.') else name}"
    if full != "dev.edgesdk.runner/dev.edgesdk.runner.RunnerInstrumentation" or package not in (
        installed.read_text().split()
    ):
        say(
            f"INSTRUMENTATION_STATUS: Error=Unable to find instrumentation info for: ComponentInfo{{{full}}}",
            "INSTRUMENTATION_STATUS: id=ActivityManagerService",
            "INSTRUMENTATION_STATUS_CODE: -1",
        )
        if "-r" in options.flags:
            say(f"onError: commandError=true message=INSTRUMENTATION_FAILED: {full}")
        return fail(f"INSTRUMENTATION_FAILED: {full}")
    runtime, request = options.extras.get("runtime", ""), options.extras.get("request", "")
    runner = runtimes / runtime / "runner.py"
    if not runtime.isidentifier() or not runner.is_file():
        line = {
            "type": "error",
            "stage": "request",
            "kind": "missing_runtime",
            "message": f"the app has no runtime '{runtime}'",
        }
        say(
            f"INSTRUMENTATION_STATUS: edge_sdk={json.dumps(line, separators=(',', ':'))}",
            "INSTRUMENTATION_STATUS_CODE: 1",
            "INSTRUMENTATION_CODE: -1",
        )
        return 0
    return Instrumentation(python, runner, request, package, logcat).run()


def force_stop(package: str) -> int:
    """``am force-stop``: ends the app's processes of this phone, however they were started."""
    marks = {f"{MARK}={os.environ.get(MARK, '')}".encode(), f"{APP}={package}".encode()}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            if marks <= set((folder / "environ").read_bytes().split(b"\0")):
                os.kill(int(folder.name), signal.SIGKILL)
        except OSError:
            continue  # it ended meanwhile, or it is another user's
    return 0


def main(python: str, runtimes: str, installed: str, logcat: str, *words: str) -> int:
    """Runs one command of ``am``."""
    if words[:1] == ("instrument",):
        return instrument(python, Path(runtimes), Path(installed), logcat, list(words[1:]))
    if len(words) == 2 and words[0] == "force-stop":
        return force_stop(words[1])
    sys.stderr.write(f"Unknown command: {' '.join(words[:1]) or '(none)'}\n")
    return 255


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
