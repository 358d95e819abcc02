# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""What clients of the review server send: JSON and forms, looked at before MONAI Label meets them."""

from __future__ import annotations

import json
from collections.abc import Collection
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any
from urllib.parse import parse_qsl

from monai_memo.errors import ConfigurationError

DEEPEST = 20
MOST_FIELDS = 20
LARGEST_FILE = 1 << 16  # of a label that accompanies a rating: MONAI Label asks for one, the review needs none


def checked_json(text: bytes | str, what: str) -> dict[str, Any] | None:
    """A JSON object, or None for ``null``.

    Raises:
        ConfigurationError: anything else, NaN and infinity among them, or one that is nested too deeply.

    Example:
        >>> checked_json(b'{"rater": "anna"}', "the body")
        {'rater': 'anna'}
    """

    def refuse(name: str) -> None:
        raise ValueError(f"{name} is no JSON")

    def once(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)
        if len(found) < len(items):
            raise ValueError("a name stands there twice")
        return found

    try:
        found = json.loads(text, parse_constant=refuse, object_pairs_hook=once)
        depth = _depth(found)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)[:100]
        raise ConfigurationError(f"{what} must be JSON ({reason})") from error
    if depth > DEEPEST:
        raise ConfigurationError(f"{what} must be JSON that is nested at most {DEEPEST} deep")
    if found is not None and not isinstance(found, dict):
        raise ConfigurationError(f"{what} must be a JSON object, got {type(found).__name__}")
    return found


def _depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max((_depth(item) for item in inner), default=0)


def checked_form(content_type: str, body: bytes, known: Collection[str]) -> dict[str, Any]:
    """The JSON object in the field ``params`` of a form; empty where there is none.

    Raises:
        ConfigurationError: no form, a field that is not known (uploads, for example), or ``params`` that are no JSON
            object.
    """
    if not body.strip():
        return {}
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        fields = _multipart(content_type, body)
    elif kind == "application/x-www-form-urlencoded":
        try:
            fields = parse_qsl(body.decode("utf-8"), keep_blank_values=True, max_num_fields=MOST_FIELDS)
        except ValueError as error:
            raise ConfigurationError("the form cannot be read") from error
    else:
        raise ConfigurationError("the body must be a form (multipart/form-data or x-www-form-urlencoded)")
    names = [name for name, _ in fields]
    unknown = sorted({name for name in names if name not in known})
    if unknown:
        raise ConfigurationError(
            f"unknown field {', '.join(unknown)[:200]}; known: {', '.join(sorted(known))}. Nothing else is uploaded."
        )
    if len(names) != len(set(names)):
        raise ConfigurationError("a field of the form was sent twice")
    given = dict(fields)
    if len(given.get("label", "")) > LARGEST_FILE:
        raise ConfigurationError(f"the label of a rating has at most {LARGEST_FILE} bytes: a rating is in its params")
    if not given.get("params", "").strip():
        return {}
    found = checked_json(given["params"], "params")
    if found is None:
        raise ConfigurationError("params must be a JSON object, got null")
    return found


def _multipart(content_type: str, body: bytes) -> list[tuple[str, str]]:
    """Name and content of each field. The header comes from the client: it must stay one line."""
    if not content_type.isprintable():
        raise ConfigurationError("the form cannot be read")
    head = b"Content-Type: " + content_type.encode("latin-1", "replace") + b"\r\n\r\n"
    try:
        message = BytesParser(policy=HTTP).parsebytes(head + body)
        if body.strip() == f"--{message.get_boundary()}--".encode("latin-1"):
            return []  # a browser's form without fields
        parts = list(message.iter_parts()) if message.is_multipart() else []
        if not parts or len(parts) > MOST_FIELDS or message.defects:
            raise ValueError("no parts, too many, or no end")
        fields = []
        for part in parts:
            name = part.get_param("name", header="content-disposition")
            content = part.get_payload(decode=True)
            if not isinstance(name, str) or not isinstance(content, bytes):
                raise ValueError("a part without a name")
            text = content.decode("utf-8") if name == "params" else content.decode("latin-1")
            fields.append((name, text))
    except (ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
        raise ConfigurationError("the form cannot be read") from error
    return fields
