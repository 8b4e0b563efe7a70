"""What is judged: something that turns photos into a logit for each category, wherever it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edge_sdk._files import sha256_file
from edge_sdk.errors import ModelError, UnsupportedError

if TYPE_CHECKING:
    import numpy as np

    from edge_sdk.evaluation.result import Kind
    from edge_sdk.models.base import Sample
    from edge_sdk.models.photo_tagging.plugin import PhotoTagging

_BUNDLES = ("", ".edge", ".zip")
_KINDS: Mapping[str, Kind] = {".pt": "checkpoint", ".pth": "checkpoint", ".pte": "pte", ".onnx": "onnx"}
BATCH = 16
"""Images that go through a network of PyTorch at once."""


@dataclass
class Started:
    """A tagger that is ready.

    Attributes:
        logits: From the inputs of some photos to their outputs, ``[photos, categories]``.
        runtime: What runs it; a device tells after the first photos.
    """

    logits: Callable[[Sequence[Sample]], np.ndarray]
    runtime: str


@dataclass(frozen=True)
class Subject:
    """A tagger to judge.

    Attributes:
        name: Short, for tables and pictures.
        kind: What was given.
        path: Where it lies.
        sha256: Of the file, or of a bundle's manifest.
        size_bytes: Of the checkpoint or the programs.
        method: The quantizer, None where it is not known.
        device: Where it runs.
        model: Prepares the photos.
        start: Makes it ready for as long as the context lasts.
    """

    name: str
    kind: Kind
    path: Path
    sha256: str
    size_bytes: int
    method: str | None
    device: str
    model: PhotoTagging
    start: Callable[[], AbstractContextManager[Started]]


def kind_of(path: Path) -> Kind:
    """What a file or folder is, by its name.

    Raises:
        ModelError: It is not there, or is of another kind.
    """
    if not path.exists():
        raise ModelError(f"there is nothing to evaluate at {path}.")
    suffix = path.suffix.lower()
    if suffix in _BUNDLES or path.is_dir():
        return "bundle"
    if suffix not in _KINDS:
        raise ModelError(
            f"{path} cannot be evaluated: its ending is '{suffix}'; expected a checkpoint (.pt, .pth), a bundle "
            "NAME.edge, a .pte or an .onnx file."
        )
    return _KINDS[suffix]


def checkpoint_subject(path: Path, settings: Mapping[str, str], make: Callable[..., PhotoTagging]) -> Subject:
    """A checkpoint, of FP32 or of LSQ training, which runs in PyTorch on this machine.

    Args:
        path: The file.
        settings: The model's settings.
        make: Makes the model of its settings.

    Raises:
        ModelError: The checkpoint is none, or of another network; only once it is started, where it is FP32.
    """
    from edge_sdk.models._checkpoint import load_plain

    content = load_plain(path)
    is_lsq = isinstance(content, Mapping) and str(content.get("format", "")).startswith("edge-sdk-lsq")
    facts = {"path": path, "sha256": sha256_file(path), "size_bytes": path.stat().st_size, "device": "local"}
    if not is_lsq:
        model = make({**settings, "checkpoint": str(path)})
        return Subject("FP32", "checkpoint", method="fp32", model=model, start=lambda: _eager(model.network), **facts)
    from edge_sdk.quantization.lsq import load

    checkpoint = load(path)
    told = {key: str(value) for key, value in checkpoint.facts.items() if key == "variant"}
    model = make({**told, **settings})
    recipe = checkpoint.recipe
    bits = (
        f"{recipe.weight_bits}"
        if recipe.weight_bits == recipe.activation_bits
        else (f"{recipe.weight_bits}/{recipe.activation_bits}")
    )

    def network():
        import torch

        from edge_sdk.models.photo_tagging.resnet import ResNet
        from edge_sdk.quantization.lsq import LsqNetwork

        assert model.variant is not None
        example = torch.zeros(1, 3, model.input_size, model.input_size)
        return LsqNetwork.restore(ResNet(model.variant, model.num_classes).eval(), example, checkpoint)

    name = f"LSQ {bits}-bit, fake-quantized"
    return Subject(name, "lsq checkpoint", method="lsq", model=model, start=lambda: _eager(network), **facts)


@contextmanager
def _eager(make: Callable) -> Iterator[Started]:
    """A network of PyTorch, as it is."""
    import torch

    network = make()

    def logits(samples: Sequence[Sample]) -> np.ndarray:
        images = torch.cat([torch.from_numpy(sample["forward"]["image"]) for sample in samples])
        with torch.no_grad():
            return torch.cat([network(batch) for batch in images.split(BATCH)]).numpy()

    yield Started(logits, f"PyTorch {torch.__version__}, eager")


def check_device(kind: Kind, device: str | None) -> None:
    """Refuses a device for what runs in PyTorch.

    Raises:
        UnsupportedError: A checkpoint is to run elsewhere than here.
    """
    if kind == "checkpoint" and device not in (None, "local"):
        raise UnsupportedError(
            f"a checkpoint runs in PyTorch on this machine, not on {device}. Compile it first, and give the bundle; "
            "or leave --device out."
        )
