"""The deployed form: a fixed number of iterations of plain operators, which any runtime can run.

An iteration is one matrix product, one absolute value, two scalings and two additions; see `_splitting`
for ADMM with the state t. Here all latents share one step, so that all iterations share one matrix.

Shapes: n latents, k codes, d width of a code.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from edge_sdk.errors import ModelError
from edge_sdk.models.scq.solvers._nearest import SharpNearest
from edge_sdk.models.scq.solvers._problem import Found, Problem, check_anchor, check_codebook, check_penalty

DEFAULT_STEP = 0.3
DEFAULT_ITERATIONS = 100
_RELAXATION = 1.6


class UnrolledSolver(nn.Module):
    """A fixed number of ADMM iterations for a fixed codebook; can be exported and differentiated.

    Args:
        codebook: The codes `[k, d]`.
        penalty: The problem's penalty.
        iterations: How many; the more, the nearer to the optimum.
        anchor: ``vq`` or ``none``.
        step: ADMM's step relative to the mean squared norm of a code. Latents outside the hull of the codes
            want about 1, latents inside as little as 1e-3: try some on real latents. None for 0.3.

    Raises:
        ModelError: A setting is out of range.
    """

    repeat: Tensor
    start: Tensor
    latent: Tensor
    anchors: Tensor | None
    ones: Tensor

    def __init__(
        self, codebook: Tensor, penalty: float, iterations: int, anchor: str = "vq", step: float | None = None
    ) -> None:
        super().__init__()
        check_codebook(codebook)
        check_penalty(penalty)
        check_anchor(anchor)
        self.iterations = _checked_iterations(iterations)
        codebook = codebook.detach()
        repeat, start, latent, anchors = _matrices(codebook, penalty, anchor == "vq", step)
        buffers = {"repeat": repeat, "start": start, "latent": latent, "anchors": anchors}
        buffers |= {"ones": codebook.new_ones(len(codebook), 1)}
        self.nearest = SharpNearest(codebook)
        for name, buffer in buffers.items():
            self.register_buffer(name, None if buffer is None else buffer.contiguous())

    def forward(self, z: Tensor) -> Tensor:
        """The weights `[n, k]` of latents `[n, d]`."""
        offset = z @ self.latent
        if self.anchors is None:
            offset = offset + self.start
        else:
            offset = offset + self.nearest(z) @ self.anchors
        return _iterate(offset, self.repeat, self.ones, self.iterations)


def weights(problem: Problem, iterations: int = DEFAULT_ITERATIONS, step: float | None = None) -> Found:
    """The weights after some iterations, differentiable through all of them.

    Args:
        problem: What to solve.
        iterations: How many.
        step: As `UnrolledSolver` takes it.

    Raises:
        ModelError: A setting is out of range.
    """
    _checked_iterations(iterations)
    repeat, start, latent, anchors = _matrices(problem.codebook, problem.penalty, problem.anchor is not None, step)
    offset = problem.z @ latent + (start if anchors is None else anchors[problem.anchor])
    ones = repeat.new_ones(len(repeat), 1)
    return Found(_iterate(offset, repeat, ones, iterations), iterations)


def _matrices(
    codebook: Tensor, penalty: float, anchored: bool, step: float | None
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """What the iterations are made of, in the codebook's precision.

    Returns:
        The matrix of an iteration `[k, k]`, the constant part of the offset `[k]`, the matrix from a latent
        to its part of the offset `[d, k]`, and the constant part with each code as the anchor `[k, k]`.
    """
    step = DEFAULT_STEP if step is None else step
    if not (math.isfinite(step) and step > 0):
        raise ModelError(f"the step of the unrolled solver is {step:g}: give a finite number above 0, such as 0.3.")
    codes = codebook.double()
    hessian = codes @ codes.T + penalty * torch.eye(len(codes), dtype=codes.dtype, device=codes.device)
    rho = step * hessian.diagonal().mean()
    inverse = torch.linalg.inv(hessian + rho * torch.eye(len(codes), dtype=codes.dtype, device=codes.device))
    sums = inverse.sum(1)
    solution = inverse - sums[:, None] * sums / sums.sum()
    start = _RELAXATION * sums / sums.sum()
    repeat = _RELAXATION * rho * solution
    latent = _RELAXATION * codes.T @ solution
    anchors = start + _RELAXATION * penalty * solution if anchored else None
    dtype = codebook.dtype
    return repeat.to(dtype), start.to(dtype), latent.to(dtype), None if anchors is None else anchors.to(dtype)


def _iterate(offset: Tensor, repeat: Tensor, ones: Tensor, iterations: int) -> Tensor:
    """``t + relaxation (x - max(t, 0))`` from the solution without signs, then onto the simplex."""
    state = offset / _RELAXATION
    for _ in range(iterations):
        size = state.abs()
        state = offset + size @ repeat + (1 - _RELAXATION / 2) * state - (_RELAXATION / 2) * size
    positive = state.clamp(min=0)
    return positive / (positive @ ones)  # a product, for delegates lack the sum


def _checked_iterations(iterations: int) -> int:
    if iterations < 1:
        raise ModelError(f"the unrolled solver was given {iterations} iterations: give at least 1, such as 100.")
    return iterations
