"""The live program's menus and scripts: what can be chosen, what cannot and why."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from edge_sdk.errors import EdgeSdkError, UnsupportedError
from edge_sdk.models.captioning.live.choices import Choice, Offers, ask, menu
from edge_sdk.models.captioning.live.commands import Command, parse_script


@pytest.fixture
def offers(tmp_path) -> Offers:
    """An original that is there and a pruned one that is not."""
    (tmp_path / "best.pt").write_bytes(b"")
    return Offers({"original": tmp_path / "best.pt", "pruned": tmp_path / "none.pt"})


def test_a_script_is_commands():
    assert parse_script("S, r,P,M:2:3,W:1.5,S,Q") == [
        Command("caption"),
        Command("repeat"),
        Command("statistics"),
        Command("switch", 2, 3),
        Command("wait", seconds=1.5),
        Command("caption"),
        Command("quit"),
    ]


@pytest.mark.parametrize("word", ["X", "", "M", "M:1", "M:1:x", "M:1:2:3", "W", "W:x", "W:9999", "S:1", "SS", "Q;Q"])
def test_an_unknown_key_in_a_script_is_named_with_its_place(word):
    with pytest.raises(UnsupportedError, match=f"'{word}' at place 2 is no command; expected S, R, P, M:MODEL"):
        parse_script(f"S,{word},Q")


def test_a_menu_says_what_is_not_available_and_why(offers):
    assert menu("Choose a model", offers.models) == [
        "=== Choose a model ===",
        "1. Original Model: available",
        "2. Pruned Model (struct 30 % + mag 10 %): not available: there is no checkpoint at "
        f"{offers.checkpoints['pruned']}; make it: edge-sdk train captioning method=prune "
        "prune.checkpoint=runs/captions/best.pt --out runs/captions_pruned, or name another with --pruned PATH",
    ]
    assert [offer.title for offer in offers.precisions] == [
        "FP32 (as trained)",
        "FP16 (half precision)",
        "INT8 (dynamic quantization)",
        "INT8 (static quantization)",
    ]


def test_the_runtime_is_the_one_that_takes_the_most_precisions(offers):
    assert offers.runtime_name == "executorch:xnnpack" and not any(offer.problem for offer in offers.precisions)


def test_a_precision_that_the_runtime_does_not_take_says_why(offers):
    named = Offers(offers.checkpoints, runtime="onnxruntime")
    assert named.runtime_name == "onnxruntime:cpu"
    problems = {offer.name: offer.problem for offer in named.precisions}
    assert "the target allows fp32, int8, int4 there, and fp16 is fp16" in problems.pop("fp16")
    assert not any(problems.values())
    with pytest.raises(UnsupportedError, match="FP16 .half precision. is not available: .* fp16 is fp16"):
        named.numbered(1, 2)


def test_numbers_are_those_of_the_menus(offers):
    assert offers.numbered(1, 4) == Choice("original", "int8-static")
    assert offers.numbered(1, 2).title == "Original Model + FP16"
    with pytest.raises(UnsupportedError, match="there is no model 3: expected 1 to 2 .1 original, 2 pruned."):
        offers.numbered(3, 1)
    with pytest.raises(UnsupportedError, match="there is no precision 9: expected 1 to 4 .1 fp32, 2 fp16"):
        offers.numbered(1, 9)
    with pytest.raises(UnsupportedError, match="Pruned Model .* is not available: there is no checkpoint"):
        offers.numbered(2, 1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"runtime": "auto"}, "would measure anew at each switch"),
        ({"runtime": "warp"}, "unknown runtime 'warp'"),
        ({"target": "toaster"}, "unknown target 'toaster'"),
    ],
)
def test_runtimes_and_targets_that_do_not_fit_are_refused(offers, change, said):
    with pytest.raises(EdgeSdkError, match=said):
        _ = Offers(offers.checkpoints, **change).runtime_name


def test_a_menu_asks_until_the_answer_can_be_taken(offers):
    answers: Iterator[str | None] = iter(["seven\n", "9\n", "2\n", " 1 \n", None])
    asked: list[str] = []

    def answer(question: str) -> str | None:
        asked.append(question)
        return next(answers)

    assert ask("Choose a model", "Model", offers.models, answer) == "original"
    assert asked[0].startswith("=== Choose a model ===\n1. ") and asked[0].endswith("\n\nModel (1-2): ")
    assert asked[1].startswith("'seven' is no number") and asked[2].startswith("'9' is no number")
    assert asked[3].startswith("Pruned Model (struct 30 % + mag 10 %) is not available: there is no checkpoint")
    with pytest.raises(UnsupportedError, match="nothing was chosen: the input ended. Give --model NAME"):
        ask("Choose a model", "Model", offers.models, answer)
