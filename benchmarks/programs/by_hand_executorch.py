"""INT8 for ExecuTorch by hand: ``python by_hand_executorch.py OUT.pte MODEL [KEY=VALUE ...]``.

What an engineer writes from the documentation of ExecuTorch's XNNPACK backend: PT2E with the
backend's own quantizer, per-channel weights, calibrated on the same inputs as Edge SDK. Of Edge SDK
it takes the model and those inputs, nothing else.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import XNNPACKQuantizer, get_symmetric_quantization_config
from executorch.exir import to_edge_transform_and_lower
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

    exported = torch.export.export(quantized, example)
    program = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()]).to_executorch()
    Path(out).write_bytes(program.buffer)


if __name__ == "__main__":
    main(*sys.argv[1:])
