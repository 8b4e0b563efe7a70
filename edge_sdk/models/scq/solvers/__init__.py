"""Solvers of the quantization problem of SCQ, one interface, all differentiable.

For a latent z and codes C they minimise over the simplex ``||z - p C||^2 + penalty ||p - anchor||^2``.
Source: Gautam et al., "Soft Convex Quantization", L4DC 2024, arXiv 2310.03004.

Shapes: n latents, k codes, d width of a code.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from edge_sdk.errors import ModelError, unknown_name
from edge_sdk.models.scq.solvers import exact, reference, relaxed, unrolled
from edge_sdk.models.scq.solvers._problem import Found, make, relative_gap
from edge_sdk.models.scq.solvers.unrolled import UnrolledSolver

__all__ = ["SOLVERS", "TOLERANCE", "Solution", "UnrolledSolver", "solve"]

TOLERANCE = 1e-6
"""The relative duality gap up to which a latent counts as solved."""

_TABLE: dict[str, Callable[..., Found]] = {
    "exact": exact.weights,
    "relaxed": relaxed.weights,
    "unrolled": unrolled.weights,
    "cvxpylayers": reference.cvxpylayers_weights,
    "proxsuite": reference.proxsuite_weights,
}
SOLVERS: tuple[str, ...] = tuple(_TABLE)


@dataclass(frozen=True)
class Solution:
    """What a solver found.

    Attributes:
        weights: The weight of every code `[n, k]`, rows on the simplex; differentiable with respect to
            latents and codebook.
        iterations: How many iterations the slowest latent took.
        measure: Gives the gap `[m]` of some of the latents, by their places `[m]`.
    """

    weights: Tensor
    iterations: int
    measure: Callable[[Tensor], Tensor] = field(repr=False)

    @cached_property
    def gap(self) -> Tensor:
        """How far the objective can be above the optimum at most, relative to the objective `[n]`."""
        return self.measure(torch.arange(len(self.weights), device=self.weights.device))

    @property
    def converged(self) -> Tensor:
        """Whether ``gap`` is at most `TOLERANCE` `[n]`."""
        return self.gap <= TOLERANCE


def solve(
    z: Tensor,
    codebook: Tensor,
    *,
    penalty: float,
    anchor: Literal["vq", "none"] = "vq",
    solver: str = "exact",
    **options: Any,
) -> Solution:
    """Finds the weights with which codes make up latents.

    Args:
        z: The latents `[n, d]`, float32 or float64.
        codebook: The codes `[k, d]`.
        penalty: The weight of ``||p - anchor||^2``.
        anchor: ``vq`` for the nearest code, as in the paper (a constant for the gradient), ``none`` for 0.
        solver: One of `SOLVERS`.
        options: Of the solver: ``iterations`` and ``step`` of ``unrolled``.

    Raises:
        ModelError: The input is not a problem, or the solver is unknown.
        MissingDependencyError: A reference solver is not installed.
    """
    if torch.compiler.is_compiling():  # what follows depends on the data: the compiler is to go around it
        opaque: Callable[..., Solution] = torch.compiler.disable(_solve)  # type: ignore[assignment]
        return opaque(z, codebook, penalty, anchor, solver, options)
    return _solve(z, codebook, penalty, anchor, solver, options)


def _solve(
    z: Tensor, codebook: Tensor, penalty: float, anchor: str, solver: str, options: Mapping[str, Any]
) -> Solution:
    if solver not in _TABLE:
        raise ModelError(unknown_name("solver", solver, SOLVERS))
    known = list(inspect.signature(_TABLE[solver]).parameters)[1:]
    for name in options:
        if name not in known:
            raise ModelError(f"the solver '{solver}' has no option '{name}': it has {', '.join(known) or 'none'}.")
    problem = make(z, codebook, penalty, anchor)
    found = _TABLE[solver](problem, **options)

    def measure(rows: Tensor) -> Tensor:
        residual = None if found.residual is None else found.residual[rows]
        gap = relative_gap(problem.detached(torch.float64).rows(rows), found.weights.detach()[rows].double(), residual)
        return gap.to(z.dtype)

    return Solution(found.weights, found.iterations, measure)
