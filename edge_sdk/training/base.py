"""What a system that can be trained gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from edge_sdk.training.config import RunConfig
    from edge_sdk.training.task import Task

Say = Callable[[str], None]
"""Is called with a line as each stage starts."""


class System(Protocol):
    """A system that can be trained, built without arguments."""

    conf: Path
    """Holds ``config.yaml`` and a folder of files for each group, as Hydra composes them."""

    def config(self, values: Mapping[str, Any]) -> RunConfig:
        """The settings, checked.

        Raises:
            ModelError: They do not fit.
        """
        ...

    def task(self, config: RunConfig, say: Say) -> Task:
        """What is trained, with its data.

        Raises:
            EdgeSdkError: Weights or data are missing or do not fit.
        """
        ...

    def download(self, folder: Path, val_only: bool, say: Say) -> None:
        """Fetches the data.

        Args:
            folder: Where it goes.
            val_only: Only what evaluation needs.
            say: Told how far it is.

        Raises:
            EdgeSdkError: It cannot be fetched.
        """
        ...


@runtime_checkable
class Sweeping(Protocol):
    """A system whose settings may ask for several runs, such as one for each component left out."""

    def variants(self, config: RunConfig) -> Mapping[str, RunConfig]:
        """Name of each run, which is its folder's too, to its settings; empty where a single run is asked for.

        Raises:
            ModelError: A variant does not fit the settings.
        """
        ...

    def summarise(self, folder: Path, metrics: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Writes what the runs so far gave, after each of them.

        Args:
            folder: The sweep's folder.
            metrics: Name of each run to what its ``metrics.json`` holds.

        Returns:
            A row for each run, with the same keys, for a table.

        Raises:
            StorageError: The disk is full or not ours.
        """
        ...
