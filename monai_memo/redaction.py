# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""A redacted run names nobody: not in its files, and not on the screen or in logs either.

Sentences carry the names of images and patients apart from their words (``Named``), so that nothing has to be found in
a finished sentence and cut out of it. What other libraries say is left out: it can quote a file.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import PurePath
from typing import Any

from monai_memo.errors import CalibrationError, ConfigurationError, MemoError
from monai_memo.files import exhausted

MOST = 10
HIDDEN = "(a file or folder)"
LEFT_OUT = "a message that names files is left out of this redacted run"
SHORTEST = 3  # letters of a word that can name somebody
OUR_WORDS = (
    "audit", "cohort", "cohorts", "copies", "detector", "heldout", "held-out", "image", "images", "out", "patient",
    "patients", "report", "result", "results", "synthetic", "test", "train", "training",
)  # fmt: skip
ABSOLUTE = re.compile(r"(?<![\w.:/)\]])(?:[A-Za-z]:[\\/]|\\\\|/)(?=[^\s/])")  # where a path begins; "and/or" is none
_state = threading.Lock()
_hidden = 0


class Named(str):
    """A sentence with names; ``plain`` is the same without them.

    Args:
        plain: the words before the names, without the full stop.
        names: of images or patients.
        rest: what follows, beginning with the full stop.
        whole: the sentence where its names stand elsewhere than behind ``plain``.

    Example:
        >>> text = Named("2 patients in both cohorts", ["anna", "bert"], ".")
        >>> str(text), text.plain
        ('2 patients in both cohorts: anna, bert.', '2 patients in both cohorts.')
    """

    plain: str
    names: tuple[str, ...]

    def __new__(cls, plain: str, names: Sequence[str] = (), rest: str = "", whole: str | None = None) -> Named:
        text = super().__new__(cls, whole or f"{plain}{': ' if names else ''}{listed(names)}{rest}")
        text.plain, text.names = f"{plain}{rest}", tuple(names)
        return text


def listed(names: Sequence[str], most: int = MOST) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def plain(text: str) -> str:
    """A sentence without its names."""
    return text.plain if isinstance(text, Named) else text


def names_are_hidden() -> bool:
    """Whether a redacted run is going on in this process."""
    return _hidden > 0


@contextmanager
def names_hidden(active: bool = True, secrets: Sequence[str] = ()) -> Iterator[None]:
    """Keep names off screen and logs while a redacted run goes on.

    Our messages lose their names and paths; those of other libraries are left out, also where they are written past
    Python or come from a thread that fails.

    Args:
        active: False does nothing.
        secrets: words that may not be shown, for example the paths that were given.
    """
    global _hidden
    if not active:
        yield
        return
    with ExitStack() as stack:
        with _state:
            _hidden += 1
            first = _hidden == 1
        stack.callback(_show)
        if first:
            stack.enter_context(_records_without_names(secrets))
            stack.enter_context(_failures_without_names())
            stack.enter_context(_others_silent())
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")  # all of them: any text of a library can name a file or a patient
        yield


def _show() -> None:
    global _hidden
    with _state:
        _hidden -= 1


@contextmanager
def _records_without_names(secrets: Sequence[str]) -> Iterator[None]:
    original = logging.getLogRecordFactory()

    def factory(*values: Any, **named: Any) -> logging.LogRecord:
        record = original(*values, **named)
        record.exc_info, record.exc_text, record.stack_info = None, None, None
        if record.name.partition(".")[0] not in ("monai_memo", "__main__"):
            record.msg, record.args = f"a message of {record.name} is left out of this redacted run", ()
            return record
        record.msg = _shown(record.msg)
        if isinstance(record.args, tuple):
            record.args = tuple(_shown(value) for value in record.args)
        elif isinstance(record.args, Mapping):
            record.args = {key: _shown(value) for key, value in record.args.items()}
        try:
            text = record.getMessage()
        except Exception:  # logging itself would print the arguments
            text = ""
        # As a whole: where a path in a finished sentence ends, nobody can tell.
        record.msg, record.args = (LEFT_OUT if not text or names_a_path(text, secrets) else text), ()
        return record

    logging.setLogRecordFactory(factory)
    try:
        yield
    finally:
        logging.setLogRecordFactory(original)


