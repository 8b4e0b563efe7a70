"""The live program's loop: keys, scripts, switches, errors. What says captions is a stand-in; the rest is real."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import pytest

from edge_sdk.errors import DeviceError, ModelError
from edge_sdk.models.captioning.live.captioner import Said
from edge_sdk.models.captioning.live.choices import Choice, Offers
from edge_sdk.models.captioning.live.commands import parse_script
from edge_sdk.models.captioning.live.program import Outcome, Program, Screen
from edge_sdk.models.captioning.live.source import Source, Stream
from edge_sdk.schema.messages import SessionMemory

FIRST, SECOND = Choice("original", "fp32"), Choice("pruned", "int8-dynamic")


class Frames(Source):
    """A hundred frames a second: ``count`` of them, then an error where there is one."""

    kind, title = "video", "frames"

    def __init__(self, count: int = 1 << 30, error: Exception | None = None) -> None:
        self._count, self._error = count, error

    def frames(self, stop: threading.Event):
        for _ in range(self._count):
            yield np.zeros((8, 8, 3), np.uint8)
            if stop.wait(0.01):
                return
        if self._error is not None:
            raise self._error


class Stand:
    """Says the same each time; ``wait`` holds it up."""

    def __init__(self, text: str = "a dog", error: Exception | None = None) -> None:
        self.about: dict[str, Any] = {"bundle": "b", "size_bytes": 5, "runtime": "fake 1 (cpu)", "device": "local"}
        self.is_closed, self.calls = False, 0
        self._text, self._error = text, error

    def caption(self, square: Any) -> Said:
        assert square.size == (8, 8) and not self.is_closed
        self.calls += 1
        if self._error is not None:
            raise self._error
        return Said(self._text, 3.0, (1.0, 2.0), 9.0, SessionMemory(resident_mib=100.0 + self.calls, gpu_mib=None))

    def close(self) -> None:
        self.is_closed = True


@dataclass
class Watcher:
    """A face that keeps what it is shown, and presses keys when a screen is as a test waits for it."""

    presses: deque[tuple[Callable[[Screen], bool], str]] = field(default_factory=deque)
    screens: list[Screen] = field(default_factory=list)
    told: list[tuple[str, str]] = field(default_factory=list)
    is_closed: bool = False

    def show(self, screen: Screen) -> None:
        self.screens.append(screen)

    def tell(self, kind: str, text: str) -> None:
        self.told.append((kind, text))

    def keys(self) -> str:
        if self.presses and self.screens and self.presses[0][0](self.screens[-1]):
            return self.presses.popleft()[1]
        return ""

    def close(self) -> None:
        self.is_closed = True


@dataclass
class Voice:
    """A speaker that keeps what it was to say."""

    said: list[str] = field(default_factory=list)
    is_closed: bool = False

    def say(self, text: str) -> None:
        self.said.append(text)

    def wait(self) -> None:
        pass

    def close(self) -> None:
        self.is_closed = True


class Stage:
    """A program with everything that is around it."""

    def __init__(self, folder: Path, source: Source | None = None, first: Stand | None = None) -> None:
        paths = {name: folder / f"{name}.pt" for name in ("original", "pruned")}
        for path in paths.values():
            path.write_bytes(b"")
        self.source, self.first = source or Frames(), first or Stand()
        self.second = Stand("a cat")
        self.watcher, self.voice = Watcher(), Voice()
        self.opening: Callable[[Choice, Callable[[str], None]], Stand] = lambda *_: self.second
        self.was_cancelled = threading.Event()
        self.program = Program(
            Stream(self.source),
            Offers(paths),
            FIRST,
            self.first,
            lambda choice, say: self.opening(choice, say),
            self.was_cancelled.set,
        )
        self.program.faces = [self.watcher]
        self.program.speaker = self.voice  # type: ignore[assignment]

    def run(self, script: str = "", stays: bool = False) -> Outcome:
        done: list[Outcome | Exception] = []

        def target() -> None:
            try:
                done.append(self.program.run(parse_script(script) if script else (), stays))
            except Exception as error:
                done.append(error)

        thread = threading.Thread(target=target, daemon=True)
        thread.start()
        thread.join(20)
        assert done, "the program did not end"
        if isinstance(done[0], Exception):
            raise done[0]
        assert self.first.is_closed and self.watcher.is_closed and self.voice.is_closed
        return done[0]

    def press(self, *keys: str) -> None:
        """Presses keys one after another, each when the one before has had its effect on the screen."""
        for key in keys:
            self.watcher.presses.append((lambda screen: screen.frame is not None and not screen.busy, key))


@pytest.fixture
def stage(tmp_path) -> Stage:
    return Stage(tmp_path)


def kinds(outcome: Outcome) -> list[str]:
    return [event["kind"] for event in outcome.events]


def test_a_script_runs_in_order_and_each_model_keeps_its_figures(stage):
    outcome = stage.run("S,R,P,S,M:2:3,S,P,Q")
    assert kinds(outcome) == ["caption", "repeat", "statistics", "caption", "loaded", "caption", "statistics"]
    assert outcome.ended == "quit" and outcome.error is None
    first, second = outcome.statistics
    assert (first["title"], first["captions"]) == ("Original Model + FP32", 2)
    assert (second["title"], second["captions"]) == ("Pruned Model + INT8 dynamic", 1)
    assert first["latency"]["all"]["mean"] == 6.0 and first["latency"]["last"]["count"] == 2
    assert first["encoder"]["mean"] == 3.0 and first["step"]["mean"] == 1.5 and first["steps_per_caption"] == 2
    assert first["with_host"]["mean"] == 9.0 and first["throughput_per_s"] == pytest.approx(1e3 / 6)
    assert first["memory"] == {
        "unit": "MiB",
        "cpu": 102.0,
        "cpu_most": 102.0,
        "gpu": {"unavailable": "the program does not run on a GPU"},
        "method": "resident set of the runner's process after each caption",
    }
    assert stage.voice.said == ["a dog", "a dog", "a dog", "a cat"] and stage.second.is_closed


def test_keys_do_the_same_and_p_shows_and_hides_the_statistics(stage):
    stage.press("s", "P", "p", "r", "x", "q")
    outcome = stage.run()
    assert [kind for kind in kinds(outcome) if kind != "note"] == ["caption", "statistics", "repeat"]
    shown = [screen.is_asked for screen in stage.watcher.screens]
    assert True in shown and not shown[-1]
    assert ("note", "key 'x' does nothing: S caption   R repeat   P statistics   M model and precision   Q quit") in (
        stage.watcher.told
    )


def test_frames_go_on_while_another_model_is_compiled_and_the_old_one_still_captions(stage):
    may_end = threading.Event()

    def slowly(choice: Choice, say: Callable[[str], None]) -> Stand:
        assert choice == SECOND
        say("lowering")
        assert may_end.wait(10)
        return stage.second

    stage.opening = slowly
    watcher = stage.watcher
    stage.press("m", "2", "3")

    def is_changed(screen: Screen) -> bool:
        if "lowering" in screen.busy and screen.caption == "a dog" and len(watcher.screens) > 30:
            may_end.set()
        return screen.title == SECOND.title

    watcher.presses.append((lambda screen: "lowering" in screen.busy, "s"))
    watcher.presses.append((is_changed, "s"))
    watcher.presses.append((lambda screen: screen.caption == "a cat", "q"))
    outcome = stage.run()
    busy = [screen for screen in watcher.screens if "Pruned Model + INT8 dynamic: lowering" in screen.busy]
    numbers = {screen.frame.number for screen in busy if screen.frame}
    assert len(numbers) > 5 and all(screen.title == FIRST.title for screen in busy)
    captions = [(event["title"], event["text"]) for event in outcome.events if event["kind"] == "caption"]
    assert captions == [(FIRST.title, "a dog"), (SECOND.title, "a cat")]


def test_a_menu_takes_only_what_is_offered_and_escape_leaves_it(stage):
    stage.program._offers.checkpoints["pruned"].unlink()
    stage.press("m", "9", "2", "7", "1", "0", "\x1b", "m", "1", "2", "q")
    outcome = stage.run()
    menus = {screen.menu[0] for screen in stage.watcher.screens if screen.menu}
    assert menus == {"=== Choose a model ===", "=== Choose a precision for Original Model ==="}
    (pruned,) = {line for screen in stage.watcher.screens for line in screen.menu if line.startswith("2. Pruned")}
    assert "not available: there is no checkpoint" in pruned
    assert [event["text"] for event in outcome.events] == ["Original Model + FP16 is loaded"]


def test_a_switch_that_fails_leaves_what_runs_and_the_program_ends_with_its_error(stage):
    def fails(choice: Choice, say: Callable[[str], None]) -> Stand:
        raise ModelError("no such weights")

    stage.opening = fails
    outcome = stage.run("M:2:3,S,Q")
    assert kinds(outcome) == ["error", "caption"] and outcome.events[0]["text"] == "no switch: no such weights"
    assert isinstance(outcome.error, ModelError) and outcome.events[1]["title"] == FIRST.title


def test_a_runner_that_fails_is_told_and_the_stream_lives_on(tmp_path):
    stage = Stage(tmp_path, first=Stand(error=DeviceError("the runner is gone")))
    outcome = stage.run("S,M:2:3,S,Q")
    assert kinds(outcome) == ["error", "loaded", "caption"] and isinstance(outcome.error, DeviceError)


def test_what_runs_already_is_not_loaded_again(stage):
    outcome = stage.run("M:1:1,Q")
    assert [event["text"] for event in outcome.events] == ["Original Model + FP32 runs already"]


def test_a_camera_that_is_unplugged_ends_it_with_the_figures_kept(tmp_path):
    stage = Stage(tmp_path, Frames(30, DeviceError("camera 0 gives no more pictures")))
    stage.press("s", "s")
    outcome = stage.run()
    assert outcome.ended == "the stream broke off" and isinstance(outcome.error, DeviceError)
    assert outcome.events[-1]["text"] == "the stream broke off: camera 0 gives no more pictures"
    assert outcome.statistics[0]["captions"] == 2


def test_a_source_that_never_shows_a_frame_is_an_error(tmp_path):
    with pytest.raises(DeviceError, match="nothing there"):
        Stage(tmp_path, Frames(0, DeviceError("nothing there"))).run("S,Q")


def test_a_video_that_ends_ends_the_program(tmp_path):
    outcome = Stage(tmp_path, Frames(3)).run()
    assert outcome.ended == "frames has ended" and outcome.error is None and outcome.statistics[0]["captions"] == 0


def test_a_script_goes_on_on_the_last_frame_of_a_video(tmp_path):
    outcome = Stage(tmp_path, Frames(3)).run("W:0.3,S,S,P,Q")
    assert outcome.ended == "quit" and outcome.statistics[0]["captions"] == 2
    assert [event["frame"] for event in outcome.events if event["kind"] == "caption"] == [3, 3]


def test_after_a_script_the_keys_go_on_where_there_is_somebody(stage):
    stage.watcher.presses.append((lambda screen: screen.caption == "a dog", "q"))
    begin = monotonic()
    outcome = stage.run("S,W:0.2", stays=True)
    assert outcome.ended == "quit" and monotonic() - begin < 10


def test_quitting_breaks_off_what_is_being_compiled(stage):
    def until_cancelled(choice: Choice, say: Callable[[str], None]) -> Stand:
        assert stage.was_cancelled.wait(10)
        raise ModelError("broken off")

    stage.opening = until_cancelled
    stage.press("m", "2", "3")
    stage.watcher.presses.append((lambda screen: bool(screen.busy), "q"))
    assert stage.run().ended == "quit" and stage.was_cancelled.is_set()


def test_a_message_from_another_thread_is_told(stage):
    stage.program.note("no sound")
    outcome = stage.run("W:0.1,Q")
    assert outcome.events[0]["text"] == "no sound" and ("note", "no sound") in stage.watcher.told
