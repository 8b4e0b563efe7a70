"""SVQ as a system that can be trained, alone or as a sweep over its components."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from edge_sdk.training.base import Say
    from edge_sdk.training.config import RunConfig
    from edge_sdk.training.task import Task


class SvqSystem:
    """See `edge_sdk.training.base.System` and `edge_sdk.training.base.Sweeping`."""

    conf = Path(__file__).with_name("conf")

    def config(self, values: Mapping[str, Any]) -> RunConfig:
        """The settings, checked.

        Raises:
            ModelError: They do not fit.
        """
        from edge_sdk.models.svq._ablation import check_names
        from edge_sdk.models.svq._config import Config, without_short_names
        from edge_sdk.training.config import checked

        config = checked(Config, without_short_names(values))
        check_names(config.ablation.only)
        return config

    def task(self, config: RunConfig, say: Say) -> Task:
        """The network with its data.

        Raises:
            EdgeSdkError: Data is missing, or sizes do not fit.
        """
        from edge_sdk.models.svq._config import Config
        from edge_sdk.models.svq._task import SvqTask

        del say
        return SvqTask(cast(Config, config))

    def variants(self, config: RunConfig) -> Mapping[str, RunConfig]:
        """With ``ablation.enabled``, the settings of each variant.

        Raises:
            ModelError: A variant does not fit the settings.
        """
        from edge_sdk.models.svq._ablation import variants
        from edge_sdk.models.svq._config import Config

        return variants(cast(Config, config))

    def summarise(self, folder: Path, metrics: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Writes ``ablation.md`` and ``ablation.json``.

        Raises:
            StorageError: The disk is full or not ours.
        """
        from edge_sdk.models.svq._ablation import summarise

        return summarise(folder, metrics)

    def download(self, folder: Path, val_only: bool, say: Say) -> None:
        """Refuses: there is nothing to fetch.

        Raises:
            UnsupportedError: Always.
        """
        from edge_sdk.errors import UnsupportedError

        del folder, val_only, say
        raise UnsupportedError(
            "svq has no data to download: shapes, dsprites and scenes are made here, and data=folder takes images of "
            "your own. Give --out DIR."
        )
