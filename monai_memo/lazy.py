# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Public names of a package that are loaded when they are used, so that importing it is quick."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module


def lazily(package: str, modules: Mapping[str, str]) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of a package.

    The package also imports the names under ``TYPE_CHECKING``, so that type checkers and editors know them.

    Args:
        package: its ``__name__``.
        modules: of each public name, the module it stands in.
    """

    def get(name: str) -> object:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        found: object = getattr(import_module(modules[name]), name)
        setattr(sys.modules[package], name, found)
        return found

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *modules})

    return get, names
