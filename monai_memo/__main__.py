# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The command line of ``monai-memo``; ``monai-memo --help`` lists the commands.

Exit status: 0 finished, 2 refused (the message says why), 3 finished but some images were skipped or some
runs failed, 130 interrupted, 143 terminated.
"""

from __future__ import annotations

import sys

INTERRUPTED_TEXT = "monai-memo: interrupted. Run the same command again to continue where it stopped."

try:
    import io
    import logging
    import os
    import signal
    import time
    from collections.abc import Iterator, Sequence
    from contextlib import contextmanager
    from typing import TextIO

    from monai_memo import __version__
    from monai_memo.command_line import (
        command_page,
        completion,
        load,
        nearest,
        overview,
        settings_from,
        shown_name,
        without_values,
    )
    from monai_memo.commands import COMMANDS, FINISHED, GROUPS, REFUSED, SKIPPED, Command
    from monai_memo.errors import ConfigurationError, MemoError
    from monai_memo.files import exhausted, quiet_threads
    from monai_memo.progress import Progress
    from monai_memo.settings import Settings, SettingsError
    from monai_memo.workspace.torchrun import rank_of_torchrun, world_of_torchrun
except KeyboardInterrupt:  # in the first moments, too
    print(INTERRUPTED_TEXT, file=sys.stderr)
    raise SystemExit(130) from None

INTERRUPTED, TERMINATED = 130, 143
LATER = 2.0  # seconds that the other ranks end after rank 0
HUNG_UP = 141  # as a shell names the end by a closed pipe


LAST = """monai-memo COMMAND --help tells its options, with an example; most run as they stand after monai-memo demo.
monai-memo --version tells the version. Completion in bash (or zsh, tcsh): eval "$(monai-memo --completion bash)"
Exit status: 0 finished, 2 refused, 3 finished but something was skipped, 130 interrupted, 143 terminated."""
SHELLS = ("bash", "zsh", "tcsh")
HELP = ("--help", "-h")


def settings_of(words: Sequence[str]) -> tuple[Command, Settings] | str:
    """What a command line asks for: a command with its settings, or a text to print.

    Raises:
        MemoError: what is wrong with it.
    """
    first = words[0].replace("_", "-") if words else "help"
    if first in (*HELP, "help"):
        named = [word for word in words[1:] if word not in HELP]
        return settings_of([*named, "--help"]) if named else _overview()
    if first in ("--version", "version"):
        return __version__
    if first.startswith("--completion"):
        shell = first.partition("=")[2] or "".join(words[1:2]) or "bash"
        return completion(
            shell, {name: (load(item.settings), item.positional) for name, item in COMMANDS.items()}, SHELLS
        )
    name, further = command_named(words)
    command = COMMANDS[name]
    model = load(command.settings)
    if set(HELP) & set(further):
        return command_page(name, model, command.examples, command.positional)
    return command, settings_from(model, further, command.positional)


def command_named(words: Sequence[str]) -> tuple[str, Sequence[str]]:
    """The command that a command line begins with, of one or two words, and what stands behind it.

    The first word of several commands alone is the first of these (``bundles`` is ``bundles list``).

    Raises:
        ConfigurationError: there is none of that name.
    """
    first = words[0].replace("_", "-")
    below = [name for name in COMMANDS if name.startswith(f"{first} ")]
    if below and not set(words[1:]) - set(HELP):
        return below[0], words[1:]
    for number in (2, 1):
        name = " ".join(words[:number]).replace("_", "-")
        if name in COMMANDS:
            return name, words[number:]
    if below:
        taken = (" ".join([name, *map(str.upper, COMMANDS[name].positional)]) for name in below)
        text = f"unknown command {first} {shown_name(words[1])}{nearest(f'{first} {words[1]}', below)}"
        raise ConfigurationError(f"{text}. Known: {', '.join(taken)}")
    known = list(COMMANDS)
    if first.startswith("-"):
        text = f"a command comes first, and then {shown_name(words[0])}"
    else:
        text = f"unknown command {shown_name(words[0]) or repr('')}{nearest(first.lower(), known)}"
    raise ConfigurationError(f"{text}. Known: {', '.join(known)}")


def _overview() -> str:
    commands = {name: load(command.settings) for name, command in COMMANDS.items()}
    groups = {
        title: {name: model for name, model in commands.items() if COMMANDS[name].group == group}
        for group, title in GROUPS.items()
    }
    return overview(groups, LAST)


def _told(text: str, words: Sequence[str]) -> str:
    """A message, without names if the run is to be redacted."""
    try:
        name, further = command_named(words)
    except ConfigurationError:
        return text
    return without_values(text, load(COMMANDS[name].settings), further, COMMANDS[name].positional)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of ``monai-memo`` and ``python -m monai_memo``."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files need not be UTF-8
    try:
        logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
        quiet_threads()
        with quiet_libraries(), terminable():
            _main(list(sys.argv[1:] if arguments is None else arguments))
    except Terminated:
        if rank_of_torchrun() == 0:
            print(INTERRUPTED_TEXT.replace("interrupted", "terminated"), file=sys.stderr)
        sys.exit(TERMINATED)
    except KeyboardInterrupt:
        if rank_of_torchrun() == 0:
            print(INTERRUPTED_TEXT, file=sys.stderr)
        sys.exit(INTERRUPTED)


class Terminated(KeyboardInterrupt):
    """Somebody asked this process to end (SIGTERM, as batch systems send it): what an interruption keeps is kept."""


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM end a command as Ctrl-C does; only the main thread can."""
    process = os.getpid()

    def end(number: int, _: object) -> None:
        if os.getpid() != process:  # a process that was made by this one ends as it always did
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        raise Terminated

    try:
        before = signal.signal(signal.SIGTERM, end)
    except ValueError:
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


