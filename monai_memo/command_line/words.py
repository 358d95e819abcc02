# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The words of a command line, by option. argparse takes ``-100,400`` for an option and lets the last of two win."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from monai_memo.command_line.config_file import A_CONFIG_FILE
from monai_memo.settings.model import Problem, Settings, kind_of, shown_value
from monai_memo.settings.values import Flag, Kind

CONFIG = "config"
DASHES = ("-", "\N{EN DASH}", "\N{EM DASH}")  # word processors make the long ones of two hyphens


@dataclass
class Options:
    """What a command line says.

    Attributes:
        given: text by name of the option, in the order of the command line; several values have spaces between.
        strange: words that belong to no option, and values of options that there are not.
        problems: what is wrong with the words as such.
    """

    given: dict[str, str] = field(default_factory=dict)
    strange: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def kinds_of(model: type[Settings]) -> dict[str, Kind | None]:
    """The kind of every option of a command; ``--config`` is one of every command."""
    return {CONFIG: A_CONFIG_FILE, **{name: kind_of(field) for name, field in model.model_fields.items()}}


def nearest(name: str, known: Sequence[str]) -> str:
    """``" (did you mean X?)"``, or nothing."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f" (did you mean {near[0]}?)" if near else ""


def read_words(kinds: Mapping[str, Kind | None], words: Sequence[str], positional: Sequence[str] = ()) -> Options:
    """Options by name.

    ``--name value`` and ``--name=value``, hyphens and underscores alike; a flag needs no value, and ``--noname`` or
    ``--no_name`` turns it off.

    Args:
        kinds: of all options that there are.
        words: those behind the command.
        positional: options whose value may stand without their name, in their order.
    """
    found = Options()
    unnamed = list(positional)
    position = 0
    while position < len(words):
        word = words[position]
        position += 1
        if not word.startswith("--") or len(word) == 2:
            name = next((name for name in unnamed if name not in found.given), None)
            if name is not None and not word.startswith("-"):
                found.given[name] = word
                unnamed.remove(name)
                continue
            meant = _meant(word, kinds)
            found.strange.append(word)
            if positional and not word.startswith(DASHES):
                text = f"is one word too many: {', '.join(positional)} are given"
            else:
                remedy = f"write {meant}, with two hyphens" if meant else "options are written --name value"
                text = f"belongs to no option: {remedy}"
            found.problems.append(Problem("rule", "", f"{shown_value(word)} {text}"))
            while meant and "=" not in word and position < len(words) and not words[position].startswith(DASHES):
                found.strange.append(words[position])  # its value
                position += 1
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
        if name not in kinds:
            found.strange += values
            found.problems.append(Problem("unknown", name, ""))
        elif name in found.given:
            found.strange += values
            found.problems.append(Problem("value", name, "is given twice: say it once"))
        elif not values and isinstance(kind, Flag):
            found.given[name] = "true"
        elif not values and kind is not None:
            found.problems.append(Problem("value", name, f"needs a value: {kind.allowed}"))
        else:
            found.given[name] = " ".join(values)
    return found


def _meant(word: str, kinds: Mapping[str, Kind | None]) -> str:
    """The option that a word without ``--`` before it was meant for."""
    name, equals, _ = word.lstrip("".join(DASHES)).partition("=")
    name = name.replace("-", "_")
    return f"--{name}{'=...' if equals else ''}" if name in kinds and (equals or word.startswith(DASHES)) else ""
