"""A compiled captioner on a device: an image goes there, and words come back one by one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

from edge_sdk.errors import ModelError, TargetError

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

    from edge_sdk.bundle import Bundle
    from edge_sdk.schema.manifest import PartSpec
    from edge_sdk.schema.messages import SessionMemory
    from edge_sdk.schema.target import Target

ENCODER, STEP = "encoder", "decoder_step"
_WORD, _SCORES, _NEXT = "word", "scores", "next_"
_CHANNELS = "rgb"
_NO_WORDS = ("<start>", "<pad>")


@dataclass(frozen=True)
class Said:
    """A caption and what it took.

    Attributes:
        text: The caption.
        encoder_ms: The encoder, by the runner's clock.
        steps_ms: Each step of the decoder, by the runner's clock; the last one gives the end, where there is one.
        wall_ms: From the square of pixels to the caption, with the image's preparation and the way to the runner.
        memory: What the runner's process held.
    """

    text: str
    encoder_ms: float
    steps_ms: tuple[float, ...]
    wall_ms: float
    memory: SessionMemory

    @property
    def latency_ms(self) -> float:
        """What the program itself took: encoder and steps."""
        return self.encoder_ms + sum(self.steps_ms)


@dataclass(frozen=True)
class Plan:
    """How a bundle's parts make captions, as its manifest tells.

    Attributes:
        words: Of the vocabulary.
        image: The encoder's input.
        image_size: Pixels of a side.
        mean: Of each channel, of pixels from 0 to 255.
        std: Likewise.
        start: The word that captions begin after.
        end: The word that ends one.
        longest: Steps at most.
        first: Where the first step finds each input but the word: part and output.
        later: Where those after it find it.
    """

    words: tuple[str, ...]
    image: str
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    start: int
    end: int
    longest: int
    first: Mapping[str, tuple[str, str]]
    later: Mapping[str, tuple[str, str]]

    @staticmethod
    def of(bundle: Bundle) -> Plan:
        """The plan of a bundle.

        Raises:
            ModelError: It is no captioner's, or its parts and words do not fit together.
        """
        manifest = bundle.manifest
        parts = {part.name: part for part in manifest.parts}
        if set(parts) != {ENCODER, STEP} or not manifest.labels:
            raise ModelError(
                f"{bundle.path.name} is no captioner: it has the parts {', '.join(sorted(parts))} and "
                f"{len(manifest.labels or [])} words; expected {ENCODER} and {STEP}, as 'edge-sdk compile captioning' "
                "makes them."
            )
        facts = manifest.facts
        try:
            mean, std = (tuple(255 * float(facts[f"{key}_{one}"]) for one in _CHANNELS) for key in ("mean", "std"))
            start, end, longest = (int(facts[key]) for key in ("start_word", "end_word", "longest_caption"))
            (image,) = parts[ENCODER].inputs
            first, later = _sources(parts[ENCODER], parts[STEP])
            size = int(image.shape[-1] or 0)
            width = {spec.name: spec.shape[-1] or 0 for spec in parts[STEP].outputs}[_SCORES]
        except (KeyError, ValueError, TypeError) as error:
            raise ModelError(f"{bundle.path.name} does not tell how its captions are made: {error}.") from error
        if width != len(manifest.labels) or not (0 <= start < width and 0 <= end < width and longest >= 1 <= size):
            raise ModelError(
                f"{bundle.path.name} scores {width} words and its vocabulary has {len(manifest.labels)}: it belongs to "
                "another checkpoint."
            )
        return Plan(tuple(manifest.labels), image.name, size, mean, std, start, end, longest, first, later)

    def text(self, numbers: list[int]) -> str:
        """The words of numbers."""
        return " ".join(self.words[one] for one in numbers if self.words[one] not in _NO_WORDS)


def _sources(encoder: PartSpec, step: PartSpec) -> tuple[dict[str, tuple[str, str]], dict[str, tuple[str, str]]]:
    begun = {spec.name for spec in encoder.outputs}
    given = {spec.name for spec in step.outputs}
    names = [spec.name for spec in step.inputs]
    names.remove(_WORD)
    if missing := sorted(set(names) - begun):
        raise ValueError(f"{ENCODER} does not give {', '.join(missing)}, which {STEP} takes")
    first = {name: (ENCODER, name) for name in names}
    return first, {name: (STEP, _NEXT + name) if _NEXT + name in given else first[name] for name in names}


class DeviceCaptioner:
    """A bundle that is loaded on a device and says captions, the best word each time, until it is closed.

    The search runs here and asks the runner for a step a word; places and state stay there.

    Args:
        bundle: Of the plugin ``captioning``.
        device: URI of the device.
        threads: Processor threads; None: what the target says.
        say: Called with a line as each stage starts.

    Attributes:
        about: ``bundle``, ``size_bytes``, ``runtime`` and ``device``.

    Raises:
        ModelError: The bundle is no captioner's.
        DeviceError: The device or the runner failed.
        UnsupportedError: The device answers no single calls.
    """

    def __init__(
        self,
        bundle: Bundle,
        device: str = "local",
        threads: int | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        from edge_sdk.devices import open_device
        from edge_sdk.profiling._run import make_request

        say = say or (lambda _: None)
        self.plan, manifest = Plan.of(bundle), bundle.manifest
        with ExitStack() as stack:
            place = stack.enter_context(open_device(device))
            say(f"bringing the bundle to {place.uri}")
            request = make_request(bundle, place.push(bundle.path), _target_of(bundle), threads)
            say(f"loading it on {place.uri}")
            self._session = stack.enter_context(place.session(manifest.runtime.name, request))
            hello = self._session.hello
            self.about: dict[str, Any] = {
                "bundle": str(bundle.path),
                "size_bytes": manifest.size_bytes,
                "runtime": f"{hello.runtime} {hello.version} ({manifest.runtime.delegate})",
                "device": place.uri,
            }
            say("warming up")
            self._warm_up()
            self._stack = stack.pop_all()

    def close(self) -> None:
        """Ends the runner and leaves the device clean."""
        self._stack.close()

    def caption(self, square: Image) -> Said:
        """Says what a square of a photo shows.

        Args:
            square: RGB, of any size; the network's is made of it.

        Raises:
            DeviceError: The runner or the device failed.
        """
        begin = perf_counter()
        return self._say_it(self.pixels(square), begin)

    def caption_pixels(self, pixels: np.ndarray) -> Said:
        """Likewise for what `pixels` gave."""
        return self._say_it(pixels, perf_counter())

    def pixels(self, square: Image) -> np.ndarray:
        """A square as the encoder takes it."""
        from edge_sdk.models import _images

        size = self.plan.image_size
        sized = square if square.size == (size, size) else _images.center_square(square, 1.0, size)
        return _images.normalised(sized, self.plan.mean, self.plan.std)

    def _warm_up(self) -> None:
        """The first calls of each part set up what the later ones find there."""
        import numpy as np

        size = self.plan.image_size
        self.caption_pixels(np.zeros((1, len(_CHANNELS), size, size), np.float32))

    def _say_it(self, pixels: np.ndarray, begin: float) -> Said:
        import numpy as np

        plan, call = self.plan, self._session.call
        encoded = call(ENCODER, {plan.image: pixels}, memory=True)
        assert encoded.memory is not None
        said: list[int] = []
        steps_ms: list[float] = []
        word, kept = plan.start, plan.first
        while len(steps_ms) < plan.longest:
            step = call(STEP, {_WORD: np.array([word])}, kept=kept, outputs=[_SCORES])
            steps_ms.append(step.ms)
            word, kept = int(step.outputs[_SCORES].argmax()), plan.later
            if word == plan.end:
                break
            said.append(word)
        wall_ms = (perf_counter() - begin) * 1e3
        return Said(plan.text(said), encoded.ms, tuple(steps_ms), wall_ms, encoded.memory)


def _target_of(bundle: Bundle) -> Target | None:
    """The profile for threads and processors; None where it is of somebody else's machine."""
    from edge_sdk.schema import load_target

    try:
        return load_target(bundle.manifest.target)
    except TargetError:
        return None
