"""The runner protocol as one JSON Schema: what the host sends, and what it reads.

``python -m edge_sdk.schema._json_schema docs/runner-protocol.schema.json`` writes it anew.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from edge_sdk.schema.messages import Message
from edge_sdk.schema.request import PROTOCOL_VERSION, RunRequest


class _Written(GenerateJsonSchema):
    """Of what the host writes every key is there; of what it reads those with a default may be missing."""

    def field_is_required(self, field: Any, total: bool) -> bool:
        return self.mode == "serialization" or super().field_is_required(field, total)


def runner_protocol() -> dict[str, Any]:
    """``$defs/request`` is the request, with every key; ``$defs/message`` is any message of an answer."""
    schemas, shared = TypeAdapter.json_schemas(
        [
            ("request", "serialization", TypeAdapter(RunRequest)),
            ("message", "validation", TypeAdapter(Message)),
        ],
        schema_generator=_Written,
    )
    named: dict[str, Any] = {name: schema for (name, _), schema in schemas.items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"Edge SDK runner protocol, version {PROTOCOL_VERSION}",
        "anyOf": [{"$ref": "#/$defs/request"}, {"$ref": "#/$defs/message"}],
        "$defs": {**named, **shared.get("$defs", {})},
    }


def text() -> str:
    """The schema as the file holds it."""
    return json.dumps(runner_protocol(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(text(), encoding="utf-8")
