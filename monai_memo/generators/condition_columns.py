# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Which columns of a cohort are conditions, as an option names them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from monai_memo.data.columns import OF_SAMPLES
from monai_memo.errors import ConfigurationError
from monai_memo.settings import Kind, Refused

NONE, CLASS = "none", ":class"


class ConditionColumns(Kind):
    """``none``, or names of columns; ``name:class`` takes numbers for classes."""

    several = True

    @property
    def allowed(self) -> str:
        return f"none, or columns of the training table, such as label,age (NAME{CLASS} for numbers that are codes)"

    def read(self, value: Any) -> tuple[str, ...]:
        if value is None or (isinstance(value, str) and value.strip().lower() == NONE):
            return ()
        names = _names(value)
        if not names or not all(isinstance(name, str) and name.strip() for name in names):
            raise Refused
        if len(names) == 1 and names[0].strip().lower() == NONE:
            return ()
        plain = [name.strip().removesuffix(CLASS) for name in names]
        if len(set(plain)) < len(plain):
            raise Refused("a column stands there twice")
        if taken := next((name for name in plain if name in OF_SAMPLES), None):
            raise Refused(f"{taken} is a column of its own in tables of samples and no condition")
        return tuple(name.strip() for name in names)


def _names(value: Any) -> list[Any]:
    """Apart at commas alone: a column may have a space in its name."""
    if isinstance(value, str):
        text = value.strip()
        if text[:1] + text[-1:] in ("[]", "()"):
            text = text[1:-1].strip().removesuffix(",")
        return [part.strip().strip("'\"") for part in text.split(",")]
    items = list(value) if isinstance(value, Sequence) else [value]
    return [name for item in items for name in (_names(item) if isinstance(item, str) else [item])]


def column_names(value: object) -> list[tuple[str, bool]]:
    """Each column, and whether its values are classes even where they are numbers.

    Raises:
        ConfigurationError: not what ``ConditionColumns`` takes.

    Example:
        >>> column_names("label, tumour grade:class"), column_names("none")
        ([('label', False), ('tumour grade', True)], [])
    """
    kind = ConditionColumns()
    try:
        names = kind.read(value)
    except Refused as error:
        why = f" ({error})" if str(error) else ""
        raise ConfigurationError(f"conditions must be {kind.allowed}, got {value!r}{why}") from None
    return [(name.removesuffix(CLASS), name.endswith(CLASS)) for name in names]
