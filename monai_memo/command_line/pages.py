# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Help and shell completion."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from jsonargparse import ArgumentParser

from monai_memo.command_line.parsing import WIDTH, Example, parser_of, summary_of
from monai_memo.command_line.words import CONFIG, nearest
from monai_memo.errors import ConfigurationError
from monai_memo.settings.model import Settings, kind_of, shown_name
from monai_memo.settings.values import Choice, DeviceName, Flag, Place


def command_page(command: str, model: type[Settings], examples: Sequence[Example], positional: Sequence[str]) -> str:
    """What a command does and what it takes."""
    return parser_of(command, model, examples, positional).format_help().rstrip()


def overview(groups: Mapping[str, Mapping[str, type[Settings]]], last: str) -> str:
    """The commands by group, one line each.

    Args:
        groups: settings by name of the command, by title of the group.
        last: what stands at the end.
    """
    widest = max(len(name) for commands in groups.values() for name in commands)
    lines = ["monai-memo COMMAND --name value ...", ""]
    for title, commands in groups.items():
        lines.append(title)
        for name, model in commands.items():
            text = " ".join(summary_of(model).split("\n\n")[0].split()).replace("``", "").rstrip(".")
            head, indent = f"  {name.ljust(widest)}  ", " " * (widest + 4)
            lines += textwrap.wrap(text, WIDTH, initial_indent=head, subsequent_indent=indent, break_on_hyphens=False)
        lines.append("")
    return "\n".join([*lines, last])


def completion(shell: str, commands: Mapping[str, tuple[type[Settings], Sequence[str]]], shells: Sequence[str]) -> str:
    """A script that completes command lines of ``monai-memo`` in a shell.

    Args:
        shell: its name.
        commands: settings and positional options by name of the command.
        shells: those that are known.

    Raises:
        ConfigurationError: another shell.
    """
    if shell not in shells:
        hint = nearest(shell, shells)
        raise ConfigurationError(f"--completion must be one of {', '.join(shells)}, got {shown_name(shell)!r}{hint}")
    import shtab  # nobody else needs it

    top = ArgumentParser(prog="monai-memo", add_help=False, print_config=None)
    top.add_argument("-h", "--help", action="help")
    top.add_argument("--version", action="store_true")
    branches: dict[str, Any] = {"": top.add_subcommands(required=False)}
    for name, (model, positional) in commands.items():
        first, _, second = name.rpartition(" ")
        if first not in branches:
            middle = ArgumentParser(prog=f"monai-memo {first}", description=f"All about {first}.", print_config=None)
            branches[""].add_subcommand(first, middle)
            branches[first] = middle.add_subcommands(required=False)
        parser = parser_of(name, model, (), positional)
        _complete(parser, model)
        branches[first].add_subcommand(second, parser)
    return str(shtab.complete(top, shell))


def _complete(parser: ArgumentParser, model: type[Settings]) -> None:
    """Names, files and folders after the options that take them."""
    import shtab

    for action in parser._actions:
        field = model.model_fields.get(action.dest)
        kind = kind_of(field) if field is not None else None
        if isinstance(kind, Choice):
            action.choices = list(kind.names)
        elif isinstance(kind, Flag):
            action.choices = ["True", "False"]
        elif isinstance(kind, DeviceName):
            action.choices = ["auto", "cpu", "cuda", "mps"]
        elif action.dest == CONFIG or isinstance(kind, Place):
            action.complete = shtab.FILE  # type: ignore[attr-defined]
