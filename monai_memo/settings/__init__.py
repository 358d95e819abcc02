# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Options with their ranges, stated once for the command line, the bundles' configs and Python.

Example:
    >>> class Draw(Settings):
    ...     '''A draw.
    ...
    ...     Attributes:
    ...         seed: of the draw.
    ...     '''
    ...
    ...     seed: Seed = 0
    >>> Draw(seed="7").seed
    7
    >>> Draw(seed=-1)
    Traceback (most recent call last):
    monai_memo.settings.model.SettingsError: seed must be a whole number from 0 to 9223372036854775807, got -1
"""

from __future__ import annotations

from typing import Annotated

# Names as themselves: imported on purpose, and documented where they are made.
from monai_memo.settings.model import Problem as Problem
from monai_memo.settings.model import Settings as Settings
from monai_memo.settings.model import SettingsError as SettingsError
from monai_memo.settings.model import require as require
from monai_memo.settings.model import value_of as value_of
from monai_memo.settings.patterns import PatternText as PatternText
from monai_memo.settings.values import Choice as Choice
from monai_memo.settings.values import DeviceName as DeviceName
from monai_memo.settings.values import Flag as Flag
from monai_memo.settings.values import Kind as Kind
from monai_memo.settings.values import Number as Number
from monai_memo.settings.values import Place as Place
from monai_memo.settings.values import Refused as Refused
from monai_memo.settings.values import Several as Several
from monai_memo.settings.values import Table as Table
from monai_memo.settings.values import Text as Text
from monai_memo.settings.values import Whole as Whole

RECIPES = ("default", "paper")
CALIBRATIONS = ("size_matched", "paper")
MODALITIES = ("chest", "knee", "coronary", "ultrasound", "pet", "pet_volume", "dermoscopy")  # of phantoms

Boolean = Annotated[bool, Flag()]
Seed = Annotated[int, Whole(0, 2**63 - 1)]
Seeds = Annotated[tuple[int, ...], Several(Whole(0, 2**63 - 1), 1, 1000, example="0,1,2")]
Device = Annotated[str, DeviceName()]
Workers = Annotated[int, Whole(1, 1024)]
BatchSize = Annotated[int, Whole(1, 65_536)]
Epochs = Annotated[int, Whole(1, 100_000)]
Steps = Annotated[int, Whole(0, 10_000_000)]
Share = Annotated[float, Number(0, 1, open_ends=True)]
Level = Annotated[float, Number(0.5, 0.9999)]
Resamples = Annotated[int, Whole(100, 100_000)]
Amount = Annotated[int, Whole(0, 1_000_000)]
Quantity = Annotated[int, Whole(1, 1_000_000)]
Size = Annotated[int | tuple[int, ...], Several(Whole(8, 1024), 2, 3, single=True, example="64,64")]
Spacing = Annotated[float | tuple[float, ...], Several(Number(0.001, 1000), 3, 3, single=True, example="0.5,0.5,3")]
Window = Annotated[tuple[float, float], Several(Number(-1e6, 1e6), 2, 2, rising=True, example="-100,400")]
Channel = Annotated[int, Whole(0, 65_535)]
RecipeName = Annotated[str, Choice(*RECIPES)]
Calibration = Annotated[str, Choice(*CALIBRATIONS)]
PatientPattern = Annotated[str, PatternText()]
Source = Annotated[str, Place("a folder, a CSV or a MONAI datalist")]
Folder = Annotated[str, Place("a folder")]
File = Annotated[str, Place("a file")]
Title = Annotated[str, Text(300)]

__all__ = [
    "CALIBRATIONS",
    "MODALITIES",
    "RECIPES",
    "Amount",
    "BatchSize",
    "Boolean",
    "Calibration",
    "Channel",
    "Device",
    "Epochs",
    "File",
    "Folder",
    "Level",
    "PatientPattern",
    "Quantity",
    "RecipeName",
    "Resamples",
    "Seed",
    "Seeds",
    "Share",
    "Size",
    "Source",
    "Spacing",
    "Steps",
    "Title",
    "Window",
    "Workers",
]
