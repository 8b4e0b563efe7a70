"""How near captions are to what people wrote: BLEU and CIDEr."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from edge_sdk.errors import MissingDependencyError, ModelError
from edge_sdk.models.captioning.vocabulary import words_of

_ORDERS = (1, 2, 3, 4)
_SIGMA = 6.0
_SCALE = 10.0

Grams = Counter[tuple[str, ...]]


def bleu(captions: Sequence[str], references: Sequence[Sequence[str]], order: int = 4) -> float:
    """BLEU of a set of captions, 0 to 1, by torchmetrics.

    Source: Papineni et al., "BLEU: a method for automatic evaluation of machine translation", ACL 2002.

    Args:
        captions: One for each image.
        references: What people wrote of each, at least one.
        order: Longest run of words that is compared.

    Raises:
        ModelError: The counts differ, there is nothing, or an image has no reference.
        MissingDependencyError: torchmetrics is not installed.
    """
    _check(captions, references)
    try:
        from torchmetrics.functional.text import bleu_score
    except ImportError as error:
        raise MissingDependencyError(
            f"BLEU needs torchmetrics, which cannot be imported ({error}): pip install 'edge-sdk[train]'."
        ) from error
    given = [" ".join(words_of(caption)) for caption in captions]
    wanted = [[" ".join(words_of(one)) for one in some] for some in references]
    return float(bleu_score(given, wanted, n_gram=order))


def cider(captions: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """CIDEr-D of each caption, 0 to 10; the mean is the set's.

    Words that many images' references share count little. With one image nothing does, and all are 0.

    Source: Vedantam, Zitnick and Parikh, "CIDEr: Consensus-based Image Description Evaluation", CVPR 2015, arXiv
    1411.5726, section 8 (CIDEr-D), without its stemming, as the COCO evaluation has it.

    Args:
        captions: One for each image.
        references: What people wrote of each, at least one.

    Raises:
        ModelError: The counts differ, there is nothing, or an image has no reference.
    """
    _check(captions, references)
    wanted = [[_grams(one) for one in some] for some in references]
    seen: Counter[tuple[str, ...]] = Counter()
    for some in wanted:
        seen.update({gram for grams in some for gram in grams})
    rarity = {gram: math.log(len(captions)) - math.log(max(1, times)) for gram, times in seen.items()}
    unseen = math.log(len(captions))

    def weigh(grams: Grams) -> list[dict[tuple[str, ...], float]]:
        vectors: list[dict[tuple[str, ...], float]] = [{} for _ in _ORDERS]
        for gram, times in grams.items():
            vectors[len(gram) - 1][gram] = times * rarity.get(gram, unseen)
        return vectors

    found = []
    for caption, some in zip(captions, wanted, strict=True):
        given = _grams(caption)
        scores = [_likeness(weigh(given), weigh(one), _words(given) - _words(one)) for one in some]
        found.append(_SCALE * sum(scores) / len(scores))
    return found


def _likeness(
    given: list[dict[tuple[str, ...], float]], wanted: list[dict[tuple[str, ...], float]], longer: int
) -> float:
    """The mean over the orders of the clipped cosine, less where the lengths differ."""
    total = 0.0
    for mine, theirs in zip(given, wanted, strict=True):
        norms = math.sqrt(sum(x * x for x in mine.values())) * math.sqrt(sum(x * x for x in theirs.values()))
        if norms:
            total += sum(min(x, theirs[gram]) * theirs[gram] for gram, x in mine.items() if gram in theirs) / norms
    return total / len(_ORDERS) * math.exp(-(longer**2) / (2 * _SIGMA**2))


def _grams(caption: str) -> Grams:
    words = words_of(caption)
    return Counter(tuple(words[at : at + order]) for order in _ORDERS for at in range(len(words) - order + 1))


def _words(grams: Grams) -> int:
    return sum(times for gram, times in grams.items() if len(gram) == 1)


def _check(captions: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    if not captions or len(captions) != len(references):
        raise ModelError(
            f"there are {len(captions)} captions and references of {len(references)} images; expected as many."
        )
    if empty := sum(not some for some in references):
        raise ModelError(f"{empty} of {len(references)} images have no reference to compare with.")
