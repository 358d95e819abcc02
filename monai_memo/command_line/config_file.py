# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""``--config run.yaml``: the options of a command line in a file."""

from __future__ import annotations

import os
import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from monai_memo.errors import ConfigurationError
from monai_memo.settings.model import shown_name, value_of
from monai_memo.settings.values import Place

A_CONFIG_FILE = Place("a YAML file of options")
TAG = "tag:yaml.org,2002:"


class _Loader(yaml.SafeLoader):
    """YAML in which a plain 2024, 007, 1e3 or no is the text that stands there: the settings' kinds read it."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012  # as PyYAML has it

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """A key that stands twice is refused: the first one would be lost in silence."""
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != f"{TAG}merge":
                if (name := key.value.replace("-", "_")) in seen:
                    text = f"{shown_name(name)} stands there twice: leave one out"
                    raise yaml.constructor.ConstructorError(None, None, text, key.start_mark)
                seen.add(name)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(f"{TAG}merge", re.compile("<<$"), ["<"])
_Loader.add_implicit_resolver(f"{TAG}null", re.compile("(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])


def read_config_file(path: str) -> dict[str, Any]:
    """Values by option, as text or lists of it; options without a value (``size:``) are left at their default.

    Raises:
        ConfigurationError: the file cannot be read, or holds something else.
    """
    path = value_of("--config", path, A_CONFIG_FILE)
    name = shown_name(path) if len(path) <= 60 else f"...{shown_name(path[-57:])}"
    if not os.path.isfile(path):
        raise ConfigurationError(f"--config {name}: no such file. Name a YAML file of options")
    try:
        record = yaml.load(Path(path).read_text(encoding="utf-8-sig"), _Loader)
    except yaml.MarkedYAMLError as error:
        where = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigurationError(
            f"--config {name} is no YAML{where}: {_plain(error.problem or error.context or error)}"
        ) from error
    except (OSError, yaml.YAMLError, ValueError, RecursionError, TypeError) as error:
        known = {RecursionError: "it is nested too deeply", UnicodeDecodeError: "it is no UTF-8 text"}
        reason = known.get(type(error)) or _plain(error)
        raise ConfigurationError(f"--config {name} cannot be read: {reason}") from error
    if record is None:
        return {}
    if not isinstance(record, dict):
        raise ConfigurationError(f"--config {name} must hold options, one a line, such as seed: 3")
    return {str(key).replace("-", "_"): value for key, value in record.items() if value is not None}


def _plain(reason: object) -> str:
    text = str(reason).splitlines()[0] if str(reason) else "it cannot be understood"
    return text.encode("ascii", "backslashreplace").decode()
