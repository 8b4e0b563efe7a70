"""The encoder of a device in two parts, so that its convolutions may be quantized and slot attention not."""

from __future__ import annotations

from torch import Tensor, nn

from edge_sdk.models.svq.network import SVQ, EncoderToCodes


class ImageToFeatures(nn.Module):
    """The convolutions.

    Args:
        model: The model, in evaluation mode.
    """

    def __init__(self, model: SVQ) -> None:
        super().__init__()
        self.encoder = model.encoder

    def forward(self, images: Tensor) -> Tensor:
        """Images ``[b, 3, s, s]`` to features ``[b, hidden_dim, s / 4, s / 4]``."""
        return self.encoder.convolve(images)


class FeaturesToCodes(EncoderToCodes):
    """Slot attention and the quantizer."""

    def forward(self, features: Tensor) -> Tensor:
        """Features ``[b, hidden_dim, s / 4, s / 4]`` to codes int64 ``[b, slots, codebooks]``."""
        slots, _, quantized = self.encoder.attend_to(features, self.quantizer if self.inside else None)
        return self.quantizer.snap(slots)[1] if quantized is None else quantized.indices
