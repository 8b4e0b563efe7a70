"""The steps of static INT8 on a PyTorch graph: prepare, calibrate, correct, simulate, convert."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch.fx import GraphModule, Interpreter, Node
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

from edge_sdk.models.base import Sample
from edge_sdk.pipeline.fx import arguments, calls, constant
from edge_sdk.pipeline.values import Graph
from edge_sdk.quantization._annotate import CLAMPS, LAYERS, Int8Annotator, layers
from edge_sdk.quantization._equalize import equalize
from edge_sdk.quantization._observer import Calibrator, Method, Mode, PerChannelCalibrator
from edge_sdk.quantization.base import AFFINE, Int8Rules

_Q = torch.ops.quantized_decomposed


def prepare(
    graph: Graph,
    method: str,
    skip: frozenset[str] = frozenset(),
    *,
    percentile: float = 99.99,
    equalized: bool = False,
    float_outputs: bool = False,
    rules: Int8Rules = AFFINE,
) -> GraphModule:
    """A copy of the graph with observers in it.

    Args:
        graph: A PyTorch graph in float.
        method: `Calibrator`'s, for the activations.
        skip: Names of layers to leave in float.
        percentile: `Calibrator`'s.
        equalized: Whether to equalise the copy across layers first.
        float_outputs: Whether what a linear layer gives to the model's output stays in float.
        rules: What the runtime takes.
    """
    module = copy.deepcopy(graph.torch)
    assert module is not None
    if equalized:
        equalize(module)
    give_every_layer_a_bias(module)
    activation = Calibrator.with_args(method=method, percentile=percentile, half=rules.half_scales)
    weight = PerChannelCalibrator.with_args(half=rules.half_scales)
    annotator = Int8Annotator(activation, weight, skip, float_outputs=float_outputs, rules=rules, embeddings=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchao warns of its own deprecated calls
        return prepare_pt2e(module, annotator)


def inputs_of(graph: Graph, samples: Iterable[Sample]) -> list[tuple[torch.Tensor, ...]]:
    """The samples' tensors for one part, in positional order."""
    return [
        tuple(torch.from_numpy(sample[graph.name][spec.name]) for spec in graph.inputs)
        for sample in samples
        if graph.name in sample
    ]


def set_mode(prepared: GraphModule, mode: Mode, only: Iterable[Node] | None = None) -> None:
    """Sets all observers, or those around the given layers, to a mode."""
    if only is None:
        for module in prepared.modules():
            if isinstance(module, Calibrator):
                module.mode = mode
        return
    for layer in only:
        for observer in _observers_of(prepared, layer):
            observer.mode = mode


def set_method(prepared: GraphModule, method: Method) -> None:
    """Chooses all activations' ranges anew, from what their observers have seen."""
    for module in prepared.modules():
        if isinstance(module, Calibrator) and not isinstance(module, PerChannelCalibrator):
            module.choose(method)


def _observers_of(prepared: GraphModule, layer: Node) -> Iterable[Calibrator]:
    """Observers of a layer's input, its weight, and its output behind the activation function."""
    last = layer
    users = list(layer.users)
    if len(users) == 1 and users[0].target in CLAMPS:
        last = users[0]
    for node in (*layer.args[:2], *last.users):
        if isinstance(node, Node) and node.op == "call_module":
            module = prepared.get_submodule(str(node.target))
            if isinstance(module, Calibrator):
                yield module


ChannelMeans = dict[Node, torch.Tensor]
"""Layer to its mean output per channel: ``[channels]``."""


def calibrate(prepared: GraphModule, inputs: Sequence[tuple[torch.Tensor, ...]]) -> ChannelMeans:
    """Runs the inputs through the observers, and notes each layer's mean output in full precision."""
    set_mode(prepared, "observe")
    run = _LayerMeans(prepared, garbage_collect_values=True)
    with torch.no_grad():
        for sample in inputs:
            run.run(*sample)
    return {layer: total / len(inputs) for layer, total in run.totals.items()}


