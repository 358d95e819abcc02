# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""From the words of a command line to the settings of a command, and the help of both.

jsonargparse parses what ``words`` has put in order, lets the command line go before a file of options, and writes help
and shell completion. Types are not its business: every word stays the text that was typed (a folder may be called 2024,
007 or 1e3), and the settings' kinds read it, so that all that is wrong is told at once, as it is from Python.
"""

from __future__ import annotations

from monai_memo.command_line.naming import without_values as without_values
from monai_memo.command_line.pages import command_page as command_page
from monai_memo.command_line.pages import completion as completion
from monai_memo.command_line.pages import overview as overview
from monai_memo.command_line.parsing import load as load
from monai_memo.command_line.parsing import settings_from as settings_from
from monai_memo.command_line.words import nearest as nearest
from monai_memo.settings.model import shown_name as shown_name

__all__ = ["command_page", "completion", "load", "nearest", "overview", "settings_from", "shown_name", "without_values"]
