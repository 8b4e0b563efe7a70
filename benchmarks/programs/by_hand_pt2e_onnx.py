"""INT8 as ONNX by hand with PT2E: ``python by_hand_pt2e_onnx.py OUT.onnx MODEL [KEY=VALUE ...]``.

The library calls that Edge SDK makes for ONNX Runtime, plainly one after the other: PT2E with
per-channel weights, calibrated on the same inputs, and PyTorch's exporter, which turns the
quantized graph into QDQ form. Of Edge SDK it takes the model and those inputs, nothing else.
"""

from __future__ import annotations

import sys

import torch
from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import XNNPACKQuantizer, get_symmetric_quantization_config
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

from edge_sdk.models import load_model


def main(out: str, name: str, *settings: str) -> None:
    """Compiles the model's only part and writes the program."""
    model = load_model(name, dict(setting.split("=", 1) for setting in settings))
    (part,) = model.parts()
    module, example = part.module.eval(), part.example_inputs

    quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
    prepared = prepare_pt2e(torch.export.export(module, example).module(), quantizer)
    with torch.no_grad():
        for sample in model.samples("calibration"):
            prepared(*(torch.from_numpy(sample[part.name][name]) for name in part.input_names))
    quantized = convert_pt2e(prepared)

    torch.onnx.export(
        quantized,
        example,
        out,
        dynamo=True,
        external_data=False,
        input_names=list(part.input_names),
        output_names=list(part.output_names),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
