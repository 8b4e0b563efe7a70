"""The NNAPI execution provider of ONNX Runtime, as seen from the developer's machine.

It compiles into what the provider takes, and tells operator by operator, without a phone, what it would
take and why not the rest.
"""

from edge_sdk.backends.onnxruntime.nnapi._cut import Cut, cut
from edge_sdk.backends.onnxruntime.nnapi._lower import COMPILE_OPTIONS, finish, ort_format
from edge_sdk.backends.onnxruntime.nnapi._report import report
from edge_sdk.backends.onnxruntime.nnapi._view import View

__all__ = ["COMPILE_OPTIONS", "Cut", "View", "cut", "finish", "ort_format", "report"]
