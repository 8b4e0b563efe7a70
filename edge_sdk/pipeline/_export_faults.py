"""Why a model does not export, in one line: the operator, the user's own source line, what to do."""

from __future__ import annotations

import contextlib
import io
import linecache
import logging
import re
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import torch

from edge_sdk.errors import first_line

logger = logging.getLogger(__name__)

# These print whole graphs and tracebacks of a failed export; `explain` says the same in one line.
_TALKATIVE = ("torch._subclasses.fake_tensor", "torch.export._trace")
_DATA_DEPENDENT = re.compile(r'"[^"\n]*\bz?uf?\d+[^"\n]*" = torch\.ops\.((?!aten\.sym_)[\w.]+)\(')
"""An operator whose result has a size or a value that only the data decides, in torch's print of a graph."""

_ADVICE_DATA = (
    "A graph cannot depend on the values of tensors: use torch.where or torch.cond, and keep shapes fixed "
    "(or name them in Part.dynamic)."
)
_ADVICE_SIZES = (
    "The module cannot take every size that Part.dynamic names: leave out those that are fixed, and give the "
    "example inputs sizes of 2 or more where they vary."
)
_ADVICE = "torch.export runs the module on tensors without values: write this with PyTorch's own operators."


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps what torch prints of a failing export off standard error; it goes to our log."""
    levels = {name: logging.getLogger(name).level for name in _TALKATIVE}
    printed = io.StringIO()
    try:
        for name in levels:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        with contextlib.redirect_stderr(printed):
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        if printed.getvalue().strip():
            logger.info("printed during export:\n%s", printed.getvalue().strip())


def explain(part: str, error: Exception) -> str:
    """The message for a part whose export raised ``error``."""
    operator = _failing_operator(error)
    where = _user_frame(error.__traceback__)
    message = f"part '{part}' cannot be exported: {type(error).__name__}: {first_line(error).rstrip('.')}."
    found = [f"operator {operator}"] if operator else []
    if where:
        line = linecache.getline(where.filename, where.lineno or 0).strip()
        found.append(f"{Path(where.filename).name}:{where.lineno}: `{line[:120]}`")
    return f"{message} {'In ' + ', '.join(found) + '. ' if found else ''}{_advice(error)}"


def _advice(error: Exception) -> str:
    text = f"{type(error).__name__}: {error}"
    if "DataDependent" in text or "data-dependent" in text:
        return _ADVICE_DATA
    return _ADVICE_SIZES if "Constraints violated" in text else _ADVICE


def _failing_operator(error: Exception) -> str | None:
    if deciding := _DATA_DEPENDENT.findall(str(getattr(error, "partial_fx_graph", ""))):
        return str(deciding[-1])
    found = None
    trace: TracebackType | None = error.__traceback__
    while trace:
        for name in ("func", "op", "target"):
            value = trace.tb_frame.f_locals.get(name)
            if isinstance(value, torch._ops.OpOverload):
                found = str(value)
        trace = trace.tb_next
    return found


def _user_frame(trace: TracebackType | None) -> traceback.FrameSummary | None:
    """The deepest frame that is neither torch's, Python's nor ours."""
    ours = str(Path(__file__).resolve().parent.parent)
    torchs = str(Path(torch.__file__).parent)
    python = sysconfig.get_path("stdlib")
    packages = sysconfig.get_path("purelib")  # may lie within Python's own folder
    for frame in reversed(traceback.extract_tb(trace)):
        name = frame.filename
        pythons = name.startswith(python) and not name.startswith(packages)
        if not (pythons or name.startswith((ours, torchs, "<"))):
            return frame
    return None
