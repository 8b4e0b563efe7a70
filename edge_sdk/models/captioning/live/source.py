"""Where frames come from: a camera, a video, a folder of photos, a photo. A thread always has the newest one."""

from __future__ import annotations

import logging
import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal

from edge_sdk.errors import DeviceError, EdgeSdkError, MissingDependencyError, ModelError
from edge_sdk.models._images import SUFFIXES, read_photo

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

logger = logging.getLogger(__name__)

SLIDE_S = 3.0
"""How long a photo of a folder is shown."""
_MOST_CAMERAS = 8
_VIDEO_FPS = 25.0
_MOST_FPS = 240.0
_WHOLE = 0.95
"""A video that ends before this share of the frames that it promises has broken off."""
_FAILS = 5
_CAMERA_RETRY_S = 0.1
_JOIN_S = 5.0
_OPENCV = "pip install 'edge-sdk[live]'"


@dataclass(frozen=True)
class Frame:
    """A picture of the stream: ``pixels`` are RGB, uint8 ``[height, width, 3]``."""

    number: int
    pixels: np.ndarray

    def square(self) -> Image:
        """The largest square in the middle."""
        from PIL import Image

        height, width = self.pixels.shape[:2]
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        return Image.fromarray(self.pixels[top : top + side, left : left + side])


class Source(ABC):
    """Frames one after another.

    Attributes:
        kind: What it is.
        title: As people are told of it.
    """

    kind: Literal["camera", "video", "folder", "photo"]
    title: str

    @abstractmethod
    def frames(self, stop: threading.Event) -> Iterator[np.ndarray]:
        """The frames, RGB, each when its time has come, until the end or until ``stop`` is set.

        Raises:
            EdgeSdkError: What they come from broke.
        """

    def close(self) -> None:  # noqa: B027 - photos hold nothing
        """Gives back what it holds."""


class Camera(Source):
    """A camera by its index.

    Raises:
        DeviceError: There is none, or it is in use; the message lists those that there are.
        MissingDependencyError: OpenCV is not installed.
    """

    kind = "camera"

    def __init__(self, index: int) -> None:
        self.title = f"camera {index}"
        self._capture = _opencv().VideoCapture(index)
        if not self._capture.isOpened():
            raise DeviceError(f"there is no camera {index}, or another program holds it. {_cameras()}")

    def frames(self, stop: threading.Event) -> Iterator[np.ndarray]:
        """As fast as the camera gives them."""
        fails = count = 0
        while not stop.is_set():
            whole, picture = self._capture.read()
            if whole:
                fails, count = 0, count + 1
                yield _rgb(picture)
                continue
            fails += 1
            if fails == _FAILS:
                raise DeviceError(
                    f"{self.title} gives no more pictures after {count}: was it unplugged? {_cameras()}"
                    if count
                    else f"{self.title} is there and gives no picture. {_cameras()}"
                )
            stop.wait(_CAMERA_RETRY_S)

    def close(self) -> None:
        """Lets the camera go."""
        self._capture.release()


