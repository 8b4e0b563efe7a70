"""The exact solver: a guess of the active codes by ADMM, then their weights by linear algebra.

Latents whose guess has settled are solved on it, and those whose signs then fit are done; wrong signs are
exchanged and solved again (block principal pivoting) as long as they get fewer, and what is still wrong
goes on with ADMM. What ADMM does not settle goes down to the optimum by an active-set method, which always ends.
The gradient is that of the linear system on the active codes.

Source: Júdice and Pires, "A block principal pivoting algorithm for large-scale strictly monotone linear
complementarity problems", 1994, for the exchange.

Shapes: n latents, k codes, d width of a code.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from edge_sdk.models.scq.solvers._descent import descend
from edge_sdk.models.scq.solvers._problem import Found, Problem, least_penalty, on_device
from edge_sdk.models.scq.solvers._splitting import Basis, Splitting
from edge_sdk.models.scq.solvers._support import Systems

_CHUNK_NUMBERS = {"cpu": 1 << 20, "cuda": 1 << 24}  # latents times codes that are solved together
_BLOCK = 40  # iterations of ADMM between two looks at the supports
_SETTLED = 8  # a support that changed in so many codes at most, lately, is solved on
_BLOCKS = 14  # then ADMM is given up
_PATIENCE = 3  # so many exchanges that leave as many wrong signs, and ADMM goes on
_LEAST, _ROUNDINGS = 1e-10, 4  # a multiplier below this, or so many roundings of its terms, counts as 0


def weights(problem: Problem) -> Found:
    """Solves to the last digits of float64, whatever the precision of the latents.

    A penalty below `least_penalty` is raised to it; the gap is that of the problem as it was given.
    """
    inner = problem.detached(torch.float64)
    penalty = max(inner.penalty, least_penalty(inner.codebook))
    middle = inner.codebook.mean(0)  # as weights sum to 1, only what differs from it counts
    inner = Problem(inner.z - middle, inner.codebook - middle, penalty, inner.anchor)
    n, k = len(inner.z), len(inner.codebook)
    found, residual = problem.z.new_empty(n, k), torch.empty_like(inner.z)
    rows = max(1, on_device(_CHUNK_NUMBERS, inner.z.device) // k)
    basis, systems = Basis.of(inner.codebook, torch.float32), Systems(inner.codebook, penalty)
    iterations = 0
    for part in torch.arange(n, device=inner.z.device).split(rows):
        chunk = _Chunk(inner.rows(part), basis, systems)
        chunk.solve()
        found[part], residual[part] = chunk.weights.to(found.dtype), chunk.residual
        iterations = max(iterations, chunk.iterations)
    return Found(_Implicit.apply(problem.z, problem.codebook, found, residual, penalty), iterations, residual)


class _Chunk:
    """Latents that are solved together.

    Args:
        problem: In float64, without gradients.
        basis: Of its codebook.
        systems: Of its codebook and penalty.

    Attributes:
        weights: `[n, k]`.
        residual: ``z - p C`` `[n, d]`.
        iterations: Of ADMM, for the slowest latent.
    """

    def __init__(self, problem: Problem, basis: Basis, systems: Systems) -> None:
        self._problem, self._basis, self._systems = problem, basis, systems
        self.weights = problem.z.new_zeros(len(problem.z), len(problem.codebook))
        self.residual = torch.zeros_like(problem.z)
        self.iterations = 0
        self._todo = torch.arange(len(problem.z), device=problem.z.device)
        terms = problem.z.norm(dim=1, keepdim=True) * problem.codebook.norm(dim=1).max() / problem.penalty
        self._least = _LEAST + _ROUNDINGS * torch.finfo(problem.z.dtype).eps * terms

    def solve(self) -> None:
        """Fills the attributes."""
        splitting = Splitting(self._problem, self._basis)
        for _ in range(_BLOCKS):
            splitting.run(_BLOCK)
            self.iterations += _BLOCK
            support = splitting.support
            tried = (splitting.changes <= _SETTLED).nonzero()[:, 0]
            left = torch.ones_like(self._todo, dtype=torch.bool)
            left[tried] = ~self._exchange(self._todo[tried], support[tried])
            left = left.nonzero()[:, 0]
            self._todo = self._todo[left]
            if not len(left):
                return
            splitting.keep(left)
        rows = self._todo
        found, self.residual[rows], steps = descend(
            self._systems, self._problem.rows(rows), splitting.weights, self._least[rows]
        )
        self.weights[rows] = _normalised(found)
        self.iterations += steps

    def _exchange(self, rows: Tensor, support: Tensor) -> Tensor:
        """Solves on supports, exchanges wrong signs, and again; keeps what is right.

        Args:
            rows: The latents.
            support: The guesses.

        Returns:
            Which are solved.
        """
        solved = torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
        places = torch.arange(len(rows), device=rows.device)
        fewest, patience = torch.full_like(places, support.shape[1] + 1), torch.full_like(places, _PATIENCE)
        while True:
            some = support.any(1) & (patience > 0)  # ADMM may have all weights at 0 early on
            places, support, fewest, patience = places[some], support[some], fewest[some], patience[some]
            if not len(places):
                return solved
            found = self._systems.stationary(self._problem.rows(rows[places]), support)
            least = self._least[rows[places]]
            wrong = ((found.slack > 0) ^ support).logical_and_(found.slack.abs() > least).sum(1)
            right = wrong == 0
            done = rows[places[right]]
            self.weights[done], self.residual[done] = _normalised(found.weights[right]), found.residual[right]
            solved[places[right]] = True
            patience = torch.where(wrong < fewest, _PATIENCE, patience - 1)
            places, support, patience = places[~right], found.slack[~right] > 0, patience[~right]
            fewest = torch.minimum(wrong, fewest)[~right]


def _normalised(weights: Tensor) -> Tensor:
    weights = weights.clamp(min=0)
    return weights / weights.sum(1, keepdim=True)


class _Implicit(torch.autograd.Function):
    """The weights, with the gradient of the optimality conditions on the active codes."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, codebook: Tensor, found: Tensor, residual: Tensor, penalty: float) -> Tensor:
        ctx.save_for_backward(codebook, found, residual)
        ctx.penalty = penalty
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        codebook, found, residual = ctx.saved_tensors
        codes = codebook.double()
        codes = codes - codes.mean(0)
        linear = Systems(codes, ctx.penalty).adjoint(gradient.double(), found > 0)
        latents = linear @ codes
        to_codes = None
        if ctx.needs_input_grad[1]:  # codes that follow their latents have no gradient
            to_codes = (linear.T @ residual - found.double().T @ latents).to(codebook.dtype)
        return latents.to(codebook.dtype), to_codes, None, None, None
