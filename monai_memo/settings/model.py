# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Settings: the options of a command, of a bundle and of its Python interface in one typed, frozen model.

A wrong value is refused when the settings are made, before any work, with one line for each problem: the option, the
value, what is allowed.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from inspect import Parameter, Signature
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from monai_memo.errors import ConfigurationError
from monai_memo.settings.values import Choice, Flag, Kind, Number, Place, Refused, Several, Table, Text, Whole

NOTHING = ("none", "null", "")  # how a command line or YAML says None
SECTIONS = ("Args:", "Attributes:")


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        kind: ``"missing"``, ``"unknown"``, ``"value"``, or ``"rule"`` for options that do not go together.
        name: of the option; empty for rules.
        text: the rest of the sentence; of an unknown option, where it stands, if it has to be told.
    """

    kind: str
    name: str
    text: str


class SettingsError(ConfigurationError):
    """Settings with one or more problems; the message has one line for each."""

    def __init__(self, problems: Sequence[Problem], known: Iterable[str] = ()) -> None:
        self.problems = tuple(problems)
        self.known = tuple(known)
        super().__init__(self.told())

    def told(self, mark: str = "") -> str:
        """The message, each option with ``mark`` (``--``) before its name."""
        missing = [problem.name for problem in self.problems if problem.kind == "missing"]
        lines = []
        if missing:
            word = "option " if mark else ""
            lines.append(f"missing {word}{', '.join(mark + name for name in missing)}")
        for problem in self.problems:
            if problem.kind == "unknown":
                near = difflib.get_close_matches(problem.name, self.known, n=1, cutoff=0.6)
                hint = f" (did you mean {mark}{near[0]}?)" if near else ""
                where = f" {problem.text}" if problem.text else ""
                lines.append(f"unknown option {mark}{shown_name(problem.name)}{where}{hint}")
            elif problem.kind == "value":
                lines.append(f"{mark}{problem.name} {problem.text}")
            elif problem.kind == "rule":
                lines.append(problem.text)
        if any(problem.kind == "unknown" for problem in self.problems):
            lines.append(f"Known: {', '.join(mark + name for name in self.known)}")
        return "\n".join(lines)


def shown_name(name: object) -> str:
    """A name that somebody typed, on one short line and printable everywhere."""
    return ascii(str(name)[:60])[1:-1]


def shown_value(value: object) -> str:
    """A value that somebody gave, on one short line and printable everywhere."""
    text = ascii(value) if isinstance(value, str | bytes) else repr(value).encode("ascii", "backslashreplace").decode()
    return text if len(text) <= 80 else f"{text[:76]} ..."


def kind_of(field: FieldInfo) -> Kind | None:
    """The kind of value in a field's annotation."""
    for item in field.metadata:
        if isinstance(item, Kind):
            return item
    return _kind_within(field.annotation)


def _kind_within(annotation: Any) -> Kind | None:
    for part in (*getattr(annotation, "__metadata__", ()), *get_args(annotation)):
        found = part if isinstance(part, Kind) else _kind_within(part)
        if found is not None:
            return found
    return None


def optional(field: FieldInfo) -> bool:
    """Whether None is allowed."""
    return type(None) in get_args(field.annotation)


TYPES: dict[type[Kind], str] = {
    Whole: "int", Number: "float", Flag: "bool", Choice: "str", Text: "str", Place: "str", Table: "dict",
}  # fmt: skip


def type_name(field: FieldInfo) -> str:
    """The Python type of a field, for documentation."""
    kind = kind_of(field)
    name = "str"
    if isinstance(kind, Several):
        item = TYPES.get(type(kind.item), "str")
        name = f"{item} | Sequence[{item}]" if kind.single else f"Sequence[{item}]"
    elif kind is not None:
        name = TYPES.get(type(kind), "str")
    return f"{name} | None" if optional(field) else name


def described(model: type[BaseModel]) -> dict[str, str]:
    """What the docstrings of a model and of those it extends say of each field."""
    found: dict[str, str] = {}
    for cls in model.__mro__:
        for name, text in _entries(cls.__dict__.get("_written_doc") or "").items():
            if name in model.model_fields:
                found.setdefault(name, text)
    return found


