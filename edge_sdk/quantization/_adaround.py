"""AdaRound: learns, layer by layer, which weights to round up and which down.

Rounding to nearest is best for each weight by itself, not for the layer's output. Here each layer's
output on calibration inputs decides. A layer is judged at some positions of its output only, whose
patches of the input form a matrix: that is what makes it quick on a CPU.

Shapes: g groups of a convolution, n positions, o output channels of a group, d inputs of an output.

Source: Nagel et al., Up or Down? Adaptive Rounding for Post-Training Quantization, ICML 2020.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import GraphModule, Interpreter, Node
from torch.nn import functional

from edge_sdk.pipeline.fx import arguments, constant
from edge_sdk.quantization import _static
from edge_sdk.quantization._annotate import CLAMPS, layers
from edge_sdk.quantization._observer import PerChannelCalibrator

_aten = torch.ops.aten
# Source: the paper: the stretch of the sigmoid, and a regulariser whose exponent is annealed after
# some iterations without it.
_GAMMA, _ZETA = -0.1, 1.1
_BETA_FIRST, _BETA_LAST = 20.0, 2.0
_WARM_UP = 0.2
# Both found on EfficientNet-Lite0 for some hundred iterations; the paper takes 10,000.
_RATE = 0.03
_REGULARISER = 10.0  # beside the error relative to that of rounding to nearest
_ROWS = 2048  # positions that a layer is judged at
_BATCH = 128
_CHECKED = 4  # one of so many samples is kept to check with


def adaround(prepared: GraphModule, inputs: Sequence[tuple[torch.Tensor, ...]], iterations: int) -> dict[str, float]:
    """Rounds the weights of a calibrated graph in place, each onto the grid of its channel's scale.

    The layers are taken in order. Each sees what the quantized layers before it give, and is to give
    what full precision gives. Some of the inputs are kept to check with: a channel whose learned
    rounding is no better on them keeps the nearest one.

    Args:
        prepared: A calibrated graph.
        inputs: The calibration inputs.
        iterations: Steps for each layer.

    Returns:
        Layer's node name to the share of the squared error of rounding to nearest that is left on
        the inputs kept.
    """
    weights = _weights(prepared)
    _static.set_mode(prepared, "off")
    noted = _Targets(prepared, weights, max(1, _ROWS // len(inputs)))
    with torch.no_grad():
        for sample in inputs:
            noted.run(*sample)
    left: dict[str, float] = {}

    def round_weight(layer: Node, layer_inputs: list[torch.Tensor]) -> torch.Tensor | None:
        if layer not in weights:
            return None
        weight, observer = weights[layer]
        places, targets = zip(*noted.found.pop(layer), strict=True)
        task = _Task.of(prepared, layer, weight, observer)
        patches = [_patches(layer, weight, x, rows) for x, rows in zip(layer_inputs, places, strict=True)]
        groups = len(task.weight)
        outputs = [y.unflatten(1, (groups, -1)).transpose(0, 1) for y in targets]
        seen, kept = _split(patches, outputs)
        rounded, left[layer.name] = task.solve(seen, kept, iterations)
        weight.copy_(rounded.view(weight.shape))
        return weight

    _static.set_mode(prepared, "quantize")
    _static.run_in_step(prepared, inputs, before_layer=round_weight)
    return left


Weights = dict[Node, tuple[torch.Tensor, PerChannelCalibrator]]


def _weights(prepared: GraphModule) -> Weights:
    """The quantized layers with a weight of their own, and its observer."""
    uses = Counter(str(node.target) for node in prepared.graph.nodes if node.op == "get_attr" for _ in node.users)
    found: Weights = {}
    for layer in layers(prepared):
        observed = arguments(layer)[1]
        if observed.op != "call_module" or len(observed.users) > 1 or layer.kwargs:
            continue
        observer, source = prepared.get_submodule(str(observed.target)), observed.args[0]
        weight = constant(prepared, source)
        if isinstance(observer, PerChannelCalibrator) and weight is not None and uses[str(source.target)] == 1:
            found[layer] = weight, observer
    return found


class _Targets(Interpreter):
    """Runs a graph, and notes each layer's output at random positions."""

    def __init__(self, module: GraphModule, of: Weights, count: int) -> None:
        super().__init__(module, garbage_collect_values=True)
        self.found: dict[Node, list[tuple[torch.Tensor, torch.Tensor]]] = {layer: [] for layer in of}
        self._count = count
        self._random = torch.Generator().manual_seed(0)

    def run_node(self, n: Node) -> Any:
        result = super().run_node(n)
        if n in self.found:
            rows = result.movedim(_static.channel_axis(n, result), -1).flatten(0, -2)
            places = torch.randint(len(rows), (min(self._count, len(rows)),), generator=self._random)
            self.found[n].append((places, rows[places]))
        return result


