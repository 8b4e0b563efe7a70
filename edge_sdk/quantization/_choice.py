"""The way to calibrate that does best on inputs it was not calibrated with."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch.fx import GraphModule

from edge_sdk.errors import UnsupportedError
from edge_sdk.pipeline.capture import flat_outputs
from edge_sdk.quantization import _static
from edge_sdk.quantization._equalize import find_pairs
from edge_sdk.quantization._observer import Method
from edge_sdk.quantization.base import AFFINE, Int8Rules

if TYPE_CHECKING:
    from edge_sdk.models.base import Sample
    from edge_sdk.pipeline.values import Captured, Graph
    from edge_sdk.quantization.int8_static import Int8Static

Candidate = tuple[Method, bool]
"""A way to choose ranges, and whether the graph is equalised first."""

_METHODS: tuple[Method, ...] = ("minmax", "mse", "percentile")
_LEAST_NOISE = 1e-30


def measure(
    quantizer: Int8Static, captured: Captured, calibration: Sequence[Sample], rules: Int8Rules = AFFINE
) -> dict[Candidate, float]:
    """Each candidate's signal-to-quantization-noise ratio at the outputs, in dB, the mean of all parts.

    One half of the inputs calibrates, the other one judges. Equalisation is tried where there is
    anything to equalise.

    Args:
        quantizer: Gives the other options. AdaRound is left out: it serves all candidates alike.
        captured: The graphs in float.
        calibration: The calibration inputs.
        rules: What the runtime takes.

    Raises:
        UnsupportedError: A part has fewer than two inputs.
    """
    can_equalize = any(find_pairs(graph.torch) for graph in captured.graphs if graph.torch is not None)
    figures: dict[Candidate, list[float]] = {}
    for graph in captured.graphs:
        inputs = _static.inputs_of(graph, calibration)
        if len(inputs) < 2:
            raise UnsupportedError(
                f"int8-static with choose=true needs at least 2 calibration inputs for part '{graph.name}', one half "
                f"to calibrate and one to judge with, and found {len(inputs)}: give more, or leave choose out."
            )
        for equalized in (False, True) if can_equalize else (False,):
            for method, figure in _measure(quantizer, graph, (inputs[::2], inputs[1::2]), equalized, rules).items():
                figures.setdefault((method, equalized), []).append(figure)
    return {candidate: sum(found) / len(found) for candidate, found in figures.items()}


def label(candidate: Candidate) -> str:
    """A candidate's name, such as ``mse+equalize``."""
    method, equalized = candidate
    return f"{method}+equalize" if equalized else method


def _measure(
    quantizer: Int8Static,
    graph: Graph,
    halves: tuple[Sequence[tuple[torch.Tensor, ...]], Sequence[tuple[torch.Tensor, ...]]],
    equalized: bool,
    rules: Int8Rules,
) -> dict[Method, float]:
    """The figure of each method. All of them calibrate in one run, on the first half of the inputs."""
    seen, kept = halves
    prepared = _static.prepare(graph, "mse", percentile=quantizer.percentile, equalized=equalized, rules=rules)
    means = _static.calibrate(prepared, seen)
    assert graph.torch is not None
    exact = _static.simulate(graph.torch, kept)
    found = {}
    for method in _METHODS:
        candidate, its_means = _fork(prepared, means)
        _static.set_method(candidate, method)
        if quantizer.bias_correction:
            _static.correct_bias(candidate, its_means, seen)
        _static.set_mode(candidate, "quantize")
        found[method] = _sqnr_db(_static.simulate(candidate, kept), exact)
    return found


def _fork(prepared: GraphModule, means: _static.ChannelMeans) -> tuple[GraphModule, _static.ChannelMeans]:
    """A copy, and the means by the copy's nodes."""
    forked = copy.deepcopy(prepared)
    pairs = zip(prepared.graph.nodes, forked.graph.nodes, strict=True)
    return forked, {copied: means[node] for node, copied in pairs if node in means}


def _sqnr_db(found: Sequence, exact: Sequence) -> float:
    signal = noise = 0.0
    for found_one, exact_one in zip(found, exact, strict=True):
        for f, e in zip(flat_outputs(found_one), flat_outputs(exact_one), strict=True):
            signal += float(e.double().square().sum())
            noise += float((f.double() - e.double()).square().sum())
    ratio = max(signal, _LEAST_NOISE) / max(noise, _LEAST_NOISE)
    return 10 * math.log10(ratio)