class _LayerMeans(Interpreter):
    """Runs a graph and sums up each layer's mean output per channel."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.totals: ChannelMeans = {}

    def run_node(self, n: Node) -> Any:
        result = super().run_node(n)
        if n.op == "call_function" and n.target in LAYERS:
            self.totals[n] = self.totals.get(n, 0.0) + _channel_mean(n, [result])
        return result


def correct_bias(prepared: GraphModule, means: ChannelMeans, inputs: Sequence[tuple[torch.Tensor, ...]]) -> None:
    """Shifts each layer's bias so that its mean output per channel is that of full precision.

    Layer after layer, each seeing what the corrected layers before it give. Depthwise layers need
    it: their few weights a channel do not average their rounding errors out.

    Args:
        prepared: A calibrated graph.
        means: What `calibrate` gave for the same inputs.
        inputs: The calibration inputs.

    Source: Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction,
    ICCV 2019, section 4.2, with measured instead of assumed input statistics.
    """

    def shift(layer: Node, outputs: list[torch.Tensor]) -> None:
        bias = _bias(prepared, layer)
        if bias is None:
            return
        delta = means[layer] - _channel_mean(layer, outputs)
        bias.data += delta
        shape = _channel_shape(layer, outputs[0])
        for output in outputs:
            output += delta.view(shape)

    set_mode(prepared, "quantize")
    run_in_step(prepared, inputs, after_layer=shift)


def simulate(prepared: Callable, inputs: Sequence[tuple[torch.Tensor, ...]]) -> list:
    """The prepared graph's results in the modes that its observers are in."""
    with torch.no_grad():
        return [prepared(*sample) for sample in inputs]


def convert(prepared: GraphModule) -> GraphModule:
    """The graph with quantize and dequantize operators, integer weights and no needless clamps."""
    set_mode(prepared, "observe")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        converted = convert_pt2e(prepared)
    _drop_saturating_clamps(converted)
    _pick_integers(converted)
    return converted


def run_in_step(
    module: GraphModule,
    inputs: Sequence[tuple[torch.Tensor, ...]],
    before_layer: Callable[[Node, list[torch.Tensor]], torch.Tensor | None] | None = None,
    after_layer: Callable[[Node, list[torch.Tensor]], None] | None = None,
) -> None:
    """Runs all inputs node by node together.

    Args:
        module: The graph.
        inputs: Its inputs, sample by sample.
        before_layer: Shown the inputs of each layer before it runs; it may give another weight to run with.
        after_layer: Shown the outputs of each layer as soon as all are there; it may change them.
    """
    runs = [Interpreter(module, garbage_collect_values=True) for _ in inputs]
    for run, sample in zip(runs, inputs, strict=True):
        run.args_iter = iter(sample)
    with torch.no_grad():
        for node in module.graph.nodes:
            is_layer = node.op == "call_function" and node.target in LAYERS
            weight = before_layer(node, [run.env[node.args[0]] for run in runs]) if is_layer and before_layer else None
            fixed = runs[0].run_node(node) if _is_fixed(node) else None
            for run in runs:
                if weight is not None:
                    run.env[node.args[1]] = weight
                run.env[node] = run.run_node(node) if fixed is None else fixed
                for done in run.user_to_last_uses.get(node, []):
                    run.env.pop(done, None)
            if is_layer and after_layer:
                after_layer(node, [run.env[node] for run in runs])


def _is_fixed(node: Node) -> bool:
    """Whether a node is a parameter or a quantized one, which is the same in every run."""
    return node.op == "get_attr" or (node.op == "call_module" and arguments(node)[0].op == "get_attr")


def _channel_mean(layer: Node, outputs: Sequence[torch.Tensor]) -> torch.Tensor:
    axis = channel_axis(layer, outputs[0])
    return torch.stack([output.movedim(axis, 0).reshape(output.shape[axis], -1).mean(1) for output in outputs]).mean(0)


