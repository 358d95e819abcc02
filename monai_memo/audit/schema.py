# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The JSON schema of ``audit.json``, made from the types of ``AuditResult``.

``python -m monai_memo.audit.schema FILE`` writes it; a test compares the file beside this one with it.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from monai_memo.audit.result import SCHEMA_VERSION, AuditResult
from monai_memo.files import write_text

DIALECT = "https://json-schema.org/draft/2020-12/schema"


class _WithoutTitles(GenerateJsonSchema):
    """Titles repeat the names of fields."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def generated_schema() -> dict[str, Any]:
    """The schema of this version's records. Matches go to other files and are not in it."""
    found = TypeAdapter(AuditResult).json_schema(schema_generator=_WithoutTitles)
    found["properties"].pop("matches")
    found["properties"].pop("partial_matches")
    described = f"Record of one monai_memo audit, version {SCHEMA_VERSION}. Fields may be added within a major version."
    used = json.dumps(found)
    definitions = {name: part for name, part in found.pop("$defs").items() if f'/{name}"' in used}
    definitions.pop("Match", None)
    definitions.pop("PartialMatch", None)
    for part in found["properties"].values():  # pydantic leaves out what a definition says in the same words
        if "description" not in part and "$ref" in part:
            part["description"] = definitions[part["$ref"].rpartition("/")[2]]["description"]
    for part in (*found["properties"].values(), *definitions.values()):
        if "description" in part:
            part["description"] = " ".join(part["description"].split())
    head = {"$schema": DIALECT, "title": "AuditResult", "description": described}
    return {**head, **{key: part for key, part in found.items() if key not in head}, "$defs": definitions}


def schema_text() -> str:
    """``generated_schema`` as it stands in the file."""
    return json.dumps(generated_schema(), indent=2) + "\n"


if __name__ == "__main__":
    write_text(sys.argv[1], schema_text())
