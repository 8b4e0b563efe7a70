"""Capture: a model's parts as graphs that the quantizers and backends read."""

from __future__ import annotations

import contextlib
import io
import linecache
import logging
import math
import re
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from edge_sdk.errors import EdgeSdkError, ModelError
from edge_sdk.pipeline.values import Captured, Graph
from edge_sdk.schema.manifest import TensorSpec

if TYPE_CHECKING:
    import torch

    from edge_sdk.models.base import Model, Part

logger = logging.getLogger(__name__)

# These print whole graphs and tracebacks of a failed export; `_explain` says the same in one line.
_TALKATIVE = ("torch._subclasses.fake_tensor", "torch.export._trace")
_DATA_DEPENDENT = re.compile(r'"[^"\n]*\bz?uf?\d+[^"\n]*" = torch\.ops\.((?!aten\.sym_)[\w.]+)\(')
"""An operator whose result has a size or a value that only the data decides, in torch's print of a graph."""


def capture(model: Model) -> Captured:
    """Exports every part of a model, or reads its ONNX file.

    Raises:
        ModelError: A part cannot be exported; the message names the operator and the source line.
    """
    if model.onnx:
        from edge_sdk.pipeline._onnx_source import capture_onnx

        return capture_onnx(model)
    parts = model.parts()
    if not parts:
        raise ModelError(f"model '{model.name}' has no parts; its parts() must return at least one")
    if len({part.name for part in parts}) != len(parts):
        raise ModelError(f"model '{model.name}' has two parts of one name: {[part.name for part in parts]}")
    graphs = tuple(_capture_part(part) for part in parts)
    return Captured(graphs=graphs, macs=sum(_count_macs(graph) for graph in graphs))


def _capture_part(part: Part) -> Graph:
    import torch

    _check_part(part)
    shapes = _dynamic_shapes(part)
    try:
        with torch.no_grad(), _quiet():
            program = torch.export.export(part.module.eval(), part.example_inputs, dynamic_shapes=shapes, strict=False)
            graph = program.module(check_guards=False)
            outputs = flat_outputs(graph(*part.example_inputs))
    except EdgeSdkError:
        raise
    except Exception as error:
        raise ModelError(_explain(part, error)) from error
    _check_stateless(part, program)
    if len(outputs) != len(part.output_names):
        raise ModelError(
            f"part '{part.name}' gives {len(outputs)} outputs but names {len(part.output_names)}: "
            f"{list(part.output_names)}. Give one name for each."
        )
    dynamic = [tuple(part.dynamic.get(name, {})) for name in part.input_names]
    return Graph(
        name=part.name,
        inputs=tuple(
            tensor_spec(name, tensor, dims)
            for name, tensor, dims in zip(part.input_names, part.example_inputs, dynamic, strict=True)
        ),
        outputs=tuple(
            tensor_spec(name, tensor, _dynamic_output_dims(program, index))
            for index, (name, tensor) in enumerate(zip(part.output_names, outputs, strict=True))
        ),
        torch=graph,
        example_inputs=part.example_inputs,
        dynamic_shapes=shapes,
    )


def flat_outputs(result: Any) -> list[torch.Tensor]:
    """The tensors of a module's result, in order.

    Raises:
        ModelError: It holds something that is no tensor.
    """
    import torch
    from torch.utils import _pytree as pytree

    leaves = pytree.tree_leaves(result)
    for leaf in leaves:
        if not isinstance(leaf, torch.Tensor):
            raise ModelError(f"the model returns a {type(leaf).__name__}; only tensors can leave a compiled program")
    return leaves


def tensor_spec(name: str, tensor: torch.Tensor, dynamic: tuple[int, ...] = ()) -> TensorSpec:
    """Name, type and shape of a tensor, with None for the dimensions in ``dynamic``.

    Raises:
        ModelError: No runtime takes its type.
    """
    dtype = str(tensor.dtype).removeprefix("torch.")
    allowed = TensorSpec.model_fields["dtype"].annotation.__args__
    if dtype not in allowed:
        raise ModelError(f"tensor '{name}' is of type {dtype}; the runtimes take {', '.join(allowed)}")
    shape = [None if dim in dynamic else size for dim, size in enumerate(tensor.shape)]
    return TensorSpec(name=name, dtype=dtype, shape=shape)


