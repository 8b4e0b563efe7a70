"""What soft convex quantization is compared with: vector quantization, and no quantization at all.

Shapes: b batch size, n latents, k codes, d width of a code, h and w places.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edge_sdk.models.scq.codebook import Codebook
from edge_sdk.models.scq.layer import DeployedQuantizer, Quantized, relative_distance, squared_error, unrows
from edge_sdk.models.scq.solvers._nearest import SharpNearest
from edge_sdk.models.scq.statistics import weight_statistics


class VQLayer(nn.Module):
    """Replaces each latent by its nearest code; the gradient passes straight through.

    Source: van den Oord et al., "Neural Discrete Representation Learning", NeurIPS 2017.

    Args:
        num_codes: How many codes.
        code_dim: Width of a code and a latent.
        ema_decay: Of the averages that codes follow; None for codes that are learned by gradient.

    Raises:
        ModelError: An argument does not fit.
    """

    def __init__(self, num_codes: int, code_dim: int, ema_decay: float | None = 0.99) -> None:
        super().__init__()
        self.codebook = Codebook(num_codes, code_dim, ema_decay, mixes=False)

    def forward(self, z: Tensor) -> Quantized:
        """Quantizes latents; see `edge_sdk.models.scq.layer.SCQLayer.forward`.

        ``bits_per_vector`` is the entropy of the index over this batch, which has at most ``log2 k`` bits.

        Raises:
            ModelError: The latents have another shape or width, there are none, or some are not finite.
        """
        with torch.autocast(z.device.type, enabled=False):
            rows = self.codebook.rows(z)
            if self.training:
                self.codebook.start(rows)
            codes = self.codebook.codes.clone()
            index = _scores(rows.detach(), codes.detach()).argmax(1)
            weights = nn.functional.one_hot(index, len(codes)).to(rows.dtype)
            straight = rows + (codes.detach()[index] - rows).detach()
            stats = weight_statistics(weights, sampled=1)
            stats["bits_per_vector"] = stats["entropy"]
            stats["error"] = squared_error(rows, weights, codes)
            stats["gap"], stats["converged"] = rows.new_zeros(()), rows.new_ones(())
            if self.training:
                self.codebook.follow(rows.detach(), weights)
        return unrows(straight, z), weights, stats

    def deployed(self) -> nn.Module:
        """The layer as a graph of plain operators for a runtime, ``z`` to quantized latents."""
        codes = self.codebook.codes.detach().clone()
        return DeployedQuantizer(SharpNearest(codes), codes)

    @torch.no_grad()
    def distance(self, z: Tensor) -> dict[str, float]:
        """How far what the deployed form gives is from the nearest code, relative to its length: mean and max."""
        rows, codes = self.codebook.rows(z), self.codebook.codes
        return relative_distance(self.deployed()(rows), codes[_scores(rows, codes).argmax(1)])


class PassThrough(nn.Module):
    """Leaves latents as they are, so that a network without a quantizer can be compared."""

    def forward(self, z: Tensor) -> Quantized:
        """The latents, weights of no codes ``[n, 0]``, and statistics: each number costs its 32 bits."""
        places = z.shape[0] if z.ndim == 2 else z.shape[0] * z.shape[2] * z.shape[3]
        names = ("entropy", "perplexity", "utilisation", "support_size", "usage", "weight_entropy", "error", "gap")
        stats = {name: z.new_zeros(()) for name in names}
        stats["bits_per_vector"] = z.new_tensor(32.0 * z.shape[1])
        stats["converged"] = z.new_ones(())
        return z, z.new_zeros(places, 0), stats


def _scores(rows: Tensor, codes: Tensor) -> Tensor:
    """The negative squared distance from each code, but for a constant of each row, ``[n, k]``."""
    return 2 * rows @ codes.T - codes.square().sum(1)