Rows = tuple[torch.Tensor, torch.Tensor]
"""Patches ``[g, n, d]`` and targets ``[g, n, o]``."""


def _split(patches: Sequence[torch.Tensor], targets: Sequence[torch.Tensor]) -> tuple[Rows, Rows]:
    """Rows to learn from, and rows of other samples to check with: the same where there are too few."""
    count = len(patches)
    kept = list(range(_CHECKED - 1, count, _CHECKED)) or list(range(count))
    seen = [index for index in range(count) if index not in kept] or kept

    def rows(chosen: list[int]) -> Rows:
        return torch.cat([patches[i] for i in chosen], 1), torch.cat([targets[i] for i in chosen], 1)

    return rows(seen), rows(kept)


def _patches(layer: Node, weight: torch.Tensor, x: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """What a layer sees of its input at some positions of its output: ``[g, n, d]``."""
    if layer.target is _aten.linear.default:
        return x.reshape(1, -1, x.shape[-1])[:, places]
    size = weight.dim() - 2
    stride, padding, dilation, groups = _geometry(layer)
    strides, paddings, dilations = (list(value) * (size // len(value)) for value in (stride, padding, dilation))
    x = functional.pad(x, [side for value in reversed(paddings) for side in (value, value)])
    kernel = weight.shape[2:]
    out = [
        (length - d * (k - 1) - 1) // s + 1
        for length, k, s, d in zip(x.shape[2:], kernel, strides, dilations, strict=True)
    ]
    steps = x.stride()[2:]
    windows = x.as_strided(
        (x.shape[0], x.shape[1], *out, *kernel),
        (
            *x.stride()[:2],
            *[step * s for step, s in zip(steps, strides, strict=True)],
            *[step * d for step, d in zip(steps, dilations, strict=True)],
        ),
    )
    index = torch.unravel_index(places, (x.shape[0], *out))
    return windows.movedim(1, size + 1)[index].reshape(len(places), groups, -1).transpose(0, 1)


def _geometry(layer: Node) -> tuple[Sequence[int], Sequence[int], Sequence[int], int]:
    """Stride, padding, dilation and groups of a convolution."""
    given = arguments(layer)[3:7]
    geometry: Any = (*given, *([1], [0], [1], 1)[len(given) :])
    return geometry


@dataclass(frozen=True)
class _Task:
    """The rounding of one layer's weight.

    Attributes:
        weight: ``[g, o, d]``.
        scale: ``[g, o, 1]``.
        bias: ``[g, 1, o]``.
        activation: What the layer's output goes through, where that only cuts the range off.
        limit: Largest integer; the smallest is its negative.
    """

    weight: torch.Tensor
    scale: torch.Tensor
    bias: torch.Tensor
    activation: Callable[[torch.Tensor], torch.Tensor]
    limit: int

    @classmethod
    def of(cls, prepared: GraphModule, layer: Node, weight: torch.Tensor, observer: PerChannelCalibrator) -> _Task:
        """The task of a layer of a calibrated graph."""
        groups = 1 if layer.target is _aten.linear.default else _geometry(layer)[3]
        bias = constant(prepared, layer.args[2]) if len(layer.args) > 2 else None
        bias = torch.zeros(len(weight)) if bias is None else bias
        scale, _ = observer.calculate_qparams()
        return cls(
            weight=weight.flatten(1).unflatten(0, (groups, -1)),
            scale=scale.view(groups, -1, 1),
            bias=bias.view(groups, 1, -1),
            activation=_activation(layer),
            limit=observer.quant_max,
        )

    def solve(self, seen: Rows, kept: Rows, iterations: int) -> tuple[torch.Tensor, float]:
        """The rounded weight ``[g, o, d]``, and the share of the error of rounding to nearest that is left.

        Args:
            seen: To learn from.
            kept: To check with.
            iterations: Steps.
        """
        seen, kept = ((patches, self.activation(target.clone())) for patches, target in (seen, kept))
        steps = self.weight / self.scale
        nearest = self.scale * steps.round().clamp(-self.limit, self.limit)
        floor = steps.floor().clamp(-self.limit, self.limit - 1)
        unit = self._errors(nearest, seen)
        unit = 1 / unit.clamp(min=1e-12 * float(unit.max()) + 1e-30)
        up = self._learn(floor, (steps - floor).clamp(0, 1), unit.unsqueeze(2) * self.scale, seen, iterations)
        learned = self.scale * (floor + up)
        before, after = self._errors(nearest, kept), self._errors(learned, kept)
        better = after < before
        left = float(torch.where(better, after, before).sum() / before.sum().clamp(min=1e-30))
        return torch.where(better.unsqueeze(2), learned, nearest), left

    def _errors(self, weight: torch.Tensor, rows: Rows) -> torch.Tensor:
        """Mean squared error of each output channel: ``[g, o]``."""
        patches, target = rows
        return (self._output(weight, patches)[0] - target).square().mean(1)

    def _output(self, weight: torch.Tensor, patches: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The output ``[g, n, o]``, and where the activation function let it pass."""
        raw = torch.baddbmm(self.bias, patches, weight.transpose(1, 2))
        output = self.activation(raw.clone())
        return output, output == raw

    def _gradient(self, weight: torch.Tensor, patches: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Of `_errors` by the weight: ``[g, o, d]``."""
        output, passed = self._output(weight, patches)
        error = (output - target) * passed * (2 / patches.shape[1])
        return torch.bmm(error.transpose(1, 2), patches)

    def _learn(
        self, floor: torch.Tensor, rest: torch.Tensor, unit: torch.Tensor, seen: Rows, iterations: int
    ) -> torch.Tensor:
        """Which weights to round up, as 0 or 1.

        The start is the float weight itself. Gradients are written out, for half the time of autograd.

        Args:
            floor: The integers below the weight: ``[g, o, d]``.
            rest: What the weight is above them.
            unit: What the gradient by the weight is multiplied with: ``[g, o, 1]``.
            seen: To learn from.
            iterations: Steps.
        """
        patches, target = seen
        random = torch.Generator().manual_seed(0)
        value = torch.logit((rest - _GAMMA) / (_ZETA - _GAMMA))
        optimizer = torch.optim.Adam([value], lr=_RATE, fused=True)
        for step in range(iterations):
            batch = torch.randint(patches.shape[1], (min(_BATCH, patches.shape[1]),), generator=random)
            sigmoid = torch.sigmoid(value)
            up = (sigmoid * (_ZETA - _GAMMA) + _GAMMA).clamp_(0, 1)
            gradient = self._gradient(self.scale * (floor + up), patches[:, batch], target[:, batch]).mul_(unit)
            done = (step / iterations - _WARM_UP) / (1 - _WARM_UP)
            if done >= 0:
                beta = _BETA_LAST + (_BETA_FIRST - _BETA_LAST) * (1 + math.cos(done * math.pi)) / 2
                gradient.sub_(_regulariser_slope(up, beta), alpha=_REGULARISER / floor.shape[2])
            inside = (up > 0) & (up < 1)
            value.grad = gradient.mul_(sigmoid).mul_(1 - sigmoid).mul_(inside)
            optimizer.step()
        return (value >= 0).float()


def _regulariser_slope(up: torch.Tensor, beta: float) -> torch.Tensor:
    """Slope of ``abs(2 * up - 1) ** beta``."""
    centered = 2 * up - 1
    return centered.abs().pow_(beta - 2).mul_(centered).mul_(2 * beta)


def _activation(layer: Node) -> Callable[[torch.Tensor], torch.Tensor]:
    """The clamp behind a layer, where nothing else takes the layer's output."""
    users = list(layer.users)
    if len(users) != 1 or users[0].target not in CLAMPS:
        return lambda y: y
    (clamp,) = users
    target: Any = clamp.target
    return lambda y: target(y, *arguments(clamp)[1:], **clamp.kwargs)
