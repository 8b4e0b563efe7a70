"""Lightning's checkpoints, written whole or not at all, and read as plain data only."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import torch

from edge_sdk._files import write_atomic
from edge_sdk.errors import ModelError, first_line
from edge_sdk.training._lightning import TorchCheckpointIO


class AtomicCheckpointIO(TorchCheckpointIO):
    """Replaces a checkpoint only by a whole one."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Writes a checkpoint.

        Raises:
            StorageError: The disk is full or not ours; the last checkpoint is still there.
        """
        del storage_options
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        write_atomic(Path(path), buffer.getvalue())

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Reads a checkpoint.

        Raises:
            ModelError: It is damaged or holds code.
        """
        del weights_only
        try:
            return torch.load(path, map_location=map_location, weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
            raise ModelError(
                f"the run's checkpoint {path} cannot be read: {first_line(error)} Start again without --resume, in "
                "another folder."
            ) from error
