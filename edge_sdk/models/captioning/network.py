"""A captioner: an encoder, a decoder, and the words that both were trained with.

Shapes: b batch, p places of an image, c channels of a place, s image size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from edge_sdk.errors import ModelError
from edge_sdk.models._checkpoint import fill
from edge_sdk.models.captioning.decoder import AttentionDecoder, Seen, State
from edge_sdk.models.captioning.encoders import PlacesEncoder
from edge_sdk.models.captioning.search import beam, greedy
from edge_sdk.models.captioning.vocabulary import Vocabulary
from edge_sdk.pruning import take_shapes

LONGEST = 20
"""Words of a caption, at most."""


class Captioner(nn.Module):
    """Says what images show.

    Args:
        encoder: Gives the places.
        decoder: Says the words.
        vocabulary: The words.

    Raises:
        ModelError: The parts do not fit each other.
    """

    def __init__(self, encoder: PlacesEncoder, decoder: AttentionDecoder, vocabulary: Vocabulary) -> None:
        super().__init__()
        if decoder.encoder_dim != encoder.dim:
            raise ModelError(
                f"the decoder looks at places of {decoder.encoder_dim} channels, and the encoder {encoder.name} gives "
                f"{encoder.dim}: the checkpoint was trained with another encoder."
            )
        if decoder.vocab_size != len(vocabulary):
            raise ModelError(
                f"the decoder knows {decoder.vocab_size} words and the vocabulary has {len(vocabulary)}: it belongs to "
                "another checkpoint."
            )
        self.encoder, self.decoder, self.vocabulary = encoder, decoder, vocabulary

    @classmethod
    def from_state(cls, content: Mapping[str, Any], where: str) -> Captioner:
        """The captioner of a checkpoint, in evaluation mode. The decoder's sizes are those of its weights.

        Args:
            content: What ``edge-sdk train captioning`` wrote, or other weights of that layout: ``state_dict`` or
                ``model_state_dict``, ``vocabulary``, and ``encoder`` with ``name`` and ``image_size``.
            where: Where it comes from, for messages.

        Raises:
            ModelError: Something is missing, or does not fit.
        """
        state = content.get("state_dict", content.get("model_state_dict"))
        words, about = content.get("vocabulary"), content.get("encoder")
        if not isinstance(state, Mapping) or not isinstance(words, (list, tuple)) or not isinstance(about, Mapping):
            raise ModelError(
                f"{where} does not hold state_dict, vocabulary and encoder; expected what 'edge-sdk train captioning' "
                "wrote."
            )
        if not all(isinstance(word, str) for word in words):
            raise ModelError(f"the vocabulary of {where} holds something else than words.")
        encoder = PlacesEncoder(str(about.get("name")), int(about.get("image_size", 224)))
        take_shapes(encoder, {name.removeprefix("encoder."): value for name, value in state.items()})  # if pruned
        decoder = AttentionDecoder.sized_for(dict(state))
        captioner = cls(encoder, decoder, Vocabulary(list(words)))
        fill(captioner, state, where)
        return captioner.eval().requires_grad_(False)

    def checkpoint(self) -> dict[str, Any]:
        """What `from_state` takes."""
        return {
            "state_dict": {name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()},
            "vocabulary": list(self.vocabulary.words),
            "encoder": {"name": self.encoder.name, "image_size": self.encoder.image_size},
        }

    def caption(self, images: Tensor, beams: int = 1, most: int = LONGEST) -> list[str]:
        """Captions of images ``[b, 3, s, s]``, normalised as the encoder takes them."""
        with torch.no_grad():
            return caption_places(self.decoder, self.vocabulary, self.encoder(images), beams, most)


@torch.no_grad()
def caption_places(
    decoder: AttentionDecoder, vocabulary: Vocabulary, places: Tensor, beams: int = 1, most: int = LONGEST
) -> list[str]:
    """Captions of images whose places are known.

    Args:
        decoder: In evaluation mode.
        vocabulary: Its words.
        places: ``[b, p, c]``.
        beams: Captions that are followed at once for each image; 1 takes the best word each time.
        most: Words of a caption, at most.
    """

    def step(words: Tensor, state: tuple[State, Seen]) -> tuple[Tensor, tuple[State, Seen]]:
        scores, after, _ = decoder.step(words.to(places.device), *state)
        return scores, (after, state[1])

    def reorder(state: tuple[State, Seen], rows: Tensor) -> tuple[State, Seen]:
        rows = rows.to(places.device)
        return State(*(one[rows] for one in state[0])), Seen(*(one[rows] for one in state[1]))

    def begin(some: Tensor) -> tuple[State, Seen]:
        return decoder.start(some), decoder.look(some)

    start, end = vocabulary.start, vocabulary.end
    if beams == 1:
        found = greedy(step, begin(places), len(places), start, end, most)
    else:
        found = [beam(step, begin(one), reorder, start, end, most, beams) for one in places.split(1)]
    return [vocabulary.decode(numbers) for numbers in found]
