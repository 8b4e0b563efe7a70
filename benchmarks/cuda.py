"""AOTInductor on an NVIDIA GPU beside what a user would do without Edge SDK: ``torch.compile(mode="max-autotune")``.

``python -m benchmarks.cuda DIR`` runs everything in one go and writes ``DIR/cuda.json`` and ``DIR/cuda.md``, the
latter for ``docs/VERIFIED.md``, anew after each figure. What there is no time for, or what this machine cannot do, is
listed with the reason. ``python -m benchmarks cuda`` runs the same as a suite.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter, perf_counter_ns
from typing import TYPE_CHECKING, Any

from benchmarks._context import BenchmarkError, Context
from benchmarks._device_modules import runner_module
from benchmarks._rows import Limit, Row
from benchmarks._turns import in_turns

if TYPE_CHECKING:
    import torch

    from edge_sdk.bundle import Bundle
    from edge_sdk.models.base import Model, Part, Purpose, Sample
    from edge_sdk.schema.target import Target

TITLE = "CUDA: AOTInductor"
TARGET = "desktop-cuda"
MODEL, SETTINGS = "photo_tagging", {"variant": "resnet50"}
QUICK_SETTINGS = {"variant": "resnet18", "input_size": "64"}
BATCHES = (32, 1)
ROUNDS, QUICK_ROUNDS = 9, 3
TURN_S, QUICK_TURN_S = 0.4, 0.02
NO_SLOWER, FASTER = Limit(at_most=1.0, by_interval=True), Limit(at_most=1.0)
AGREEMENT, TIMER = Limit(at_least=0.99), Limit(at_least=0.99, at_most=1.01)
LEARNED = {"adaround": "200", "outputs": "float"}
"""Options of int8-static for EfficientNet-Lite0: rounding that is learned on the calibration photos."""
ENOUGH_MINUTES = 8.0

# Dense peaks in Gop/s and bandwidth in GB/s. Source: NVIDIA's data sheets "H100 Tensor Core GPU" (SXM), "H200 Tensor
# Core GPU", "A100 Tensor Core GPU" (80 GB SXM); figures with sparsity there are halved.
_HOPPER = {"fp32": 67_000, "tf32": 494_500, "fp16": 989_500, "bf16": 989_500, "int8": 1_979_000}
PEAKS: dict[str, tuple[Mapping[str, float], float]] = {
    "H100 80GB HBM3": (_HOPPER, 3350),
    "H200": (_HOPPER, 4800),
    "A100-SXM4-80GB": ({"fp32": 19_500, "tf32": 156_000, "fp16": 312_000, "bf16": 312_000, "int8": 624_000}, 2039),
}
PEAKS_SOURCE = "NVIDIA's data sheet of the card, dense"


def run(context: Context) -> Iterator[Row]:
    """Every figure that this machine can give; nothing, with a warning, where it has no GPU that fits."""
    from edge_sdk import _nvidia

    if problem := _nvidia.problem():
        context.warn(f"no figures: this suite {problem}")
        return
    yield from Suite(context).rows()


class Batched:
    """Makes a model of a plugin's whose inputs hold several samples at once."""

    @staticmethod
    def of(model: Model, batch: int) -> Model:
        """The model itself for a batch of 1."""
        if batch == 1:
            return model
        from edge_sdk.models.base import Model as Base

        class Several(Base):
            name, variant = f"{model.name}_batch{batch}", model.variant

            def parts(self) -> list[Part]:
                from dataclasses import replace

                return [
                    replace(part, example_inputs=tuple(_repeated(value, batch) for value in part.example_inputs))
                    for part in model.parts()
                ]

            def samples(self, purpose: Purpose) -> list[Sample]:
                return _stacked(model.samples(purpose), batch) if purpose != "evaluation" else []

            def fingerprint(self) -> Mapping[str, str] | None:
                own = model.fingerprint()
                return None if own is None else {**own, "batch": str(batch)}

        return Several()


