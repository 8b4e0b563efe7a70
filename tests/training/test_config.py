"""Settings: defaults, groups, and what is said of unknown keys and bad values."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from edge_sdk.errors import ModelError
from edge_sdk.models.photo_tagging._system import PhotoTaggingSystem
from edge_sdk.models.scq._system import ScqSystem
from edge_sdk.models.svq._system import SvqSystem
from edge_sdk.training.config import compose, read_config
from edge_sdk.training.task import rate

SYSTEM = PhotoTaggingSystem()


def config(*overrides: str):
    return SYSTEM.config(compose(SYSTEM.conf, overrides))


def refusal(*overrides: str) -> str:
    with pytest.raises(ModelError) as caught:
        config(*overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_defaults_are_those_of_the_seed():
    chosen = config("data.root=coco")
    assert (chosen.model, chosen.method, chosen.epochs, chosen.data.batch_size) == ("resnet18", "fp32", 50, 128)
    assert (chosen.data.size, chosen.data.root) == (224, "coco")
    optimizer = chosen.optimizer
    assert (optimizer.lr, optimizer.momentum, optimizer.nesterov, optimizer.weight_decay) == (0.1, 0.9, True, 1e-4)


def test_lsq_has_its_own_defaults():
    chosen = config("data.root=coco", "method=lsq", "lsq.checkpoint=best.pt")
    assert (chosen.method, chosen.epochs, chosen.optimizer.lr, chosen.optimizer.weight_decay) == ("lsq", 30, 0.01, 5e-5)
    assert chosen.lsq.model_dump() == {
        "checkpoint": "best.pt",
        "weight_bits": 8,
        "activation_bits": 8,
        "edges": "8bit",
        "per_channel": True,
        "start": "range",
        "distillation": 0.0,
        "outputs": "float",
    }


def test_the_embedded_set_has_its_own_defaults_and_the_command_line_wins():
    chosen = config("epochs=3", "data=embedded", "data.size=64", "augment.scale=[0.5,0.9]")
    assert (chosen.data.root, chosen.epochs, chosen.data.size) == ("embedded", 3, 64)
    assert chosen.augment.scale == (0.5, 0.9)
    assert config("data=embedded").epochs < 50


@pytest.mark.parametrize(
    ("system", "overrides"),
    [
        (
            SYSTEM,
            ("data=embedded", "method=lsq", "lsq.checkpoint='C:\\weights 1\\be\"st.pt'", "augment.scale=[0.5,0.9]"),
        ),
        (ScqSystem(), ("task=nav_ar", "codebook.ema_decay=null", "data.root=embedded")),
        (SvqSystem(), ("data=dsprites", "ablation.enabled=true", "ablation.only=[base,decoder]", "device=cpu")),
    ],
)
def test_the_settings_that_a_run_wrote_are_a_file_of_settings(system, overrides, tmp_path):
    first = system.config(compose(system.conf, overrides))
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(first.model_dump(mode="json")), "utf-8")
    assert system.config(compose(system.conf, (), file)) == first
    assert system.config(compose(system.conf, ("seed=5",), file)) == first.model_copy(update={"seed": 5})


def test_a_file_of_some_settings_leaves_the_others_as_they_are(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("data: embedded\noptimizer:\n  lr: 0.05\n", "utf-8")
    assert SYSTEM.config(compose(SYSTEM.conf, (), file)) == config("data=embedded", "optimizer.lr=0.05")


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("optimizer: {lrr: 1}", (), "mine.yaml: unknown setting 'optimizer.lrr'. Did you mean 'optimizer.lr'?"),
        ("data: coc", (), "mine.yaml: unknown data 'coc'. Did you mean 'coco'?"),
        ("[1, 2]", (), "mine.yaml does not hold settings: expected a mapping, found a list"),
        ("a: [", (), "mine.yaml, which should hold settings, cannot be read"),
        (None, (), "mine.yaml, which should hold settings, cannot be read"),
        ("seed: 1", ("data=embedded",), "write 'data' into the file, or give its settings by their own names"),
    ],
)
def test_files_of_settings_that_do_not_fit(tmp_path, text, overrides, message):
    file = tmp_path / "mine.yaml"
    if text is not None:
        file.write_text(text, "utf-8")
    with pytest.raises(ModelError) as caught:
        compose(SYSTEM.conf, overrides, file)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.lrr=1", "unknown setting 'optimizer.lrr'. Did you mean 'optimizer.lr'?"),
        ("epoch=1", "unknown setting 'epoch'. Did you mean 'epochs'?"),
        ("data=coc", "unknown data 'coc'. Did you mean 'coco'? Known: coco, embedded."),
        ("method=lsqq", "unknown method 'lsqq'. Did you mean 'lsq'?"),
        ("optimizer=1", "unknown setting 'optimizer'"),
        ("epochs", "the setting 'epochs' cannot be read"),
        ("epochs=", "epochs is ''; input should be a valid integer"),
        ("+extra=1", "the setting '+extra=1' is none: expected KEY=VALUE."),
        ("~seed", "the setting '~seed' is none"),
        ("seed=1,2", "the setting 'seed=1,2' is none"),
        ("data.root=a b(c", "the setting 'data.root=a b(c' cannot be read"),
        ("data.root=${nowhere}", "do not fit: Interpolation key 'nowhere' not found"),
        ("epochs=0", "epochs is 0; input should be greater than or equal to 1"),
        ("epochs=many", "epochs is 'many'; input should be a valid integer"),
        ("optimizer.lr=-1", "optimizer.lr is -1; input should be greater than 0"),
        ("optimizer.lr=nan", "optimizer.lr is nan; input should be"),
        ("model=resnet51", "model is 'resnet51'; input should be 'resnet18', 'resnet34' or 'resnet50'"),
        ("loss.name=bcee", "loss.name is 'bcee'; input should be 'bce', 'focal' or 'asymmetric'"),
        ("lsq.weight_bits=9", "lsq.weight_bits is 9; input should be less than or equal to 8"),
        ("augment.scale=[0.9,0.5]", "augment: scale is [0.9, 0.5]; expected the smaller share first"),
        ("augment.scale=0.5", "augment.scale is 0.5"),
        ("trainer.devices=none", "trainer.devices is 'none'"),
        ("method=lsq", "lsq.checkpoint is empty; give lsq.checkpoint=PATH"),
        ("data.root=", "data.root is empty; give data.root=PATH of a COCO folder, or data=embedded"),
    ],
)
def test_what_does_not_fit_is_told_in_one_line(override: str, message: str):
    assert message in refusal("data.root=coco", override)


def test_all_bad_values_are_told_at_once():
    message = refusal("data.root=coco", "epochs=0", "optimizer.momentum=1", "data.size=8")
    assert all(key in message for key in ("epochs is 0", "optimizer.momentum is 1", "data.size is 8"))


@pytest.mark.parametrize(
    ("name", "override", "read", "expected"),
    [
        ("svq", "training.learning_rate=0.01", lambda found: found.optimizer.lr, 0.01),
        ("svq", "device=cuda", lambda found: found.trainer.accelerator, "gpu"),
        ("token_compression", "training.epochs=7", lambda found: found.epochs, 7),
        ("scq", "task=nav_ar", lambda found: found.task, "nav_ar"),
    ],
)
def test_the_command_line_goes_before_a_file_by_short_names_too(tmp_path: Path, name, override, read, expected):
    from edge_sdk.training import SYSTEMS

    system = SYSTEMS.load(name)()
    first = system.config(compose(system.conf, ()))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(first.model_dump(mode="json")))
    assert read(first) != expected
    assert read(system.config(compose(system.conf, (override,), tmp_path / "config.yaml"))) == expected


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", None])
def test_a_damaged_settings_file(tmp_path: Path, text: str | None):
    if text is not None:
        (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ModelError, match="config.yaml"):
        read_config(tmp_path / "config.yaml")


def test_the_learning_rate_rises_linearly_and_falls_as_a_cosine():
    assert [rate(step, 10, 4) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rate(7, 10, 4) == pytest.approx(0.5)
    assert rate(10, 10, 4) == pytest.approx(0)
    assert rate(0, 10, 0) == 1
    assert rate(12, 10, 0) == pytest.approx(0)
