"""Bundles and bare programs on a device, fed with photos piece by piece."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import edge_sdk
from edge_sdk._files import sha256_file
from edge_sdk.bundle import Bundle, write_bundle
from edge_sdk.errors import DeviceError, ModelError, UnsupportedError
from edge_sdk.evaluation._subject import Started
from edge_sdk.schema.manifest import (
    Cost,
    Manifest,
    ModelRef,
    Partition,
    PartSpec,
    Quantization,
    RuntimeRef,
    TensorSpec,
)

if TYPE_CHECKING:
    import numpy as np

    from edge_sdk.models.base import Sample

BARE = "unknown"
"""The quantization method of a bare program, which does not tell."""


def bundle_of_pte(path: Path, size: int, categories: int, folder: Path) -> Bundle:
    """A bundle around a bare ExecuTorch program, whose method ``forward`` takes an image.

    The program is not looked into here: it is untrusted, and only its runner loads it.

    Args:
        path: The program.
        size: Side of the image that it is given, in pixels.
        categories: Number of its outputs.
        folder: Where to put the bundle.
    """
    part = PartSpec(
        name="forward",
        program="model.pte",
        entry="forward",
        inputs=[TensorSpec(name="image", dtype="float32", shape=[1, 3, size, size])],
        outputs=[TensorSpec(name="logits", dtype="float32", shape=[1, categories])],
    )
    return _wrapped(path, "executorch", "xnnpack", part, {"model.pte": path.read_bytes()}, folder)


def bundle_of_onnx(path: Path, folder: Path) -> Bundle:
    """A bundle around an ONNX file of one image input and one output, with its external data.

    Raises:
        ModelError: The file is damaged, or has other inputs or outputs.
    """
    from edge_sdk.models.user import OnnxModel, _onnx_tensors

    OnnxModel(path, {})  # checks the file
    import onnx

    proto = onnx.load(path, load_external_data=False)
    weights = {tensor.name for tensor in proto.graph.initializer}
    inputs = [_spec(value, path) for value in proto.graph.input if value.name not in weights]
    outputs = [_spec(value, path) for value in proto.graph.output]
    part = PartSpec(name="forward", program="model.onnx", entry="forward", inputs=inputs, outputs=outputs)
    root = path.resolve().parent
    beside = {file.relative_to(root).as_posix(): file for file in _onnx_tensors.external_files(proto, path)}
    files = {"model.onnx": path.read_bytes(), **{name: file.read_bytes() for name, file in beside.items()}}
    return _wrapped(path, "onnxruntime", "cpu", part, files, folder)


def image_size(bundle: Bundle) -> int | None:
    """The side of the image that a bundle takes, None where it takes any.

    Raises:
        ModelError: It takes something else than one square image.
    """
    parts = bundle.manifest.parts
    inputs, outputs = (
        [spec for part in parts for spec in part.inputs],
        [spec for part in parts for spec in part.outputs],
    )
    shapes = ", ".join(f"'{spec.name}' {spec.dtype} {spec.shape}" for spec in inputs)
    shape = inputs[0].shape if len(inputs) == 1 else []
    is_image = len(shape) == 4 and shape[0] in (1, None) and shape[1] in (3, None) and shape[2] == shape[3]
    if len(outputs) != 1 or not is_image or inputs[0].dtype != "float32":
        raise ModelError(
            f"{bundle.path.name} cannot be evaluated as a tagger: it takes {shapes} and gives {len(outputs)} outputs; "
            "expected one image float32 [1, 3, size, size] and one output of logits."
        )
    return shape[2]


def check_categories(bundle: Bundle, categories: Sequence[str]) -> None:
    """Refuses a bundle of other tags than the data's.

    Raises:
        ModelError: Their number, their names or their order differ.
    """
    manifest = bundle.manifest
    count = manifest.parts[0].outputs[0].shape[-1]
    labels = manifest.labels
    if count not in (None, len(categories)):
        raise ModelError(
            f"{bundle.path.name} gives {count} values for an image, and the data has {len(categories)} categories."
        )
    if labels is None or labels == [f"class {index}" for index in range(len(labels))]:
        return
    for place, (label, category) in enumerate(zip(labels, categories, strict=False)):
        if label != category:
            raise ModelError(
                f"{bundle.path.name} has the tag '{label}' at place {place + 1}, where the data has '{category}': it "
                "was made for other data."
            )


@contextmanager
def on_device(
    bundle: Bundle, device: str, runner: str | None, threads: int | None, say: Callable[[str], None]
) -> Iterator[Started]:
    """A bundle on a device, which is locked meanwhile; each piece of photos is a run of its own.

    Raises:
        DeviceError: The device is in use, or its runner failed or answered wrongly.
        MissingDependencyError: The runtime is not installed on the device.
    """
    from edge_sdk.devices import open_device
    from edge_sdk.profiling._run import make_request, run_once
    from edge_sdk.profiling._samples import of_inputs, read_outputs, write_inputs

    parts = bundle.manifest.parts
    runtime = bundle.manifest.runtime
    with open_device(device, runner) as place, tempfile.TemporaryDirectory() as scratch:
        with place.lock(f"edge-sdk, evaluation of '{bundle.manifest.name}'"):
            say(f"bringing {bundle.path.name} to {place.uri}")
            request = make_request(bundle, place.push(bundle.path), None, threads)
            inputs, outputs = Path(scratch) / "inputs.npz", Path(scratch) / "outputs.npz"

            def logits(samples: Sequence[Sample]) -> np.ndarray:
                write_inputs(inputs, parts, [_renamed(sample, parts[0]) for sample in samples])
                wanted = {"inputs": place.push(inputs), "outputs": place.scratch("outputs.npz")}
                try:
                    run = run_once(bundle, place, request.model_copy(update=wanted), lambda _: None)
                except DeviceError as error:
                    raise _with_hint(error, bundle) from error
                if run.result.outputs is None:
                    raise UnsupportedError(
                        f"{bundle.path.name} cannot be evaluated on {place.uri}: its runner gives no outputs. Leave "
                        "--runner out."
                    )
                place.pull(wanted["outputs"], outputs)
                started.runtime = f"{run.hello.runtime} {run.hello.version} ({runtime.delegate})"
                return _stacked(of_inputs(read_outputs(outputs), parts, len(samples)))

            started = Started(logits, f"{runtime.name} ({runtime.delegate})")
            yield started


def _wrapped(path: Path, runtime: str, delegate: str, part: PartSpec, files: dict[str, bytes], folder: Path) -> Bundle:
    import io

    import numpy as np

    reference = io.BytesIO()
    np.savez(reference)  # nobody knows what the program should give
    manifest = Manifest(
        name=path.stem,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        sdk_version=edge_sdk.__version__,
        key=sha256_file(path),
        target="none",
        model=ModelRef(name=path.stem),
        runtime=RuntimeRef(name=runtime, version=BARE, delegate=delegate),
        quantization=Quantization(method=BARE),
        parts=[part],
        partition=Partition(delegate=delegate, delegated=0, pieces=0),
        cost=Cost(macs=0, weight_bytes=path.stat().st_size, activation_bytes=0),
        versions={},
        files={},
    )
    return write_bundle(folder / f"{path.name}.edge", manifest, {**files, manifest.reference: reference.getvalue()})


def _spec(value, path: Path) -> TensorSpec:
    import onnx

    tensor = value.type.tensor_type
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name if tensor.elem_type else "unknown"
    if dtype not in ("float32", "float16", "int64", "int32", "int8", "uint8", "bool"):
        raise ModelError(f"{path}: '{value.name}' is of type {dtype}; expected float32.")
    sizes = [dimension.dim_value or None for dimension in tensor.shape.dim]
    return TensorSpec(name=value.name, dtype=dtype, shape=sizes)  # type: ignore[arg-type]


def _renamed(sample: Sample, part: PartSpec) -> Sample:
    """A photo's only array under the name that the program has for it."""
    ((array,),) = (tuple(arrays.values()) for arrays in sample.values())
    return {part.name: {part.inputs[0].name: array}}


def _stacked(outputs: Sequence[Sample]) -> np.ndarray:
    import numpy as np

    return np.stack([next(iter(next(iter(one.values())).values())).reshape(-1) for one in outputs])


def _with_hint(error: DeviceError, bundle: Bundle) -> DeviceError:
    """The same error; of a bare ExecuTorch program it may be the size of the image that does not fit."""
    if bundle.manifest.quantization.method == BARE and bundle.manifest.runtime.name == "executorch":
        size = image_size(bundle)
        error.args = (
            f"{error}\nIt was given images of {size} by {size} pixels; if it takes others, say so: "
            "--set input_size=PIXELS.",
        )
    return error
