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

from edge_sdk.models.scq.solvers._problem import Problem, on_device

_RELAXATION = 1.9
_OWN = 1 - _RELAXATION / 2
_FIRST_STEP = 0.3  # of a code's mean squared norm
_BALANCE_EVERY = 10  # iterations
_NUMBERS_AT_ONCE = {"cpu": 1 << 18, "cuda": 1 << 26}  # latents times codes, as many as a processor's cache holds
_MOST_AT_ONCE = 20.0  # a step changes by this factor at most
_NEGLIGIBLE = 1e-10  # squared singular values below this part of the largest count as 0
_TINY = 1e-30


@dataclass(frozen=True)
class Basis:
    """A codebook with a mean of 0 as ``U S V^T``; then a vector of ones is orthogonal to U.

    Attributes:
        vectors: U and a column of ones `[k, m + 1]`.
        squares: The squares of S `[m]`.
        project: From a latent to ``U^T C z``: ``V S`` `[d, m]`.
        norm: The mean squared norm of a code.
    """

    vectors: Tensor
    squares: Tensor
    project: Tensor
    norm: float

    @staticmethod
    def of(codebook: Tensor, dtype: torch.dtype) -> Basis:
        """The basis of a codebook in float64, for iterations in a precision."""
        squares, right = torch.linalg.eigh(codebook.T @ codebook)
        kept = squares > squares[-1] * _NEGLIGIBLE
        squares, right = squares[kept], right[:, kept]
        vectors = codebook @ right / squares.sqrt()
        norm = float(codebook.square().sum(1).mean())
        vectors = torch.cat([vectors, torch.ones_like(codebook[:, :1])], dim=1)
        return Basis(vectors.to(dtype), squares.to(dtype), (right * squares.sqrt()).to(dtype), norm)


@dataclass(frozen=True)
class _Terms:
    """What stays the same from iteration to iteration while the steps do.

    An iteration is ``t = relaxation (constant + scale |t| [U, 1]) [U, 1]^T + own (positive |t| + t)``, where own is
    ``1 - relaxation / 2``. ``anchor`` is added at the anchor's code, within own.
    """

    constant: Tensor
    scale: Tensor
    positive: Tensor
    anchor: Tensor


class Splitting:
    """The iteration, for many latents.

    Args:
        problem: Without gradients.
        basis: Of its codebook, which has a mean of 0, in the precision of the iterations.
    """

    def __init__(self, problem: Problem, basis: Basis) -> None:
        self._basis = basis
        self._penalty = problem.penalty
        self._anchor = problem.anchor
        self._linear = problem.z.to(basis.project.dtype) @ basis.project
        self._step = self._linear.new_full((len(problem.z), 1), _FIRST_STEP * basis.norm + problem.penalty)
        zeros = self._linear.new_zeros(len(problem.z), len(basis.vectors))
        self._state = zeros + 1 / len(basis.vectors) if problem.anchor is None else problem.plus_anchor(zeros)
        self._before = self.support

    @property
    def support(self) -> Tensor:
        """Which codes have weights above 0 `[n, k]`."""
        return self._state > 0

    @property
    def changes(self) -> Tensor:
        """How many codes came or went since the steps were balanced last `[n]`."""
        return (self.support != self._before).sum(1)

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
        self._before = self._before[rows]
        self._anchor = None if self._anchor is None else self._anchor[rows]

    def run(self, iterations: int) -> None:
        """Iterates."""
        n, k = self._state.shape
        at_once = max(1, on_device(_NUMBERS_AT_ONCE, self._state.device) // k)
        for begin in range(0, n, at_once):
            self._run(slice(begin, begin + at_once), iterations)

    def _run(self, rows: slice, iterations: int) -> None:
        state, step, before = self._state[rows], self._step[rows], self._before[rows]
        anchor = None if self._anchor is None else self._anchor[rows]
        terms = self._terms(self._linear[rows], step, anchor)
        for iteration in range(1, iterations + 1):
            last, state = state, self._next(state, terms, anchor)
            if iteration % _BALANCE_EVERY == 0 and iteration < iterations:
                step, state = _balanced(step, last, state)
                terms = self._terms(self._linear[rows], step, anchor)
                before = state > 0
        self._state[rows], self._step[rows], self._before[rows] = state, step, before

    def _terms(self, linear: Tensor, step: Tensor, anchor: Tensor | None) -> _Terms:
        k = len(self._basis.vectors)
        inside, outside = 1 / (self._basis.squares + self._penalty + step), 1 / (self._penalty + step)
        difference = inside - outside
        constant, total = inside * linear, torch.ones_like(step)
        if anchor is not None:
            constant = constant + self._penalty * difference * self._basis.vectors[anchor, :-1]
            total = total - self._penalty * outside
        return _Terms(
            constant=torch.cat([constant, total / k], dim=1),
            scale=torch.cat([difference * step, -outside * step / k], dim=1),
            positive=(_RELAXATION * outside * step - _RELAXATION / 2) / _OWN,
            anchor=_RELAXATION * self._penalty * outside / _OWN,
        )

    def _next(self, state: Tensor, terms: _Terms, anchor: Tensor | None) -> Tensor:
        """One iteration: ``t + relaxation (x - max(t, 0))``, x the solution of the quadratic."""
        size = state.abs()
        inner = size @ self._basis.vectors
        torch.addcmul(terms.constant, inner, terms.scale, out=inner)
        state = torch.addcmul(state, size, terms.positive, out=size)
        if anchor is not None:
            state.scatter_add_(1, anchor[:, None], terms.anchor)
        return state.addmm_(inner, self._basis.vectors.T, beta=_OWN, alpha=_RELAXATION)


def _balanced(step: Tensor, before: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Steps with which the primal and the dual residual shrink together, and the state for them."""
    weights, old = state.clamp(min=0), before.clamp(min=0)
    multipliers = state - weights
    solution = old + (state - before) / _RELAXATION
    primal = _norm(solution - weights) / torch.maximum(_norm(solution), _norm(weights)).clamp(min=_TINY)
    dual = _norm(weights - old) / _norm(multipliers).clamp(min=_TINY)
    factor = (primal / dual.clamp(min=_TINY)).sqrt().clamp(1 / _MOST_AT_ONCE, _MOST_AT_ONCE)
    return step * factor, torch.addcdiv(weights, multipliers, factor)


def _norm(rows: Tensor) -> Tensor:
    return torch.linalg.vector_norm(rows, dim=1, keepdim=True)
