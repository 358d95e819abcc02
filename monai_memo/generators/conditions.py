# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Columns of a cohort as conditions of a generator: text becomes classes, numbers are standardised.

The code is made from the training images once, and goes into the weights' file, so that whoever samples means by
``label`` and ``age`` what the training meant. It holds names and counts of classes, means, deviations and quantiles of
numbers, and no value of a single image.
"""

from __future__ import annotations

import csv
import io
import logging
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from monai_memo.data.cohort import Cohort
from monai_memo.data.columns import MISSING, OF_SAMPLES, given
from monai_memo.errors import ConfigurationError, GeneratorError
from monai_memo.generators.condition_columns import CLASS, column_names
from monai_memo.sampling import Conditions

logger = logging.getLogger(__name__)

LEVELS = tuple(level / 20 for level in range(1, 20))  # quantiles of numbers: the ends would be those of single patients
MARKS = 3  # of a number's token: value, missing, left out
COMMA = re.compile(r"[+-]?\d+,\d+")
RECORD = "conditions"  # in the weights' file


def _number(word: str) -> float:
    """A number of a table; NaN where there is none.

    Raises:
        ValueError: no finite number.
    """
    if word == MISSING:
        return math.nan
    value = float(word)
    if not math.isfinite(value):
        raise ValueError(word)
    return value


@dataclass(frozen=True)
class NumberColumn:
    """A column of numbers.

    Attributes:
        name: of the column.
        mean, deviation: of the training images that have one; a deviation of 0 stands for a constant column.
        quantiles: at ``LEVELS``.
        missing: share of the training images without one.
    """

    name: str
    mean: float
    deviation: float
    quantiles: tuple[float, ...]
    missing: float

    def standardised(self, value: float) -> float:
        return (value - self.mean) / (self.deviation or 1.0)


@dataclass(frozen=True)
class ConditionCode:
    """How conditions become what a network takes.

    Attributes:
        text: columns whose values are classes; a class is one combination of them.
        classes: combinations that training images have, with ``""`` for a value that is not given.
        counts: training images of each.
        numbers: columns of numbers.

    Without columns it stands for a generator without conditions.

    Example:
        >>> code = ConditionCode.of([{"label": "a"}, {"label": "b"}, {"label": ""}], "label")
        >>> code.classes, code.num_class_embeds
        ((('',), ('a',), ('b',)), 4)
    """

    text: tuple[str, ...] = ()
    classes: tuple[tuple[str, ...], ...] = ()
    counts: tuple[int, ...] = ()
    numbers: tuple[NumberColumn, ...] = ()
    places: Mapping[tuple[str, ...], int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "places", {values: place for place, values in enumerate(self.classes)})

    def __bool__(self) -> bool:
        return bool(self.names)

    @property
    def names(self) -> tuple[str, ...]:
        """All columns."""
        return (*self.text, *(column.name for column in self.numbers))

    @property
    def num_class_embeds(self) -> int | None:
        """Of the network: one for each class, and the last one for none."""
        return len(self.classes) + 1 if self.text else None

    @property
    def with_conditioning(self) -> bool:
        """Of the network: whether numbers are attended to."""
        return bool(self.numbers)

    @property
    def cross_attention_dim(self) -> int | None:
        """Of the network: length of a number's token."""
        return MARKS + len(self.numbers) if self.numbers else None

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, str]], columns: object, source: str = "the cohort") -> ConditionCode:
        """From the columns of training images.

        Args:
            rows: of each image, its columns by name.
            columns: see ``GeneratorSettings.conditions``.
            source: for messages.

        Raises:
            ConfigurationError: a column that is not there, is empty, or mixes numbers and text.
        """
        asked = column_names(columns)
        text: list[str] = []
        numbers: list[NumberColumn] = []
        for name, as_class in asked:
            words = _column(rows, name, source)
            column = None if as_class else _number_column(name, words, source)
            if column is None:
                text.append(name)
                if len(set(words)) == 1:
                    logger.warning("conditions: the column %s has one value, %r: it says nothing", name, words[0])
            else:
                numbers.append(column)
                if not column.deviation:
                    logger.warning("conditions: the column %s is constant (%g): it says nothing", name, column.mean)
        if not text:
            return cls(numbers=tuple(numbers))
        found = Counter(tuple(given(row.get(name)) for name in text) for row in rows)
        classes = tuple(sorted(found))
        single = [shown(values) for values in classes if found[values] == 1]
        if single:
            more = f" and {len(single) - 5} more" if len(single) > 5 else ""
            logger.warning(
                "conditions: %d of %d classes have one image: %s%s. What is drawn for them can hardly be another",
                len(single), len(classes), ", ".join(single[:5]), more,
            )  # fmt: skip
        return cls(tuple(text), classes, tuple(found[values] for values in classes), tuple(numbers))

    def encoded(self, rows: Sequence[Mapping[str, object]], strict: bool = True) -> dict[str, Tensor]:
        """``class_labels`` ``(n,)`` and ``context`` ``(n, numbers, length)``, those of both that the network takes.

        Args:
            rows: of each image, its conditions by name.
            strict: refuse what no training image has, a class or a missing number; otherwise (held-out images) such
                a class counts as not told.

        Raises:
            ConfigurationError: such a value, or a number that is none.
        """
        if strict and (refused := next(filter(None, map(self._unheard, rows)), None)):
            raise ConfigurationError(refused)
        result = {}
        if self.text:
            labels = [self.places.get(self._class_of(row), len(self.classes)) for row in rows]
            result["class_labels"] = torch.tensor(labels, dtype=torch.long)
        if self.numbers:
            tokens = torch.zeros(len(rows), len(self.numbers), MARKS + len(self.numbers))
            for place, column in enumerate(self.numbers):
                for i, row in enumerate(rows):
                    value = self._value(column.name, row.get(column.name))
                    tokens[i, place, 1 if math.isnan(value) else 0] = (
                        1.0 if math.isnan(value) else column.standardised(value)
                    )
                tokens[:, place, MARKS + place] = 1.0
            result["context"] = tokens
        return result

    def unheard(self, rows: Sequence[Mapping[str, object]]) -> int:
        """Images with conditions that no training image has."""
        return sum(self._unheard(row) is not None for row in rows)

    def _unheard(self, row: Mapping[str, object]) -> str | None:
        """What no training image has of these conditions."""
        if self.text and (values := self._class_of(row)) not in self.places:
            return self._unknown(values)
        for column in self.numbers:
            if not column.missing and math.isnan(self._value(column.name, row.get(column.name))):
                return f"every training image has {column.name}: it cannot be left empty"
        return None

    def _class_of(self, row: Mapping[str, object]) -> tuple[str, ...]:
        return tuple(given(row.get(name)) for name in self.text)

    def encoded_row(self, row: Mapping[str, object]) -> dict[str, Tensor]:
        """``encoded`` of one image."""
        return self.encoded([row])

    def untold(self, n: int) -> dict[str, Tensor]:
        """What the network takes for ``n`` images of which nothing is told."""
        result = {}
        if self.text:
            result["class_labels"] = torch.full((n,), len(self.classes), dtype=torch.long)
        if self.numbers:
            tokens = torch.zeros(n, len(self.numbers), MARKS + len(self.numbers))
            tokens[:, :, 2] = 1.0
            for place in range(len(self.numbers)):
                tokens[:, place, MARKS + place] = 1.0
            result["context"] = tokens
        return result

    def left_out(self, inputs: Mapping[str, Tensor], which: Tensor) -> dict[str, Tensor]:
        """The inputs, untold for the images ``which`` ``(n,)``."""
        untold, result = self.untold(len(which)), {}
        for name, values in inputs.items():
            shape = (-1, *(1,) * (values.ndim - 1))
            result[name] = torch.where(which.view(shape), untold[name].to(values.device), values)
        return result

    def resolved(self, conditions: Conditions | None, seeds: Sequence[int]) -> list[dict[str, str]]:
        """The conditions of each image: as given, and those that are not, drawn as the training images have them.

        Classes are drawn by their counts, each number by its own quantiles: between columns of text the training's
        combinations are kept, between numbers and the rest they are not. The draws depend on the image's seed alone.

        Raises:
            ConfigurationError: a condition that the model does not know, or another number of values than of images.
        """
        chosen = dict(conditions or {})
        for name, values in chosen.items():
            if name not in self.names:
                raise ConfigurationError(f"this generator takes the conditions {', '.join(self.names)}, got {name!r}")
            if len(values) != len(seeds):
                raise ConfigurationError(
                    f"{name} must have one value for each of the {len(seeds)} images, got {len(values)}"
                )
        self._warn_of_far(chosen)
        return [
            self._drawn({name: given(values[i]) for name, values in chosen.items()}, int(seed))
            for i, seed in enumerate(seeds)
        ]

    def _warn_of_far(self, chosen: Conditions) -> None:
        """Tell of numbers that no training image comes near: the network makes something of them all the same."""
        for column in self.numbers:
            low, high = column.quantiles[0], column.quantiles[-1]
            known = [self._value(column.name, value) for value in chosen.get(column.name, ())]
            far = [value for value in known if value < 2 * low - high or value > 2 * high - low]
            if far:
                logger.warning(
                    "conditions: %d of %d values of %s lie far from those of the training images (nine of ten between "
                    "%g and %g), such as %g: nothing was learnt there", len(far), len(known), column.name, low, high,
                    far[0],
                )  # fmt: skip

    def _drawn(self, fixed: Mapping[str, str], seed: int) -> dict[str, str]:
        rng = np.random.default_rng([seed, 23])
        row = dict(fixed)
        open_text = [name for name in self.text if name not in fixed]
        place = rng.random()
        if open_text:
            fitting = [
                (values, count)
                for values, count in zip(self.classes, self.counts, strict=True)
                if all(fixed.get(name, value) == value for name, value in zip(self.text, values, strict=True))
            ]
            if not fitting:
                raise ConfigurationError(self._unknown(tuple(fixed.get(name, "...") for name in self.text)))
            ends = np.cumsum([count for _, count in fitting])
            values = fitting[int(np.searchsorted(ends, place * ends[-1], side="right"))][0]
            row |= {name: value for name, value in zip(self.text, values, strict=True) if name in open_text}
        for column in self.numbers:
            level, absent = rng.random(), rng.random() < column.missing
            if column.name not in fixed:
                value = float(np.interp(level, LEVELS, column.quantiles))
                row[column.name] = MISSING if absent else f"{value:.6g}"
        return {name: row[name] for name in self.names}

    def _value(self, name: str, cell: object) -> float:
        try:
            return _number(given(cell))
        except ValueError:
            raise ConfigurationError(f"{name} must be a number, or empty where it is not known, got {cell!r}") from None

    def _unknown(self, values: Sequence[str]) -> str:
        known = [shown(item) for item in self.classes]
        more = f" and {len(known) - 20} more" if len(known) > 20 else ""
        return (
            f"no training image has {' and '.join(self.text)} {shown(values)}; they have {', '.join(known[:20])}{more}"
        )

    def record(self) -> dict[str, Any]:
        """In plain types, for the weights' file."""
        return {
            "text": list(self.text),
            "classes": [list(values) for values in self.classes],
            "counts": list(self.counts),
            "numbers": [
                {
                    "name": column.name, "mean": column.mean, "deviation": column.deviation,
                    "quantiles": list(column.quantiles), "missing": column.missing,
                }
                for column in self.numbers
            ],
        }  # fmt: skip

    @classmethod
    def of_record(cls, record: Mapping[str, Any] | None) -> ConditionCode:
        """Inverse of ``record``; of weights without one, no conditions.

        Raises:
            GeneratorError: not what ``record`` gives.
        """
        if record is None:
            return cls()
        try:
            columns = [{**item, "quantiles": tuple(map(float, item["quantiles"]))} for item in record["numbers"]]
            return cls(
                tuple(map(str, record["text"])),
                tuple(tuple(map(str, values)) for values in record["classes"]),
                tuple(map(int, record["counts"])),
                tuple(NumberColumn(**item) for item in columns),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise GeneratorError(f"the weights' file describes its conditions in another way: {error}") from error


def shown(values: Sequence[str]) -> str:
    """A class in words."""
    return " / ".join(value or "(not given)" for value in values)


def _column(rows: Sequence[Mapping[str, str]], name: str, source: str) -> list[str]:
    if not any(name in row for row in rows):
        there = sorted({column for row in rows for column in row})
        raise ConfigurationError(
            f"conditions: {source} has no column {name!r}; it has {', '.join(there) or 'none beside image and patient'}"
        )
    words = [given(row.get(name)) for row in rows]
    if not any(words):
        raise ConfigurationError(f"conditions: the column {name!r} of {source} is empty: leave it out")
    return words


def _number_column(name: str, words: Sequence[str], source: str) -> NumberColumn | None:
    """None for a column of text."""
    values, text = [], []
    for word in words:
        try:
            values.append(_number(word))
        except ValueError:
            text.append(word)
    known = np.array([value for value in values if not math.isnan(value)])
    if text and len(known):
        raise ConfigurationError(
            f"conditions: the column {name!r} of {source} has {len(known)} numbers and {len(text)} texts, for example "
            f"{text[0]!r}. Empty the cells that are not known, or write {name}{CLASS} to take all of them for classes"
        )
    if text and all(COMMA.fullmatch(word) for word in text):
        raise ConfigurationError(
            f"conditions: the column {name!r} of {source} has numbers with a decimal comma, for example {text[0]!r}, "
            f"which would be {len(set(text))} classes: write them with a point, or {name}{CLASS} to take them as such"
        )
    if text:
        return None
    quantiles = tuple(float(value) for value in np.quantile(known, LEVELS))
    return NumberColumn(name, float(known.mean()), float(known.std()), quantiles, 1 - len(known) / len(words))


def columns_of(cohort: Cohort) -> list[Mapping[str, str]]:
    """Of each image."""
    return [image.columns for image in cohort.images]


def code_of_cohort(cohort: Cohort, columns: object) -> ConditionCode:
    """The code of a training, from its images."""
    return ConditionCode.of(columns_of(cohort), columns, cohort.source) if column_names(columns) else ConditionCode()


def read_conditions(path: str | Path | None, n_samples: int) -> Conditions | None:
    """A table of conditions, one row for each sample; a shorter one is gone through again.

    Args:
        path: CSV or TSV whose columns are conditions; None: there is none.
        n_samples: rows of the result.

    Raises:
        ConfigurationError: no such table, or an empty one.
    """
    if path is None:
        return None
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
        header = text.partition("\n")[0]
        table = csv.DictReader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=header.count), strict=True)
        rows = [row for row in table if any(row.values())]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigurationError(f"condition_table: cannot read {path} as a table in UTF-8: {error}") from error
    names = [name for name in table.fieldnames or () if name and name not in OF_SAMPLES]
    if not rows or not names:
        raise ConfigurationError(f"condition_table: {path} needs a line with names of conditions, and a row for each")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or any(None in row for row in rows):
        what = f"the column {twice[0]} twice" if twice else "rows with more cells than its first line"
        raise ConfigurationError(f"condition_table: {path} has {what}, so that it cannot be told what is meant")
    if len(rows) > n_samples:
        logger.warning("%s has %d rows: the first %d are used", path, len(rows), n_samples)
    return {name: [given(rows[i % len(rows)].get(name)) for i in range(n_samples)] for name in names}
