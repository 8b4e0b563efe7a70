"""The monitor: its statistics, and a bundle that runs on and on while a device is watched."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import tiny

import edge_sdk
from edge_sdk.errors import BundleError, DeviceError
from edge_sdk.profiling.monitor import WINDOW, Monitor


def test_figures_are_numpys_over_the_last_and_over_all():
    values = np.random.default_rng(0).gamma(4.0, 2.0, 200)
    monitor = Monitor()
    for place, value in enumerate(values):
        monitor.add(float(value), place * 0.01)
    figures = monitor.figures()
    for name, some in (("last", values[-WINDOW:]), ("all", values)):
        found = figures[name]
        assert found is not None
        wanted = {
            "count": len(some),
            "mean": some.mean(),
            "median": np.median(some),
            "min": some.min(),
            "max": some.max(),
            "std": some.std(ddof=1),
            "p95": np.percentile(some, 95),
            "p99": np.percentile(some, 99),
            "fps": 100.0,
        }
        assert found == pytest.approx(wanted, rel=1e-9)


def test_nothing_is_told_before_something_ran_and_no_rate_of_one():
    monitor = Monitor()
    assert monitor.figures() == {"last": None, "all": None}
    monitor.add(5.0, 1.0)
    figures = monitor.figures()["all"]
    assert figures is not None and figures["std"] == 0.0 and "fps" not in figures
    monitor.clear()
    assert monitor.figures() == {"last": None, "all": None}


def test_work_of_a_gpu_is_waited_for_before_each_time_is_taken():
    order = []
    monitor = Monitor(synchronise=lambda: order.append("wait"))
    with monitor.iteration():
        order.append("work")
    assert order == ["wait", "work", "wait"]
    with pytest.raises(RuntimeError), monitor.iteration():
        raise RuntimeError("it failed")
    figures = monitor.figures()["all"]
    assert figures is not None and figures["count"] == 1


def test_several_threads_may_add():
    monitor = Monitor()

    def add():
        for _ in range(2000):
            monitor.add(1.0, 1.0)

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    figures = monitor.figures()["all"]
    assert figures is not None and figures["count"] == 8000


def test_a_bundle_runs_on_while_the_device_is_watched(tmp_path):
    bundle = tiny.bundle(tmp_path, "onnxruntime", tiny.onnx_program())
    counts = []
    for view in edge_sdk.monitor(bundle, period_s=0.4):
        if view.latency["all"] is not None:
            counts.append(view.latency["all"]["count"])
        if len(set(counts)) == 2:
            break
    assert view.bundle == bundle.manifest.name and view.device.uri == "local"
    assert counts[-1] > counts[0] > 0
    last = view.latency["last"]
    assert last is not None and 0 < last["min"] <= last["median"] <= last["p99"] <= last["max"]
    assert last["fps"] <= 1000 / last["min"] * 1.01


def test_what_ends_the_bundle_ends_the_monitor(tmp_path):
    bundle = tiny.bundle(tmp_path, "onnxruntime", b"this is no program")
    with pytest.raises(DeviceError, match="onnxruntime runner failed"):
        for _ in edge_sdk.monitor(bundle, period_s=0.2):
            pass


def test_a_missing_bundle_is_told_before_anything_is_watched(tmp_path):
    with pytest.raises(BundleError, match="no bundle at"):
        next(edge_sdk.monitor(tmp_path / "nothing.edge"))
