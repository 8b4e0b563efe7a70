"""Other people's differentiable solvers, to compare with.

Shapes: n latents, k codes, d width of a code.
"""

from __future__ import annotations

import functools
import importlib
from typing import Any

import torch
from torch import Tensor

from edge_sdk.errors import MissingDependencyError, refusals
from edge_sdk.models.scq.solvers._problem import Found, Problem

_TIGHT = 1e-10  # beside 1e-4 it costs a twentieth more
_NO_COUNT = 0  # these solvers do not tell their iterations


def cvxpylayers_weights(problem: Problem) -> Found:
    """Solved by cvxpylayers: a cone program for each latent, in float64 on the CPU.

    Its gradient by the default LSQR is wrong for this problem by far more than its tolerance: the dense
    factorisation is asked for.
    """
    layer = _layer(len(problem.codebook), problem.codebook.shape[1], problem.penalty, problem.anchor is not None)
    codebook, z = problem.codebook.double().cpu(), problem.z.double().cpu()
    given = [codebook.T, z]
    if problem.anchor is not None:
        given.append(torch.nn.functional.one_hot(problem.anchor.cpu(), len(codebook)).double())
    differentiates = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in given)
    with refusals("cvxpylayers", "the problem"):
        (found,) = layer(*given, solver_args={"eps": _TIGHT} | ({"mode": "dense"} if differentiates else {}))
    return Found(_on_simplex(found).to(problem.z), _NO_COUNT)


def proxsuite_weights(problem: Problem) -> Found:
    """Solved by ProxSuite's layer: an augmented Lagrangian method for each latent, in float64 on the CPU."""
    qplayer = _import("proxsuite.torch.qplayer")
    codes, z = problem.codebook.double().cpu(), problem.z.double().cpu()
    k = len(codes)
    one = torch.eye(k, dtype=codes.dtype)
    linear = -z @ codes.T
    if problem.anchor is not None:
        linear = linear - problem.penalty * one[problem.anchor.cpu()]
    with refusals("ProxSuite", "the problem"):
        found, *_ = qplayer.QPFunction(eps=_TIGHT, maxIter=1000)(
            codes @ codes.T + problem.penalty * one, linear, torch.ones(1, k).to(codes),
            torch.ones(1).to(codes), one, torch.zeros(k).to(codes), torch.full((k,), 1e20).to(codes),
        )  # fmt: skip
    return Found(_on_simplex(found).to(problem.z), _NO_COUNT)


@functools.lru_cache(maxsize=4)
def _layer(codes: int, width: int, penalty: float, anchored: bool) -> Any:
    """The layer for one size: to compile it takes seconds."""
    layers, cvxpy = _import("cvxpylayers.torch"), _import("cvxpy")
    weights = cvxpy.Variable(codes)
    basis, z = cvxpy.Parameter((width, codes)), cvxpy.Parameter(width)
    given = [basis, z]
    distance = weights
    if anchored:
        given.append(cvxpy.Parameter(codes))
        distance = weights - given[-1]
    cost = cvxpy.sum_squares(z - basis @ weights) + penalty * cvxpy.sum_squares(distance)
    asked = cvxpy.Problem(cvxpy.Minimize(cost), [cvxpy.sum(weights) == 1, weights >= 0])
    return layers.CvxpyLayer(asked, parameters=given, variables=[weights])


def _on_simplex(found: Tensor) -> Tensor:
    """Rounds off what the tolerance leaves."""
    found = found.clamp(min=0)
    return found / found.sum(1, keepdim=True)


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingDependencyError(
            f"a reference solver needs {name.partition('.')[0]}, which cannot be imported ({error}). "
            "Run: pip install 'edge-sdk[reference]', or use solver=exact."
        ) from error