@dataclass
class Suite:
    """The figures of one machine.

    Attributes:
        context: How long to take, and whom to tell.
        delegate: ``cuda``, or ``cpu`` to try the suite out.
        minutes: When to begin nothing more.
        left_out: What gave no figure, and why.
    """

    context: Context
    delegate: str = "cuda"
    minutes: float = ENOUGH_MINUTES
    left_out: dict[str, str] = field(default_factory=dict)
    _begin: float = field(default_factory=perf_counter)
    _bundles: dict[tuple[str, int], Bundle] = field(default_factory=dict)

    def rows(self) -> Iterator[Row]:
        """What matters most comes first."""
        large, small = BATCHES
        steps: list[tuple[str, Callable[[], Iterator[Row]]]] = [
            (f"FP16 beside torch.compile, batch {large}", lambda: self.beside_compile(large)),
            (f"INT8 beside FP16, batch {large}", lambda: self.int8(large)),
            (f"FP16 beside torch.compile, batch {small}", lambda: self.beside_compile(small)),
            (f"the whole way, FP16, batch {large}", lambda: self.whole("fp16", large)),
            (f"the whole way, INT8, batch {large}", lambda: self.whole("int8-static", large)),
            ("INT8 agreement, EfficientNet-Lite0", lambda: self.agreement(LEARNED, AGREEMENT)),
            (f"the whole way, BF16, batch {large}", lambda: self.whole("bf16", large)),
            (f"the whole way, FP32, batch {large}", lambda: self.whole("fp32", large)),
            ("INT8 agreement without options, EfficientNet-Lite0", lambda: self.agreement({}, None)),
        ]
        for name, step in steps:
            yield from self._step(name, step)

    def _step(self, name: str, step: Callable[[], Iterator[Row]]) -> Iterator[Row]:
        from edge_sdk.errors import EdgeSdkError

        spent = (perf_counter() - self._begin) / 60
        if spent > self.minutes:
            self._leave_out(name, f"no time was left after {spent:.1f} minutes")
            return
        self.context.say(f"[{spent * 60:.0f} s] {name}")
        try:
            yield from step()
        except (EdgeSdkError, BenchmarkError, RuntimeError, ImportError) as error:
            self._leave_out(name, f"{type(error).__name__}: {str(error)[:500]}")

    def _leave_out(self, name: str, why: str) -> None:
        self.left_out[name] = why
        self.context.warn(f"{name}: {why}")
        self.context.say(f"left out: {name}: {why}")

    def bundle(self, method: str, batch: int) -> Bundle:
        """ResNet-50 compiled by Edge SDK, once."""
        import edge_sdk

        if (method, batch) not in self._bundles:
            begin = perf_counter()
            self._bundles[method, batch] = made = edge_sdk.compile(
                Batched.of(self.model(), batch),
                self.target,
                quantize=method,
                runtime=f"aotinductor:{self.delegate}",
                progress=lambda line: self.context.say(f"  {method}, batch {batch}: {line}"),
            )
            self.context.say(f"  {method}, batch {batch}: compiled in {perf_counter() - begin:.0f} s")
            del made
        return self._bundles[method, batch]

    def model(self) -> Model:
        """The network, with random weights that are the same each time."""
        from edge_sdk.models import load_model

        return load_model(MODEL, QUICK_SETTINGS if self.context.quick else SETTINGS)

    @property
    def target(self) -> Target:
        """The profile, with the peaks of this machine's card where they are known."""
        return card_profile(self._card())

    def _card(self) -> str:
        import torch

        return torch.cuda.get_device_name() if self.delegate == "cuda" else "processor"

    def beside_compile(self, batch: int) -> Iterator[Row]:
        """Edge SDK's FP16 package and torch.compile of the same network, which both take and give FP32."""
        import torch

        ours = Call.of_bundle(self.bundle("fp16", batch))
        begin = perf_counter()
        (part,) = self.model().parts()
        theirs = Call.of_compiled(half(part.module, self.delegate), ours.feed, self.delegate)
        theirs.call()
        self.context.say(f"  torch.compile, batch {batch}: compiled in {perf_counter() - begin:.0f} s")
        difference = float((ours.result() - theirs.result()).abs().max() / theirs.result().abs().max())
        found = self._turns({"torch.compile": theirs.call, "Edge SDK": ours.call}, f"FP16, batch {batch}")
        ratio, medians = found.ratios[1], found.medians_ms
        how = (
            f"{self._card()}, PyTorch {torch.__version__}; {self._how}; medians {medians[1]:.4f} ms and "
            f"{medians[0]:.4f} ms; largest difference of outputs {difference:.2%} of the largest"
        )
        yield Row(
            f"ResNet-50 FP16, batch {batch}: Edge SDK / torch.compile(max-autotune)",
            ratio.value,
            "ratio",
            how,
            ratio.ci95,
            NO_SLOWER,
        )
        yield from self._timer(ours, batch)

    def _timer(self, ours: Call, batch: int) -> Iterator[Row]:
        """The runner's timer over CUDA events around the same inferences, in blocks that take turns."""
        if self.delegate != "cuda":
            return
        found = self._turns({"events": ours.call, "timer": ours.call}, f"timer, batch {batch}", {"events": ours.events})
        ratio, medians = found.ratios[1], found.medians_ms
        how = f"batch {batch}; {self._how}; medians {medians[1]:.4f} ms and {medians[0]:.4f} ms"
        # What starting an inference and waiting for it takes is the timer's matter and not the GPU's: in a short
        # inference it is more than 1 %.
        limit = TIMER if batch == BATCHES[0] else None
        yield Row(f"timer / CUDA events, FP16, batch {batch}", ratio.value, "ratio", how, ratio.ci95, limit)

    def int8(self, batch: int) -> Iterator[Row]:
        """The INT8 package over the FP16 one."""
        sides = {name: Call.of_bundle(self.bundle(name, batch)) for name in ("fp16", "int8-static")}
        found = self._turns({name: side.call for name, side in sides.items()}, f"INT8, batch {batch}")
        ratio, medians = found.ratios[1], found.medians_ms
        how = f"{self._card()}; {self._how}; medians {medians[1]:.4f} ms and {medians[0]:.4f} ms"
        name = f"ResNet-50, batch {batch}: INT8 / FP16, both by Edge SDK"
        yield Row(name, ratio.value, "ratio", how, ratio.ci95, FASTER)

    def agreement(self, options: Mapping[str, str], limit: Limit | None) -> Iterator[Row]:
        """How often INT8's best label is FP32's own, on the packaged photos.

        Args:
            options: Of the quantizer.
            limit: What it is held to.
        """
        import edge_sdk
        from benchmarks.int8 import COUNT, METRIC, wilson
        from edge_sdk.schema.request import Timing

        briefly = Timing(warmup_max_s=0.1, min_runs=1, min_time_s=0.0, max_time_s=0.1)
        report = edge_sdk.deploy(
            "efficientnet_lite0",
            self.target,
            quantize="int8-static",
            runtime=f"aotinductor:{self.delegate}",
            settings={f"quantize.{name}": value for name, value in options.items()},
            timing=briefly,
            energy=False,
            progress=lambda line: self.context.say(f"  EfficientNet-Lite0: {line}"),
        )
        if report.accuracy is None:
            raise BenchmarkError("the model gave no accuracy: there are no photos to judge with")
        value, count = report.accuracy[METRIC], int(report.accuracy[COUNT])
        how = f"{count} packaged photos that FP32 labels with confidence 0.2 or more; Wilson's interval"
        given = ", ".join(f"{key}={value}" for key, value in options.items()) or "no options"
        name = f"EfficientNet-Lite0 INT8 ({given}): top-1 agreement with FP32"
        yield Row(name, value, "ratio", how, wilson(value, count), limit)

    def whole(self, method: str, batch: int) -> Iterator[Row]:
        """A bundle through the runner as a process of its own, with all that the report says of it."""
        import edge_sdk
        from edge_sdk.schema.report import Energy, Unavailable

        report = edge_sdk.profile(self.bundle(method, batch), target=self.target)
        latency, line = report.latency, report.roofline
        share = line.fraction
        fraction = share.unavailable if isinstance(share, Unavailable) else f"{share:.1%} of the roofline"
        told = [f"cosine to FP32 {report.numerics.cosine:.5f}" if hasattr(report.numerics, "cosine") else "no outputs"]
        gpu = report.gpu
        if gpu is not None:
            own = gpu.latency
            told.append(f"GPU's own {own.unavailable if isinstance(own, Unavailable) else f'{own.p50:.4f} ms'}")
            memory = gpu.memory
            if not isinstance(memory, Unavailable):
                told.append(f"{memory.process:.0f} MiB ({memory.method})")
                told.append(f"activations {memory.activations_peak:.0f} MiB")
            told.append(f"SM clock {gpu.sm_mhz} of {gpu.sm_most_mhz} MHz, {gpu.temperature_c} °C")
            told.append(f"throttled by: {', '.join(gpu.throttle_reasons or []) or 'nothing'}")
        energy = report.energy
        told.append(f"{energy.per_inference:.1f} mJ" if isinstance(energy, Energy) else f"energy {energy.unavailable}")
        told += report.conditions.warnings
        name = f"ResNet-50 {method}, batch {batch}: median by the runner"
        yield Row(name, latency.p50, "ms", f"{fraction}; {'; '.join(told)}", latency.ci95)
        if not isinstance(share, Unavailable):
            how = f"bound {line.bound_ms:.4f} ms; peaks: {PEAKS_SOURCE}"
            yield Row(f"ResNet-50 {method}, batch {batch}: share of the roofline", share, "ratio", how)

    @property
    def _how(self) -> str:
        rounds, seconds = self._length
        return f"{rounds} rounds of {seconds} s in turns in one process, inputs on the GPU, synchronised"

    @property
    def _length(self) -> tuple[int, float]:
        return (QUICK_ROUNDS, QUICK_TURN_S) if self.context.quick else (ROUNDS, TURN_S)

    def _turns(self, sides: Mapping[str, Callable], label: str, timers: Mapping[str, Callable] | None = None):
        """The sides in turns: blocks of calls, each timed. ``timers`` gives a side's own way to time a call."""
        from edge_sdk.profiling.interleave import compare_rounds

        rounds, seconds = self._length
        timers = timers or {}
        blocks = {name: _block(timers.get(name) or _timed(call), seconds) for name, call in sides.items()}
        for block in blocks.values():
            block()
        found = in_turns(blocks, rounds, lambda line: None)
        self.context.say(f"  {label}: measured")
        return compare_rounds([found[name] for name in sides])


