"""The engines that were built on this device, each under a key of all that decides it.

``~/.cache/edge-sdk/engines/KEY/``: ``engine``, ``layers`` (TensorRT's layer information), ``about.json``. Beside them a
timing cache for each GPU and TensorRT version, so that the next engine is built faster. Nothing is ever taken away:
the folder may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile

ENGINE, LAYERS, ABOUT = "engine", "layers", "about.json"
ABOUT_KEYS = {"version", "build_s", "fallback", "gpu", "compute_capability"}


def folder():
    """Where engines are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(base, "edge-sdk", "engines")


def key(onnx, options, identity):
    """The key of an engine.

    Args:
        onnx: Path of the model.
        options: What it is built with.
        identity: Of the builder and the device: TensorRT's version, the GPU and its compute capability.
    """
    digest = hashlib.sha256(json.dumps([options, identity], sort_keys=True).encode())
    with open(onnx, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def timing_cache(identity):
    """Path of the timing cache of a builder and device; its folder is made."""
    os.makedirs(folder(), exist_ok=True)
    words = re.sub(r"[^\w.]+", "-", "-".join(str(identity[name]) for name in sorted(identity)))
    return os.path.join(folder(), "timing-%s.cache" % words[:120])


def find(name):
    """The folder of a kept engine and what is noted of it, None where there is none or it is not whole."""
    place = os.path.join(folder(), name)
    try:
        with open(os.path.join(place, ABOUT), encoding="utf-8") as file:
            about = json.load(file)
    except (OSError, ValueError):
        return None
    whole = isinstance(about, dict) and set(about) == ABOUT_KEYS
    if not whole or not all(os.path.isfile(os.path.join(place, one)) for one in (ENGINE, LAYERS)):
        return None
    return place, about


class Making:
    """A folder that an engine is built in, and that is put in its place as a whole with ``keep``.

    Used as a context manager; what was not kept is removed.
    """

    def __init__(self, name):
        os.makedirs(folder(), exist_ok=True)
        self.final = os.path.join(folder(), name)
        self.path = tempfile.mkdtemp(prefix=".part-", dir=folder())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.path, ignore_errors=True)

    def keep(self, about):
        """Notes what is to be known of the engine, and returns its final folder."""
        with open(os.path.join(self.path, ABOUT), "w", encoding="utf-8") as file:
            json.dump(about, file)
        # One that is there already is damaged, or another run's of the same moment.
        shutil.rmtree(self.final, ignore_errors=True)
        os.replace(self.path, self.final)
        return self.final
