"""An ``.onnx`` file."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from edge_sdk._files import sha256_file, storage_error
from edge_sdk.errors import MissingDependencyError, ModelError, UnsupportedError, first_line
from edge_sdk.models.base import Model, Part, Purpose, Sample, only_setting
from edge_sdk.models.user import _onnx_tensors as tensors
from edge_sdk.models.user._names import model_name

if TYPE_CHECKING:
    import numpy as np
    import onnx

_SHAPE = "shape."


class OnnxModel(Model):
    """An ONNX file, checked. ``onnx_path`` is the file, or a copy of it with fixed shapes.

    Args:
        path: The file.
        settings: ``name``, and ``shape.INPUT=1,3,224,224`` to fix the sizes of an input.

    Raises:
        ModelError: The file is damaged, is no ONNX model, lacks external data or takes it from outside
            its folder, or a shape does not fit.
        MissingDependencyError: The package onnx is not installed.
    """

    onnx: ClassVar[bool] = True

    def __init__(self, path: Path, settings: Mapping[str, str]) -> None:
        shapes = {key.removeprefix(_SHAPE): text for key, text in settings.items() if key.startswith(_SHAPE)}
        only_setting(path.name, {key: settings[key] for key in settings if not key.startswith(_SHAPE)}, ("name",))
        self.name = model_name(settings.get("name"), path.stem)
        self._source = path
        self._external = tensors.external_files(_read(path), path)
        self._settings = shapes
        _check(path)
        self.onnx_path = self._with_fixed_shapes(shapes) if shapes else path

    def fingerprint(self) -> Mapping[str, str]:
        """Hashes of the file and of the files that hold its external data, and the shapes that were fixed."""
        found = {"onnx": sha256_file(self._source)}
        found |= {f"data/{file.name}": sha256_file(file) for file in self._external}
        return found | {f"shape/{name}": text for name, text in self._settings.items()}

    def parts(self) -> list[Part]:
        """Refuses: the graph is in the file.

        Raises:
            UnsupportedError: Always.
        """
        raise UnsupportedError(f"model '{self.name}' is an ONNX file and has no PyTorch module; read onnx_path.")

    def samples(self, purpose: Purpose) -> list[Sample]:
        """`example_inputs` for reference; nothing to calibrate or to judge with."""
        return [{"forward": self.example_inputs()}] if purpose == "reference" else []

    def example_inputs(self) -> dict[str, np.ndarray]:
        """Random inputs, the same each time, by name; a first dimension that varies is 1.

        Raises:
            ModelError: Another dimension varies, or an input is of a type without numbers.
        """
        return tensors.example_inputs(_read(self.onnx_path), self._source)

    def _with_fixed_shapes(self, shapes: Mapping[str, str]) -> Path:
        """Writes a copy whose named inputs have the given shapes; it is removed with this object."""
        import onnx

        model = tensors.with_shapes(onnx.load(self._source), shapes)
        try:
            model = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        except onnx.shape_inference.InferenceError as error:
            raise ModelError(f"the shapes do not fit {self._source}: {first_line(error)}") from error
        folder = Path(tempfile.mkdtemp(prefix="edge-sdk-"))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        copy = folder / self._source.name
        try:
            onnx.save(model, copy)
        except OSError as error:
            raise storage_error(copy, error) from error
        return copy


def _read(path: Path) -> onnx.ModelProto:
    """The graph, without its external data."""
    try:
        import onnx
    except ImportError as error:
        raise MissingDependencyError(
            "reading an ONNX file needs the package onnx, which is not installed: pip install 'edge-sdk[onnxruntime]'."
        ) from error
    from google.protobuf.message import DecodeError

    try:
        return onnx.load(path, load_external_data=False)
    except (DecodeError, ValueError) as error:
        raise ModelError(f"{path} is damaged or is no ONNX model: {error}.") from error


def _check(path: Path) -> None:
    import onnx

    try:
        onnx.checker.check_model(str(path))
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        raise ModelError(f"{path} is no valid ONNX model: {first_line(error)}") from error
