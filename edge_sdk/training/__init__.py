"""Training: the glue on Lightning and Hydra that all systems share.

A system gives a folder of settings and a `Task`; the rest (optimizer, run folder, resuming, progress,
faults, several devices) is here.
"""

from __future__ import annotations

from edge_sdk._registry import Registry
from edge_sdk.errors import ModelError

__all__ = ["SYSTEMS"]

SYSTEMS = Registry(
    kind="system to train",
    group="edge_sdk.training",
    builtin={
        "photo_tagging": "edge_sdk.models.photo_tagging._system:PhotoTaggingSystem",
        "scq": "edge_sdk.models.scq._system:ScqSystem",
        "svq": "edge_sdk.models.svq._system:SvqSystem",
        "captioning": "edge_sdk.models.captioning._system:CaptioningSystem",
        "token_compression": "edge_sdk.models.token_compression._system:TokenCompressionSystem",
    },
    error=ModelError,
)
"""Name to `edge_sdk.training.base.System`."""
