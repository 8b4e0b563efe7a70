"""The packaged photos: found without imports, split by scene, read safely."""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path

import numpy as np
import pytest

from edge_sdk.errors import ModelError
from edge_sdk.models import _images, _photos

Image = pytest.importorskip("PIL.Image")
pytest.importorskip("skimage")
pytest.importorskip("sklearn")


def rows(purpose: str) -> list[_photos.Photo]:
    return [photo for photo in _photos.table() if photo.purpose == purpose]


def test_no_scene_serves_both_purposes():
    assert not {photo.scene for photo in rows("calibration")} & {photo.scene for photo in rows("evaluation")}


def test_no_file_stands_twice_in_the_table():
    files = [(photo.package, photo.file) for photo in _photos.table()]
    assert len(files) == len(set(files))


def test_calibration_needs_python_packages_only():
    assert {photo.package for photo in rows("calibration")} == {"scikit-image", "scikit-learn"}
    assert len(_photos.calibration_photos()) == len(rows("calibration"))


@pytest.mark.debian("opencv-doc")
def test_over_130_photos_are_left_to_judge_with():
    found = _photos.installed("evaluation")
    assert len(found) == len(rows("evaluation")) > 130


def test_calibration_and_evaluation_share_no_picture():
    """Neither byte for byte nor to the eye: no two differ in fewer than 10 of 64 brightness steps."""
    calibration, evaluation = _photos.installed("calibration"), _photos.installed("evaluation")
    digests = [{hashlib.sha256(path.read_bytes()).digest() for path in paths} for paths in (calibration, evaluation)]
    assert not digests[0] & digests[1]
    judged = [(path, brightness_steps(path)) for path in evaluation]
    for path, other in itertools.product(calibration, judged):
        assert np.count_nonzero(brightness_steps(path) != other[1]) >= 10, f"{path} looks like {other[0]}"


def brightness_steps(path: Path) -> np.ndarray:
    """Whether each of 8 x 8 patches is brighter than its left neighbour: alike for near-duplicates."""
    small = np.asarray(_images.read_photo(path).convert("L").resize((9, 8)), dtype=np.int16)
    return small[:, 1:] > small[:, :-1]


def test_reference_and_demo_photos_are_not_calibration_photos():
    used = {*_photos.reference_photos(), *_photos.demo_photos()}
    assert {"coffee.png", "chelsea.png", "rocket.jpg"} <= {path.name for path in used}
    assert not used & set(_photos.calibration_photos())


def test_views_are_many_and_always_the_same():
    photo = _images.read_photo(_photos.calibration_photos()[0])
    first, second = ([view.tobytes() for view in _images.views(photo, 64)] for _ in range(2))
    assert first == second
    assert len(set(first)) == 8


def test_the_middle_of_a_photo_is_cropped_and_normalised():
    photo = Image.new("RGB", (100, 50), (255, 0, 0))
    photo.paste((127, 127, 127), (30, 3, 70, 47))
    array = _images.normalised(_images.center_square(photo, 0.8, 40), (127.0,) * 3, (128.0,) * 3)
    assert array.shape == (1, 3, 40, 40)
    assert array.dtype == np.float32
    assert np.all(array == 0)


def test_a_photo_is_turned_upright(tmp_path: Path):
    photo = Image.new("RGB", (20, 10))
    exif = photo.getexif()
    exif[0x0112] = 6  # the camera was turned by a quarter
    photo.save(tmp_path / "turned.jpg", exif=exif)
    assert _images.read_photo(tmp_path / "turned.jpg").size == (10, 20)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not an image", "is not an image that Pillow can read"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "is not an image|cannot be read"),
        (None, "there is no photo at"),
    ],
)
def test_a_file_that_is_no_photo_is_refused(tmp_path: Path, content: bytes | None, message: str):
    path = tmp_path / "photo.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=message):
        _images.read_photo(path)


def test_a_truncated_photo_is_refused(tmp_path: Path):
    coffee = next(path for path in _photos.reference_photos() if path.name == "coffee.png")
    (tmp_path / "half.png").write_bytes(coffee.read_bytes()[:20000])
    with pytest.raises(ModelError, match="half.png cannot be read"):
        _images.read_photo(tmp_path / "half.png")


def test_more_than_eight_bits_a_channel_are_refused(tmp_path: Path):
    Image.fromarray(np.full((8, 8), 40000, dtype=np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(ModelError, match="more than 8 bits a channel"):
        _images.read_photo(tmp_path / "deep.png")


def test_an_image_that_explodes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    Image.new("L", (100, 100)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ModelError, match="too large an image"):
        _images.read_photo(tmp_path / "bomb.png")
