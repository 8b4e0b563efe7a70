"""Programs for NNAPI: that they obey its rules, compute what the model computes, and say what stays outside."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from _models import Tiny, captioner, conv_model, cosine, exact, example, flat, mlp_model, nn, run, seeded, tiny, torch

import edge_sdk
from edge_sdk.errors import ModelError, UnsupportedError
from edge_sdk.schema import load_target

onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install 'edge-sdk[onnxruntime]'")
ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'edge-sdk[onnxruntime]'")

from edge_sdk.backends.onnxruntime._shield import shield_float_layers  # noqa: E402
from edge_sdk.backends.onnxruntime.nnapi import View, cut  # noqa: E402
from edge_sdk.backends.onnxruntime.nnapi._lower import basic  # noqa: E402

NPU = "galaxy-s24-npu"
EDGES = {
    ("QuantizeLinear", "on the CPU on purpose: NNAPI gets and gives UINT8"),
    ("DequantizeLinear", "on the CPU on purpose: NNAPI gets and gives UINT8"),
}
SUMMARY = re.compile(r"(\d+) partitions with a total of \d+/\d+ nodes can be handled by the NNAPI EP")


def compiled(model, quantize="int8-static", target=NPU, **options):
    return edge_sdk.compile(model, target, quantize=quantize, **options)


def program(bundle, part="forward"):
    return onnx.load(bundle.path / f"{part}.onnx")


def outside(bundle) -> set[tuple[str, str]]:
    return {(one.op, one.reason) for one in bundle.manifest.partition.fallback}


def check_rules(made) -> None:
    """Every rule that a fixed-shape U8S8 program for NNAPI obeys, read off its nodes."""
    view = View(made)
    assert not {node.op_type for node in view.nodes} & {"If", "Loop", "Scan"}
    for value in (*made.graph.input, *made.graph.output):
        assert all(dim.dim_value > 0 for dim in value.type.tensor_type.shape.dim)
    for place, node in enumerate(view.nodes):
        assert all(view.shape(name) is not None for name in (*node.input, *node.output) if name), node
        if node.op_type == "QuantizeLinear":
            assert view.dtype(node.output[0]) == onnx.TensorProto.UINT8
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        scale, zero = view.value(node.input[1]), view.value(node.input[2]) if len(node.input) > 2 else np.zeros(1)
        assert scale is not None and zero is not None, "a scale or zero point is computed"
        source = view.constants.get(node.input[0])
        if source is None:
            at_edge = node.input[0] in view.inputs or node.output[0] in view.outputs
            assert scale.size == 1 or at_edge, "a scale for each channel of an activation"
            continue
        readers = {view.nodes[reader].op_type for reader in view.edges_out(place)}
        if source.data_type == onnx.TensorProto.INT8:
            assert not zero.any() and readers == {"Conv"} and scale.size in (1, source.dims[0])
        else:
            assert source.data_type == onnx.TensorProto.INT32  # a bias
    for unit in {id(unit): unit for piece in cut(view, 34).pieces for unit in piece}.values():
        node = view.nodes[unit.target]
        if node.op_type in ("Conv", "Add", "AveragePool", "Concat"):
            assert unit.grouped, f"{node.op_type} without its quantizers"


@pytest.fixture(scope="module")
def resnet():
    pytest.importorskip("skimage", reason="scikit-image is not installed: pip install 'edge-sdk[photos]'")
    return compiled("photo_tagging", settings={"input_size": "64"})


def test_a_resnet_is_taken_whole_and_obeys_the_rules(resnet):
    check_rules(program(resnet))
    partition = resnet.manifest.partition
    assert (partition.delegate, partition.pieces, partition.warnings) == ("nnapi", 1, [])
    assert outside(resnet) == EDGES
    assert partition.delegated >= 30
    assert {"fuse_ahead"} & {one.name for one in partition.rewrites} == set()
    assert {node.domain for node in program(resnet).graph.node} == {""}


def test_a_resnet_computes_what_it_computes_in_fp32(resnet):
    reference = resnet.reference()
    session = ort.InferenceSession(str(resnet.path / "forward.onnx"), providers=["CPUExecutionProvider"])
    for image, logits in zip(reference["forward/inputs/image"], reference["forward/outputs/logits"], strict=True):
        (found,) = session.run(None, {"image": image})
        a, b = found.ravel().astype(np.float64), logits.ravel().astype(np.float64)
        assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) > 0.99


def test_the_usability_checker_agrees(resnet):
    command = [sys.executable, "-m", "onnxruntime.tools.check_onnx_model_mobile_usability"]
    done = subprocess.run([*command, resnet.path / "forward.onnx"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = SUMMARY.search(done.stderr)
    assert found and int(found[1]) == resnet.manifest.partition.pieces == 1
    assert "Model should perform well with NNAPI as is: YES" in done.stderr


def test_onnx_runtimes_basic_optimisations_change_the_verdict_no_more(resnet):
    made = program(resnet)
    again = cut(View(basic("forward", made)), 34)
    first = cut(View(made), 34)
    assert len(again.pieces) == len(first.pieces) and len(again.view.nodes) == len(first.view.nodes)


def test_the_ort_format_lies_beside_it_and_is_not_counted(resnet):
    manifest = resnet.manifest
    assert manifest.extras == ["forward.ort"] and manifest.parts[0].program == "forward.onnx"
    assert manifest.size_bytes == manifest.files["forward.onnx"].size_bytes == manifest.cost.weight_bytes
    data = (resnet.path / "forward.ort").read_bytes()
    assert data[4:8] == b"ORTM"
    assert b"QLinearConv" in data and b"DequantizeLinear" in data and b"NhwcFused" not in data
    image = resnet.reference()["forward/inputs/image"][0]
    one, other = (
        ort.InferenceSession(str(resnet.path / name), providers=["CPUExecutionProvider"]).run(None, {"image": image})[0]
        for name in ("forward.onnx", "forward.ort")
    )
    assert np.abs(one - other).max() <= 0.05 * np.abs(one).max()


def test_the_runner_gets_its_own_options_only(resnet):
    assert resnet.manifest.runtime.options == {"nnapi_use_fp16": True, "nnapi_cpu_disabled": True}


class Mobile(nn.Module):
    """What mobile networks are made of besides: gates, pools, a pointwise product, a softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.squeeze, self.excite = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 4, 1), nn.Conv2d(4, 16, 1)
        self.last, self.head = nn.Conv2d(16, 8, 3), nn.Linear(8, 10)

    def forward(self, x):
        x = nn.functional.silu(self.stem(x))
        x = x * torch.sigmoid(self.excite(torch.relu(self.squeeze(x.mean((2, 3), keepdim=True)))))
        x = nn.functional.max_pool2d(nn.functional.hardswish(self.last(x)), 2)
        return torch.softmax(self.head(x.mean((2, 3))), 1)


