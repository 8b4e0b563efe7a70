"""The model protocol: parts to export, data to calibrate and to judge with, photos in, tags out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from edge_sdk.errors import ModelError, UnsupportedError

if TYPE_CHECKING:
    import numpy as np
    import torch

    from edge_sdk.schema.report import Tag

Arrays = Mapping[str, "np.ndarray"]
"""Tensor name to array."""

Sample = Mapping[str, Arrays]
"""Part name to its arrays: the inputs of one inference, or its outputs."""

Purpose = Literal["calibration", "reference", "evaluation"]

Fact = str | int | float | bool


@dataclass(frozen=True)
class Part:
    """A part of a model that is exported by itself.

    Attributes:
        name: Part name; a model of one part calls it ``forward``.
        module: The module in evaluation mode.
        example_inputs: Positional inputs of ``module.forward``, with the batch dimension.
        input_names: One name for each input.
        output_names: One name for each output, in the order of the flattened result.
        dynamic: Input name to ``{dimension: (smallest, largest)}`` for sizes that vary.
        keeps_float: Why the part stays in FP32 whatever the quantizer, empty where it need not.
    """

    name: str
    module: torch.nn.Module
    example_inputs: tuple[torch.Tensor, ...]
    input_names: tuple[str, ...] = ("input",)
    output_names: tuple[str, ...] = ("output",)
    dynamic: Mapping[str, Mapping[int, tuple[int, int]]] = field(default_factory=dict)
    keeps_float: str = ""


class Model(ABC):
    """A model plugin, or a user's file in the same shape.

    A subclass gives ``name``, ``parts`` and, where it has them, data, pre- and post-processing.
    Nothing here needs torch before ``parts`` is called, so that a cached compile starts at once.
    """

    name: str
    variant: str | None = None
    labels: Sequence[str] | None = None
    settings: ClassVar[Mapping[str, str]] = {}
    """Name of each setting that the constructor takes, to its default; for ``edge-sdk models``."""
    requires: ClassVar[tuple[str, ...]] = ()
    """Modules that it needs beside those of the runtimes."""
    onnx: ClassVar[bool] = False
    """Whether the source is an ONNX file: then ``onnx_path`` holds it and ``parts`` is not used."""
    onnx_path: Path

    def fingerprint(self) -> Mapping[str, str] | None:
        """What decides the weights and the graph, without loading them (file hashes, settings).

        None means that it cannot be known without loading; the pipeline then hashes what it loaded.
        """
        return None

    @abstractmethod
    def parts(self) -> list[Part]:
        """Builds the modules. Called once a compile."""

    def samples(self, purpose: Purpose) -> list[Sample]:
        """Real inputs for one purpose; an empty list where the model has none.

        ``calibration`` and ``evaluation`` never share an input. ``reference`` is a few inputs, at
        most eight, that travel in the bundle.
        """
        del purpose
        return []

    def score(self, outputs: Sequence[Sample], fp32: Sequence[Sample]) -> dict[str, float] | None:
        """Metrics of the outputs of ``samples("evaluation")``, given the FP32 outputs. None: no metric."""
        del outputs, fp32
        return None

    def preprocess(self, path: Path) -> Sample:
        """The inputs for one file, such as a photo.

        Raises:
            UnsupportedError: The model does not say how.
            ModelError: The file cannot be read.
        """
        raise UnsupportedError(
            f"model '{self.name}' does not say how to read {path.name}: give its plugin a preprocess() method, "
            "or leave out --input."
        )

    def postprocess(self, outputs: Sample) -> list[Tag]:
        """The tags of one inference, best first.

        Raises:
            UnsupportedError: The model does not say how.
        """
        del outputs
        raise UnsupportedError(f"model '{self.name}' has no tags: give its plugin a postprocess() method.")

    def facts(self) -> Mapping[str, Fact]:
        """What else a bundle says of the model, such as how far an approximation in it is off; after `parts`."""
        return {}

    def program_name(self, quantizer: str, delegate: str, program: str) -> str | None:
        """What apps call its program, None where the model has no name of its own for it.

        Args:
            quantizer: The quantizer's name.
            delegate: The delegate's.
            program: The program's name in the bundle.
        """
        del quantizer, delegate, program
        return None


def only_setting(name: str, settings: Mapping[str, str], known: Sequence[str]) -> None:
    """Refuses settings that a model does not have.

    Raises:
        ModelError: A key of ``settings`` is not in ``known``.
    """
    from edge_sdk.errors import unknown_name

    for key in settings:
        if key not in known:
            raise ModelError(f"model '{name}': " + unknown_name("setting", key, known))
