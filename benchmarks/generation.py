"""Generation: what SVQ's prior gains by keeping keys and values, and that it draws the same codes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from time import perf_counter

from benchmarks._context import BenchmarkError, Context
from benchmarks._rows import Limit, Row
from benchmarks._turns import in_turns

TITLE = "Generation"
CODEBOOKS, CODES = 4, 512
GAIN = Limit(at_least=5.0)
CASES, QUICK_CASES = ((16, 1, None), (16, 16, GAIN), (32, 16, GAIN)), ((4, 2, GAIN),)
"""Slots, batch, and the limit: for one image the weights are read anew at each code in either way."""
ROUNDS, QUICK_ROUNDS = 7, 2


def run(context: Context) -> Iterator[Row]:
    """The time without the cache over that with it, drawing the same codes in turns."""
    for slots, batch, limit in QUICK_CASES if context.quick else CASES:
        yield _gain(context, slots, batch, limit)


def _gain(context: Context, slots: int, batch: int, limit: Limit | None) -> Row:
    import torch

    from edge_sdk.models.svq.prior import AutoregressiveTransformer
    from edge_sdk.profiling.interleave import compare_rounds

    torch.manual_seed(0)
    prior = AutoregressiveTransformer(slots, CODEBOOKS, CODES).eval()

    def generate(use_cache: bool) -> tuple[float, torch.Tensor]:
        numbers = torch.Generator().manual_seed(0)
        begin = perf_counter()
        codes = prior.generate(batch, generator=numbers, use_cache=use_cache)
        return (perf_counter() - begin) * 1e3, codes

    sides: dict[str, Callable[[], tuple[float, torch.Tensor]]] = {
        "with the cache": partial(generate, True),
        "without": partial(generate, False),
    }
    kept, anew = (side()[1] for side in sides.values())
    if not torch.equal(kept, anew):
        raise BenchmarkError(f"{int((kept != anew).sum())} of {kept.numel()} codes differ with and without the cache")
    tokens, rounds = slots * CODEBOOKS, QUICK_ROUNDS if context.quick else ROUNDS
    times = in_turns(sides, rounds, lambda line: context.say(f"generation of {tokens} codes: {line}"))
    found = compare_rounds([[[one[0]] for one in times[side]] for side in sides])
    kept_ms, anew_ms = found.medians_ms
    how = (
        f"4 layers, 8 heads, width 256, {CODES} codes to choose from, {rounds} rounds in turns, the same codes; "
        f"{anew_ms:.0f} ms and {kept_ms:.0f} ms"
    )
    ratio = found.ratios[1]
    return Row(f"without / with the cache, {tokens} codes, batch {batch}", ratio.value, "ratio", how, ratio.ci95, limit)
