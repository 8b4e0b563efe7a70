"""Which layers to leave in float so that an accuracy budget is met, by measured sensitivity."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from edge_sdk.errors import GateError, UnsupportedError
from edge_sdk.pipeline.capture import flat_outputs
from edge_sdk.quantization import _static
from edge_sdk.quantization._annotate import layer_name, layers
from edge_sdk.quantization.base import Budget, Data

if TYPE_CHECKING:
    from torch.fx import GraphModule

    from edge_sdk.models.base import Sample
    from edge_sdk.pipeline.values import Captured, Graph
    from edge_sdk.quantization.int8_static import Int8Static

_PROBES = 8


def layers_to_skip(quantizer: Int8Static, captured: Captured, data: Data, budget: Budget) -> dict[str, frozenset[str]]:
    """Part name to the layers to leave in float.

    Every layer is quantized alone, and the error that it makes at the outputs is measured on a few
    calibration inputs. The layers are then put back into float in the order of that error; how many
    is found by bisection on the budget's own inputs.

    Raises:
        GateError: Even with all layers in float the budget is missed, which means that it is not
            the quantization that misses it.
        UnsupportedError: The budget has nothing to judge with.
    """
    if not budget.samples:
        raise UnsupportedError(
            "--max-drop needs inputs to judge with, and the model has none: give it a samples('evaluation'), "
            "or a samples('reference')."
        )
    plain = {
        graph.name: quantizer.prepare(graph, data.calibration, frozenset(), data.rules) for graph in captured.graphs
    }
    exact = outputs_of(captured, {graph.name: graph.torch for graph in captured.graphs}, budget.samples)

    def drop_with(skip: Sequence[tuple[str, str]]) -> float:
        chosen = _by_part(skip)
        prepared = {
            graph.name: quantizer.prepare(graph, data.calibration, chosen[graph.name], data.rules)
            if chosen.get(graph.name)
            else plain[graph.name]
            for graph in captured.graphs
        }
        for module in prepared.values():
            _static.set_mode(module, "quantize")
        drop = budget.drop(outputs_of(captured, prepared, budget.samples), exact)
        data.progress(f"{len(skip)} layers in FP32: {budget.metric} drops by {drop:.2g} (allowed {budget.max_drop})")
        return drop

    if drop_with([]) <= budget.max_drop:
        return {}
    # With rounding that is learned, weights lie on their grid already and only activations would be ranked.
    exactly = replace(quantizer, adaround=0)
    nearest = {
        graph.name: exactly.prepare(graph, data.calibration, frozenset(), data.rules) for graph in captured.graphs
    }
    ranked = _rank(captured, nearest if quantizer.adaround else plain, data)
    low, high = 0, len(ranked)
    if (least := drop_with(ranked)) > budget.max_drop:
        raise GateError(
            f"the accuracy budget cannot be met: with every layer in FP32 {budget.metric} still drops by "
            f"{least:.2g}; allowed {budget.max_drop}. Raise --max-drop, or calibrate on other inputs."
        )
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if drop_with(ranked[:middle]) <= budget.max_drop else (middle, high)
    return _by_part(ranked[:high])


def _rank(captured: Captured, prepared: Mapping[str, GraphModule], data: Data) -> list[tuple[str, str]]:
    """``(part, layer)`` by the error at the part's outputs when only that layer is quantized, worst first."""
    errors: list[tuple[float, str, str]] = []
    for graph in captured.graphs:
        data.progress(f"measuring the sensitivity of each layer of {graph.name}")
        module = prepared[graph.name]
        inputs = _static.inputs_of(graph, data.calibration)
        probes = inputs[:: max(1, len(inputs) // _PROBES)][:_PROBES]
        _static.set_mode(module, "off")
        exact = [flat_outputs(result) for result in _static.simulate(module, probes)]
        for layer in layers(module):
            _static.set_mode(module, "off")
            _static.set_mode(module, "quantize", only=[layer])
            found = [flat_outputs(result) for result in _static.simulate(module, probes)]
            errors.append((_relative_error(found, exact), graph.name, layer_name(layer)))
    return [(part, layer) for _, part, layer in sorted(errors, reverse=True)]


def _relative_error(found: list[list[torch.Tensor]], exact: list[list[torch.Tensor]]) -> float:
    pairs = [(f, e) for fs, es in zip(found, exact, strict=True) for f, e in zip(fs, es, strict=True)]
    noise = sum(float((f - e).square().sum()) for f, e in pairs)
    signal = sum(float(e.square().sum()) for _, e in pairs)
    return noise / max(signal, 1e-30)


def outputs_of(captured: Captured, modules: Mapping[str, Any], samples: Sequence[Sample]) -> list[Sample]:
    """The outputs of samples: each part's graph as the module under its name computes it."""
    found: list[dict] = [{} for _ in samples]
    for graph in captured.graphs:
        for index, result in enumerate(_static.simulate(modules[graph.name], _static.inputs_of(graph, samples))):
            found[index][graph.name] = _named(graph, result)
    return list(found)


def _named(graph: Graph, result) -> dict:
    tensors = flat_outputs(result)
    return {spec.name: tensor.numpy() for spec, tensor in zip(graph.outputs, tensors, strict=True)}


def _by_part(chosen: Sequence[tuple[str, str]]) -> dict[str, frozenset[str]]:
    parts: dict[str, set[str]] = defaultdict(set)
    for part, layer in chosen:
        parts[part].add(layer)
    return {part: frozenset(names) for part, names in parts.items()}
