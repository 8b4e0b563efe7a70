"""``edge-sdk caption`` as people and scripts use it: in a terminal, in a window, in a pipe, over SSH."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from time import monotonic, sleep

import pytest
import tiny_captioner
from _commands import edge_in
from devices_remotes import QUICK, remote

from edge_sdk.bundle import Bundle
from edge_sdk.errors import ModelError, StorageError, UnsupportedError
from edge_sdk.models.captioning.live.captioner import DeviceCaptioner
from edge_sdk.models.captioning.live.choices import Choice, Offers

VIDEO = Path("/usr/share/doc/opencv-doc/examples/data/vtest.avi")
CAPTION = [sys.executable, "-m", "edge_sdk", "caption", "--runtime", "onnxruntime"]
ESCAPES = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]")
EXEC = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
"""Takes the terminal for its own, so that Ctrl-C there is a signal to it, and becomes another program."""
CLOSE = """
# Xlib by hand: asks the window of that name to close, as a window manager does.
import ctypes
x = ctypes.CDLL("libX11.so.6")
for name in ("XOpenDisplay", "XDefaultRootWindow", "XInternAtom"):
    getattr(x, name).restype = ctypes.c_void_p
number, pointer = ctypes.c_ulong, ctypes.c_void_p
display = pointer(x.XOpenDisplay(None))
children, count, unused = ctypes.POINTER(number)(), ctypes.c_uint(), [number(), number()]
root = number(x.XDefaultRootWindow(display))
x.XQueryTree(display, root, *map(ctypes.byref, unused), ctypes.byref(children), ctypes.byref(count))
for window in [children[place] for place in range(count.value)]:
    name = ctypes.c_char_p()
    if x.XFetchName(display, number(window), ctypes.byref(name)) and name.value == b"Edge SDK captions":
        break
else:
    raise SystemExit("there is no such window")

class ClientMessage(ctypes.Structure):
    _fields_ = [("type", ctypes.c_int), ("serial", number), ("send_event", ctypes.c_int), ("display", pointer),
                ("window", number), ("message_type", number), ("format", ctypes.c_int), ("data", ctypes.c_long * 5),
                ("rest", ctypes.c_long * 16)]

atoms = [x.XInternAtom(display, text, 0) for text in (b"WM_PROTOCOLS", b"WM_DELETE_WINDOW")]
event = ClientMessage(33, 0, 1, display, window, atoms[0], 32)
event.data[0] = atoms[1]
x.XSendEvent(display, number(window), 0, ctypes.c_long(0), ctypes.byref(event))
x.XCloseDisplay(display)
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """A captioner of random weights; ``pruned.pt`` beside it is the same."""
    folder = tmp_path_factory.mktemp("captioner")
    tiny_captioner.checkpoint(folder / "pruned.pt")
    return tiny_captioner.checkpoint(folder / "best.pt")


@pytest.fixture(scope="module")
def bundle(checkpoint) -> Bundle:
    """It compiled, once for all tests: the program finds it in the cache, for both checkpoints."""
    from edge_sdk import api

    return api.compile("captioning", "desktop-cpu", runtime="onnxruntime", settings={"checkpoint": str(checkpoint)})


@pytest.fixture
def words(checkpoint, bundle) -> list[str]:
    """A command line that begins with what is compiled."""
    del bundle
    pytest.importorskip("cv2", reason="OpenCV cannot be imported: pip install 'edge-sdk[live]'")
    pruned = checkpoint.with_name("pruned.pt")
    return [*CAPTION, "--checkpoint", str(checkpoint), "--pruned", str(pruned), "--mute"]


def run(words: Sequence[str], *more: str, **options) -> subprocess.CompletedProcess[str]:
    options = {"capture_output": True, "text": True, "timeout": 120, "stdin": subprocess.DEVNULL, **options}
    return subprocess.run([*words, *more], **options)


