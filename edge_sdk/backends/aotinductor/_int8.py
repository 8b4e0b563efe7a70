"""Static INT8 graphs for NVIDIA GPUs: convolutions and linear layers become calls of the INT8 kernel.

A layer between quantizers is taken whole: dequantizers before it, the rectifier and the quantizer behind it. What the
kernel does not take is computed in FP16, from the same rounded values.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import GraphModule, Node

from edge_sdk.errors import UnsupportedError
from edge_sdk.pipeline.fx import arguments, calls, constant
from edge_sdk.pipeline.values import Graph
from edge_sdk.schema.manifest import Fallback

_aten = torch.ops.aten
LEAST_CHANNELS = 16
_ONE_DIMENSION = "the INT8 kernel takes convolutions over two dimensions"
_NO_SCALES = "the INT8 kernel takes weights that are INT8 with a scale for each channel"
LARGEST = 2**31 - 1

Tile = tuple[int, int, int, int, int]
"""Rows, columns and depth of a tile, warps, stages."""

TILES: tuple[Tile, ...] = (
    (128, 128, 128, 8, 3),
    (128, 128, 64, 4, 4),
    (128, 256, 64, 8, 3),
    (128, 64, 128, 4, 4),
    (128, 64, 64, 4, 4),
    (64, 128, 128, 4, 4),
    (64, 64, 128, 4, 4),
    (64, 64, 64, 4, 4),
)
_DEFAULT: Tile = (128, 64, 64, 4, 4)
_SMALLEST_DEPTH = 32
_WARM, _TIMED = 3, 20


@dataclass(frozen=True)
class _Quantized:
    """A tensor of INT8: its node, the scale and the value that stands for zero."""

    node: Node
    scale: float
    zero: int


@dataclass(frozen=True)
class _Layer:
    """A layer whose input and weight are INT8."""

    node: Node
    source: _Quantized
    weight: torch.Tensor
    weight_scale: torch.Tensor
    bias: torch.Tensor | None
    stride: list[int]
    padding: list[int]
    dilation: list[int]
    groups: int

    @property
    def is_linear(self) -> bool:
        return self.node.target is _aten.linear.default

    @property
    def why_not(self) -> str | None:
        """Why the kernel does not take it."""
        if self.groups != 1:
            return "the INT8 kernel takes no groups of channels"
        if not self.is_linear and self.source.node.meta["val"].dim() != 4:
            return "the INT8 kernel takes convolutions with a batch dimension"
        if self.weight.shape[1] < LEAST_CHANNELS:
            return f"the INT8 kernel takes {LEAST_CHANNELS} input channels or more"
        return None


def lower(graph: Graph, device: str, *, tune: bool) -> tuple[GraphModule, list[Fallback]]:
    """The graph with calls of the INT8 kernel, and the layers that are computed in FP16 instead.

    Args:
        graph: A graph with quantizers; its module is edited in place.
        device: Where tiles are measured.
        tune: Whether the best tile of each layer is found by measuring; else one that does for most is taken.

    Raises:
        MissingDependencyError: Triton is not installed.
        UnsupportedError: A tensor is too large.
    """
    from edge_sdk.backends.aotinductor import _int8_kernel as kernel

    module = graph.torch
    assert module is not None
    _propagate(module, graph)
    left: Counter[tuple[str, str]] = Counter()
    choose = _Tuner(kernel.int8_conv2d, device) if tune else _Fixed()
    for index, layer in enumerate(_layers(module, left)):
        if reason := layer.why_not:
            _to_half(module, layer, f"_half_{index}")
            left[_name(layer.node), f"computed in FP16: {reason}"] += 1
        else:
            _to_kernel(module, layer, f"_int8_{index}", choose)
    module.graph.eliminate_dead_code()
    module.delete_all_unused_submodules()
    module.recompile()
    return module, [Fallback(op=op, count=count, reason=reason) for (op, reason), count in left.most_common()]


def _layers(module: GraphModule, left: Counter[tuple[str, str]]) -> list[_Layer]:
    """The layers with INT8 inputs; those that neither the kernel nor FP16 takes are counted in ``left``."""
    found = []
    for node in calls(module, {_aten.conv1d.default, _aten.conv2d.default, _aten.linear.default}):
        source, weight, *rest = arguments(node)
        read = _dequantized(source)
        values = _weights(module, weight)
        if read is None:
            continue
        if values is None or node.target is _aten.conv1d.default:
            left[_name(node), f"computed in FP32: {_ONE_DIMENSION if values else _NO_SCALES}"] += 1
            continue
        defaults: list[Any] = [None, [1, 1], [0, 0], [1, 1], 1]
        bias, stride, padding, dilation, groups = [*rest, *defaults[len(rest) :]]
        found.append(
            _Layer(
                node,
                read,
                *values,
                bias=constant(module, bias),
                stride=_pair(stride),
                padding=_pair(padding),
                dilation=_pair(dilation),
                groups=groups,
            )
        )
    return found


def _pair(value: Any) -> list[int]:
    return list(value) * (2 // len(value))


def _dequantized(node: Any) -> _Quantized | None:
    """What a dequantizer reads, None where the node is none."""
    import torch.ao.quantization.fx._decomposed  # noqa: F401  # registers the operators of the next line

    if not isinstance(node, Node) or node.target is not torch.ops.quantized_decomposed.dequantize_per_tensor.default:
        return None
    source, scale, zero, *_ = arguments(node)
    value = source.meta.get("val")
    return _Quantized(source, scale, zero) if value is not None and value.dtype == torch.int8 else None


def _weights(module: GraphModule, node: Any) -> tuple[torch.Tensor, torch.Tensor] | None:
    """INT8 weights and their scales by output channel, None where they are float or have a zero point."""
    if not isinstance(node, Node) or node.target is not torch.ops.quantized_decomposed.dequantize_per_channel.default:
        return None
    values, scales, zeros, axis, *_ = arguments(node)
    read = [constant(module, one) for one in (values, scales, zeros)]
    if read[0] is None or read[1] is None or axis != 0 or (read[2] is not None and bool(read[2].any())):
        return None
    return (read[0], read[1]) if read[0].dtype == torch.int8 else None


@dataclass(frozen=True)
class _End:
    """Where a layer's result goes: the last node that is taken in, and INT8's scale and range where it is INT8."""

    node: Node
    scale: float | None = None
    zero: int = 0
    low: int = -128
    high: int = 127


def _end(layer: _Layer) -> _End:
    """The quantizer behind a layer, with the rectifier between."""
    node, limits = layer.node, (-float("inf"), float("inf"))
    follower = _only_user(node)
    if follower is not None and follower.target in (_aten.relu.default, _aten.relu_.default):
        node, limits = follower, (0.0, float("inf"))
    elif follower is not None and follower.target is _aten.hardtanh.default:
        node, limits = follower, tuple((*arguments(follower)[1:3], -1.0, 1.0)[:2])
    quantizer = _only_user(node)
    if quantizer is None or quantizer.target is not torch.ops.quantized_decomposed.quantize_per_tensor.default:
        return _End(layer.node)
    _, scale, zero, smallest, largest, dtype = arguments(quantizer)
    if dtype != torch.int8:
        return _End(layer.node)
    low, high = (zero + limit / scale for limit in limits)
    lowest, highest = max(smallest, round(max(low, -128))), min(largest, round(min(high, 127)))
    return _End(quantizer, scale, zero, lowest, highest)


def _only_user(node: Node) -> Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _to_kernel(module: GraphModule, layer: _Layer, name: str, choose: Any) -> None:
    """Replaces a layer, up to the quantizer behind it, with a call of the kernel."""
    end = _end(layer)
    weight = layer.weight if not layer.is_linear else layer.weight[:, :, None, None]
    # Two dimensions: four would be laid out with the channels last once more.
    packed = weight.permute(0, 2, 3, 1).contiguous().flatten(1)
    # A sum of products of INT8 counts steps of input times weight; the input's zero point is taken off it at once.
    unit = layer.source.scale * layer.weight_scale.double()
    offset = -layer.source.zero * weight.double().sum((1, 2, 3)) * unit
    offset += 0.0 if layer.bias is None else layer.bias.double()
    if end.scale is not None:
        unit, offset = unit / end.scale, offset / end.scale + end.zero
    tensors = {
        "pads": torch.full((weight.shape[1],), layer.source.zero, dtype=torch.int8),
        "weight": packed,
        "scale": unit.float(),
        "bias": offset.float(),
    }
    source_value, result_value = layer.source.node.meta["val"], layer.node.meta["val"]
    if max(source_value.numel(), result_value.numel()) > LARGEST:
        raise UnsupportedError(
            f"layer '{layer.node.name}' has a tensor of more than {LARGEST} values, which the INT8 kernel does not "
            "take: compile for a smaller batch or input."
        )
    size, to_int8 = list(weight.shape[2:]), end.scale is not None
    how = (size, layer.stride, layer.padding, layer.dilation, end.low, end.high, to_int8)
    tile = choose(_image(source_value), tensors, how)
    for key, value in tensors.items():
        module.register_buffer(f"{name}_{key}", value)
    graph = module.graph
    with graph.inserting_before(end.node):
        source = layer.source.node
        if layer.is_linear:
            rows = source_value.shape[-1]
            source = graph.call_function(_aten.reshape.default, (source, [-1, rows, 1, 1]))
        constants = [graph.get_attr(f"{name}_{key}") for key in tensors]
        call = torch.ops.edge_sdk.int8_conv2d.default
        result = graph.call_function(call, (source, *constants, *how, list(tile)))
        if layer.is_linear:
            result = graph.call_function(_aten.reshape.default, (result, _shape(graph, layer, result_value)))
    end.node.replace_all_uses_with(result)


def _shape(graph: torch.fx.Graph, layer: _Layer, value: torch.Tensor) -> list[Any]:
    """The shape of a linear layer's result, whose leading sizes may vary."""
    if value.dim() == 2:
        return [-1, value.shape[-1]]
    sizes = [graph.call_function(_aten.sym_size.int, (layer.source.node, dim)) for dim in range(value.dim() - 1)]
    return [*sizes, value.shape[-1]]


