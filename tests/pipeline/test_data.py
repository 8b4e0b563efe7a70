"""Inputs from files: calibration arrays, folders of photos, and samples that a model gives wrongly."""

from __future__ import annotations

import numpy as np
import pytest
from _models import Tiny, example, mlp_model, nn, tiny

import edge_sdk
from edge_sdk.errors import ModelError, UnsupportedError
from edge_sdk.models.base import Part
from edge_sdk.pipeline.data import input_files, read_calibration

RANDOM = np.random.default_rng(0)


def array(*shape: int, dtype="float32"):
    return RANDOM.standard_normal(shape).astype(dtype)


def two_parts() -> Tiny:
    return Tiny(
        Part("encoder", nn.Linear(4, 4), (example(1, 4),), ("x",)),
        Part("step", nn.Linear(6, 4), (example(1, 6),), ("state",)),
    )


@pytest.mark.parametrize("name", ["x", "forward/x"])
@pytest.mark.parametrize("shape", [(5, 1, 64), (5, 64)], ids=["with the batch", "without"])
def test_arrays_by_the_name_of_the_input(name, shape, tmp_path):
    values = array(*shape)
    np.savez(tmp_path / "data.npz", **{name: values})
    samples = read_calibration(mlp_model(), tmp_path / "data.npz")
    assert len(samples) == 5
    assert all(sample["forward"]["x"].shape == (1, 64) for sample in samples)
    np.testing.assert_array_equal(samples[3]["forward"]["x"].ravel(), values[3].ravel())


def test_arrays_for_several_parts(tmp_path):
    np.savez(tmp_path / "data.npz", **{"encoder/x": array(3, 1, 4), "state": array(3, 6), "other": array(1)})
    samples = read_calibration(two_parts(), tmp_path / "data.npz")
    assert [sorted(sample) for sample in samples] == [["encoder", "step"]] * 3


def refusal(model, path) -> str:
    with pytest.raises(ModelError) as caught:
        read_calibration(model, path)
    return str(caught.value)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"y": array(5, 64)}, "has no array 'x' or 'forward/x'; it has ['y']."),
        ({"x": array(5, 64, dtype="float64")}, "array 'x' is of type float64; expected float32."),
        ({"x": array(5, 1, 63)}, "array 'x' has the shape [5, 1, 63]; expected [samples, 1, 64]."),
        ({"x": array(64)}, "array 'x' has the shape [64]; expected [samples, 1, 64]."),
        ({"x": array(0, 64)}, "the arrays hold [0] samples; expected one same number."),
        ({"x": np.array([object()], dtype=object)}, "is no .npz file of arrays: Object arrays cannot be loaded"),
    ],
)
def test_arrays_that_do_not_fit(arrays, message, tmp_path):
    np.savez(tmp_path / "data.npz", **arrays)
    assert message in refusal(mlp_model(), tmp_path / "data.npz")


def test_arrays_of_different_numbers_of_samples(tmp_path):
    np.savez(tmp_path / "data.npz", **{"x": array(3, 4), "state": array(4, 6)})
    assert "the arrays hold [3, 4] samples; expected one same number." in refusal(two_parts(), tmp_path / "data.npz")


@pytest.mark.parametrize(
    "content", [b"", b"not a zip", b"PK\x03\x04 broken", b"\x93NUMPY broken"], ids=["empty", "text", "zip", "npy"]
)
def test_files_that_are_no_arrays(content, tmp_path):
    (tmp_path / "data.npz").write_bytes(content)
    assert f"--calibration {tmp_path / 'data.npz'} is no .npz file of arrays: " in refusal(
        mlp_model(), tmp_path / "data.npz"
    )


def test_one_array_in_a_file_of_its_own_is_no_npz(tmp_path):
    np.save(tmp_path / "data.npy", array(5, 64))
    assert "is no .npz file of arrays" in refusal(mlp_model(), tmp_path / "data.npy")


def test_a_path_that_is_not_there(tmp_path):
    assert (
        refusal(mlp_model(), tmp_path / "none.npz") == f"--calibration {tmp_path / 'none.npz'}: no such file or folder."
    )


def test_a_folder_of_files_is_read_by_the_model_itself(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(UnsupportedError, match="model 'mlp' does not say how to read a.png"):
        read_calibration(mlp_model(), tmp_path)


def test_photos_of_a_folder_come_sorted_and_nothing_else(tmp_path):
    for name in ("b.JPG", "a.png", "notes.txt", "._a.png"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    assert [path.name for path in input_files(tmp_path)] == ["a.png", "b.JPG"]
    assert input_files(tmp_path / "notes.txt") == [tmp_path / "notes.txt"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="the folder holds no image"):
        input_files(tmp_path / "empty")
    with pytest.raises(ModelError, match="no such file or folder"):
        input_files(tmp_path / "none")


class Given(Tiny):
    """A model that gives the samples it is told to, whatever they are."""

    def __init__(self, *parts: Part, **given) -> None:
        super().__init__(*parts, name="given")
        self._given = given

    def samples(self, purpose):
        return self._given.get(purpose, [])


def given(**samples) -> Given:
    return Given(*mlp_model().parts(), **samples)


GOOD = {"forward": {"x": array(1, 64)}}


@pytest.mark.parametrize("purpose", ["reference", "calibration"])
@pytest.mark.parametrize(
    ("sample", "message"),
    [
        ({"forward": {"y": array(1, 64)}}, "has no input 'x'; it has ['y']."),
        (
            {"forward": {"x": array(1, 64, dtype="float64")}},
            "['x'] is float64 of the shape [1, 64]; expected float32 of [1, 64].",
        ),
        ({"forward": {"x": array(64)}}, "['x'] is float32 of the shape [64]; expected float32 of [1, 64]."),
    ],
)
def test_samples_that_a_model_gives_wrongly(purpose, sample, message):
    samples = {"reference": [GOOD], "calibration": [GOOD], purpose: [GOOD, sample]}
    with pytest.raises(ModelError) as caught:
        edge_sdk.compile(given(**samples), "desktop-cpu", runtime="onnxruntime", quantize="int8-static")
    assert str(caught.value) == f"samples('{purpose}')[1]['forward']{message if message[0] == '[' else ' ' + message}"


def test_a_reference_sample_without_a_part():
    model = given(reference=[{"encoder": {}}])
    with pytest.raises(ModelError, match=r"samples\('reference'\)\[0\] has no part 'forward'; it has \['encoder'\]"):
        edge_sdk.compile(model, "desktop-cpu", runtime="onnxruntime")


def test_reference_samples_of_different_shapes():
    model = tiny(nn.Linear(8, 4), example(2, 8), dynamic={"x": {0: (1, 16)}})
    samples = [{"forward": {"x": array(rows, 8)}} for rows in (2, 3)]
    with pytest.raises(ModelError) as caught:
        edge_sdk.compile(Given(*model.parts(), reference=samples), "desktop-cpu", runtime="onnxruntime")
    assert "the reference samples differ in the shape of forward/inputs/x: [[2, 8], [3, 8]]." in str(caught.value)