def _check_part(part: Part) -> None:
    import torch

    for index, value in enumerate(part.example_inputs):
        if not isinstance(value, torch.Tensor):
            raise ModelError(
                f"part '{part.name}': example input {index} is a {type(value).__name__}; give a torch.Tensor. "
                "Constants belong into the module."
            )
    if len(part.input_names) != len(part.example_inputs):
        raise ModelError(
            f"part '{part.name}' has {len(part.example_inputs)} example inputs but names "
            f"{len(part.input_names)}: {list(part.input_names)}. Give one name for each."
        )
    if unknown := set(part.dynamic) - set(part.input_names):
        raise ModelError(f"part '{part.name}': dynamic names inputs that it does not have: {sorted(unknown)}")


def _check_stateless(part: Part, program: torch.export.ExportedProgram) -> None:
    """Refuses a module that writes to its buffers or inputs: a compiled program keeps nothing between two calls."""
    signature = program.graph_signature
    changed = [*signature.buffers_to_mutate.values(), *signature.user_inputs_to_mutate.values()]
    if changed:
        raise ModelError(
            f"part '{part.name}' changes {', '.join(sorted(set(changed)))} in place; a compiled program keeps no state "
            "between two calls. Take the state as an input and return the new one as an output."
        )


def _dynamic_shapes(part: Part) -> tuple[dict[int, Any], ...] | None:
    from torch.export import Dim

    if not part.dynamic:
        return None
    return tuple(
        {dim: Dim(f"{name}_{dim}", min=low, max=high) for dim, (low, high) in part.dynamic.get(name, {}).items()}
        for name in part.input_names
    )


def _dynamic_output_dims(program: torch.export.ExportedProgram, index: int) -> tuple[int, ...]:
    output = next(node for node in program.graph.nodes if node.op == "output")
    shape = output.args[0][index].meta["val"].shape
    return tuple(dim for dim, size in enumerate(shape) if not isinstance(size, int))


def _count_macs(graph: Graph) -> int:
    """Multiply-accumulates of one inference, by PyTorch's own counter (half its FLOPs)."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    assert graph.torch is not None
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        graph.torch(*graph.example_inputs)
    return math.ceil(counter.get_total_flops() / 2)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps what torch prints of a failing export off standard error; it goes to our log."""
    levels = {name: logging.getLogger(name).level for name in _TALKATIVE}
    printed = io.StringIO()
    try:
        for name in levels:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        with contextlib.redirect_stderr(printed):
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        if printed.getvalue().strip():
            logger.info("printed during export:\n%s", printed.getvalue().strip())


def _explain(part: Part, error: Exception) -> str:
    """One line on why the export failed: the operator, the user's own source line, what to do."""
    operator = _failing_operator(error)
    where = _user_frame(error.__traceback__)
    reason = str(error).strip().splitlines()[0][:300] if str(error).strip() else "no message"
    message = f"part '{part.name}' cannot be exported: {type(error).__name__}: {reason.rstrip('.')}."
    if operator:
        message += f" In operator {operator}"
    if where:
        line = linecache.getline(where.filename, where.lineno or 0).strip()
        message += f"{',' if operator else ' In'} {Path(where.filename).name}:{where.lineno}: `{line[:120]}`"
    return message + (
        ". A graph cannot depend on the values of tensors: use torch.where or torch.cond, and keep shapes fixed"
        " (or name them in Part.dynamic)."
    )


def _failing_operator(error: Exception) -> str | None:
    import torch

    if deciding := _DATA_DEPENDENT.findall(str(getattr(error, "partial_fx_graph", ""))):
        return str(deciding[-1])
    found = None
    trace: TracebackType | None = error.__traceback__
    while trace:
        for name in ("func", "op", "target"):
            value = trace.tb_frame.f_locals.get(name)
            if isinstance(value, torch._ops.OpOverload):
                found = str(value)
        trace = trace.tb_next
    return found


def _user_frame(trace: TracebackType | None) -> traceback.FrameSummary | None:
    import torch

    ours = (str(Path(torch.__file__).parent), str(Path(__file__).resolve().parent.parent))
    frames = [
        frame
        for frame in traceback.extract_tb(trace)
        if not frame.filename.startswith((*ours, "<")) and "contextlib" not in frame.filename
    ]
    return frames[-1] if frames else None