class Shell:
    """A program in a pseudo-terminal of 120 by 40."""

    def __init__(self, words: Sequence[str], **env: str) -> None:
        self.main, self._side = pty.openpty()
        fcntl.ioctl(self._side, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        self.before = termios.tcgetattr(self._side)
        env = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", **env}
        side = {"stdin": self._side, "stdout": self._side, "stderr": self._side}
        # With the terminal as its own, so that Ctrl-C there is a signal to it.
        take_it = [
            sys.executable,
            "-c",
            "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); " + EXEC,
        ]
        self.process = subprocess.Popen([*take_it, *words], env=env, start_new_session=True, **side)
        self.text = b""

    def _read(self, timeout_s: float) -> None:
        if select.select([self.main], [], [], timeout_s)[0]:
            self.text += os.read(self.main, 1 << 16)

    @property
    def words(self) -> str:
        return ESCAPES.sub(b"", self.text).decode(errors="replace")

    def expect(self, words: str, timeout_s: float = 60) -> None:
        """Waits until it has shown words since the last ones."""
        until = monotonic() + timeout_s
        while words not in self.words:
            assert monotonic() < until and (self.process.poll() is None or select.select([self.main], [], [], 0)[0]), (
                f"'{words}' did not come: {self.words[-3000:]}"
            )
            self._read(0.1)
        self.text = b""

    def press(self, keys: str) -> None:
        os.write(self.main, keys.encode())

    def end(self) -> tuple[int, str]:
        """Its exit code, and what else it showed."""
        while self.process.poll() is None:
            self._read(0.1)
        while select.select([self.main], [], [], 0)[0]:
            self._read(0)
        return self.process.returncode, self.words

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.main)
        os.close(self._side)


@pytest.fixture
def shell():
    """Starts programs in pseudo-terminals."""
    begun: list[Shell] = []

    def start(words: Sequence[str], **env: str) -> Shell:
        begun.append(Shell(words, **env))
        return begun[-1]

    yield start
    for one in begun:
        one.close()


@pytest.mark.debian("opencv-doc")
def test_the_bundle_says_what_the_network_says_of_the_same_frames(words, checkpoint):
    import cv2
    import torch

    from edge_sdk.models import _images
    from edge_sdk.models.captioning.live.source import Frame
    from edge_sdk.models.captioning.network import Captioner

    done = run(words, "--source", str(VIDEO), "--script", "S,R,P,W:0.3,S,M:2:1,S,P,Q", "--json")
    assert done.returncode == 0, done.stderr
    content = json.loads(done.stdout)
    assert content["ended"] == "quit" and content["problem"] is None
    kinds = [event["kind"] for event in content["events"]]
    assert kinds == ["caption", "repeat", "statistics", "caption", "loaded", "caption", "statistics"]
    captions = [event for event in content["events"] if event["kind"] == "caption"]
    for event in captions:
        assert event["latency_ms"] == pytest.approx(event["encoder_ms"] + event["steps_ms"])
        assert 0 < event["latency_ms"] < event["with_host_ms"] and event["steps"] >= 1
    network = Captioner.from_state(torch.load(checkpoint, weights_only=True), "best.pt")
    film, numbers = cv2.VideoCapture(str(VIDEO)), [event["frame"] for event in captions[:2]]
    pictures = {number: film.read()[1] for number in range(1, max(numbers) + 1)}
    for event in captions[:2]:
        square = _images.center_square(
            Frame(1, pictures[event["frame"]][:, :, ::-1]).square(), 1.0, tiny_captioner.SIZE
        )
        scale = [tuple(255 * value for value in some) for some in (network.encoder.mean, network.encoder.std)]
        assert network.caption(torch.from_numpy(_images.normalised(square, *scale))) == [event["text"]]
    first, second = content["statistics"]
    assert (first["title"], second["title"]) == ("Original Model + FP32", "Pruned Model + FP32")
    assert (first["captions"], second["captions"]) == (2, 1) and first["memory"]["cpu"] > 20
    assert set(first["latency"]["last"]) == {"count", "mean", "median", "min", "max", "std", "p95", "p99"}


@pytest.mark.debian("opencv-doc")
def test_a_script_in_a_terminal_and_ctrl_c_that_leaves_no_runner(words, shell, tmp_path):
    words = [*words, "--no-window", "--source", str(VIDEO), "--script", "S,P,W:0.5,M:2:1,S,P,W:60"]
    one = shell(words, TMPDIR=str(tmp_path))
    one.expect("▀")
    one.expect("Statistics: Original Model + FP32")
    one.expect("Pruned Model + FP32: ")
    one.expect("Statistics: Pruned Model + FP32")
    assert len(_runners(tmp_path)) == 1
    one.press("\x03")
    code, rest = one.end()
    assert code == 130 and "interrupted; nothing was left half written" in rest and "Traceback" not in rest
    assert termios.tcgetattr(one.main) == one.before and not _runners(tmp_path)


