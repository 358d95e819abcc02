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
    import re
    import signal
    import time
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import contextmanager, nullcontext
    from dataclasses import dataclass
    from pathlib import Path
    from typing import TYPE_CHECKING, Any, TextIO

    from monai_memo import __version__
    from monai_memo.command_line import command_help, first_sentence, load, nearest, overview, settings_from, shown_name
    from monai_memo.errors import ConfigurationError, MemoError
    from monai_memo.files import exhausted, quiet_threads
    from monai_memo.progress import Progress
    from monai_memo.settings import Settings, SettingsError
    from monai_memo.shipped.command import as_options
    from monai_memo.workspace.torchrun import rank_of_torchrun, world_of_torchrun
except KeyboardInterrupt:  # in the first moments, too
    print(INTERRUPTED_TEXT, file=sys.stderr)
    raise SystemExit(130) from None

if TYPE_CHECKING:
    from monai_memo.audit.result import AuditResult, Count

FINISHED, REFUSED, SKIPPED, INTERRUPTED, TERMINATED = 0, 2, 3, 130, 143
LATER = 2.0  # seconds that the other ranks end after rank 0
HUNG_UP = 141  # as a shell names the end by a closed pipe


def _interval(count: Count) -> str:
    return f"{count.value} of {count.of} ({count.low:.0f} to {count.high:.0f})"


def _print_result(result: AuditResult, out: Path, truth: dict[str, int] | None = None) -> int:
    """Print the numbers and where the report is; return the exit status. Of a redacted audit no name is printed."""
    from monai_memo.data.cohort import SkippedImage, by_reason

    redacted = result.configuration.get("redacted") is True
    result = result.without_patients() if redacted else result
    lines = [result.verdict["headline"], f"do first  {result.to_do()}", ""]
    copies, memorized = _interval(result.n_copies), _interval(result.n_mem)
    planted = {name: f"   planted: {truth[name]}" if truth else "" for name in ("copies", "memorized")}
    lines.append(f"N_copies  {copies}{planted['copies']}")
    lines.append(f"N_mem     {memorized}{planted['memorized']}")
    excess = result.excess_copies
    lines.append(
        f"excess    {100 * excess.value:.1f} % ({100 * excess.low:.1f} to {100 * excess.high:.1f}) of the synthetic "
        "images, over what unseen patients show"
    )
    skipped = {name: len(summary.skipped) for name, summary in result.cohorts.items() if summary.skipped}
    lines += [f"warning: {message}" for message in result.told()]
    if skipped:
        counts = ", ".join(f"{number} in {name}" for name, number in skipped.items())
        where = "counted" if redacted else "named"
        lines.append(f"warning: images were skipped ({counts}); they are {where} in audit.json and in the report")
        for name in skipped:
            items = [SkippedImage(item["image"], item["reason"]) for item in result.cohorts[name].skipped]
            told = by_reason(f"  {name}", items)
            lines.append(told.plain if redacted else str(told))
    lines += ["", f"report    {'report.html, in the folder of --out' if redacted else (out / 'report.html').resolve()}"]
    print("\n".join(lines))
    return SKIPPED if skipped else FINISHED


def _audit(**arguments: Any) -> int:
    from monai_memo.audit.audit import Audit
    from monai_memo.workspace.team import Team

    team = Team.of_torchrun()
    with team or nullcontext():
        audit = Audit(**arguments)
        result = audit.run(team)
    if team is None or team.leads:
        return _print_result(result, audit.out)
    return SKIPPED if any(summary.skipped for summary in result.cohorts.values()) else FINISHED


def _inspect(**arguments: Any) -> int:
    from monai_memo.audit.inspection import Inspection

    inspection = Inspection(**arguments)
    inspection.read()
    print(inspection.table(), flush=True)  # before anything is refused
    inspection.compare()
    page = inspection.write()
    print(f"\n{inspection.findings_text()}\n\npage      {page.resolve()} (shows patients: do not share it)")
    return SKIPPED if inspection.n_skipped else FINISHED


def _train_detector(**arguments: Any) -> int:
    from monai_memo.detector.command import train_detector_command

    print(f"detector  {train_detector_command(**arguments).resolve()}")
    return FINISHED


