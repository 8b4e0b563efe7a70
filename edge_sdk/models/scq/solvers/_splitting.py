"""A guess of which codes are active, by ADMM with a step of its own for every latent.

ADMM splits the problem into the quadratic with the sum of the weights fixed, and the signs of the weights.
Its step decides: latents inside the hull of the codes need one near the penalty, latents outside
one near the codes' squared norm, 1e4 times as much. So every latent's step is balanced by its own
residuals, which is cheap because the quadratic is solved in the left singular vectors U of the
codebook, where a step is a number.

Over-relaxed ADMM is Douglas and Rachford's iteration, whose whole state is one matrix t: the weights
are its positive part and the scaled multipliers its negative part.

Sources: Boyd et al., "Distributed Optimization and Statistical Learning via ADMM", 2011 (sections 3.4
and 5.2); Stellato et al., "OSQP", 2020 (section 5.2, the step).

Shapes: n latents, k codes, d width of a code, m singular vectors.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from edge_sdk.models.scq.solvers._problem import Problem

_RELAXATION = 1.6
_FIRST_STEP = 0.3  # of a code's mean squared norm
_FIRST_BALANCE, _BALANCE_EVERY = 5, 10
_MOST_AT_ONCE = 20.0  # a step changes by this factor at most
_WORTHWHILE = 2.0  # and by this one at least
_NEGLIGIBLE = 1e-10  # squared singular values below this part of the largest count as 0
_TINY = 1e-30


@dataclass(frozen=True)
class Basis:
    """The codebook as ``U S V^T``.

    Attributes:
        vectors: U and a column of ones `[k, m + 1]`.
        squares: The squares of S `[m]`.
        project: From a latent to ``U^T C z``: ``V S`` `[d, m]`.
        sums: The sums of U's columns `[m]`.
        rest: The squared norm of the part of a vector of ones that is outside U.
        norm: The mean squared norm of a code.
    """

    vectors: Tensor
    squares: Tensor
    project: Tensor
    sums: Tensor
    rest: float
    norm: float

    @staticmethod
    def of(codebook: Tensor, dtype: torch.dtype) -> Basis:
        """The basis of a codebook in float64, for iterations in a precision."""
        squares, right = torch.linalg.eigh(codebook.T @ codebook)
        kept = squares > squares[-1] * _NEGLIGIBLE
        squares, right = squares[kept], right[:, kept]
        vectors = codebook @ right / squares.sqrt()
        sums = vectors.sum(0)
        rest = len(codebook) - float(sums.square().sum())
        norm = float(codebook.square().sum(1).mean())
        project = right * squares.sqrt()
        vectors = torch.cat([vectors, torch.ones_like(vectors[:, :1])], dim=1)
        return Basis(vectors.to(dtype), squares.to(dtype), project.to(dtype), sums.to(dtype), max(rest, 0.0), norm)


@dataclass(frozen=True)
class _Terms:
    """What stays the same from iteration to iteration while the steps do.

    With ``i = |t| [U, 1]`` an iteration is ``shift = tau + i . shifting`` and
    ``t = relaxation (constant + scale i - shift shifted) [U, 1]^T + positive |t| + own t``, where shift is
    the multiplier of the sum. ``anchor`` is added at the anchor's code.
    """

    tau: Tensor
    shifting: Tensor
    constant: Tensor
    scale: Tensor
    shifted: Tensor
    positive: Tensor
    anchor: Tensor


class Splitting:
    """The iteration, for many latents.

    Args:
        problem: Without gradients.
        basis: Of its codebook, in the precision of the iterations.
    """

    def __init__(self, problem: Problem, basis: Basis) -> None:
        self._basis = basis
        self._penalty = problem.penalty
        self._anchor = problem.anchor
        self._linear = problem.z.to(basis.project.dtype) @ basis.project
        self._step = torch.full_like(self._linear[:, :1], _FIRST_STEP * basis.norm + problem.penalty)
        zeros = self._linear.new_zeros(len(problem.z), len(basis.vectors))
        self._state = zeros + 1 / len(basis.vectors) if problem.anchor is None else problem.plus_anchor(zeros)
        self._iterations = 0

    @property
    def support(self) -> Tensor:
        """Which codes have weights above 0 `[n, k]`."""
        return self._state > 0

    @property
    def weights(self) -> Tensor:
        """The weights so far, in float64 on the simplex `[n, k]`."""
        weights = self._state.double().clamp(min=0)
        # Early on a row may have no weight at all.
        weights.scatter_(1, self._state.argmax(1, keepdim=True), torch.finfo(torch.float32).tiny, reduce="add")
        return weights / weights.sum(1, keepdim=True)

    def keep(self, rows: Tensor) -> None:
        """Goes on with some latents only.

        Args:
            rows: Their places `[rows]`.
        """
        self._linear, self._step, self._state = self._linear[rows], self._step[rows], self._state[rows]
        self._anchor = None if self._anchor is None else self._anchor[rows]

    def run(self, iterations: int) -> None:
        """Iterates."""
        terms = self._terms()
        for _ in range(iterations):
            self._iterations += 1
            before = self._state
            self._state = self._next(terms)
            if self._iterations == _FIRST_BALANCE or self._iterations % _BALANCE_EVERY == 0:
                self._balance(before)
                terms = self._terms()

    def _terms(self) -> _Terms:
        sums, step = self._basis.sums, self._step
        inside, outside = 1 / (self._basis.squares + self._penalty + step), 1 / (self._penalty + step)
        difference = inside - outside
        ones = outside * self._basis.rest + (inside * sums.square()).sum(1, keepdim=True)
        constant = inside * self._linear
        total = constant @ sums[:, None] - 1
        if self._anchor is not None:
            own = self._penalty * difference * self._basis.vectors[self._anchor, :-1]
            constant = constant + own
            total = total + self._penalty * outside + own @ sums[:, None]
        none = torch.zeros_like(step)
        return _Terms(
            tau=total / ones,
            shifting=torch.cat([difference * step * sums, outside * step], dim=1) / ones,
            constant=torch.cat([constant, none], dim=1),
            scale=torch.cat([difference * step, none], dim=1),
            shifted=torch.cat([difference * sums, outside], dim=1),
            positive=_RELAXATION * outside * step - _RELAXATION / 2,
            anchor=_RELAXATION * self._penalty * outside,
        )

    def _next(self, terms: _Terms) -> Tensor:
        """One iteration: ``t + relaxation (x - max(t, 0))``, x the solution of the quadratic."""
        size = self._state.abs()
        inner = size @ self._basis.vectors
        shift = terms.tau + (inner * terms.shifting).sum(1, keepdim=True)
        inner = torch.addcmul(terms.constant, inner, terms.scale).addcmul_(shift, terms.shifted, value=-1)
        state = size.mul_(terms.positive).add_(self._state, alpha=1 - _RELAXATION / 2)
        if self._anchor is not None:
            state.scatter_add_(1, self._anchor[:, None], terms.anchor)
        return state.addmm_(inner, self._basis.vectors.T, alpha=_RELAXATION)

    def _balance(self, before: Tensor) -> None:
        """Moves each step to where the primal and the dual residual shrink together."""
        weights, old = self._state.clamp(min=0), before.clamp(min=0)
        solution = old + (self._state - before.clamp(max=0) - old) / _RELAXATION
        primal = _norm(solution - weights) / torch.maximum(_norm(solution), _norm(weights)).clamp(min=_TINY)
        dual = _norm(weights - old) / _norm(self._state.clamp(max=0)).clamp(min=_TINY)
        factor = (primal / dual.clamp(min=_TINY)).sqrt().clamp(1 / _MOST_AT_ONCE, _MOST_AT_ONCE)
        factor = torch.where((factor > _WORTHWHILE) | (factor < 1 / _WORTHWHILE), factor, torch.ones_like(factor))
        self._step = self._step * factor
        self._state = torch.where(self._state > 0, self._state, self._state / factor)


def _norm(rows: Tensor) -> Tensor:
    return torch.linalg.vector_norm(rows, dim=1, keepdim=True)