class Pooled(nn.Module):
    """A max pool behind a convolution, a shortcut, a concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(16, 10)

    def forward(self, x):
        x = nn.functional.max_pool2d(torch.relu(self.one(x)), 2)
        x = torch.cat([torch.relu(self.two(x) + x), x], 1)
        return self.head(x.mean((2, 3)))


MODELS = {
    "convnet": conv_model,
    "mlp": mlp_model,
    "mobile": lambda: tiny(seeded(Mobile), example(1, 3, 16, 16), name="mobile"),
    "pooled": lambda: tiny(seeded(Pooled), example(1, 3, 16, 16), name="pooled"),
}


@pytest.mark.parametrize("name", MODELS)
def test_small_networks_are_taken_whole(name):
    model = MODELS[name]()
    bundle = compiled(model)
    partition = bundle.manifest.partition
    assert (partition.pieces, partition.warnings) == (1, [])
    assert outside(bundle) <= EDGES
    samples = model.samples("reference")
    assert cosine(run(bundle, samples), exact(model, samples)) > 0.99
    if name != "mobile":  # its gates are in float, and no whole groups
        check_rules(program(bundle))


@pytest.mark.parametrize("name", MODELS)
def test_rewrites_change_what_nnapi_takes_and_not_what_is_computed(name):
    model = MODELS[name]()
    samples = model.samples("reference")
    cpu = run(compiled(model, target="desktop-cpu", runtime="onnxruntime"), samples)
    found = run(compiled(model), samples)
    assert np.abs(flat(found) - flat(cpu)).max() <= 0.06 * np.abs(flat(cpu)).max()


def test_parts_have_a_report_together():
    bundle = compiled(captioner())
    partition = bundle.manifest.partition
    assert partition.pieces == 2
    assert ("Gather", "has INT8 input; NNAPI takes FLOAT") in outside(bundle)
    assert bundle.manifest.extras == ["encoder.ort", "step.ort"]


def test_half_precision_is_a_flag_and_the_graph_stays_in_fp32():
    model = conv_model()
    bundle = compiled(model, "fp16")
    types = {tensor.data_type for tensor in program(bundle).graph.initializer}
    assert onnx.TensorProto.FLOAT16 not in types and onnx.TensorProto.FLOAT in types
    assert bundle.manifest.quantization.method == "fp16"
    assert bundle.manifest.quantization.options == {"graph": "fp32", "by": "nnapi_use_fp16"}
    assert bundle.manifest.runtime.options["nnapi_use_fp16"] is True
    assert bundle.manifest.partition.pieces == 1 and bundle.manifest.partition.fallback == []
    samples = model.samples("reference")
    assert np.abs(flat(run(bundle, samples)) - flat(exact(model, samples))).max() < 1e-5


def variant(**options):
    """The NPU's profile with other options of its rule."""
    target = load_target(NPU)
    rule = target.runtimes[0].model_copy(update={"options": {**target.runtimes[0].options, **options}})
    return target.model_copy(update={"runtimes": [rule]})


