"""Soft convex quantization as a layer: each latent becomes a convex mixture of codes.

Source: Gautam et al., "Soft Convex Quantization", L4DC 2024, arXiv 2310.03004.

Shapes: b batch size, n latents, k codes, d width of a code, h and w places.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn

from edge_sdk.errors import ModelError, unknown_name
from edge_sdk.models.scq.codebook import Codebook
from edge_sdk.models.scq.solvers import SOLVERS, TOLERANCE, UnrolledSolver, solve
from edge_sdk.models.scq.solvers._problem import Anchor, check_anchor, check_penalty
from edge_sdk.models.scq.statistics import weight_statistics

_SAMPLED = 256  # latents whose gap and rate are measured in a step of training

Quantized = tuple[Tensor, Tensor, dict[str, Tensor]]
"""What a quantizer gives: the quantized latents, the weights ``[n, k]``, and statistics as scalars."""


class SCQLayer(nn.Module):
    """Replaces latents by the mixtures of codes that are nearest, with a penalty on the weights.

    In training the codes start at k-means of the first batch, then follow or are learned (see
    `Codebook`); in evaluation nothing changes. The penalty and the anchor are kept with the weights.

    Args:
        num_codes: How many codes.
        code_dim: Width of a code and a latent.
        scq_lambda: Weight of the penalty ``||p - anchor||^2``, above 0. It is relative to the squared
            length of a latent, which `SCQAutoencoder` keeps near 1.
        solver: One of `edge_sdk.models.scq.solvers.SOLVERS`.
        anchor: ``vq``, the nearest code, as in the paper, or ``none``.
        ema_decay: Of the averages that codes follow; None for codes that are learned by gradient.

    Raises:
        ModelError: An argument does not fit.
    """

    penalty: Tensor
    anchored: Tensor

    def __init__(
        self,
        num_codes: int,
        code_dim: int,
        scq_lambda: float = 1e-3,
        solver: str = "exact",
        anchor: Anchor = "vq",
        ema_decay: float | None = 0.99,
    ) -> None:
        super().__init__()
        if solver not in SOLVERS:
            raise ModelError(unknown_name("solver", solver, SOLVERS))
        check_anchor(anchor)
        check_penalty(scq_lambda, "scq_lambda")
        self.codebook = Codebook(num_codes, code_dim, ema_decay)
        self.solver = solver
        self.register_buffer("penalty", torch.tensor(scq_lambda, dtype=torch.float64))
        self.register_buffer("anchored", torch.tensor(anchor == "vq"))

    @property
    def scq_lambda(self) -> float:
        """Weight of the penalty."""
        return float(self.penalty)

    @property
    def anchor(self) -> Anchor:
        """Where weights are drawn to."""
        return "vq" if self.anchored else "none"

    def forward(self, z: Tensor) -> Quantized:
        """Quantizes latents.

        Args:
            z: ``[b, d, h, w]`` or ``[n, d]``.

        Returns:
            The quantized latents in the shape of ``z``, the weights ``[n, k]`` with n = b h w, and
            statistics: those of `weight_statistics`; ``error``, the mean squared distance of a latent from
            its mixture, differentiable with respect to codes that are learned by gradient; ``gap``, the
            largest relative duality gap, and ``converged``, the share of latents that are solved, both of the
            first 256 latents in training.

        Raises:
            ModelError: The latents have another shape or width, there are none, or some are not finite.
        """
        with torch.autocast(z.device.type, enabled=False):
            rows = self.codebook.rows(z)
            if self.training:
                self.codebook.start(rows)
            # A copy, for the codes change before the backward pass needs them.
            codes = self.codebook.codes.clone()
            solution = solve(rows, codes, penalty=self.scq_lambda, anchor=self.anchor, solver=self.solver)
            weights = solution.weights
            mixed = weights @ codes
            stats = weight_statistics(weights, sampled=_SAMPLED if self.training else None)
            stats["error"] = squared_error(rows, weights, codes)
            measured = min(_SAMPLED, len(rows)) if self.training else len(rows)
            gap = solution.measure(torch.arange(measured, device=rows.device))
            stats["gap"] = gap.max()
            stats["converged"] = (gap <= TOLERANCE).to(rows.dtype).mean()
            if self.training:
                self.codebook.follow(rows.detach(), weights.detach())
        return unrows(mixed, z), weights, stats

    def deployed(self, iterations: int, step: float | None = None) -> nn.Module:
        """The layer as a graph of plain operators for a runtime, ``z`` to quantized latents.

        Args:
            iterations: Of the solver, whose number is fixed.
            step: Of the solver, None for its default.
        """
        codes = self.codebook.codes.detach().clone()
        return DeployedQuantizer(UnrolledSolver(codes, self.scq_lambda, iterations, self.anchor, step), codes)

    def distance(self, z: Tensor, iterations: int, step: float | None = None) -> dict[str, float]:
        """How far what the deployed form gives is from the optimum, relative to its length.

        Args:
            z: Latents as in `forward`.
            iterations: As in `deployed`.
            step: As in `deployed`.

        Returns:
            ``mean`` and ``max`` over the latents.
        """
        return self._distances(z, iterations, [step])[0]

    def best_step(self, z: Tensor, iterations: int, steps: Iterable[float]) -> float:
        """The step with which the deployed form comes nearest to the optimum on latents, in the mean."""
        steps = list(steps)
        found = self._distances(z, iterations, steps)
        return min(zip(steps, found, strict=True), key=lambda pair: pair[1]["mean"])[0]

    @torch.no_grad()
    def _distances(self, z: Tensor, iterations: int, steps: Iterable[float | None]) -> list[dict[str, float]]:
        rows, codes = self.codebook.rows(z), self.codebook.codes
        weights = solve(rows, codes, penalty=self.scq_lambda, anchor=self.anchor, solver="exact").weights
        return [relative_distance(self.deployed(iterations, step)(rows), weights @ codes) for step in steps]


class DeployedQuantizer(nn.Module):
    """A quantizer without checks and statistics, of operators that runtimes have.

    Args:
        weights: From latents ``[n, d]`` to weights ``[n, k]``.
        codes: ``[k, d]``.
    """

    codes: Tensor

    def __init__(self, weights: nn.Module, codes: Tensor) -> None:
        super().__init__()
        self.weights = weights
        self.register_buffer("codes", codes)

    def forward(self, z: Tensor) -> Tensor:
        """Latents ``[b, d, h, w]`` or ``[n, d]`` to quantized ones."""
        width = self.codes.shape[1]
        rows = z.permute(0, 2, 3, 1).reshape(-1, width) if z.ndim == 4 else z
        return unrows(self.weights(rows) @ self.codes, z)


def unrows(rows: Tensor, like: Tensor) -> Tensor:
    """``[n, d]`` in the shape of the latents that it comes from."""
    if like.ndim == 2:
        return rows
    batch, width, height, across = like.shape
    return rows.reshape(batch, height, across, width).permute(0, 3, 1, 2)


def squared_error(rows: Tensor, weights: Tensor, codes: Tensor) -> Tensor:
    """The mean of ``||z - p C||^2``, differentiable with respect to the codes alone."""
    return (rows.detach() - weights.detach() @ codes).square().sum(1).mean()


def relative_distance(found: Tensor, exact: Tensor) -> dict[str, float]:
    """``||found - exact|| / ||exact||`` of rows ``[n, d]``: ``mean`` and ``max``."""
    relative = (found - exact).norm(dim=1) / exact.norm(dim=1).clamp(min=torch.finfo(exact.dtype).tiny)
    return {"mean": cast(float, relative.mean().item()), "max": cast(float, relative.max().item())}
