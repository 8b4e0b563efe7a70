"""The command line: one file per verb. `main` is the console script ``edge-sdk``."""

from edge_sdk.cli._main import main

__all__ = ["main"]
