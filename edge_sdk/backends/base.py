"""What a backend is: it lowers quantized graphs into the program files of one runtime."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Literal

if TYPE_CHECKING:
    from edge_sdk.pipeline.values import Captured, Lowered, Quantized
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

    @abstractmethod
    def rewrite(self, captured: Captured, enabled: frozenset[str]) -> Captured:
        """Rewrites the graph into what the delegate takes, each rewrite checked numerically."""

    @abstractmethod
    def lower(self, quantized: Quantized, target: Target, rule: RuntimeRule) -> Lowered:
        """Turns quantized graphs into program files for one rule of a target, with the partition report."""
