# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""A parser for each command, made from its settings, and settings from what it parsed."""

from __future__ import annotations

import textwrap
from argparse import SUPPRESS, RawDescriptionHelpFormatter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from shutil import get_terminal_size
from typing import Any

from jsonargparse import ArgumentParser, Namespace
from pydantic.fields import FieldInfo

from monai_memo.command_line.config_file import A_CONFIG_FILE, read_config_file
from monai_memo.command_line.words import CONFIG, kinds_of, read_words
from monai_memo.errors import ConfigurationError
from monai_memo.settings.model import Problem, Settings, SettingsError, described, in_order, kind_of, shown_name
from monai_memo.settings.patterns import PatternText
from monai_memo.settings.values import Choice, DeviceName, Flag, Kind, Number, Place, Several, Whole

WIDTH = 110
METAVARS: dict[type, str] = {
    Whole: "N", Number: "X", PatternText: "REGEX", DeviceName: "DEVICE", Flag: "True|False",
}  # fmt: skip
FOOTER = (
    "Options are written --name value or --name=value; - and _ are the same. A flag needs no value (--progress is "
    "--progress True), and --noNAME turns it off (--noprogress is --progress False)."
)


@dataclass(frozen=True)
class Example:
    """A command line that runs.

    Attributes:
        purpose: what it is for.
        options: the line, behind the command.
    """

    purpose: str
    options: str


def load(place: str) -> type[Settings]:
    """The settings at ``module:name``."""
    module, name = place.split(":")
    model: type[Settings] = getattr(import_module(module), name)
    return model


class _Formatter(RawDescriptionHelpFormatter):
    """As wide as the terminal, up to what can be read, and what an option is for below its name."""

    def __init__(self, prog: str) -> None:
        width = max(60, min(WIDTH, get_terminal_size((WIDTH, 24)).columns))
        super().__init__(prog, max_help_position=8, width=width)


def parser_of(
    command: str, model: type[Settings], examples: Sequence[Example] = (), positional: Sequence[str] = ()
) -> ArgumentParser:
    """The parser of a command. It takes every option as the text that was typed, for the settings to read."""
    parser = ArgumentParser(
        prog=f"monai-memo {command}",
        usage=_usage(command, model, positional).replace("%", "%%"),
        description="\n\n".join(_wrapped(paragraph) for paragraph in summary_of(model).split("\n\n")),
        epilog=_epilog(command, examples),
        formatter_class=_Formatter,
        add_help=False,
        exit_on_error=False,
        print_config=None,
    )
    entries = described(model)
    if CONFIG in model.model_fields:
        entries[CONFIG] = f"{entries[CONFIG].rstrip('.')}. Or a YAML file of these options, whose key config names it"
    required = [name for name in in_order(model) if model.model_fields[name].is_required()]
    if required:
        group = parser.add_argument_group("required")
        for name in required:
            group.add_argument(f"--{name}", **_shown(model.model_fields[name], entries.get(name, "")))
    group = parser.add_argument_group("options")
    for name in in_order(model):
        if name not in required:
            group.add_argument(f"--{name}", **_shown(model.model_fields[name], entries.get(name, "")))
    if CONFIG not in model.model_fields:
        text = f"{A_CONFIG_FILE.what[0].upper()}{A_CONFIG_FILE.what[1:]}, one a line, such as seed: 3. Those of the "
        group.add_argument(f"--{CONFIG}", metavar="FILE", default=SUPPRESS, help=f"{text}command line go first.")
    group.add_argument("-h", "--help", action="help", default=SUPPRESS, help="Show this page.")
    return parser


def summary_of(model: type[Settings]) -> str:
    """The docstring of settings without its sections."""
    return textwrap.dedent("    " + (getattr(model, "_written_doc", "") or "").split("\n\n    Attributes:")[0]).strip()


def _wrapped(text: str) -> str:
    return textwrap.fill(" ".join(text.split()).replace("``", "").replace("%", "%%"), WIDTH)


def metavar_of(kind: Kind | None) -> str:
    """What stands for the value of an option in help."""
    if isinstance(kind, Choice):
        return f"{{{','.join(kind.names)}}}" if len(kind.names) <= 4 else "NAME"
    if isinstance(kind, Place):
        words = (word for word in ("FOLDER", "FILE") if word.lower() in kind.what)
        return "SOURCE" if "CSV" in kind.what else next(words, "PATH")
    if isinstance(kind, Several):
        item = metavar_of(kind.item)
        return item if kind.single else f"{'NAME' if item[0] == '{' else item},..."
    names: dict[type[Kind], str] = {
        Whole: "N",
        Number: "X",
        PatternText: "REGEX",
        DeviceName: "DEVICE",
        Flag: "True|False",
    }
    return next((name for kind_, name in names.items() if isinstance(kind, kind_)), "TEXT")


