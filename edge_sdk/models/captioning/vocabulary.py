"""Words and their numbers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from edge_sdk.errors import ModelError

PAD, START, END, UNKNOWN = "<pad>", "<start>", "<end>", "<unk>"
SPECIAL = (PAD, START, END, UNKNOWN)
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_MOST_WORDS = 200_000
_MOST_LETTERS = 100


def words_of(caption: str) -> list[str]:
    """The words of a caption in small letters, without punctuation; a hyphen or an apostrophe within one stays."""
    return _WORD.findall(caption.lower())


class Vocabulary:
    """The words that a captioner knows; a word's number is its place.

    Args:
        words: All of them, `SPECIAL` first.

    Raises:
        ModelError: Special words are missing, or a word comes twice or is none.
    """

    def __init__(self, words: Sequence[str]) -> None:
        words = tuple(words)
        if words[: len(SPECIAL)] != SPECIAL:
            raise ModelError(
                f"a vocabulary begins with {', '.join(SPECIAL)}; found {', '.join(words[:4]) or 'nothing'}."
            )
        if len(words) > _MOST_WORDS:
            raise ModelError(f"the vocabulary has {len(words)} words; expected at most {_MOST_WORDS}.")
        self.words = words
        self._numbers = {word: number for number, word in enumerate(words)}
        if len(self._numbers) != len(words):
            repeated = next(word for word, times in Counter(words).items() if times > 1)
            raise ModelError(f"the vocabulary has the word '{repeated:.40}' more than once.")
        if any(not word or len(word) > _MOST_LETTERS for word in words):
            raise ModelError(f"the vocabulary has a word that is empty or has more than {_MOST_LETTERS} letters.")

    @classmethod
    def of(cls, captions: Iterable[str], least: int = 1) -> Vocabulary:
        """The words that captions use, the most frequent first.

        Args:
            captions: Of the training set.
            least: How often a word must come; rarer ones are unknown.

        Raises:
            ModelError: No word comes so often.
        """
        times = Counter(word for caption in captions for word in words_of(caption))
        known = sorted((word for word, count in times.items() if count >= least), key=lambda word: (-times[word], word))
        if not known:
            raise ModelError(f"no word of the captions comes {least} times: give captions, or a smaller least count.")
        return cls((*SPECIAL, *known))

    def __len__(self) -> int:
        return len(self.words)

    @property
    def start(self) -> int:
        """The number of the word that every caption begins after."""
        return self._numbers[START]

    @property
    def end(self) -> int:
        """The number of the word that ends a caption."""
        return self._numbers[END]

    @property
    def pad(self) -> int:
        """The number of what stands after the end."""
        return self._numbers[PAD]

    def encode(self, caption: str, most: int) -> list[int]:
        """Start, at most so many words, and end, as numbers."""
        unknown = self._numbers[UNKNOWN]
        inner = [self._numbers.get(word, unknown) for word in words_of(caption)[:most]]
        return [self.start, *inner, self.end]

    def decode(self, numbers: Iterable[int]) -> str:
        """The caption of numbers, up to the first end.

        Raises:
            ModelError: A number is no word's.
        """
        found = []
        for number in numbers:
            if not 0 <= number < len(self.words):
                raise ModelError(
                    f"the caption has the word number {number}, and the vocabulary has {len(self.words)} words: "
                    "it belongs to another checkpoint."
                )
            if number == self.end:
                break
            if number not in (self.start, self.pad):
                found.append(self.words[number])
        return " ".join(found)
