"""A primal active-set method, for the few latents whose active codes ADMM does not find.

It goes down from feasible weights to the solution on their support; where a weight would turn negative
it stops there and drops that code, and at a solution it takes in the code with the largest multiplier.
Every step lowers the objective, so that it ends after finitely many.

Source: Lawson and Hanson, "Solving Least Squares Problems", 1974, chapter 23.

Shapes: n latents, k codes, d width of a code.
"""

from __future__ import annotations

import torch
from torch import Tensor

from edge_sdk.models.scq.solvers._problem import Problem
from edge_sdk.models.scq.solvers._support import Systems

_STEPS_PER_CODE, _STEPS = 3, 50


def descend(systems: Systems, problem: Problem, weights: Tensor, least: Tensor) -> tuple[Tensor, Tensor, int]:
    """Solves from some start.

    Args:
        systems: Of the problem's codebook and penalty.
        problem: Without gradients.
        weights: The start, rows on the simplex `[n, k]`.
        least: A multiplier below this counts as 0 `[n, 1]`.

    Returns:
        The weights, ``z - p C`` `[n, d]`, and the steps of the slowest latent.
    """
    weights = weights.clone()
    support = weights > 0
    residual = torch.zeros_like(problem.z)
    entered = torch.full_like(weights[:, 0], -1, dtype=torch.long)
    todo = torch.arange(len(weights), device=weights.device)
    step = 0
    while len(todo) and step < _STEPS_PER_CODE * weights.shape[1] + _STEPS:
        step += 1
        found = systems.stationary(problem.rows(todo), support[todo])
        here = weights[todo]
        negative = found.weights < 0
        part = torch.where(negative, here / (here - found.weights), torch.inf)
        shortest = part.amin(1, keepdim=True)
        dropped = negative & (part <= shortest)
        moved = torch.lerp(here, found.weights, shortest.clamp(max=1))
        weights[todo] = torch.where(dropped, 0, moved).clamp(min=0)
        residual[todo] = found.residual
        # A code that leaves at once, without a step, came in by rounding alone.
        idle = dropped.gather(1, entered[todo, None].clamp(min=0))[:, 0] & (entered[todo] >= 0) & (shortest[:, 0] == 0)
        at_solution = ~negative.any(1)
        slack = torch.where(support[todo], -torch.inf, found.slack)
        largest, code = slack.max(1)
        enters = at_solution & (largest > least[todo, 0])
        support[todo] &= ~dropped
        support[todo[enters], code[enters]] = True
        entered[todo] = torch.where(enters, code, entered[todo])
        todo = todo[(enters | ~at_solution) & ~idle]
    return weights, residual, step