def _evaluate(**arguments: Any) -> int:
    from monai_memo.benchmark.evaluate import Evaluation
    from monai_memo.benchmark.scores import markdown_table

    evaluation = Evaluation(**arguments)
    print(markdown_table(evaluation.run()))
    print(f"written to {evaluation.out.resolve()}")
    return SKIPPED if evaluation.skipped else FINISHED


def _benchmark(**arguments: Any) -> int:
    from monai_memo.benchmark.run import Benchmark

    benchmark = Benchmark(**arguments)
    record = benchmark.run()
    print((benchmark.out / "benchmark.md").read_text(encoding="utf-8"))
    return SKIPPED if any(record["skipped"].values()) else FINISHED


def _planted_audit(**arguments: Any) -> int:
    from monai_memo.benchmark.planted_audit import planted_audit

    planted_audit(**arguments)
    print((Path(arguments["out"]) / "planted_audit.md").read_text(encoding="utf-8"))
    return FINISHED


def _study(**arguments: Any) -> int:
    from monai_memo.study.study import GeneratorStudy

    study = GeneratorStudy(**arguments)
    records = study.run()
    print((study.out / "study.md").read_text(encoding="utf-8"))
    return SKIPPED if any(record["status"] == "failed" for record in records) else FINISHED


def _twins(**arguments: Any) -> int:
    from monai_memo.study.twins import TwinStudy

    study = TwinStudy(**arguments)
    study.run()
    print((study.out / "twins.md").read_text(encoding="utf-8"))
    return FINISHED


def _coverage(**arguments: Any) -> int:
    from monai_memo.benchmark.coverage import coverage_study

    coverage_study(**arguments)
    print((Path(arguments["out"]) / "coverage.md").read_text(encoding="utf-8"))
    return FINISHED


def _demo(**arguments: Any) -> int:
    from monai_memo.demo import run_demo

    result, truth = run_demo(**arguments)
    return _print_result(result, Path(arguments.get("out", "demo_audit")) / "audit", truth)


def _review_prepare(**arguments: Any) -> int:
    from monai_memo.label.prepare import prepare_review

    study = prepare_review(**arguments)
    missing = sum(bool(pair.missing) for pair in study.pairs)
    print(f"{len(study.sample)} pairs of the sample and {len(study.uncertain)} further pairs are ready")
    if missing:
        print(f"warning: {missing} pairs cannot be shown; they are named above and in the report's chapter")
    print(f"next      monai-memo review-server --audit {arguments['audit']}")
    return SKIPPED if missing else FINISHED


def _review_server(**arguments: Any) -> int:
    from monai_memo.label.serve import review_server

    review_server(**arguments)
    return FINISHED


def _review(**arguments: Any) -> int:
    from monai_memo.label.review import review

    result = review(**arguments)
    folder = Path(arguments["audit"]).resolve()
    print(f"{result.headline}\n\nnumbers   {folder / 'review.json'}\nreport    {folder / 'report.html'}")
    return FINISHED


def _card(**arguments: Any) -> int:
    from monai_memo.audit.card import TODO, write_card

    path = write_card(**arguments)
    print(f"card      {path.resolve()}")
    print(f"next      fill in the {path.read_text(encoding='utf-8').count(TODO)} places that an audit cannot know")
    return FINISHED


def _release(**arguments: Any) -> int:
    from monai_memo.release.command import release

    return SKIPPED if release(**arguments) else FINISHED


def _duplicates(**arguments: Any) -> int:
    from monai_memo.duplicates.duplicates import Duplicates

    search = Duplicates(**arguments)
    found = search.run()
    lines = [*found.sentences(), found.calibration()]
    if found.skipped:
        lines.append(f"warning: {len(found.skipped)} images cannot be read; they are named in the page")
    print("\n".join(lines))
    page = (search.out / "duplicates.html").resolve()
    print(f"\npage      {page} (shows patients: do not share it)\ntables    groups.csv, clean_*.csv beside it")
    return SKIPPED if found.skipped else FINISHED


def _bundles_list() -> int:
    from monai_memo.shipped.command import list_bundles

    list_bundles()
    return FINISHED


