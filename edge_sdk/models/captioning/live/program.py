"""The live program: shows the stream, and does what keys or a script say."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from time import perf_counter, sleep
from typing import TYPE_CHECKING, Any, Protocol

from edge_sdk.errors import DeviceError, EdgeSdkError
from edge_sdk.models.captioning.live.choices import Choice, Offers, menu
from edge_sdk.models.captioning.live.commands import HELP, KEYS, Command
from edge_sdk.models.captioning.live.tally import Tally
from edge_sdk.profiling.monitor import WINDOW

if TYPE_CHECKING:
    from edge_sdk.models.captioning.live.captioner import Said
    from edge_sdk.models.captioning.live.source import Frame, Stream
    from edge_sdk.models.captioning.live.speech import Speaker

ESCAPE = "\x1b"
_TICK_S = 0.02
_NOTES = 4
_JOIN_S = 10.0


class Captioner(Protocol):
    """What says captions, loaded and ready."""

    about: dict[str, Any]
    """See `Tally`."""

    def caption(self, square: Any, /) -> Said:
        """The caption of a square of a photo."""
        ...

    def close(self) -> None:
        """Ends it."""
        ...


Open = Callable[[Choice, Callable[[str], None]], Captioner]
"""Compiles and loads a choice; called with what takes a line as each stage starts."""


@dataclass(frozen=True)
class Screen:
    """One moment, as the faces show it.

    Attributes:
        title: Model and precision.
        about: See `Tally`.
        source: As people are told of it.
        frame: The newest one, None before the first.
        shown_per_s: Frames shown a second, None before there are two.
        caption: The latest one.
        said: What it took, None before the first of this model and precision.
        statistics: `Tally.document` of the model and precision.
        busy: What is being done, empty where nothing is.
        notes: The latest messages.
        menu: Lines of the menu that is open.
        is_asked: Whether the statistics were asked for and are to be shown whole.
    """

    title: str
    about: dict[str, Any]
    source: str
    frame: Frame | None
    shown_per_s: float | None
    caption: str
    said: Said | None
    statistics: dict[str, Any]
    busy: str
    notes: tuple[str, ...]
    menu: tuple[str, ...]
    is_asked: bool


class Face(Protocol):
    """Shows the program to somebody, and gives the keys that they press."""

    def show(self, screen: Screen) -> None:
        """Shows a moment; it decides itself how often it draws."""
        ...

    def tell(self, kind: str, text: str) -> None:
        """Says that something happened: once each."""
        ...

    def keys(self) -> str:
        """The keys pressed since the last call."""
        ...

    def close(self) -> None:
        """Takes it down."""
        ...


class _Job:
    """Work in a thread."""

    def __init__(self, work: Callable[[], Any], name: str) -> None:
        self.result: Any = None
        self.error: Exception | None = None
        self._work = work
        self.begin_s = perf_counter()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.result = self._work()
        except Exception as error:  # it is raised or told where the job is looked after
            self.error = error

    @property
    def is_done(self) -> bool:
        return not self._thread.is_alive()

    def join(self, timeout_s: float) -> None:
        self._thread.join(timeout_s)


@dataclass
class Outcome:
    """What the program leaves.

    Attributes:
        ended: Why it ended.
        events: What happened, in order.
        statistics: `Tally.document` of each choice that was loaded.
        error: The first error that did not end it at once, or that ended its stream.
    """

    ended: str = ""
    events: list[dict[str, Any]] = field(default_factory=list)
    statistics: list[dict[str, Any]] = field(default_factory=list)
    error: EdgeSdkError | None = None


class Program:
    """Runs until somebody quits, the script is done, or the stream ends.

    Args:
        stream: Not yet begun: it is, and ended, by `run`.
        offers: What can be chosen.
        choice: What is loaded.
        captioner: It; the program closes it.
        open_captioner: Loads another.
        cancel: Breaks that off.

    Attributes:
        faces: Who is shown it; the program takes them down.
        speaker: Says captions aloud, None where nobody wants to hear them; the program closes it.
    """

    def __init__(
        self,
        stream: Stream,
        offers: Offers,
        choice: Choice,
        captioner: Captioner,
        open_captioner: Open,
        cancel: Callable[[], None] = lambda: None,
    ) -> None:
        self.faces: Sequence[Face] = ()
        self.speaker: Speaker | None = None
        self._stream, self._offers, self._open, self._cancel = stream, offers, open_captioner, cancel
        self._captioner = captioner
        self._tally = Tally(choice, captioner.about)
        self._tallies = {choice: self._tally}
        self._caption = ""
        self._said: Said | None = None
        self._captioning: _Job | None = None
        self._switching: _Job | None = None
        self._wanted = choice
        self._stage = ""
        self._script: deque[Command] = deque()
        self._wait_until_s = 0.0
        self._menu: tuple[str, ...] = ()
        self._model_number = 0
        self._is_asked = False
        self._shown: deque[float] = deque(maxlen=WINDOW)
        self._shown_number = self._frame_number = 0
        self._begin_s = perf_counter()
        self._notes: deque[str] = deque(maxlen=_NOTES)
        self._late_notes: deque[str] = deque()
        self._outcome = Outcome()

    def note(self, text: str) -> None:
        """Takes a message from any thread; it is shown at the next moment."""
        self._late_notes.append(text)

    def run(self, script: Sequence[Command] = (), stays: bool = False) -> Outcome:
        """Runs to the end.

        Args:
            script: Commands; the program waits for each to be done before it goes on.
            stays: Whether it goes on for the keys after the script.

        Raises:
            EdgeSdkError: No frame ever came.
        """
        self._script.extend(script)
        if script and not stays:
            self._script.append(Command("quit"))
        try:
            with self._stream:
                while not self._outcome.ended:
                    self._step()
                    sleep(_TICK_S)
                self._show()
                if self.speaker is not None and self._outcome.ended == "quit" and script:
                    self.speaker.wait()  # what a script had said last is heard to its end
        finally:
            self._close()
        self._outcome.statistics = [tally.document() for tally in self._tallies.values()]
        return self._outcome

    def _step(self) -> None:
        while self._late_notes:
            self._note("note", self._late_notes.popleft())
        self._collect()
        for face in self.faces:
            for key in face.keys():
                self._press(key)
        self._look_at_the_stream()
        self._follow_the_script()
        self._show()

    # What is under way.

    def _collect(self) -> None:
        """Takes in what threads have finished."""
        if self._captioning is not None and self._captioning.is_done:
            job, self._captioning = self._captioning, None
            if job.error is not None:
                self._failed("no caption", job.error)
            else:
                self._take(job.result)
        # The captioner is changed between two captions.
        if self._switching is not None and self._switching.is_done and self._captioning is None:
            job, self._switching = self._switching, None
            if job.error is not None:
                self._failed("no switch", job.error)
            else:
                self._change(job.result, perf_counter() - job.begin_s)

    def _take(self, said: Said) -> None:
        self._tally.add(said)
        self._said, self._caption = said, said.text
        self._event(
            "caption",
            said.text or "(nothing)",
            title=self._tally.choice.title,
            frame=self._frame_number,
            latency_ms=said.latency_ms,
            encoder_ms=said.encoder_ms,
            steps_ms=sum(said.steps_ms),
            steps=len(said.steps_ms),
            with_host_ms=said.wall_ms,
        )
        self._speak()

    def _change(self, captioner: Captioner, took_s: float) -> None:
        choice, before, self._captioner = self._wanted, self._captioner, captioner
        before.close()
        self._tally = self._tallies.setdefault(choice, Tally(choice, captioner.about))
        self._said = None
        self._event("loaded", f"{choice.title} is loaded", took_s=took_s, **captioner.about)

    # What is asked for.

    def _press(self, key: str) -> None:
        if self._menu:
            self._choose(key)
            return
        kind = KEYS.get(key.upper())
        if kind is not None:
            self._do(Command(kind))
        elif key.isprintable() and not key.isspace():
            self._note("note", f"key '{key}' does nothing: {HELP}")

    def _do(self, command: Command) -> None:
        if command.kind == "caption":
            self._begin_caption()
        elif command.kind == "repeat":
            self._event("repeat", self._caption or "there is no caption yet")
            self._speak()
        elif command.kind == "statistics":
            self._is_asked = not self._is_asked or bool(self._script)
            if self._is_asked:
                self._event("statistics", self._tally.choice.title, **self._tally.document())
        elif command.kind == "switch" and command.model:
            try:
                self._switch(self._offers.numbered(command.model, command.precision))
            except EdgeSdkError as error:
                self._failed("no switch", error)
        elif command.kind == "switch":
            self._menu = (*menu("Choose a model", self._offers.models), "", "Model (Esc: none):")
        elif command.kind == "wait":
            self._wait_until_s = perf_counter() + command.seconds
        elif command.kind == "quit":
            self._outcome.ended = "quit"

    def _choose(self, key: str) -> None:
        """A key while a menu is open."""
        if key == ESCAPE or key.upper() in ("M", "Q"):
            self._menu, self._model_number = (), 0
        elif key.isdecimal() and not self._model_number:
            number = int(key)
            if self._is_offered(self._offers.models, number):
                self._model_number = number
                lines = menu(f"Choose a precision for {self._offers.models[number - 1].title}", self._offers.precisions)
                self._menu = (*lines, "", "Precision (Esc: none):")
        elif key.isdecimal() and self._is_offered(self._offers.precisions, int(key)):
            model, self._model_number, self._menu = self._model_number, 0, ()
            self._do(Command("switch", model, int(key)))

    def _is_offered(self, offers: Sequence[Any], number: int) -> bool:
        """Whether a number stands in a menu and can be taken; the menu shows why not."""
        return 1 <= number <= len(offers) and not offers[number - 1].problem

    def _begin_caption(self) -> None:
        frame, captioner = self._stream.newest, self._captioner
        if self._captioning is not None or frame is None:
            what = "a caption is on its way" if self._captioning is not None else "nothing to caption yet"
            self._note("note", f"{what}: wait a moment")
            return
        self._is_asked, self._frame_number = False, frame.number
        self._captioning = _Job(lambda: captioner.caption(frame.square()), "caption")

    def _switch(self, choice: Choice) -> None:
        if self._switching is not None:
            self._note("note", f"{self._wanted.title} is being loaded: wait a moment")
            return
        self._offers.check(choice)
        if self._tally.choice == choice:
            self._note("note", f"{choice.title} runs already")
            return
        self._wanted, self._stage, self._is_asked = choice, "compiling", False

        def say(stage: str) -> None:
            self._stage = stage

        self._switching = _Job(lambda: self._open(choice, say), "switch")

    def _follow_the_script(self) -> None:
        if not self._script:
            return
        is_busy = self._captioning is not None or self._switching is not None
        is_blind = self._stream.newest is None and not self._stream.has_ended
        if is_busy or is_blind or perf_counter() < self._wait_until_s:
            return
        self._do(self._script.popleft())

    def _look_at_the_stream(self) -> None:
        stream = self._stream
        if not stream.has_ended or self._outcome.ended:
            return
        if stream.error is not None:
            if stream.newest is None:
                raise stream.error
            if self._captioning is None:
                self._outcome.ended = "the stream broke off"
                self._failed("the stream broke off", stream.error)
        elif not self._script and self._captioning is None and self._switching is None:
            self._outcome.ended = f"{stream.source.title} has ended"
            self._note("note", self._outcome.ended)

    # What is told.

    def _speak(self) -> None:
        if self.speaker is not None and self._caption:
            self.speaker.say(self._caption)

    def _failed(self, what: str, error: Exception) -> None:
        known = error if isinstance(error, EdgeSdkError) else DeviceError(f"{type(error).__name__}: {error}")
        self._outcome.error = self._outcome.error or known
        self._note("error", f"{what}: {known}")

    def _note(self, kind: str, text: str) -> None:
        self._event(kind, text)
        self._notes.append(text)

    def _event(self, kind: str, text: str, **facts: Any) -> None:
        t_s = round(perf_counter() - self._begin_s, 3)
        self._outcome.events.append({"t_s": t_s, "kind": kind, "text": text, **facts})
        for face in self.faces:
            face.tell(kind, text)

    def _show(self) -> None:
        frame = self._stream.newest
        if frame is not None and frame.number != self._shown_number:
            self._shown_number = frame.number
            self._shown.append(perf_counter())
        tally = self._tally
        span_s = self._shown[-1] - self._shown[0] if len(self._shown) > 1 else 0.0
        screen = Screen(
            title=tally.choice.title,
            about=tally.about,
            source=self._stream.source.title,
            frame=frame,
            shown_per_s=(len(self._shown) - 1) / span_s if span_s else None,
            caption=self._caption,
            said=self._said,
            statistics=tally.document(),
            busy=self._busy(),
            notes=tuple(self._notes),
            menu=self._menu,
            is_asked=self._is_asked,
        )
        for face in self.faces:
            face.show(screen)

    def _busy(self) -> str:
        if self._switching is not None:
            return f"{self._wanted.title}: {self._stage}, {perf_counter() - self._switching.begin_s:.0f} s"
        return "looking" if self._captioning is not None else ""

    def _close(self) -> None:
        with ExitStack() as stack:
            for one in (*self.faces, self.speaker, self._captioner):
                if one is not None:
                    stack.callback(one.close)
            if self._switching is not None:
                self._cancel()
                self._switching.join(_JOIN_S)
                if self._switching.result is not None:
                    stack.callback(self._switching.result.close)
            if self._captioning is not None:
                self._captioning.join(_JOIN_S)
