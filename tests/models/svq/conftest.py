"""What the tests of SVQ share: one thread of torch, and a model so small that a test takes no time."""

from __future__ import annotations

from collections.abc import Callable

import pytest

torch = pytest.importorskip("torch")

from edge_sdk.models.svq.network import SVQ  # noqa: E402

SIZES = {
    "image_size": 16,
    "num_slots": 3,
    "slot_size": 16,
    "num_codebooks": 2,
    "codebook_size": 8,
    "code_dim": 8,
    "hidden_dim": 8,
}


@pytest.fixture(autouse=True)
def one_thread():
    """One thread of torch is quick enough here, and does not wait for others on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def small() -> Callable[..., SVQ]:
    """Builds a small model, in training mode, with other sizes where they are given."""

    def build(**changes) -> SVQ:
        torch.manual_seed(0)
        return SVQ(**{**SIZES, **changes})

    return build


@pytest.fixture
def images() -> torch.Tensor:
    """Four small images."""
    return torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
