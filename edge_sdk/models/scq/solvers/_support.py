"""The problem on known supports: ridge regressions of many latents at once.

With the signs known, the weights on the s codes of the support are ``1/s + q``, where q sums to 0. Let R
be these codes less their mean, a the anchor less its mean, and ``e = z - mean - R^T a``. Then q solves a
ridge regression without a constraint, by a system of the support's size or of the width of a code,
whichever is smaller: ``q = a + (R R^T + penalty I)^-1 R e = a + R (R^T R + penalty I)^-1 e``.
The gradient solves the same systems.

Shapes: n latents, g latents of a group, k codes, d width of a code, s size of a group's largest support.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from edge_sdk.models.scq.solvers._problem import Problem

_GROUP_NUMBERS = {"cpu": 1 << 18, "cuda": 1 << 26}  # of the gathered codes of a group
_PADDING, _PADDING_FREE = 1.3, 4  # the largest support of a group is so much larger than its smallest at most


@dataclass(frozen=True)
class Group:
    """Latents with supports of about the same size.

    Attributes:
        rows: Their places `[g]`.
        index: The codes of their supports `[g, s]`; k where there are fewer than s.
        valid: 1 where there is a code, 0 where not `[g, s]`.
        mean: The mean code of each support `[g, d]`.
        codes: The codes of the support less the mean, 0 where there is none `[g, s, d]`.
        penalty: The problem's.
    """

    rows: Tensor
    index: Tensor
    valid: Tensor
    mean: Tensor
    codes: Tensor
    penalty: float

    def centred(self, values: Tensor) -> Tensor:
        """Values `[g, s]` less their mean over the support."""
        return (values - values.sum(1, keepdim=True) / self.valid.sum(1, keepdim=True)) * self.valid

    def pick(self, dense: Tensor) -> Tensor:
        """The support's part `[g, s]` of `[n, k]`."""
        return dense[self.rows[:, None], self.index.clamp(max=dense.shape[1] - 1)] * self.valid

    def spread(self, values: Tensor, dense: Tensor) -> None:
        """Writes values `[g, s]` into rows of `[n, k + 1]`, whose last column takes the padding."""
        dense[self.rows[:, None], self.index] = values * self.valid

    def regress(self, target: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        """The weights `[g, s]` near ``target + something`` whose codes make up what is wanted.

        Args:
            target: The anchor less its mean `[g, s]`.
            wanted: The latents less the mean code `[g, d]`.

        Returns:
            q `[g, s]`, and the rest ``wanted - R^T q`` divided by the penalty `[g, d]`.
        """
        rest = wanted - self._mix(target)
        if self._is_wide:
            dual = self._solve(rest)
            return target + self._project(dual), dual
        q = target + self._solve(self._project(rest))
        return q, (wanted - self._mix(q)) / self.penalty

    def adjoint(self, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """The gradient with respect to the linear term.

        Args:
            gradient: With respect to the weights, less its mean `[g, s]`.

        Returns:
            ``w = (R R^T + penalty I)^-1 gradient`` `[g, s]` and ``R^T w`` `[g, d]`.
        """
        if self._is_wide:
            mixed = self._solve(self._mix(gradient))
            return (gradient - self._project(mixed)) / self.penalty, mixed
        w = self._solve(gradient)
        return w, self._mix(w)

    @property
    def _is_wide(self) -> bool:
        return self.codes.shape[1] > self.codes.shape[2]

    def _mix(self, values: Tensor) -> Tensor:
        return (values[:, None, :] @ self.codes)[:, 0]

    def _project(self, rows: Tensor) -> Tensor:
        return (self.codes @ rows[:, :, None])[:, :, 0]

    def _solve(self, right: Tensor) -> Tensor:
        """Solves the smaller of the two systems; as there is one right-hand side, the factor is not kept."""
        across = self.codes.transpose(1, 2)
        matrix = across @ self.codes if self._is_wide else self.codes @ across
        matrix.diagonal(dim1=1, dim2=2).add_(self.penalty)
        factor = torch.linalg.cholesky_ex(matrix)[0]
        return torch.cholesky_solve(right[:, :, None], factor)[:, :, 0]


def groups(codebook: Tensor, penalty: float, support: Tensor) -> Iterator[Group]:
    """Groups latents by the size of their supports, so that little is padded.

    Args:
        codebook: The codes `[k, d]`.
        penalty: The problem's.
        support: Which codes are active `[n, k]`; at least one in each row.
    """
    padded = torch.cat([codebook, codebook.new_zeros(1, codebook.shape[1])])
    sizes, order = support.sum(1).sort()
    ends = sizes.cpu()
    numbers = _GROUP_NUMBERS["cpu" if support.device.type == "cpu" else "cuda"]
    begin = 0
    while begin < len(ends):
        limit = int(ends[begin] * _PADDING) + _PADDING_FREE
        end = int(torch.searchsorted(ends, limit, right=True))
        end = min(end, begin + max(1, numbers // (limit * codebook.shape[1])))
        yield _gather(padded, penalty, support, order[begin:end], int(ends[end - 1]))
        begin = end


def _gather(padded: Tensor, penalty: float, support: Tensor, rows: Tensor, size: int) -> Group:
    row, code = support[rows].nonzero(as_tuple=True)
    counts = torch.bincount(row, minlength=len(rows))
    place = torch.arange(len(row), device=row.device) - (counts.cumsum(0) - counts)[row]
    index = torch.full((len(rows), size), len(padded) - 1, device=row.device)
    index[row, place] = code
    valid = (index < len(padded) - 1).to(padded.dtype)
    codes = padded[index]
    mean = codes.sum(1) / counts[:, None]
    codes.sub_(mean[:, None]).mul_(valid[:, :, None])
    return Group(rows, index, valid, mean, codes, penalty)


@dataclass(frozen=True)
class Stationary:
    """The solutions on some supports, whatever the signs.

    Attributes:
        weights: 0 outside the supports `[n, k]`.
        dual: ``(z - p C) / penalty`` `[n, d]`.
        slack: The weights on the support and the negative multipliers outside, over the penalty `[n, k]`:
            the support is right where this is positive on it and negative outside.
    """

    weights: Tensor
    dual: Tensor
    slack: Tensor


def stationary(problem: Problem, support: Tensor) -> Stationary:
    """Solves the problem on given supports, without the signs.

    Args:
        problem: Without gradients.
        support: Which codes may have weights `[n, k]`; at least one in each row.
    """
    n, k = support.shape
    weights, dual = problem.z.new_zeros(n, k + 1), torch.empty_like(problem.z)
    for group in groups(problem.codebook, problem.penalty, support):
        target = torch.zeros_like(group.valid)
        if problem.anchor is not None:
            target = group.centred((group.index == problem.anchor[group.rows, None]).to(target.dtype))
        q, dual[group.rows] = group.regress(target, problem.z[group.rows] - group.mean)
        group.spread(q + 1 / group.valid.sum(1, keepdim=True), weights)
    weights = weights[:, :k]
    v = problem.plus_anchor(dual @ problem.codebook.T)
    shift = ((v - weights) * support).sum(1, keepdim=True) / support.sum(1, keepdim=True)
    return Stationary(weights, dual, v - shift)
