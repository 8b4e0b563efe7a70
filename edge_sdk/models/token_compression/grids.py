"""Square grids of tokens, and the steps from one to a smaller one.

Shapes: b batch, n tokens, d width of a token, g tokens of a side (n = g * g).
"""

from __future__ import annotations

import math

from torch import Tensor

from edge_sdk.errors import ModelError


def strides(grid: int, output_grid: int, num_layers: int, progressive: bool = False) -> list[int]:
    """The strides of so many layers that take a grid to a smaller one, the largest first.

    Args:
        grid: Tokens of a side that enter.
        output_grid: Tokens of a side that leave.
        num_layers: Layers; those that are left over keep the size.
        progressive: Whether as many layers as can share the way; else the first goes all of it.

    Raises:
        ModelError: A number is below 1, or the smaller grid does not divide the larger one.
    """
    for name, value in (("grid", grid), ("output_grid", output_grid), ("num_layers", num_layers)):
        if value < 1:
            raise ModelError(f"{name} is {value}; expected 1 or more.")
    if output_grid > grid:
        raise ModelError(
            f"output_grid is {output_grid} and the encoder gives {grid} x {grid} tokens: that is no compression. "
            f"Give one of {_divisors(grid)}."
        )
    if grid % output_grid:
        raise ModelError(
            f"output_grid {output_grid} does not divide the encoder's {grid} x {grid} tokens: give one of "
            f"{_divisors(grid)}."
        )
    steps = _factors(grid // output_grid) if progressive else [grid // output_grid]
    while len(steps) > num_layers:  # the two smallest become one
        steps = sorted([steps[-1] * steps[-2], *steps[:-2]], reverse=True)
    return [*steps, *[1] * (num_layers - len(steps))]


def to_grid(tokens: Tensor, grid: int) -> Tensor:
    """Tokens ``[b, n, d]``, row by row, as ``[b, d, g, g]``.

    Raises:
        ModelError: They are not as many as the grid has places.
    """
    if tokens.dim() != 3 or tokens.shape[1] != grid * grid:
        raise ModelError(f"tokens are {list(tokens.shape)}; expected [batch, {grid * grid}, width]: {grid} x {grid}.")
    return tokens.transpose(1, 2).reshape(tokens.shape[0], tokens.shape[2], grid, grid)


def to_tokens(maps: Tensor) -> Tensor:
    """``[b, d, g, g]`` as tokens ``[b, n, d]``, row by row."""
    return maps.flatten(2).transpose(1, 2)


def _factors(number: int) -> list[int]:
    """The prime factors, largest first."""
    found, factor = [], 2
    while number > 1:
        while number % factor == 0:
            found.append(factor)
            number //= factor
        factor += 1
    return found[::-1]


def _divisors(number: int) -> str:
    smaller = {one for low in range(1, math.isqrt(number) + 1) if number % low == 0 for one in (low, number // low)}
    return ", ".join(map(str, sorted(smaller - {number}) or [number]))
