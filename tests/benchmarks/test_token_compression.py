"""The table of compressed tokens: what it stands beside, the limit, and a small one from training to Markdown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

for _library in ("transformers", "lightning", "hydra", "tensorboard"):
    pytest.importorskip(_library, reason=f"{_library} is not installed: pip install 'edge-sdk[clip,train]'")

from tiny_clip import SMALL, write_clip, write_photos  # noqa: E402

from benchmarks import token_compression as suite  # noqa: E402
from edge_sdk.models.token_compression import metrics  # noqa: E402


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_all_numbers_of_averages_are_the_averages_themselves():
    known, tokens = drawn(20, 64, 6), drawn(3, 64, 6, seed=1)
    torch.testing.assert_close(suite.more_averages(known, tokens, 8, 4, 16 * 6), metrics.pooled(tokens, 8, 4))


def test_of_averages_within_a_plane_two_numbers_keep_all():
    plane = drawn(2, 6)
    known, tokens = drawn(20, 64, 2) @ plane + 3, drawn(3, 64, 2, seed=1) @ plane + 3
    found = suite.more_averages(known, tokens, 8, 4, 16 * 2 + 15)  # what is left over is no number for each
    torch.testing.assert_close(found, metrics.pooled(tokens, 8, 4), rtol=1e-3, atol=1e-3)
    fewer = suite.more_averages(known, tokens, 8, 4, 16)
    assert float((fewer - metrics.pooled(tokens, 8, 4)).square().mean()) > 0.01


def rows(cosines: list[float], retrievals: list[float], grid: int = 6) -> dict:
    averages = {"cosine": 0.6, "retrieval_agreement": 0.7}
    return {grid: {suite.AVERAGES: averages, suite.COMPRESSED: {"cosine": cosines, "retrieval_agreement": retrievals}}}


@pytest.mark.parametrize(
    ("found", "enough"),
    [
        (rows([0.69, 0.71, 0.73], [0.8, 0.6, 0.8]), True),
        (rows([0.69, 0.69, 0.69], [0.8, 0.8, 0.8]), False),
        (rows([0.8, 0.8, 0.8], [0.7, 0.7, 0.7]), False),
        (rows([0.8], [0.8], grid=4), False),
    ],
)
def test_the_means_of_36_tokens_decide(found, enough):
    assert suite.is_enough(found) == enough


def test_a_table_is_made_of_runs_and_not_made_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    from edge_sdk.training.run import train

    runs, photos, clip = tmp_path / "runs", write_photos(tmp_path / "photos"), write_clip(tmp_path / "clip")
    monkeypatch.setenv("EDGE_SDK_CACHE", str(runs / "cache"))
    monkeypatch.setattr(suite, "CRITIC_STEPS", 5)
    more = [f"data.root={photos}", f"model.clip.model_name={clip}"]
    more += [one for one in SMALL if "output_grid_size" not in one]
    settings = suite.Settings(runs, (2,), 2, tuple(more))
    for seed in range(2):  # as the suite's own process would
        overrides = settings.overrides(2, seed)
        folder = train("token_compression", overrides, settings.folder(2, seed)).folder
        folder.with_suffix(".settings.json").write_text(json.dumps(overrides))
    given = [str(runs), "--grids", "2", "--seeds", "2", "--docs", str(tmp_path / "docs")]
    given += [word for one in more for word in ("--set", one)]
    assert suite.main(given) == 4, "four tokens are not those that are judged"
    text = capsys.readouterr().out
    written = (tmp_path / "docs" / "token_compression_results.md").read_text()
    assert written == text
    lines = [line for line in text.splitlines() if line.startswith("| 4 |")]
    assert [line.split(" | ")[1] for line in lines] == [
        "averages, repeated",
        "16 averages of 4 components",
        "components, where training starts",
        "**compressed tokens**",
    ]
    assert all(" | 128 | " in line for line in lines), "all are of the same bytes"
    last = json.loads((settings.folder(2, 1) / "metrics.json").read_text())["epochs"][-1]
    kept = json.loads((runs / "4-tokens-2-seeds.json").read_text())
    assert kept[suite.COMPRESSED]["cosine"][1] == pytest.approx(last["cosine"], abs=1e-5)
    assert kept[suite.AVERAGES]["cosine"] == pytest.approx(last["pooled_cosine"], abs=1e-5)
    assert (tmp_path / "docs" / "token_compression.png").stat().st_size > 0
    monkeypatch.setattr(suite, "_task", lambda *_: pytest.fail("judged again"))
    assert suite.main(given) == 4
    with pytest.raises(SystemExit, match="was trained with other settings"):
        suite.main([*given, "--set", "loss.ae.type=mse"])