@dataclass(frozen=True)
class Call:
    """An inference with its input in place, which returns when its results are there.

    Attributes:
        call: Runs it.
        launch: Starts it and does not wait.
        feed: Its input.
    """

    call: Callable[[], Any]
    launch: Callable[[], Any]
    feed: torch.Tensor

    @classmethod
    def of_bundle(cls, bundle: Bundle) -> Call:
        """A bundle's one part through the runner's own code, as it is timed there."""
        import torch

        runner = runner_module("aotinductor").AotInductor()
        runner.start(None, dict(bundle.manifest.runtime.options))
        (part,) = bundle.manifest.parts
        loaded = runner.load({"entry": part.entry}, str(bundle.path / part.program))
        array = bundle.reference()[f"{part.name}/inputs/{part.inputs[0].name}"][0]
        call = loaded.bind({part.inputs[0].name: array})
        return cls(call, getattr(loaded, "first", call), torch.from_numpy(array))

    @classmethod
    def of_compiled(cls, module: torch.nn.Module, feed: torch.Tensor, device: str) -> Call:
        """A module through torch.compile."""
        import torch

        compiled = torch.compile(module, mode="max-autotune")
        given = feed.to(device)
        wait = torch.cuda.current_stream().synchronize if device == "cuda" else lambda: None

        def call():
            with torch.no_grad():
                result = compiled(given)
            wait()
            return result

        return cls(call, call, feed)

    def result(self) -> torch.Tensor:
        """Its output, as a copy in main memory."""
        found = self.call()
        return (found[0] if isinstance(found, (list, tuple)) else found).detach().cpu().clone()

    def events(self) -> float:
        """Milliseconds of one inference by CUDA events."""
        import torch

        before, after = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        before.record()
        self.launch()
        after.record()
        after.synchronize()
        return before.elapsed_time(after)


