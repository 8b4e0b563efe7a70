"""Samsung's delegate for the NPUs of Exynos 2500 and 2600, by ENN.

Written against the Python side of ExecuTorch 1.4's ``backends/samsung``, and never run: partitioning and
compiling both call into Samsung's Exynos AI LiteCore SDK, which no package registry holds.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_sdk.errors import UnsupportedError, unknown_name

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from edge_sdk.schema.target import RuntimeRule, Target

COMPILE_OPTIONS = ("chipset",)
"""Options of a target's rule that are for the compiler; the others are the runner's."""

_ADAPTOR = "PyEnnWrapperAdaptor"


def problem() -> str | None:
    """What is missing to compile for ENN, None where it is there. ExecuTorch is not imported."""
    spec = importlib.util.find_spec("executorch")
    for place in [] if spec is None else spec.submodule_search_locations or []:
        if any((Path(place) / "backends" / "samsung" / "python").glob(f"{_ADAPTOR}.*")):
            return None
    return (
        "needs the Exynos AI LiteCore SDK (Exynos 2500 and 2600 only) and an ExecuTorch built with it; this one lacks "
        f"executorch.backends.samsung.python.{_ADAPTOR}"
    )


def lower(programs: Mapping[str, ExportedProgram], target: Target, rule: RuntimeRule) -> Any:
    """The programs as ExecuTorch's edge manager, what ENN takes of them delegated.

    Args:
        programs: Part name to program.
        target: The profile, for messages.
        rule: Its rule; the option ``chipset`` names the chip as ExecuTorch does, such as ``E9955``.

    Raises:
        UnsupportedError: ExecuTorch knows no such chip.
    """
    from executorch.backends.samsung.serialization.compile_options import (
        SamsungChipset,
        gen_samsung_backend_compile_spec,
    )

    chips = [chip.name for chip in SamsungChipset if chip.value]
    chip = str(rule.options.get("chipset", ""))
    if chip not in chips:
        message = unknown_name("chipset", chip, chips)
        raise UnsupportedError(f"target '{target.name}', option 'chipset' of {rule.name} ({rule.delegate}): {message}")
    from executorch.backends.samsung.partition.enn_partitioner import EnnPartitioner
    from executorch.backends.samsung.utils.export_utils import get_edge_compile_config, get_enn_pass_list
    from executorch.exir import to_edge_transform_and_lower

    specs = [gen_samsung_backend_compile_spec(chip)]
    return to_edge_transform_and_lower(
        dict(programs),
        transform_passes=get_enn_pass_list(),
        partitioner={name: [EnnPartitioner(specs)] for name in programs},
        compile_config=get_edge_compile_config(),
    )
