"""Checks a ``.pt2`` file before ``torch.export.load`` sees it.

That function trusts its file: it unpickles objects, evaluates size expressions and guards as Python
source, looks operators up by any dotted name of ``torch`` and writes names into generated source. So
only what a plain exported program holds is let through: raw tensors, known operators, harmless names.
"""

from __future__ import annotations

import ast
import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edge_sdk.errors import ModelError

_RECORDS = re.compile(
    r"archive_format|archive_version|byteorder|version|\.data/(version|serialization_id)|extra/.*"
    r"|models/model\.json|data/sample_inputs/model\.pt"
    r"|data/weights/(weight_\d+|model_weights_config\.json)"
    r"|data/constants/(tensor_\d+|model_constants_config\.json)"
)
_PAYLOADS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")

_OPERATOR = re.compile(
    r"torch\.ops\.(aten|prims|quantized_decomposed|torchao|higher_order)\.\w+(\.\w+)?|torch\.sym_\w+|math\.\w+"
    r"|_operator\.(getitem|add|sub|mul|floordiv|truediv|mod|neg|pos|pow|abs|eq|ne|lt|le|gt|ge|and_|or_|not_)"
)
_OPENS_FILES = re.compile(r"torch\.ops\.aten\.(from_file|save)\b.*")
_NAME = re.compile(r"[\w.+-]*")
_IDENTIFIER = re.compile(r"\w*")

# What a size may be written with: symbols, numbers, arithmetic and the functions of torch.utils._sympy.
_EXPRESSION = (
    ast.Expression, ast.Call, ast.keyword, ast.Name, ast.Load, ast.Constant,
    ast.BinOp, ast.UnaryOp, ast.operator, ast.unaryop, ast.Compare, ast.cmpop,
)  # fmt: skip
_FUNCTION = re.compile(
    r"Symbol|Integer|Rational|Float|Add|Mul|Pow|Max|Min|Mod|PythonMod|FloorDiv|CeilDiv|CleanDiv|ModularIndexing|Where"
    r"|PowByNatural|FloatPow|FloatTrueDiv|IntTrueDiv|CeilToInt|FloorToInt|TruncToFloat|TruncToInt|RoundToInt"
    r"|RoundDecimal|ToFloat|Identity|LShift|RShift|Eq|Ne|Lt|Le|Gt|Ge|Equality|Unequality"
    r"|StrictLessThan|LessThan|StrictGreaterThan|GreaterThan|And|Or|Not"
)
# Containers of inputs and outputs: those that need no import to be built again.
_CONTAINERS = (None, "builtins.tuple", "builtins.list", "builtins.dict")


def check(path: Path) -> None:
    """Refuses a file whose loading could run code.

    Raises:
        ModelError: It could, or it is no file of ``torch.export.save``.
    """
    import torch

    try:
        reader = torch._C.PyTorchFileReader(str(path))  # what torch.export.load reads it with
        records = set(reader.get_all_records())
        names = zipfile.ZipFile(path).namelist()
    except (RuntimeError, zipfile.BadZipFile, OSError) as error:
        raise ModelError(
            f"{path} is damaged or is no .pt2 file: write it with torch.export.save(program, path)."
        ) from error
    _check_records(path, records, names)
    for payload in _PAYLOADS:
        _check_payloads(path, _json(path, reader, payload))
    _check_sample_inputs(path, reader.get_record("data/sample_inputs/model.pt"))
    for fault in _faults(_json(path, reader, "models/model.json")):
        raise _refused(path, fault)


