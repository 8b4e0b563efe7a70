"""A convolution in INT8 for NVIDIA GPUs, as a Triton kernel that becomes part of the package.

PyTorch has no INT8 convolution for GPUs: without this one a graph with quantizers is computed in float. The
kernel is an implicit matrix product: a row of it is an output pixel, a column an output channel. Tensors lie with
their channels last. A product of a pixel's values with the weights is exact in 32 bits; what follows is one
multiplication and one addition a value, in FP32, and the rounding to INT8.

Source for the form of the product: Chetlur et al., cuDNN: Efficient Primitives for Deep Learning, 2014, section 3.
"""

from __future__ import annotations

import torch
from torch.library import triton_op, wrap_triton

from edge_sdk.errors import MissingDependencyError

try:
    import triton  # pyright: ignore[reportMissingImports]
    import triton.language as tl  # pyright: ignore[reportMissingImports]
except ImportError as error:
    raise MissingDependencyError(
        f"INT8 on an NVIDIA GPU needs Triton, which cannot be imported: {error}. It comes with PyTorch's build for "
        "CUDA; take fp16 or bf16 otherwise."
    ) from error


@triton.jit(do_not_specialize=["rows", "height", "width", "out_height", "out_width", "low", "high"])
def conv_kernel(
    x,
    pads,
    weight,
    scale,
    bias,
    out,
    rows,
    height,
    width,
    out_height,
    out_width,
    channels,
    filters,
    low,
    high,
    KERNEL_H: tl.constexpr,
    KERNEL_W: tl.constexpr,
    STRIDE_H: tl.constexpr,
    STRIDE_W: tl.constexpr,
    PAD_H: tl.constexpr,
    PAD_W: tl.constexpr,
    DILATION_H: tl.constexpr,
    DILATION_W: tl.constexpr,
    TO_INT8: tl.constexpr,
    WHOLE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """One tile of the output. Outside the picture ``pads``, the value that stands for zero, is read instead."""
    across = tl.cdiv(filters, BLOCK_N)
    tile = tl.program_id(0)
    m = (tile // across) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = (tile % across) * BLOCK_N + tl.arange(0, BLOCK_N)
    k = tl.arange(0, BLOCK_K)
    left = (m % out_width) * STRIDE_W - PAD_W
    top = ((m // out_width) % out_height) * STRIDE_H - PAD_H
    picture = (m // (out_width * out_height)) * height
    taps: tl.constexpr = KERNEL_H * KERNEL_W
    wanted = tl.where(n < filters, n, 0)
    values = weight + wanted * (taps * channels)
    deep = tl.cdiv(channels, BLOCK_K)
    sums = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.int32)
    # One loop over taps and channels, not two: loads are then fetched ahead across taps as well.
    for step in range(taps * deep):
        tap = step // deep
        first = (step - tap * deep) * BLOCK_K
        h = top + (tap // KERNEL_W) * DILATION_H
        w = left + (tap % KERNEL_W) * DILATION_W
        inside = (m < rows) & (h >= 0) & (h < height) & (w >= 0) & (w < width)
        source = tl.where(inside, x + ((picture + h) * width + w) * channels, pads)
        a_at = source[:, None] + (first + k)[None, :]
        b_at = values[None, :] + (tap * channels + first + k)[:, None]
        if WHOLE:
            a, b = tl.load(a_at), tl.load(b_at)
        else:
            rest = first + k < channels
            a = tl.load(a_at, mask=rest[None, :], other=0)
            b = tl.load(b_at, mask=rest[:, None], other=0)
        sums = tl.dot(a, b, sums, out_dtype=tl.int32)
    result = sums.to(tl.float32) * tl.load(scale + wanted)[None, :] + tl.load(bias + wanted)[None, :]
    at = out + m[:, None] * filters + n[None, :]
    mask = (m < rows)[:, None] & (n < filters)[None, :]
    if TO_INT8:
        result = tl.minimum(tl.maximum(result, low * 1.0), high * 1.0)
        # Adding 1.5 * 2^23 to a smaller FP32 and taking it off again rounds to the nearest integer, ties to even.
        result = (result + 12582912.0) - 12582912.0
        tl.store(at, result.to(tl.int8), mask=mask)
    else:
        tl.store(at, result, mask=mask)


@triton_op("edge_sdk::int8_conv2d", mutates_args={})
def int8_conv2d(
    x: torch.Tensor,
    pads: torch.Tensor,
    weight: torch.Tensor,
    scale: torch.Tensor,
    bias: torch.Tensor,
    size: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    low: int,
    high: int,
    to_int8: bool,
    tile: list[int],
) -> torch.Tensor:
    """A convolution of INT8 values with INT8 weights.

    Args:
        x: INT8 ``[batch, channels, height, width]``.
        pads: INT8 ``[channels]``, the value that stands for zero.
        weight: INT8 ``[filters, kernel height * kernel width * channels]``.
        scale: FP32 ``[filters]``: what a sum of products counts, in steps of the output where that is INT8.
        bias: FP32 ``[filters]``, in the same unit; what the inputs' zero point brings in is taken off here.
        size: Height and width of the kernel.
        stride: Down and across.
        padding: Down and across.
        dilation: Down and across.
        low: The smallest INT8 result; more than -128 where a rectifier follows.
        high: The largest one.
        to_int8: Whether the result is INT8, or FP32.
        tile: Rows, columns and depth of a tile, warps, stages.
    """
    batch, channels, height, width = x.shape
    filters, (kernel_h, kernel_w) = weight.shape[0], size
    out_h = (height + 2 * padding[0] - dilation[0] * (kernel_h - 1) - 1) // stride[0] + 1
    out_w = (width + 2 * padding[1] - dilation[1] * (kernel_w - 1) - 1) // stride[1] + 1
    source = x.contiguous(memory_format=torch.channels_last)
    out = torch.empty(
        (batch, filters, out_h, out_w),
        dtype=torch.int8 if to_int8 else torch.float32,
        device=x.device,
        memory_format=torch.channels_last,
    )
    rows = batch * out_h * out_w
    block_m, block_n, block_k, warps, stages = tile
    grid = (triton.cdiv(rows, block_m) * triton.cdiv(filters, block_n),)
    wrap_triton(conv_kernel)[grid](
        source,
        pads,
        weight,
        scale,
        bias,
        out,
        rows,
        height,
        width,
        out_h,
        out_w,
        channels,
        filters,
        low,
        high,
        KERNEL_H=kernel_h,
        KERNEL_W=kernel_w,
        STRIDE_H=stride[0],
        STRIDE_W=stride[1],
        PAD_H=padding[0],
        PAD_W=padding[1],
        DILATION_H=dilation[0],
        DILATION_W=dilation[1],
        TO_INT8=to_int8,
        WHOLE=channels % block_k == 0,
        BLOCK_M=block_m,
        BLOCK_N=block_n,
        BLOCK_K=block_k,
        num_warps=warps,
        num_stages=stages,
    )
    return out
