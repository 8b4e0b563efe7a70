"""What was measured of one model in one precision."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any

from edge_sdk.profiling.monitor import Monitor

if TYPE_CHECKING:
    from edge_sdk.models.captioning.live.captioner import Said
    from edge_sdk.models.captioning.live.choices import Choice
    from edge_sdk.schema.messages import SessionMemory

_NO_GPU = "the program does not run on a GPU"
_NO_MEMORY = "the device does not tell it"


class Tally:
    """Latencies of captions, of their encoder, of their steps, and with the host's part; and the latest memory.

    Args:
        choice: What is measured.
        about: Where it runs: ``bundle``, ``size_bytes``, ``runtime``, ``device``.
    """

    def __init__(self, choice: Choice, about: dict[str, Any]) -> None:
        self.choice, self.about = choice, about
        self.captions, self.encoder, self.steps, self.wall = (Monitor() for _ in range(4))
        self.memory: SessionMemory | None = None
        self._peak_mib = 0.0
        self._document: dict[str, Any] | None = None

    def add(self, said: Said) -> None:
        """Takes in a caption."""
        now = perf_counter()
        self._document = None
        self.captions.add(said.latency_ms, now)
        self.encoder.add(said.encoder_ms, now)
        self.wall.add(said.wall_ms, now)
        for step_ms in said.steps_ms:
            self.steps.add(step_ms, now)
        self.memory = said.memory
        self._peak_mib = max(self._peak_mib, said.memory.resident_mib or 0.0)

    def document(self) -> dict[str, Any]:
        """As JSON: milliseconds, MiB. A figure that could not be had is absent, or has its reason."""
        if self._document is None:
            self._document = self._made()
        return self._document

    def _made(self) -> dict[str, Any]:
        latency = self.captions.figures()
        everything = latency["all"]
        if everything is None:
            return {**self._who(), "captions": 0}
        encoder, steps, wall = (one.figures()["all"] for one in (self.encoder, self.steps, self.wall))
        assert encoder is not None and steps is not None and wall is not None
        for some in (*latency.values(), encoder, steps, wall):
            if some is not None:
                some.pop("fps", None)  # between key presses nothing runs: that is no rate
        return {
            **self._who(),
            "captions": everything["count"],
            "latency": latency,
            "encoder": encoder,
            "step": steps,
            "steps_per_caption": steps["count"] / everything["count"],
            "with_host": wall,
            "throughput_per_s": 1e3 / everything["mean"],
            "memory": self._memory(),
        }

    def _who(self) -> dict[str, Any]:
        choice = self.choice
        return {"model": choice.model, "precision": choice.precision, "title": choice.title, **self.about}

    def _memory(self) -> dict[str, Any]:
        memory = self.memory
        cpu = memory.resident_mib if memory else None
        gpu = memory.gpu_mib if memory else None
        return {
            "unit": "MiB",
            "cpu": {"unavailable": _NO_MEMORY} if cpu is None else cpu,
            "cpu_most": {"unavailable": _NO_MEMORY} if cpu is None else self._peak_mib,
            "gpu": {"unavailable": _NO_GPU} if gpu is None else gpu,
            "method": "resident set of the runner's process after each caption",
        }