def _check_records(path: Path, records: set[str], names: list[str]) -> None:
    within = [name.partition("/")[2] for name in names]
    if len(set(within)) != len(within) or set(within) != records:
        raise _refused(path, "its table of contents is ambiguous")
    for name in sorted(records):
        if name.startswith("data/aotinductor/"):
            raise ModelError(f"{path} is a compiled AOTInductor package, not a graph: give the exported program.")
        if not _RECORDS.fullmatch(name):
            raise _refused(path, f"it holds '{name}', which may be a pickled object")
    needed = {*_PAYLOADS, "models/model.json", "data/sample_inputs/model.pt"}
    if missing := sorted(needed - records):
        raise ModelError(
            f"{path} is no exported program: it lacks {', '.join(missing)}. Write it with torch.export.save."
        )


def _json(path: Path, reader: Any, record: str) -> Any:
    try:
        return json.loads(reader.get_record(record))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is damaged: its record {record} is not JSON.") from error


def _check_payloads(path: Path, config: Any) -> None:
    entries = config.get("config") if isinstance(config, dict) else None
    if not isinstance(entries, dict):
        raise ModelError(f"{path} is damaged: a table of its weights is missing.")
    for name, entry in entries.items():
        if not isinstance(entry, dict) or entry.get("use_pickle") is not False:
            raise _refused(path, f"its weight or constant '{name[:60]}' is a pickled object")


def _check_sample_inputs(path: Path, record: bytes) -> None:
    import torch

    try:
        torch.load(io.BytesIO(record), weights_only=True)
    except Exception as error:
        raise _refused(path, "its example inputs are pickled objects that are no tensors") from error


def _faults(node: Any, key: str = "") -> Iterator[str]:
    """What in the graph's JSON could run code; ``key`` is the nearest key above ``node``."""
    if isinstance(node, dict):
        for name, value in node.items():
            if not _NAME.fullmatch(name):
                yield f"it has a name that is no identifier: {name[:60]!r}"
            # Metadata is only ever printed. Guards are never run: see Pt2Model.
            if name not in ("metadata", "guards_code"):
                yield from _faults(value, name)
    elif isinstance(node, list):
        for value in node:
            yield from _faults(value, key)
    elif isinstance(node, str):
        yield from _text_faults(key, node)


def _text_faults(key: str, text: str) -> Iterator[str]:
    if key == "expr_str":
        if not _is_plain_expression(text):
            yield f"a size is the expression {text[:60]!r}"
    elif key in ("target", "as_operator"):
        if not _OPERATOR.fullmatch(text) or _OPENS_FILES.fullmatch(text):
            yield f"it calls {text[:60]!r}, which is no operator of a graph"
    elif key in ("in_spec", "out_spec"):
        if text and not _is_plain_container(text):
            yield "its inputs or outputs are in containers other than tuple, list and dict"
    elif key in ("as_string", "as_strings"):
        pass  # an argument of an operator, handed on as text
    elif not _NAME.fullmatch(text):
        yield f"it has a name that is no identifier: {text[:60]!r}"


def _is_plain_expression(text: str) -> bool:
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    for node in ast.walk(tree):
        if not isinstance(node, _EXPRESSION):
            return False
        if isinstance(node, ast.Call) and not (isinstance(node.func, ast.Name) and _FUNCTION.fullmatch(node.func.id)):
            return False
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and not _IDENTIFIER.fullmatch(node.value):
            return False
    return True


def _is_plain_container(text: str) -> bool:
    try:
        _, tree = json.loads(text)
        return _is_plain_tree(tree)
    except (ValueError, TypeError, KeyError, RecursionError):
        return False


def _is_plain_tree(tree: Any) -> bool:
    if tree["type"] not in _CONTAINERS:
        return False
    keys = json.loads(tree["context"]) if tree["context"] else None
    if keys is not None and not all(isinstance(key, int) or _IDENTIFIER.fullmatch(key) for key in keys):
        return False
    return all(_is_plain_tree(child) for child in tree["children_spec"])


def _refused(path: Path, reason: str) -> ModelError:
    return ModelError(
        f"{path} was refused: {reason}, and loading it could run code. If you trust it, load it in a function of your "
        "own and give FILE.py:FUNCTION."
    )
