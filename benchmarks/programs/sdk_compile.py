"""INT8 by Edge SDK, from nothing: ``python sdk_compile.py TARGET RUNTIME MODEL [KEY=VALUE ...]``."""

from __future__ import annotations

import sys

import edge_sdk


def main(target: str, runtime: str, model: str, *settings: str) -> None:
    """Compiles without looking into the cache, and leaves the result there."""
    own = dict(setting.split("=", 1) for setting in settings)
    edge_sdk.compile(model, target, runtime=runtime, quantize="int8-static", settings=own, use_cache=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
