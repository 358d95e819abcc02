# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The commands: what each does, in which group help lists it, and an example that runs.

The examples work on what ``monai-memo demo`` writes, in the folder in which it was started.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monai_memo.command_line.parsing import Example

if TYPE_CHECKING:
    from monai_memo.audit.result import AuditResult, Count

FINISHED, REFUSED, SKIPPED = 0, 2, 3


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


def _review_export(**arguments: Any) -> int:
    from monai_memo.label.export import review_export

    path, rows = review_export(**arguments)
    print(f"{rows} ratings\ntable     {path.resolve()}")
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


def _membership(**arguments: Any) -> int:
    from monai_memo.membership.membership import Membership

    test = Membership(**arguments)
    return _tell_of_model(test.run(), test.out / "membership.html", test.skipped)


def _extract(**arguments: Any) -> int:
    from monai_memo.membership.extraction import Extraction

    search = Extraction(**arguments)
    return _tell_of_model(search.run(), search.out / "extraction.html", search.skipped)


def _tell_of_model(record: dict[str, Any], page: Path, skipped: int) -> int:
    """What was found of a model itself."""
    lines = [record["headline"], "", *record["found"], *(f"warning: {sentence}" for sentence in record["warnings"])]
    if skipped:
        lines.append(f"warning: {skipped} images cannot be read; they are named above")
    print("\n".join([*lines, "", f"page      {page.resolve()}"]))
    return SKIPPED if skipped else FINISHED


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


def _bundles_check(**arguments: Any) -> int:
    from monai_memo.shipped.command import check

    check(**arguments)
    return FINISHED


@dataclass(frozen=True)
class Command:
    """A command: where its settings are, and what it does with them.

    Attributes:
        group: key of ``GROUPS``.
        settings: ``module:class``, imported when it is asked for, so that help is quick.
        run: takes the options that were given; returns the exit status.
        examples: shown in its help.
        skips: what happened where that is ``SKIPPED``.
        ranks: whether the processes of ``torchrun`` share its work.
        positional: options whose value may stand without their name, in this order.
    """

    group: str
    settings: str
    run: Callable[..., int]
    examples: tuple[Example, ...]
    skips: str = "images were skipped"
    ranks: bool = False
    positional: tuple[str, ...] = ()


GROUPS = {
    "audit": "Audit: does a generator leak its training patients?",
    "review": "Review: people look at the pairs that an audit found",
    "release": "Release: what can be given away",
    "generators": "Generators: before and while they are trained",
    "measure": "Measure: how good detectors, audits and intervals are",
}
IMAGES = "demo_audit/images"
COHORTS = f"--train {IMAGES}/training --heldout {IMAGES}/heldout --synthetic {IMAGES}/synthetic"
KNOWN = f"--train {IMAGES}/training --negatives {IMAGES}/heldout"

