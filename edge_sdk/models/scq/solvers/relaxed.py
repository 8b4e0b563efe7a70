"""The paper's scalable relaxation: one ridge system for all latents, then a projection on the simplex.

It solves another problem than the others: its weights are feasible, not optimal.
Source: Gautam et al., "Soft Convex Quantization", L4DC 2024, arXiv 2310.03004.
"""

from __future__ import annotations

import torch

from edge_sdk.models.scq.solvers._problem import Found, Problem, project


def weights(problem: Problem) -> Found:
    """The weights, at once.

    The ridge system ``(C C^T + penalty I) p = C z + penalty anchor`` is solved in the d dimensions of a
    latent: ``p = anchor + C (C^T C + penalty I)^-1 (z - C^T anchor)``.
    """
    codes = problem.codebook.double()
    z = problem.z.double()
    offset = z if problem.anchor is None else z - codes[problem.anchor]
    ridge = codes.T @ codes + problem.penalty * torch.eye(codes.shape[1], dtype=codes.dtype, device=codes.device)
    factor = torch.linalg.cholesky(ridge)
    rows = problem.plus_anchor(torch.cholesky_solve(offset.T, factor).T @ codes.T)
    return Found(project(rows).to(problem.z.dtype), 1)
