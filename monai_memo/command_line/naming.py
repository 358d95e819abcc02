# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Messages of redacted runs without what the command line names: names of folders can be names of patients."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from monai_memo.command_line.parsing import options_in_file
from monai_memo.command_line.words import CONFIG, kinds_of, read_words
from monai_memo.errors import MemoError
from monai_memo.settings.model import Settings
from monai_memo.settings.values import FALSE, Kind, Place


def without_values(text: str, model: type[Settings], words: Sequence[str], positional: Sequence[str] = ()) -> str:
    """A message of a run that is asked to be redacted without paths, patterns and titles that were given to it.

    Args:
        text: the message.
        model: settings of the command.
        words: of the command line, behind the command.
        positional: options whose value may stand without their name.
    """
    kinds = kinds_of(model)
    options = read_words(kinds, words, positional)
    in_file: dict[str, Any] = {}
    if CONFIG in options.given:
        with suppress(MemoError):
            in_file = options_in_file(model, options.given[CONFIG]) or {}
    asked = any(word.startswith("--redacted") for word in words)
    if not asked and str(in_file.get("redacted", "no")).strip().lower() in FALSE:
        return text
    naming = {*(value for word in options.strange for value in _shapes(word, None))}
    for name, value in [*options.given.items(), *in_file.items()]:
        kind = kinds.get(name)
        if name not in kinds or (kind is not None and kind.takes_text) or _is_path(value):
            naming |= {shape for part in _parts(value) for shape in _shapes(part, kind)}
    for value in sorted(naming, key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(value)}(?!\w)", "...", text)
    return text


def _parts(value: Any) -> Iterator[str]:
    """All texts within a value."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from (*_parts(key), *_parts(item))
    elif isinstance(value, list):
        for item in value:
            yield from _parts(item)
    elif isinstance(value, str):
        yield value


def _is_path(value: Any) -> bool:
    return any("/" in part or "\\" in part for part in _parts(value))


def _shapes(value: str, kind: Kind | None) -> Iterator[str]:
    """A value as messages write it."""
    if not any(letter.isalnum() for letter in value):
        return
    shapes = [value, value.rstrip("/")]
    if isinstance(kind, Place) or "/" in value:
        shapes += [os.path.abspath(value), os.path.realpath(value)] if "\0" not in value else []
    for shape in shapes:
        if shape.strip("/"):
            yield shape
            yield ascii(shape)[1:-1]
