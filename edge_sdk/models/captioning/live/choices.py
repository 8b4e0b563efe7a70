"""What can be chosen: which model in which precision, and why something cannot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from edge_sdk.errors import EdgeSdkError, UnsupportedError, unknown_name

MODELS = {"original": "Original Model", "pruned": "Pruned Model (struct 30 % + mag 10 %)"}
PRECISIONS = {
    "fp32": "FP32 (as trained)",
    "fp16": "FP16 (half precision)",
    "int8-dynamic": "INT8 (dynamic quantization)",
    "int8-static": "INT8 (static quantization)",
}
_SHORT = {"fp32": "FP32", "fp16": "FP16", "int8-dynamic": "INT8 dynamic", "int8-static": "INT8 static"}
PLUGIN = "captioning"
_MAKE = {
    "original": "make it: edge-sdk train captioning --out runs/captions, or name another with --checkpoint PATH",
    "pruned": "make it: edge-sdk train captioning method=prune prune.checkpoint=runs/captions/best.pt "
    "--out runs/captions_pruned, or name another with --pruned PATH",
}


@dataclass(frozen=True)
class Choice:
    """A model in a precision, by their names."""

    model: str
    precision: str

    @property
    def title(self) -> str:
        """As people read it: ``Original Model + FP16``."""
        return f"{MODELS[self.model].partition(' (')[0]} + {_SHORT[self.precision]}"


@dataclass(frozen=True)
class Offer:
    """A line of a menu. ``problem`` is why it cannot be taken, empty where it can."""

    number: int
    name: str
    title: str
    problem: str = ""


@dataclass(frozen=True)
class Offers:
    """Everything that can be chosen.

    Attributes:
        checkpoints: Model name to its file.
        target: Name or path of the target's profile.
        runtime: One of its runtimes, None for the one that takes the most precisions.
    """

    checkpoints: dict[str, Path]
    target: str = "desktop-cpu"
    runtime: str | None = None

    @cached_property
    def models(self) -> tuple[Offer, ...]:
        """The models, with the reason where there is no checkpoint."""
        return tuple(
            Offer(number, name, title, self._no_checkpoint(name))
            for number, (name, title) in enumerate(MODELS.items(), 1)
        )

    @cached_property
    def precisions(self) -> tuple[Offer, ...]:
        """The precisions, with the reason where the target's runtime does not take one."""
        _, refused = self._served
        return tuple(
            Offer(number, name, title, refused.get(name, ""))
            for number, (name, title) in enumerate(PRECISIONS.items(), 1)
        )

    @property
    def runtime_name(self) -> str:
        """The runtime that all are compiled for, as ``NAME:DELEGATE``.

        Raises:
            UnsupportedError: The target has none that takes a captioner.
        """
        return self._served[0]

    @cached_property
    def _served(self) -> tuple[str, dict[str, str]]:
        """The runtime, and why it does not take a precision."""
        from edge_sdk.models import load_model
        from edge_sdk.pipeline.plan import plans
        from edge_sdk.quantization.base import make_quantizer
        from edge_sdk.schema import load_target

        if self.runtime == "auto":
            raise UnsupportedError(
                "--runtime auto would measure anew at each switch; name a runtime, or leave --runtime out: then it is "
                "the target's runtime that takes the most precisions."
            )
        target, model = load_target(self.target), load_model(PLUGIN, {})
        takes: dict[str, list[str]] = {}
        refused: dict[str, str] = {}
        for name in PRECISIONS:
            try:
                quantizer = make_quantizer(name, {})
                quantizer.check()
                for plan in plans(target, model, quantizer, self.runtime or "auto")[0]:
                    takes.setdefault(f"{plan.rule.name}:{plan.rule.delegate}", []).append(name)
            except EdgeSdkError as error:
                refused[name] = str(error)
        if not takes:
            raise UnsupportedError(
                f"target '{target.name}' takes no captioner: {next(iter(refused.values()), 'it has no runtime')}"
            )
        runtime = max(takes, key=lambda one: len(takes[one]))  # the target's order decides between equals
        missing = {name: f"{runtime} does not take it for {target.name}" for name in PRECISIONS}
        return runtime, {name: refused.get(name, missing[name]) for name in PRECISIONS if name not in takes[runtime]}

    def _no_checkpoint(self, name: str) -> str:
        path = self.checkpoints[name]
        return "" if path.is_file() else f"there is no checkpoint at {path}; {_MAKE[name]}"

    def check(self, choice: Choice) -> None:
        """Refuses what cannot be taken.

        Raises:
            UnsupportedError: The message says why.
        """
        for kind, offers, name in (
            ("model", self.models, choice.model),
            ("precision", self.precisions, choice.precision),
        ):
            offer = find(kind, offers, name)
            if offer.problem:
                raise UnsupportedError(f"{offer.title} is not available: {offer.problem}.")

    def numbered(self, model: int, precision: int) -> Choice:
        """The choice of two menus' numbers.

        Raises:
            UnsupportedError: There is no such number, or it cannot be taken.
        """
        found = []
        for kind, offers, number in (("model", self.models, model), ("precision", self.precisions, precision)):
            if not 1 <= number <= len(offers):
                raise UnsupportedError(f"there is no {kind} {number}: expected 1 to {len(offers)} ({listed(offers)}).")
            found.append(offers[number - 1].name)
        choice = Choice(*found)
        self.check(choice)
        return choice


def find(kind: str, offers: Sequence[Offer], name: str) -> Offer:
    """The offer of a name.

    Raises:
        UnsupportedError: There is none.
    """
    for offer in offers:
        if offer.name == name:
            return offer
    raise UnsupportedError(unknown_name(kind, name, [offer.name for offer in offers]))


def listed(offers: Sequence[Offer]) -> str:
    """``1 original, 2 pruned``."""
    return ", ".join(f"{offer.number} {offer.name}" for offer in offers)


def menu(heading: str, offers: Sequence[Offer]) -> list[str]:
    """A menu's lines."""
    lines = [f"=== {heading} ==="]
    for offer in offers:
        state = f"not available: {offer.problem}" if offer.problem else "available"
        lines.append(f"{offer.number}. {offer.title}: {state}")
    return lines


def ask(heading: str, word: str, offers: Sequence[Offer], answer: Callable[[str], str | None]) -> str:
    """Lets somebody choose, and asks again until the answer is one that can be taken.

    Args:
        heading: Of the menu.
        word: What is chosen, in the question.
        offers: The menu.
        answer: Shows the menu and a question, and gives the line that was typed; None where nobody will type one.

    Returns:
        The offer's name.

    Raises:
        UnsupportedError: Nobody answers.
    """
    question = "\n".join([*menu(heading, offers), "", f"{word} (1-{len(offers)}): "])
    while True:
        line = answer(question)
        if line is None:
            raise UnsupportedError(f"nothing was chosen: the input ended. Give --{word.lower()} NAME.")
        text = line.strip()
        if text.isdecimal() and 1 <= int(text) <= len(offers):
            offer = offers[int(text) - 1]
            if not offer.problem:
                return offer.name
            question = f"{offer.title} is not available: {offer.problem}\n{word} (1-{len(offers)}): "
        else:
            question = f"'{text[:40]}' is no number from 1 to {len(offers)}\n{word} (1-{len(offers)}): "
