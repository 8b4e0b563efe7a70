"""What a validation finds: sums over batches and devices, and the figures that they give.

Shapes: b patches, v latents of a batch, k codes, d width of a code.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from edge_sdk.models.scq.statistics import SUPPORT, bits_per_pixel, entropy, psnr, ssim

_OF_PATCHES: tuple[str, ...] = ("mse", "psnr", "ssim", "psnr_coded")
_OF_LATENTS: tuple[str, ...] = ("support_size", "bits_per_vector", "error", "length")


class Totals:
    """Sums over the patches of a validation.

    Args:
        mixes: Whether latents are mixtures of codes; else their code is the index of one.
        stride: Pixels of a side for each latent.
    """

    def __init__(self, mixes: bool, stride: int) -> None:
        self._mixes = mixes
        self._stride = stride
        self._sums: dict[str, Tensor] = {}
        self._gap = torch.zeros(())

    def add(
        self,
        images: Tensor,
        found: Tensor,
        coded: Tensor,
        z: Tensor,
        z_q: Tensor,
        weights: Tensor,
        stats: dict[str, Tensor],
    ) -> None:
        """Counts a batch.

        Args:
            images: ``[b, c, h, w]``, from 0 to 1.
            found: Their reconstructions, of the same shape.
            coded: Their reconstructions from weights that were quantized themselves.
            z: The latents ``[b, d, h / s, w / s]``.
            z_q: What they were quantized to.
            weights: ``[v, k]``; k is 0 where nothing was quantized.
            stats: Of the quantizer, over this batch.
        """
        patches, latents = len(images), len(weights)
        cut = found.clamp(0, 1)
        error = (z - z_q).square().sum(1).mean()
        means = {
            "mse": (cut - images).square().mean(),
            "psnr": psnr(found, images).mean(),
            "ssim": ssim(found, images),
            "psnr_coded": psnr(coded, images).mean(),
            "support_size": stats["support_size"],
            "bits_per_vector": stats["bits_per_vector"],
            "error": error,
            "length": z.square().sum(1).mean(),
        }
        counts = dict.fromkeys(_OF_PATCHES, patches) | dict.fromkeys(_OF_LATENTS, latents)
        added = {name: mean.double() * counts[name] for name, mean in means.items()}
        added |= {"patches": z.new_tensor(patches).double(), "latents": z.new_tensor(latents).double()}
        added |= {"shares": weights.double().sum(0), "used": (weights > SUPPORT).double().sum(0)}
        self._gap = torch.maximum(self._gap.to(stats["gap"]), stats["gap"])
        self._sums = {name: self._sums[name] + value if self._sums else value for name, value in added.items()}

    def shares(self) -> Tensor:
        """How much each code was used ``[k]``, on this device."""
        return self._sums["shares"] / self._sums["latents"]

    def metrics(self, gather: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """The figures, by name; those of codes are left out where nothing was quantized.

        Args:
            gather: Puts a tensor of each device side by side, in a new first dimension.
        """
        sums = {name: gather(value).sum(0) for name, value in self._sums.items()}
        patches, latents = sums["patches"], sums["latents"]
        found = {name: sums[name] / patches for name in ("mse", "psnr", "ssim")}
        found["quantization_error"] = sums["error"] / sums["length"]
        bits = sums["bits_per_vector"] / latents
        if len(sums["shares"]):
            total = entropy(sums["shares"] / latents)
            found["perplexity"] = total.exp2()
            found["usage"] = (sums["used"] > 0).double().mean()
            found["support_size"] = sums["support_size"] / latents
            found["gap"] = gather(self._gap).amax()
            found["psnr_coded"] = sums["psnr_coded"] / patches
            # An index costs the entropy of all of them, which a batch alone underestimates.
            bits = bits if self._mixes else total
        found["bits_per_pixel"] = torch.as_tensor(bits_per_pixel(float(bits), self._stride))
        return {name: float(value) for name, value in found.items()}