def channel_axis(layer: Node, output: torch.Tensor) -> int:
    """The last of a linear layer; the one before the spatial dimensions of a convolution, with or without a batch."""
    spatial = {torch.ops.aten.conv1d.default: 1, torch.ops.aten.conv2d.default: 2}
    return output.dim() - 1 - spatial.get(layer.target, 0)  # type: ignore[arg-type]


def _channel_shape(layer: Node, output: torch.Tensor) -> list[int]:
    shape = [1] * output.dim()
    shape[channel_axis(layer, output)] = -1
    return shape


def _bias(module: GraphModule, layer: Node) -> torch.Tensor | None:
    """The layer's own bias, None where it shares one."""
    node = layer.args[2] if len(layer.args) > 2 else None
    return constant(module, node) if isinstance(node, Node) and len(node.users) == 1 else None


def give_every_layer_a_bias(module: GraphModule) -> None:
    """Adds a zero bias where a layer has none, so that there is something to correct."""
    for index, node in enumerate(list(layers(module))):
        if len(node.args) > 2 and node.args[2] is not None:
            continue
        weight = arguments(node)[1]
        if not isinstance(weight, Node) or not isinstance(weight.meta.get("val"), torch.Tensor):
            continue
        name = f"_added_bias_{index}"
        bias = torch.nn.Parameter(torch.zeros(weight.meta["val"].shape[0]), requires_grad=False)
        module.register_parameter(name, bias)
        with module.graph.inserting_before(node):
            attribute = module.graph.get_attr(name)
        attribute.meta["val"] = bias
        node.args = (*node.args[:2], attribute, *node.args[3:])
    module.recompile()


def _pick_integers(module: GraphModule) -> None:
    """Picks an embedding's rows out of the integers, so that the table itself need not be made float."""
    for node in calls(module, {torch.ops.aten.embedding.default}):
        table = arguments(node)[0]
        if table.target is not _Q.dequantize_per_tensor.default:
            continue
        integers = table.args[0]
        (quantize,) = node.users
        node.update_arg(0, integers)
        for dequantize in list(quantize.users):
            dequantize.update_arg(0, node)
        module.graph.erase_node(quantize)
        module.graph.erase_node(table)
    module.recompile()


def _drop_saturating_clamps(module: GraphModule) -> None:
    """Removes clamps whose effect the quantizer behind them has by itself, by saturating.

    Those that stay are written in the one form that XNNPACK computes in integers.
    """
    for node in list(module.graph.nodes):
        if node.op != "call_function" or node.target not in CLAMPS:
            continue
        low, high = _clamp_range(node)
        if all(_saturates(user, low, high) for user in node.users):
            node.replace_all_uses_with(node.args[0])
            module.graph.erase_node(node)
        elif (low, high) != (0.0, math.inf):
            largest = torch.finfo(torch.float32).max
            node.target = torch.ops.aten.hardtanh.default
            node.args, node.kwargs = (node.args[0], max(low, -largest), min(high, largest)), {}
    module.recompile()


def _clamp_range(node: Node) -> tuple[float, float]:
    name = node.target.name()  # type: ignore[union-attr]
    if name.startswith("aten::relu6"):
        return 0.0, 6.0
    if name.startswith("aten::relu"):
        return 0.0, math.inf
    defaults = (-1.0, 1.0) if name.startswith("aten::hardtanh") else (None, None)
    low, high = (*node.args[1:3], *defaults[len(node.args) - 1 :])[:2]
    low, high = node.kwargs.get("min", low), node.kwargs.get("max", high)
    return float(-math.inf if low is None else low), float(math.inf if high is None else high)  # type: ignore[arg-type]


def _saturates(node: Node, low: float, high: float) -> bool:
    """Whether a quantizer represents nothing outside ``low`` to ``high``."""
    if node.target is not _Q.quantize_per_tensor.default:
        return False
    scale, zero, smallest, largest = (float(value) for value in node.args[1:5])  # type: ignore[arg-type]
    below = low == -math.inf or round(low / scale) + zero <= smallest
    return below and (high == math.inf or round(high / scale) + zero >= largest)
