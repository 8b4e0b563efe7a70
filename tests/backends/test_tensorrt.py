"""TensorRT: engines for RTX GPUs that are really built here, and the ONNX that a Jetson builds its own from."""

from __future__ import annotations

import importlib.util

import numpy as np
import onnx
import pytest
from _models import conv_model, example, mlp_model, nn, seeded, tiny, torch
from onnx import TensorProto, helper

import edge_sdk
from edge_sdk import _nvidia
from edge_sdk.backends.tensorrt import TensorRtBackend, _here, _options
from edge_sdk.bundle import Bundle
from edge_sdk.errors import MissingDependencyError, ModelError, UnsupportedError
from edge_sdk.pipeline.plan import plans
from edge_sdk.quantization.base import make_quantizer
from edge_sdk.schema import load_target

needs_rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx_bindings") is None,
    reason="TensorRT for RTX is not installed: pip install 'edge-sdk[rtx]'",
)
PRODUCTS = {"correlation", "gemm"}
"""What TensorRT for RTX calls convolutions and products."""


class Residual(nn.Module):
    """A block whose result a shortcut is added to, and a linear layer behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.last = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(x))
        return self.last(torch.relu(self.second(x) + x).mean((2, 3)))


def residual_model():
    return tiny(seeded(Residual), example(1, 3, 8, 8))


def _rule(target: str, delegate: str, **options):
    rule = next(rule for rule in load_target(target).runtimes if rule.delegate == delegate)
    return rule.model_copy(update={"options": {**rule.options, **options}})


@needs_rtx
@pytest.mark.parametrize("method", ["fp16", "bf16"])
def test_an_engine_is_built_without_a_gpu_and_computes_in_the_precision_asked_for(method):
    manifest = edge_sdk.compile(conv_model(), "desktop-rtx", quantize=method).manifest
    assert manifest.runtime.delegate == "rtx"
    assert manifest.runtime.options["compute_capabilities"] == "8.6,8.9,12.0"
    assert (
        manifest.runtime.options["version"]
        == manifest.runtime.version
        == manifest.versions["tensorrt_rtx_cu13_bindings"]
    )
    assert manifest.parts[0].program == "forward.engine" and manifest.files["forward.engine"].size_bytes > 10_000
    assert manifest.extras == ["forward.layers.txt"]
    products = [layer for layer in manifest.layers if layer.kind in PRODUCTS]
    assert products and {kind for layer in products for kind in layer.inputs} == {method}
    assert {layer.part for layer in manifest.layers} == {"forward"}
    assert any(node.startswith("node_conv2d") for layer in products for node in layer.nodes)


@needs_rtx
def test_every_product_of_an_int8_engine_computes_from_integers_and_the_rest_is_half():
    bundle = edge_sdk.compile(residual_model(), "desktop-rtx", quantize="int8-static")
    layers, partition = bundle.manifest.layers, bundle.manifest.partition
    products = [layer for layer in layers if layer.kind in PRODUCTS]
    assert len(products) == 3 and all(layer.inputs == ["int8"] for layer in products)
    assert partition.fallback == [] and partition.warnings == [] and partition.delegated > 0
    (added,) = (layer for layer in layers if "node_add" in layer.nodes)
    assert "int8" in added.inputs  # what the shortcut brings
    types = {kind for layer in layers for kind in (*layer.inputs, *layer.outputs)}
    assert types == {"fp32", "fp16", "int8"}
    told = (bundle.path / "forward.layers.txt").read_text()
    assert told.startswith("Layers:\nName: ") and "ONNX Layer: node_add" in told


@needs_rtx
def test_sizes_that_vary_become_a_profile_of_the_engine():
    model = tiny(seeded(lambda: nn.Linear(8, 4)), example(4, 8), dynamic={"x": {0: (2, 16)}})
    bundle = edge_sdk.compile(model, "desktop-rtx", quantize="fp16")
    told = (bundle.path / "forward.layers.txt").read_text()
    assert "MinShape: [2,8], OptShape: [4,8], MaxShape: [16,8]" in told


def _onnx_file(tmp_path, op: str, name: str) -> str:
    spec = helper.make_tensor_value_info
    nodes = [helper.make_node("Relu", ["x"], ["h"], "first"), helper.make_node(op, ["h"], ["y"], name)]
    shapes = (spec("x", TensorProto.FLOAT, [3, 3]), spec("y", TensorProto.FLOAT, []))
    graph = helper.make_graph(nodes, "g", [shapes[0]], [shapes[1]])
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return str(path)


@needs_rtx
def test_an_operator_that_tensorrt_refuses_is_named_with_its_node(tmp_path):
    path = _onnx_file(tmp_path, "Det", "head/determinant")
    with pytest.raises(
        UnsupportedError,
        match=r"TensorRT 1\.\d.* refuses the model: operator Det, node 'head/determinant': it has no such operator",
    ):
        edge_sdk.compile(path, "desktop-rtx", use_cache=False)


@needs_rtx
def test_a_compute_capability_that_it_does_not_build_for(monkeypatch):
    from edge_sdk.backends.tensorrt._build import build

    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"], "relu")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    settings = _options.of_rule(_rule("desktop-rtx", "rtx", compute_capabilities="9.0"))
    with pytest.raises(UnsupportedError, match=r"no compute capability 9\.0; it builds for 7\.5, 8\.0, 8\.6, 8\.9"):
        build("forward", model, settings, {})
    settings = _options.of_rule(_rule("desktop-rtx", "rtx", compute_capabilities="8.6"))
    built = build("forward", model, settings, {})
    assert built.engine and [layer.nodes for layer in built.layers] == [["relu"]]


@needs_rtx
def test_a_builder_that_dies_is_reported(monkeypatch, tmp_path):
    from edge_sdk.backends.tensorrt import _build

    (tmp_path / "tensorrt").mkdir()
    program = "import os, sys\nsys.stderr.write('the end of the world')\nsys.stderr.flush()\nos.abort()"
    (tmp_path / "tensorrt" / "build.py").write_text(program)
    monkeypatch.setattr(_build, "data_dir", lambda _: tmp_path)
    with pytest.raises(ModelError, match=r"builder of part 'forward' ended with code -6 .* the end of the world"):
        edge_sdk.compile(mlp_model(), "desktop-rtx", use_cache=False)


def test_without_the_wheels_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(_here, "_has", lambda modules: False)
    with pytest.raises(
        MissingDependencyError, match=r"TensorRT for RTX is not installed; run: pip install 'edge-sdk\[rt"
    ):
        plans(load_target("desktop-rtx"), mlp_model(), make_quantizer("fp16"), "tensorrt")


def _outputs(bundle: Bundle) -> tuple[np.ndarray, np.ndarray]:
    """What ONNX Runtime makes of a bundle's ONNX, and the reference."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(bundle.path / "forward.onnx"), providers=["CPUExecutionProvider"])
    reference = bundle.reference()
    (name,) = (spec.name for spec in session.get_inputs())
    found = [session.run(None, {name: x})[0] for x in reference[f"forward/inputs/{name}"]]
    return np.stack(found).ravel(), reference["forward/outputs/y"].ravel()


