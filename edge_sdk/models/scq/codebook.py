"""The codes of a quantizer, and how they are learned from the vectors that use them.

Shapes: n latents, k codes, d width of a code.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from edge_sdk.errors import MissingDependencyError, ModelError

_MASS_DECAY = 0.99  # of the moving average of the use of codes that are learned by gradient
_DEAD = 0.05  # a code is dead with less than this share of the use that is even
_RIDGE = 1e-2  # how strongly codes stay where they are, relative to their mean weight
_FIT = 64  # vectors for each code that k-means looks at, at most
_JITTER = 1e-2  # of codes that start at the same vector, relative to its entries


class Codebook(nn.Module):
    """Codes that start at the k-means of a batch and then follow the vectors that use them.

    With ``decay`` the codes are no parameters. Moving averages of ``P^T P`` and ``P^T Z`` over batches are
    kept, and after each step the codes are ``(P^T P + r I)^-1 (P^T Z + r C)``: the codes with the smallest
    squared error ``||Z - P C||^2`` for the weights as they are, drawn to where they were by a small r. For
    weights that are 0 or 1 this is the moving average of VQ-VAE; for mixtures that average, of the vectors
    by their weights, would draw all codes into the middle, and the error would grow.
    Source: van den Oord et al., "Neural Discrete Representation Learning", NeurIPS 2017, appendix A.1;
    Mairal et al., "Online Dictionary Learning for Sparse Coding", ICML 2009.

    A code that is hardly used is put at a vector of the batch, drawn by the squared error.

    Args:
        num_codes: How many codes.
        code_dim: Width of a code.
        decay: Of the moving averages; None for codes that are learned by gradient.
        mixes: Whether weights are mixtures; else they are 0 or 1, and ``P^T P`` is diagonal.

    Attributes:
        codes: ``[k, d]``.
        mass: Moving average of the mean weight of each code ``[k]``.
        started: Whether k-means has been.

    Raises:
        ModelError: A size is below 1, or the decay is not between 0 and 1.
    """

    codes: Tensor
    mass: Tensor
    started: Tensor
    products: Tensor
    sums: Tensor

    def __init__(self, num_codes: int, code_dim: int, decay: float | None = 0.99, *, mixes: bool = True) -> None:
        super().__init__()
        if num_codes < 1 or code_dim < 1:
            raise ModelError(f"a codebook of {num_codes} codes that are {code_dim} wide: both must be at least 1.")
        if decay is not None and not 0 < decay < 1:
            raise ModelError(f"ema_decay is {decay:g}: give a number between 0 and 1, or None to learn by gradient.")
        self.decay = decay
        self.mixes = mixes
        codes = torch.randn(num_codes, code_dim) / math.sqrt(code_dim)
        if decay is None:
            self.codes = nn.Parameter(codes)
        else:
            self.register_buffer("codes", codes)
            self.register_buffer("sums", torch.zeros(num_codes, code_dim))
            if mixes:
                self.register_buffer("products", torch.zeros(num_codes, num_codes))
        self.register_buffer("mass", torch.full((num_codes,), 1 / num_codes))
        self.register_buffer("started", torch.tensor(False))

    def rows(self, z: Tensor) -> Tensor:
        """Latents ``[b, d, h, w]`` or ``[n, d]`` as ``[n, d]``, in the codes' precision.

        Raises:
            ModelError: They have another shape or width, there are none, or some are not finite.
        """
        width = self.codes.shape[1]
        if z.ndim not in (2, 4) or z.shape[1] != width:
            raise ModelError(
                f"the latents have the shape {list(z.shape)} and the codes are {width} wide: expected "
                f"[n, {width}] or [batch, {width}, height, width]."
            )
        if not z.numel():
            raise ModelError(f"there are no latents to quantize (shape {list(z.shape)}): give at least one.")
        flat = z.permute(0, 2, 3, 1).reshape(-1, width) if z.ndim == 4 else z
        if bad := int((~flat.detach().isfinite().all(1)).sum()):
            raise ModelError(
                f"{bad} of {len(flat)} latents hold NaN or infinity: look for a learning rate that is too high."
            )
        return flat.to(self.codes.dtype)

    @torch.no_grad()
    def start(self, rows: Tensor) -> None:
        """Puts the codes at the k-means of latents ``[n, d]``, unless that was done before.

        Raises:
            MissingDependencyError: scikit-learn is not installed.
        """
        if self.started:
            return
        self.codes.copy_(_same_everywhere(_k_means(rows.detach(), len(self.codes))))
        self.mass.fill_(1 / len(self.codes))
        if self.decay is not None:
            self.sums.copy_(self.codes / len(self.codes))
            if self.mixes:
                self.products.copy_(torch.diag(self.mass))
        self.started.fill_(True)

    @torch.no_grad()
    def follow(self, rows: Tensor, weights: Tensor) -> None:
        """Takes note of a batch: moves the codes where they follow, and revives dead ones.

        Args:
            rows: Latents ``[n, d]``.
            weights: Their weights ``[n, k]``.
        """
        keep = _MASS_DECAY if self.decay is None else self.decay
        errors = (rows - weights @ self.codes).square().sum(1)
        self.mass.lerp_(_mean_of_all(weights.mean(0)), 1 - keep)
        if self.decay is not None:
            self.sums.lerp_(_mean_of_all(weights.T @ rows / len(rows)), 1 - keep)
            if self.mixes:
                self.products.lerp_(_mean_of_all(weights.T @ weights / len(rows)), 1 - keep)
            self.codes.copy_(self._solved())
        self._revive(rows, errors)

    def _solved(self) -> Tensor:
        """The codes that make the squared error smallest, ``[k, d]``."""
        ridge = _RIDGE / len(self.codes)
        wanted = self.sums + ridge * self.codes
        if not self.mixes:
            return wanted / (self.mass + ridge)[:, None]
        # In float64: codes that are used together make the products nearly singular.
        system = self.products.double()
        system.diagonal().add_(ridge)
        return torch.cholesky_solve(wanted.double(), torch.linalg.cholesky(system)).to(wanted.dtype)

    def _revive(self, rows: Tensor, errors: Tensor) -> None:
        even = 1 / len(self.codes)
        dead = (self.mass < _DEAD * even).nonzero()[:, 0]
        dead = dead[: len(rows)]
        if not len(dead):
            return
        # As many as wanted can be drawn, even where there are no errors.
        chance = errors + errors.mean() * 1e-6 + torch.finfo(errors.dtype).tiny
        found = _same_everywhere(rows[torch.multinomial(chance, len(dead))])
        self.codes[dead] = found
        self.mass[dead] = even
        if self.decay is not None:
            self.sums[dead] = even * found
            if self.mixes:
                self.products[dead] = 0
                self.products[:, dead] = 0
                self.products[dead, dead] = even


def _k_means(rows: Tensor, count: int) -> Tensor:
    """The means of ``count`` groups of latents; where there are no more latents than that, themselves."""
    if len(rows) <= count:
        again = torch.randint(len(rows), (count - len(rows),), device=rows.device)
        spread = _JITTER * rows.std(correction=0)
        return torch.cat([rows, rows[again] + spread * torch.randn_like(rows[again])])
    try:
        from sklearn.cluster import KMeans
    except ImportError as error:
        raise MissingDependencyError(
            f"codes start at k-means, which needs scikit-learn, and that cannot be imported ({error}): "
            "pip install 'edge-sdk[train]'."
        ) from error
    sample = rows[:: math.ceil(len(rows) / (_FIT * count))].cpu().numpy()
    seed = int(torch.randint(2**31 - 1, ()))
    fitted = KMeans(count, n_init=1, max_iter=50, random_state=seed).fit(sample)  # type: ignore[arg-type]
    return torch.from_numpy(fitted.cluster_centers_).to(rows)


def _mean_of_all(value: Tensor) -> Tensor:
    """The mean over the processes that train together."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        value = value.contiguous()
        torch.distributed.all_reduce(value)
        value /= torch.distributed.get_world_size()
    return value


def _same_everywhere(value: Tensor) -> Tensor:
    """The value of the first of the processes that train together."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        value = value.contiguous()
        torch.distributed.broadcast(value, 0)
    return value
