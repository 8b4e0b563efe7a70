"""Graph rewrites for XNNPACK: what transformers are made of, in the operators that it has."""

from __future__ import annotations

import math

import torch
from torch.fx import GraphModule, Node

from edge_sdk.pipeline.fx import arguments, calls, constant
from edge_sdk.pipeline.values import KEEP_FLOAT

_aten = torch.ops.aten


class _Builder:
    """Adds operators before a node, each with the shape of its result noted."""

    def __init__(self, module: GraphModule, before: Node) -> None:
        self._module = module
        self._before = before

    def call(self, target, *arguments, shape: tuple[int, ...]) -> Node:
        with self._module.graph.inserting_before(self._before):
            node = self._module.graph.call_function(target, arguments)
        value = self._before.meta["val"]
        value = value[0] if isinstance(value, (tuple, list)) else value
        node.meta = {
            **{key: kept for key, kept in self._before.meta.items() if key in ("stack_trace", "nn_module_stack")},
            "val": value.new_empty(shape),
            KEEP_FLOAT: True,
        }
        return node

    def constant(self, name: str, value: torch.Tensor) -> Node:
        index = 0
        while hasattr(self._module, f"{name}_{index}"):
            index += 1
        self._module.register_buffer(f"{name}_{index}", value)
        with self._module.graph.inserting_before(self._before):
            node = self._module.graph.get_attr(f"{name}_{index}")
        node.meta["val"] = self._before.meta["val"].new_empty(value.shape)
        return node

    def replace_by(self, node: Node) -> None:
        self._before.replace_all_uses_with(node)
        self._module.graph.erase_node(self._before)


def attention_to_products(module: GraphModule) -> int:
    """Writes attention without a mask out as two batched products around a softmax."""
    count = 0
    for node in calls(module, {_aten.scaled_dot_product_attention.default}):
        query, key, value = node.args[:3]
        more = [*node.args[3:], *[None, 0.0, False][len(node.args) - 3 :]]
        options = {"attn_mask": more[0], "dropout_p": more[1], "is_causal": more[2], **node.kwargs}
        shapes = [_shape(argument) for argument in (query, key, value)]
        if options["attn_mask"] is not None or options["dropout_p"] or options["is_causal"]:
            continue
        if options.get("enable_gqa") or any(shape is None or len(shape) < 3 for shape in shapes):
            continue
        if len({shape[:-2] for shape in shapes}) != 1:  # type: ignore[index]
            continue
        (*batch, rows, width), (*_, columns, _), (*_, depth) = shapes  # type: ignore[misc]
        heads = math.prod(batch)
        scale = options.get("scale") or 1.0 / math.sqrt(width)
        add = _Builder(module, node)
        q = add.call(_aten.view.default, _dense(add, query), [heads, rows, width], shape=(heads, rows, width))
        k = add.call(_aten.view.default, _dense(add, key), [heads, columns, width], shape=(heads, columns, width))
        v = add.call(_aten.view.default, _dense(add, value), [heads, columns, depth], shape=(heads, columns, depth))
        factor = add.constant("attention_scale", torch.tensor([scale]))
        scaled = add.call(_aten.mul.Tensor, q, factor, shape=(heads, rows, width))
        turned = add.call(_aten.permute.default, k, [0, 2, 1], shape=(heads, width, columns))
        scores = add.call(_aten.bmm.default, scaled, turned, shape=(heads, rows, columns))
        weights = add.call(_aten.softmax.int, scores, -1, shape=(heads, rows, columns))
        mixed = add.call(_aten.bmm.default, weights, v, shape=(heads, rows, depth))
        add.replace_by(add.call(_aten.view.default, mixed, [*batch, rows, depth], shape=(*batch, rows, depth)))
        count += 1
    return count


