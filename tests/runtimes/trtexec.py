#!/usr/bin/env python3
"""A stand-in for ``trtexec``: the real tool's forms of TensorRT 10.3 or 11.1, the computing done by ONNX Runtime.

Source of the forms: NVIDIA/TensorRT v10.3.0 and 11.1, ``samples/common`` and ``samples/trtexec``. An engine of its own
is a line of JSON and the ONNX behind it. ``trtexec.json`` beside the program says which version it plays and what goes
wrong.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from datetime import datetime
from pathlib import Path

SETTINGS = {"version": [10, 3, 0], "trouble": "", "gpu": "Orin", "capability": "8.7", "ms": 2.0, "calls": ""}
SETTINGS.update(json.loads(Path(sys.argv[0]).resolve().with_suffix(".json").read_text()))
MAJOR, MINOR, PATCH = SETTINGS["version"]
TROUBLE = SETTINGS["trouble"]
BUILD = "" if MAJOR < 11 else " [b106]"
NAME = f"TensorRT.trtexec [TensorRT v{MAJOR * 10000 + MINOR * 100 + PATCH}]{BUILD}"
KNOWN = {
    10: "stronglyTyped useSpinWait useCudaGraph separateProfileRun fp16 noDataTransfers".split(),
    11: "includeDataTransfers noCudaGraph noSpinWait adjustForDLA".split(),
}
BOTH = (
    "onnx saveEngine loadEngine skipInference profilingVerbosity exportLayerInfo timingCacheFile noTF32 memPoolSize "
    "minShapes optShapes maxShapes useDLACore allowGPUFallback iterations duration warmUp loadInputs shapes help "
    "dumpRawBindingsToFile exportTimes exportProfile"
).split()


def tell(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def say(words: str, level: str = "I") -> None:
    tell(f"[{datetime.now():%m/%d/%Y-%H:%M:%S}] [{level}] {words}")


def end(passed: bool) -> None:
    tell(f"&&&& {'PASSED' if passed else 'FAILED'} {NAME} # {' '.join(sys.argv)}")
    sys.exit(0 if passed else 1)


def fail(*words: str) -> None:
    for line in words:
        say(line, "E")
    end(False)


def read_engine(path: str) -> tuple[dict, bytes]:
    content = Path(path).read_bytes()
    head, _, onnx = content.partition(b"\n")
    return json.loads(head), onnx


def session(onnx: bytes):
    import onnxruntime

    return onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])


def nodes(onnx: bytes) -> list[tuple[str, str]]:
    import onnx as module

    return [(node.name or node.op_type, node.op_type) for node in module.load_from_string(onnx).graph.node]


def build(options: dict[str, str]) -> None:
    onnx = Path(options["onnx"]).read_bytes()
    say("Start parsing network model.")
    if TROUBLE == "refused":
        fail(
            '[TRT] ModelImporter.cpp:949: While parsing node number 1 [Det -> "y"]:',
            '[TRT] ModelImporter.cpp:950: --- Begin node ---\ninput: "h"\noutput: "y"\nname: "head/determinant"\n'
            'op_type: "Det"\n',
            "[TRT] ModelImporter.cpp:951: --- End node ---",
            "[TRT] ModelImporter.cpp:954: ERROR: onnxOpCheckers.cpp:781 In function checkFallbackPluginImporter:\n"
            '[6] creator && "Plugin not found, are the plugin name, version, and namespace correct?"',
            "Failed to parse onnx file",
        )
    say("Finished parsing network model. Parse time: 0.0021")
    if TROUBLE == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if TROUBLE == "build memory":
        fail(
            "Error[2]: [defaultAllocator.cpp::allocate::19] Error Code 1: Cuda Runtime (out of memory)",
            "Engine set up failed",
        )
    if "useDLACore" in options:
        say("[TRT] Layer 'node_mean' (REDUCE): Unsupported on DLA. Switching this layer's device type to GPU.", "W")
    cache = options.get("timingCacheFile")
    if cache:
        with open(cache, "ab") as file:
            file.write(b"timed\n")
    found = nodes(onnx)
    head = {"version": SETTINGS["version"], "nodes": [name for name, _ in found]}
    Path(options["saveEngine"]).write_bytes(json.dumps(head).encode() + b"\n" + onnx)
    layers = [
        {
            "Name": name,
            "LayerType": op,
            "Inputs": [{"Name": "in", "Dimensions": [1], **tensor_type("Half")}],
            "Outputs": [{"Name": "out", "Dimensions": [1], **tensor_type("Half")}],
            "Metadata": f"[ONNX Layer: {name}]",
        }
        for name, op in found
    ]
    io = (
        {"Bindings": ["x", "y"]}
        if MAJOR < 11
        else {"I/O Tensors": [{"Name": "x", "IOMode": "Input", "DataType": "Float"}]}
    )
    Path(options["exportLayerInfo"]).write_text(json.dumps({"Layers": layers, **io}))
    say("Engine built in 1.25 sec.")
    say("Created engine with size: 0.5 MiB")
    say("Skipped inference phase since --skipInference is added.")
    end(True)


def tensor_type(name: str) -> dict[str, str]:
    if MAJOR < 11:
        return {"Format/Datatype": name}
    return {"Datatype": name, "Format": "Row major linear format"}


def run(options: dict[str, str]) -> None:
    head, onnx = read_engine(options["loadEngine"])
    if head["version"] != SETTINGS["version"]:
        here, there = (".".join(map(str, one)) for one in (SETTINGS["version"], head["version"]))
        fail(
            "Error[1]: [runtime.cpp::parsePlan::307] Error Code 1: Serialization (The engine plan file is not "
            f"compatible with this version of TensorRT, expecting library version {here} got {there}, please rebuild.)",
            "Engine deserialization failed",
        )
    say("Engine loaded in 0.002 sec.")
    say("Engine deserialized in 0.01 sec.")
    if TROUBLE == "memory":
        fail(
            "Error[1]: [defaultAllocator.cpp::allocate::31] Error Code 1: Cuda Runtime (out of memory)",
            "Inference set up failed",
        )
    say("Starting inference")
    iterations, duration = int(options["iterations"]), float(options["duration"])
    warmup, ms = float(options["warmUp"]), SETTINGS["ms"]
    count = max(iterations, int(duration * 1000 / ms))
    time.sleep(min(0.1, count * ms / 1000))
    if TROUBLE == "cut short":
        Path(options.get("exportTimes", "times.json")).write_text('[\n  { "startEnqMs" : 0.1, ')
        end(True)
    if TROUBLE == "killed while running":
        os.kill(os.getpid(), signal.SIGKILL)
    summary(count, warmup, ms)
    if "exportTimes" in options:
        Path(options["exportTimes"]).write_text(times(count, warmup, ms))
    if "dumpRawBindingsToFile" in options:
        dump(onnx, options)
    if "exportProfile" in options:
        Path(options["exportProfile"]).write_text(profile(head["nodes"], ms))
    end(True)


def spans(count: int, ms: float):
    """Start and the latencies of an iteration: transfers of 0.1 and 0.05 ms, a compute time that repeats itself."""
    for index in range(count):
        yield index * ms, 0.1, ms * (0.90 + 0.01 * (index % 3)), 0.05


def times(count: int, warmup: float, ms: float) -> str:
    lines = []
    for start, h2d, compute, d2h in spans(count, ms):
        at = warmup + start
        figures = {
            "startEnqMs": at, "endEnqMs": at + 0.2, "startH2dMs": at, "endH2dMs": at + h2d, "startComputeMs": at + h2d,
            "endComputeMs": at + h2d + compute, "startD2hMs": at + h2d + compute, "endD2hMs": at + h2d + compute + d2h,
            "h2dMs": h2d, "computeMs": compute, "d2hMs": d2h, "latencyMs": h2d + compute + d2h,
        }  # fmt: skip
        words = ", ".join(f'"{key}" : {value:.6g}' for key, value in figures.items())
        lines.append(f"{', ' if lines else '  '}{{ {words} }}")
    return "[\n" + "\n".join(lines) + "\n]\n"


def profile(layers: list[str], ms: float) -> str:
    each = ms * 0.9 / len(layers)
    lines = ['  { "count" : 20 }']
    for name in layers:
        lines.append(
            f', {{ "name" : "{name}", "timeMs" : {20 * each:.6g}, "averageMs" : {each:.6g}, "medianMs" : {each:.6g}, '
            f'"percentage" : {100 / len(layers):.6g} }}'
        )
    return "[\n" + "\n".join(lines) + "\n]\n"


def summary(count: int, warmup: float, ms: float) -> None:
    every = list(spans(count, ms))
    columns = {
        "Latency": [a + b + c for _, a, b, c in every], "Enqueue Time": [0.2] * count, "H2D Latency": [0.1] * count,
        "GPU Compute Time": [compute for _, _, compute, _ in every], "D2H Latency": [0.05] * count,
    }  # fmt: skip
    say(f"Warmup completed 3 queries over {warmup:g} ms")
    say("")
    say("=== Performance summary ===")
    say(f"Throughput: {1000 / ms:g} qps")
    for name, values in columns.items():
        values.sort()
        low, high, middle = values[0], values[-1], values[len(values) // 2]
        mean = sum(values) / len(values)
        percentiles = ", ".join(f"percentile({share}%) = {high:.6g} ms" for share in (90, 95, 99))
        say(
            f"{name}: min = {low:.6g} ms, max = {high:.6g} ms, mean = {mean:.6g} ms, median = {middle:.6g} ms, "
            f"{percentiles}"
        )
    say(f"Total Host Walltime: {count * ms / 1000:g} s")
    say(f"Total GPU Compute Time: {count * ms / 1000:g} s")
    if TROUBLE == "unstable":
        say("* Throughput may be bound by Enqueue Time rather than GPU Compute and the GPU may be under-utilized.", "W")
        say("  If you are using --noCudaGraph, removing it may increase throughput.", "W")
        say("* GPU compute time is unstable, with coefficient of variance = 12.5%.", "W")
        say("  If not already in use, locking GPU clock frequency may improve the stability.", "W")
    say("Explanations of the performance metrics are printed in the verbose logs.")
    say("")


def dump(onnx: bytes, options: dict[str, str]) -> None:
    """Computes, and writes inputs and outputs as files."""
    import numpy as np

    program = session(onnx)
    given, shapes = (
        dict(one.rpartition(":")[::2] for one in options.get(name, "").split(",") if one)
        for name in ("loadInputs", "shapes")
    )
    feed = {}
    for value in program.get_inputs():
        shape = [int(size) for size in shapes.get(f"'{value.name}'", "").split("x") if size] or value.shape
        kind = {"tensor(float)": np.float32, "tensor(int64)": np.int64}[value.type]
        feed[value.name] = np.fromfile(given[f"'{value.name}'"], kind).reshape(shape)
    outputs = zip([value.name for value in program.get_outputs()], program.run(None, feed), strict=True)
    say("Dumping I/O Bindings to RAW Files:")
    for kind, pairs in (("input", feed.items()), ("output", outputs)):
        for name, array in pairs:
            dims = ".".join(map(str, array.shape))
            file = f"{name}.{kind}.{dims}.fp32.raw"
            say(f"Writing file for {kind} binding {name} (with datatype fp32 and dimensions {dims}) to {file}")
            array.tofile(file)


def main() -> None:
    options = {}
    for word in sys.argv[1:]:
        key, _, value = word.removeprefix("--").partition("=")
        options[key] = value
    if SETTINGS["calls"]:
        with open(SETTINGS["calls"], "a") as file:
            file.write(json.dumps(sys.argv[1:]) + "\n")
    tell(f"&&&& RUNNING {NAME} # {' '.join(sys.argv)}")
    if "help" in options:
        tell("=== Model Options ===\n  --onnx=<file>               ONNX model")
        sys.exit(0)
    unknown = [key for key in options if key not in (*BOTH, *KNOWN[MAJOR])]
    if unknown:
        fail(*(f"Unknown option: --{key} {options[key]}" for key in unknown))
    if TROUBLE == "no gpu":
        say("=== Device Information ===")
        say("Cannot find any available devices (GPUs)!", "E")
        sys.exit(1)
    say("=== Device Information ===")
    say(f"Selected Device: {SETTINGS['gpu']}")
    say(f"Compute Capability: {SETTINGS['capability']}")
    say("")
    say(f"TensorRT version: {MAJOR}.{MINOR}.{PATCH}")
    (build if "onnx" in options else run)(options)


if __name__ == "__main__":
    main()