def _bundles_copy(**arguments: Any) -> int:
    from monai_memo.shipped.command import copy

    copy(**arguments)
    return FINISHED


@dataclass(frozen=True)
class Command:
    """A command: where its settings are, and what it does with them.

    Attributes:
        settings: ``module:class``, imported when it is asked for, so that help is quick.
        run: takes the options that were given; returns the exit status.
        skips: what happened where that is ``SKIPPED``.
        ranks: whether the processes of ``torchrun`` share its work.
    """

    settings: str
    run: Callable[..., int]
    skips: str = "images were skipped"
    ranks: bool = False


COMMANDS = {
    "inspect": Command("monai_memo.audit.configuration:InspectionSettings", _inspect),
    "duplicates": Command("monai_memo.duplicates.settings:DuplicatesSettings", _duplicates),
    "audit": Command("monai_memo.audit.configuration:AuditConfiguration", _audit, ranks=True),
    "train-detector": Command("monai_memo.detector.settings:TrainDetectorSettings", _train_detector),
    "evaluate": Command("monai_memo.benchmark.settings:EvaluationSettings", _evaluate),
    "benchmark": Command("monai_memo.benchmark.settings:BenchmarkSettings", _benchmark),
    "planted-audit": Command("monai_memo.benchmark.settings:PlantedAuditSettings", _planted_audit),
    "study": Command("monai_memo.study.settings:StudySettings", _study, "some trainings failed"),
    "twins": Command("monai_memo.study.twin_settings:TwinSettings", _twins),
    "coverage": Command("monai_memo.benchmark.settings:CoverageSettings", _coverage),
    "review-prepare": Command(
        "monai_memo.label.settings:ReviewPrepareSettings", _review_prepare, "some pairs cannot be shown"
    ),
    "review-server": Command("monai_memo.label.settings:ReviewServerSettings", _review_server),
    "review": Command("monai_memo.label.settings:ReviewSettings", _review),
    "release": Command("monai_memo.release.settings:ReleaseSettings", _release),
    "card": Command("monai_memo.audit.configuration:CardSettings", _card),
    "bundles-list": Command("monai_memo.shipped.settings:BundlesListSettings", _bundles_list),
    "bundles-copy": Command("monai_memo.shipped.settings:BundlesCopySettings", _bundles_copy),
    "demo": Command("monai_memo.demo:DemoSettings", _demo),
}
STATUSES = "Exit status: 0 finished, 2 refused, 3 finished but something was skipped, 130 interrupted, 143 terminated."


def settings_of(words: Sequence[str]) -> tuple[Command, Settings] | str:
    """What a command line asks for: a command with its settings, or the text of a help page.

    Raises:
        MemoError: what is wrong with it.
    """
    words = as_options(words)
    if not words or words[0] in ("--help", "-h", "help"):
        return overview({name: first_sentence(load(command.settings)) for name, command in COMMANDS.items()}, STATUSES)
    if words[0] == "--version":
        return __version__
    name = words[0].replace("_", "-")
    if name not in COMMANDS:
        known = ", ".join(COMMANDS)
        raise ConfigurationError(
            f"unknown command {shown_name(words[0])}{nearest(name, list(COMMANDS))}. Known: {known}"
        )
    model = load(COMMANDS[name].settings)
    if {"--help", "-h"} & set(words):
        return command_help(name, model)
    return COMMANDS[name], settings_from(model, words[1:])


NAMING = ("train", "heldout", "synthetic", "out", "detector", "patient_pattern")


def _without_values(text: str, words: Sequence[str]) -> str:
    """A message of a redacted run without the words that were given with its options: they can name patients."""
    if not any(word.startswith("--redacted") for word in words):
        return text
    values, option = set(), ""
    for word in words[1:]:
        name, _, value = word.partition("=") if word.startswith("--") else (option, "", word)
        option = name
        if name.lstrip("-").replace("-", "_") in NAMING:
            values.add(value)
    for value in sorted(filter(None, values), key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(value)}(?!\w)", "...", text)
    return text


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
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


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
        _say(f"monai-memo: {_without_values(text, words)}", sys.stderr)
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