# In the order in which help lists them. A command may have two words ("bundles copy").
COMMANDS = {
    "demo": Command("audit", "monai_memo.demo:DemoSettings", _demo, (
        Example("Phantoms with planted copies, and their audit, in minutes", "--out demo_audit"),
    )),
    "inspect": Command("audit", "monai_memo.audit.configuration:InspectionSettings", _inspect, (
        Example("Look at the demo's cohorts", COHORTS),
    )),
    "audit": Command("audit", "monai_memo.audit.configuration:AuditConfiguration", _audit, (
        Example("Audit the demo's cohorts; CSV files (image,patient_id) take the place of folders",
                f"{COHORTS} --epochs 60 --out audit"),
        Example("With a trained detector, and nothing in the output that shows or names a patient",
                f"{COHORTS} --detector detector/detector.pt --redacted --out shareable_audit"),
    ), ranks=True),
    "train-detector": Command("audit", "monai_memo.detector.settings:TrainDetectorSettings", _train_detector, (
        Example("One detector for several audits of the same training images",
                f"--train {IMAGES}/training --epochs 60 --out detector"),
    )),
    "review-prepare": Command("review", "monai_memo.label.settings:ReviewPrepareSettings", _review_prepare, (
        Example("Draw the demo's pairs", "--audit demo_audit/audit --n 50"),
    ), skips="some pairs cannot be shown"),
    "review-server": Command("review", "monai_memo.label.settings:ReviewServerSettings", _review_server, (
        Example("Show them to raters, at http://127.0.0.1:8000/review/", "--audit demo_audit/audit"),
    )),
    "review-export": Command("review", "monai_memo.label.settings:ReviewExportSettings", _review_export, (
        Example("The demo's ratings as a table", "--audit demo_audit/audit --out ratings.csv"),
    )),
    "review": Command("review", "monai_memo.label.settings:ReviewSettings", _review, (
        Example("Evaluate the ratings", "--audit demo_audit/audit"),
    )),
    "release": Command("release", "monai_memo.release.settings:ReleaseSettings", _release, (
        Example("The demo's images without the copies, with a second look",
                "--audit demo_audit/audit --out to_give_away"),
    )),
    "card": Command("release", "monai_memo.audit.configuration:CardSettings", _card, (
        Example("The demo's card", '--audit demo_audit/audit --out card.md --title "Chest phantoms"'),
    )),
    "bundles list": Command("generators", "monai_memo.shipped.settings:BundlesListSettings", _bundles_list, (
        Example("What comes with the package", ""),
    )),
    "bundles copy": Command("generators", "monai_memo.shipped.settings:BundlesCopySettings", _bundles_copy, (
        Example("A bundle of your own to train, in the folder you are in", "chest_xray_ldm ."),
    ), positional=("name", "dir")),
    "bundles check": Command("generators", "monai_memo.shipped.settings:BundlesCheckSettings", _bundles_check, (
        Example("Whether the model zoo would take it", "chest_xray_ldm"),
    ), positional=("bundle",)),
    "membership": Command("release", "monai_memo.membership.settings:MembershipSettings", _membership, (
        Example("Do the weights of a trained bundle betray who was in its training data?",
                f"--bundle chest_xray_ldm --profile small --train {IMAGES}/training --heldout {IMAGES}/heldout "
                "--out membership"),
        Example("Calibrated by a model of other patients, with a chapter in the report of an audit",
                f"--bundle chest_xray_ldm --profile small --train {IMAGES}/training --heldout {IMAGES}/heldout "
                "--reference_bundle chest_xray_ldm --reference_profile small "
                "--reference_diffusion_file other_patients/model.pt --audit demo_audit/audit --out membership"),
    )),
    "extract": Command("release", "monai_memo.membership.settings:ExtractSettings", _extract, (
        Example("Search a trained bundle for its training images on purpose",
                f"--bundle chest_xray_ldm --profile small --train {IMAGES}/training --heldout {IMAGES}/heldout "
                "--detector demo_audit/audit/detector.pt --out extraction"),
    )),
    "duplicates": Command("generators", "monai_memo.duplicates.settings:DuplicatesSettings", _duplicates, (
        Example("Within and between two cohorts, before training",
                f"--train {IMAGES}/training --heldout {IMAGES}/heldout --out duplicates"),
    )),
    "study": Command("generators", "monai_memo.study.settings:StudySettings", _study, (
        Example("The grid of study.yaml; docs/studies has two to begin with",
                "--config study.yaml --dataset training.csv --heldout heldout.csv --out study"),
    ), skips="some trainings failed"),
    "evaluate": Command("measure", "monai_memo.benchmark.settings:EvaluationSettings", _evaluate, (
        Example("Planted copies of the demo's training images",
                f"{KNOWN} --detector detector/detector.pt --per_kind 20 --out evaluation"),
    )),
    "benchmark": Command("measure", "monai_memo.benchmark.settings:BenchmarkSettings", _benchmark, (
        Example("The same at every strength, next to simpler methods",
                f"{KNOWN} --detector detector/detector.pt --per_level 10 --out benchmark"),
    )),
    "planted-audit": Command("measure", "monai_memo.benchmark.settings:PlantedAuditSettings", _planted_audit, (
        Example("Real images with patients (image,patient_id), one audit", "--cohort all.csv --seeds 0 --out planted"),
    )),
    "twins": Command("measure", "monai_memo.study.twin_settings:TwinSettings", _twins, (
        Example("Generators that train in seconds, on halves of the demo's training images",
                f"--train {IMAGES}/training --heldout {IMAGES}/heldout --detector detector/detector.pt "
                "--generators memorizer,gaussian --splits 1 --out twins"),
    )),
    "coverage": Command("measure", "monai_memo.benchmark.settings:CoverageSettings", _coverage, (
        Example("A quick look; 300 and more audits tell a coverage to about 1 %", "--audits 20 --out coverage"),
    )),
}  # fmt: skip
