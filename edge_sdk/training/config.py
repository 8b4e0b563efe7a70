"""From ``KEY=VALUE`` on the command line to a run's settings: Hydra composes, Pydantic checks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError

from edge_sdk.errors import MissingDependencyError, ModelError, first_line, unknown_name
from edge_sdk.schema._base import Frozen

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Settings(Frozen):
    """A group of settings; unknown keys are refused."""


class Optimizer(Settings):
    """The optimizer; its learning rate falls as a cosine, after a linear rise.

    ``momentum`` and ``nesterov`` are for ``sgd``.
    """

    name: Literal["sgd", "adamw"]
    lr: Positive
    momentum: Annotated[float, Field(ge=0, lt=1)]
    nesterov: bool
    weight_decay: NotNegative
    warmup_epochs: NotNegative


class EarlyStop(Settings):
    """When a run ends before its last epoch."""

    patience: Annotated[int, Field(ge=0)]
    min_delta: NotNegative


class TrainerSettings(Settings):
    """On what a run is trained."""

    accelerator: Literal["auto", "cpu", "gpu"]
    devices: Literal["auto"] | Annotated[int, Field(ge=1)]
    strategy: str
    precision: Literal["auto", "32-true", "16-mixed", "bf16-mixed"]
    channels_last: bool
    deterministic: bool
    wandb: Literal["disabled", "offline", "online"] = "disabled"

    def check_one_device(self, system: str) -> None:
        """Raises ValueError where a system that trains on one device is given several."""
        if self.devices != 1:
            raise ValueError(f"trainer.devices is {self.devices!r}; {system} trains on one device: give 1")


class RunConfig(Settings):
    """What every system's settings have."""

    seed: Annotated[int, Field(ge=0, lt=2**32)]
    epochs: Annotated[int, Field(ge=1, le=100_000)]
    optimizer: Optimizer
    early_stop: EarlyStop
    trainer: TrainerSettings

    @property
    def total_epochs(self) -> int:
        """Those of all phases of a run."""
        return self.epochs


AnyConfig = TypeVar("AnyConfig", bound=BaseModel)


def compose(folder: Path, overrides: Sequence[str], file: Path | None = None) -> dict[str, Any]:
    """The settings of ``folder/config.yaml`` with changes.

    Args:
        folder: Holds ``config.yaml``, and a folder of files for each group.
        overrides: ``KEY=VALUE``, or ``GROUP=FILE`` for a file of a group.
        file: A YAML file of settings, some or all, such as a run's ``config.yaml``. ``overrides`` go before it.

    Raises:
        MissingDependencyError: Hydra is not installed.
        ModelError: A key or a group's file is unknown, an override or the file cannot be read, or ``overrides``
            choose a group's file beside ``file``.
    """
    try:
        from hydra import compose as composed
        from hydra import initialize_config_dir
        from hydra.errors import HydraException
        from omegaconf import OmegaConf
        from omegaconf.errors import OmegaConfBaseException
    except ImportError as error:
        raise MissingDependencyError(
            f"training needs Hydra, which cannot be imported ({error}): pip install 'edge-sdk[train]'."
        ) from error
    with initialize_config_dir(str(folder.resolve()), version_base="1.3"):
        defaults = _flat(OmegaConf.to_container(composed("config"), resolve=False))  # type: ignore[arg-type]
        _check_keys(overrides, folder, list(defaults))
        if file is not None:
            overrides = [*_of_file(file, folder, defaults, overrides), *overrides]
        try:
            return OmegaConf.to_container(composed("config", list(overrides)), resolve=True)  # type: ignore[return-value]
        except (HydraException, OmegaConfBaseException) as error:
            raise ModelError(f"the settings {' '.join(overrides)} do not fit: {_told(error)}.") from error


def checked(kind: type[AnyConfig], values: Mapping[str, Any]) -> AnyConfig:
    """The settings as a frozen model.

    Raises:
        ModelError: One or more do not fit; the message names each.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ModelError("; ".join(dict.fromkeys(_faults(error))) + ".") from error


def read_config(path: Path) -> dict[str, Any]:
    """The settings in a file, such as a run wrote.

    Raises:
        ModelError: The file is missing or no YAML mapping.
    """
    import yaml

    try:
        values = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ModelError(f"{path}, which should hold settings, cannot be read: {first_line(error)}.") from error
    if not isinstance(values, dict):
        raise ModelError(f"{path} does not hold settings: expected a mapping, found a {type(values).__name__}.")
    return values


def _of_file(file: Path, folder: Path, defaults: Mapping[str, Any], overrides: Sequence[str]) -> list[str]:
    """The file's settings as overrides, without those that the command line gives, by their short names too."""
    chosen = {text.partition("=")[0] for text in overrides}
    for group in _groups(folder):
        if group in chosen and group not in defaults:
            raise ModelError(
                f"'{group}=...' stands for several settings, which would go before those of {file} or after them: "
                f"write '{group}' into the file, or give its settings by their own names."
            )
    stand_for = {key: str(value).removeprefix("${").removesuffix("}") for key, value in defaults.items()}
    found = [
        f"{key}={_quoted(value)}"
        for key, value in _flat(read_config(file)).items()
        if key not in chosen and stand_for.get(key) not in chosen
    ]
    try:
        _check_keys(found, folder, list(defaults))
    except ModelError as error:
        raise ModelError(f"{file}: {error}") from error
    return found


def _quoted(value: Any) -> str:
    """A value as Hydra reads it."""
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(_quoted, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (int, float)):
        return repr(value)
    text = str(value).replace('"', '\\"')
    return f'"{text}"'


def _groups(folder: Path) -> dict[str, list[str]]:
    """The groups and their files' names."""
    return {one.name: [file.stem for file in one.glob("*.yaml")] for one in folder.iterdir() if one.is_dir()}


def _check_keys(overrides: Sequence[str], folder: Path, keys: Sequence[str]) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    groups = _groups(folder)
    for text in overrides:
        try:
            override = OverridesParser.create().parse_override(text)
        except HydraException as error:
            raise ModelError(
                f"the setting '{text}' cannot be read: {_told(error)}. Expected KEY=VALUE; a value with special "
                "characters stands in quotes of its own: KEY=\"'VALUE'\"."
            ) from error
        key = override.key_or_group
        if override.is_delete() or override.is_add() or override.is_sweep_override() or override.package:
            raise ModelError(f"the setting '{text}' is none: expected KEY=VALUE.")
        if key in groups:
            if override.value() not in groups[key]:
                raise ModelError(unknown_name(key, str(override.value()), groups[key]))
        elif key not in keys:
            raise ModelError(unknown_name("setting", key, [*keys, *(set(groups) - set(keys))]))


def _flat(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Nested mappings as one, with keys joined by dots."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _flat(value, f"{before}{key}.") if isinstance(value, Mapping) else {f"{before}{key}": value}
    return found


def _faults(error: ValidationError) -> Iterator[str]:
    for fault in error.errors(include_url=False):
        # A choice between kinds adds steps of its own, which start with a capital or have brackets.
        path = ".".join(str(step) for step in fault["loc"] if isinstance(step, int) or step.isidentifier())
        message = fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "value_error":
            yield f"{path + ': ' if path else ''}{message}"
        elif fault["type"] == "extra_forbidden":
            yield f"unknown setting {path}"
        elif fault["type"] == "missing":
            yield f"the setting {path} is missing"
        else:
            yield f"{path} is {fault['input']!r:.60}; {message[:1].lower()}{message[1:]}"


def _told(error: Exception) -> str:
    return first_line(error).rstrip(".")
