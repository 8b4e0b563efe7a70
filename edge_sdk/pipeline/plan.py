"""The plan: what to compile for what, refused before any work where the target does not allow it."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_sdk.backends import BACKENDS
from edge_sdk.errors import MissingDependencyError, UnsupportedError, unknown_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge_sdk.backends.base import Backend
    from edge_sdk.models.base import Model, Sample
    from edge_sdk.quantization.base import Quantizer
    from edge_sdk.schema.target import RuntimeRule, Target


@dataclass(frozen=True)
class Plan:
    """One way to serve the target: a rule of its profile, the backend for it, and why not the others."""

    rule: RuntimeRule
    backend: Backend

    @property
    def label(self) -> str:
        """Runtime and delegate, as messages name them."""
        return f"{self.rule.name} ({self.rule.delegate})"


def plans(target: Target, model: Model, quantizer: Quantizer, runtime: str) -> tuple[list[Plan], dict[str, str]]:
    """Every way to serve the target, in its order of preference, and why each other runtime cannot.

    Args:
        target: The profile.
        model: The model; it is not loaded.
        quantizer: The quantizer.
        runtime: A runtime's name, with ``:DELEGATE`` for one of several delegates, or ``auto`` for all that the
            target allows.

    Raises:
        UnsupportedError: None is left; the message says why for each.
        MissingDependencyError: Only packages are missing; the message names the extra.
    """
    rules = [rule for rule in target.runtimes if runtime in ("auto", rule.name, f"{rule.name}:{rule.delegate}")]
    if not rules:
        allowed = {rule.name for rule in target.runtimes} | {
            f"{rule.name}:{rule.delegate}" for rule in target.runtimes if rule.stands_in
        }
        if runtime.partition(":")[0] not in BACKENDS:
            raise UnsupportedError(unknown_name("runtime", runtime, {*BACKENDS, "auto"}))
        raise UnsupportedError(
            f"target '{target.name}' does not allow runtime '{runtime}'; it allows: {', '.join(sorted(allowed))}."
        )
    found: list[Plan] = []
    refused: dict[str, str] = {}
    missing: dict[str, str] = {}
    for rule in rules:
        label = f"{rule.name} ({rule.delegate})"
        if rule.stands_in and ":" not in runtime and (found or not missing):
            refused[label] = f"taken only where it is named: --runtime {rule.name}:{rule.delegate}"
            continue
        if reason := _refusal(rule, model, quantizer):
            refused[label] = reason
        elif reason := _not_installed(rule):
            missing[label] = reason
        else:
            found.append(Plan(rule, BACKENDS.load(rule.name)()))
    if not found:
        lines = "; ".join(f"{label}: {reason}" for label, reason in {**refused, **missing}.items())
        kind = MissingDependencyError if missing else UnsupportedError
        raise kind(f"target '{target.name}' cannot take model '{model.name}' as {quantizer.name}: {lines}.")
    return found, {**refused, **missing}


def check_data(model: Model, quantizer: Quantizer, calibration: Sequence[Sample], max_drop: float | None) -> None:
    """Refuses a quantizer that has nothing to work with.

    Raises:
        UnsupportedError: It needs calibration inputs and there are none, or it takes no accuracy budget.
    """
    if quantizer.needs_calibration and not calibration:
        raise UnsupportedError(
            f"quantizer '{quantizer.name}' needs calibration inputs, and model '{model.name}' brings none: give it a "
            "samples('calibration'), or --calibration FILE.npz with an array for each input (its first dimension "
            "counts the samples), or --calibration FOLDER of files that the model's preprocess() reads."
        )
    if max_drop is not None and not (quantizer.takes_budget and not model.onnx):
        what = "an ONNX file" if quantizer.takes_budget else f"quantizer '{quantizer.name}'"
        raise UnsupportedError(f"--max-drop works with int8-static on PyTorch models, not with {what}; leave it out.")
    if max_drop is not None and not 0 <= max_drop < 1:
        raise UnsupportedError(f"--max-drop is {max_drop}; expected a share between 0 and 1, such as 0.01.")


def _refusal(rule: RuntimeRule, model: Model, quantizer: Quantizer) -> str | None:
    if rule.name not in BACKENDS:
        return f"this version of Edge SDK has no backend '{rule.name}' (it has: {', '.join(sorted(BACKENDS))})"
    if problem := BACKENDS.problem(rule.name):
        return problem
    backend: type[Backend] = BACKENDS.load(rule.name)
    if rule.delegate not in backend.delegates:
        return f"this version of Edge SDK has no delegate '{rule.delegate}' for {rule.name}"
    if quantizer.name not in backend.quantizers:
        return f"{rule.name} does not take {quantizer.name} (it takes: {', '.join(sorted(backend.quantizers))})"
    if reason := backend.refusals.get((rule.delegate, quantizer.name)):
        return reason
    if rule.delegate not in backend.float_outputs and quantizer.float_outputs:
        return f"{rule.delegate} gives the results of an INT8 layer in INT8: take outputs=int8, or another target"
    if quantizer.precision not in rule.precisions:
        return f"the target allows {', '.join(rule.precisions)} there, and {quantizer.name} is {quantizer.precision}"
    option = backend.by_option.get((rule.delegate, quantizer.name))
    if option and not rule.options.get(option):
        return f"{rule.delegate} computes {quantizer.name} where the target's option {option} is on, and it is off"
    if ("onnx" if model.onnx else "torch") not in backend.graphs:
        return f"{rule.name} takes PyTorch models, not ONNX files"
    return None


def _not_installed(rule: RuntimeRule) -> str | None:
    backend: type[Backend] = BACKENDS.load(rule.name)
    missing = [name for name in backend.requires if importlib.util.find_spec(name) is None]
    if missing:
        return f"{', '.join(missing)} not installed; run: pip install 'edge-sdk[{backend.extra}]'"
    return backend.delegate_problem(rule.delegate)
