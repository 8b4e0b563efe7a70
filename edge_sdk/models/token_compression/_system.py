"""Vision token compression as a system that can be trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from edge_sdk.errors import UnsupportedError

if TYPE_CHECKING:
    from edge_sdk.training.base import Say
    from edge_sdk.training.config import RunConfig
    from edge_sdk.training.task import Task


class TokenCompressionSystem:
    """See `edge_sdk.training.base.System`."""

    conf = Path(__file__).with_name("conf")

    def config(self, values: Mapping[str, Any]) -> RunConfig:
        """The settings, checked.

        Raises:
            ModelError: They do not fit.
        """
        from edge_sdk.models.token_compression._config import Config, without_short_names
        from edge_sdk.training.config import checked

        return checked(Config, without_short_names(values))

    def task(self, config: RunConfig, say: Say) -> Task:
        """The networks with their tokens.

        Raises:
            EdgeSdkError: The encoder's weights or the photos are missing or do not fit.
        """
        from edge_sdk.models.token_compression._config import Config
        from edge_sdk.models.token_compression._task import TokenCompressionTask

        return TokenCompressionTask(cast(Config, config), say)

    def download(self, folder: Path, val_only: bool, say: Say) -> None:
        """Refuses: there is nothing to fetch.

        Raises:
            UnsupportedError: Always.
        """
        del folder, val_only, say
        raise UnsupportedError(
            "token_compression has no data to download: its photos come with packages (pip install 'edge-sdk[train]'; "
            "more of them with apt-get install opencv-doc), or are your own with data=imagenet data.root=FOLDER."
        )
