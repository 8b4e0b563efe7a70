"""What the tests of models share."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_sdk.errors import EdgeSdkError
from edge_sdk.models import load_model


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """One thread of torch is quick enough here, and does not wait for others on a busy machine."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def refusal():
    """The message with which a model is refused, for its settings or when its parts are built."""

    def load(spec: str | Path, **settings: str) -> str:
        with pytest.raises(EdgeSdkError) as caught:
            load_model(spec, settings).parts()
        return str(caught.value)

    return load
