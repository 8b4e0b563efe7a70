"""One part's graph as an AOTInductor package: exported, moved to its device, compiled."""

from __future__ import annotations

import contextlib
import copy
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from edge_sdk.backends._causes import first_cause
from edge_sdk.errors import DeviceError, EdgeSdkError, ModelError

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from edge_sdk.pipeline.values import Graph


def export(graph: Graph, device: str) -> ExportedProgram:
    """The graph exported again, with weights, constants and example inputs on the device.

    Weights of convolutions are laid out with the channels last, as the kernels of both devices want them.

    Raises:
        ModelError: PyTorch cannot export it.
        DeviceError: The GPU's memory is full.
    """
    from torch.export.passes import move_to_device_pass

    assert graph.torch is not None
    module = copy.deepcopy(graph.torch).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    try:
        with torch.no_grad():
            program = torch.export.export(
                module, graph.example_inputs, dynamic_shapes=graph.dynamic_shapes, strict=False
            )
            if device == "cpu":
                return program
            # With its index: casts check the device that the pass writes there, and 'cuda' is not 'cuda:0' to them.
            where = f"{device}:0"
            program = move_to_device_pass(program, where)
            # Older releases of PyTorch leave them where they are.
            program.example_inputs = (tuple(value.to(where) for value in graph.example_inputs), {})
            return program
    except Exception as error:
        if is_out_of_memory(error):
            raise DeviceError(memory_message(graph.name)) from error
        raise ModelError(
            f"part '{graph.name}' cannot be exported for AOTInductor: {first_cause(error)}. Try another quantizer."
        ) from error


def compile_part(name: str, program: ExportedProgram, device: str, *, max_autotune: bool, tf32: bool) -> bytes:
    """The package of an exported part.

    Args:
        name: The part's name.
        program: Of `export`.
        device: ``cuda`` or ``cpu``.
        max_autotune: Whether kernels are chosen by measuring many, which takes minutes.
        tf32: Whether products of FP32 may be computed in TF32.

    Raises:
        ModelError: AOTInductor refuses the graph.
        DeviceError: The GPU's memory is full.
    """
    configs: dict[str, Any] = {}
    if max_autotune:
        configs |= torch._inductor.list_mode_options("max-autotune-no-cudagraphs")  # the runner makes the graphs
    if device == "cpu":
        # Weights are packed for oneDNN beforehand; the number of threads is the runner's choice.
        configs |= {"freezing": True, "cpp.dynamic_threads": True}
    try:
        with tempfile.TemporaryDirectory(prefix="edge-sdk-aoti-") as folder, _precision(tf32), torch.no_grad():
            path = Path(folder) / f"{name}.pt2"
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the compiler warns of its own deprecated calls
                torch._inductor.aoti_compile_and_package(program, package_path=str(path), inductor_configs=configs)
            return path.read_bytes()
    except EdgeSdkError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise DeviceError(memory_message(name)) from error
        raise ModelError(
            f"AOTInductor cannot compile part '{name}': {first_cause(error)}. "
            "Try another quantizer, or another target; see 'edge-sdk doctor' for what is missing here."
        ) from error


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or one that led to it, is that the GPU's memory is full."""
    while error is not None:
        if isinstance(error, torch.OutOfMemoryError) or "out of memory" in str(error).lower():
            return True
        error = error.__cause__ or error.__context__
    return False


def memory_message(name: str) -> str:
    """What to say where the GPU's memory was full while a part was compiled."""
    found = ""
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        found = f" ({free >> 20} of {total >> 20} MiB are free now)"
    return (
        f"the GPU's memory was full while part '{name}' was compiled{found}: end other programs on it, compile for a "
        "smaller batch or input, or set the target's option max_autotune to false, which tries fewer kernels."
    )


@contextlib.contextmanager
def _precision(tf32: bool) -> Iterator[None]:
    """PyTorch's settings for products of FP32, as they were afterwards."""
    matmul: Any = torch.backends.cuda.matmul
    cudnn: Any = torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = tf32
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before