def half(module: torch.nn.Module, device: str) -> torch.nn.Module:
    """What a user makes of a network to run it in FP16: weights with the channels last, casts at both ends."""
    import torch

    class Half(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = copy.deepcopy(module).half().to(device, memory_format=torch.channels_last)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(x.half()).float()

    return Half().eval()


def card_profile(card: str) -> Target:
    """The target's profile with the peaks of a card, as they are where the card is not known."""
    import edge_sdk
    from edge_sdk.schema.target import Figure

    target = edge_sdk.load_target(TARGET)
    known = next((found for name, found in PEAKS.items() if name in card), None)
    if known is None:
        return target
    peaks, bandwidth = known
    figures = {name: Figure(value=value, source=PEAKS_SOURCE) for name, value in peaks.items()}
    units = [
        unit.model_copy(update={"peak_gops": {**unit.peak_gops, **figures}}) if unit.kind == "gpu" else unit
        for unit in target.units
    ]
    memory = target.memory.model_copy(update={"bandwidth_gb_s": Figure(value=bandwidth, source=PEAKS_SOURCE)})
    return target.model_copy(update={"units": units, "memory": memory})


def fragment(machine: Mapping[str, Any], created: str, rows: Sequence[Row], left_out: Mapping[str, str]) -> str:
    """The figures as Markdown, for ``docs/VERIFIED.md``."""
    lines = [
        f"Run on {created[:10]} on {machine['gpu']}, driver {machine['driver']}, CUDA {machine['cuda']}, "
        f"PyTorch {machine['torch']}, Python {machine['python']}, by `python -m benchmarks.cuda`.",
        "",
        "| Figure | Value | 95 % interval | Limit | Met | How |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        interval = f"{row.ci95[0]:.4g} to {row.ci95[1]:.4g}" if row.ci95 else ""
        unit = "" if row.unit == "ratio" else f" {row.unit}"
        met = {True: "yes", False: "no", None: "cannot tell" if row.limit else ""}[row.met]
        cells = [row.name, f"{row.value:.4g}{unit}", interval, _limit(row.limit), met, row.conditions]
        lines.append("| " + " | ".join(cell.replace("|", "/").replace("\n", " ") for cell in cells) + " |")
    if left_out:
        lines += ["", "No figure:", *(f"- {name}: {why}".replace("\n", " ") for name, why in left_out.items())]
    return "\n".join(lines) + "\n"


def machine() -> dict[str, Any]:
    """GPU, driver and packages."""
    import platform

    from edge_sdk import _nvidia

    try:
        found = _nvidia.driver()
        gpu, driver = found.gpus[0].name, found.version
    except OSError:
        gpu, driver = "no GPU", "none"
    build = _nvidia.torch_build()
    return {
        "gpu": gpu,
        "driver": driver,
        "torch": build.version if build else "not installed",
        "cuda": (build.cuda if build else None) or "none",
        "python": platform.python_version(),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Runs everything and writes it; 0 where every limit was met, 4 where one was missed, 1 where nothing ran."""
    from edge_sdk import _nvidia
    from edge_sdk._files import write_atomic

    parser = argparse.ArgumentParser(prog="python -m benchmarks.cuda", description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path, metavar="DIR", help="where cuda.json and cuda.md go")
    parser.add_argument("--minutes", type=float, default=ENOUGH_MINUTES, help="begin nothing after so long (8)")
    parser.add_argument("--quick", action="store_true", help="a small network and short rounds, to try it")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu only tries the suite")
    args = parser.parse_args(argv)
    if args.device == "cuda" and (problem := _nvidia.problem()):
        print(f"no figures: this suite {problem}", file=sys.stderr)
        return 1
    logging.getLogger("edge_sdk").setLevel(logging.ERROR)
    created, about, rows, warnings = datetime.now(UTC).isoformat(timespec="seconds"), machine(), [], []
    with tempfile.TemporaryDirectory(prefix="edge-sdk-cuda-") as folder:
        os.environ["EDGE_SDK_CACHE"] = str(Path(folder) / "cache")
        context = Context(Path(folder), args.quick, say=_say, warn=warnings.append)
        suite = Suite(context, args.device, args.minutes)

        def write() -> None:
            document = {
                "created": created,
                "quick": args.quick,
                "machine": about,
                "rows": [row.document() for row in rows],
                "left_out": suite.left_out,
            }
            write_atomic(args.out / "cuda.json", json.dumps(document, indent=2) + "\n")
            write_atomic(args.out / "cuda.md", fragment(about, created, rows, suite.left_out))

        for row in suite.rows():
            rows.append(row)
            _say(f"{row.name}: {row.value:.4g} {row.unit} {row.ci95 or ''} met={row.met} ({row.conditions})")
            write()
        write()
    return 0 if rows and all(row.met is not False for row in rows if row.limit) and not suite.left_out else 4


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _timed(call: Callable[[], Any]) -> Callable[[], float]:
    def timed() -> float:
        begin = perf_counter_ns()
        call()
        return (perf_counter_ns() - begin) / 1e6

    return timed


def _block(one: Callable[[], float], seconds: float) -> Callable[[], list[float]]:
    def block() -> list[float]:
        end, found = perf_counter() + seconds, []
        while perf_counter() < end or len(found) < 3:
            found.append(one())
        return found

    return block


def _limit(limit: Limit | None) -> str:
    from benchmarks._show import _limit as shown

    return shown(limit)


def _repeated(value: torch.Tensor, batch: int) -> torch.Tensor:
    return value.repeat(batch, *[1] * (value.dim() - 1))


def _stacked(samples: list[Sample], batch: int) -> list[Sample]:
    """The samples in batches; a last one that is not full is filled from the first ones."""
    import numpy as np

    if not samples:
        return []
    whole = max(1, len(samples) // batch)
    found = []
    for place in range(whole):
        chosen = [samples[(place * batch + index) % len(samples)] for index in range(batch)]
        found.append(
            {
                part: {name: np.concatenate([one[part][name] for one in chosen]) for name in arrays}
                for part, arrays in samples[0].items()
            }
        )
    return found


if __name__ == "__main__":
    sys.exit(main())
