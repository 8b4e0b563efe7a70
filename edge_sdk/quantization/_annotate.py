"""Which tensors of a graph become INT8: one set of rules for the runtimes that compute in integers throughout.

The rules follow what XNNPACK and ONNX Runtime both compute in integers: convolution and linear
layers with the activation function behind them, addition, multiplication, pooling to one pixel and
concatenation; and operators that only move values, which share the scale of what they move.
Among those are embeddings, which pick rows of a table.
TensorRT fuses otherwise, and so has rules of its own (`Int8Rules.only_inputs`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import torch
from torch.fx import GraphModule, Node
from torchao.quantization.pt2e.quantizer import (
    QuantizationAnnotation,
    QuantizationSpec,
    Quantizer,
    SharedQuantizationSpec,
)

from edge_sdk.pipeline.fx import arguments, pads_zeros
from edge_sdk.pipeline.values import KEEP_FLOAT
from edge_sdk.quantization.base import AFFINE, Int8Rules

_aten = torch.ops.aten
LAYERS = {
    _aten.conv1d.default,
    _aten.conv2d.default,
    _aten.linear.default,
}
UNQUANTIZED_LAYERS = {
    _aten.conv1d.padding,
    _aten.conv2d.padding,
    _aten.conv3d.default,
    _aten.conv3d.padding,
    _aten.conv_transpose1d.default,
    _aten.conv_transpose2d.input,
    _aten.conv_transpose3d.input,
    _aten.matmul.default,
    _aten.bmm.default,
    _aten.baddbmm.default,
    _aten.mm.default,
    _aten.addmm.default,
    _aten.mv.default,
    _aten.einsum.default,
    _aten.bilinear.default,
    _aten.scaled_dot_product_attention.default,
    _aten.lstm.input,
    _aten.gru.input,
    _aten.rnn_tanh.input,
    _aten.rnn_relu.input,
    _aten.lstm_cell.default,
    _aten.gru_cell.default,
    _aten.rnn_tanh_cell.default,
    _aten.rnn_relu_cell.default,
    _aten.embedding.default,
}
"""Operators with multiply-accumulates or large weights that no rule covers: they stay in float and are listed."""
_BATCHED_DIMS: dict[object, int] = {_aten.conv1d.default: 3, _aten.conv2d.default: 4}
_RECURRENT = {_aten.lstm.input, _aten.gru.input, _aten.rnn_tanh.input, _aten.rnn_relu.input}
_CELLS = {
    _aten.lstm_cell.default,
    _aten.gru_cell.default,
    _aten.rnn_tanh_cell.default,
    _aten.rnn_relu_cell.default,
}
CLAMPS = {
    _aten.relu.default,
    _aten.relu_.default,
    _aten.relu6.default,
    _aten.relu6_.default,
    _aten.hardtanh.default,
    _aten.hardtanh_.default,
    _aten.clamp.default,
    _aten.clamp_.default,
    _aten.clamp_min.default,
}
"""Activation functions that only cut the range off."""
_ADDITIONS = {_aten.add.Tensor, _aten.add_.Tensor}
_ARITHMETIC = _ADDITIONS | {_aten.mul.Tensor, _aten.mul_.Tensor}
_POOLS = {_aten.adaptive_avg_pool2d.default}
_MOVES = {
    _aten.pad.default,
    _aten.constant_pad_nd.default,
    _aten.max_pool2d.default,
    _aten.view.default,
    _aten.reshape.default,
    _aten.flatten.using_ints,
    _aten.permute.default,
    _aten.transpose.int,
    _aten.unsqueeze.default,
    _aten.squeeze.dim,
    _aten.dropout.default,
}
_KEY = "quantization_annotation"


def layer_name(node: Node) -> str:
    """The module path of a layer, such as ``blocks.3.project``; the node's name where it has no weight."""
    weight = _weight(node)
    while isinstance(weight, Node) and weight.op != "get_attr" and weight.args:
        weight = weight.args[0]
    if isinstance(weight, Node) and weight.op == "get_attr":
        owner = str(weight.target).partition(".parametrizations.")[0]
        return re.sub(r"(_folded)?\.weight(_\w+)?$", "", owner)
    return node.name


