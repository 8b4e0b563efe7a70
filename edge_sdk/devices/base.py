"""The device protocol: transport only. What runs there is a runner of ``runtimes/``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from edge_sdk.errors import UnsupportedError
from edge_sdk.schema.messages import Message
from edge_sdk.schema.reading import Reading
from edge_sdk.schema.report import ReportDevice
from edge_sdk.schema.request import RunRequest

if TYPE_CHECKING:
    from edge_sdk.devices.session import Session


class Device(ABC):
    """A place where bundles run, named by a URI: ``local``, ``ssh://[user@]host[:port]``, ``adb://[serial]``.

    Use it as a context manager: leaving it closes the link and leaves the device clean.
    """

    scheme: ClassVar[str]
    uri: str
    facts: Mapping[str, str]
    """What the device tells of itself, in its own words; see `edge_sdk.devices._facts`. None of it is trusted."""

    @abstractmethod
    def describe(self) -> ReportDevice:
        """Model, SoC, operating system and ABI, as the device tells them.

        Raises:
            DeviceError: It does not answer.
        """

    @abstractmethod
    def push(self, path: Path) -> str:
        """Brings a file or folder to the device and returns its path there.

        Content-addressed: nothing is sent where the same hash lies.
        """

    @abstractmethod
    def run(self, runtime: str, request: RunRequest) -> Generator[Message, None, None]:
        """Starts the runner of ``runtime`` and yields its messages until ``result``; closing the generator ends it.

        Raises:
            DeviceError: The runner failed, fell silent or answered something else than the protocol.
            MissingDependencyError: The runtime is not installed on the device.
        """

    def session(self, runtime: str, request: RunRequest) -> AbstractContextManager[Session]:
        """Starts the runner of ``runtime``, which loads the request's bundle and then answers calls.

        Args:
            runtime: The backend's name.
            request: Without timing, inputs and outputs.

        Raises:
            UnsupportedError: Runners of this device answer no calls.
            DeviceError: The runner failed.
            MissingDependencyError: The runtime is not installed on the device.
        """
        raise UnsupportedError(
            f"device '{self.uri}': its runner takes a whole run at a time and answers no single calls; use local or "
            "ssh://[user@]host[:port]."
        )

    @abstractmethod
    def watch(self, period_s: float = 1.0, count: int = 0) -> Generator[Reading, None, None]:
        """Yields what the device is doing, once a period; it needs no lock, and closing the generator ends it.

        Args:
            period_s: Seconds between two readings.
            count: How many; 0 goes on for ever.

        Raises:
            DeviceError: The device cannot tell, or its answer is not understood.
        """

    @abstractmethod
    def scratch(self, name: str) -> str:
        """A path on the device for a file that the runner writes, removed on ``close``."""

    @abstractmethod
    def pull(self, remote: str, local: Path) -> None:
        """Brings a file that the runner wrote to the host."""

    @abstractmethod
    def lock(self, owner: str) -> AbstractContextManager[None]:
        """Holds the device for one measurement at a time.

        Raises:
            DeviceError: Another holds it.
        """

    @abstractmethod
    def held_by(self) -> str | None:
        """Who holds the lock now, None where nobody does."""

    def close(self) -> None:  # noqa: B027 - a device that leaves nothing has nothing to do
        """Removes what this session left on the device and closes the link."""

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
