"""What may go wrong while training: a loss that is no number, memory, processes, the disk."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from edge_sdk._files import storage_error
from edge_sdk.errors import ModelError, first_line

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)


def no_number(loss: float, epoch: int, step: int, names: Sequence[str]) -> ModelError:
    """What to raise where the loss is infinite or not a number.

    Args:
        loss: The loss.
        epoch: The epoch, from 0.
        step: The step of the whole run, from 0.
        names: The batch's inputs.
    """
    return ModelError(
        f"the loss became {loss} at step {step + 1}, in epoch {epoch + 1}; the last good checkpoint stays. "
        f"Its batch: {', '.join(names)}. Lower optimizer.lr, or give optimizer.warmup_epochs."
    )


@contextmanager
def mapped(out: Path) -> Iterator[None]:
    """Maps what PyTorch and the system raise to errors that say what to do.

    Args:
        out: The run's folder.

    Raises:
        ModelError: The device's memory is too small, or a process that reads images died.
        StorageError: The disk is full or not ours.
    """
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ModelError(
            f"the batch does not fit the device's memory: {first_line(error)} Lower data.batch_size or data.size."
        ) from error
    except OSError as error:
        if error.errno in _DISK:
            raise storage_error(Path(error.filename) if error.filename else out, error) from error
        raise
    except RuntimeError as error:
        if "DataLoader worker" in str(error):
            raise ModelError(
                f"a process that reads images ended: {first_line(error)} Where memory or /dev/shm is small, give "
                "data.workers=0."
            ) from error
        raise
