"""INT8 for ONNX Runtime by hand: ``python by_hand_onnxruntime.py OUT.onnx MODEL [KEY=VALUE ...]``.

What an engineer writes from ONNX Runtime's documentation of quantization: PyTorch's exporter, the
preparation that the documentation asks for, and static quantization in QDQ form, U8S8 with
per-channel weights and the default calibration (min-max), on the same inputs as Edge SDK. Of Edge
SDK it takes the model and those inputs, nothing else.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from edge_sdk.models import load_model


class Reader(CalibrationDataReader):
    """Hands the calibration inputs to ONNX Runtime one by one."""

    def __init__(self, feeds: list[dict]) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> dict | None:
        """The next inputs, None at the end."""
        return next(self._feeds, None)


def main(out: str, name: str, *settings: str) -> None:
    """Compiles the model's only part and writes the program."""
    model = load_model(name, dict(setting.split("=", 1) for setting in settings))
    (part,) = model.parts()

    with tempfile.TemporaryDirectory() as folder:
        exported, prepared = str(Path(folder) / "exported.onnx"), str(Path(folder) / "prepared.onnx")
        torch.onnx.export(
            part.module.eval(),
            part.example_inputs,
            exported,
            dynamo=True,
            input_names=list(part.input_names),
            output_names=list(part.output_names),
        )
        quant_pre_process(exported, prepared)
        quantize_static(
            prepared,
            out,
            Reader([dict(sample[part.name]) for sample in model.samples("calibration")]),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
