"""The problem that all solvers solve: its checks, the projection on the simplex, the duality gap.

Shapes: n latents, k codes, d width of a code.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from edge_sdk.errors import ModelError, unknown_name

Anchor = Literal["vq", "none"]
ANCHORS: tuple[Anchor, ...] = ("vq", "none")
_FLOATS = (torch.float32, torch.float64)
_PASSES = 100  # Newton's steps on a piecewise linear convex function: about 5 are needed, never more than k
_NOTHING = 1e-7  # of squared lengths: an objective below it counts as that

_log = logging.getLogger(__name__)
_told: set[str] = set()


@dataclass(frozen=True)
class Problem:
    """``||z - p C||^2 + penalty ||p - anchor||^2`` over the simplex, for many z at once.

    Attributes:
        z: The latents `[n, d]`.
        codebook: The codes `[k, d]`.
        penalty: The weight of the second term.
        anchor: The code at which the anchor is 1 `[n]`, None for an anchor of 0.
    """

    z: Tensor
    codebook: Tensor
    penalty: float
    anchor: Tensor | None

    def plus_anchor(self, rows: Tensor) -> Tensor:
        """Rows `[n, k]` plus the anchors."""
        if self.anchor is None:
            return rows
        return rows.scatter_add(1, self.anchor[:, None], torch.ones_like(rows[:, :1]))

    def rows(self, rows: Tensor) -> Problem:
        """The problem of some latents.

        Args:
            rows: Their places.
        """
        anchor = None if self.anchor is None else self.anchor[rows]
        return Problem(self.z[rows], self.codebook, self.penalty, anchor)

    def detached(self, dtype: torch.dtype) -> Problem:
        """The same numbers in a precision, without gradients."""
        return Problem(self.z.detach().to(dtype), self.codebook.detach().to(dtype), self.penalty, self.anchor)

    def objective(self, weights: Tensor) -> Tensor:
        """What is minimised, of weights `[n, k]`, as `[n]`."""
        distance = (self.z - weights @ self.codebook).square().sum(1)
        squares = weights.square().sum(1)
        if self.anchor is not None:
            squares = squares - 2 * weights.gather(1, self.anchor[:, None])[:, 0] + 1
        return distance + self.penalty * squares.clamp(min=0)


@dataclass(frozen=True)
class Found:
    """What a solver gives back.

    Attributes:
        weights: `[n, k]`, rows on the simplex.
        iterations: Of the slowest latent.
        residual: A dual point `[n, d]` to measure the gap with, None for ``z - p C``.
    """

    weights: Tensor
    iterations: int
    residual: Tensor | None = None


def make(z: Tensor, codebook: Tensor, penalty: float, anchor: str) -> Problem:
    """A problem whose parts fit.

    Raises:
        ModelError: They do not, or some numbers are not finite.
    """
    check_anchor(anchor)
    check_penalty(penalty)
    check_codebook(codebook)
    if z.ndim != 2 or z.shape[1] != codebook.shape[1]:
        raise ModelError(
            f"the latents have the shape {list(z.shape)} and the codes are {codebook.shape[1]} wide: "
            f"give latents as [n, {codebook.shape[1]}], or a codebook of the latents' width."
        )
    if not len(z):
        raise ModelError("there are no latents to quantize (batch 0): give at least one.")
    if z.dtype != codebook.dtype or z.dtype not in _FLOATS:
        raise ModelError(
            f"the latents are {z.dtype} and the codebook is {codebook.dtype}: give both as float32 or both as float64."
        )
    if z.device != codebook.device:
        raise ModelError(f"the latents are on {z.device} and the codebook on {codebook.device}: move them together.")
    _check_finite("latents", z)
    _look_for_singular(codebook.detach(), penalty)
    return Problem(z, codebook, penalty, nearest(z.detach(), codebook.detach()) if anchor == "vq" else None)


def on_device(numbers: Mapping[str, int], device: torch.device) -> int:
    """How much to take on at once: the number for ``cpu`` on a processor, that for ``cuda`` elsewhere."""
    return numbers["cpu" if device.type == "cpu" else "cuda"]


def check_anchor(anchor: str) -> None:
    """Raises ModelError unless an anchor is known."""
    if anchor not in ANCHORS:
        raise ModelError(unknown_name("anchor", anchor, ANCHORS))


def check_penalty(penalty: float, name: str = "the penalty (scq_lambda)") -> None:
    """Raises ModelError unless a penalty is a finite number above 0; the message begins with its name."""
    if not (math.isfinite(penalty) and penalty > 0):
        raise ModelError(f"{name} is {penalty:g}: give a finite number above 0, such as 1e-3.")


def check_codebook(codebook: Tensor) -> None:
    """Raises ModelError unless a codebook is a matrix of finite numbers with at least one code."""
    if codebook.ndim != 2 or not codebook.numel():
        raise ModelError(f"the codebook has the shape {list(codebook.shape)}: give codes as [codes, width].")
    _check_finite("codes", codebook)


def _check_finite(name: str, rows: Tensor) -> None:
    finite = rows.detach().isfinite().all(1)
    if not finite.all():
        raise ModelError(
            f"{int((~finite).sum())} of {len(rows)} {name} hold NaN or infinity: give finite numbers; "
            "in training, look for a learning rate that is too high."
        )


def nearest(z: Tensor, codebook: Tensor) -> Tensor:
    """The index of the nearest code of every latent `[n]`."""
    return torch.argmin(codebook.square().sum(1) - 2 * z @ codebook.T, dim=1)


def threshold(rows: Tensor, start: Tensor | None = None) -> Tensor:
    """The t for which ``max(row - t, 0)`` sums to 1, of rows `[n, k]`, as `[n]`.

    Newton's method from below, which is finite: the sum is convex and piecewise linear in t.
    Source: Michelot, "A finite algorithm for finding the projection of a point onto the canonical
    simplex", 1986.

    Args:
        rows: What to project.
        start: A guess of the result `[n]`.
    """
    t = (rows.sum(1) - 1) / rows.shape[1] if start is None else start
    before = None
    for _ in range(_PASSES):
        above = rows > t[:, None]
        count = above.sum(1)
        if before is not None and torch.equal(count, before):
            break  # the entries above are nested, so as many are the same
        before = count
        # A guess may lie above all entries: then go below the largest, from where the steps only go up.
        t = torch.where(count > 0, ((rows * above).sum(1) - 1) / count.clamp(min=1), rows.amax(1) - 1)
    return t


def project(rows: Tensor) -> Tensor:
    """The nearest point on the simplex of every row `[n, k]`; differentiable."""
    support = rows > threshold(rows.detach())[:, None]
    shift = ((rows * support).sum(1, keepdim=True) - 1) / support.sum(1, keepdim=True)
    return ((rows - shift) * support).clamp(min=0)


def relative_gap(problem: Problem, weights: Tensor, residual: Tensor | None = None) -> Tensor:
    """How far the objective of weights is above the optimum at most, relative to the objective `[n]`.

    It is never more than 1, because the optimum is not below 0. An objective below 1e-7 of the squared lengths of
    latent and codes counts as that.

    The dual function at r is ``-|r|^2 / 2 + r z - penalty max_p (v p - |p|^2 / 2)`` with
    ``v = anchor + C r / penalty``; written as a sum of squares and of products of positive numbers, the
    gap loses no digits.

    Args:
        problem: In float64, without gradients.
        weights: Rows on the simplex `[n, k]`, in float64.
        residual: The dual point r `[n, d]`, None for ``z - p C``, which is best near the optimum.
    """
    own = problem.z - weights @ problem.codebook
    dual = own if residual is None else residual
    v = problem.plus_anchor(dual @ problem.codebook.T / problem.penalty)
    support = weights > 0
    start = ((v - weights) * support).sum(1) / support.sum(1)
    slack = v - threshold(v, start)[:, None]
    squares = (weights - slack.clamp(min=0)).square().sum(1) / 2 + (weights * (-slack).clamp(min=0)).sum(1)
    gap = (own - dual).square().sum(1) + 2 * problem.penalty * squares
    # A latent that equals a code has an optimum of 0, to which no gap is small.
    scale = problem.z.square().sum(1) + problem.codebook.square().sum(1).mean()
    return (gap / torch.maximum(problem.objective(weights), _NOTHING * scale)).clamp(max=1)


def least_penalty(codebook: Tensor) -> float:
    """The least penalty with which float64 can tell the weights of repeated codes."""
    codebook = codebook.double()
    return float((codebook - codebook.mean(0)).square().sum(1).mean()) * 1e-10


def _look_for_singular(codebook: Tensor, penalty: float) -> None:
    """Warns, once for each finding, of a codebook that leaves the weights open but for the penalty."""
    mixed = (codebook * torch.linspace(1, 2, codebook.shape[1], dtype=codebook.dtype, device=codebook.device)).sum(1)
    rows = codebook[mixed.argsort()]
    repeated = int((rows[1:] == rows[:-1]).all(1).sum())
    if repeated:
        _warn_once(
            f"the codebook is singular: {repeated} of its {len(codebook)} codes repeat another one; "
            "these share their weight evenly. Revive or remove them."
        )
    if penalty < least_penalty(codebook):
        _warn_once(
            f"the codebook is singular beyond what the penalty of {penalty:g} mends: with codes this far apart it "
            f"takes {least_penalty(codebook):.2g} to tell weights. Raise the penalty or scale the latents down."
        )


def _warn_once(message: str) -> None:
    if message not in _told:
        _told.add(message)
        _log.warning(message)
