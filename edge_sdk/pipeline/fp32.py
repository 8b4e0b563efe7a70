"""The model in FP32 on this machine: what a device's outputs are compared with."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_sdk._files import write_atomic
from edge_sdk._paths import cache_dir
from edge_sdk.errors import UnsupportedError
from edge_sdk.pipeline.key import samples_identity, versions

if TYPE_CHECKING:
    from edge_sdk.models.base import Model, Sample
    from edge_sdk.pipeline.compile import Job

logger = logging.getLogger(__name__)

Forward = Callable[["Sample"], "Sample"]


def fp32_outputs(job: Job, samples: Sequence[Sample]) -> list[Sample]:
    """The FP32 outputs of some inputs, kept in the cache where the model can be told without loading it.

    Raises:
        ModelError: The model cannot be loaded.
    """
    if not samples:
        return []
    path = _cache_path(job.model, samples)
    if path is not None and job.use_cache and (kept := _read(path, len(samples))) is not None:
        return kept
    job.progress(f"running {len(samples)} inputs in FP32 here")
    forward = fp32_forward(job.model)
    outputs = [forward(sample) for sample in samples]
    if path is not None:
        write_atomic(path, _pack(outputs))
    return outputs


def fp32_forward(model: Model) -> Forward:
    """The model in FP32 on this machine: as PyTorch runs it, or ONNX Runtime for an ONNX file.

    Raises:
        ModelError: The model cannot be loaded.
    """
    if model.onnx:
        from edge_sdk.pipeline._onnx_source import onnx_forward

        return onnx_forward(model)
    import torch

    from edge_sdk.pipeline.capture import flat_outputs

    parts = model.parts()

    def forward(sample: Sample) -> Sample:
        found = {}
        for part in parts:
            if part.name in sample:
                arrays = sample[part.name]
                if unknown := set(part.input_names) - set(arrays):
                    raise UnsupportedError(f"part '{part.name}' gets no input for {sorted(unknown)}")
                inputs = [torch.from_numpy(arrays[name]) for name in part.input_names]
                with torch.no_grad():
                    outputs = flat_outputs(part.module.eval()(*inputs))
                found[part.name] = {
                    name: tensor.numpy() for name, tensor in zip(part.output_names, outputs, strict=True)
                }
        return found

    return forward


def _cache_path(model: Model, samples: Sequence[Sample]) -> Path | None:
    identity = model.fingerprint()
    if identity is None:
        return None
    facts = [model.name, model.variant, dict(identity), samples_identity(samples), versions(("torch", "onnxruntime"))]
    return cache_dir() / "fp32" / f"{hashlib.sha256(json.dumps(facts).encode()).hexdigest()}.npz"


def _pack(outputs: Sequence[Sample]) -> bytes:
    import numpy as np

    arrays: dict[str, Any] = {
        f"{index}/{part}/{name}": array
        for index, sample in enumerate(outputs)
        for part, values in sample.items()
        for name, array in values.items()
    }
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def _read(path: Path, count: int) -> list[Sample] | None:
    import numpy as np

    if not path.is_file():
        return None
    outputs: list[dict[str, dict]] = [{} for _ in range(count)]
    try:
        with np.load(path, allow_pickle=False) as arrays:
            for key, array in arrays.items():
                index, part, name = key.split("/", 2)
                outputs[int(index)].setdefault(part, {})[name] = array
    except (OSError, ValueError, IndexError, EOFError, zipfile.BadZipFile) as error:
        logger.warning("%s is damaged (%s); the FP32 outputs are computed again", path, error)
        return None
    return list(outputs) if all(outputs) else None
