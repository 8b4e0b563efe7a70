"""PyTorch graphs as ONNX models, for every backend that starts from them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_sdk.backends._causes import first_cause
from edge_sdk.errors import ModelError

if TYPE_CHECKING:
    import onnx

    from edge_sdk.pipeline.values import Graph


def export(graph: Graph, opset: int, advice: str) -> onnx.ModelProto:
    """A PyTorch graph as an ONNX model whose inputs and outputs go by the part's names.

    Args:
        graph: The part.
        opset: ONNX's version of the operators.
        advice: What to try where the exporter refuses it.

    Raises:
        ModelError: PyTorch's exporter refuses it.
    """
    import contextlib
    import io
    import logging
    import warnings

    import torch

    assert graph.torch is not None
    noise = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = noise.level
    noise.setLevel(logging.ERROR)  # it warns once for every torchvision operator that it cannot translate
    try:
        with torch.no_grad(), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            exported = torch.export.export(
                graph.torch, graph.example_inputs, dynamic_shapes=graph.dynamic_shapes, strict=False
            )
            program = torch.onnx.export(
                exported,
                (),
                dynamo=True,
                opset_version=opset,
                input_names=[spec.name for spec in graph.inputs],
                output_names=[spec.name for spec in graph.outputs],
                external_data=False,
                verbose=False,
            )
    except Exception as error:
        raise ModelError(f"part '{graph.name}' cannot be exported to ONNX: {first_cause(error)}. {advice}") from error
    finally:
        noise.setLevel(level)
    assert program is not None
    return _without_source_paths(program.model_proto)


def _without_source_paths(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without the exporter's notes, which quote source lines and paths of this machine."""
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    del model.graph.metadata_props[:]
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer):
        del value.metadata_props[:]
    return model
