"""The quantizer with a learned step, and the modules of it that stand in a prepared graph."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torchao.quantization.pt2e import ObserverBase

from edge_sdk.quantization.lsq._recipe import Start

_SMALLEST_STEP = 1e-8
_MOST_VALUES = 1 << 16  # of a larger tensor, evenly spaced values stand for all in the search for a first step
_CANDIDATES = 64


class _FakeQuantize(torch.autograd.Function):
    """``round(clamp(v / s)) * s``, whose gradients are those of the paper.

    With x = v / s, the step's gradient is ``round(x) - x`` inside the range and the bound outside. Summed
    up with the gradient that comes from above, that is ``(<dy, y> - <dx, v>) / s``: two products instead
    of a pass for each case.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, step: Tensor, low: int, high: int, gradient_scale: float) -> Tensor:
        shaped = step.view([-1] + [1] * (values.dim() - 1)) if step.numel() > 1 else step
        ratio = values.float() / shaped
        quantized = ratio.clamp(low, high).round_().mul_(shaped)
        ctx.save_for_backward(ratio, quantized, step)
        ctx.range, ctx.gradient_scale, ctx.dtype = (low, high), gradient_scale, values.dtype
        return quantized

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor, Tensor | None, None, None, None]:  # type: ignore[override]
        ratio, quantized, step = ctx.saved_tensors
        # Passes on what comes from above where low < ratio < high, in a single pass.
        inside = torch.ops.aten.hardtanh_backward(above, ratio, *ctx.range)
        to_step = None
        if ctx.needs_input_grad[1]:
            rows = step.numel()
            to_step = (_dot(above, quantized, rows) / step - _dot(inside, ratio, rows)) * ctx.gradient_scale
        return inside.to(ctx.dtype), to_step, None, None, None


def _dot(a: Tensor, b: Tensor, rows: int) -> Tensor:
    """The inner product, of each row apart where there are several: ``[rows]``."""
    return torch.linalg.vecdot(a.reshape(rows, -1), b.reshape(rows, -1))


def fake_quantize(values: Tensor, step: Tensor, low: int, high: int, gradient_scale: float = 1.0) -> Tensor:
    """Rounds to multiples of a learned step.

    Args:
        values: ``[channels, ...]`` with a step for each channel, else of any shape.
        step: ``[channels]`` or ``[1]``, positive.
        low: Smallest multiple, 0 or negative.
        high: Largest multiple.
        gradient_scale: Scales the step's gradient.

    Returns:
        float32 of the shape of ``values``.

    Source: Esser et al., ICLR 2020, equations 1 to 3.
    """
    return _FakeQuantize.apply(values, step, low, high, gradient_scale)  # type: ignore[no-any-return]


class LearnedStep(ObserverBase):
    """A quantizer in a prepared graph. It passes values on until `set_start` is called after it has seen some.

    Args:
        bits: Bits, which may be changed before `set_start`.
        start: How the first step is found.
        dtype: Integer type of the converted graph.
        qscheme: Given by PT2E.
    """

    def __init__(
        self,
        bits: int = 8,
        start: Start = "range",
        dtype: torch.dtype = torch.int8,
        qscheme: torch.qscheme = torch.per_tensor_affine,
        **unused: Any,
    ) -> None:
        super().__init__(dtype)
        del unused
        self.bits = bits
        self.start: Start = start
        self.qscheme = qscheme
        self.ch_axis = 0
        self.seen: Tensor | None = None
        self.step = nn.Parameter(torch.zeros(1))
        self.register_buffer("is_signed", torch.tensor(True))

    @property
    @abstractmethod
    def range(self) -> tuple[int, int]:
        """The smallest and the largest multiple of the step."""

    @property
    def quant_min(self) -> int:
        """The smallest integer of the converted graph."""
        return self.range[0] + self._zero

    @property
    def quant_max(self) -> int:
        """The largest integer of the converted graph."""
        return self.range[1] + self._zero

    def positive_step(self) -> Tensor:
        """The step, whatever sign training gave it."""
        return self.step.abs().clamp(min=_SMALLEST_STEP)

    @abstractmethod
    def set_start(self) -> None:
        """Sets the first step by the values seen, which are then forgotten."""

    def calculate_qparams(self, **_: Any) -> tuple[Tensor, Tensor]:
        """Scale and zero point for the converted graph, of each channel or one element each."""
        step = self.positive_step().detach()
        return step, torch.full_like(step, self._zero, dtype=torch.int64)

    @property
    def is_set(self) -> bool:
        """Whether the step has a value."""
        return bool((self.step != 0).all())

    def forward(self, x: Tensor) -> Tensor:
        """``x`` of any shape, rounded to multiples of the step."""
        if self.is_observing:
            self.seen = x.detach().float()
            return x
        low, high = self.range
        return fake_quantize(x, self.positive_step(), low, high, (self._count(x) * high) ** -0.5)

    is_observing = False

    @property
    def _zero(self) -> int:
        """The integer that stands for zero."""
        return 0

    @abstractmethod
    def _count(self, x: Tensor) -> int:
        """How many values share a step, not counting the images of a batch."""

    def _take(self, rows: Tensor) -> None:
        """The first step of each row of values, ``[rows, values]``."""
        low, high = self.range
        first = _STARTS[self.start](rows, low, high)
        self.step.data = first.clamp(min=_SMALLEST_STEP)