def test_half_precision_without_the_flag_is_refused():
    with pytest.raises(UnsupportedError) as caught:
        compiled(mlp_model(), "fp16", variant(nnapi_use_fp16=False))
    assert "nnapi computes fp16 where the target's option nnapi_use_fp16 is on, and it is off" in str(caught.value)


@pytest.mark.parametrize(
    ("quantizer", "reason"),
    [
        ("fp32", "the target allows fp16, int8 there, and fp32 is fp32"),
        ("int8-dynamic", "NNAPI has no operator that quantizes as values come; use int8-static"),
        ("int4-weight", "NNAPI has no weights of 4 bits; use int8-static"),
    ],
)
def test_quantizers_that_cannot_work_are_refused_before_work(quantizer, reason):
    def parts():
        raise AssertionError("the model was loaded")

    model = mlp_model()
    model.parts = parts
    with pytest.raises(UnsupportedError) as caught:
        compiled(model, quantizer)
    assert str(caught.value) == f"target '{NPU}' cannot take model 'mlp' as {quantizer}: onnxruntime (nnapi): {reason}."


def test_quantizers_at_the_edges_stay_on_the_cpu_by_the_targets_wish_only():
    model = conv_model()
    samples = model.samples("reference")
    inside = compiled(model, target=variant(quantized_edges=False))
    assert inside.manifest.partition.fallback == [] and inside.manifest.partition.pieces == 1
    assert np.array_equal(flat(run(inside, samples)), flat(run(compiled(model), samples)))


def test_an_older_android_takes_less():
    bundle = compiled(conv_model(), target=variant(android_api=28))
    reasons = {reason for _, reason in outside(bundle)}
    assert "its weight has a scale for each channel, which needs Android API level 29" in reasons


class Conditional(nn.Module):
    """A branch that the data decides."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x):
        x = self.layer(x)
        return torch.cond(x.sum() > 0, torch.sin, torch.cos, (x,))


REFUSED = "and target 'galaxy-s24-npu' does not allow it on onnxruntime (nnapi): NNAPI has no control flow; export each"


def test_control_flow_is_named_and_refused_before_anything_is_quantized():
    told = []
    with pytest.raises(UnsupportedError, match=r"part 'forward' has the operator If \('cond'\), ") as caught:
        compiled(tiny(Conditional(), example(1, 8)), progress=told.append)
    assert REFUSED in str(caught.value)
    assert not any("quantizing" in line for line in told)


def branches(path: Path) -> Path:
    """An ONNX file with an If."""
    value = onnx.helper.make_tensor_value_info
    inner = [
        onnx.helper.make_graph(
            [onnx.helper.make_node(op, ["x"], [op])], op, [], [value(op, onnx.TensorProto.FLOAT, [1, 4])]
        )
        for op in ("Sin", "Cos")
    ]
    nodes = [
        onnx.helper.make_node("ReduceSum", ["x"], ["s"], keepdims=0),
        onnx.helper.make_node("Cast", ["s"], ["c"], to=onnx.TensorProto.BOOL),
        onnx.helper.make_node("If", ["c"], ["y"], "decide", then_branch=inner[0], else_branch=inner[1]),
    ]
    ends = [value("x", onnx.TensorProto.FLOAT, [1, 4])], [value("y", onnx.TensorProto.FLOAT, [1, 4])]
    opset = onnx.helper.make_opsetid("", 17)
    onnx.save(
        onnx.helper.make_model(onnx.helper.make_graph(nodes, "b", *ends), opset_imports=[opset], ir_version=9), path
    )
    return path


def test_control_flow_in_an_onnx_file(tmp_path):
    with pytest.raises(UnsupportedError, match=r"part 'forward' has the operator If \('decide'\), ") as caught:
        compiled(branches(tmp_path / "branches.onnx"), "fp16")
    assert REFUSED in str(caught.value)


def test_an_operator_that_the_users_own_profile_denies_or_does_not_allow():
    rule = load_target(NPU).runtimes[0]
    for rules, reason in (
        ({"deny": {"Conv": "the driver of this phone is broken."}}, ": the driver of this phone is broken."),
        ({"allow": ["Relu", "Gemm"]}, "; it allows: Gemm, Relu."),
    ):
        operators = rule.operators.model_validate(rules)
        changed = load_target(NPU).model_copy(update={"runtimes": [rule.model_copy(update={"operators": operators})]})
        with pytest.raises(UnsupportedError, match=r"part 'forward' has the operator Conv \('") as caught:
            compiled(conv_model(), "fp16", changed)
        assert str(caught.value).endswith(f"does not allow it on onnxruntime (nnapi){reason}")


class Sorted(nn.Module):
    """Nothing that NNAPI has."""

    def forward(self, x):
        return torch.cumsum(torch.topk(x, 4).values, 1)


def test_a_model_that_nnapi_takes_nothing_of_is_refused():
    with pytest.raises(UnsupportedError, match="NNAPI takes no operator of the model") as caught:
        compiled(tiny(Sorted(), example(1, 8)), "fp16")
    message = str(caught.value)
    assert "TopK: the NNAPI provider has no such operator" in message
    assert message.endswith("Compile for galaxy-s24-cpu instead.")


class Split(nn.Module):
    """Operators that NNAPI has, with one between that it lacks."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x):
        return self.two(torch.erf(torch.cumsum(torch.erf(torch.relu(self.one(x))), 1)))