def _image(value: torch.Tensor) -> tuple[int, int, int, int]:
    """The input's shape as the kernel sees it."""
    sizes = [int(size) for size in value.shape]
    if len(sizes) == 4:
        return sizes[0], sizes[1], sizes[2], sizes[3]
    return value.numel() // sizes[-1], sizes[-1], 1, 1


def _to_half(module: GraphModule, layer: _Layer, name: str) -> None:
    """Computes a layer in FP16, from the same INT8 values."""
    exact = layer.weight.double() * layer.weight_scale.double().reshape(-1, *[1] * (layer.weight.dim() - 1))
    module.register_buffer(f"{name}_weight", exact.half())
    graph, node = module.graph, layer.node
    with graph.inserting_before(node):
        source = graph.call_function(_aten.to.dtype, (node.args[0], torch.float16))
        weight = graph.get_attr(f"{name}_weight")
        bias = None
        if layer.bias is not None:
            module.register_buffer(f"{name}_bias", layer.bias.half())
            bias = graph.get_attr(f"{name}_bias")
        result = graph.call_function(node.target, (source, weight, bias, *node.args[3:]))  # type: ignore[arg-type]
        single = graph.call_function(_aten.to.dtype, (result, torch.float32))
    node.replace_all_uses_with(single)


def _propagate(module: GraphModule, graph: Graph) -> None:
    """Writes types and shapes to all nodes: quantizing leaves some without."""
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.passes.fake_tensor_prop import FakeTensorProp

    FakeTensorProp(module, FakeTensorMode(allow_non_fake_inputs=True)).propagate(*graph.example_inputs)


