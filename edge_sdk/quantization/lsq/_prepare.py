"""Puts quantizers with learned steps into a graph, and finds them again by names that outlive it."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.fx import GraphModule, Node
from torchao.quantization.pt2e.quantize_pt2e import prepare_pt2e

from edge_sdk.errors import UnsupportedError
from edge_sdk.quantization._annotate import Int8Annotator, layer_name, layers, why_not
from edge_sdk.quantization._static import give_every_layer_a_bias
from edge_sdk.quantization.lsq._fake_quantize import ActivationStep, LearnedStep, WeightStep
from edge_sdk.quantization.lsq._recipe import Recipe


@dataclass(frozen=True)
class Prepared:
    """A graph with quantizers, and what training changes in it.

    Attributes:
        graph: The graph.
        weights: Layer to its weight in full precision.
        biases: Layer to its bias.
        weight_steps: Layer to its weight's quantizer.
        activation_steps: Name of a tensor's node to its quantizer.
    """

    graph: GraphModule
    weights: dict[str, nn.Parameter]
    biases: dict[str, nn.Parameter]
    weight_steps: dict[str, WeightStep]
    activation_steps: dict[str, ActivationStep]

    def steps(self) -> Iterator[LearnedStep]:
        """All quantizers."""
        yield from self.weight_steps.values()
        yield from self.activation_steps.values()

    def widen_weights(self) -> None:
        """Puts weights of fewer bits on their own grid and calls it one of 8 bits, which runtimes take everywhere."""
        for name, step in self.weight_steps.items():
            with torch.no_grad():
                self.weights[name].copy_(step(self.weights[name]))
            step.bits = 8


def prepare(graph: GraphModule, recipe: Recipe) -> Prepared:
    """A copy of a graph whose batch norms are folded, with quantizers at every place that becomes INT8.

    Raises:
        UnsupportedError: It has no layer to quantize.
    """
    module = copy.deepcopy(graph)
    give_every_layer_a_bias(module)
    found = [layer for layer in layers(module) if why_not(layer) is None]
    if not found:
        raise UnsupportedError("LSQ quantizes convolution and linear layers, and the model has none with fixed weights")
    edges = {layer_name(found[0]), layer_name(found[-1])}
    annotator = Int8Annotator(
        ActivationStep.with_args(start=recipe.start),
        WeightStep.with_args(start=recipe.start),
        skip=frozenset(edges if recipe.edges == "fp32" else ()),
        per_channel=recipe.per_channel,
        float_outputs=recipe.outputs == "float",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchao warns of its own deprecated calls
        prepared = prepare_pt2e(module, annotator)
    return _described(prepared, recipe, edges)


def _described(module: GraphModule, recipe: Recipe, edges: set[str]) -> Prepared:
    weights, biases, weight_steps, activation_steps = {}, {}, {}, {}
    eight_bits = edges if recipe.edges == "8bit" else set()
    for layer in list(layers(module)):
        name = layer_name(layer)
        weights[name] = _parameter(module, layer, 1)
        biases[name] = _parameter(module, layer, 2)
        step = _quantizer(module, layer.args[1])
        if not isinstance(step, WeightStep):
            continue  # left in FP32
        step.bits = 8 if name in eight_bits else recipe.weight_bits
        weight_steps[name] = step
        before = _quantizer(module, layer.args[0])
        if isinstance(before, ActivationStep) and name not in eight_bits:
            before.bits = recipe.activation_bits
    for node in module.graph.nodes:
        step = _quantizer(module, node)
        # Tensors that share a scale share a quantizer, which goes by the first of them.
        if isinstance(step, ActivationStep) and step not in activation_steps.values():
            activation_steps[node.args[0].name] = step
    module.recompile()
    return Prepared(module, weights, biases, weight_steps, activation_steps)


def _quantizer(module: GraphModule, node: object) -> LearnedStep | None:
    if not isinstance(node, Node) or node.op != "call_module":
        return None
    found = module.get_submodule(str(node.target))
    return found if isinstance(found, LearnedStep) else None


def _parameter(module: GraphModule, layer: Node, place: int) -> nn.Parameter:
    """A layer's weight or bias as a parameter that training changes."""
    node = layer.args[place]
    while isinstance(node, Node) and node.op == "call_module":
        node = node.args[0]
    assert isinstance(node, Node) and node.op == "get_attr", "a layer has a weight and a bias of its own"
    path, _, name = str(node.target).rpartition(".")
    owner = module.get_submodule(path) if path else module
    value = getattr(owner, name)
    parameter = nn.Parameter(torch.empty_like(value).copy_(value.detach()))
    if name in owner._buffers:
        del owner._buffers[name]
    elif name in owner._parameters:
        del owner._parameters[name]
    else:
        delattr(owner, name)
    owner.register_parameter(name, parameter)
    return parameter
