"""What trtexec prints and writes: recordings from public logs, forms of its source, and what is none of them."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from time import perf_counter

import pytest

RECORDINGS = Path(__file__).parents[1] / "recordings" / "trtexec"
RUNTIMES = Path(__file__).parents[2] / "runtimes"


def _module(name: str):
    spec = importlib.util.spec_from_file_location(f"tensorrt{name}", RUNTIMES / "tensorrt" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


trtexec, layers, flags = map(_module, ("_trtexec", "_layers", "_flags"))


def _recording(name: str) -> str:
    return (RECORDINGS / name).read_text("utf-8")


def test_a_summary_of_an_orin():
    said = trtexec.read(_recording("summary-10.3-orin.txt"))
    assert (said.version, said.ended, said.throughput) == ((10, 3, 0), "PASSED", 318.007)
    assert set(said.figures) == set(trtexec.STEPS)
    compute = said.figures["GPU Compute Time"]
    assert (compute["min"], compute["median"]) == (3.12671, 3.14062)
    assert compute["percentiles"] == {90.0: 3.14587, 95.0: 3.14771, 99.0: 3.15039}
    assert said.warnings == [] and trtexec.why_not(said, 0) is None


def test_its_warnings_come_without_what_to_try():
    said = trtexec.read(_recording("warnings-10.x.txt"))
    assert said.warnings == [
        "Throughput may be bound by Enqueue Time rather than GPU Compute and the GPU may be under-utilized.",
        "GPU compute time is unstable, with coefficient of variance = 20.4616%.",
    ]
    kind, message = trtexec.why_not(said, 0)
    assert said.version is None and kind == "runtime"
    assert message.startswith(
        "trtexec ended in the middle with exit code 0 and named no error; its last words: [09/02/"
    )


def test_a_refused_operator_is_named_with_its_node():
    said = trtexec.read(_recording("refused-10.3.txt"))
    kind, message = trtexec.why_not(said, 1)
    assert kind == "unsupported"
    assert message.startswith(
        "TensorRT 10.3.0 refuses the model: operator Tile, node '/Tile': Invalid Node - /Tile ITensor"
    )


def test_a_build_that_is_cut_short():
    said = trtexec.read(_recording("build-10.16-orin-nx.txt"))
    assert (said.version, said.ended) == ((10, 16, 2), None)
    assert trtexec.why_not(said, -9) == (
        "runtime",
        "trtexec of TensorRT 10.16.2 was killed by signal 9, perhaps because memory ran out",
    )


def test_what_a_dla_leaves_to_the_gpu():
    text = _recording("dla-10.x.txt").replace("[TRT] [W] ", "[W] [TRT] ")  # as trtexec's own logger writes it
    assert trtexec.read(text).fallback == [
        {"name": "(Unnamed Layer* 347) [Constant]", "op": "CONSTANT"},
        {"name": "/model.22/Slice_1", "op": "SLICE"},
        {"name": "/model.22/Constant_9_output_0", "op": "CONSTANT"},
    ]


def test_a_profile():
    count, found = trtexec.profile(_recording("profile.json"))
    assert count == 641 and found[2] == ("PWN(PWN(/Sub), PWN(/Div))", 0.023296)


def test_layers_of_old_and_new_forms():
    names = layers.of_json(_recording("layers-names.json"))
    assert names[0]["name"] == "/model/model/Transpose_1_output_0" and names[0]["inputs"] == []
    (layer,) = layers.of_json(_recording("layer-8.x.json"))
    assert (layer["kind"], layer["inputs"], layer["outputs"]) == ("CaskConvolution", ["int8"], ["int8"])
    new = {
        "Layers": [
            {
                "Name": "a_myl0_1",
                "LayerType": "gemm",
                "Inputs": [{"Name": "x", "Datatype": "BFloat16", "Format": "(Linear)"}],
                "Outputs": [{"Name": "y", "Datatype": "Float"}, {"Name": "z", "Datatype": "Half"}],
                "Metadata": "[ONNX Layer: a][ONNX Layer: b]\x1f[ONNX Layer: layers[0]/c]",
            }
        ],
        "I/O Tensors": [],
    }
    (layer,) = layers.of_json(json.dumps(new))
    assert (layer["inputs"], layer["outputs"]) == (["bf16"], ["fp32", "fp16"])
    assert layer["nodes"] == ["a", "b", "layers[0]/c"]


MARK = "&&&& RUNNING TensorRT.trtexec [TensorRT v110100] [b106] # trtexec"
PREFIX = "[11/28/2026-10:00:00] [%s] "


@pytest.mark.parametrize(
    ("lines", "code", "kind", "message"),
    [
        (
            [("E", "Error[1]: (The engine plan file is generated on an incompatible device, expecting compute 8.7 got compute 8.6, please rebuild.)")],  # noqa: E501
            1,
            "unsupported",
            "trtexec of TensorRT 11.1.0 does not take the engine: the engine plan file is generated on an incompatible device, expecting compute 8.7 got compute 8.6",  # noqa: E501
        ),
        (
            [("E", "Error[6]: (The engine plan file is not compatible with this version of TensorRT, expecting library version 10.3.0.30 got 10.7.0.23, please rebuild.)")],  # noqa: E501
            1,
            "unsupported",
            "expecting library version 10.3.0.30 got 10.7.0.23",
        ),
        ([("E", "CUDA initialization failure with error: 35")], 1, "unsupported", "cannot use the GPU: CUDA init"),
        ([("E", "Error Code 1: Cuda Runtime (out of memory)")], 1, "memory", "failed: Error Code 1: Cuda Runtime"),
        ([("I", "Starting inference")], -11, "runtime", "was killed by signal 11"),
        ([("I", "Starting inference")], 0, "runtime", "ended in the middle with exit code 0"),
        ([("E", "Unknown option: --fp16 ")], 1, "runtime", "failed: Unknown option: --fp16"),
    ],
)  # fmt: skip
def test_why_a_run_failed(lines, code, kind, message):
    said = trtexec.read("\n".join([MARK, *(PREFIX % level + words for level, words in lines)]))
    found = trtexec.why_not(said, code)
    assert found is not None and found[0] == kind and message in found[1]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("=== Performance summary ===\n" + PREFIX % "I" + "Latency: min = fast", "the figures of 'Latency' are not"),
        ("=== Performance summary ===\n" + PREFIX % "I" + "Throughput: 3 fps", "the throughput is not understood"),
        ("=== Performance summary ===\n" + PREFIX % "I" + "Throughput: inf qps", "has a figure that is none: 'inf'"),
        ("Compute Capability: high", "the compute capability is not understood"),
        ("Writing file for output binding y to y.raw", "a file of outputs that is not named"),
    ],
)
def test_lines_that_should_hold_figures_and_do_not(line, message):
    with pytest.raises(trtexec.OutputError, match=message):
        trtexec.read(PREFIX % "I" + line)
    with pytest.raises(trtexec.OutputError, match="no mark of trtexec's"):
        trtexec.read("&&&& PASSED something else")


def _iteration(index: int) -> dict[str, float]:
    return dict.fromkeys(trtexec.TIMES, 0.5) | {"startEnqMs": index * 1.25}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "is not JSON"),
        ("[]", "wrote no iterations"),
        ('[{"startEnqMs": 1}]', "an iteration that is none"),
        (json.dumps([dict(_iteration(0), h2dMs=-1)]), "an iteration that is none"),
        (json.dumps([dict(_iteration(0), h2dMs=True)]), "an iteration that is none"),
        (json.dumps([_iteration(0)]).replace("1.25", "NaN").replace("0.5", "NaN"), "NaN is no JSON number"),
    ],
)
def test_times_that_are_none(content, message):
    with pytest.raises(trtexec.OutputError, match=message):
        trtexec.times(content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[ { "count" : 3 }, { "name" : "a "b"", "timeMs" : 1 } ]', "is not JSON"),
        ('[ { "count" : 0 } ]', "counts 0 iterations"),
        ('[ { "name" : "a" } ]', "wrote no count"),
        ('[ { "count" : 1 }, { "name" : "a" } ]', "a layer that is none"),
    ],
)
def test_a_profile_that_is_none(content, message):
    with pytest.raises(trtexec.OutputError, match=message):
        trtexec.profile(content)


@pytest.mark.parametrize(
    ("read", "content", "message"),
    [
        ("of_json", "[]", "has no list 'Layers'"),
        ("of_json", '{"Layers": [{"LayerType": "x"}]}', "a layer has no name"),
        ("of_json", '{"Layers": [{"Name": "x", "Inputs": "y"}]}', "the tensors of a layer are 'y'"),
        ("of_log", "Engine built", "the builder listed no layers"),
        ("of_log", "Layers:\nconv", "a line that names no layer"),
        ("of_log", "Layers:\nName: conv", "a layer without, LayerType:"),
    ],
)
def test_layers_that_are_none(read, content, message):
    with pytest.raises(layers.LayersError, match=message):
        getattr(layers, read)(content)


def test_ten_megabytes_are_read_in_less_than_a_second():
    size = 10_000_000
    average = PREFIX % "I" + "Average on 10 runs - GPU latency: 3.14 ms - Host latency: 3.2 ms (enqueue 0.9 ms)\n"
    log = MARK + "\n" + average * (size // len(average)) + _recording("warnings-10.x.txt")
    entry = json.dumps(_iteration(1), separators=(", ", " : "))
    times = "[\n" + ", ".join([entry] * (size // len(entry))) + "]"
    one = '{ "name" : "node_conv2d", "timeMs" : 1.5, "averageMs" : 0.1, "medianMs" : 0.1, "percentage" : 0.5 }'
    profile = '[ { "count" : 20 }, ' + ", ".join([one] * (size // len(one))) + "]"
    layer = json.dumps(json.loads(_recording("layer-8.x.json"))["Layers"][0])
    information = '{"Layers": [' + ",".join([layer] * (size // len(layer))) + "]}"
    reads = ((trtexec.read, log), (trtexec.times, times), (trtexec.profile, profile), (layers.of_json, information))
    for read, content in reads:
        # The fastest of a few: other programs' time is not the reader's.
        spans = []
        while not spans or (min(spans) > 1 and len(spans) < 5):
            begin = perf_counter()
            read(content)
            spans.append(perf_counter() - begin)
        assert min(spans) < 1, f"{read.__name__}: {min(spans):.2f} s"


OPTIONS = {"timing_cache": "t", "profiles": {}, "tf32": False, "dla_core": None, "workspace_mib": None}


def test_both_major_versions_measure_the_same():
    ten = flags.run("trtexec", 10, "e", {"cuda_graphs": True, "dla_core": None})
    eleven = flags.run("trtexec", 11, "e", {"cuda_graphs": True, "dla_core": None})
    # 10 transfers unless told not to; 11 waits by spinning and captures graphs unless told not to.
    assert ten[2:] == ["--useSpinWait", "--separateProfileRun", "--useCudaGraph"]
    assert eleven[2:] == ["--includeDataTransfers"]
    without = {"cuda_graphs": False, "dla_core": None}
    assert "--useCudaGraph" not in flags.run("trtexec", 10, "e", without)
    assert "--noCudaGraph" in flags.run("trtexec", 11, "e", without)


def test_networks_are_strongly_typed_and_a_dla_is_told_what_it_may():
    assert "--stronglyTyped" in flags.build("trtexec", 10, "m", "e", "l", OPTIONS)
    assert "--stronglyTyped" not in flags.build("trtexec", 11, "m", "e", "l", OPTIONS)
    dla = {**OPTIONS, "dla_core": 1}
    assert flags.build("trtexec", 10, "m", "e", "l", dla)[-3:] == ["--useDLACore=1", "--allowGPUFallback", "--fp16"]
    assert flags.build("trtexec", 11, "m", "e", "l", dla)[-1] == "--adjustForDLA"


def test_shapes_and_a_workspace():
    options = {**OPTIONS, "profiles": {"x": [[1, 8], [4, 8], [16, 8]]}, "workspace_mib": 512, "tf32": True}
    words = flags.build("trtexec", 10, "m", "e", "l", options)
    assert {"--minShapes='x':1x8", "--optShapes='x':4x8", "--maxShapes='x':16x8"} <= set(words)
    assert "--memPoolSize=workspace:512M" in words and "--noTF32" not in words
