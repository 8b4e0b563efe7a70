"""Models: the plugins that come with the SDK, third parties' plugins, and files of the user's own.

Nothing heavy is imported before a model is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edge_sdk._registry import Registry
from edge_sdk.errors import EdgeSdkError, ModelError
from edge_sdk.models.base import Model

__all__ = ["MODELS", "load_model"]

MODELS = Registry(
    kind="model",
    group="edge_sdk.models",
    builtin={
        "captioning": "edge_sdk.models.captioning.plugin:Captioning",
        "efficientnet_lite0": "edge_sdk.models.efficientnet_lite0.plugin:EfficientNetLite0",
        "photo_tagging": "edge_sdk.models.photo_tagging.plugin:PhotoTagging",
        "scq": "edge_sdk.models.scq.plugin:Scq",
        "svq": "edge_sdk.models.svq.plugin:Svq",
        "token_compression": "edge_sdk.models.token_compression.plugin:TokenCompression",
    },
    error=ModelError,
)
"""Name to model plugin."""


def load_model(spec: str | Path | Model, settings: Mapping[str, str]) -> Model:
    """Finds a model and gives it its settings.

    Args:
        spec: A name in `MODELS`, ``path/to/file.py:function`` (the file is run), ``model.onnx``,
            ``model.pt2``, or a model itself.
        settings: What ``--set key=value`` says; each model refuses what it does not know.

    Raises:
        ModelError: There is no such model or file, a setting is wrong, or the user's function fails.
        MissingDependencyError: A package that the model needs is not installed.
    """
    if isinstance(spec, Model):
        if settings:
            raise ModelError(
                f"model '{spec.name}' was built already and takes no settings ({', '.join(settings)}): "
                "give them to its constructor."
            )
        return spec
    text = str(spec)
    if text not in MODELS and _is_file(text):
        from edge_sdk.models.user import load_user_model

        return load_user_model(text, settings)
    return _plugin(text, settings)


def _is_file(spec: str) -> bool:
    """Whether a spec names a file rather than a plugin: by its ending, a folder in it, or because it is there."""
    path = spec.rpartition(":")[0] or spec
    return "/" in spec or bool(Path(path).suffix) or Path(spec).exists()


def _plugin(name: str, settings: Mapping[str, str]) -> Model:
    plugin = MODELS.load(name)
    try:
        model = plugin(**settings)
    except EdgeSdkError:
        raise
    except Exception as error:
        raise ModelError(f"model '{name}' refuses its settings: {type(error).__name__}: {error}") from error
    if not isinstance(model, Model):
        raise ModelError(f"model '{name}' is a {type(model).__name__}; expected an edge_sdk.models.base.Model.")
    return model
