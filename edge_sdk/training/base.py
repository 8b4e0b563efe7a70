"""What a system that can be trained gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

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
