"""Where the live program's frames come from: videos, photos, and a camera that a stand-in for OpenCV's plays."""

from __future__ import annotations

import os
import threading
from itertools import islice
from pathlib import Path
from time import monotonic, sleep

import numpy as np
import pytest

from edge_sdk.errors import DeviceError, MissingDependencyError, ModelError
from edge_sdk.models.captioning.live import source
from edge_sdk.models.captioning.live.source import Frame, Photos, Stream, open_source

VIDEO = Path("/usr/share/doc/opencv-doc/examples/data/vtest.avi")


@pytest.fixture(scope="module")
def cv2():
    return pytest.importorskip("cv2", reason="OpenCV cannot be imported: pip install 'edge-sdk[live]'")


@pytest.fixture
def short(cv2, tmp_path) -> Path:
    """A video of 12 frames, 60 a second, whose grey grows."""
    path = tmp_path / "short.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 60.0, (64, 48))
    assert writer.isOpened()
    for number in range(12):
        writer.write(np.full((48, 64, 3), 20 * number, np.uint8))
    writer.release()
    return path


def photo(path: Path, grey: int) -> Path:
    from PIL import Image

    Image.new("RGB", (40, 30), (grey, grey, grey)).save(path)
    return path


def wait(stream: Stream) -> None:
    until = monotonic() + 10
    while not stream.has_ended and monotonic() < until:
        sleep(0.005)
    assert stream.has_ended


def test_a_video_keeps_its_pace_and_ends(short):
    with Stream(open_source(str(short))) as stream:
        begin = monotonic()
        wait(stream)
        assert 0.15 < monotonic() - begin < 2
    assert stream.error is None and stream.newest is not None
    assert stream.newest.number == 12 and abs(int(stream.newest.pixels.mean()) - 220) < 12


@pytest.mark.debian("opencv-doc")
def test_a_real_video_gives_its_newest_frame(cv2):
    del cv2
    with Stream(open_source(str(VIDEO))) as stream:
        sleep(0.6)
        frame = stream.newest
        assert frame is not None and 3 <= frame.number <= 7 and frame.pixels.shape == (576, 768, 3)
        assert frame.square().size == (576, 576) and not stream.has_ended


@pytest.mark.debian("opencv-doc")
def test_a_video_that_breaks_off_is_told_with_how_far_it_came(cv2, tmp_path, monkeypatch):
    del cv2
    path = tmp_path / "cut.avi"
    path.write_bytes(VIDEO.read_bytes()[:400_000])
    video = open_source(str(path))
    monkeypatch.setattr(video, "_fps", 1e6)
    with Stream(video) as stream:
        wait(stream)
    assert stream.newest is not None and isinstance(stream.error, ModelError)
    count = stream.newest.number
    assert str(stream.error) == f"{path} is broken: it promises 795 frames, and {count} of them can be read."


@pytest.mark.parametrize("content", [b"", b"this is no video", b"RIFF" + bytes(2000)])
def test_a_file_that_is_no_video_is_refused(cv2, tmp_path, content):
    del cv2
    path = tmp_path / "broken.avi"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="broken.avi is no video that OpenCV can read"):
        open_source(str(path))


def test_a_folder_is_a_slide_show_that_begins_again(tmp_path):
    for number, grey in enumerate((10, 100, 200)):
        photo(tmp_path / f"{number}.png", grey)
    (tmp_path / "notes.txt").write_text("no photo")
    shown = [int(one[0, 0, 0]) for one in islice(Photos(tmp_path, 0.001).frames(threading.Event()), 5)]
    assert shown == [10, 100, 200, 10, 100]


def test_a_damaged_photo_of_a_folder_is_left_out_with_a_warning(tmp_path, caplog):
    photo(tmp_path / "a.png", 10)
    (tmp_path / "b.png").write_bytes(b"damaged")
    shown = [int(one[0, 0, 0]) for one in islice(Photos(tmp_path, 0.001).frames(threading.Event()), 2)]
    assert shown == [10, 10] and "b.png is not an image that Pillow can read" in caplog.text


def test_a_folder_of_damaged_photos_is_an_error(tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"damaged")
    with Stream(open_source(str(tmp_path))) as stream:
        wait(stream)
    assert "none of the 2 photos" in str(stream.error)


