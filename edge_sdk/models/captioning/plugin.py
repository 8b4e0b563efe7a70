"""Captioning: an image to its places, and from word to word. A caption is as many steps as it has words.

Without a checkpoint the decoder has random weights: good for measuring size and speed.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_sdk.errors import ModelError
from edge_sdk.models._settings import checkpoint, choice, integer
from edge_sdk.models.base import Fact, Model, Part, Purpose, Sample, only_setting

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from edge_sdk.models._views import View
    from edge_sdk.models.captioning._data import Captioned
    from edge_sdk.models.captioning._walk import Step
    from edge_sdk.models.captioning.network import Captioner
    from edge_sdk.schema.report import Tag

_log = logging.getLogger(__name__)

_ENCODERS = ("efficientnet_lite0", "resnet18", "resnet34", "resnet50")
_SIZES = {
    "image_size": (32, 2048),
    "embed_dim": (1, 8192),
    "attention_dim": (1, 8192),
    "decoder_dim": (1, 8192),
    "seed": (0, 2**32 - 1),
}
_REFERENCE = 4
_CALIBRATION_VIEWS = 8  # squares of each photo; few of the embedded ones calibrate
_EVALUATION_VIEWS = 2
_LEAST_SHARE = 0.8
_BATCH = 16


class Captioning(Model):
    """The parts ``encoder`` and ``decoder_step``.

    Args:
        **settings: ``checkpoint`` that training wrote, which decides the encoder and all sizes; without it
            ``encoder`` (efficientnet_lite0, resnet18, resnet34, resnet50), ``image_size`` (224), ``embed_dim``
            (256), ``attention_dim`` (256), ``decoder_dim`` (512) and ``seed`` are taken. ``data`` to calibrate
            and to judge with: ``embedded`` or COCO's folder, by default that of training; ``eval_images`` (64)
            and ``calibration_images`` (64), at most.
    """

    name = "captioning"
    settings = {
        "checkpoint": "",
        "data": "",
        "eval_images": "64",
        "calibration_images": "64",
        "encoder": "efficientnet_lite0",
        "image_size": "224",
        "embed_dim": "256",
        "attention_dim": "256",
        "decoder_dim": "512",
        "seed": "0",
    }

    def __init__(self, /, **settings: str) -> None:
        only_setting(self.name, settings, tuple(self.settings))
        values = {**self.settings, **settings}
        self.checkpoint = checkpoint(self.name, values["checkpoint"])
        if self.checkpoint is not None and (given := sorted({"encoder", *_SIZES} & settings.keys())):
            raise ModelError(f"model '{self.name}': leave {', '.join(given)} out: the checkpoint decides.")
        self.encoder_name = choice(self.name, "encoder", values["encoder"], _ENCODERS)
        self.sizes = {key: integer(self.name, key, values[key], *limits) for key, limits in _SIZES.items()}
        self.data = values["data"]
        self.counts = {
            purpose: integer(self.name, f"{key}_images", values[f"{key}_images"], 1, 10_000_000)
            for purpose, key in (("evaluation", "eval"), ("calibration", "calibration"))
        }

    @property
    def labels(self) -> Sequence[str]:  # type: ignore[override]
        """The words, in the order of the scores."""
        return self.captioner.vocabulary.words

    def fingerprint(self) -> Mapping[str, str]:
        """The settings, and hashes of the checkpoint, the photos and this code."""
        from edge_sdk._files import sha256_file
        from edge_sdk.models._fingerprint import source_hash
        from edge_sdk.models._views import identity

        here = Path(__file__).parent
        chosen = [view for purpose in ("calibration", "evaluation") for view, _ in self._photos(purpose)]
        random = f"random {self.encoder_name} {self.sizes}"
        return {
            "weights": sha256_file(self.checkpoint) if self.checkpoint else random,
            "photos": identity(chosen),
            "captions": sha256_file(here / "captions.yaml"),
            "source": source_hash(here),
        }

    def parts(self) -> list[Part]:
        """An image, and a word of its caption.

        ``encoder``: ``image`` float32 ``[1, 3, s, s]``, normalised, to ``places`` ``[1, p, c]``, ``keys``
        ``[1, p, a]``, ``hidden`` and ``cell`` ``[1, d]``: all that the first step needs beside the word.
        ``decoder_step``: ``word`` int64 ``[1]`` and these to ``scores`` ``[1, v]`` of the next word, ``next_hidden``,
        ``next_cell``, and the ``shares`` ``[1, p]`` that the places had.

        Raises:
            EdgeSdkError: The checkpoint cannot be read or does not fit, or the encoder's weights are missing.
        """
        import torch

        from edge_sdk.models.captioning import _parts

        captioner = self.captioner
        size = captioner.encoder.image_size
        image = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
        encoder = _parts.ImageToBeginning(captioner.encoder, captioner.decoder).eval()
        with torch.no_grad():
            places, keys, hidden, cell = (one.contiguous() for one in encoder(image))
        word = torch.tensor([captioner.vocabulary.start])
        step = _parts.WordToNext(captioner.decoder).eval()
        example = (word, hidden, cell, places, keys)
        return [
            Part(_parts.ENCODER, encoder, (image,), _parts.IMAGE, _parts.BEGINNING),
            Part(_parts.STEP, step, example, _parts.STEP_INPUTS, _parts.STEP_OUTPUTS),
        ]

    def facts(self) -> Mapping[str, Fact]:
        """The encoder, how pixels from 0 to 1 are normalised for it, and the words that begin and end a caption.

        ``pruned`` is the recipe of a pruned captioner.
        """
        from edge_sdk.models.captioning.network import LONGEST

        encoder, vocabulary = self.captioner.encoder, self.captioner.vocabulary
        channels = {
            f"{name}_{channel}": value
            for name in ("mean", "std")
            for channel, value in zip("rgb", getattr(encoder, name), strict=True)
        }
        trained = (self._saved or {}).get("facts")
        recipe = trained.get("pruned") if isinstance(trained, Mapping) else None
        return {
            "encoder": encoder.name,
            **({"pruned": str(recipe)} if recipe else {}),
            "start_word": vocabulary.start,
            "end_word": vocabulary.end,
            "longest_caption": LONGEST,
            "trained": self.checkpoint is not None,
            **channels,
        }

    def samples(self, purpose: Purpose) -> list[Sample]:
        """Squares of photos, each with one step of the caption that FP32 says of it, at another place for each.

        Of the embedded photos those that `photos.txt` keeps for calibration calibrate, and others judge; training has
        seen both. COCO's calibrate from its train split and judge from its val split.

        Raises:
            EdgeSdkError: There are no photos, or they cannot be read.
        """
        if purpose == "reference":
            return self._samples(self._photos("evaluation")[:_REFERENCE])
        return self._evaluation if purpose == "evaluation" else self._samples(self._photos(purpose))

    def score(self, outputs: Sequence[Sample], fp32: Sequence[Sample]) -> dict[str, float] | None:
        """How far the words stay FP32's.

        ``same_words``: the share of photos where the decoder step gives FP32's next word, and FP32's decoder gives it
        after the encoder's outputs, too. ``same_captions``: where FP32's decoder says FP32's caption of the encoder's
        outputs. ``cider``: what those captions are worth beside what people wrote, and ``cider_fp32``.
        """
        import numpy as np

        from edge_sdk.models.captioning._parts import STEP
        from edge_sdk.models.captioning.metrics import cider

        said, exactly = (self._captions(some) for some in (outputs, fp32))
        onwards = self._next_words(outputs, [words for words, _ in exactly])
        words = [
            found[STEP]["scores"].argmax() == exact[STEP]["scores"].argmax() == word
            for found, exact, word in zip(outputs, fp32, onwards, strict=True)
        ]
        decode = self.captioner.vocabulary.decode
        captions, exact_captions = ([decode(one) for one, _ in some] for some in (said, exactly))
        wanted = [references for _, references in self._photos("evaluation")]
        return {
            "same_words": float(np.mean(words)),
            "same_captions": float(np.mean([a == b for a, b in zip(captions, exact_captions, strict=True)])),
            "cider": float(np.mean(cider(captions, wanted))),
            "cider_fp32": float(np.mean(cider(exact_captions, wanted))),
        }

    def preprocess(self, path: Path) -> Sample:
        """The middle of a photo, and the first step of its caption."""
        from edge_sdk.models._views import View

        return self._samples([(View.middle(path), ())])[0]

    def postprocess(self, outputs: Sample) -> list[Tag]:
        """The caption that FP32's decoder says of the encoder's outputs, and the mean probability of its words."""
        from edge_sdk.schema.report import Tag

        ((words, probability),) = self._captions([outputs])
        return [Tag(label=self.captioner.vocabulary.decode(words), score=probability)]

    @cached_property
    def captioner(self) -> Captioner:
        """Encoder, decoder and words, in evaluation mode.

        Raises:
            EdgeSdkError: The checkpoint cannot be read or does not fit, or the encoder's weights are missing.
        """
        import torch

        from edge_sdk.models.captioning._data import learned_captions
        from edge_sdk.models.captioning.decoder import AttentionDecoder
        from edge_sdk.models.captioning.encoders import PlacesEncoder
        from edge_sdk.models.captioning.network import Captioner
        from edge_sdk.models.captioning.vocabulary import Vocabulary

        if self._saved is not None:
            return Captioner.from_state(self._saved, f"checkpoint {self.checkpoint}")
        _log.warning("captioning has a decoder of random weights: its words mean nothing. Give --set checkpoint=PATH.")
        sizes = dict(self.sizes)
        seed, image_size = sizes.pop("seed"), sizes.pop("image_size")
        encoder = PlacesEncoder(self.encoder_name, image_size, seed=seed)
        vocabulary = Vocabulary.of(learned_captions())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            decoder = AttentionDecoder(len(vocabulary), encoder.dim, **sizes)
        return Captioner(encoder, decoder, vocabulary).eval().requires_grad_(False)

    @cached_property
    def _saved(self) -> Mapping[str, Any] | None:
        """What the checkpoint holds, None where there is none."""
        from edge_sdk.models._checkpoint import load_plain

        if self.checkpoint is None:
            return None
        content = load_plain(self.checkpoint)
        if not isinstance(content, Mapping):
            raise ModelError(
                f"checkpoint {self.checkpoint} holds a {type(content).__name__}; expected what "
                "'edge-sdk train captioning' wrote."
            )
        return content

    @cached_property
    def _evaluation(self) -> list[Sample]:
        """Kept, for a budget asks for them more than once."""
        return self._samples(self._photos("evaluation"))

    def _photos(self, purpose: str) -> list[tuple[View, tuple[str, ...]]]:
        """Squares with what people wrote of them: every photo once, then once more."""
        from edge_sdk.models._views import View
        from edge_sdk.models.captioning._data import EMBEDDED
        from edge_sdk.training.seeds import derived

        root = self.data or str((self._saved or {}).get("data") or EMBEDDED)
        photos, count = self._split(root, purpose), self.counts[purpose]
        views = _CALIBRATION_VIEWS if purpose == "calibration" else _EVALUATION_VIEWS
        found = [
            (View.drawn(one.view.path, derived(1, photo, number), _LEAST_SHARE) if number else one.view, one.captions)
            for number in range(views)
            for photo, one in enumerate(photos[:count])
        ]
        return found[:count]

    def _split(self, root: str, purpose: str) -> list[Captioned]:
        """The middles of photos."""
        from edge_sdk.models import _photos
        from edge_sdk.models.captioning._data import EMBEDDED, captioned

        split = "train" if purpose == "calibration" else "val"
        found = captioned(root, split, 1, seed=0)
        if root != EMBEDDED:
            return found
        kept = set(_photos.installed("calibration" if purpose == "calibration" else "evaluation"))
        return [one for one in found if one.view.path in kept]

    def _samples(self, photos: Sequence[tuple[View, tuple[str, ...]]]) -> list[Sample]:
        import numpy as np

        from edge_sdk.models._features import pixels

        found: list[Sample] = []
        for begin in range(0, len(photos), _BATCH):
            images = np.concatenate(
                [pixels(self.captioner.encoder, view) for view, _ in photos[begin : begin + _BATCH]]
            )
            found += self._samples_of(images, begin)
        return found

    def _samples_of(self, images: np.ndarray, first: int) -> list[Sample]:
        """Inputs of both parts for images ``[b, 3, s, s]``, the first of which has a number."""
        import torch

        from edge_sdk.models.captioning import _parts
        from edge_sdk.models.captioning._walk import captions

        captioner = self.captioner
        with torch.no_grad():
            encoder = _parts.ImageToBeginning(captioner.encoder, captioner.decoder).eval()
            beginning = encoder(torch.from_numpy(images))
        steps = self._walk(beginning)
        samples: list[Sample] = []
        for row, (words, _) in enumerate(captions(steps, captioner.vocabulary)):
            one = slice(row, row + 1)
            tensors = (*steps[_position(first + row, words)][:3], *beginning[:2])
            step = {name: tensor[one].numpy().copy() for name, tensor in zip(_parts.STEP_INPUTS, tensors, strict=True)}
            samples.append({_parts.ENCODER: {"image": images[one]}, _parts.STEP: step})
        return samples

    def _captions(self, outputs: Sequence[Sample]) -> list[tuple[list[int], float]]:
        """What FP32's decoder says of the encoder's outputs: see `captions`."""
        from edge_sdk.models.captioning._walk import captions

        return captions(self._walk(_beginning(outputs)), self.captioner.vocabulary)

    def _next_words(self, outputs: Sequence[Sample], said: Sequence[Sequence[int]]) -> list[int]:
        """The word that FP32's decoder gives after the encoder's outputs and words of a caption, of each sample."""
        import torch

        from edge_sdk.models.captioning.network import LONGEST

        end = self.captioner.vocabulary.end
        given = torch.tensor([[*words, *(LONGEST - len(words)) * [end]] for words in said])
        steps = self._walk(_beginning(outputs), given)
        return [int(steps[_position(row, words)].scores[row].argmax()) for row, words in enumerate(said)]

    def _walk(self, beginning: Sequence[Tensor], given: Tensor | None = None) -> list[Step]:
        from edge_sdk.models.captioning._walk import walk
        from edge_sdk.models.captioning.network import LONGEST

        return walk(self.captioner.decoder, beginning, self.captioner.vocabulary.start, LONGEST, given)


def _position(number: int, words: Sequence[int]) -> int:
    """Which step of a caption is that of a sample: the next one for each sample, so that all are seen."""
    return number % len(words)


def _beginning(outputs: Sequence[Sample]) -> list[Tensor]:
    import numpy as np
    import torch

    from edge_sdk.models.captioning._parts import BEGINNING, ENCODER

    return [torch.from_numpy(np.concatenate([one[ENCODER][name] for one in outputs])) for name in BEGINNING]
