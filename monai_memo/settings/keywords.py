# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Options that a function takes by keyword, with names, types and defaults in one typed dictionary."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import TypeVar, cast

from monai_memo.settings.model import value_of
from monai_memo.settings.values import Kind

Options = TypeVar("Options", bound=Mapping[str, object])


def with_defaults(defaults: Options, given: Options, function: str, kinds: Mapping[str, Kind] | None = None) -> Options:
    """What was given, and the defaults for the rest.

    Args:
        defaults: all options that there are.
        given: those that a caller named.
        function: its name, for the message.
        kinds: of options whose values are read, as those of commands are: ``"6"`` is 6. None stays None where it is
            the default.

    Raises:
        TypeError: an option that there is not.
        ConfigurationError: a value that is not of its kind.

    Example:
        >>> with_defaults({"seed": 0, "device": "cpu"}, {"seed": 3}, "train")
        {'seed': 3, 'device': 'cpu'}
    """
    for name in given:
        if name not in defaults:
            near = get_close_matches(name, list(defaults), 1)
            hint = f"did you mean {near[0]}?" if near else f"it takes {', '.join(defaults)}"
            raise TypeError(f"{function}() got an unexpected keyword argument {name!r} ({hint})")
    chosen: dict[str, object] = {**defaults, **given}
    for name, kind in (kinds or {}).items():
        if chosen[name] is not None or defaults[name] is not None:
            chosen[name] = value_of(name, chosen[name], kind)
    return cast(Options, chosen)