@pytest.mark.parametrize(("method", "least"), [("fp16", 0.99999), ("int8-static", 0.99)])
def test_a_jetsons_bundle_holds_the_model_that_its_engine_is_built_from(method, least):
    bundle = edge_sdk.compile(residual_model(), "jetson-orin-nano", quantize=method, runtime="tensorrt")
    manifest = bundle.manifest
    assert (manifest.runtime.delegate, manifest.runtime.version) == ("gpu", "built on the device")
    assert manifest.layers == [] and manifest.partition.warnings == [
        "the engine is built on the device when it first runs there; its layers are in the report"
    ]
    model = onnx.load(bundle.path / "forward.onnx")
    onnx.checker.check_model(model, full_check=True)  # types and order: the parser is strict about them
    halves = {tensor.name for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT16}
    assert halves and not any(tensor.data_type == TensorProto.FLOAT for tensor in model.graph.initializer)
    if method == "int8-static":
        scales = {node.input[1] for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")}
        assert scales <= halves
    found, wanted = _outputs(bundle)
    assert float(found @ wanted) / float(np.linalg.norm(found) * np.linalg.norm(wanted)) > least


def test_the_runner_is_told_the_range_of_sizes_that_vary():
    model = tiny(seeded(lambda: nn.Linear(8, 4)), example(4, 8), dynamic={"x": {0: (2, 16)}})
    options = edge_sdk.compile(model, "jetson-orin-nano", quantize="fp32", runtime="tensorrt").manifest.runtime.options
    assert options == {
        "delegate": "gpu",
        "tf32": False,
        "cuda_graphs": True,
        "workspace_mib": 0,
        "profile.forward.x": "2x8,4x8,16x8",
    }


def test_an_onnx_file_whose_sizes_vary_tells_no_range(tmp_path):
    spec = helper.make_tensor_value_info
    node = helper.make_node("Relu", ["x"], ["y"], "relu")
    shapes = (spec("x", TensorProto.FLOAT, ["n", 4]), spec("y", TensorProto.FLOAT, ["n", 4]))
    graph = helper.make_graph([node], "g", [shapes[0]], [shapes[1]])
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    with pytest.raises(UnsupportedError, match=r"tells no range of them, which TensorRT needs.*--set shape\.x=1,4"):
        edge_sdk.compile(str(path), "jetson-orin-nano", runtime="tensorrt", use_cache=False)


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        ("fp32", "the DLA computes in FP16 and INT8 only; use fp16"),
        ("int8-static", "the DLA of TensorRT 10 takes no Q/DQ operators"),
    ],
)
def test_what_the_dla_does_not_compute(method, reason):
    with pytest.raises(UnsupportedError, match=reason):
        plans(load_target("jetson-agx-orin"), mlp_model(), make_quantizer(method), "tensorrt:dla")


