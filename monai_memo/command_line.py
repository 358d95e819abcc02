# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""From the words of a command line to the settings of a command, and the help of both.

Not by python-fire, which guesses types (a folder 2024 becomes a number, "a,b" a pair), and not by argparse, which takes
"-100,400" for an option: every word stays the text that was typed, and the settings' kinds read it.
"""

from __future__ import annotations

import difflib
import textwrap
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from monai_memo.settings.model import (
    Problem,
    Settings,
    SettingsError,
    described,
    in_order,
    kind_of,
    shown_name,
    shown_value,
)
from monai_memo.settings.values import Flag, Kind, Place

WIDTH = 110


def load(place: str) -> type[Settings]:
    """The settings at ``module:name``."""
    module, name = place.split(":")
    model: type[Settings] = getattr(import_module(module), name)
    return model


def read_options(model: type[Settings], words: Sequence[str]) -> dict[str, Any]:
    """The options on a command line, as text (a list of it where an option takes several values).

    ``--name value`` and ``--name=value``, hyphens and underscores alike; a flag needs no value, and ``--noname`` turns
    it off. What the model does not know is returned as well: it refuses that with the nearest name.

    Raises:
        SettingsError: words that belong to no option, options without a value or given twice.
    """
    kinds = {name: kind_of(field) for name, field in model.model_fields.items()}
    found: dict[str, Any] = {}
    problems: list[Problem] = []
    position = 0
    while position < len(words):
        word = words[position]
        position += 1
        if not word.startswith("--") or len(word) == 2:
            text = f"{shown_value(word)} belongs to no option: options are written --name value"
            problems.append(Problem("rule", "", text))
            continue
        name, equals, text = word[2:].partition("=")
        name, values = name.replace("-", "_"), [text] if equals else []
        off = name.removeprefix("no").removeprefix("_")
        if not equals and name not in kinds and name.startswith("no") and isinstance(kinds.get(off), Flag):
            name, values, equals = off, ["false"], "="
        kind = kinds.get(name)
        most = 1 if kind is not None and not kind.several else len(words)
        while not equals and position < len(words) and len(values) < most and not words[position].startswith("--"):
            values.append(words[position])
            position += 1
        if name in found:
            problems.append(Problem("value", name, "is given twice: say it once"))
        elif not values and isinstance(kind, Flag):
            found[name] = "true"
        elif not values and kind is not None:
            problems.append(Problem("value", name, f"needs a value: {kind.allowed}"))
        else:
            found[name] = values[0] if len(values) == 1 else values
    if problems:
        raise SettingsError(problems, in_order(model))
    return found


def settings_from(model: type[Settings], words: Sequence[str]) -> Settings:
    """The settings of a command line.

    Raises:
        SettingsError: what is wrong with it.
    """
    return model(**read_options(model, words))


def nearest(name: str, known: Sequence[str]) -> str:
    """``" (did you mean X?)"``, or nothing."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f" (did you mean {near[0]}?)" if near else ""


def command_help(command: str, model: type[Settings]) -> str:
    """What a command does and what it takes."""
    summary = (getattr(model, "_written_doc", "") or "").split("\n\n    Attributes:")[0]
    entries, lines = described(model), [f"monai-memo {command}", ""]
    for paragraph in textwrap.dedent("    " + summary).strip().split("\n\n"):
        lines += [*textwrap.wrap(" ".join(paragraph.split()).replace("``", ""), WIDTH), ""]
    for title, required in (("required", True), ("options", False)):
        names = [name for name in in_order(model) if model.model_fields[name].is_required() == required]
        if names:
            lines += [f"{title}:", *(line for name in names for line in _option(model, name, entries)), ""]
    lines.append("Options are written --name value or --name=value; - and _ are the same. --noNAME turns a flag off.")
    return "\n".join(lines)


def _option(model: type[Settings], name: str, entries: dict[str, str]) -> list[str]:
    field = model.model_fields[name]
    text = entries.get(name, "").replace("``", "").removesuffix(", ...").rstrip(".")
    kind: Kind | None = kind_of(field)
    parts = [text] if text else []
    if kind is not None and not isinstance(kind, Flag | Place):
        parts.append(kind.allowed)
    if not field.is_required() and field.default is not None:
        default = field.default
        parts.append(f"default {','.join(map(str, default)) if isinstance(default, tuple) else default}")
    body = textwrap.wrap(". ".join(part[0].upper() + part[1:] for part in parts) + ".", WIDTH - 8)
    return [f"  --{name}", *(f"        {line}" for line in body)]


def overview(summaries: dict[str, str], statuses: str) -> str:
    """The commands, one line each."""
    widest = max(map(len, summaries))
    lines = [f"  {name.ljust(widest)}  {text}" for name, text in summaries.items()]
    head = ["monai-memo COMMAND --name value ...", "", *lines, "", "monai-memo COMMAND --help tells the options."]
    return "\n".join([*head, statuses])


def first_sentence(model: type[Settings]) -> str:
    """For the overview."""
    line = (getattr(model, "_written_doc", "") or "").strip().split("\n")[0].replace("``", "")
    return line if len(line) <= WIDTH - 18 else textwrap.shorten(line, WIDTH - 18, placeholder=" ...")


__all__ = ["command_help", "first_sentence", "load", "nearest", "overview", "settings_from", "shown_name"]
