"""BLEU and CIDEr against values derived by hand."""

from __future__ import annotations

import math

import pytest

from edge_sdk.errors import ModelError
from edge_sdk.models.captioning.metrics import bleu, cider

REFERENCES = [["a cat sleeps on the mat", "a cat lies there"], ["two cups of hot coffee"], ["the road goes on"]]


def test_what_people_wrote_is_perfect():
    pytest.importorskip("torchmetrics")
    said = [some[0] for some in REFERENCES]
    assert bleu(said, REFERENCES) == pytest.approx(1.0)
    assert cider(["two cups of hot coffee"] * 3, REFERENCES)[1] == pytest.approx(10.0)


def test_bleu_by_hand():
    pytest.importorskip("torchmetrics")
    # Words: 4 of 5 come in the reference (not "lies"); pairs: 1 of 4 ("a cat"); the caption is one word shorter.
    found = bleu(["a cat lies on mat"], [["a cat sleeps on the mat"]], order=2)
    assert found == pytest.approx(math.exp(1 - 6 / 5) * math.sqrt(4 / 5 * 1 / 4), rel=1e-5)


def test_cider_by_hand():
    captions, references = ["red car", "blue sky"], [["red car car"], ["blue sky"]]
    # Two images: every gram of one of them weighs log 2. First image: words (red 1, car 1) against (red 1, car 2);
    # pairs (red car) against (red car, car car); a length that differs by one. Of "car" the smaller count is taken
    # once: 1 * 2.
    words, pairs = (1 + 1 * 2) / math.sqrt(2 * 5), 1 / math.sqrt(2)
    wanted = 10 * (words + pairs) / 4 * math.exp(-1 / 72)
    assert cider(captions, references) == pytest.approx([wanted, 10 * 2 / 4])


def test_words_that_every_image_has_count_nothing():
    assert cider(["a photo", "a photo"], [["a photo"], ["a photo"]]) == [0.0, 0.0]


@pytest.mark.parametrize(("captions", "references"), [([], []), (["a"], []), (["a"], [[]])])
def test_what_cannot_be_compared_is_refused(captions, references):
    for measure in (bleu, cider):
        with pytest.raises(ModelError):
            measure(captions, references)
