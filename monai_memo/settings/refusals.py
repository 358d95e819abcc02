# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""How commands that are started with ``python -m`` end: as ``monai-memo`` does, with a message and no traceback."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager

from monai_memo.errors import MemoError
from monai_memo.files import exhausted
from monai_memo.settings.model import SettingsError

REFUSED, INTERRUPTED = 2, 130


@contextmanager
def refusals(parser: ArgumentParser) -> Iterator[None]:
    """Tell what a user can mend, or that the machine has run out of something, and end with status 2.

    Args:
        parser: of the command, whose name stands before the message.

    Example:
        >>> from monai_memo.errors import ConfigurationError
        >>> with refusals(ArgumentParser("look")):  # doctest: +SKIP
        ...     raise ConfigurationError("--study is empty: name a folder")
        look: --study is empty: name a folder
    """
    try:
        yield
    except MemoError as error:
        parser.exit(REFUSED, f"{parser.prog}: {error.told('--') if isinstance(error, SettingsError) else error}\n")
    except KeyboardInterrupt:
        parser.exit(INTERRUPTED, f"{parser.prog}: interrupted. The same command goes on where it stopped.\n")
    except (MemoryError, OSError, RuntimeError) as error:
        message = exhausted(error)
        if message is None:
            raise
        parser.exit(REFUSED, f"{parser.prog}: {message}\n")
