"""Builds one engine with TensorRT's Python package: ``python build.py SPEC.json``.

A process of its own, so that neither the builder's memory counts as the runner's nor its crash ends what called it.
It answers with JSON lines as runners do: ``progress``, then ``built`` or ``error``. The specification:

| key | what |
|---|---|
| ``builder`` | ``tensorrt`` (10.x or 11.x) or ``tensorrt_rtx`` |
| ``onnx`` | path of the model: strongly typed, with FP16 and Q/DQ in the graph |
| ``engine`` | path to write |
| ``layers`` | path to write the layer information to, in TensorRT's own form |
| ``timing_cache`` | path of a timing cache that is read, and written again; or null |
| ``profiles`` | input to its smallest, usual and largest shape, of inputs whose sizes vary |
| ``tf32`` | whether FP32 products may be computed in TF32 |
| ``compute_capabilities`` | such as ``["8.6", "8.9"]``, for ``tensorrt_rtx`` without a GPU; or null for the GPU here |
| ``dla_core`` | the DLA core to prefer, with the GPU for what it does not take; or null |
| ``workspace_mib`` | the builder's largest workspace, or null |
"""

from __future__ import annotations

import importlib
import json
import os
import re
import sys
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import _layers
from _channel import Channel
from _request import Refused

# That folder holds folders named like the packages that are yet to be imported.
del sys.path[0]

MODULES = {"tensorrt": ("tensorrt",), "tensorrt_rtx": ("tensorrt_rtx_bindings", "tensorrt_rtx")}
OLDEST = 10
KEYS = (
    "builder",
    "onnx",
    "engine",
    "layers",
    "timing_cache",
    "profiles",
    "tf32",
    "compute_capabilities",
    "dla_core",
    "workspace_mib",
)
MIB = 1 << 20
_FALLBACK = re.compile(r"Layer '(?P<name>.*)' \((?P<op>\w+)\): Unsupported on DLA\. Switching this layer's device")
_MEMORY = re.compile(r"out of memory|OutOfMemory|insufficient memory|not enough memory", re.IGNORECASE)


def module(builder):
    """The first module of a builder that can be imported.

    Raises:
        ImportError: None can.
    """
    missing = []
    for name in MODULES[builder]:
        try:
            return importlib.import_module(name)
        except ImportError as error:
            missing.append(str(error))
    raise ImportError("; ".join(missing))


def logger(trt):
    """A logger that keeps errors, what the DLA leaves to the GPU, and the list of layers."""

    class Log(trt.ILogger):
        def __init__(self):
            trt.ILogger.__init__(self)
            self.errors, self.fallback, self.layers = [], [], None

        def log(self, severity, message):
            if severity <= trt.ILogger.Severity.ERROR:
                self.errors.append(message.strip())
            elif message.startswith(_layers.LISTED):
                self.layers = message
            elif severity == trt.ILogger.Severity.WARNING:
                found = _FALLBACK.search(message)
                self.fallback += [found.groupdict()] if found else []

    return Log()


def build(spec, channel):
    """Builds an engine and writes it.

    Returns:
        ``version`` of TensorRT, ``size_bytes``, ``fallback``: what the DLA leaves to the GPU.

    Raises:
        ImportError: The builder is not installed.
        Refused: TensorRT refuses the model, or there is nothing to build for.
    """
    trt = module(spec["builder"])
    version = str(trt.__version__)
    if spec["builder"] == "tensorrt" and int(version.partition(".")[0]) < OLDEST:
        raise Refused(
            "TensorRT %s is too old: %d.0 or newer is needed, as of JetPack 6" % (version, OLDEST), "unsupported"
        )
    log = logger(trt)
    try:
        builder = trt.Builder(log)
    except Exception as error:  # the binding has no exception of its own for it
        raise Refused(_cannot_start(version, log, error), "unsupported") from error
    network = builder.create_network(_flags(trt, spec))
    parse(trt, log, network, spec)
    config = configure(trt, builder, spec)
    config.progress_monitor = monitor(trt, channel)
    cache = _timing_cache(config, spec)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        words = "; ".join(log.errors[-3:]) or "it gave no reason"
        kind = "memory" if _MEMORY.search(words) else "unsupported"
        raise Refused("TensorRT %s cannot build the engine: %s" % (version, words), kind)
    content = memoryview(plan)
    _write(spec["engine"], content)
    if cache is not None:
        _write(spec["timing_cache"], memoryview(config.get_timing_cache().serialize()))
    _write(spec["layers"], _information(trt, log, plan, spec).encode())
    return {"version": version, "size_bytes": content.nbytes, "fallback": log.fallback}


def parse(trt, log, network, spec):
    """Reads the ONNX model into the network.

    Raises:
        Refused: TensorRT refuses a node; operator and node are named.
    """
    parser = trt.OnnxParser(network, log)
    if spec["dla_core"] is not None and hasattr(trt.OnnxParserFlag, "ADJUST_FOR_DLA"):
        parser.set_flag(trt.OnnxParserFlag.ADJUST_FOR_DLA)
    if parser.parse_from_file(spec["onnx"]):
        return
    found = [parser.get_error(index) for index in range(parser.num_errors)]
    raise Refused(
        "TensorRT %s refuses the model: %s" % (trt.__version__, "; ".join(map(_of_node, found)) or "no reason given"),
        "unsupported",
    )


def _of_node(error):
    name, operator = error.node_name(), error.node_operator()
    words = refusal(error.desc())
    return "operator %s, node '%s': %s" % (operator, name, words) if operator or name else words


