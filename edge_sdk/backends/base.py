"""What a backend is: it lowers quantized graphs into the program files of one runtime."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar, Literal

from edge_sdk.errors import UnsupportedError
from edge_sdk.quantization.base import AFFINE, Int8Rules

if TYPE_CHECKING:
    from edge_sdk.pipeline.values import Captured, Lowered, Quantized
    from edge_sdk.quantization.base import Data, Quantizer
    from edge_sdk.schema.target import RuntimeRule, Target

Graph = Literal["torch", "onnx"]


class Backend(ABC):
    """Compiles for one runtime. Class attributes say what it can do; one validator reads them."""

    name: ClassVar[str]
    extra: ClassVar[str]
    """The pip extra that installs what ``requires`` names."""
    requires: ClassVar[tuple[str, ...]]
    """Modules that compiling needs."""
    runner_requires: ClassVar[tuple[str, ...]] = ()
    """Modules that the runner needs where it runs; empty: those that compiling needs."""
    delegates: ClassVar[frozenset[str]]
    """Delegates of the runtime that it can lower for."""
    packages: ClassVar[tuple[str, ...]]
    """Distributions whose versions belong in the cache key."""
    graphs: ClassVar[frozenset[Graph]]
    """Sources it takes: a PyTorch graph, an ONNX file."""
    quantizers: ClassVar[dict[str, Graph]]
    """Quantizer name to the kind of graph it is applied to for this runtime."""
    rewrites: ClassVar[dict[str, str]]
    """Name of each graph rewrite to what it does."""
    refusals: ClassVar[dict[tuple[str, str], str]] = {}
    """Delegate and quantizer to why that delegate does not take it."""
    float_outputs: ClassVar[frozenset[str]] = frozenset()
    """Delegates that give the results of an INT8 layer in float."""
    int8_rules: ClassVar[Int8Rules] = AFFINE
    """What static INT8 looks like where it takes it."""
    by_option: ClassVar[dict[tuple[str, str], str]] = {}
    """Delegate and quantizer to the option of the target's rule that does it at run time: the graph stays FP32."""

    @classmethod
    def delegate_problem(cls, delegate: str) -> str | None:
        """What a delegate needs that is not installed here, None where nothing is missing."""
        del delegate
        return None

    @classmethod
    def runner_problem(cls, delegate: str) -> str | None:
        """What a delegate's programs need to run that this machine lacks beside modules; None where nothing."""
        del delegate
        return None

    @classmethod
    def facts(cls, delegate: str) -> dict[str, str]:
        """What of this machine decides a program for a delegate, beside the packages: it belongs in the cache key."""
        del delegate
        return {}

    @classmethod
    def rewrites_for(cls, delegate: str) -> frozenset[str]:
        """The graph rewrites that serve a delegate; all of them where a backend does not tell them apart."""
        del delegate
        return frozenset(cls.rewrites)

    def operators(self, captured: Captured) -> Iterable[tuple[str, str, str]]:
        """Part, operator and node of all that is in the graphs, by the runtime's own names as far as they are known."""
        del captured
        return ()

    def check_operators(self, found: Iterable[tuple[str, str, str]], target: Target, rule: RuntimeRule) -> None:
        """Refuses operators that the target does not allow.

        Args:
            found: Part, operator and node.
            target: The profile.
            rule: Its rule for the runtime.

        Raises:
            UnsupportedError: The message names operator, node and the profile's reason.
        """
        rules = rule.operators
        where = f"target '{target.name}' does not allow it on {rule.name} ({rule.delegate})"
        for part, operator, node in found:
            what = f"part '{part}' has the operator {operator} ('{node}'), and {where}"
            if operator in rules.deny:
                raise UnsupportedError(f"{what}: {rules.deny[operator].rstrip('.')}.")
            if rules.allow is not None and operator not in rules.allow:
                raise UnsupportedError(f"{what}; it allows: {', '.join(sorted(rules.allow))}.")

    @abstractmethod
    def rewrite(self, captured: Captured, enabled: frozenset[str]) -> Captured:
        """Rewrites the graph into what the delegate takes, each rewrite checked numerically."""

    def quantize(self, captured: Captured, quantizer: Quantizer, data: Data) -> Quantized | None:
        """Quantizes PyTorch graphs in a way of the runtime's own; None: in the quantizer's way."""
        del captured, quantizer, data
        return None

    @abstractmethod
    def lower(self, quantized: Quantized, target: Target, rule: RuntimeRule) -> Lowered:
        """Turns quantized graphs into program files for one rule of a target, with the partition report."""