class ActivationStep(LearnedStep):
    """One step for a tensor. What is never negative has all its multiples above zero."""

    @property
    def range(self) -> tuple[int, int]:
        """Signed or not, as the values seen were."""
        half = 1 << (self.bits - 1)
        return (-half, half - 1) if self.is_signed else (0, 2 * half - 1)

    @property
    def _zero(self) -> int:
        return 0 if self.is_signed else -128

    def set_start(self) -> None:
        """Decides on the sign and the first step by the values seen."""
        assert self.seen is not None, "a quantizer sees values before its step is set"
        values = self.seen.reshape(1, -1)
        self.is_signed = (values < 0).any()
        self._take(values)
        self.seen = None

    def _count(self, x: Tensor) -> int:
        return max(1, x.numel() // x.shape[0])


class WeightStep(LearnedStep):
    """A step for each output channel of a weight, ``[channels, ...]``, or a single one."""

    @property
    def range(self) -> tuple[int, int]:
        """Signed. The runtimes take no -128 for a weight."""
        half = 1 << (self.bits - 1)
        return (-half if self.bits < 8 else -127), half - 1

    def set_start(self) -> None:
        """Sets the first step of each channel by the weight seen."""
        assert self.seen is not None, "a quantizer sees values before its step is set"
        self._take(self.seen.flatten(1) if self._is_per_channel else self.seen.view(1, -1))
        self.seen = None

    def _count(self, x: Tensor) -> int:
        return x[0].numel() if self._is_per_channel else x.numel()

    @property
    def _is_per_channel(self) -> bool:
        return self.qscheme == torch.per_channel_symmetric


StartFunction = Callable[[Tensor, int, int], Tensor]


def _paper_start(rows: Tensor, low: int, high: int) -> Tensor:
    """``2 * mean(|v|) / sqrt(Q_P)`` of each row. Source: Esser et al., ICLR 2020, section 2.1."""
    del low
    return 2 * rows.abs().mean(1) / high**0.5


def _range_start(rows: Tensor, low: int, high: int) -> Tensor:
    """The step of each row that covers all of its values.

    The rare large activations, which the least squared error cuts off, are those that a tag depends on.
    """
    return torch.maximum(rows.amax(1) / high, -rows.amin(1) / max(1, -low))


def _least_error_start(rows: Tensor, low: int, high: int) -> Tensor:
    """The step of each row with the least squared error, of some up to the one that covers all values.

    At 8 bits the paper's first step covers some 20 times the mean of the values, which a short training
    has no time to mend.
    """
    whole = _range_start(rows, low, high).clamp(min=_SMALLEST_STEP)
    rows = rows[:, :: -(-rows.shape[1] // _MOST_VALUES)]
    best, least = whole, torch.full_like(whole, torch.inf)
    for share in torch.linspace(1.0, 0.1, _CANDIDATES):
        step = (whole * share).view(-1, 1)
        error = ((rows / step).clamp(low, high).round().mul(step) - rows).square().sum(1)
        best, least = torch.where(error < least, step.view(-1), best), torch.minimum(error, least)
    return best


_STARTS: dict[Start, StartFunction] = {"paper": _paper_start, "mse": _least_error_start, "range": _range_start}