def layer_norm_to_products(module: GraphModule) -> int:
    """Writes layer normalisation over the last dimension out; its means become products with a constant."""
    count = 0
    for node in calls(module, {_aten.layer_norm.default}):
        source, normalized = node.args[0], list(node.args[1])  # type: ignore[arg-type]
        shape = _shape(source)
        if shape is None or len(normalized) != 1:
            continue
        gamma, beta = (constant(module, node.args[index]) if len(node.args) > index else None for index in (2, 3))
        epsilon = node.args[4] if len(node.args) > 4 else 1e-5
        width, rows = shape[-1], math.prod(shape[:-1])
        flat, column = (rows, width), (rows, 1)
        add = _Builder(module, node)
        average = add.constant("layer_norm_average", torch.full((width, 1), 1.0 / width))
        x = add.call(_aten.view.default, _dense(add, source), list(flat), shape=flat)
        mean = add.call(_aten.mm.default, x, average, shape=column)
        centred = add.call(_aten.sub.Tensor, x, mean, shape=flat)
        squared = add.call(_aten.mul.Tensor, centred, centred, shape=flat)
        variance = add.call(_aten.mm.default, squared, average, shape=column)
        floor = add.constant("layer_norm_epsilon", torch.tensor([float(epsilon)]))  # type: ignore[arg-type]
        safe = add.call(_aten.add.Tensor, variance, floor, shape=column)
        result = add.call(_aten.mul.Tensor, centred, add.call(_aten.rsqrt.default, safe, shape=column), shape=flat)
        if gamma is not None:
            result = add.call(_aten.mul.Tensor, result, add.constant("layer_norm_weight", gamma), shape=flat)
        if beta is not None:
            result = add.call(_aten.add.Tensor, result, add.constant("layer_norm_bias", beta), shape=flat)
        add.replace_by(add.call(_aten.view.default, result, list(shape), shape=shape))
        count += 1
    return count


def views_to_slices(module: GraphModule) -> int:
    """Writes selections as slices and views of fixed sizes, and drops expansions to the size there is."""
    count = 0
    for node in calls(module, {_aten.unbind.int}):
        count += _unbind_to_selects(module, node)
    for node in calls(module, {_aten.select.int, _aten.expand.default, _aten.squeeze.dim, _aten.squeeze.dims}):
        shape, before = _shape(node), _shape(node.args[0])
        if shape is None or before is None:
            continue
        add = _Builder(module, node)
        if node.target is _aten.expand.default:
            if shape != before:
                continue
            add.replace_by(node.args[0])  # type: ignore[arg-type]
        elif node.target is _aten.select.int:
            _, dim, index = node.args
            dim, index = dim % len(before), index % before[dim]  # type: ignore[operator]
            cut = tuple(1 if axis == dim else size for axis, size in enumerate(before))
            part = add.call(_aten.slice.Tensor, node.args[0], dim, index, index + 1, shape=cut)
            add.replace_by(add.call(_aten.reshape.default, part, list(shape), shape=shape))
        else:
            add.replace_by(add.call(_aten.reshape.default, node.args[0], list(shape), shape=shape))
        count += 1
    return count


def _unbind_to_selects(module: GraphModule, node: Node) -> int:
    """Each result of an unbind becomes a select; the loop that follows writes those as slices."""
    source, dim = (*arguments(node), 0)[:2]
    if any(user.op != "call_function" or getattr(user.target, "__name__", "") != "getitem" for user in node.users):
        return 0
    for user in list(node.users):
        with module.graph.inserting_before(user):
            select = module.graph.call_function(_aten.select.int, (source, dim, arguments(user)[1]))
        select.meta = dict(user.meta)
        user.replace_all_uses_with(select)
        module.graph.erase_node(user)
    module.graph.erase_node(node)
    return 1


def _dense(add: _Builder, node) -> Node:
    """A copy in row-major order: a view may only be taken of such a tensor."""
    return add.call(_aten.contiguous.default, node, shape=_shape(node))  # type: ignore[arg-type]


def _shape(node: object) -> tuple[int, ...] | None:
    """The shape of a floating-point tensor where all sizes are fixed, else None."""
    value = node.meta.get("val") if isinstance(node, Node) else None
    if not isinstance(value, torch.Tensor) or not value.is_floating_point():
        return None
    return tuple(value.shape) if all(isinstance(size, int) for size in value.shape) else None
