"""Capture: a model's parts as graphs that the quantizers and backends read."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Any, get_args

from edge_sdk.errors import EdgeSdkError, ModelError
from edge_sdk.pipeline.values import Captured, Graph
from edge_sdk.schema.manifest import TensorSpec

if TYPE_CHECKING:
    import torch

    from edge_sdk.models.base import Model, Part
    from edge_sdk.pruning import Recipe


def capture(model: Model, recipe: Recipe | None = None) -> Captured:
    """Exports every part of a model, or reads its ONNX file.

    Args:
        model: The model.
        recipe: How its parts are pruned before; None: not at all.

    Raises:
        ModelError: A part cannot be exported; the message names the operator and the source line.
        UnsupportedError: The parts cannot be pruned so.
    """
    if model.onnx:
        from edge_sdk.pipeline._onnx_source import capture_onnx

        return capture_onnx(model)
    parts = model.parts()
    if not parts:
        raise ModelError(f"model '{model.name}' has no parts; its parts() must return at least one")
    if len({part.name for part in parts}) != len(parts):
        raise ModelError(f"model '{model.name}' has two parts of one name: {[part.name for part in parts]}")
    pruning = None
    if recipe is not None:
        from edge_sdk.pipeline.pruned import pruned_parts

        parts, pruning = pruned_parts(parts, recipe)
    graphs = tuple(capture_part(part) for part in parts)
    return Captured(graphs=graphs, macs=sum(_count_macs(graph) for graph in graphs), pruning=pruning)


def capture_part(part: Part) -> Graph:
    """One part as a graph; see `capture`."""
    import torch

    from edge_sdk.pipeline._export_faults import explain, quiet

    _check_part(part)
    shapes = _dynamic_shapes(part)
    try:
        with torch.no_grad(), quiet():
            program = torch.export.export(part.module.eval(), part.example_inputs, dynamic_shapes=shapes, strict=False)
            graph = program.module(check_guards=False)
            outputs = flat_outputs(graph(*part.example_inputs))
    except EdgeSdkError:
        raise
    except Exception as error:
        raise ModelError(explain(part.name, error)) from error
    _check_stateless(part, graph)
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
        keeps_float=part.keeps_float,
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
    allowed = get_args(TensorSpec.model_fields["dtype"].annotation)
    if dtype not in allowed:
        raise ModelError(f"tensor '{name}' is of type {dtype}; the runtimes take {', '.join(allowed)}")
    shape = [None if dim in dynamic else size for dim, size in enumerate(tensor.shape)]
    return TensorSpec(name=name, dtype=dtype, shape=shape)  # type: ignore[arg-type]  # checked above


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


def _check_stateless(part: Part, graph: torch.fx.GraphModule) -> None:
    """Refuses a module that writes to its buffers or inputs: a compiled program keeps nothing between two calls."""
    for node in graph.graph.nodes:
        changed = _written_by(node)
        if changed is None or changed.op not in ("get_attr", "placeholder"):
            continue
        if changed.op == "placeholder":
            what, instead = f"its input '{changed.target}'", "Change a copy: x = x.clone()."
        else:
            what, instead = f"its buffer '{changed.target}'", "Take the state as an input and return the new one."
        raise ModelError(
            f"part '{part.name}' changes {what} in place ({node.target}); a compiled program keeps no state between "
            f"two calls. {instead}"
        )


def _written_by(node: torch.fx.Node) -> torch.fx.Node | None:
    """What an operator that works in place writes to, behind the views of it; None for any other operator."""
    schema = getattr(node.target, "_schema", None)
    if schema is None or not schema.is_mutable:
        return None
    written = (place for place, told in enumerate(schema.arguments) if told.alias_info and told.alias_info.is_write)
    place = next(written, len(node.args))
    found: Any = node.args[place] if place < len(node.args) else None
    while getattr(found, "op", "") == "call_function" and found.args:
        schema = getattr(found.target, "_schema", None)
        if schema is None or not any(result.alias_info for result in schema.returns):
            return None
        found = found.args[0]
    return found


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
    """Multiply-accumulates of one inference, by PyTorch's own counter (half its FLOPs).

    The counter does not know the fused kernels of LSTM and attention, so their plain forms are run.
    """
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    assert graph.torch is not None
    recurrent = any(node.target is torch.ops.aten.lstm.input for node in graph.torch.graph.nodes)
    plain_lstm = torch.backends.mkldnn.flags(enabled=False) if recurrent else contextlib.nullcontext()
    with torch.no_grad(), plain_lstm, sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        graph.torch(*graph.example_inputs)
    return math.ceil(counter.get_total_flops() / 2)
