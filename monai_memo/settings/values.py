# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Kinds of values that options take: each says in words what is allowed, and reads a value from wherever it comes.

The same value arrives as text from a command line, as text, number or list from a bundle's config or YAML, and as any
object from Python. A kind makes one value of all of them or refuses; nothing is guessed.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from numbers import Integral, Real
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

WHOLE = re.compile(r"[+-]?[0-9]{1,40}")
NUMBER = re.compile(r"[+-]?([0-9]{1,300}(\.[0-9]{0,300})?|\.[0-9]{1,300})([eE][+-]?[0-9]{1,4})?")
TRUE, FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
LONGEST_NAME, LONGEST_PATH = 255, 4096  # bytes, of the file systems in use


class Refused(ValueError):
    """The value is not of the kind. The text, if any, says what to do."""


class Kind:
    """What an option takes. Stands in annotations: ``Annotated[int, Whole(0, 9)]``."""

    takes_text = False
    several = False

    @property
    def allowed(self) -> str:
        """Completes "must be"."""
        raise NotImplementedError

    def read(self, value: Any) -> Any:
        """The value in its own type.

        Raises:
            Refused: it is not of this kind.
        """
        raise NotImplementedError

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.read)


@dataclass(frozen=True)
class Whole(Kind):
    """A whole number within limits. No booleans, no fractions, and no numbers that only look whole (1.0, 1e3)."""

    least: int
    most: int

    @property
    def allowed(self) -> str:
        return f"a whole number from {self.least} to {self.most}"

    def read(self, value: Any) -> int:
        if isinstance(value, str) and WHOLE.fullmatch(value.strip()):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, Integral) or not self.least <= int(value) <= self.most:
            raise Refused
        return int(value)


@dataclass(frozen=True)
class Number(Kind):
    """A finite number within limits; ``open_ends`` leaves the limits themselves out."""

    low: float
    high: float
    open_ends: bool = False

    @property
    def allowed(self) -> str:
        if self.open_ends:
            return f"a number between {self.low:g} and {self.high:g}, neither included"
        return f"a number from {self.low:g} to {self.high:g}"

    def read(self, value: Any) -> float:
        if isinstance(value, str) and NUMBER.fullmatch(value.strip()):
            value = float(value)
        if isinstance(value, str):
            raise Refused(self._meant(value))
        if isinstance(value, bool) or not isinstance(value, Real):
            raise Refused
        try:
            number = float(value)
        except OverflowError:
            raise Refused from None
        within = self.low < number < self.high if self.open_ends else self.low <= number <= self.high
        if not math.isfinite(number) or not within:
            raise Refused(self._meant(f"{number:g}%") if self.high <= 1 else "")
        return number

    def _meant(self, text: str) -> str:
        """What to write for ``0,05``, ``5%``, or 95 where a share is asked for."""
        plain = text.strip().replace(",", ".")
        percent = plain.endswith("%")
        if not NUMBER.fullmatch(plain.removesuffix("%").strip()):
            return ""
        number = float(plain.removesuffix("%")) / (100 if percent else 1)
        return f"write {number:g}" if self.low < number < self.high else ""


@dataclass(frozen=True)
class Flag(Kind):
    """True or False, and the words for them."""

    @property
    def allowed(self) -> str:
        return "True or False"

    def read(self, value: Any) -> bool:
        word = str(value).strip().lower() if isinstance(value, str | bool | int) else ""
        if word not in (*TRUE, *FALSE):
            raise Refused
        return word in TRUE


@dataclass(frozen=True)
class Choice(Kind):
    """One of some names, in any case."""

    names: tuple[str, ...]

    def __init__(self, *names: str) -> None:
        object.__setattr__(self, "names", names)

    @property
    def allowed(self) -> str:
        return f"one of {', '.join(self.names)}"

    def read(self, value: Any) -> str:
        word = value.strip().lower() if isinstance(value, str) else None
        if word not in self.names:
            raise Refused
        return word


@dataclass(frozen=True)
class Text(Kind):
    """Text as it was typed."""

    takes_text = True
    longest: int = 1000

    @property
    def allowed(self) -> str:
        return f"text of 1 to {self.longest} characters"

    def read(self, value: Any) -> str:
        if not isinstance(value, str) or not value.strip() or "\0" in value or len(value) > self.longest:
            raise Refused
        return value


