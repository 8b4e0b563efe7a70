"""Words and their numbers."""

from __future__ import annotations

import pytest

from edge_sdk.errors import ModelError
from edge_sdk.models.captioning.vocabulary import SPECIAL, Vocabulary, words_of


def test_words_are_small_and_without_punctuation():
    assert words_of("A T-shirt, and the dog's 2 bowls... on_a table!") == [
        *("a", "t-shirt", "and", "the", "dog's", "2", "bowls", "on", "a", "table"),
    ]
    assert words_of("  --- ") == []


def test_the_most_frequent_come_first_and_rare_ones_are_unknown():
    known = Vocabulary.of(["a cat", "a dog", "A cat sleeps"], least=2)
    assert known.words == (*SPECIAL, "a", "cat")
    assert known.decode(known.encode("a dog sleeps on a cat", most=20)) == "a <unk> <unk> <unk> a cat"


def test_a_caption_comes_back_from_its_numbers():
    known = Vocabulary.of(["two cups of coffee on a table"])
    numbers = known.encode("Two cups on a table.", most=10)
    assert numbers[0] == known.start and numbers[-1] == known.end
    assert known.decode([*numbers, known.pad, known.pad]) == "two cups on a table"
    assert known.encode("two cups of coffee", most=2) == [known.start, *numbers[1:3], known.end]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Vocabulary(["a", "b"]), "begins with <pad>"),
        (lambda: Vocabulary([*SPECIAL, "a", "a"]), "the word 'a' more than once"),
        (lambda: Vocabulary([*SPECIAL, ""]), "empty"),
        (lambda: Vocabulary.of(["..."]), "no word of the captions comes 1 times"),
        (lambda: Vocabulary.of(["a cat"]).decode([99]), "belongs to another checkpoint"),
    ],
)
def test_what_is_no_vocabulary_is_refused(make, said: str):
    with pytest.raises(ModelError, match=said):
        make()
