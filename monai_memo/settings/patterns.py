# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Regular expressions of users, with a limit on time.

Some patterns, such as ``(a+)+$``, take longer than the universe exists on a name of 40 letters. The standard library
cannot be stopped meanwhile; the package ``regex`` can.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import regex

from monai_memo.errors import CohortError
from monai_memo.settings.values import Kind, Refused

LONGEST = 500  # characters
SECONDS = 2.0  # for one name; sensible patterns take microseconds


@lru_cache(maxsize=16)
def compiled(pattern: str) -> regex.Pattern[str]:
    """The pattern, compiled.

    Raises:
        CohortError: it is no regular expression, or too long.
    """
    if len(pattern) > LONGEST:
        raise CohortError(f"patient_pattern has {len(pattern)} characters; {LONGEST} are allowed")
    try:
        found: regex.Pattern[str] = regex.compile(pattern)
    except (regex.error, OverflowError, RecursionError, ValueError) as error:
        raise CohortError(f"patient_pattern {pattern!r} is not a regular expression: {error}") from error
    return found


def found_by(pattern: str, text: str, seconds: float = SECONDS) -> str | None:
    """What the pattern finds in the text: its first group, or the whole match; None if nothing.

    Raises:
        CohortError: no regular expression, or one that takes too long.

    Example:
        >>> found_by(r"(p[0-9]+)/", "train/p12/scan.png")
        'p12'
    """
    expression = compiled(pattern)
    try:
        match = expression.search(text, timeout=seconds)
    except TimeoutError as error:
        raise CohortError(
            f"patient_pattern {pattern!r} takes more than {seconds:g} s on one name. Repeats within repeats, such as "
            "(a+)+, do that: write it without"
        ) from error
    return None if match is None else match.group(min(expression.groups, 1))


@dataclass(frozen=True)
class PatternText(Kind):
    """A regular expression, as text."""

    takes_text = True

    @property
    def allowed(self) -> str:
        return f"a regular expression of 1 to {LONGEST} characters"

    def read(self, value: Any) -> str:
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)  # as the command line of monai.bundle hands on the pattern 12
        if not isinstance(value, str) or not value:
            raise Refused
        try:
            compiled(value)
        except CohortError as error:
            raise Refused(str(error.__cause__ or error)) from error
        return value
