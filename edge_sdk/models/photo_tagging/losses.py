"""Losses of multi-label tagging, each the mean over images and classes, so that one learning rate fits all.

Shapes: b images, c classes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

Loss = Callable[[Tensor, Tensor], Tensor]
"""Logits ``[b, c]`` and labels of 0 or 1 ``[b, c]`` to a scalar."""

_SMALLEST = 1e-8  # below it a power's slope may be infinite


def binary_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """``-log p`` where a tag holds, ``-log(1 - p)`` where not.

    Args:
        logits: ``[b, c]``.
        labels: 0 or 1, ``[b, c]``.
    """
    return functional.binary_cross_entropy_with_logits(logits, labels)


def focal(logits: Tensor, labels: Tensor, gamma: float = 2.0, alpha: float = 0.25) -> Tensor:
    """Cross-entropy in which what is right already counts less: ``-a (1 - q)^gamma log q``.

    Args:
        logits: ``[b, c]``.
        labels: 0 or 1, ``[b, c]``.
        gamma: How much less.
        alpha: Weight a of a tag that holds; of one that does not, ``1 - alpha``.

    Source: Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, equation 5. q is p where
    the tag holds and ``1 - p`` where not.
    """
    entropy = functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    wrong = torch.where(labels > 0, torch.sigmoid(-logits), torch.sigmoid(logits))
    weight = torch.where(labels > 0, alpha, 1 - alpha)
    return (weight * wrong.clamp(min=_SMALLEST) ** gamma * entropy).mean()


def asymmetric(
    logits: Tensor, labels: Tensor, gamma_neg: float = 4.0, gamma_pos: float = 1.0, clip: float = 0.05
) -> Tensor:
    """Focal loss that discounts tags that do not hold more than those that do, and drops easy ones.

    Args:
        logits: ``[b, c]``.
        labels: 0 or 1, ``[b, c]``.
        gamma_neg: Discount where a tag does not hold.
        gamma_pos: Discount where it holds.
        clip: A probability up to this counts as 0 where the tag does not hold.

    Source: Ridnik et al., "Asymmetric Loss For Multi-Label Classification", ICCV 2021, equations 4 to 7.
    The paper sums over classes; here the mean is taken.
    """
    holds = functional.logsigmoid(logits) * torch.sigmoid(-logits).clamp(min=_SMALLEST) ** gamma_pos
    shifted = (torch.sigmoid(logits) - clip).clamp(min=0)
    log_not = torch.log1p(-shifted) if clip > 0 else functional.logsigmoid(-logits)
    holds_not = log_not * shifted.clamp(min=_SMALLEST) ** gamma_neg
    return -torch.where(labels > 0, holds, holds_not).mean()
