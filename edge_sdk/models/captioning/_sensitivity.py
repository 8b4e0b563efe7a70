"""How much each layer of a captioner bears to be pruned, by the words that stay the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from edge_sdk.models import _images
from edge_sdk.models._features import pixels
from edge_sdk.models.captioning._data import Captioned
from edge_sdk.models.captioning._prune import Unrolled, examples
from edge_sdk.models.captioning._walk import captions, walk
from edge_sdk.models.captioning.network import LONGEST, Captioner
from edge_sdk.pruning import Sensitivity, sensitivity

_SQUARES = 12
_FIGURE = "share of a caption's words that stay the same"


def captioner_sensitivity(captioner: Captioner, photos: Sequence[Captioned], say: Callable[[str], None]) -> Sensitivity:
    """Judges by the next word after each word of the whole captioner's own captions of some photos.

    Args:
        captioner: Not pruned yet.
        photos: A few of them are taken.
        say: Is called with a line as each stage starts.

    Raises:
        UnsupportedError: The network cannot be followed.
        MissingDependencyError: torch-pruning is not installed.
    """
    captioner = captioner.eval()
    chosen = [photos[place] for place in _images.spread(len(photos), _SQUARES)]
    images = torch.from_numpy(np.concatenate([pixels(captioner.encoder, one.view) for one in chosen]))
    decoder, vocabulary = captioner.decoder, captioner.vocabulary
    with torch.no_grad():
        places = captioner.encoder(images)
        steps = walk(decoder, (*decoder.look(places), *decoder.start(places)), vocabulary.start, LONGEST)
    rows = [torch.tensor([vocabulary.start, *words]) for words, _ in captions(steps, vocabulary)]
    said = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=vocabulary.pad)
    wanted, spoken = said[:, 1:], said[:, 1:] != vocabulary.pad

    def kept(decoder: nn.Module, seen: Tensor) -> float:
        words = decoder(seen, said)[0].argmax(2)
        return float((words == wanted)[spoken].double().mean())

    @torch.no_grad()
    def judge_encoder(encoder: nn.Module) -> float:
        return kept(decoder, encoder(images))

    @torch.no_grad()
    def judge_decoder(unrolled: Unrolled) -> float:
        return kept(unrolled.steps, places)

    encoder_inputs, decoder_inputs = examples(captioner)
    say(f"pruning one layer of the encoder at a time, judged by {len(chosen)} photos")
    first = sensitivity(captioner.encoder, encoder_inputs, judge_encoder, _FIGURE)
    say("pruning one layer of the decoder at a time")
    second = sensitivity(Unrolled(decoder).eval(), decoder_inputs, judge_decoder, _FIGURE)
    return first.named("encoder.").joined(second.named("decoder."))