class Video(Source):
    """A video file, at its own pace.

    Raises:
        ModelError: It is no video that OpenCV can read.
        MissingDependencyError: OpenCV is not installed.
    """

    kind = "video"

    def __init__(self, path: Path) -> None:
        self.title, self._path = path.name, path
        cv2 = _opencv()
        self._capture = cv2.VideoCapture(str(path))
        if not self._capture.isOpened():
            raise ModelError(f"{path} is no video that OpenCV can read: it is damaged, or of a format without decoder.")
        told = float(self._capture.get(cv2.CAP_PROP_FPS))
        self._fps = told if math.isfinite(told) and 0 < told <= _MOST_FPS else _VIDEO_FPS
        count = float(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self._promised = int(count) if math.isfinite(count) and count > 0 else 0

    def frames(self, stop: threading.Event) -> Iterator[np.ndarray]:
        """Each frame when it is due."""
        count, begin = 0, perf_counter()
        while not stop.is_set():
            whole, picture = self._capture.read()
            if not whole:
                break
            yield _rgb(picture)
            count += 1
            stop.wait(max(0.0, begin + count / self._fps - perf_counter()))
        if stop.is_set():
            return
        if count < _WHOLE * self._promised or not count:
            raise ModelError(
                f"{self._path} is broken: it promises {self._promised} frames, and {count} of them can be read."
            )

    def close(self) -> None:
        """Closes the file."""
        self._capture.release()


class Photos(Source):
    """A photo, which stays, or the photos of a folder one after another and over again.

    Raises:
        ModelError: The folder holds none.
    """

    def __init__(self, path: Path, slide_s: float = SLIDE_S) -> None:
        self.title, self._slide_s = path.name or str(path), slide_s
        self.kind = "folder" if path.is_dir() else "photo"
        self._files = [path]
        if path.is_dir():
            files = (file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
            self._files = sorted(file for file in files if file.suffix.lower() in SUFFIXES)
            if not self._files:
                raise ModelError(f"the folder {path} holds no photo ({', '.join(SUFFIXES)}).")

    def frames(self, stop: threading.Event) -> Iterator[np.ndarray]:
        """Photos that cannot be read are told of and left out; where none can, that is an error."""
        import numpy as np

        while True:
            shown = 0
            for file in self._files:
                try:
                    picture = np.asarray(read_photo(file))
                except ModelError as error:
                    if len(self._files) == 1:
                        raise
                    logger.warning("%s", error)
                    continue
                shown += 1
                yield picture
                if stop.wait(self._slide_s if len(self._files) > 1 else None):
                    return
            if not shown:
                raise ModelError(f"none of the {len(self._files)} photos of {self.title} can be read.")


def open_source(text: str) -> Source:
    """The source that ``--source`` names: the index of a camera, a video, a folder, or a photo.

    Raises:
        DeviceError: There is no such camera.
        ModelError: There is no such file, or it cannot be read.
        MissingDependencyError: OpenCV is not installed.
    """
    if text.isdecimal() and len(text) <= 4:
        return Camera(int(text))
    path = Path(text).expanduser()
    if not path.exists():
        raise ModelError(
            f"--source {text}: there is no such file or folder; a camera is named by its index. {_cameras()}"
        )
    if path.is_dir() or path.suffix.lower() in SUFFIXES:
        return Photos(path)
    return Video(path)


class Stream:
    """Reads a source in a thread of its own. A context manager."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._stop = threading.Event()
        self._newest: Frame | None = None
        self._error: EdgeSdkError | None = None
        self._thread = threading.Thread(target=self._read, name="frames", daemon=True)

    def __enter__(self) -> Stream:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(_JOIN_S)
        if not self._thread.is_alive():  # a driver that hangs keeps its camera; the thread ends with the process
            self.source.close()

    @property
    def newest(self) -> Frame | None:
        """The newest frame, also after the end; None before the first."""
        return self._newest

    @property
    def has_ended(self) -> bool:
        """Whether no further frame will come."""
        return not self._thread.is_alive()

    @property
    def error(self) -> EdgeSdkError | None:
        """What broke the stream off, None where it goes on or came to its end."""
        return self._error

    def _read(self) -> None:
        number = 0
        try:
            for pixels in self.source.frames(self._stop):
                number += 1
                self._newest = Frame(number, pixels)
        except EdgeSdkError as error:
            self._error = error
        except Exception as error:  # OpenCV raises classes of its own
            self._error = DeviceError(f"{self.source.title} broke off: {type(error).__name__}: {error}")


def _opencv() -> Any:
    try:
        import cv2
    except ImportError as error:
        what = f"cameras and videos need OpenCV, which cannot be imported ({error})"
        if ".so" in str(error):
            what += ": libraries of the system are missing (Debian: apt-get install libgl1 libglib2.0-0). Or take it "
            what += "without windows: pip install opencv-python-headless in place of opencv-python"
        else:
            what += f": {_OPENCV}"
        raise MissingDependencyError(f"{what}. Photos and folders of them go without.") from error
    return cv2


def _rgb(picture: np.ndarray) -> np.ndarray:
    return picture[:, :, ::-1] if picture.ndim == 3 else picture[:, :, None].repeat(3, axis=2)


def _cameras() -> str:
    """Which cameras there are, in words."""
    found = [path for path in sorted(Path("/dev").glob("video*")) if path.name[5:].isdecimal()][:_MOST_CAMERAS]
    if not found:
        return "This machine shows no camera (/dev/video*); give --source VIDEO, FOLDER or PHOTO."
    names = [f"{path.name[5:]} ({_name(path)})" for path in found]
    return f"Cameras here: {', '.join(names)}."


def _name(path: Path) -> str:
    try:
        return Path(f"/sys/class/video4linux/{path.name}/name").read_text("utf-8", "replace").strip()[:60] or "no name"
    except OSError:
        return "no name"