@pytest.mark.debian("opencv-doc")
def test_menus_and_keys_in_a_terminal(words, shell):
    one = shell([*words, "--no-window", "--source", str(VIDEO), "--pruned", "none.pt"])
    one.expect("Model (1-2): ")
    one.press("2\n")
    one.expect("Pruned Model (struct 30 % + mag 10 %) is not available: there is no checkpoint")
    one.press("1\n")
    one.expect("4. INT8 (static quantization): available\r\n\r\nPrecision (1-4): ")
    one.press("1\n")
    one.expect("no caption yet")
    one.press("s")
    one.expect("with the host's part")
    one.press("p")
    one.expect("1 caption")
    one.press("m1")
    one.expect("Choose a precision for Original Model")
    one.press("\x1bx")
    one.press("q")
    code, rest = one.end()
    assert code == 0 and "Ended: quit" in rest
    assert termios.tcgetattr(one.main) == one.before


def _runners(folder: Path) -> list[str]:
    """The command lines of runners whose request lies in a folder."""
    found = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if os.access(path, os.R_OK)]
    return [one.decode() for one in found if b"--session" in one and str(folder).encode() in one]


@pytest.fixture
def screen() -> Iterator[str]:
    """The name of an X server's display, 1280 by 900."""
    reading, writing = os.pipe()
    command = ["Xvfb", "-displayfd", str(writing), "-screen", "0", "1280x900x24", "-nolisten", "tcp"]
    with subprocess.Popen(command, pass_fds=[writing], stderr=subprocess.DEVNULL) as server:
        os.close(writing)
        with os.fdopen(reading) as told:
            number = told.readline().strip()
        assert number.isdecimal(), "Xvfb did not start"
        try:
            yield f":{number}"
        finally:
            server.terminate()


@pytest.mark.debian("opencv-doc", "xvfb", "libgl1", "libglib2.0-0")
def test_a_window_shows_picture_caption_and_figures_and_closing_it_is_quitting(words, screen, tmp_path):
    import numpy as np
    from PIL import ImageGrab

    command = [*words, "--source", str(VIDEO), "--script", "S,P,W:60"]
    env = {**os.environ, "DISPLAY": screen}
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=env) as shown:
        assert shown.stderr is not None
        said = ""
        while "statistics: " not in said:
            line = shown.stderr.readline()
            assert line, said
            said += line
        sleep(1.0)
        picture = ImageGrab.grab(xdisplay=screen)
        picture.save(tmp_path / "window.png")
        subprocess.run([sys.executable, "-c", CLOSE], env=env, check=True)
        assert shown.wait(60) == 0
    pixels = np.asarray(picture).astype(int)
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 10_000  # a real picture
    for top, left in ((15, 20), (15, 600), (600, 300)):  # text lies on dark ground: above, and below in the middle
        corner = pixels[top : top + 100, left : left + 300]
        assert corner.min() < 40 and corner.max() > 220


