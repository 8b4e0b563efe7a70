"""INT8 by Edge SDK, from the cache: ``python sdk_warm.py OUT.json RUNS TARGET RUNTIME MODEL [KEY=VALUE ...]``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from time import perf_counter

import edge_sdk


def main(out: str, runs: str, target: str, runtime: str, model: str, *settings: str) -> None:
    """Compiles the same thing again and again in this process."""
    own = dict(setting.split("=", 1) for setting in settings)
    seconds = []
    for _ in range(1 + int(runs)):
        begin = perf_counter()
        edge_sdk.compile(model, target, runtime=runtime, quantize="int8-static", settings=own)
        seconds.append(perf_counter() - begin)
    torch = sum(name.partition(".")[0] == "torch" for name in sys.modules)
    Path(out).write_text(json.dumps({"first_s": seconds[0], "again_s": seconds[1:], "torch_modules": torch}))


if __name__ == "__main__":
    main(*sys.argv[1:])