def _entries(doc: str) -> dict[str, str]:
    """``name: text`` of the sections for arguments; names that share an entry get one each."""
    entries: dict[str, str] = {}
    names: list[str] = []
    section = False
    for line in doc.splitlines():
        start = re.match(r"\s{8}(\w+(?:, \w+)*): (.*)", line) if section else None
        if line.strip() in SECTIONS:
            section = True
        elif start:
            names = start[1].split(", ")
            entries |= dict.fromkeys(names, start[2])
        elif section and line.strip() and len(line) - len(line.lstrip()) > 8:
            entries |= {name: f"{entries[name]} {line.strip()}" for name in names}
        elif line.strip():
            section, names = False, []
    return entries


class Settings(BaseModel):
    """Base of all settings. ``Allowed`` in the documentation of its fields comes from their kinds."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=False, hide_input_in_errors=True)

    def __init__(self, /, **arguments: Any) -> None:
        model = type(self)
        given = {name: _none_or(value, model.model_fields.get(name)) for name, value in arguments.items()}
        try:
            super().__init__(**given)
        except ValidationError as error:
            raise SettingsError(problems_of(error, model), model.model_fields) from None

    @classmethod
    def __pydantic_init_subclass__(cls, **further: Any) -> None:
        cls._written_doc = cls.__doc__ or ""  # type: ignore[attr-defined]
        entries = described(cls)
        summary = re.split(r"\n\s*(?:Args|Attributes):\n", cls.__doc__ or "")[0].rstrip()
        lines = [summary, "", "    Attributes:"]
        for name in in_order(cls):
            field = cls.model_fields[name]
            kind = kind_of(field)
            allowed = "" if kind is None or isinstance(kind, Flag | Place) else f" Allowed: {kind.allowed}."
            text = entries.get(name, "").rstrip()
            stop = "" if not text or text.endswith(".") else "."
            lines.append(f"        {name} ({type_name(field)}): {text}{stop}{allowed}")
        cls.__doc__ = "\n".join(lines) + "\n    "
        cls.__signature__ = Signature(  # without the kinds, which say nothing to readers
            [
                Parameter(
                    name,
                    Parameter.KEYWORD_ONLY,
                    default=Parameter.empty if cls.model_fields[name].is_required() else cls.model_fields[name].default,
                )
                for name in in_order(cls)
            ]
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        values = {name: getattr(self, name) for name in in_order(type(self))}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    def given(self) -> dict[str, Any]:
        """What was set, without what was left at its default."""
        return {name: getattr(self, name) for name in in_order(type(self)) if name in self.model_fields_set}


def in_order(model: type[BaseModel]) -> list[str]:
    """Fields in the order of their documentation, required ones first."""
    fields = model.model_fields
    names = dict.fromkeys([*described(model), *fields])
    return sorted(names, key=lambda name: not fields[name].is_required())


def _none_or(value: Any, field: FieldInfo | None) -> Any:
    """None for the word, except where any text is allowed: a folder may be called None."""
    if field is None or not isinstance(value, str) or value.strip().lower() not in NOTHING or not optional(field):
        return value
    kind = kind_of(field)
    return value if kind is not None and kind.takes_text else None


def problems_of(error: ValidationError, model: type[BaseModel]) -> list[Problem]:
    """pydantic's errors as ours: one for each field."""
    problems: dict[str, Problem] = {}
    for item in error.errors(include_url=False):
        name = str(item["loc"][0]) if item["loc"] else ""
        cause = item.get("ctx", {}).get("error")
        if item["type"] == "missing":
            problem = Problem("missing", name, "is missing")
        elif item["type"] == "extra_forbidden":
            problem = Problem("unknown", name, "")
        elif not name:
            problem = Problem("rule", "", str(cause or item["msg"]))
        else:
            kind = kind_of(model.model_fields[name]) if name in model.model_fields else None
            allowed = kind.allowed if kind is not None else str(item["msg"])
            more = f": {cause}" if isinstance(cause, Refused) and str(cause) else ""
            problem = Problem("value", name, f"must be {allowed}, got {shown_value(item['input'])}{more}")
        problems.setdefault(name or problem.text, problem)
    return list(problems.values())


def value_of(name: str, value: Any, kind: Kind) -> Any:
    """One value, for what is no settings: read by its kind.

    Raises:
        ConfigurationError: it is not of this kind.
    """
    try:
        return kind.read(value)
    except Refused as error:
        more = f": {error}" if str(error) else ""
        raise ConfigurationError(f"{name} must be {kind.allowed}, got {shown_value(value)}{more}") from None


def require(condition: bool, message: str | Callable[[], str]) -> None:
    """For rules between options: raises what the model turns into a problem."""
    if not condition:
        raise Refused(message if isinstance(message, str) else message())