def test_the_dla_is_taken_only_where_it_is_named():
    found, refused = plans(load_target("jetson-agx-orin"), mlp_model(), make_quantizer("fp16"), "tensorrt")
    assert [plan.label for plan in found] == ["tensorrt (gpu)"]
    assert refused == {"tensorrt (dla)": "taken only where it is named: --runtime tensorrt:dla"}
    found, _ = plans(load_target("jetson-agx-orin"), mlp_model(), make_quantizer("fp16"), "tensorrt:dla")
    assert [plan.label for plan in found] == ["tensorrt (dla)"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"speed": 1}, r"tensorrt \(rtx\), option 'speed': there is none of that name; it has: compute_cap"),
        ({"tf32": 1}, "option 'tf32': found 1, expected true or false"),
        ({"compute_capabilities": "sm_86"}, "found 'sm_86', expected such as '8.6,8.9'"),
        ({"compute_capabilities": "8.6,8.6"}, "found '8.6,8.6', expected such as"),
    ],
)
def test_options_that_the_delegate_does_not_have(options, message):
    with pytest.raises(UnsupportedError, match=message):
        _options.of_rule(_rule("desktop-rtx", "rtx", **options))


def test_a_workspace_below_nothing():
    with pytest.raises(UnsupportedError, match="option 'workspace_mib': found -1, expected 0 or more"):
        _options.of_rule(_rule("jetson-orin-nano", "gpu", workspace_mib=-1))


def test_what_running_lacks_here(monkeypatch):
    def nothing() -> _nvidia.Driver:
        raise OSError("the NVIDIA driver sees no GPU")

    monkeypatch.setattr(_nvidia, "driver", nothing)
    problem = TensorRtBackend.runner_problem("rtx")
    assert problem == "needs an NVIDIA GPU with its driver, and the NVIDIA driver sees no GPU"
    gpu = _nvidia.Gpu("Test GPU", "8.6", 8192, 8000)
    monkeypatch.setattr(_nvidia, "driver", lambda: _nvidia.Driver("580.65", (13, 0), (gpu,)))
    monkeypatch.setattr(_here, "_has", lambda modules: False)
    monkeypatch.setattr(_here, "trtexec", lambda: None)
    assert "neither the Python package tensorrt nor the program trtexec is here" in (
        TensorRtBackend.runner_problem("gpu") or ""
    )
