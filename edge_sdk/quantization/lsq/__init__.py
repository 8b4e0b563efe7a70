"""Learned step size quantization: training with quantizers whose step is a weight like any other.

The quantizers stand where ``int8-static`` puts its own, in the graph that every backend lowers: so a
trained network converts, step by step, into the integers that it was trained with.

Source: Esser et al., "Learned Step Size Quantization", ICLR 2020.
"""

from edge_sdk.quantization.lsq._checkpoint import LsqCheckpoint, load
from edge_sdk.quantization.lsq._fake_quantize import fake_quantize
from edge_sdk.quantization.lsq._network import LsqNetwork
from edge_sdk.quantization.lsq._recipe import Recipe

__all__ = ["LsqCheckpoint", "LsqNetwork", "Recipe", "fake_quantize", "load"]