def _shown(value: Any) -> Any:
    """A part of a message as a redacted run may show it."""
    if isinstance(value, Named):
        return value.plain
    if isinstance(value, PurePath | os.DirEntry):
        return HIDDEN
    if isinstance(value, BaseException):
        return getattr(value, "plain", None) or type(value).__name__
    if isinstance(value, list | tuple | set | frozenset):
        return [_shown(item) for item in value]
    return value


def names_a_path(text: str, secrets: Sequence[str] = ()) -> bool:
    """Whether a finished sentence holds an absolute path, one of the words, or a path below one of them.

    A word that this library says itself (``train``) counts only where a path goes on from it.

    Example:
        >>> names_a_path("/data/anna.png is damaged"), names_a_path("copies and/or twins, 3/4 of them"), names_a_path(
        ...     "train/anna.png is damaged", ["train"]), names_a_path("train detector ...", ["train", "."])
        (True, False, True, False)
    """
    if ABSOLUTE.search(text):
        return True
    for secret in filter(None, secrets):
        if not re.search(r"\w", secret):
            continue  # the current folder, or a pattern without letters
        ours = secret.lower() in OUR_WORDS or len(secret) < SHORTEST
        end = r"[/\\]" if ours else r"(?!\w)"
        if re.search(rf"(?<!\w){re.escape(secret)}{end}", text):
            return True
    return False


@contextmanager
def _failures_without_names() -> Iterator[None]:
    """What threads and destructors say of an error of theirs: its kind alone."""
    threads, destructors = threading.excepthook, sys.unraisablehook

    def told(kind: type[BaseException] | None) -> None:
        with suppress(Exception):
            print(f"{kind.__name__ if kind else 'an error'} in the background of this redacted run", file=sys.stderr)

    threading.excepthook = lambda arguments: told(arguments.exc_type)
    sys.unraisablehook = lambda arguments: told(arguments.exc_type)
    try:
        yield
    finally:
        threading.excepthook, sys.unraisablehook = threads, destructors


@contextmanager
def _others_silent() -> Iterator[None]:
    """Close the ways to the screen that libraries in C++ use; Python's own streams go on."""
    with ExitStack() as stack:
        for name, number in (("stdout", 1), ("stderr", 2)):
            stream = getattr(sys, name)
            with suppress(Exception):
                stream.flush()
            try:
                saved = os.dup(number)
            except OSError:
                continue  # closed: nothing gets through anyway
            stack.callback(os.close, saved)
            is_it = False
            with suppress(Exception):
                is_it = stream.fileno() == number
            if is_it:
                ours = os.fdopen(os.dup(saved), "w", 1, encoding=stream.encoding, errors=stream.errors)
                stack.callback(ours.close)
                _exchange(name, stream, ours)
                stack.callback(_exchange, name, ours, stream)
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, number)
            os.close(nothing)
            stack.callback(os.dup2, saved, number)
        yield


def _exchange(name: str, old: Any, new: Any) -> None:
    setattr(sys, name, new)
    loggers = [
        logging.root,
        *(item for item in logging.root.manager.loggerDict.values() if isinstance(item, logging.Logger)),
    ]
    for handler in {handler for logger in loggers for handler in logger.handlers}:
        if isinstance(handler, logging.StreamHandler) and handler.stream is old:
            handler.setStream(new)


def without_names(error: Exception, secrets: Sequence[str] = ()) -> MemoError:
    """The error as a redacted run may show it.

    Args:
        secrets: words that may not be in it, for example the paths that were given.
    """
    kind = type(error) if isinstance(error, MemoError) else MemoError
    text = error.plain if isinstance(error, MemoError) else exhausted(error)
    if text is None and isinstance(error, CalibrationError | ConfigurationError):
        text = str(error)
    if text is None and isinstance(error, OSError) and error.strerror:
        text = f"{error.strerror}. Earlier results are unchanged."
    if text is None or names_a_path(text, secrets):
        text = (
            f"refused ({type(error).__name__}). The message names files or patients and is left out of a redacted run: "
            "run the same command without --redacted, with another --out, to read it."
        )
    try:
        return kind(text, text)
    except TypeError:
        return MemoError(text, text)