def refusal(words):
    """The parser's reason, in words where it is a mere condition of its code that did not hold."""
    words = words.strip().rstrip(".")
    if "Plugin not found" in words:
        return "it has no such operator, and no plugin of that name"
    return "it has no such operator" if words in ("", "false") else words


def configure(trt, builder, spec):
    """The builder's configuration.

    Raises:
        Refused: TensorRT has no such compute capability, or no such DLA core.
    """
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    (config.set_flag if spec["tf32"] else config.clear_flag)(trt.BuilderFlag.TF32)
    if spec["workspace_mib"] is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, spec["workspace_mib"] * MIB)
    if spec["profiles"]:
        profile = builder.create_optimization_profile()
        for name, shapes in sorted(spec["profiles"].items()):
            profile.set_shape(name, *map(tuple, shapes))
        config.add_optimization_profile(profile)
    if spec["compute_capabilities"]:
        wanted = [_capability(trt, one) for one in spec["compute_capabilities"]]
        config.num_compute_capabilities = len(wanted)
        for index, one in enumerate(wanted):
            config.set_compute_capability(one, index)
    if spec["dla_core"] is not None:
        _prefer_dla(trt, builder, config, spec["dla_core"])
    return config


def _capability(trt, text):
    name = "SM" + text.replace(".", "")
    known = sorted(one for one in dir(trt.ComputeCapability) if re.fullmatch(r"SM\d+", one))
    if name not in known:
        shown = ", ".join("%s.%s" % (one[2:-1], one[-1]) for one in sorted(known, key=lambda one: int(one[2:])))
        raise Refused(
            "TensorRT for RTX %s builds for no compute capability %s; it builds for %s"
            % (trt.__version__, text, shown),
            "unsupported",
        )
    return getattr(trt.ComputeCapability, name)


def _prefer_dla(trt, builder, config, core):
    if core >= builder.num_DLA_cores:
        raise Refused(
            "TensorRT %s finds %d DLA cores on this device, and core %d was asked for. The target's GPU takes the "
            "model: --runtime tensorrt:gpu" % (trt.__version__, builder.num_DLA_cores, core),
            "unsupported",
        )
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = core
    config.set_flag(trt.BuilderFlag.GPU_FALLBACK)
    # Without strong typing the graph's own FP16 has to be allowed.
    if hasattr(trt.BuilderFlag, "FP16"):
        config.set_flag(trt.BuilderFlag.FP16)


def _flags(trt, spec):
    """Strong typing, which TensorRT 11 always has and 10 has to be asked for; the DLA of 10 does not know it."""
    typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    weak = spec["dla_core"] is not None and hasattr(trt.BuilderFlag, "FP16")
    return 0 if typed is None or weak else 1 << int(typed)


def monitor(trt, channel):
    """Tells the channel how far the build is, by the outermost phase."""

    class Monitor(trt.IProgressMonitor):
        def __init__(self):
            trt.IProgressMonitor.__init__(self)
            self.steps = {}

        def phase_start(self, phase_name, parent_phase, num_steps):
            if parent_phase is None:
                self.steps[phase_name] = num_steps

        def phase_finish(self, phase_name):
            self.steps.pop(phase_name, None)

        def step_complete(self, phase_name, step):
            if phase_name in self.steps:
                channel.beat(step + 1, self.steps[phase_name])
            return True

    return Monitor()


def _timing_cache(config, spec):
    """The timing cache in use, None where none is kept."""
    path = spec["timing_cache"]
    if path is None:
        return None
    content = b""
    if os.path.isfile(path):
        with open(path, "rb") as file:
            content = file.read()
    cache = config.create_timing_cache(content)
    # One of another device or version is refused, and a new one takes its place.
    if not config.set_timing_cache(cache, ignore_mismatch=False):
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, ignore_mismatch=False)
    return cache


def _information(trt, log, plan, spec):
    """The layer information as TensorRT tells it: by the inspector, or without a GPU by what the builder listed."""
    if spec["compute_capabilities"]:
        if log.layers is None:
            raise Refused(
                "TensorRT %s did not list the layers of the engine that it built" % trt.__version__, "runtime"
            )
        return log.layers
    engine = trt.Runtime(log).deserialize_cuda_engine(plan)
    if engine is None:
        raise Refused("the engine that was built cannot be read again: %s" % "; ".join(log.errors[-3:]), "runtime")
    return engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)


def _cannot_start(version, log, error):
    words = "; ".join(log.errors[-3:]) or str(error)
    return "TensorRT %s cannot use the GPU here: %s. See 'edge-sdk doctor' and the NVIDIA driver" % (version, words)


def _write(path, content):
    scratch = path + ".part"
    with open(scratch, "wb") as file:
        file.write(content)
    os.replace(scratch, path)


def main(argv):
    """Builds what a specification says; 0 after ``built``, 1 after ``error``."""
    channel = Channel.claim()
    channel.progress("build")
    try:
        with open(argv[0], encoding="utf-8") as file:
            spec = json.load(file)
        if not isinstance(spec, dict) or set(spec) != set(KEYS) or spec["builder"] not in MODULES:
            raise Refused("the specification has the keys %s; expected %s" % (sorted(spec), sorted(KEYS)))
        channel.send("built", **build(spec, channel))
        return 0
    except (Refused, ImportError) as error:
        channel.error("missing_runtime" if isinstance(error, ImportError) else error.kind, str(error))
    except Exception as error:
        traceback.print_exc()
        channel.error(
            "memory" if isinstance(error, MemoryError) else "runtime", "%s: %s" % (type(error).__name__, error)
        )
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
