"""The vector quantization of the package vector-quantize-pytorch, to compare with: ``quantizer=vq_reference``.

Shapes: n latents, k codes, d width of a code.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edge_sdk.errors import MissingDependencyError
from edge_sdk.models.scq.autoencoder import SCQAutoencoder
from edge_sdk.models.scq.codebook import Codebook
from edge_sdk.models.scq.layer import Quantized, unrows
from edge_sdk.models.scq.nearest import VQLayer
from edge_sdk.models.scq.statistics import weight_statistics

_DEAD = 2  # vectors of a batch, in the moving average, below which a code is replaced, as the package's guide has it


class ReferenceVQ(nn.Module):
    """``vector_quantize_pytorch.VectorQuantize`` in the place of a `VQLayer`.

    It keeps the package's defaults (k-means at the first batch by its own code, the rotation trick for the
    gradient). The commitment is left to the loss that all quantizers share.

    Args:
        codebook: Of the layer that it replaces: gives the sizes and the decay.

    Raises:
        MissingDependencyError: The package is not installed.
    """

    def __init__(self, codebook: Codebook) -> None:
        super().__init__()
        try:
            from vector_quantize_pytorch import VectorQuantize
        except ImportError as error:
            raise MissingDependencyError(
                f"quantizer=vq_reference needs vector-quantize-pytorch, which cannot be imported ({error}): "
                "pip install 'edge-sdk[reference]'."
            ) from error
        assert codebook.decay is not None
        count, width = codebook.codes.shape
        self.layer = VectorQuantize(
            width,
            count,
            decay=codebook.decay,
            kmeans_init=True,
            threshold_ema_dead_code=_DEAD,
            commitment_weight=0.0,
        )

    @property
    def codes(self) -> Tensor:
        """The codes ``[k, d]``."""
        return self.layer.codebook

    def forward(self, z: Tensor) -> Quantized:
        """Quantizes latents; see `VQLayer.forward`."""
        width = z.shape[1]
        rows = z.permute(0, 2, 3, 1).reshape(-1, width) if z.ndim == 4 else z
        with torch.autocast(z.device.type, enabled=False):
            rows = rows.float()
            quantized, index, _ = self.layer(rows[None])
            weights = nn.functional.one_hot(index[0], len(self.codes)).to(rows.dtype)
            stats = weight_statistics(weights, sampled=1)
            stats["bits_per_vector"] = stats["entropy"]
            stats["error"] = (rows.detach() - quantized[0].detach()).square().sum(1).mean()
            stats["gap"], stats["converged"] = rows.new_zeros(()), rows.new_ones(())
        return unrows(quantized[0], z), weights, stats


@torch.no_grad()
def as_plain(network: SCQAutoencoder) -> dict[str, Tensor]:
    """The weights of an autoencoder with `ReferenceVQ` as one with a `VQLayer` has them, which quantizes alike."""
    reference = network.quantizer
    assert isinstance(reference, ReferenceVQ)
    codes = reference.codes
    layer = VQLayer(*codes.shape)
    codebook = layer.codebook
    codebook.codes.copy_(codes)
    codebook.sums.copy_(codes / len(codes))
    codebook.started.fill_(True)
    own = {name: value for name, value in network.state_dict().items() if not name.startswith("quantizer.")}
    return own | {f"quantizer.{name}": value for name, value in layer.state_dict().items()}
