"""Observers that calibrate, and then stand in for the quantized tensor.

One module does both, so that a calibrated graph can be run in full precision, quantized, or
quantized in some layers only: that is how bias correction and per-layer sensitivity are measured.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torchao.quantization.pt2e import ObserverBase

Mode = Literal["observe", "quantize", "off"]
_BINS = 2048
_MOST_VALUES = 1 << 16  # of a larger tensor, evenly spaced values stand for all in the histogram
_SHRINK = torch.linspace(0.4, 1.0, 61)

Method = Literal["minmax", "mse", "histogram", "percentile"]


class Calibrator(ObserverBase):
    """Range of a tensor, per tensor, affine or symmetric.

    Args:
        method: ``minmax`` takes the whole range; ``mse`` (also called ``histogram``) the sub-range
            with the least mean squared error over a histogram of all values seen; ``percentile``
            the sub-range that holds that share of the values, with as many left out on either side.
        dtype: Integer type.
        quant_min: Smallest integer.
        quant_max: Largest integer.
        qscheme: Given by PT2E.
        eps: Smallest scale.
        percentile: That share, in percent.
        half: Whether scales are numbers of FP16.
    """

    def __init__(
        self,
        method: Method = "minmax",
        dtype: torch.dtype = torch.int8,
        quant_min: int = -128,
        quant_max: int = 127,
        qscheme: torch.qscheme = torch.per_tensor_affine,
        eps: float = 2**-24,
        percentile: float = 99.99,
        half: bool = False,
        **unused: Any,
    ) -> None:
        super().__init__(dtype)
        del unused
        self.method, self.percentile = method, percentile
        self.qscheme = qscheme
        self.quant_min, self.quant_max, self.eps = quant_min, quant_max, eps
        self._half = half
        self.mode: Mode = "observe"
        self.low = torch.tensor(0.0)
        self.high = torch.tensor(0.0)
        self.histogram = torch.zeros(_BINS)
        self._qparams: tuple[torch.Tensor, torch.Tensor] | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Observes, quantizes and dequantizes, or passes ``x`` of any shape, by ``mode``."""
        if self.mode == "observe":
            self._observe(x.detach())
        elif self.mode == "quantize":
            return self._fake_quantize(x)
        return x

    def _observe(self, x: torch.Tensor) -> None:
        self._qparams = None
        low, high = torch.aminmax(x)
        low, high = torch.minimum(low, self.low), torch.maximum(high, self.high)
        if self.method != "minmax" and high > low:
            few = x.flatten()[:: -(-x.numel() // _MOST_VALUES)].float()
            self.histogram = self._rebin(low, high) + torch.histc(few, _BINS, float(low), float(high))
        self.low, self.high = low, high

    def _rebin(self, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
        """The histogram so far, over the wider range ``low`` to ``high``."""
        if not self.histogram.any() or (low == self.low and high == self.high):
            return self.histogram
        centers = self._centers(self.low, self.high)
        index = ((centers - low) / (high - low) * _BINS).long().clamp(0, _BINS - 1)
        return torch.zeros(_BINS).index_add_(0, index, self.histogram)

    @staticmethod
    def _centers(low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
        return low + (torch.arange(_BINS) + 0.5) * (high - low) / _BINS

    def calculate_qparams(self, **_: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Scale and zero point, one element each. Zero is always representable exactly."""
        if self._qparams is None:
            low, high = self.low, self.high
            if self.method != "minmax" and self.histogram.any():
                low, high = self._central_range() if self.method == "percentile" else self._least_error_range()
            self._qparams = self._affine(low, high)
        return self._qparams

    def _affine(self, low: torch.Tensor, high: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self.qscheme == torch.per_tensor_symmetric:
            scale = self._scale(torch.maximum(-low, high) / self.quant_max)
            return scale, torch.zeros(1, dtype=torch.int64)
        scale = self._scale((high - low) / (self.quant_max - self.quant_min))
        zero = (self.quant_min - torch.round(low / scale)).clamp(self.quant_min, self.quant_max)
        return scale, zero.to(torch.int64)

    def _scale(self, step: torch.Tensor) -> torch.Tensor:
        """A step as a scale that can be stored; never smaller than asked for, so that the range stays covered."""
        scale = step.clamp(min=self.eps).reshape(-1)
        if not self._half:
            return scale
        near = scale.half()
        return torch.where(near.float() < scale, (near.view(torch.int16) + 1).view(torch.half), near).float()

    def choose(self, method: Method) -> None:
        """Changes the method. What was seen stays, so that it need not be seen again.

        From ``minmax`` there is no way: it keeps no histogram.
        """
        assert method == "minmax" or self.method != "minmax", "minmax kept no histogram"
        self.method, self._qparams = method, None

    def _central_range(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The edges of the bins between which the share of the values lies, and zero with them."""
        cumulative = self.histogram.double().cumsum(0)
        cut = (1 - self.percentile / 100) / 2 * cumulative[-1]
        first, last = torch.searchsorted(cumulative, torch.stack([cut, cumulative[-1] - cut])).clamp(max=_BINS - 1)
        width = (self.high - self.low) / _BINS
        return (self.low + first * width).clamp(max=0.0), (self.low + (last + 1) * width).clamp(min=0.0)

    def _least_error_range(self) -> tuple[torch.Tensor, torch.Tensor]:
        centers = self._centers(self.low, self.high)
        best, chosen = None, (self.low, self.high)
        for shrink_low in _SHRINK[::5] if self.low < 0 else _SHRINK[-1:]:
            for shrink_high in _SHRINK:
                low, high = self.low * shrink_low, self.high * shrink_high
                scale, zero = self._affine(low, high)
                levels = (torch.round(centers / scale) + zero).clamp(self.quant_min, self.quant_max)
                error = float((self.histogram * ((levels - zero) * scale - centers) ** 2).sum())
                if best is None or error < best:
                    best, chosen = error, (low, high)
        return chosen

    def _fake_quantize(self, x: torch.Tensor) -> torch.Tensor:
        scale, zero = self.calculate_qparams()
        return torch.fake_quantize_per_tensor_affine(
            x, float(scale), int(zero), quant_min=self.quant_min, quant_max=self.quant_max
        )


class PerChannelCalibrator(Calibrator):
    """Symmetric range of each channel of a weight along ``ch_axis``: ``[channels, ...]``.

    The whole range: at 8 bits a narrower one, searched for least squared error, changed nothing on
    EfficientNet-Lite0.
    """

    def __init__(self, ch_axis: int = 0, quant_min: int = -127, **options: Any) -> None:
        super().__init__(quant_min=quant_min, **options)
        self.ch_axis = ch_axis

    def _observe(self, x: torch.Tensor) -> None:
        peak = x.transpose(0, self.ch_axis).flatten(1).abs().amax(1)
        scale = self._scale(peak / self.quant_max)
        self._qparams = scale, torch.zeros_like(scale, dtype=torch.int64)

    def calculate_qparams(self, **_: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Scale and zero point (always 0) of each channel."""
        assert self._qparams is not None, "a weight is observed before its scale is asked for"
        return self._qparams

    def _fake_quantize(self, x: torch.Tensor) -> torch.Tensor:
        scale, zero = self.calculate_qparams()
        return torch.fake_quantize_per_channel_affine(
            x, scale, zero.to(torch.int32), self.ch_axis, self.quant_min, self.quant_max
        )
