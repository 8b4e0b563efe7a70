"""The problem on known supports: linear systems of many latents at once.

With the signs known, the weights on the s codes of the support solve ``(G + penalty I) p = C z + penalty
anchor - shift``, where G holds the products of these codes and shift is the multiplier of the sum. Up to
the width of a code that system is solved itself, for the right-hand side and for ones, which gives the shift.
Where there are more codes, the smaller system of the width of a code is: with R the codes less their mean
and a the anchor less its mean, the weights are ``1/s + a + R (R^T R + penalty I)^-1 e``, where
``e = z - mean - R^T a``. The gradient solves the same systems.

Shapes: n latents, g latents of a group, k codes, d width of a code, s size of a group's largest support.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from edge_sdk.models.scq.solvers._problem import Problem, on_device

_GROUP_NUMBERS = {"cpu": 1 << 17, "cuda": 1 << 26}  # of the systems of a group, or of its gathered codes
_PADDING, _PADDING_FREE = 1.3, 4  # the largest support of a group is so much larger than its smallest at most
_FEW = 128  # unless the group is as small as that
_PRODUCTS_KEPT = 2048  # of so many codes at most all products are kept


@dataclass(frozen=True)
class Stationary:
    """The solutions on some supports, whatever the signs.

    Attributes:
        weights: 0 outside the supports `[n, k]`.
        residual: ``z - p C`` `[n, d]`.
        slack: The weights on the support and the negative multipliers outside, over the penalty `[n, k]`:
            the support is right where this is positive on it and negative outside.
    """

    weights: Tensor
    residual: Tensor
    slack: Tensor


class Systems:
    """The linear systems of a codebook.

    Args:
        codebook: The codes `[k, d]`, in float64. Codes far from the origin cost digits: give them less their mean.
        penalty: The problem's.
    """

    def __init__(self, codebook: Tensor, penalty: float) -> None:
        self.penalty = penalty
        # One more code, of zeros, stands where a support has fewer codes than others of its group.
        self._codes = torch.cat([codebook, codebook.new_zeros(1, codebook.shape[1])])
        # From residual and shift to ``(C r - shift) / penalty``.
        self._to_slack = torch.cat([codebook, -torch.ones_like(codebook[:, :1])], dim=1).T / penalty
        self._products = (self._codes @ self._codes.T).flatten() if len(codebook) <= _PRODUCTS_KEPT else None

    def stationary(self, problem: Problem, support: Tensor) -> Stationary:
        """Solves the problem on given supports, without the signs.

        Args:
            problem: With this codebook, without gradients.
            support: Which codes may have weights `[n, k]`; at least one in each row.
        """
        n, k = support.shape
        weights, shift = problem.z.new_zeros(n, k + 1), torch.empty_like(problem.z[:, :1])
        linear = problem.z @ self._codes.T
        wide: list[tuple[Tensor, Tensor]] = []
        for group in self._groups(support):
            anchor = None if problem.anchor is None else (group.index == problem.anchor[group.rows, None])
            if self._is_wide(group):
                found, shift[group.rows], rest = self._regress(group, problem.z[group.rows], anchor)
                wide.append((group.rows, rest))
            else:
                right = linear[group.rows[:, None], group.index]
                if anchor is not None:
                    right.add_(anchor, alpha=self.penalty)
                found, shift[group.rows] = self._solve(group, right, 1.0)
            group.spread(found, weights)
        residual = torch.addmm(problem.z, weights, self._codes, alpha=-1)
        for rows, rest in wide:
            residual[rows] = rest  # near 0 it has digits that a difference has not
        slack = torch.cat([residual, shift], dim=1) @ self._to_slack
        if problem.anchor is not None:
            slack.scatter_add_(1, problem.anchor[:, None], torch.ones_like(shift))
        return Stationary(weights[:, :k], residual, slack)

    def adjoint(self, gradient: Tensor, support: Tensor) -> Tensor:
        """The gradient with respect to the linear term ``C z``.

        Args:
            gradient: With respect to the weights `[n, k]`.
            support: Which codes have weights `[n, k]`; at least one in each row.

        Returns:
            ``w`` with ``(G + penalty I) w = gradient - shift`` on the support, where w sums to 0; `[n, k]`.
        """
        n, k = support.shape
        linear = gradient.new_zeros(n, k + 1)
        for group in self._groups(support):
            right = gradient[group.rows[:, None], group.index.clamp(max=k - 1)] * group.valid
            group.spread(self._adjoint(group, right), linear)
        return linear[:, :k]

    def _is_wide(self, group: _Group) -> bool:
        return group.index.shape[1] > self._codes.shape[1]

    def _solve(self, group: _Group, right: Tensor, total: float) -> tuple[Tensor, Tensor]:
        """Solves the systems of the support's size.

        Returns:
            x `[g, s]` with ``(G + penalty I) x = right - shift``, which sums to a total, and the shift `[g, 1]`.
        """
        matrix = self._products_of(group.index)
        matrix.diagonal(dim1=1, dim2=2).add_(torch.where(group.valid, self.penalty, 1.0))
        ones = group.valid.to(right.dtype)
        factor = torch.linalg.cholesky_ex(matrix.mT)[0]  # the same matrix, as LAPACK has it in memory
        x, of_ones = torch.cholesky_solve(torch.stack([right, ones], dim=2), factor).unbind(2)
        shift = (x.sum(1, keepdim=True) - total) / of_ones.sum(1, keepdim=True)
        return x - shift * of_ones, shift

    def _products_of(self, index: Tensor) -> Tensor:
        if self._products is None:
            codes = self._codes[index]
            return codes @ codes.transpose(1, 2)
        index = index.int()
        places = index[:, :, None] * len(self._codes) + index[:, None, :]
        return self._products.index_select(0, places.flatten()).view(places.shape)  # faster than two indices

    def _regress(self, group: _Group, z: Tensor, anchor: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """The weights `[g, s]`, the shift `[g, 1]` and the residual `[g, d]`, by systems of the width of a code."""
        mean, codes = self._centred_codes(group)
        sizes = group.sizes
        own = torch.zeros_like(codes[:, :, 0]) if anchor is None else group.centred(anchor.to(codes.dtype))
        dual = self._solve_across(codes, z - mean - _mix(own, codes))
        weights = (own + _project(codes, dual) + 1 / sizes) * group.valid
        # On the support, the mean of ``C r + penalty anchor - penalty p``.
        anchors = 0 if anchor is None else anchor.sum(1, keepdim=True)
        shift = self.penalty * ((mean * dual).sum(1, keepdim=True) + (anchors - 1) / sizes)
        return weights, shift, self.penalty * dual

    def _adjoint(self, group: _Group, right: Tensor) -> Tensor:
        if not self._is_wide(group):
            return self._solve(group, right, 0.0)[0]
        codes, right = self._centred_codes(group)[1], group.centred(right)
        return (right - _project(codes, self._solve_across(codes, _mix(right, codes)))) / self.penalty

    def _centred_codes(self, group: _Group) -> tuple[Tensor, Tensor]:
        """The mean code of each support `[g, d]`, and the codes less it, 0 where there is none `[g, s, d]`."""
        codes = self._codes[group.index]
        mean = codes.sum(1) / group.sizes
        return mean, codes.sub_(mean[:, None]).mul_(group.valid[:, :, None])

    def _solve_across(self, codes: Tensor, right: Tensor) -> Tensor:
        matrix = codes.transpose(1, 2) @ codes
        matrix.diagonal(dim1=1, dim2=2).add_(self.penalty)
        return torch.cholesky_solve(right[:, :, None], torch.linalg.cholesky_ex(matrix)[0])[:, :, 0]

    def _groups(self, support: Tensor) -> Iterator[_Group]:
        """Groups latents by the size of their supports, so that little is padded."""
        width, k = self._codes.shape[1], support.shape[1]
        counts = support.sum(1)
        first = counts.cumsum(0) - counts
        codes = torch.cat([support.nonzero()[:, 1], counts.new_full((1,), k)])
        sizes, order = counts.sort()
        ends = sizes.cpu()
        numbers = on_device(_GROUP_NUMBERS, support.device)
        begin = 0
        while begin < len(ends):
            limit = int(ends[begin] * _PADDING) + _PADDING_FREE
            at_once = numbers // (limit * (limit if limit <= width else width))
            end = min(int(torch.searchsorted(ends, limit, right=True)), begin + at_once)
            end = min(max(end, begin + _FEW), len(ends))
            rows, size = order[begin:end], int(ends[end - 1])
            places = torch.arange(size, device=support.device)
            valid = places < counts[rows, None]
            yield _Group(rows, codes[torch.where(valid, first[rows, None] + places, len(codes) - 1)], valid)
            begin = end


@dataclass(frozen=True)
class _Group:
    """Latents with supports of about the same size.

    Attributes:
        rows: Their places `[g]`.
        index: The codes of their supports `[g, s]`; k where there are fewer than s.
        valid: Where there is a code `[g, s]`.
    """

    rows: Tensor
    index: Tensor
    valid: Tensor

    @property
    def sizes(self) -> Tensor:
        """The sizes of the supports `[g, 1]`, in float64."""
        return self.valid.sum(1, keepdim=True, dtype=torch.float64)

    def centred(self, values: Tensor) -> Tensor:
        """Values `[g, s]`, 0 where there is no code, less their mean over the support."""
        return (values - values.sum(1, keepdim=True) / self.sizes) * self.valid

    def spread(self, values: Tensor, dense: Tensor) -> None:
        """Writes values `[g, s]` into rows of `[n, k + 1]`, whose last column takes the padding's zeros."""
        dense[self.rows[:, None], self.index] = values


def _mix(values: Tensor, codes: Tensor) -> Tensor:
    return (values[:, None, :] @ codes)[:, 0]


def _project(codes: Tensor, rows: Tensor) -> Tensor:
    return (codes @ rows[:, :, None])[:, :, 0]
