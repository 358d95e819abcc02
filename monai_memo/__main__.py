# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The command line of ``monai-memo``; ``monai-memo --help`` lists the commands.

Exit status: 0 finished, 2 refused (the message says why), 3 finished but some images were skipped or some
runs failed, 130 interrupted.
"""

from __future__ import annotations

import inspect
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monai_memo.errors import ConfigurationError, MemoError

if TYPE_CHECKING:
    from monai_memo.audit.result import AuditResult, Count

FINISHED, REFUSED, SKIPPED, INTERRUPTED = 0, 2, 3, 130
SET = ("train", "heldout", "synthetic", "out", "seed", "patient_pattern")  # by commands that run an audit of their own


def _strict(
    command: Callable[..., Any], takes: Callable[..., Any], doc: str, further: Callable[..., Any] | None = None
) -> Callable[..., Any]:
    """Give ``command`` the arguments of ``takes``, and refuse unknown ones before any work is done.

    A command that hands on arguments also takes those of ``further``, except for what it sets itself.

    python-fire runs a command first and complains about a misspelt option afterwards: an hour later, for an audit.
    """
    known = [
        parameter
        for parameter in inspect.signature(takes).parameters.values()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD and parameter.name != "self"
    ]
    names = [parameter.name for parameter in known]
    handed_on = [] if further is None else [name for name in inspect.signature(further).parameters if name not in SET]

    def run(*values: Any, **named: Any) -> Any:
        arguments = {**dict(zip(names, values, strict=False)), **named}
        unknown = sorted(set(arguments) - set(names) - set(handed_on))
        if unknown or len(values) > len(names):
            shown = ", ".join("--" + name for name in unknown) or f"{len(values)} positional arguments"
            known_text = ", ".join("--" + name for name in dict.fromkeys([*names, *handed_on]))
            raise ConfigurationError(f"unknown option {shown}. Known: {known_text}")
        missing = [p.name for p in known if p.default is inspect.Parameter.empty and arguments.get(p.name) is None]
        if missing:
            raise ConfigurationError(f"missing option {', '.join('--' + name for name in missing)}. See --help.")
        return command(**arguments)

    # Required options get None as default here, so that the message above is shown and not fire's usage text.
    shown = [
        parameter.replace(
            kind=inspect.Parameter.POSITIONAL_OR_KEYWORD,
            default=None if parameter.default is inspect.Parameter.empty else parameter.default,
        )
        for parameter in known
    ]
    rest = inspect.Parameter("further", inspect.Parameter.VAR_KEYWORD)
    run.__signature__ = inspect.Signature([*shown, rest])  # type: ignore[attr-defined]
    run.__doc__ = doc
    run.__name__ = command.__name__
    return run


def _interval(count: Count) -> str:
    return f"{count.value} of {count.of} ({count.low:.0f} to {count.high:.0f})"


def _print_result(result: AuditResult, out: Path, truth: dict[str, int] | None = None) -> int:
    """Print the numbers and where the report is; return the exit status."""
    lines = [result.verdict["headline"], ""]
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
    lines += [f"warning: {message}" for message in result.warnings]
    if skipped:
        counts = ", ".join(f"{number} in {name}" for name, number in skipped.items())
        lines.append(f"warning: images were skipped ({counts}); they are named in audit.json and in the report")
    lines += ["", f"report    {(out / 'report.html').resolve()}"]
    print("\n".join(lines))
    return SKIPPED if skipped else FINISHED


def _audit(**arguments: Any) -> int:
    from monai_memo.audit.audit import Audit

    audit = Audit(**arguments)
    return _print_result(audit.run(), audit.out)


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
    print((Path(str(arguments["out"])) / "planted_audit.md").read_text(encoding="utf-8"))
    return FINISHED


def _study(**arguments: Any) -> int:
    from monai_memo.study.study import GeneratorStudy

    study = GeneratorStudy(**arguments)
    records = study.run()
    print((study.out / "study.md").read_text(encoding="utf-8"))
    return SKIPPED if any(record["status"] == "failed" for record in records) else FINISHED


def _coverage(**arguments: Any) -> int:
    from monai_memo.benchmark.coverage import coverage_study

    coverage_study(**arguments)
    print((Path(str(arguments["out"])) / "coverage.md").read_text(encoding="utf-8"))
    return FINISHED


def _demo(**arguments: Any) -> int:
    from monai_memo.demo import run_demo

    result, truth = run_demo(**arguments)
    return _print_result(result, Path(str(arguments.get("out", "demo_audit"))) / "audit", truth)


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
    folder = Path(str(arguments["audit"])).resolve()
    print(f"{result.headline}\n\nnumbers   {folder / 'review.json'}\nreport    {folder / 'report.html'}")
    return FINISHED


def _card(**arguments: Any) -> int:
    from monai_memo.audit.card import TODO, write_card

    path = write_card(**arguments)
    print(f"card      {path.resolve()}")
    print(f"next      fill in the {path.read_text(encoding='utf-8').count(TODO)} places that an audit cannot know")
    return FINISHED


def commands() -> dict[str, Callable[..., int]]:
    """The commands by name, with the arguments of what they call."""
    from monai_memo.audit.card import write_card
    from monai_memo.audit.configuration import AuditConfiguration
    from monai_memo.benchmark.coverage import coverage_study
    from monai_memo.benchmark.evaluate import Evaluation
    from monai_memo.benchmark.planted_audit import planted_audit
    from monai_memo.benchmark.run import Benchmark
    from monai_memo.demo import run_demo
    from monai_memo.detector.command import train_detector_command
    from monai_memo.label.prepare import prepare_review
    from monai_memo.label.review import review
    from monai_memo.label.serve import review_server
    from monai_memo.study.study import GeneratorStudy

    return {
        "audit": _strict(_audit, AuditConfiguration, AuditConfiguration.__doc__ or ""),
        "train_detector": _strict(_train_detector, train_detector_command, train_detector_command.__doc__ or ""),
        "evaluate": _strict(_evaluate, Evaluation, Evaluation.__doc__ or ""),
        "benchmark": _strict(_benchmark, Benchmark, Benchmark.__doc__ or ""),
        "planted_audit": _strict(_planted_audit, planted_audit, planted_audit.__doc__ or "", AuditConfiguration),
        "study": _strict(_study, GeneratorStudy, GeneratorStudy.__doc__ or ""),
        "coverage": _strict(_coverage, coverage_study, coverage_study.__doc__ or ""),
        "review_prepare": _strict(_review_prepare, prepare_review, prepare_review.__doc__ or ""),
        "review_server": _strict(_review_server, review_server, review_server.__doc__ or ""),
        "review": _strict(_review, review, review.__doc__ or ""),
        "card": _strict(_card, write_card, write_card.__doc__ or ""),
        "demo": _strict(_demo, run_demo, run_demo.__doc__ or "", AuditConfiguration),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of ``monai-memo`` and ``python -m monai_memo``."""
    import fire

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for noisy in ("ignite", "faiss", "matplotlib", "monai", "PIL", "fontTools"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    given = list(sys.argv[1:] if arguments is None else arguments)
    if {"--help", "-h"} & set(given):
        # Commands take any option, so that misspelt ones get a message of ours; fire would hand them --help as well.
        given = [*given[:1], "--", "--help"] if given[0] not in ("--help", "-h") else ["--", "--help"]
    status: list[int] = []

    def silent(component: Any) -> str:
        """Fire prints what a command returns; the status goes to the shell instead."""
        if isinstance(component, int):
            status.append(component)
            return ""
        return str(component) if isinstance(component, str) else ""

    try:
        fire.Fire(commands(), command=given, name="monai-memo", serialize=silent)
    except MemoError as error:
        print(f"monai-memo: {error}", file=sys.stderr)
        sys.exit(REFUSED)
    except KeyboardInterrupt:
        print("monai-memo: interrupted. Run the same command again to continue where it stopped.", file=sys.stderr)
        sys.exit(INTERRUPTED)
    sys.exit(status[-1] if status else FINISHED)


if __name__ == "__main__":
    main()
