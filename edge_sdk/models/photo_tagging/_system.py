"""Photo tagging as a system that can be trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from edge_sdk.training.base import Say
    from edge_sdk.training.config import RunConfig
    from edge_sdk.training.task import Task


class PhotoTaggingSystem:
    """See `edge_sdk.training.base.System`."""

    conf = Path(__file__).with_name("conf")

    def config(self, values: Mapping[str, Any]) -> RunConfig:
        """The settings, checked.

        Raises:
            ModelError: They do not fit.
        """
        from edge_sdk.models.photo_tagging._config import Config
        from edge_sdk.training.config import checked

        return checked(Config, values)

    def task(self, config: RunConfig, say: Say) -> Task:
        """The network with its data.

        Raises:
            EdgeSdkError: Weights or data are missing or do not fit.
        """
        from edge_sdk.models.photo_tagging._config import Config
        from edge_sdk.models.photo_tagging._task import TaggingTask

        return TaggingTask(cast(Config, config), say)

    def download(self, folder: Path, val_only: bool, say: Say) -> None:
        """Fetches COCO 2017.

        Raises:
            EdgeSdkError: It cannot be fetched.
        """
        from edge_sdk.models.photo_tagging._download import download

        download(folder, val_only=val_only, say=say)