NOISY = ("ignite", "faiss", "matplotlib", "monai", "PIL", "fontTools")


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Libraries warn but do not chat. Whoever calls ``main`` from Python finds the levels as they were."""
    before = {name: logging.getLogger(name).level for name in NOISY}
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)
    handlers = list(logging.getLogger().handlers)
    for handler in handlers:
        handler.addFilter(_said_by_us)
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
        for handler in handlers:
            handler.removeFilter(_said_by_us)


def _said_by_us(record: logging.LogRecord) -> bool:
    """Ignite logs what ends an engine, and raises it: it would be told twice, and Ctrl-C as an error."""
    return not (record.name.startswith("ignite") and "run is terminating due to exception" in record.getMessage())


def _say(text: str, stream: TextIO | None = None) -> None:
    """Of several ranks the first one speaks: what they say of a command line is the same."""
    if rank_of_torchrun() == 0:
        print(text, file=stream)
    elif stream is sys.stderr:
        time.sleep(LATER)  # torchrun ends all ranks with the first one: that has something to say


def _main(words: list[str]) -> None:
    status = FINISHED
    try:
        asked = settings_of(words)
        if isinstance(asked, str):
            _say(asked)
        else:
            command, settings = asked
            if world_of_torchrun() > 1 and not command.ranks:
                raise ConfigurationError(f"{words[0]} runs in one process: start it without torchrun")
            with Progress(None, words[0], shown=getattr(settings, "progress", False)):  # no step without a word
                status = command.run(**settings.given())
            if status == SKIPPED:
                text = f"exit status {SKIPPED}: finished, but {command.skips}"
                if world_of_torchrun() > 1:
                    # For torchrun every other status is a crash: it would run all of it again.
                    status, text = FINISHED, f"finished, but {command.skips} (exit status {FINISHED} under torchrun)"
                _say(text)
    except MemoError as error:
        # Options are named as they are typed.
        text = error.told("--") if isinstance(error, SettingsError) else str(error)
        _say(f"monai-memo: {_told(text, words)}", sys.stderr)
        sys.exit(REFUSED)
    except BrokenPipeError:  # whoever reads our output has heard enough, as ``head`` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nor may the flush at the end complain
        sys.exit(HUNG_UP)
    except (MemoryError, OSError, RuntimeError) as error:
        message = exhausted(error)
        if message is None:
            raise
        _say(f"monai-memo: {message}", sys.stderr)
        sys.exit(REFUSED)
    sys.exit(status)


if __name__ == "__main__":
    main()