def test_what_stays_outside_is_listed_with_its_reason():
    bundle = compiled(tiny(seeded(Split), example(1, 8)), "fp16")
    partition = bundle.manifest.partition
    assert partition.pieces == 2
    counts = {one.op: (one.count, one.reason) for one in partition.fallback}
    assert counts == {
        "Erf": (2, "the NNAPI provider has no such operator"),
        "CumSum": (1, "the NNAPI provider has no such operator"),
    }


def test_sizes_that_vary_are_refused():
    model = tiny(seeded(lambda: nn.Linear(8, 4)), example(2, 8), dynamic={"x": {0: (1, 16)}})
    with pytest.raises(UnsupportedError) as caught:
        compiled(model)
    message = str(caught.value)
    assert "input 'x' of model 'tiny' has sizes that vary, [?, 8], and target 'galaxy-s24-npu' takes fixed" in message
    assert message.endswith("shapes only on onnxruntime (nnapi). Leave them out of Part.dynamic.")


class Exported(nn.Module):
    """A classifier as ONNX files have it."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.head = nn.Linear(16, 10)

    def forward(self, x):
        x = nn.functional.max_pool2d(torch.relu(self.one(x)), 2)
        x = nn.functional.adaptive_avg_pool2d(torch.relu(self.two(x) + x), 1)
        return torch.softmax(self.head(x.flatten(1)), 1)


IMAGE = example(1, 3, 16, 16)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """`Exported`, its ONNX file and calibration data for it."""
    network, folder = seeded(Exported), tmp_path_factory.mktemp("exported")
    made = torch.onnx.export(network, (IMAGE,), dynamo=True, input_names=["x"], output_names=["y"], verbose=False)
    assert made is not None
    made.save(str(folder / "net.onnx"))
    random = np.random.default_rng(1).standard_normal((16, *IMAGE.shape))
    np.savez(folder / "data.npz", x=random.astype(np.float32))
    return network, folder / "net.onnx", folder / "data.npz"


def test_an_onnx_file_is_taken_whole(exported):
    network, path, data = exported
    bundle = compiled(path, calibration=data)
    assert bundle.manifest.partition.pieces == 1 and outside(bundle) <= EDGES
    check_rules(program(bundle))
    (found,) = ort.InferenceSession(str(bundle.path / "forward.onnx")).run(None, {"x": IMAGE.numpy()})
    with torch.no_grad():
        assert np.abs(found - network(IMAGE).numpy()).max() < 0.02


def test_a_product_that_no_session_would_start_with_is_refused(exported):
    with pytest.raises(ModelError) as caught:
        compiled(exported[1], calibration=exported[2], rewrites=False)
    message = str(caught.value)
    assert message.startswith("part 'forward': Gemm '")
    assert "passes the check of ONNX Runtime's NNAPI provider, and no session starts with it: " in message
    assert message.endswith("Compile without --no-rewrites, so that it becomes a convolution.")


def test_signed_activations_without_rewrites_are_refused():
    with pytest.raises(UnsupportedError, match="its inputs are INT8 and INT8; NNAPI takes UINT8 activations") as caught:
        compiled(mlp_model(), rewrites=False)
    assert str(caught.value).endswith("Compile without --no-rewrites, or for galaxy-s24-cpu instead.")


def test_layers_left_in_float_are_shielded_by_what_nnapi_takes():
    node, constant = onnx.helper.make_node, onnx.numpy_helper.from_array
    value = onnx.helper.make_tensor_value_info
    weight = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        node("Conv", ["d", "w"], ["c"]),
        node("QuantizeLinear", ["c", "s", "z"], ["cq"]),
        node("DequantizeLinear", ["cq", "s", "z"], ["y"]),
    ]
    constants = [constant(np.float32(0.05), "s"), constant(np.uint8(99), "z"), constant(weight, "w")]
    ends = [value("x", 1, [1, 3, 8, 8])], [value("y", 1, [1, 4, 6, 6])]
    opset = onnx.helper.make_opsetid("", 18)
    made = onnx.helper.make_model(
        onnx.helper.make_graph(nodes, "g", *ends, constants), opset_imports=[opset], ir_version=9
    )
    image = example(1, 3, 8, 8).numpy()
    before = ort.InferenceSession(made.SerializeToString()).run(None, {"x": image})[0]
    assert shield_float_layers(made, by_two=True) == 1
    optimised = basic("forward", made)
    assert [node.op_type for node in optimised.graph.node if node.op_type == "Max"] == ["Max"]
    assert all(tensor.data_type != onnx.TensorProto.INT8 for tensor in optimised.graph.initializer)
    assert cut(View(optimised), 34).left == ()
    after = ort.InferenceSession(optimised.SerializeToString()).run(None, {"x": image})[0]
    assert np.abs(after - before).max() <= 0.2  # ONNX Runtime quantizes the unshielded weight, with one scale


def test_a_bundle_for_the_cpu_is_compiled_beside_it():
    from edge_sdk.models.base import Model
    from edge_sdk.pipeline.beside import companions
    from edge_sdk.pipeline.compile import Job, build
    from edge_sdk.pipeline.plan import plans
    from edge_sdk.quantization.base import make_quantizer

    model: Model = conv_model()
    told: list[str] = []
    job = Job(load_target(NPU), model, make_quantizer("int8-static"), use_cache=False, progress=told.append)
    ((plan,), _) = plans(job.target, model, job.quantizer, "auto")
    bundle = build(job, plan)
    beside = companions(job, plan)
    assert [(one.manifest.runtime.name, one.manifest.runtime.delegate) for one in beside] == [
        ("onnxruntime", "cpu"),
        ("executorch", "xnnpack"),
    ]
    assert {one.manifest.target for one in beside} == {"galaxy-s24-cpu"}
    assert {one.manifest.quantization.method for one in (bundle, *beside)} == {"int8-static"}
    assert len({one.manifest.name for one in (bundle, *beside)}) == 3
    assert told.count("capturing convnet") == 1 and told.count("computing the FP32 reference") == 1
    samples = model.samples("reference")
    for one in beside:
        assert cosine(run(one, samples), exact(model, samples)) > 0.99
    assert companions(job.for_target(load_target("galaxy-s24-cpu")), plan) == []


def test_the_target_beside_must_be_there():
    from edge_sdk.errors import TargetError
    from edge_sdk.pipeline.beside import companions
    from edge_sdk.pipeline.compile import Job
    from edge_sdk.pipeline.plan import plans
    from edge_sdk.quantization.base import make_quantizer

    model: Tiny = mlp_model()
    target = load_target(NPU).model_copy(update={"beside": "galaxy-s24-cpuu"})
    job = Job(target, model, make_quantizer("int8-static"))
    ((plan,), _) = plans(target, model, job.quantizer, "auto")
    with pytest.raises(TargetError, match="galaxy-s24-cpuu.*Did you mean 'galaxy-s24-cpu'"):
        companions(job, plan)


def test_a_target_does_not_stand_beside_itself(tmp_path):
    from edge_sdk.errors import TargetError

    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\nextends: galaxy-s24-cpu\nbeside: mine\n")
    with pytest.raises(TargetError, match="beside: a target cannot stand beside itself"):
        load_target(path)