def _name(node: Node) -> str:
    return ".".join(getattr(node.target, "__name__", str(node.target)).split(".")[-2:])


class _Fixed:
    """A tile that does for most layers."""

    def __call__(self, image: tuple[int, int, int, int], tensors: dict[str, torch.Tensor], how: tuple) -> Tile:
        del tensors, how
        depth = max(_SMALLEST_DEPTH, min(_DEFAULT[2], 1 << (image[1] - 1).bit_length()))
        return (*_DEFAULT[:2], depth, *_DEFAULT[3:])


class _Tuner:
    """Finds the fastest tile for each kind of layer by measuring on the device; each kind once."""

    def __init__(self, kernel: Any, device: str) -> None:
        self._kernel, self._device = kernel, device
        self._best: dict[tuple, Tile] = {}
        self._fixed = _Fixed()

    def __call__(self, image: tuple[int, int, int, int], tensors: dict[str, torch.Tensor], how: tuple) -> Tile:
        key = (image, tuple(tensors["weight"].shape), str(how[:4]), how[-1])
        if key not in self._best:
            self._best[key] = self._measure(image, tensors, how)
        return self._best[key]

    def _measure(self, image: tuple[int, int, int, int], tensors: dict[str, torch.Tensor], how: tuple) -> Tile:
        there = [value.to(self._device) for value in tensors.values()]
        x = torch.randint(-128, 127, image, dtype=torch.int8, device=self._device)
        x = x.contiguous(memory_format=torch.channels_last)
        channels, filters = image[1], tensors["weight"].shape[0]
        fitting = (
            [tile for tile in TILES if tile[2] <= max(64, channels) and tile[1] <= max(64, filters)]
            if channels >= 64
            else [self._fixed(image, tensors, how)]
        )
        times = {tile: self._time(lambda tile=tile: self._kernel(x, *there, *how, list(tile))) for tile in fitting}
        best = min(times, key=lambda tile: times[tile])
        if times[best] == float("inf"):
            raise UnsupportedError(f"the INT8 kernel does not run on this GPU for an input of {list(image)}.")
        return best

    def _time(self, call: Any) -> float:
        """Milliseconds of a call; infinite where the GPU has too little shared memory for it."""
        from triton.runtime.errors import OutOfResources  # pyright: ignore[reportMissingImports]

        try:
            for _ in range(_WARM):
                call()
        except OutOfResources:
            return float("inf")
        before, after = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        before.record()
        for _ in range(_TIMED):
            call()
        after.record()
        after.synchronize()
        return before.elapsed_time(after) / _TIMED
