"""What codes say: how evenly they are used, and what they tell of the objects.

n: images, k: slots, m: codebooks, c: codes of a codebook.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from edge_sdk.models.svq.data import LabelledImages
from edge_sdk.models.svq.metrics import attribute_prediction, binned, match, mutual_information

_BINS = 8
"""Classes of an attribute that is a number, such as a place."""
_FEWEST = 8
"""Objects; see `attribute_prediction`."""


def code_counts(codes: Tensor, codebook_size: int) -> Tensor:
    """How often each code occurs: int64 ``[m, c]`` from codes int64 ``[n, k, m]``."""
    return torch.stack([torch.bincount(block, minlength=codebook_size) for block in codes.flatten(0, 1).unbind(1)])


def perplexities(counts: Tensor) -> Tensor:
    """Of each codebook, ``[m]``: how many codes in even use would be as uncertain."""
    shares = counts.double() / counts.sum(1, keepdim=True)
    return torch.special.entr(shares).sum(1).exp()


def codes_and_objects(truth: LabelledImages, predicted: Tensor, codes: Tensor) -> dict[str, Any]:
    """What the codes of the slots that hold objects say about them.

    Args:
        truth: The images' objects.
        predicted: int64 ``[n, s, s]``: the slot of each pixel.
        codes: int64 ``[n, k, m]``.

    Returns:
        For ``metrics.json``, for each attribute: its mutual information with each codebook, in bits, as a share
        of its entropy and by chance, and how often a linear classifier names it from all codes; or why there is
        none of this.
    """
    names = [attribute.name for attribute in truth.attribute_table]
    if not names:
        return {"unavailable": "the images come without attributes"}
    slots = match(torch.from_numpy(truth.labels).long(), predicted.cpu(), truth.present.shape[1]).numpy()
    image, number = np.nonzero((slots >= 0) & truth.present)
    if len(image) < _FEWEST:
        return {"unavailable": f"slots hold only {len(image)} objects; {_FEWEST} are needed"}
    of_objects = codes.cpu().numpy()[image, slots[image, number]]
    values = truth.attributes[image, number]
    columns = [
        column.astype(np.int64) if attribute.classes else binned(column, _BINS)
        for column, attribute in zip(values.T, truth.attribute_table, strict=True)
    ]
    attributes = np.stack(columns, 1)
    information = mutual_information(of_objects, attributes)
    told = attribute_prediction(of_objects, attributes)
    report: dict[str, Any] = {"objects": len(image)}
    for place, (name, one) in enumerate(zip(names, told, strict=True)):
        report[name] = {
            "mutual_information_bits": information.bits[:, place].round(4).tolist(),
            "share_of_entropy": information.share[:, place].round(4).tolist(),
            "chance_bits": information.chance_bits[:, place].round(4).tolist(),
            "accuracy": round(one.accuracy, 4),
            "majority": round(one.majority, 4),
            "held_out": one.held_out,
        }
    return report