@dataclass(frozen=True)
class Table(Kind):
    """Keys with values, as YAML and JSON hold them."""

    @property
    def allowed(self) -> str:
        return "keys with values"

    def read(self, value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise Refused
        return {str(key): item for key, item in value.items()}


@dataclass(frozen=True)
class Place(Kind):
    """A file or folder, as text or ``Path``.

    Whole numbers count as text: the command line of ``monai.bundle`` hands a folder called 2024 on as a number.
    """

    takes_text = True
    what: str = "a file or folder"

    @property
    def allowed(self) -> str:
        return f"the name of {self.what}"

    def read(self, value: Any) -> str:
        if isinstance(value, Integral) and not isinstance(value, bool):
            value = str(value)
        if hasattr(value, "__array__") or hasattr(value, "detach"):
            raise Refused("images in memory are audited by monai_memo.audit_images")
        if not isinstance(value, str | os.PathLike) or not isinstance(os.fspath(value), str):
            raise Refused
        text = os.fspath(value)
        if not text.strip():
            raise Refused("it is empty")
        if "\0" in text:
            raise Refused("no file's name holds a NUL character")
        try:
            name = os.fsencode(text)
        except UnicodeEncodeError:
            raise Refused("no file can have this name") from None
        if len(name) > LONGEST_PATH or any(len(part) > LONGEST_NAME for part in name.split(os.sep.encode())):
            raise Refused(f"longer than a name can be ({LONGEST_NAME} bytes, {LONGEST_PATH} with its folders)")
        return text


def listed(value: Any) -> list[Any]:
    """The parts of ``64,64``, ``(64, 64)``, ``[64, 64]``, ``64x64``, of several words, or of a sequence."""
    if isinstance(value, str):
        text = value.strip()
        if text[:1] in ("(", "[") and text[-1:] == {"(": ")", "[": "]"}[text[0]]:
            text = text[1:-1].strip().removesuffix(",")
        if re.fullmatch(r"[0-9]+(x[0-9]+)+", text):
            text = text.replace("x", ",")
        return [part.strip().strip("'\"") for part in (text.split(",") if "," in text else text.split())]
    if isinstance(value, Sequence) or type(value).__module__ == "numpy":
        items = list(value) if getattr(value, "ndim", 1) == 1 else [value]
        return [part for item in items for part in (listed(item) if isinstance(item, str) else [item])]
    return [value]


@dataclass(frozen=True)
class Several(Kind):
    """A sequence of values of one kind; ``single`` lets one value stand for itself (``64`` for ``64,64``)."""

    several = True
    item: Kind
    least: int
    most: int
    single: bool = False
    rising: bool = False
    example: str = ""

    @property
    def allowed(self) -> str:
        number = f"{self.least}" if self.least == self.most else f"{self.least} to {self.most}"
        words = "rising values" if self.rising else "values"
        such = f", such as {self.example}" if self.example else ""
        return (
            f"{self.item.allowed}, or {number} of them{such}"
            if self.single
            else (f"{number} {words}, each {self.item.allowed}{such}")
        )

    def read(self, value: Any) -> Any:
        parts = [self.item.read(part) for part in listed(value)]
        if self.single and len(parts) == 1 and not _is_sequence(value):
            return parts[0]
        if not self.least <= len(parts) <= self.most:
            raise Refused(f"it has {len(parts)}")
        if self.rising and any(first >= second for first, second in pairwise(parts)):
            raise Refused("they do not rise")
        return tuple(parts)


def _is_sequence(value: Any) -> bool:
    """Whether it was meant as a sequence: a list of one number is not that number."""
    return isinstance(value, Sequence) and not isinstance(value, str) and not _one_word(value)


def _one_word(value: Sequence[Any]) -> bool:
    return len(value) == 1 and isinstance(value[0], str)  # what a command line gives for "--size 64"


@dataclass(frozen=True)
class DeviceName(Kind):
    """What PyTorch computes on, if this machine has it."""

    @property
    def allowed(self) -> str:
        return "auto, cpu, cuda, cuda:N or mps"

    def read(self, value: Any) -> str:
        text = value if isinstance(value, str) else str(value) if type(value).__module__ == "torch" else ""
        found = re.fullmatch(r"(auto|cpu|mps|cuda)(?::([0-9]{1,3}))?", text)
        if not found or (found[2] is not None and found[1] not in ("cuda",)):
            raise Refused
        if found[1] in ("cuda", "mps"):
            _require_device(found[1], int(found[2] or 0))
        return text


def _require_device(kind: str, number: int) -> None:
    import torch  # seconds, and only who names a GPU needs it

    if kind == "mps":
        if not torch.backends.mps.is_available():
            raise Refused("PyTorch finds no Apple GPU here; take cpu, or auto")
        return
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count == 0:
        raise Refused("PyTorch finds no GPU here; take cpu, or auto")
    if number >= count:
        raise Refused(f"there are {count} GPUs here, numbered from 0")
