"""``int8-lsq``: the integers that LSQ training learned, from its checkpoint.

The learned steps become the scales of the quantize and dequantize operators, at the very places where
training had its quantizers. Weights of fewer bits are stored in INT8.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from edge_sdk.errors import ModelError, UnsupportedError
from edge_sdk.quantization.base import Data, Quantizer

if TYPE_CHECKING:
    from edge_sdk.pipeline.values import Captured, Quantized
    from edge_sdk.quantization.lsq import Recipe

_HOW = "Train one: edge-sdk train photo_tagging method=lsq lsq.checkpoint=FP32.pt; it writes best.lsq.pt"


@dataclass(frozen=True)
class Int8Lsq(Quantizer):
    """INT8 from a checkpoint of LSQ training.

    Attributes:
        checkpoint: Path of the checkpoint.
    """

    name: ClassVar[str] = "int8-lsq"
    summary: ClassVar[str] = "weights and activations in INT8 with the steps that training learned"
    precision: ClassVar = "int8"

    checkpoint: str = ""

    def check(self) -> None:
        """Refuses to start without a checkpoint.

        Raises:
            UnsupportedError: None is named.
            ModelError: There is none.
        """
        if not self.checkpoint:
            raise UnsupportedError(
                f"quantizer '{self.name}' needs the checkpoint of an LSQ training: --set quantize.checkpoint=PATH. "
                f"{_HOW}."
            )
        if not Path(self.checkpoint).expanduser().is_file():
            raise ModelError(f"quantizer '{self.name}': there is no checkpoint at {self.checkpoint}. {_HOW}.")

    @property
    def options(self) -> dict[str, str | int | float | bool | None]:
        """The options as used; the checkpoint by the hash of its content."""
        from edge_sdk._files import sha256_file

        path = Path(self.checkpoint).expanduser()
        return {"checkpoint_sha256": sha256_file(path) if self.checkpoint and path.is_file() else None}

    @property
    def float_outputs(self) -> bool:
        """As the network was trained.

        Raises:
            ModelError: The checkpoint is none.
        """
        from edge_sdk.quantization.lsq import load

        return load(Path(self.checkpoint).expanduser()).recipe.outputs == "float"

    def apply_torch(self, captured: Captured, data: Data) -> Quantized:
        """Puts the learned weights and steps into the graph.

        Raises:
            ModelError: The checkpoint is none, or of another network.
            UnsupportedError: Its activations have fewer than 8 bits, or the model has several parts.
        """
        from edge_sdk.pipeline.values import Quantized
        from edge_sdk.quantization import _static
        from edge_sdk.quantization._listing import skipped_layers
        from edge_sdk.quantization.lsq import load
        from edge_sdk.quantization.lsq._prepare import prepare
        from edge_sdk.schema.manifest import Quantization

        checkpoint = load(Path(self.checkpoint).expanduser())
        recipe = checkpoint.recipe
        if len(captured.graphs) != 1:
            raise UnsupportedError("int8-lsq takes models of one part; this one has several.")
        if recipe.activation_bits < 8:
            raise UnsupportedError(
                f"LSQ checkpoint {self.checkpoint} has activations of {recipe.activation_bits} bits, and no runtime "
                "here computes convolutions on fewer than 8. Train one with lsq.activation_bits=8; weights may have "
                "fewer."
            )
        data.progress(f"taking the learned steps from {self.checkpoint}")
        graph = captured.graphs[0]
        assert graph.torch is not None
        prepared = prepare(graph.torch, recipe)
        checkpoint.fill(prepared)
        prepared.widen_weights()
        left = skipped_layers(graph.name, prepared.graph, self.name, _left_in_fp32(recipe, prepared))
        facts = {f"trained_{name}": value for name, value in checkpoint.facts.items()}
        return Quantized(
            graphs=(replace(graph, torch=_static.convert(prepared.graph)),),
            quantization=Quantization(
                method=self.name, options={**self.options, **recipe.facts(), **facts}, skipped=left
            ),
            rewrites=captured.rewrites,
        )


def _left_in_fp32(recipe: Recipe, prepared) -> dict[str, str]:
    """Layer to why training left it in FP32."""
    why = f"edges={recipe.edges}: training left the first and the last layer in FP32"
    return {name: why for name in prepared.weights if name not in prepared.weight_steps}
