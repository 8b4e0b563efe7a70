"""How well slots match objects, and what the codes of slots say about the objects' attributes.

n: images, s: side in pixels, o: objects, m: objects of all images, blocks: codes of a slot.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from edge_sdk.errors import MissingDependencyError, ModelError

_SHUFFLES = 5
_HELD_OUT = 0.25


def fg_ari(true_labels: Tensor, predicted: Tensor) -> Tensor:
    """The adjusted Rand index of each image over the pixels that belong to objects.

    Source: Hubert and Arabie, "Comparing partitions", 1985; without the background as in Greff et al.,
    "Multi-object representation learning with iterative variational inference", 2019 (ARI-FG).

    Args:
        true_labels: Whole numbers ``[n, s, s]``: 0 background, else the object.
        predicted: Whole numbers ``[n, s, s]``: the slot of each pixel, from 0.

    Returns:
        float64 ``[n]``, 1 at best and about 0 by chance; 1 for a single object that one slot holds; NaN for
        an image without objects.

    Raises:
        ModelError: Shapes or kinds of the label maps are wrong.
    """
    table = _contingency(true_labels, predicted)[:, 1:].double()
    pairs, of_objects, of_slots = (_pairs(counts) for counts in (table, table.sum(2), table.sum(1)))
    together, objects, slots = pairs.sum((1, 2)), of_objects.sum(1), of_slots.sum(1)
    pixels = table.sum((1, 2))
    expected = objects * slots / _pairs(pixels).clamp(min=1)
    most = (objects + slots) / 2
    index = torch.where(most == expected, 1.0, (together - expected) / (most - expected))
    return torch.where(pixels == 0, torch.nan, index)


def mean_iou(true_labels: Tensor, predicted: Tensor) -> Tensor:
    """The intersection over union of each object with the slot matched to it, averaged over an image's objects.

    Args:
        true_labels: Whole numbers ``[n, s, s]``: 0 background, else the object.
        predicted: Whole numbers ``[n, s, s]``: the slot of each pixel, from 0.

    Returns:
        float64 ``[n]`` from 0 to 1; an object without a slot counts as 0; NaN for an image without objects.

    Raises:
        ModelError: Shapes or kinds of the label maps are wrong.
    """
    table = _contingency(true_labels, predicted)
    iou = _iou(table)
    slots = _assign(iou)
    reached = torch.gather(iou, 2, slots.clamp(min=0)[..., None])[..., 0].where(slots >= 0, 0.0)
    objects = (table[:, 1:].sum(2) > 0).sum(1)
    return torch.where(objects == 0, torch.nan, reached.sum(1) / objects)


def match(true_labels: Tensor, predicted: Tensor, objects: int | None = None) -> Tensor:
    """Which slot holds each object: the one-to-one assignment with the largest sum of intersections over unions.

    Args:
        true_labels: Whole numbers ``[n, s, s]``: 0 background, else the object.
        predicted: Whole numbers ``[n, s, s]``: the slot of each pixel, from 0.
        objects: Columns of the answer; the largest label where left out.

    Returns:
        int64 ``[n, o]``: column 0 is object 1; -1 where the image has no such object, or no slot that touches it
        is left.

    Raises:
        ModelError: Shapes or kinds of the label maps are wrong, or a label is above ``objects``.
    """
    slots = _assign(_iou(_contingency(true_labels, predicted)))
    if objects is None:
        return slots
    if slots.shape[1] > objects:
        raise ModelError(f"the label maps hold object {slots.shape[1]}: expected at most {objects} objects.")
    return torch.nn.functional.pad(slots, (0, objects - slots.shape[1]), value=-1)


def _contingency(true_labels: Tensor, predicted: Tensor) -> Tensor:
    """Pixels that label and slot share: int64 ``[n, labels, slots]``."""
    for name, labels in (("true_labels", true_labels), ("predicted", predicted)):
        if labels.ndim != 3 or labels.is_floating_point() or not labels.numel():
            raise ModelError(
                f"{name} has shape {list(labels.shape)} and type {labels.dtype}: expected whole numbers [n, s, s]."
            )
        if labels.min() < 0:
            raise ModelError(f"{name} holds {int(labels.min())}: expected labels from 0.")
    if true_labels.shape != predicted.shape:
        raise ModelError(
            f"true_labels is {list(true_labels.shape)} and predicted {list(predicted.shape)}: expected one shape."
        )
    images, rows, columns = len(true_labels), int(true_labels.max()) + 1, int(predicted.max()) + 1
    image = torch.arange(images, device=true_labels.device)[:, None]
    cells = (image * rows + true_labels.long().flatten(1)) * columns + predicted.long().flatten(1)
    return torch.bincount(cells.flatten(), minlength=images * rows * columns).view(images, rows, columns)


def _pairs(counts: Tensor) -> Tensor:
    return counts * (counts - 1) / 2


def _iou(table: Tensor) -> Tensor:
    """float64 ``[n, o, slots]`` of all objects but the background, from ``[n, o + 1, slots]``."""
    shared = table[:, 1:].double()
    union = table[:, 1:].sum(2, keepdim=True) + table.sum(1, keepdim=True) - shared
    return shared / union.clamp(min=1)


def _assign(iou: Tensor) -> Tensor:
    """The best slot of each object, one-to-one: int64 ``[n, o]``, -1 for none."""
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError as error:
        raise _missing("matching slots to objects", "SciPy") from error
    slots = torch.full(iou.shape[:2], -1)
    for image, scores in enumerate(iou.cpu().numpy()):
        objects, chosen = linear_sum_assignment(scores, maximize=True)
        slots[image, objects] = torch.from_numpy(np.where(scores[objects, chosen] > 0, chosen, -1))
    return slots.to(iou.device)


@dataclass(frozen=True)
class Information:
    """What each code says about each attribute, all ``[blocks, attributes]``.

    Attributes:
        bits: The mutual information, estimated from the counts.
        share: The same as a share of the attribute's entropy; 0 for an attribute that never varies.
        chance_bits: The estimate for shuffled attributes: what so few samples show of codes that say nothing.
    """

    bits: np.ndarray
    share: np.ndarray
    chance_bits: np.ndarray


def mutual_information(codes: np.ndarray | Tensor, attributes: np.ndarray | Tensor, *, seed: int = 0) -> Information:
    """The mutual information between each block's code and each attribute.

    Args:
        codes: Whole numbers ``[m, blocks]``.
        attributes: Whole numbers ``[m, attributes]``; see `binned` for others.
        seed: For the shuffles of ``chance_bits``.

    Raises:
        ModelError: Shapes or kinds are wrong, or there are no objects.
    """
    codes, attributes = _pair_up(codes, attributes)
    draw = np.random.default_rng(seed)
    bits = _bits(codes, attributes)
    chance = np.mean([_bits(codes, draw.permutation(attributes)) for _ in range(_SHUFFLES)], 0)
    entropy = np.array([_entropy(np.unique(column, return_counts=True)[1]) for column in attributes.T])
    share = np.divide(bits, entropy, out=np.zeros_like(bits), where=entropy > 0)
    return Information(bits, share, chance)


def _bits(codes: np.ndarray, attributes: np.ndarray) -> np.ndarray:
    """I(code; attribute) = H(code) + H(attribute) - H(both), ``[blocks, attributes]``."""
    result = np.zeros((codes.shape[1], attributes.shape[1]))
    for block, code in enumerate(codes.T):
        for number, attribute in enumerate(attributes.T):
            table = np.zeros((code.max() + 1, attribute.max() + 1))
            np.add.at(table, (code, attribute), 1)
            result[block, number] = _entropy(table.sum(1)) + _entropy(table.sum(0)) - _entropy(table)
    return result.clip(min=0)  # rounding


def _entropy(counts: np.ndarray) -> float:
    """In bits."""
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum())


@dataclass(frozen=True)
class Prediction:
    """How often an attribute of held-out objects is told right.

    Attributes:
        accuracy: By the classifier, from the codes alone.
        majority: By always naming the most frequent value of the training part.
        held_out: How many objects were judged.
    """

    accuracy: float
    majority: float
    held_out: int


def attribute_prediction(
    codes: np.ndarray | Tensor, attributes: np.ndarray | Tensor, *, seed: int = 0
) -> list[Prediction]:
    """What a linear classifier reads from the codes: logistic regression on their one-hot forms.

    Args:
        codes: Whole numbers ``[m, blocks]``.
        attributes: Whole numbers ``[m, attributes]``; see `binned` for others.
        seed: For the split: a quarter of the objects is held out.

    Returns:
        One for each attribute.

    Raises:
        MissingDependencyError: scikit-learn is not installed.
        ModelError: Shapes or kinds are wrong, or there are fewer than 8 objects.
    """
    codes, attributes = _pair_up(codes, attributes)
    if len(codes) < 8:
        raise ModelError(f"there are {len(codes)} objects: expected 8 or more to train on some and judge on others.")
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.preprocessing import OneHotEncoder
    except ImportError as error:
        raise _missing("predicting attributes", "scikit-learn") from error
    order = np.random.default_rng(seed).permutation(len(codes))
    held_out, train = np.split(order, [round(len(order) * _HELD_OUT)])
    encoder = OneHotEncoder(handle_unknown="ignore").fit(codes[train])
    inputs, questions = encoder.transform(codes[train]), encoder.transform(codes[held_out])
    results = []
    for column in attributes.T:
        values, counts = np.unique(column[train], return_counts=True)
        majority = float((column[held_out] == values[counts.argmax()]).mean())
        accuracy = majority
        if len(values) > 1:  # scikit-learn refuses a single class
            model = LogisticRegression(max_iter=1000).fit(inputs, column[train])
            accuracy = float((model.predict(questions) == column[held_out]).mean())
        results.append(Prediction(accuracy, majority, len(held_out)))
    return results


def binned(values: np.ndarray | Tensor, bins: int) -> np.ndarray:
    """Values sorted into equally filled classes, so that attributes such as x count as classes too.

    Args:
        values: Numbers ``[m]``.
        bins: How many classes, 2 or more.

    Returns:
        int64 ``[m]`` from 0 to ``bins - 1``.

    Raises:
        ModelError: Fewer than 2 classes, or no values.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or not len(values) or bins < 2:
        raise ModelError(f"cannot sort values {list(values.shape)} into {bins} classes: expected [m] and 2 or more.")
    return np.searchsorted(np.quantile(values, np.arange(1, bins) / bins), values, side="right")


def _pair_up(codes: np.ndarray | Tensor, attributes: np.ndarray | Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Both as whole numbers from 0.

    Raises:
        ModelError: They are not, or do not belong together.
    """
    pair = []
    for name, given in (("codes", codes), ("attributes", attributes)):
        array = given.cpu().numpy() if isinstance(given, Tensor) else np.asarray(given)
        if array.ndim != 2 or not array.size or not _is_whole(array) or array.min() < 0:
            raise ModelError(
                f"{name} has shape {list(array.shape)} and type {array.dtype}: expected whole numbers from 0, "
                "one row an object and at least one."
            )
        pair.append(array.astype(np.int64))
    if len(pair[0]) != len(pair[1]):
        raise ModelError(f"there are codes of {len(pair[0])} objects and attributes of {len(pair[1])}.")
    return pair[0], pair[1]


def _is_whole(array: np.ndarray) -> bool:
    return array.dtype.kind in "biuf" and bool(np.isfinite(array).all()) and np.array_equal(array, np.floor(array))


def _missing(what: str, package: str) -> MissingDependencyError:
    return MissingDependencyError(f"{what} needs {package}, which is not installed: pip install 'edge-sdk[train]'.")
