"""Captioning as a system that can be trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from edge_sdk.errors import UnsupportedError

if TYPE_CHECKING:
    from edge_sdk.training.base import Say
    from edge_sdk.training.config import RunConfig
    from edge_sdk.training.task import Task


class CaptioningSystem:
    """See `edge_sdk.training.base.System`."""

    conf = Path(__file__).with_name("conf")

    def config(self, values: Mapping[str, Any]) -> RunConfig:
        """The settings, checked.

        Raises:
            ModelError: They do not fit.
        """
        from edge_sdk.models.captioning._config import Config
        from edge_sdk.training.config import checked

        return checked(Config, values)

    def task(self, config: RunConfig, say: Say) -> Task:
        """The decoder, with the places of all photos; or encoder and decoder, to be pruned.

        Raises:
            EdgeSdkError: Weights or photos are missing or do not fit.
        """
        from edge_sdk.models.captioning._config import Config
        from edge_sdk.models.captioning._prune_task import PruningTask
        from edge_sdk.models.captioning._task import CaptioningTask

        chosen = cast(Config, config)
        return (PruningTask if chosen.method == "prune" else CaptioningTask)(chosen, say)

    def download(self, folder: Path, val_only: bool, say: Say) -> None:
        """Refuses: COCO's captions come with its images.

        Raises:
            UnsupportedError: Always.
        """
        del folder, val_only, say
        raise UnsupportedError(
            "captioning downloads nothing: its photos come with packages (pip install 'edge-sdk[train]'; more of them "
            "with apt-get install opencv-doc). COCO's images: edge-sdk train photo_tagging --download DIR; its "
            "captions are in annotations_trainval2017.zip of https://cocodataset.org."
        )
