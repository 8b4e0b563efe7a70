"""A runner that has loaded a bundle and answers calls: for what is asked one by one, as a caption is word by word."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_sdk.devices._process import Child, Limits
from edge_sdk.devices._protocol import BrokenStreamError
from edge_sdk.errors import DeviceError
from edge_sdk.schema.messages import Answer, Array, Hello, Message, Progress, SessionMemory

if TYPE_CHECKING:
    import numpy as np

SESSION = "--session"
"""Goes before the path of the request on a runner's command line."""
READY = "session"
"""The stage in which a runner takes calls."""


@dataclass(frozen=True)
class Called:
    """What a call gave.

    Attributes:
        ms: How long the runtime's own call took, by the runner's clock, with what it runs on waited for.
        outputs: Those that were asked for, by name.
        memory: Of the runner's process, where it was asked for.
    """

    ms: float
    outputs: dict[str, np.ndarray]
    memory: SessionMemory | None


class Session:
    """Calls the parts of a bundle. What a part gave stays on the device, so that the next call may take it.

    Args:
        uri: The device, for messages.
        child: The runner.
        messages: Its answer, from ``hello`` on.

    Raises:
        DeviceError: The runner does not come so far as to take calls.
        MissingDependencyError: The runtime is not installed on the device.
    """

    def __init__(self, uri: str, child: Child, messages: Iterator[Message]) -> None:
        self._uri, self._child, self._messages = uri, child, messages
        for message in messages:
            if isinstance(message, Hello):
                self.hello = message
            if isinstance(message, Progress) and message.stage == READY:
                return
        raise DeviceError(f"device '{uri}': the runner ended before it took a call.")

    def call(
        self,
        part: str,
        inputs: Mapping[str, np.ndarray],
        *,
        kept: Mapping[str, tuple[str, str]] | None = None,
        outputs: Sequence[str] = (),
        memory: bool = False,
    ) -> Called:
        """Runs a part once.

        Args:
            part: Its name.
            inputs: Those that are sent, by name.
            kept: The others: name to part and output of the latest call of that part.
            outputs: Those that are sent back.
            memory: Whether the runner says how much it holds.

        Raises:
            DeviceError: The runner or the device failed; the session is over then.
        """
        arrays = [(name, _contiguous(array)) for name, array in inputs.items()]
        call = {
            "part": part,
            "inputs": [{"name": name, "dtype": one.dtype.name, "shape": one.shape} for name, one in arrays],
            "kept": {name: "/".join(key) for name, key in (kept or {}).items()},
            "outputs": list(outputs),
            "memory": memory,
        }
        header = json.dumps(call, separators=(",", ":")).encode() + b"\n"
        try:
            self._child.send(b"".join([header, *(array.tobytes() for _, array in arrays)]))
        except BrokenStreamError as error:
            self._failed()  # why it no longer listens is what it said last
            raise DeviceError(f"device '{self._uri}': the runner does not take a call: {error}") from error
        answer = next((one for one in self._messages if isinstance(one, Answer)), None)
        if answer is None or [one.name for one in answer.outputs] != list(outputs):
            raise DeviceError(f"device '{self._uri}': the runner answered another call than the one it was given.")
        return Called(answer.ns / 1e6, {one.name: self._array(one) for one in answer.outputs}, answer.memory)

    def close(self) -> None:
        """Tells the runner to end, and waits until it has.

        Raises:
            DeviceError: It fails meanwhile.
        """
        self._child.hang_up()
        for _ in self._messages:
            pass

    def _failed(self) -> None:
        for _ in self._messages:
            pass

    def _array(self, one: Array) -> np.ndarray:
        import numpy as np

        try:
            data = np.frombuffer(base64.b64decode(one.data, validate=True), dtype=one.dtype)
            return data.reshape(one.shape).copy()
        except ValueError as error:
            raise DeviceError(f"device '{self._uri}': output '{one.name}' cannot be read: {error}") from error


def endless(limits: Limits) -> Limits:
    """The same limits for a runner that waits for as long as nobody calls."""
    return Limits(limits.line_bytes, 1 << 62, limits.silence_s, float("inf"))


def _contiguous(array: np.ndarray) -> np.ndarray:
    import numpy as np

    return np.ascontiguousarray(array)