def _weight(node: Node) -> object:
    if node.target is _aten.embedding.default:
        return node.args[0]
    if node.target in _RECURRENT:
        return node.args[2][0]  # type: ignore[index]
    return node.args[2 if node.target in _CELLS else 1] if len(node.args) > 1 else None


def why_not(layer: Node) -> str | None:
    """Why a convolution or linear layer cannot be quantized statically, None where it can."""
    if not has_fixed_weight(layer):
        return "its weight depends on the input, so it has no fixed scale"
    if layer.meta["val"].dim() < _BATCHED_DIMS.get(layer.target, 0):
        return "its input has no batch dimension"
    return None


def has_fixed_weight(layer: Node) -> bool:
    """Whether a layer's weight is the same for every input: a parameter, or made of parameters only."""
    pending, seen = [layer.args[1]], set()
    while pending:
        node = pending.pop()
        if not isinstance(node, Node) or node in seen:
            continue
        if node.op == "placeholder":
            return False
        seen.add(node)
        pending += node.all_input_nodes
    return True


def layers(graph: GraphModule, kinds: set = LAYERS) -> Iterator[Node]:
    """The convolution and linear nodes, in order; no products that a rewrite wrote a mean as."""
    return (
        node
        for node in graph.graph.nodes
        if node.op == "call_function"
        and node.target in kinds
        and not (node.target is _aten.mm.default and KEEP_FLOAT in node.meta)
    )


