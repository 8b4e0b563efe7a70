"""Latencies of a program that runs on and on: over its last iterations and over all of them."""

from __future__ import annotations

import math
import threading
from array import array
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter

WINDOW = 30
"""Iterations that count as the last ones."""
_MOST_KEPT = 1_000_000
_PERCENTILES = {"median": 50, "p95": 95, "p99": 99}


class Monitor:
    """Keeps the latencies of a program's iterations. Safe to use from several threads.

    Args:
        synchronise: Waits until what was given to a processor of its own, such as a GPU, is done; called before a
            time is taken, since a call that only queues work says nothing.
    """

    def __init__(self, synchronise: Callable[[], None] | None = None) -> None:
        self._synchronise = synchronise or (lambda: None)
        self._lock = threading.Lock()
        self.clear()

    def clear(self) -> None:
        """Forgets everything, as for another model."""
        with self._lock:
            self._last: deque[tuple[float, float]] = deque(maxlen=WINDOW)
            self._kept = array("d")
            self._count = 0
            self._mean = self._squares = 0.0
            self._least, self._most = math.inf, -math.inf
            self._first_end_s: float | None = None

    @contextmanager
    def iteration(self) -> Iterator[None]:
        """Times what is done within it; an iteration that fails does not count."""
        self._synchronise()
        begin = perf_counter()
        yield
        self._synchronise()
        end = perf_counter()
        self.add((end - begin) * 1e3, end)

    def add(self, latency_ms: float, end_s: float) -> None:
        """Takes in an iteration that was timed elsewhere.

        Args:
            latency_ms: How long it took.
            end_s: When it ended, on any clock that does not go back.
        """
        with self._lock:
            self._last.append((latency_ms, end_s))
            self._count += 1
            # Welford's update: the sums stay exact over days.
            step = latency_ms - self._mean
            self._mean += step / self._count
            self._squares += step * (latency_ms - self._mean)
            self._least, self._most = min(self._least, latency_ms), max(self._most, latency_ms)
            self._first_end_s = end_s if self._first_end_s is None else self._first_end_s
            if len(self._kept) == _MOST_KEPT:
                del self._kept[: _MOST_KEPT // 2]
            self._kept.append(latency_ms)

    def figures(self) -> dict[str, dict[str, float | int] | None]:
        """``last`` and ``all``, each with ``count``, milliseconds, and ``fps``; None where nothing ran yet.

        Milliseconds: ``mean``, ``median``, ``min``, ``max``, ``std``, ``p95``, ``p99``. ``fps`` is iterations a second
        of the clock, with the pauses between them; it is left out for a single one. Percentiles over all are of the
        last half to one million.
        """
        import numpy as np

        # What takes long is done without the lock, so that no iteration waits for it.
        with self._lock:
            if not self._count:
                return {"last": None, "all": None}
            last = list(self._last)
            kept = np.array(self._kept)
            first_end_s = self._first_end_s or 0.0
            everything: dict[str, float | int] = {
                "count": self._count,
                "mean": self._mean,
                "min": self._least,
                "max": self._most,
                "std": math.sqrt(self._squares / (self._count - 1)) if self._count > 1 else 0.0,
            }
        latest, ends = (np.array(column) for column in zip(*last, strict=True))
        lately: dict[str, float | int] = {
            "count": len(latest),
            "mean": float(latest.mean()),
            "min": float(latest.min()),
            "max": float(latest.max()),
            "std": float(latest.std(ddof=1)) if len(latest) > 1 else 0.0,
        }
        for figures, values, begin_s in ((lately, latest, ends[0]), (everything, kept, first_end_s)):
            figures |= dict(zip(_PERCENTILES, np.percentile(values, list(_PERCENTILES.values())).tolist(), strict=True))
            span = float(ends[-1] - begin_s)
            if figures["count"] > 1 and span > 0:
                figures["fps"] = (figures["count"] - 1) / span
        return {"last": lately, "all": everything}
