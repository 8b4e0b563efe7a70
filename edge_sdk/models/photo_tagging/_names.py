"""Program names in the pattern of the photo-tagging app: ``resnet18_multilabel_int8_xnnpack.pte``."""

from __future__ import annotations

from pathlib import PurePosixPath

_PRECISIONS = {"int8-static": "int8", "int8-lsq": "qat"}
"""Quantizers whose word differs; every other is its own word, such as ``fp32``."""


def program_name(variant: str, quantizer: str, delegate: str, program: str) -> str:
    """``{variant}_multilabel_{fp32|qat|int8}_{backend}.pte``; an ONNX program keeps its own ending.

    Args:
        variant: Such as ``resnet18``.
        quantizer: The quantizer's name, such as ``int8-static``.
        delegate: What runs the program, such as ``xnnpack`` or ``nnapi``.
        program: The program's file in the bundle, for its ending.
    """
    precision = _PRECISIONS.get(quantizer, quantizer.replace("-", "_"))
    return f"{variant}_multilabel_{precision}_{delegate}{PurePosixPath(program).suffix}"
