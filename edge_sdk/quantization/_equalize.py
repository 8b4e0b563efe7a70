"""Cross-layer equalisation: moves scale from channel to channel between layers, which changes no output.

A positive factor of a channel passes through ReLU, so that what one layer's channel is divided by
the next layer can make up for. Channels of like range share one scale better.

Source: Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction,
ICCV 2019, section 4.1.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch
from torch.fx import GraphModule, Node

from edge_sdk.pipeline.fx import arguments, constant, pads_zeros
from edge_sdk.quantization._annotate import layers

_aten = torch.ops.aten
_RELUS = {_aten.relu.default, _aten.relu_.default}
_SAME_CHANNELS = {
    _aten.dropout.default,
    _aten.max_pool2d.default,
    _aten.avg_pool2d.default,
    _aten.adaptive_avg_pool2d.default,
    _aten.pad.default,
    _aten.constant_pad_nd.default,
}
"""Operators that a positive factor of a channel passes through; of the paddings those with zeros."""
_MOST_ROUNDS = 50
_ENOUGH = 1e-3  # no factor of a round is further from 1
_MOST = 1e3  # nor is any factor larger than this, or smaller than its inverse: dead channels stay dead


@dataclass(frozen=True)
class Pair:
    """Two layers of which the first feeds nothing but the second."""

    first: Node
    second: Node


def equalize(module: GraphModule) -> int:
    """Equalises all pairs of a float graph in place, over and over until nothing moves.

    Args:
        module: A graph in float, batch normalisation folded. Its weights are written to.

    Returns:
        How many pairs there are.
    """
    pairs = find_pairs(module)
    for _ in range(_MOST_ROUNDS):
        if all([_equalize(module, pair) < _ENOUGH for pair in pairs]):
            break
    return len(pairs)


def find_pairs(module: GraphModule) -> list[Pair]:
    """Pairs of layers of one kind with nothing between them that a factor would not pass through.

    Left out are layers that share a weight or a bias with another, and outputs that go to several
    consumers, or out of the graph.
    """
    uses = Counter(
        str(node.target) for node in module.graph.nodes if node.op == "get_attr" for _ in range(len(node.users))
    )
    found = []
    for first in layers(module):
        second = _next_layer(first)
        if second is not None and _own(module, first, uses) and _own(module, second, uses):
            found.append(Pair(first, second))
    return found


def _next_layer(first: Node) -> Node | None:
    node = first
    while len(node.users) == 1:
        (user,) = node.users
        if user.target is first.target:
            return user if arguments(user)[0] is node else None
        passes = user.target in _RELUS or (user.target in _SAME_CHANNELS and _passes(first, user))
        if not passes:
            return None
        node = user
    return None


def _passes(first: Node, node: Node) -> bool:
    if node.target is _aten.dropout.default:
        return True
    padding = node.target in (_aten.pad.default, _aten.constant_pad_nd.default)
    # Padding of two numbers a spatial dimension leaves the channels where they are.
    return first.target is _aten.conv2d.default and (not padding or (pads_zeros(node) and len(arguments(node)[1]) <= 4))


def _own(module: GraphModule, layer: Node, uses: Counter[str]) -> bool:
    parameters = [node for node in layer.args[1:3] if node is not None]
    return not layer.kwargs and all(
        isinstance(node, Node) and uses[str(node.target)] == 1 and constant(module, node) is not None
        for node in parameters
    )


def _equalize(module: GraphModule, pair: Pair) -> float:
    """One step of a pair. Gives how far the factors are from 1, as the largest logarithm."""
    weight, bias = (constant(module, argument) for argument in (*pair.first.args[1:3], None)[:2])
    following = constant(module, pair.second.args[1])
    assert weight is not None and following is not None
    is_linear = pair.second.target is _aten.linear.default
    groups = 1 if is_linear else int((*arguments(pair.second), *[1] * 7)[6])
    by_group = (groups, following.shape[0] // groups, following.shape[1])
    first = weight.flatten(1).abs().amax(1)
    second = following.reshape(*by_group, -1).abs().amax((1, 3)).flatten()
    factors = (first / second).sqrt().clamp(1 / _MOST, _MOST)
    factors[(first == 0) | (second == 0)] = 1.0
    weight /= factors.view(-1, *[1] * (weight.dim() - 1))
    if bias is not None:
        bias /= factors
    spread = factors.view(groups, 1, -1).expand(by_group).reshape(following.shape[:2])
    following *= spread.view(*spread.shape, *[1] * (following.dim() - 2))
    return float(factors.log().abs().max())
