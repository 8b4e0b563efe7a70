"""A network in LSQ training."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from edge_sdk.errors import ModelError
from edge_sdk.models.base import Part
from edge_sdk.quantization.lsq import _checkpoint
from edge_sdk.quantization.lsq._prepare import Prepared, prepare
from edge_sdk.quantization.lsq._recipe import Recipe

_MOST_IMAGES = 1 << 16


class LsqNetwork(nn.Module):
    """A network of one input, its batch norms folded, with quantizers in it.

    Args:
        module: The network in FP32, trained.
        example: An input, ``[1, ...]``; the first dimension may then have any size.
        recipe: What is quantized to how many bits.

    Raises:
        ModelError: It cannot be captured.
        UnsupportedError: It has nothing to quantize.
    """

    def __init__(self, module: nn.Module, example: Tensor, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe
        self._prepared = prepare(_folded(module, example), recipe)
        self.graph = self._prepared.graph

    @property
    def prepared(self) -> Prepared:
        """The graph with what training changes in it."""
        return self._prepared

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, ...]`` to the network's output. `initialise` comes first."""
        return self.graph(x)

    def train(self, mode: bool = True) -> LsqNetwork:
        """Notes the mode. The graph is the same in both: batch norms are folded, and captured graphs have no other."""
        self.training = mode
        return self

    def initialise(self, images: Tensor) -> None:
        """Sets every step by what one batch brings, in full precision.

        Args:
            images: ``[batch, ...]``.
        """
        steps = list(self._prepared.steps())
        for step in steps:
            step.is_observing = True
        with torch.no_grad():
            self.graph(images)
        for step in dict.fromkeys(steps):
            step.is_observing = False
            step.set_start()

    def steps(self) -> Iterator[nn.Parameter]:
        """The steps, which get no weight decay."""
        for one in self._prepared.steps():
            yield one.step

    def save(self, path: Path, **facts: str | int | float | bool) -> None:
        """Writes what training has found, in plain tensors; see `load`. What was there stays until all is written.

        Args:
            path: The file.
            facts: What else is to be known of it, such as the variant and the epoch.

        Raises:
            ModelError: The steps have no values.
            EdgeSdkError: The disk is full.
        """
        if not all(step.is_set for step in self._prepared.steps()):
            raise ModelError("an LSQ network is saved after its steps have values: call initialise() first.")
        _checkpoint.save(path, self._prepared, self.recipe, facts)

    @classmethod
    def restore(cls, module: nn.Module, example: Tensor, checkpoint: _checkpoint.LsqCheckpoint) -> LsqNetwork:
        """The trained network.

        Args:
            module: A network of the same architecture; its weights do not matter.
            example: See the class.
            checkpoint: What `load` gave.

        Raises:
            ModelError: The checkpoint is of another network.
        """
        network = cls(module, example, checkpoint.recipe)
        checkpoint.fill(network.prepared)
        return network

    def __deepcopy__(self, memo: dict[int, Any]) -> LsqNetwork:
        raise NotImplementedError("copy an LsqNetwork by save() and restore()")


def _folded(module: nn.Module, example: Tensor) -> GraphModule:
    """The graph for any batch size, in full precision, as the backends see it before they quantize."""
    from edge_sdk.backends._rewrites import apply_rewrites, drop_identities, fold_batch_norm
    from edge_sdk.pipeline.capture import capture_part, flat_outputs
    from edge_sdk.pipeline.values import Captured

    two = example.expand(2, *example.shape[1:]).contiguous()  # a batch of one would be taken for fixed
    with torch.no_grad():
        count = len(flat_outputs(module.eval()(two)))
    names = tuple(f"output_{place}" for place in range(count))
    part = Part("forward", module, (two,), output_names=names, dynamic={"input": {0: (1, _MOST_IMAGES)}})
    table = {"drop_identities": drop_identities, "fold_batch_norm": fold_batch_norm}
    captured = apply_rewrites(Captured((capture_part(part),), macs=0), table, frozenset(table))
    graph = captured.graphs[0].torch
    assert graph is not None
    return graph