class Int8Annotator(Quantizer):
    """Marks what becomes INT8.

    Args:
        activation: Makes the observer of an activation.
        weight: Makes the observer of a weight.
        skip: Names of layers to leave in float.
        per_channel: Whether a weight has a scale for each output channel, or a single one.
        float_outputs: Whether what a linear layer gives to the model's output stays in float.
        rules: What the runtime takes.
        embeddings: Whether the tables of embeddings become INT8, too.
    """

    def __init__(
        self,
        activation: Any,
        weight: Any,
        skip: frozenset[str] = frozenset(),
        *,
        per_channel: bool = True,
        float_outputs: bool = False,
        rules: Int8Rules = AFFINE,
        embeddings: bool = False,
    ) -> None:
        super().__init__()
        self._activation = QuantizationSpec(
            dtype=torch.int8,
            quant_min=-128,
            quant_max=127,
            qscheme=torch.per_tensor_symmetric if rules.symmetric else torch.per_tensor_affine,
            is_dynamic=False,
            observer_or_fake_quant_ctr=activation,
        )
        self._weight = QuantizationSpec(
            dtype=torch.int8,
            quant_min=-127,
            quant_max=127,
            qscheme=torch.per_channel_symmetric if per_channel else torch.per_tensor_symmetric,
            ch_axis=0 if per_channel else None,
            is_dynamic=False,
            observer_or_fake_quant_ctr=weight,
        )
        self._skip = skip
        self._float_outputs = float_outputs
        self._rules = rules
        self._embeddings = embeddings and not rules.only_inputs

    def annotate(self, model: GraphModule) -> GraphModule:
        """Sets the annotation of every node that a rule covers."""
        for node in model.graph.nodes:
            if node.op != "call_function" or not _is_float(node):
                continue
            if node.target in LAYERS:
                if layer_name(node) not in self._skip and why_not(node) is None:
                    self._annotate_compute(node, {node.args[0]: self._activation, node.args[1]: self._weight})
            elif self._rules.only_inputs:
                if node.target in _ADDITIONS:
                    self._annotate_other_side(node)
            elif node.target in _ARITHMETIC:
                if all(isinstance(arg, Node) and _is_float(arg) for arg in node.args[:2]):
                    self._annotate_compute(node, {arg: self._activation for arg in node.args[:2]})
            elif node.target in _POOLS and _to_one_pixel(node):
                self._annotate_compute(node, {node.args[0]: self._activation})
            elif node.target is _aten.cat.default:
                self._annotate_cat(node)
            elif node.target in _MOVES and _moves_only(node):
                self._annotate_move(node)
            elif node.target is _aten.embedding.default and self._embeddings:
                self._annotate_embedding(node)
        return model

    def validate(self, model: GraphModule) -> None:
        """Nothing to check: the rules only mark what they cover."""

    def _annotate_compute(self, node: Node, inputs: dict) -> None:
        if self._rules.only_inputs:
            node.meta[_KEY] = QuantizationAnnotation(input_qspec_map=inputs, _annotated=True)
            return
        last = node
        if len(node.users) == 1 and next(iter(node.users)).target in CLAMPS:
            last = next(iter(node.users))
            last.meta[_KEY] = QuantizationAnnotation(output_qspec=self._activation, _annotated=True)
        is_rounded = last is node and not (self._float_outputs and _is_output(node))
        node.meta[_KEY] = QuantizationAnnotation(
            input_qspec_map=inputs, output_qspec=self._activation if is_rounded else None, _annotated=True
        )

    def _annotate_other_side(self, node: Node) -> None:
        """The side of an addition that its layer does not give, such as the residual branch's.

        Source: NVIDIA TensorRT documentation, "Q/DQ Layer-Placement Recommendations".
        """
        sides = [arg for arg in node.args[:2] if isinstance(arg, Node) and _is_float(arg)]
        if len(sides) != 2 or sides[0] is sides[1] or sides[0].meta["val"].shape != sides[1].meta["val"].shape:
            return
        ours = next(
            (side for side in sides if side.target in LAYERS and _KEY in side.meta and len(side.users) == 1), None
        )
        if ours is not None:
            (other,) = (side for side in sides if side is not ours)
            node.meta[_KEY] = QuantizationAnnotation(input_qspec_map={other: self._activation}, _annotated=True)

    def _annotate_cat(self, node: Node) -> None:
        sources = list(arguments(node)[0])
        if not all(_output_spec(source) for source in sources):
            return
        shared = SharedQuantizationSpec((sources[0], node))
        inputs: dict[Node, Any] = {source: shared for source in sources[1:]} | {sources[0]: self._activation}
        node.meta[_KEY] = QuantizationAnnotation(input_qspec_map=inputs, output_qspec=shared, _annotated=True)

    def _annotate_embedding(self, node: Node) -> None:
        """One scale for the whole table: its rows are quantized with one scale where they are read, anyway."""
        table = node.args[0]
        if isinstance(table, Node) and table.op == "get_attr" and len(table.users) == 1:
            self._share(node, table)

    def _annotate_move(self, node: Node) -> None:
        source = node.args[0]
        if isinstance(source, Node) and _output_spec(source):
            self._share(node, source)

    def _share(self, node: Node, source: Node) -> None:
        """Gives a node the scale of what it moves."""
        node.meta[_KEY] = QuantizationAnnotation(
            input_qspec_map={source: self._activation},
            output_qspec=SharedQuantizationSpec((source, node)),
            _annotated=True,
        )


def is_integer_embedding(node: Node) -> bool:
    """Whether a node of a prepared graph is an embedding whose table has an observer."""
    return node.target is _aten.embedding.default and arguments(node)[0].op == "call_module"


def _is_float(node: Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.dtype == torch.float32 and KEEP_FLOAT not in node.meta


def _is_output(node: Node) -> bool:
    """Whether a linear layer's result is the model's, and nothing else's."""
    return node.target is _aten.linear.default and all(user.op == "output" for user in node.users)


def _output_spec(node: Node) -> bool:
    annotation = node.meta.get(_KEY)
    return annotation is not None and annotation.output_qspec is not None


def _to_one_pixel(node: Node) -> bool:
    size = node.args[1]
    return list(size if isinstance(size, (list, tuple)) else [size]) in ([1], [1, 1])


def _moves_only(node: Node) -> bool:
    """Padding brings in new values: only zeros keep the scale, and only where zero is exact (it is)."""
    return node.target not in (_aten.pad.default, _aten.constant_pad_nd.default) or pads_zeros(node)
