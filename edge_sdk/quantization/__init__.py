"""The quantizers, by name."""

from __future__ import annotations

from edge_sdk._registry import Registry
from edge_sdk.errors import UnsupportedError

QUANTIZERS = Registry(
    "quantizer",
    "edge_sdk.quantizers",
    {
        "fp32": "edge_sdk.quantization.fp32:Fp32",
        "fp16": "edge_sdk.quantization.fp16:Fp16",
        "bf16": "edge_sdk.quantization.bf16:Bf16",
        "int8-dynamic": "edge_sdk.quantization.int8_dynamic:Int8Dynamic",
        "int8-static": "edge_sdk.quantization.int8_static:Int8Static",
        "int8-lsq": "edge_sdk.quantization.int8_lsq:Int8Lsq",
        "int4-weight": "edge_sdk.quantization.int4_weight:Int4Weight",
    },
    UnsupportedError,
)
