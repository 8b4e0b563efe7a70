"""Watches a device, and a bundle that runs there on and on, until it is told to stop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

from edge_sdk.profiling._run import make_request
from edge_sdk.profiling.monitor import Monitor
from edge_sdk.schema.messages import Samples
from edge_sdk.schema.request import Timing

if TYPE_CHECKING:
    from edge_sdk.bundle import Bundle
    from edge_sdk.devices.base import Device
    from edge_sdk.schema.reading import Reading
    from edge_sdk.schema.report import ReportDevice
    from edge_sdk.schema.target import Target

_ROUND_S = 600.0
"""After so long the runner is started anew: its buffers are bounded."""
_JOIN_S = 30.0


@dataclass(frozen=True)
class View:
    """One moment.

    Attributes:
        device: What the device says of itself.
        bundle: The name of what runs there, None where nothing does.
        reading: What the device is doing.
        latency: `Monitor.figures`; None for both where no bundle runs, or has just begun.
    """

    device: ReportDevice
    bundle: str | None
    reading: Reading
    latency: dict[str, dict[str, float | int] | None]

    def document(self) -> dict[str, Any]:
        """As JSON."""
        about = self.device.model_dump(mode="json")
        return {
            "device": about,
            "bundle": self.bundle,
            "reading": self.reading.model_dump(mode="json", exclude={"type"}),
            "latency": self.latency,
        }


def watch(
    device: Device,
    bundle: Bundle | None = None,
    target: Target | None = None,
    *,
    period_s: float = 1.0,
    count: int = 0,
    threads: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> Generator[View, None, None]:
    """Yields what a device is doing, once a period, and how fast a bundle runs there meanwhile.

    Args:
        device: Where. With a bundle it is locked, as for any measurement.
        bundle: What to run; None runs nothing.
        target: Gives threads and processors.
        period_s: Seconds between two views.
        count: How many; 0 goes on until the iterator is closed.
        threads: Goes before the target's figure.
        progress: Called with a line as each stage starts.

    Raises:
        DeviceError: The device or the runner failed.
        MissingDependencyError: The runtime is not installed on the device.
    """
    say = progress or (lambda _: None)
    monitor, about = Monitor(), device.describe()
    name = None if bundle is None else bundle.manifest.name
    with _running(device, bundle, target, threads, monitor, say) as check:
        with closing(device.watch(period_s, count)) as readings:
            for reading in readings:
                check()
                yield View(about, name, reading, monitor.figures())


@contextmanager
def _running(
    device: Device,
    bundle: Bundle | None,
    target: Target | None,
    threads: int | None,
    monitor: Monitor,
    say: Callable[[str], None],
) -> Iterator[Callable[[], None]]:
    """Runs the bundle in a thread meanwhile; yields what raises the error that ended it."""
    if bundle is None:
        yield lambda: None
        return
    with device.lock(f"edge-sdk monitor, bundle '{bundle.manifest.name}'"):
        say(f"bringing the bundle to {device.uri}")
        request = make_request(bundle, device.push(bundle.path), target, threads)
        timing = Timing(min_time_s=_ROUND_S, max_time_s=_ROUND_S)
        request = request.model_copy(update={"timing": timing})
        stop = threading.Event()
        failed: list[Exception] = []

        def run() -> None:
            try:
                while not stop.is_set():
                    _one_round(device, bundle.manifest.runtime.name, request, monitor, stop)
            except Exception as error:  # it is raised where the readings are shown
                failed.append(error)

        def check() -> None:
            if failed:
                raise failed[0]

        thread = threading.Thread(target=run, name="bundle", daemon=True)
        thread.start()
        try:
            yield check
        finally:
            stop.set()
            thread.join(_JOIN_S)
        check()


def _one_round(device: Device, runtime: str, request: Any, monitor: Monitor, stop: threading.Event) -> None:
    begin_s = None  # of the runner's clock, on this machine's: each round counts from 0
    with closing(device.run(runtime, request)) as messages:
        for message in messages:
            if stop.is_set():
                return
            if not isinstance(message, Samples) or not message.ns:
                continue
            if begin_s is None:
                begin_s = perf_counter() - (message.start_ns[-1] + message.ns[-1]) / 1e9
            for start_ns, ns in zip(message.start_ns, message.ns, strict=False):
                monitor.add(ns / 1e6, begin_s + (start_ns + ns) / 1e9)
