"""Lightning, or the reason why there is none."""

from __future__ import annotations

from edge_sdk.errors import MissingDependencyError

try:
    import lightning.pytorch as pl
    from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
    from lightning.fabric.utilities.exceptions import MisconfigurationException
    from lightning.pytorch.callbacks import Checkpoint, EarlyStopping
    from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
except ImportError as error:
    raise MissingDependencyError(
        f"training needs Lightning, which cannot be imported ({error}): pip install 'edge-sdk[train]'."
    ) from error

__all__ = [
    "Checkpoint",
    "EarlyStopping",
    "Logger",
    "MisconfigurationException",
    "TensorBoardLogger",
    "TorchCheckpointIO",
    "WandbLogger",
    "pl",
]