def _shown(field: FieldInfo, entry: str) -> dict[str, Any]:
    """How help shows an option."""
    kind = kind_of(field)
    text = entry.replace("``", "").removesuffix(", ...").rstrip(".")
    parts = [text[:1].upper() + text[1:]] if text else []
    if kind is not None and not isinstance(kind, Flag | Place) and metavar_of(kind)[0] != "{":
        parts.append(f"Allowed: {kind.allowed}")
    if not field.is_required() and field.default is not None:
        default = field.default
        parts.append(f"Default: {','.join(map(str, default)) if isinstance(default, tuple) else default}")
    told = ". ".join(parts) + "."
    shown: dict[str, Any] = {"help": told.replace("%", "%%"), "metavar": metavar_of(kind), "default": SUPPRESS}
    return shown | ({"nargs": "?"} if isinstance(kind, Flag) else {})


def _usage(command: str, model: type[Settings], positional: Sequence[str]) -> str:
    required = [name for name in in_order(model) if model.model_fields[name].is_required()]
    named = [f"--{name} {metavar_of(kind_of(model.model_fields[name]))}" for name in required if name not in positional]
    return " ".join([f"monai-memo {command}", *(name.upper() for name in positional), *named, "[options]"])


def _epilog(command: str, examples: Sequence[Example]) -> str:
    lines = [textwrap.fill(FOOTER, WIDTH), ""]
    for example in examples:
        lines += [f"{example.purpose}:", *_in_lines(f"    monai-memo {command} {example.options}"), ""]
    return "\n".join(lines).rstrip().replace("%", "%%")


def _in_lines(text: str) -> list[str]:
    """A command in lines that can be copied together."""
    lines: list[str] = []
    for word in text.split(" --"):
        if lines and len(lines[-1]) + len(word) + 5 <= WIDTH:
            lines[-1] += f" --{word}"
        else:
            lines.append(f"        --{word}" if lines else word)
    return [*(f"{line} \\" for line in lines[:-1]), lines[-1]]


def settings_from(model: type[Settings], words: Sequence[str], positional: Sequence[str] = ()) -> Settings:
    """The settings of a command line and of the file that ``--config`` names; the command line goes first.

    Args:
        model: the command's settings.
        words: of the command line, behind the command.
        positional: options whose value may stand without their name.

    Raises:
        SettingsError: what is wrong, all of it.
    """
    options = read_words(kinds_of(model), words, positional)
    known = [*in_order(model), *({CONFIG} - set(model.model_fields))]
    path = options.given.get(CONFIG)
    try:
        in_file = None if path is None else options_in_file(model, path)
    except ConfigurationError as error:
        raise SettingsError([*options.problems, Problem("rule", "", str(error))], known) from error
    where = f"in {shown_name(path)}"
    strange = [Problem("unknown", name, where) for name in in_file or {} if name not in {CONFIG, *model.model_fields}]
    if CONFIG in (in_file or {}) and CONFIG not in model.model_fields:
        strange.append(Problem("rule", "", f"a file of options names no other: leave out config {where}"))
    if options.problems or strange:
        raise SettingsError([*options.problems, *strange], known)
    if in_file is not None:
        del options.given[CONFIG]
    parsed = parser_of("", model).parse_args(
        [f"--{name}={value}" for name, value in options.given.items()],
        namespace=Namespace(**(in_file or {})),
        defaults=False,
        env=False,
    )
    try:
        return model(**{name: value for name, value in vars(parsed).items() if name in model.model_fields})
    except SettingsError as error:
        from_file = set(in_file or {}) - set(options.given)
        told = [_placed(problem, where) if problem.name in from_file else problem for problem in error.problems]
        raise SettingsError(told, known) from None


def options_in_file(model: type[Settings], path: str) -> dict[str, Any] | None:
    """What a file of options holds. None for another kind of file, where ``--config`` is an option of the command.

    For such a command (``study``) the key ``config`` tells them apart: it names the other file.

    Raises:
        ConfigurationError: the file cannot be read.
    """
    if CONFIG not in model.model_fields:
        return read_config_file(path)
    try:
        found = read_config_file(path)
    except ConfigurationError:
        return None  # the command says so in its own words
    return found if CONFIG in found else None


def _placed(problem: Problem, where: str) -> Problem:
    """A problem with a value, and where the value stands."""
    return Problem(problem.kind, problem.name, f"{problem.text} ({where})")
