"""``report.json``: what was measured, with its conditions. A missing figure carries its reason."""

from __future__ import annotations

from typing import Literal

from edge_sdk.schema._base import Frozen
from edge_sdk.schema.manifest import EngineLayer, Fallback, ModelRef, Pruning, Rewrite, Selection, SkippedLayer

REPORT_VERSION = 1


class Unavailable(Frozen):
    """Stands where a figure could not be had."""

    unavailable: str


class ReportRuntime(Frozen):
    """The runtime that ran, with the version the device reported."""

    name: str
    version: str
    delegate: str
    selection: Selection | None = None


class ReportQuantization(Frozen):
    """The method and every layer left in a higher precision."""

    method: str
    skipped: list[SkippedLayer] = []


class ReportDevice(Frozen):
    """Where it ran, as the device describes itself."""

    uri: str
    model: str
    soc: str
    os: str
    abi: str


class ReportBundle(Frozen):
    """Which bundle ran. ``sha256`` is that of its manifest, ``size_bytes`` that of its programs."""

    path: str
    sha256: str
    size_bytes: int


class Latency(Frozen):
    """Milliseconds of one inference: every part once, in order. ``ci95`` is that of the median.

    ``first`` and ``load`` may be unknown: a native runner does not tell them all.
    """

    unit: Literal["ms"] = "ms"
    p50: float
    p90: float
    p99: float
    mean: float
    std: float
    min: float
    max: float
    ci95: tuple[float, float]
    samples: int
    warmup: int
    first: float | Unavailable
    load: float | Unavailable
    parts: dict[str, float] = {}


class Memory(Frozen):
    """Resident set of the runner's process in MiB: at its peak, before the model was loaded, between."""

    unit: Literal["MiB"] = "MiB"
    peak: float
    baseline: float
    model: float
    method: str


class GpuLatency(Frozen):
    """Milliseconds of one inference by the GPU's own clock, without what starting it and waiting for it takes."""

    unit: Literal["ms"] = "ms"
    p50: float
    p90: float
    mean: float
    min: float
    max: float
    samples: int


class GpuSteps(Frozen):
    """Median milliseconds of an inference's steps.

    Transfers and computing are by the GPU's own clock; ``enqueue`` is how long the processor took to start it.
    """

    unit: Literal["ms"] = "ms"
    host_to_device: float
    compute: float
    device_to_host: float
    enqueue: float


class GpuMemory(Frozen):
    """The GPU's memory in MiB: what the process held, by ``method``, and its activations at their peak."""

    unit: Literal["MiB"] = "MiB"
    process: float
    method: str
    activations_peak: float | None = None


class Gpu(Frozen):
    """A GPU during the timed part. None means that it does not tell.

    ``sm_mhz`` is the lowest clock that was seen, ``temperature_c`` the highest temperature, ``throttle_reasons``
    what held the clock down; ``latency`` is taken right after the timed part. ``steps`` are told where data is brought
    to the GPU and back within an inference.
    """

    name: str
    compute_capability: str | None = None
    driver: str | None = None
    latency: GpuLatency | Unavailable
    memory: GpuMemory | Unavailable
    steps: GpuSteps | None = None
    sm_mhz: float | None = None
    sm_most_mhz: float | None = None
    memory_mhz: float | None = None
    temperature_c: float | None = None
    throttle_reasons: list[str] | None = None


class LayerTime(EngineLayer):
    """A layer of an engine with its median milliseconds of an inference, None where it was not timed."""

    ms: float | None


class Engine(Frozen):
    """The engine that was built for the very device, or came ready in the bundle.

    ``build_s`` is None where it was there already. ``fallback`` is what a DLA left to the GPU.
    """

    builder: str
    build_s: float | None = None
    size_bytes: int
    layers: list[LayerTime]
    fallback: list[Fallback] = []


class Energy(Frozen):
    """Millijoules of one inference over idle. ``ci95`` is the interval of ``per_inference``.

    ``inferences_per_battery_percent`` is None where the target states no battery capacity.
    """

    unit: Literal["mJ"] = "mJ"
    per_inference: float
    ci95: tuple[float, float]
    idle_mw: float
    mean_mw: float
    samples: int
    method: str
    inferences_per_battery_percent: float | None = None


class SustainedWindow(Frozen):
    """A stretch of sustained running: when it ended, and what it was like."""

    end_s: float
    runs: int
    p50: float
    p90: float
    max: float
    temperature_c: float | None = None
    cpu_mhz: float | None = None
    power_mw: float | None = None
    throttled: bool | None = None


class Sustained(Frozen):
    """How the device holds up: the last minute's median latency over the first minute's.

    ``last_over_first`` is that ratio with its 95 % interval; above 1 the device became slower.
    ``edge_s`` is how much of each end was compared: a minute, or a third of a shorter run.
    """

    unit: Literal["ms"] = "ms"
    time_s: float
    edge_s: float
    first: float
    last: float
    last_over_first: float
    ci95: tuple[float, float]
    windows: list[SustainedWindow]


class Numerics(Frozen):
    """Distance of the device's outputs from the reference, worst part: see `edge_sdk.profiling.numerics`.

    ``sqnr_db`` is None where the outputs are equal to the last bit.
    """

    cosine: float
    max_abs_err: float
    sqnr_db: float | None
    reference: str


class Conditions(Frozen):
    """Under what conditions the figures were taken. None means that the device does not tell.

    ``waited_s`` is how long the thermal gate held the run back, None where there was no gate.
    """

    throttled: bool | None = None
    charging: bool | None = None
    governor: str | None = None
    temperature_c: float | None = None
    temperature_start_c: float | None = None
    waited_s: float | None = None
    threads: int | None = None
    affinity: list[int] | None = None
    load_average: float | None = None
    cpu_mhz: float | None = None
    warnings: list[str] = []


class ReportPartition(Frozen):
    """Operator nodes that the delegate took, in how many pieces, and what it left and why."""

    delegated: int
    pieces: int
    fallback: list[Fallback] = []
    rewrites: list[Rewrite] = []
    warnings: list[str] = []


class Roofline(Frozen):
    """Multiply-accumulates and bytes of one inference, and the time they need at the target's peaks.

    ``fraction`` is ``bound_ms / p50``: how much of the bound the measurement reaches.
    """

    macs: int
    bytes: int
    bound_ms: float | Unavailable
    fraction: float | Unavailable


class Tag(Frozen):
    """A label and its score."""

    label: str
    score: float


class Prediction(Frozen):
    """What the model says of one input: in FP32 on the host and by the bundle on the device."""

    input: str
    fp32: list[Tag]
    device: list[Tag]


class Beside(Frozen):
    """The same model for the target beside, on the same device and taking turns: above 1 it is slower."""

    target: str
    runtime: str
    delegate: str
    bundle: str
    median_ms: float
    times_as_long: float
    ci95: tuple[float, float]


class Report(Frozen):
    """``report.json``."""

    schema_version: Literal[1] = REPORT_VERSION
    created: str
    model: ModelRef
    target: str
    runtime: ReportRuntime
    pruning: Pruning | None = None
    quantization: ReportQuantization
    device: ReportDevice
    bundle: ReportBundle
    latency: Latency
    throughput_per_s: float
    memory: Memory | Unavailable
    gpu: Gpu | None = None
    engine: Engine | None = None
    energy: Energy | Unavailable
    sustained: Sustained | None = None
    numerics: Numerics | Unavailable
    accuracy: dict[str, float] | None
    conditions: Conditions
    partition: ReportPartition
    roofline: Roofline
    predictions: list[Prediction] | None = None
    beside: list[Beside] | None = None