@pytest.mark.debian("openssh-server", "openssh-client")
def test_a_board_behind_ssh_says_the_same(bundle, tmp_path, monkeypatch):
    from PIL import Image

    square = Image.linear_gradient("L").convert("RGB")
    with remote("ssh", tmp_path, monkeypatch) as board:
        texts = []
        for uri in ("local", board.uri):
            with closing(DeviceCaptioner(bundle, uri)) as captioner:
                texts.append(captioner.caption(square).text)
        assert texts[0] == texts[1]
        assert board.left_behind() == []


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (("--source", "77"), 3, "there is no camera 77, or another program holds it. "),
        (("--source", "none.avi"), 1, "--source none.avi: there is no such file or folder; a camera is named by"),
        (("--source", "bad.avi"), 1, "bad.avi is no video that OpenCV can read"),
        (("--script", "S,X,Q"), 2, "'X' at place 2 is no command; expected S, R, P, M:MODEL:PRECISION"),
        (("--script", "S,M:9:1,Q"), 1, "there is no model 9: expected 1 to 2 (1 original, 2 pruned)"),
        (("--script", "S,M:1:7,Q"), 1, "there is no precision 7: expected 1 to 4"),
        (("--script", "S,M:2:1,Q"), 1, "Pruned Model (struct 30 % + mag 10 %) is not available: there is no"),
        (("--script", "S,M:1:2,Q"), 1, "FP16 (half precision) is not available"),
        (("--model", "small"), 2, "invalid choice: 'small'"),
        (("--quantize", "fp4"), 2, "invalid choice: 'fp4'"),
        (("--model", "pruned"), 1, "Pruned Model (struct 30 % + mag 10 %) is not available: there is no checkpoint"),
        (("--script", ""), 2, "'' at place 1 is no command"),
        (("--window",), 1, "--window: there is no screen: DISPLAY is not set"),
        (("--device", "adb://x"), 3, "adb://x"),
        (("--target", "toaster"), 1, "unknown target 'toaster'"),
        (("--matrix", "--rounds", "0"), 2, "expected a whole number from 1"),
        (("--matrix", "--checkpoint", "none.pt"), 1, "Original Model is not available: there is no checkpoint"),
    ],
)
def test_bad_input_is_told_before_work_is_spent(edge, checkpoint, more, code, said):
    pytest.importorskip("cv2", reason="OpenCV cannot be imported: pip install 'edge-sdk[live]'")
    begin = monotonic()
    options = ["--runtime", "onnxruntime", "--checkpoint", str(checkpoint), "--pruned", "none.pt", "--mute"]
    if "--source" not in more:
        options += ["--source", "photo.png"]
    if "--script" not in more:
        options += ["--script", "Q"]
    found, told = edge("caption", *options, *more)
    assert (found, said in told) == (code, True), told
    assert monotonic() - begin < 20


@pytest.fixture
def edge(tmp_path, capsys, monkeypatch):
    """Runs command lines that fail, in a folder with a photo and a file that is no video, without a screen."""
    from PIL import Image

    Image.new("RGB", (8, 8)).save(tmp_path / "photo.png")
    (tmp_path / "bad.avi").write_bytes(b"no video")
    monkeypatch.delenv("DISPLAY", raising=False)
    return edge_in(tmp_path, capsys, monkeypatch)


def test_without_a_keyboard_and_a_script_it_is_refused(edge, checkpoint):
    code, told = edge("caption", "--checkpoint", checkpoint, "--source", "photo.png")
    assert code == 1 and "nobody can press a key: standard input is no terminal" in told and "--script S,P,Q" in told


@pytest.mark.debian("opencv-doc")
def test_a_broken_video_on_a_dead_screen_keeps_the_figures_and_ends_with_its_error(words, tmp_path):
    (tmp_path / "cut.avi").write_bytes(VIDEO.read_bytes()[:150_000])
    env = {**os.environ, "DISPLAY": ":9999"}
    done = run(words, "--source", str(tmp_path / "cut.avi"), "--script", "S,W:60,S,Q", "--json", env=env)
    assert done.returncode == 1 and "no window: OpenCV cannot open one: " in done.stderr
    content = json.loads(done.stdout)
    assert content["problem"]["kind"] == "ModelError" and "is broken: it promises 795 frames" in done.stderr
    assert content["ended"] == "the stream broke off" and content["statistics"][0]["captions"] == 1


def test_a_checkpoint_of_another_vocabulary_is_refused(edge, tmp_path):
    import torch

    path = tiny_captioner.checkpoint(tmp_path / "best.pt")
    content = torch.load(path, weights_only=True)
    content["vocabulary"] = content["vocabulary"][:-2]
    torch.save(content, path)
    done = run(
        [*CAPTION, "--checkpoint", str(path), "--mute"], "--source", str(VIDEO.parent), "--script", "S,Q", "--json"
    )
    assert done.returncode == 1
    assert (
        "the decoder knows 16 words and the vocabulary has 14: it belongs to"
        in json.loads(done.stdout)["error"]["message"]
    )


def test_a_bundle_of_another_vocabulary_or_of_another_model_is_refused(bundle, tmp_path):
    import tiny

    manifest = bundle.manifest.model_copy(update={"labels": (bundle.manifest.labels or [])[:-1]})
    with pytest.raises(ModelError, match="scores 16 words and its vocabulary has 15: it belongs to another checkpoint"):
        DeviceCaptioner(Bundle(bundle.path, manifest, "0"))
    with pytest.raises(ModelError, match="is no captioner: it has the parts forward and 0 words"):
        DeviceCaptioner(tiny.bundle(tmp_path, "onnxruntime", tiny.onnx_program()))


