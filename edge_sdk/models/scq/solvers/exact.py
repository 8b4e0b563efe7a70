"""The exact solver: a guess of the active codes by ADMM, then their weights by linear algebra.

Latents whose guess has settled are solved on it, and those whose signs then fit are done; the few wrong
signs are exchanged and solved again (block principal pivoting), and what is still wrong goes on with
ADMM. What ADMM does not settle goes down to the optimum by an active-set method, which always ends.
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
from edge_sdk.models.scq.solvers._problem import Found, Problem, least_penalty
from edge_sdk.models.scq.solvers._splitting import Basis, Splitting
from edge_sdk.models.scq.solvers._support import groups, stationary

_CHUNK_NUMBERS = {"cpu": 1 << 20, "cuda": 1 << 24}  # latents times codes that are solved together
_BLOCK = 20  # iterations of ADMM between two looks at the supports
_SETTLED = 4  # a support that changed in so many codes at most is solved on
_BLOCKS = 20  # then ADMM is given up
_PATIENCE = 10  # so many blocks, and a support is solved on whether it has settled or not
_EXCHANGES = 5
_LEAST, _ROUNDINGS = 1e-10, 4  # a multiplier below this, or so many roundings of its terms, counts as 0


def weights(problem: Problem) -> Found:
    """Solves to the last digits of float64, whatever the precision of the latents.

    A penalty below `least_penalty` is raised to it; the gap is that of the problem as it was given.
    """
    inner = problem.detached(torch.float64)
    inner = Problem(inner.z, inner.codebook, max(inner.penalty, least_penalty(inner.codebook)), inner.anchor)
    n, k = len(inner.z), len(inner.codebook)
    found, residual = problem.z.new_empty(n, k), torch.empty_like(inner.z)
    rows = max(1, _CHUNK_NUMBERS["cpu" if inner.z.device.type == "cpu" else "cuda"] // k)
    basis = Basis.of(inner.codebook, torch.float32)
    iterations = 0
    for part in torch.arange(n, device=inner.z.device).split(rows):
        chunk = _Chunk(inner.rows(part), basis)
        chunk.solve()
        found[part], residual[part] = chunk.weights.to(found.dtype), chunk.dual * inner.penalty
        iterations = max(iterations, chunk.iterations)
    return Found(_Implicit.apply(problem.z, problem.codebook, found, residual, inner.penalty), iterations, residual)


class _Chunk:
    """Latents that are solved together.

    Args:
        problem: In float64, without gradients.
        basis: Of its codebook.

    Attributes:
        weights: `[n, k]`.
        dual: ``(z - p C) / penalty`` `[n, d]`.
        iterations: Of ADMM, for the slowest latent.
    """

    def __init__(self, problem: Problem, basis: Basis) -> None:
        self._problem, self._basis = problem, basis
        self.weights = problem.z.new_zeros(len(problem.z), len(problem.codebook))
        self.dual = torch.zeros_like(problem.z)
        self.iterations = 0
        self._todo = torch.arange(len(problem.z), device=problem.z.device)
        terms = problem.z.norm(dim=1, keepdim=True) * problem.codebook.norm(dim=1).max() / problem.penalty
        self._least = _LEAST + _ROUNDINGS * torch.finfo(problem.z.dtype).eps * terms

    def solve(self) -> None:
        """Fills the attributes."""
        splitting = Splitting(self._problem, self._basis)
        before = splitting.support
        for block in range(1, _BLOCKS + 1):
            splitting.run(_BLOCK)
            self.iterations += _BLOCK
            support = splitting.support
            tried = (support != before).sum(1) <= (_SETTLED if block % _PATIENCE else support.shape[1])
            before = support
            if not tried.any():
                continue
            tried = tried.nonzero()[:, 0]
            left = torch.ones(len(support), dtype=torch.bool, device=support.device)
            left[tried] = ~self._exchange(self._todo[tried], support[tried])
            left = left.nonzero()[:, 0]
            self._todo = self._todo[left]
            if not len(left):
                return
            splitting.keep(left)
            before = before[left]
        rows = self._todo
        found, self.dual[rows], steps = descend(self._problem.rows(rows), splitting.weights, self._least[rows])
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
        most = torch.full_like(places, support.shape[1] + 1)
        for _ in range(_EXCHANGES):
            some = support.any(1)  # ADMM may have all weights at 0 early on
            places, support, most = places[some], support[some], most[some]
            if not len(places):
                break
            found = stationary(self._problem.rows(rows[places]), support)
            least = self._least[rows[places]]
            wrong = torch.where(support, found.slack < -least, found.slack > least).sum(1)
            right = wrong == 0
            done = rows[places[right]]
            self.weights[done] = _normalised(found.weights[right])
            self.dual[done] = found.dual[right]
            solved[places[right]] = True
            again = ~right & (wrong < most)
            places, support, most = places[again], found.slack[again] > 0, wrong[again]
        return solved


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
        codes, gradient = codebook.double(), gradient.double()
        n, k = found.shape
        linear, latents = codes.new_zeros(n, k + 1), torch.empty_like(residual)
        for group in groups(codes, ctx.penalty, found > 0):
            w, latents[group.rows] = group.adjoint(group.centred(group.pick(gradient)))
            group.spread(w, linear)
        to_codes = linear[:, :k].T @ residual - found.double().T @ latents
        return latents.to(codebook.dtype), to_codes.to(codebook.dtype), None, None, None
