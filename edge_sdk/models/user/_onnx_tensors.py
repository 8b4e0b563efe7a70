"""What an ONNX file takes from the disk and at its inputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from edge_sdk.errors import ModelError, unknown_name

if TYPE_CHECKING:
    import numpy as np
    import onnx


def external_files(model: onnx.ModelProto, path: Path) -> list[Path]:
    """The files beside an ONNX file that hold its weights.

    Raises:
        ModelError: One is missing, or lies outside the ONNX file's folder.
    """
    folder = path.resolve().parent
    found = set()
    for tensor in (*_tensors(model.graph), *_of_nodes(node for function in model.functions for node in function.node)):
        for location in (entry.value for entry in tensor.external_data if entry.key == "location"):
            file = (folder / location).resolve()
            if not file.is_relative_to(folder) or file == path.resolve():
                raise ModelError(
                    f"{path} was refused: it takes its weights from '{location}', which is outside its folder. "
                    "Save it with its external data beside it."
                )
            if not file.is_file():
                raise ModelError(f"{path} keeps weights in '{location}', which is not there: copy it beside the file.")
            found.add(file)
    return sorted(found)


def example_inputs(model: onnx.ModelProto, path: Path) -> dict[str, np.ndarray]:
    """Random inputs, the same each time, by name; a first dimension that varies is 1.

    Raises:
        ModelError: Another dimension varies, or an input is of a type without numbers.
    """
    import numpy as np

    random = np.random.default_rng(0)
    return {value.name: _example(value, path, random) for value in _inputs(model)}


def with_shapes(model: onnx.ModelProto, shapes: Mapping[str, str]) -> onnx.ModelProto:
    """Gives inputs the shapes that settings name; sizes of other tensors are left to be inferred.

    Raises:
        ModelError: There is no such input, or the shape does not fit it.
    """
    inputs = {value.name: value for value in _inputs(model)}
    named: dict[str, int] = {}
    for name, text in shapes.items():
        if name not in inputs:
            raise ModelError(unknown_name("input", name, inputs))
        dims = inputs[name].type.tensor_type.shape.dim
        sizes = _sizes(name, text)
        if len(sizes) != len(dims) or any(d.dim_value not in (0, s) for d, s in zip(dims, sizes, strict=True)):
            raise ModelError(f"shape.{name} is '{text}', which does not fit the input's shape {_shown(dims)}.")
        named |= {dim.dim_param: size for dim, size in zip(dims, sizes, strict=True) if dim.dim_param}
        for dim, size in zip(dims, sizes, strict=True):
            dim.dim_value = size
    for value in (*_inputs(model), *model.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in named:  # one name is one size everywhere
                dim.dim_value = named[dim.dim_param]
    for value in model.graph.output:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.Clear()
    del model.graph.value_info[:]
    return model


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Every constant of a graph and of the graphs within."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _of_nodes(graph.node)


def _of_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors(inner)


def _inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """The inputs that are no constants (old files list those too)."""
    constants = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in constants]


def _example(value: onnx.ValueInfoProto, path: Path, random: np.random.Generator) -> np.ndarray:
    import numpy as np
    import onnx

    kind = value.type.tensor_type
    if kind.elem_type in (onnx.TensorProto.UNDEFINED, onnx.TensorProto.STRING):
        raise ModelError(f"{path}: input '{value.name}' is no tensor of numbers.")
    dims = kind.shape.dim
    sizes = [dim.dim_value or (1 if index == 0 else 0) for index, dim in enumerate(dims)]
    if 0 in sizes:
        fixed = ",".join(str(dim.dim_value or 1) for dim in dims)
        raise ModelError(
            f"{path}: input '{value.name}' has the shape {_shown(dims)}; sizes that vary must be fixed: "
            f"--set shape.{value.name}={fixed}, with your own sizes."
        )
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
    if np.issubdtype(dtype, np.floating):
        return random.standard_normal(sizes).astype(dtype)
    return random.integers(0, 2, sizes).astype(dtype)


def _sizes(name: str, text: str) -> list[int]:
    try:
        sizes = [int(size) for size in text.split(",")]
    except ValueError:
        sizes = []
    if not sizes or min(sizes) < 1:
        raise ModelError(f"shape.{name} is '{text}'; expected whole numbers with commas, such as 1,3,224,224.")
    return sizes


def _shown(dims) -> str:
    return f"[{', '.join(str(dim.dim_value or dim.dim_param or '?') for dim in dims)}]"