@pytest.fixture
def quick_table(bundle, checkpoint, monkeypatch, tmp_path):
    """Measures a table of what is compiled, of six photos, quickly; gives also how often each was measured."""
    from edge_sdk import api
    from edge_sdk.models.captioning.live import matrix

    compiled = {Choice(model, "fp32"): bundle for model in ("original", "pruned")}
    counts: dict[str, int] = {"turns": 0, "profiles": 0}
    genuine = {"turn": matrix._turn, "profile": api.profile, "photos": matrix.Photos.of}

    def take(_, choice, offers, say):
        if choice not in compiled:
            raise UnsupportedError(f"{choice.title} is not compiled in this test")
        return compiled[choice]

    def turn(*arguments):
        counts["turns"] += 1
        return genuine["turn"](*arguments)

    def profile(*arguments, **options):
        counts["profiles"] += 1
        return genuine["profile"](*arguments, timing=QUICK, **options)

    def six(path):
        photos = genuine["photos"](path)
        return matrix.Photos(photos.views[:6], photos.references[:6])

    monkeypatch.setattr(matrix.Compiler, "bundle", take)
    monkeypatch.setattr(matrix, "_turn", turn)
    monkeypatch.setattr(api, "profile", profile)
    monkeypatch.setattr(matrix.Photos, "of", staticmethod(six))
    checkpoints = {"original": checkpoint, "pruned": checkpoint.with_name("pruned.pt")}
    offers = Offers(checkpoints, runtime="onnxruntime")
    return lambda **options: matrix.measure(offers, "local", out=tmp_path, **options), counts


def test_the_table_is_measured_in_turns_and_goes_on_where_it_was(quick_table, tmp_path):
    from edge_sdk.reporting.caption import matrix_page, matrix_view

    measure, counts = quick_table
    document = measure(rounds=2)
    assert counts == {"turns": 4, "profiles": 2}
    rows = {(row["model"], row["precision"]): row for row in document["rows"]}
    assert len(rows) == 8 and document["photos"] == 6 and document["rounds"] == 2
    first, second = rows["original", "fp32"], rows["pruned", "fp32"]
    assert first["ratio"]["value"] == 1.0 and second["ratio"]["value"] > 0
    for row in (first, second):
        assert row["same_captions"] == row["same_words"] == 1.0 and row["cider"] >= 0
        assert row["captions_per_s"] == pytest.approx(1e3 / row["latency_ms"]) and row["memory"]["peak"] > 20
        assert row["energy"].get("per_inference", 0) > 0 or row["energy"]["unavailable"]
    assert "fp16 is fp16" in rows["pruned", "fp16"]["unavailable"]
    assert rows["original", "int8-static"]["unavailable"] == "Original Model + INT8 static is not compiled in this test"
    assert json.loads((tmp_path / "matrix.json").read_text()) == document
    page = (tmp_path / "matrix.md").read_text()
    assert page == matrix_page(document) and "| Original, FP32 |" in page and "| Pruned, FP16 | not available |" in page
    assert matrix_view(document)
    assert measure(rounds=3)["rounds"] == 3
    assert counts == {"turns": 6, "profiles": 2}


def test_a_table_that_cannot_be_had_says_why(quick_table, tmp_path):
    measure, _ = quick_table
    with pytest.raises(UnsupportedError, match="--rounds is 1; expected 2 or more"):
        measure(rounds=1)
    (tmp_path / "turns.json").write_text('{"measured": {"original-fp32": {"key": 5}}}')
    with pytest.raises(StorageError, match="turns.json is not what an earlier run .* delete it to measure anew"):
        measure(rounds=2)


@pytest.mark.parametrize(
    ("one", "other", "share"),
    [("a red cup", "a red cup", 1.0), ("a red cup", "a cup", 1 / 3), ("", "", 1.0), ("", "a", 0.0)],
)
def test_same_words_counts_words_at_their_place(one, other, share):
    from edge_sdk.models.captioning.live.matrix import same_words

    assert same_words(one, other) == same_words(other, one) == pytest.approx(share)
