"""What a verb says: its result to standard output, its progress to standard error."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from edge_sdk.errors import StorageError
from edge_sdk.reporting.text import clean

if TYPE_CHECKING:
    from rich.console import RenderableType

    from edge_sdk.schema.report import Report

_PLAIN_COLUMNS = 120
"""Width where nobody looks on: in a pipe or a file."""


class Output:
    """The two streams of a verb.

    Args:
        stdout: Where the result goes.
        stderr: Where progress goes.
        as_json: Whether the result is one JSON document instead of tables.
    """

    def __init__(self, stdout: TextIO, stderr: TextIO, *, as_json: bool) -> None:
        self.as_json = as_json
        self._stdout = stdout
        self._stderr = stderr

    @property
    def is_live(self) -> bool:
        """Whether `live` draws in place: standard output is a terminal, and no JSON is wanted."""
        return not self.as_json and self._stdout.isatty()

    def tell(self, line: str) -> None:
        """Says a line on standard error."""
        print(clean(line, keep="\n"), file=self._stderr, flush=True)

    def ask(self, question: str) -> str | None:
        """Asks on standard error, and gives the line that was typed; None where the input has ended."""
        print(clean(question, keep="\n"), end="", file=self._stderr, flush=True)
        return sys.stdin.readline() or None

    def result(self, document: Mapping[str, Any], view: Callable[[], RenderableType]) -> None:
        """Prints the result; called once a run.

        Args:
            document: The JSON document.
            view: Makes the tables for people; not called where JSON is wanted.

        Raises:
            StorageError: Standard output cannot be written.
        """
        try:
            if self.as_json:
                self._stdout.write(json.dumps(document, indent=2, allow_nan=False) + "\n")
            else:
                # Printed through a text of our own, since Rich ends the program where the reader went away.
                console = self._console(self._stdout)
                with console.capture() as text:
                    console.print(view(), crop=False)
                self._stdout.write(text.get())
            self._stdout.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise StorageError(f"cannot write to standard output: {error.strerror}") from error

    @contextmanager
    def live(
        self, screen: Callable[[Any], RenderableType], line: Callable[[Any], str]
    ) -> Iterator[Callable[[Mapping[str, Any], Any], None]]:
        """Yields what shows a value that changes: on a terminal in place, elsewhere as a line each.

        Args:
            screen: Makes the screen of a value.
            line: Makes its line.
        """
        if not self.is_live:

            def tell(document: Mapping[str, Any], value: Any) -> None:
                text = json.dumps(document, allow_nan=False) if self.as_json else line(value)
                self._stdout.write(text + "\n")
                self._stdout.flush()

            yield tell
            return
        from rich.live import Live

        with Live(console=self._console(self._stdout), auto_refresh=False, vertical_overflow="crop") as live:
            yield lambda _, value: live.update(screen(value), refresh=True)

    def report(self, report: Report) -> None:
        """Prints a report as the result.

        Raises:
            StorageError: Standard output cannot be written.
        """

        def view() -> RenderableType:
            from edge_sdk.reporting.tables import report_view

            return report_view(report)

        self.result(report.model_dump(mode="json"), view)

    @contextmanager
    def progress(self) -> Iterator[Callable[[str], None]]:
        """Yields what is called with one line as each stage starts.

        On a terminal the line of a stage gets its duration when it ends; elsewhere each stage is a line
        with the time since the first. Nothing is animated: a busy parent would disturb what is measured.
        """
        with self._rewritten() if self._stderr.isatty() else self._lines() as started:
            yield started

    @contextmanager
    def _lines(self) -> Iterator[Callable[[str], None]]:
        begun = time.perf_counter()

        def say(words: str) -> None:
            print(f"[{time.perf_counter() - begun:6.1f} s] {clean(words)}", file=self._stderr, flush=True)

        yield say
        say("done")

    @contextmanager
    def _rewritten(self) -> Iterator[Callable[[str], None]]:
        stage, begun = "", 0.0

        def finish() -> None:
            if stage:
                print(f"\r\x1b[K  {stage}, {time.perf_counter() - begun:.1f} s", file=self._stderr, flush=True)

        def start(words: str) -> None:
            nonlocal stage, begun
            finish()
            room = shutil.get_terminal_size().columns - len("   ...")
            stage, begun = clean(words)[:room], time.perf_counter()
            print(f"  {stage} ...", end="", file=self._stderr, flush=True)

        try:
            yield start
        except BaseException:
            if stage:
                print(file=self._stderr)
            raise
        finish()

    @staticmethod
    def _console(stream: TextIO):
        from rich.console import Console

        width = None if stream.isatty() or "COLUMNS" in os.environ else _PLAIN_COLUMNS
        return Console(file=stream, width=width, markup=False, highlight=False, emoji=False)