def test_a_photo_stays(tmp_path):
    with Stream(open_source(str(photo(tmp_path / "one.png", 50)))) as stream:
        sleep(0.2)
        assert not stream.has_ended and stream.newest is not None and stream.newest.number == 1


def test_an_empty_folder_and_a_missing_file_are_refused(tmp_path):
    with pytest.raises(ModelError, match="holds no photo"):
        open_source(str(tmp_path))
    with pytest.raises(ModelError, match="--source nowhere.mp4: there is no such file or folder; a camera is named by"):
        open_source("nowhere.mp4")


def test_the_square_is_the_middle_of_the_frame():
    pixels = np.zeros((4, 8, 3), np.uint8)
    pixels[:, 2:6] = 255
    assert np.asarray(Frame(1, pixels).square()).min() == 255


class FakeCapture:
    """What OpenCV gives for a camera that shows a few pictures and is then unplugged; index 7 is not there."""

    pictures = 3

    def __init__(self, index: int) -> None:
        self._left, self._is_there = self.pictures, index != 7

    def isOpened(self) -> bool:
        return self._is_there

    def read(self):
        if not self._left:
            return False, None
        self._left -= 1
        return True, np.full((48, 64, 3), (1, 2, 3), np.uint8)

    def release(self) -> None:
        pass


@pytest.fixture
def camera(cv2, monkeypatch):
    """Cameras of a test's own, with OpenCV otherwise as it is."""
    monkeypatch.setattr(cv2, "VideoCapture", FakeCapture)
    monkeypatch.setattr(source, "_CAMERA_RETRY_S", 0.001)


def test_a_camera_that_is_unplugged_is_told_and_its_last_frame_stays(camera):
    with Stream(open_source("0")) as stream:
        wait(stream)
    assert stream.newest is not None and stream.newest.number == 3
    assert tuple(stream.newest.pixels[0, 0]) == (3, 2, 1)  # OpenCV gives blue first
    assert isinstance(stream.error, DeviceError)
    assert "camera 0 gives no more pictures after 3: was it unplugged?" in str(stream.error)


def test_a_camera_that_shows_nothing_is_told(camera, monkeypatch):
    monkeypatch.setattr(FakeCapture, "pictures", 0)
    with Stream(open_source("0")) as stream:
        wait(stream)
    assert "camera 0 is there and gives no picture" in str(stream.error)


def test_a_driver_that_raises_is_an_error_of_the_camera(camera, monkeypatch):
    monkeypatch.setattr(FakeCapture, "read", lambda _: [][1])
    with Stream(open_source("0")) as stream:
        wait(stream)
    assert isinstance(stream.error, DeviceError) and "camera 0 broke off: IndexError" in str(stream.error)


def test_no_camera_is_an_error_that_lists_what_there_is(camera, monkeypatch):
    monkeypatch.setattr(Path, "glob", lambda *_: iter([]))
    with pytest.raises(
        DeviceError, match=r"there is no camera 7, or another .* shows no camera \(/dev/video\*\); give"
    ):
        open_source("7")
    monkeypatch.setattr(Path, "glob", lambda *_: iter([Path("/dev/video1"), Path("/dev/video-x")]))
    with pytest.raises(DeviceError, match=r"Cameras here: 1 \("):
        open_source("7")


@pytest.mark.debian("opencv-doc")
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_program_that_dies_while_it_writes_a_video_into_a_pipe_is_told(cv2, tmp_path, monkeypatch):
    del cv2
    pipe = tmp_path / "pipe.avi"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(VIDEO.read_bytes()[:400_000]), daemon=True)
    writer.start()
    video = open_source(str(pipe))
    monkeypatch.setattr(video, "_fps", 1e6)
    with Stream(video) as stream:
        wait(stream)
    writer.join(10)
    assert stream.newest is not None and stream.newest.number > 1
    assert "is broken: it promises 795 frames" in str(stream.error)


def test_without_opencv_the_message_says_what_goes_without(monkeypatch, tmp_path):
    import builtins

    genuine = builtins.__import__

    def without(name, *rest):
        if name == "cv2":
            raise ImportError("libGL.so.1: cannot open shared object file")
        return genuine(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingDependencyError, match="apt-get install libgl1 .* Photos and folders of them go without"):
        open_source("0")
    open_source(str(photo(tmp_path / "a.png", 1)))
