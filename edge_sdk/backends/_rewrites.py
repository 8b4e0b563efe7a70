"""Graph rewrites on PyTorch graphs: into what delegates take whole. Each is checked numerically.

A rewrite is a function that edits a graph module in place and returns how often it applied.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch.fx import GraphModule, Node

from edge_sdk.errors import ModelError
from edge_sdk.pipeline.capture import flat_outputs
from edge_sdk.pipeline.fx import arguments, calls, constant, pads_zeros
from edge_sdk.pipeline.values import Captured, Graph
from edge_sdk.schema.manifest import Rewrite

_aten = torch.ops.aten
_TOLERANCE = 1e-3

RewriteFunction = Callable[[GraphModule], int]


def apply_rewrites(captured: Captured, table: Mapping[str, RewriteFunction], enabled: frozenset[str]) -> Captured:
    """Applies the enabled rewrites of a table in its order.

    Args:
        captured: PyTorch graphs; they are not touched.
        table: Name to function, in the order to apply them.
        enabled: Names to apply.

    Raises:
        ModelError: A rewrite moved an output by more than 0.1 % of the largest output.
    """
    graphs, done = [], list(captured.rewrites)
    counts: dict[str, list[tuple[int, float]]] = {name: [] for name in table if name in enabled}
    for graph in captured.graphs:
        module = copy.deepcopy(graph.torch)
        assert module is not None
        before = _run(module, graph)
        for name, results in counts.items():
            if not (count := table[name](module)):
                continue
            module.graph.eliminate_dead_code()
            module.delete_all_unused_submodules()
            module.recompile()
            after = _run(module, graph)
            results.append((count, _check(name, graph.name, before, after)))
            before = after
        graphs.append(replace(graph, torch=module))
    for name, results in counts.items():
        if results:
            total, worst = sum(count for count, _ in results), max(error for _, error in results)
            done.append(Rewrite(name=name, count=total, max_abs_err=worst))
    return replace(captured, graphs=tuple(graphs), rewrites=tuple(done))


def _run(module: GraphModule, graph: Graph) -> list[torch.Tensor]:
    with torch.no_grad():
        return flat_outputs(module(*graph.example_inputs))


def _check(name: str, part: str, before: list[torch.Tensor], after: list[torch.Tensor]) -> float:
    worst = 0.0
    for old, new in zip(before, after, strict=True):
        error = float((old.double() - new.double()).abs().max()) if old.numel() else 0.0
        if not error <= _TOLERANCE * max(float(old.double().abs().max()) if old.numel() else 0.0, 1e-6):
            raise ModelError(
                f"the graph rewrite '{name}' moved an output of part '{part}' by {error:.3g}; compile with "
                "--no-rewrites and report the model."
            )
        worst = max(worst, error)
    return worst


def drop_identities(module: GraphModule) -> int:
    """Removes operators that do nothing at inference: dropout, contiguous copies, detach."""
    nothing = {
        _aten.dropout.default,
        _aten.feature_dropout.default,
        _aten.contiguous.default,
        _aten.detach.default,
        _aten.alias.default,
    }
    count = 0
    for node in calls(module, nothing):
        if node.target in (_aten.dropout.default, _aten.feature_dropout.default) and arguments(node)[2]:
            continue  # left on at inference by the model's own wish
        node.replace_all_uses_with(arguments(node)[0])
        module.graph.erase_node(node)
        count += 1
    return count


def padding_in_numbers(module: GraphModule) -> int:
    """Writes the padding of a convolution in numbers where it is given as ``same`` or ``valid``."""
    count = 0
    for node in calls(module, set(_PADDING_IN_WORDS)):
        sizes = arguments(node)[1].meta["val"].shape[2:]
        defaults = [None, [1], "valid", [1], 1]
        source, weight, bias, stride, padding, dilation, groups = [*arguments(node), *defaults[len(node.args) - 2 :]]
        stride, dilation = (list(value) * (len(sizes) // len(value)) for value in (stride, dilation))
        total = [0 if padding == "valid" else d * (size - 1) for d, size in zip(dilation, sizes, strict=True)]
        half = [size // 2 for size in total]
        if any(size % 2 for size in total):
            # One more on the far side, which a convolution's own padding cannot be.
            sides = [amount for size in reversed(total) for amount in (size // 2, size - size // 2)]
            before = source.meta["val"]
            wider = [size + more for size, more in zip(before.shape[-len(total) :], total, strict=True)]
            with module.graph.inserting_before(node):
                source = module.graph.call_function(_aten.pad.default, (source, sides))
            source.meta = {**node.meta, "val": before.new_empty((*before.shape[: -len(total)], *wider))}
            half = [0] * len(total)
        node.target = _PADDING_IN_WORDS[node.target]  # type: ignore[index]
        node.args = (source, weight, bias, stride, half, dilation, groups)
        count += 1
    return count


def fold_batch_norm(module: GraphModule) -> int:
    """Folds batch normalisation in evaluation mode into the convolution before it."""
    count = 0
    for node in calls(module, {_aten.batch_norm.default}):
        conv, *normalisation = arguments(node)
        if not isinstance(conv, Node) or conv.target not in _CONVOLUTIONS or len(conv.users) != 1 or normalisation[4]:
            continue
        source, weight_node, bias_node, *rest = [*arguments(conv), None][: max(3, len(conv.args))]
        constants: list[Any] = [constant(module, argument) for argument in (weight_node, *normalisation[:4])]
        bias = constant(module, bias_node)
        if any(value is None for value in constants) or (bias_node is not None and bias is None):
            continue
        if len(weight_node.users) != 1:
            continue
        weight, gamma, beta, mean, variance = constants
        scale = gamma / torch.sqrt(variance + normalisation[6])
        new_weight = weight * scale.reshape(-1, *[1] * (weight.dim() - 1))
        new_bias = beta + ((bias if bias is not None else 0.0) - mean) * scale
        path = str(weight_node.target).removesuffix(".weight") + "_folded"
        with module.graph.inserting_before(conv):
            folded = [
                _add_constant(module, path, name, value, weight_node)
                for name, value in (("weight", new_weight), ("bias", new_bias))
            ]
        conv.args = (source, *folded, *rest)
        node.replace_all_uses_with(conv)
        module.graph.erase_node(node)
        count += 1
    return count


def mean_to_average_pool(module: GraphModule) -> int:
    """Turns a mean over height and width into an average pool to one pixel."""
    count = 0
    for node in calls(module, {_aten.mean.dim}):
        source, dims, *keep = arguments(node)
        value = source.meta.get("val") if isinstance(source, Node) else None
        if value is None or value.dim() != 4 or node.kwargs.get("dtype") is not None:
            continue
        if sorted(dim % 4 for dim in dims) != [2, 3]:
            continue
        with module.graph.inserting_before(node):
            pool = module.graph.call_function(_aten.adaptive_avg_pool2d.default, (source, [1, 1]))
            pool.meta = {**node.meta, "val": value.new_empty((*value.shape[:2], 1, 1))}
            result = pool
            if not (keep and keep[0]):
                result = module.graph.call_function(_aten.flatten.using_ints, (pool, 1))
                result.meta = dict(node.meta)
        node.replace_all_uses_with(result)
        module.graph.erase_node(node)
        count += 1
    return count


def fold_symmetric_padding(module: GraphModule) -> int:
    """Moves zero padding, equal on both sides, into the convolution behind it."""
    count = 0
    for node in calls(module, {_aten.pad.default, _aten.constant_pad_nd.default}):
        pads = list(arguments(node)[1])
        users = list(node.users)
        if len(pads) != 4 or pads[0] != pads[1] or pads[2] != pads[3] or min(pads) < 0 or not pads_zeros(node):
            continue
        if not users or any(user.target is not _aten.conv2d.default or user.args[0] is not node for user in users):
            continue
        for user in users:
            found = [*arguments(user), *[None, [1, 1], [0, 0], [1, 1], 1][len(user.args) - 2 :]]
            found[4] = [found[4][0] + pads[2], found[4][-1] + pads[0]]
            found[0] = node.args[0]
            user.args = tuple(found)
        count += 1
    return count


_CONVOLUTIONS = {_aten.conv1d.default, _aten.conv2d.default}
_PADDING_IN_WORDS = {_aten.conv1d.padding: _aten.conv1d.default, _aten.conv2d.padding: _aten.conv2d.default}


def _add_constant(module: GraphModule, path: str, name: str, value: torch.Tensor, like: object) -> Node:
    """A parameter ``path.name`` and the node that reads it, at the graph's insertion point."""
    owner = module
    for step in path.split("."):
        if not hasattr(owner, step):
            owner.add_module(step, torch.nn.Module())
        owner = getattr(owner, step)
    owner.register_parameter(name, torch.nn.Parameter(value, requires_grad=False))
    node = module.graph.get_attr(f"{path}.{name}")
    node.meta["val"] = like.meta["val"].new_empty(value.shape)  # type: ignore[attr-defined]
    return node
