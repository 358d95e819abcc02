# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""``monai-memo release``: copies out, a second look, clean files, and a statement of what is still possible."""

from __future__ import annotations

import csv
import json
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_memo.audit.configuration import AuditConfiguration, recorded_readings
from monai_memo.audit.giving import privacy_of, records_of_model
from monai_memo.audit.inputs import Inputs, given_detector
from monai_memo.audit.run import Run
from monai_memo.audit.verdict import percent
from monai_memo.data.clean_files import write_clean
from monai_memo.data.cohort import CohortImage, SkippedImage
from monai_memo.detector.detector import Detector
from monai_memo.errors import ConfigurationError, MemoError, OutputError, UnusableImageError
from monai_memo.files import sha256_of
from monai_memo.generators.anything import load_generator
from monai_memo.label.audit_folder import AuditFolder
from monai_memo.label.generator import check_bundle
from monai_memo.progress import Progress
from monai_memo.release.looks import Look, configuration, look, narrowed, positions, read, train_second
from monai_memo.release.progressed import Progressed
from monai_memo.release.rules import UNREADABLE, Choice, Row, Rule, choose
from monai_memo.release.settings import ReleaseSettings
from monai_memo.release.statement import Released, Statement, lowered, statement_of, with_warning
from monai_memo.release.tables import ratings_of, require_complete, require_unchanged, rows_of
from monai_memo.release.topping import Wanted, drawer, identity_of, runs_by_itself, shapes_of, top_up, with_surplus
from monai_memo.release.writing import (
    IMAGES,
    MANIFEST,
    PRIVATE_FILES,
    Files,
    ModelTests,
    private_folder,
    write_private,
    write_public,
)
from monai_memo.sampling import Generator
from monai_memo.statistics.calibration import require_heldout
from monai_memo.workspace.locking import LOCK
from monai_memo.workspace.output_folder import OutputFolder
from monai_memo.workspace.place import WORK, check_place
from monai_memo.workspace.working_folder import JOURNAL

logger = logging.getLogger(__name__)

NEAR = 0.01  # of similarities: what another device may change
FILTERED = (
    "Before this audit, synthetic images that another detector calls copies were removed. The same was done with the "
    "held-out images ({removed} of {total}), so that thresholds and control are those of images that went through the "
    "same filter."
)


class Release:
    """One release.

    .. versionadded:: 0.2.0

    Args:
        draw: a generator of Python for ``top_up_to``, or a function of seeds, in place of a bundle.
        options: see ``ReleaseSettings``.

    Raises:
        ConfigurationError: options that contradict one another, no audit, or a redacted one.

    Example:
        >>> from monai_memo.release.release import Release
        >>> Release(audit="audit", out="to_give_away").run()  # doctest: +SKIP
    """

    def __init__(self, draw: Generator | Callable[[Sequence[int]], Any] | None = None, **options: Any) -> None:
        self.settings = ReleaseSettings(**options)
        self.draw = draw
        if self.settings.top_up_to is not None and self.settings.generator is None and draw is None:
            raise ConfigurationError("top_up_to needs something to draw from: name a bundle with --generator")
        if self.settings.generator is not None:
            if runs_by_itself(self.settings.generator):
                check_bundle(self.settings.generator)
            else:
                self.draw = draw or load_generator(self.settings.generator)
        self.out = Path(self.settings.out)
        self.audit = AuditFolder(Path(self.settings.audit), self.settings.train, self.settings.synthetic)
        self.audit.require_named()
        model = records_of_model(self.audit.folder)
        self.tests = ModelTests(
            model["membership"], model["extraction"],
            None if self.settings.weights is None else privacy_of(self.settings.weights),
        )  # fmt: skip
        self.private = private_folder(self.out)
        recorded = int(self.audit.result.configuration["seed"])
        self.seed = recorded + 1 if self.settings.seed is None else self.settings.seed
        self.output = OutputFolder(
            self.private, "release", self._cohorts(), PRIVATE_FILES, self.settings.to_dict()
        )  # it works in there: what lies in it while it runs shows patients

    def run(self) -> Released:
        """Do it.

        Raises:
            MemoError: what is wrong, and what to do.
        """
        check_place(self.settings.out, self._cohorts())
        self._require_empty()
        with self.output:
            released = self._run()
            self.output.clear()
        return released

    def _cohorts(self) -> dict[str, str]:
        recorded = self.audit.result.configuration
        names = ("train", "heldout", "synthetic")
        return {name: getattr(self.settings, name) or str(recorded[name]) for name in names}

    def _require_empty(self) -> None:
        """A release goes to a folder of its own: whatever else lies there would be given away with it."""
        key = self.private / PRIVATE_FILES[0]
        if key.exists() and not (self.private / WORK).exists():  # with it, a run goes on that did not end
            raise OutputError(
                f"{key} is the key of an earlier release to that folder, and the only one: without it nobody can say "
                "which image came from where. Move it away, or name another folder with --out"
            )
        if not self.out.exists():
            return
        if (self.out / WORK / JOURNAL).exists():  # killed between two renames: put in order first
            with self._public() as half:
                half.clear()
        if self._is_finished():
            with self._public() as public, self.output:
                public.clear()
                self.output.clear()
            raise OutputError(
                f"{self.out} holds the finished release already: the run before this one was ended after its last "
                "step, and what was left of its work has been removed. Go on with RELEASE.md there; for another "
                "release name another folder with --out"
            )
        found = sorted(path.name for path in self.out.iterdir() if path.name not in (LOCK, WORK))
        if found:
            raise OutputError(
                f"{self.out} holds something already ({found[0]}): a release goes to a folder that is empty or new, "
                "since all that lies there is given away. Name another one with --out"
            )

    def _public(self) -> OutputFolder:
        """The folder to give away."""
        return OutputFolder(self.out, "release", self._cohorts(), (), self.settings.to_dict(), redacted=True)

    def _is_finished(self) -> bool:
        """An earlier run put everything in place, and was ended before it had removed its work."""
        key, record = self.private / PRIVATE_FILES[0], self.out / MANIFEST
        if not ((self.private / WORK).exists() and key.is_file() and record.is_file()):
            return False
        files = json.loads(record.read_text(encoding="utf-8"))["files"]
        with open(key, newline="", encoding="utf-8") as stream:
            images = {row["released"]: row["sha256"] for row in csv.DictReader(stream)}
        whole = all((self.out / name).is_file() and sha256_of(self.out / name) == files[name] for name in files)
        return whole and images == {name: files[name] for name in files if name.startswith(f"{IMAGES}/")}

    def _run(self) -> Released:
        settings = self.settings
        run, inputs = self._read_first()
        detector = given_detector(run.settings)
        assert detector is not None
        self._require_other(detector)
        first = look(run, inputs, detector, settings.planted)
        training = inputs.training.cohort
        rows = rows_of(self.audit, {image.image_id: image.patient_id for image in training.images})
        images = {image.image_id: image for image in inputs.prepared["synthetic"].cohort.images}
        require_complete(self.audit, set(images))
        self._compare(first)
        sure = {
            match.synthetic: match.copy for match in first.result.matches if abs(match.similarity - first.tau) > NEAR
        }
        require_unchanged(self.audit.result, rows, sure, self.audit.folder)
        ratings = ratings_of(self.audit)
        choice, threshold = self._choose(first, rows, ratings)
        logger.info("%d of %d images are removed by the rule", len(choice.removed), len(rows))
        done = Progressed(choice, list(choice.kept), rows)
        done.skipped += inputs.prepared["synthetic"].skipped
        if settings.top_up_to is not None:
            self._top_up(first, done, threshold, [images[name] for name in done.kept])
            assert done.drawn is not None
            done.rows = rows = [*rows, *done.drawn.rows]
            images = {**images, **done.drawn.images}
        written = self._write_images(images, done)
        if not done.kept:
            raise MemoError(
                f"nothing is left to release: all {len(rows)} images are removed. Train the generator anew."
            )
        if settings.second_look:
            self._second(first, done, written)
        statement = statement_of(self.settings, self.audit, first, rows, done, threshold, bool(ratings))
        self._require_bound(statement)
        return self._publish(rows, done, written, statement)

    def _read_first(self) -> tuple[Run, Inputs]:
        """The cohorts of the audit, read again; they have to be the same images still."""
        recorded = self.audit.result.configuration
        detector = self.audit.folder / "detector.pt"
        if not detector.is_file():
            raise ConfigurationError(f"{self.audit.folder} has no detector.pt: run the audit again")
        settings = configuration(
            recorded, **self._cohorts(), **self._common(), detector=str(detector), parts=self._parts(),
        )  # fmt: skip
        run, inputs = read(settings, self.private, self.output.work / "looks" / "first")
        for name, prepared in inputs.prepared.items():
            if prepared.content_sha256 != self.audit.result.cohorts[name].content_sha256:
                option = "train" if name == "training" else name
                raise ConfigurationError(
                    f"the {name} images are not those that were audited: files have changed, come or gone since. Audit "
                    f"again, or say with --{option} where those of the audit are."
                )
        return run, inputs

    def _require_other(self, detector: Detector) -> None:
        """Detectors of which one began as the other see the same, whatever was done since."""
        if self.settings.second_detector is None:
            return
        second = Detector.load(self.settings.second_detector)
        if second.lineage & detector.lineage:
            same = second.sha256 == detector.sha256
            which = "is the detector of the audit" if same else "and the audit's detector began as the same network"
            raise ConfigurationError(
                f"second_detector {which}: what the one missed the other would miss again. Name another one, or leave "
                "it out to have one trained"
            )

    def _common(self) -> dict[str, Any]:
        settings = self.settings
        return {
            "out": str(self.private), "device": settings.device, "workers": settings.workers,
            "progress": settings.progress, "redacted": None, "keep_work": None, "gallery": 0, "limit_copies": 0,
        }  # fmt: skip

    def _parts(self) -> bool | None:
        """Parts are looked for where the audit did and they are removed."""
        if self.audit.result.partial is None or not self.settings.parts:
            return False if self.audit.result.verification is not None else None
        return True

    def _compare(self, first: Look) -> None:
        recorded = self.audit.result.tau.value
        if abs(first.tau - recorded) > NEAR:
            raise ConfigurationError(
                f"looked up again, the audit's threshold is {first.tau:.3f} and its record says {recorded:.3f}: it was "
                "made by another version or on another device. Audit again, and release from that."
            )

    def _choose(self, first: Look, rows: list[Row], ratings: dict[str, str]) -> tuple[Choice, float | None]:
        settings = self.settings
        rule = Rule(settings.rule, None, settings.parts, settings.neighbourhoods, settings.keep_novel)
        if settings.at_most is None:
            return choose(rows, rule, ratings), None
        tried: list[str] = []
        for remainder in lowered(first, rows):
            choice = choose(rows, replace(rule, threshold=remainder.threshold), ratings)
            share = (remainder.copies + len(choice.spared)) / max(1, len(choice.kept))
            if choice.kept and share <= settings.at_most:
                return choice, remainder.threshold
            if choice.kept:
                tried.append(percent(share, 2))
        told = f"the bounds that were reached are {', '.join(tried)}" if tried else "no planted copy was found"
        raise ConfigurationError(
            f"no threshold down to the median of unseen patients leaves at most {percent(settings.at_most, 2)} copies "
            f"per released image: {told}. Take a higher --at_most, plant more copies (--planted {settings.planted} so "
            "far), or train the generator again."
        )

    def _top_up(self, first: Look, done: Progressed, threshold: float | None, kept: Sequence[CohortImage]) -> None:
        """Draw what is missing, and a little more where the second look may take some away."""
        settings = self.settings
        missing = (settings.top_up_to or 0) - len(done.kept)
        if missing <= 0:
            raise ConfigurationError(
                f"top_up_to is {settings.top_up_to}, and {len(done.kept)} images are left without drawing any: take a "
                "larger number, or leave it off"
            )
        if settings.neighbourhoods and first.searched.search is None:
            raise ConfigurationError(
                "neighbourhoods and top_up_to go together only where the audit verified its matches: leave one off"
            )
        second = settings.second_look and settings.remove_second
        number = missing + with_surplus(settings.top_up_to or 0, second) - (settings.top_up_to or 0)
        wanted = Wanted(
            number, settings.most_draws or 10 * number, threshold,
            frozenset(done.choice.patients) if settings.neighbourhoods else frozenset(), self.seed,
            recorded_readings(self.audit.result.configuration)["synthetic"], shapes_of(kept, settings.progress),
        )  # fmt: skip
        dims = first.searched.detector.preprocessing.spatial_dims
        done.drawn = top_up(
            first, drawer(settings.generator, self.draw, dims), wanted, self.output.work / "looks" / "drawn",
            identity_of(settings.generator, self.draw),
        )  # fmt: skip
        done.kept += list(done.drawn.images)

    def _write_images(self, images: dict[str, CohortImage], done: Progressed) -> dict[str, Path]:
        """Clean files of what is to be released, in the working folder; the order of names stays behind."""
        folder = self.output.work / IMAGES
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        written: dict[str, Path] = {}
        width = max(4, len(str(len(done.kept))))
        with Progress(len(done.kept), "write images", shown=self.settings.progress) as bar:
            for number, name in enumerate(done.kept, 1):
                try:
                    written[name] = write_clean(images[name], folder, f"{number:0{width}d}")
                except UnusableImageError as error:
                    done.skipped.append(SkippedImage(name, error.reason))
                bar.update(1)
        done.kept = list(written)
        return written

    def _second(self, first: Look, done: Progressed, written: dict[str, Path]) -> None:
        """Look at the clean files with another detector; what it calls copies goes, and it looks once more.

        The last look is at what is released, and at nothing else: what it finds is said of these images.
        """
        settings = self.settings
        recorded, preprocessing = self.audit.result.configuration, self.audit.preprocessing
        given = settings.second_detector
        cohorts = {**self._cohorts(), "synthetic": str(self.output.work / IMAGES)}
        asked: AuditConfiguration = configuration(
            recorded, **cohorts, **self._common(), detector=given, seed=self.seed, planted=100, parts=self._parts(),
            epochs=settings.second_epochs or recorded.get("epochs"), allow_overlap=True,
            size=tuple(preprocessing.size), spacing=preprocessing.spacing,
        )  # fmt: skip
        place = self.output.work / "looks" / "second"
        run, inputs = read(asked, place, place)
        detector = inputs.given or train_second(run, inputs)
        by_file = {path.name: name for name, path in written.items()}
        before = inputs.prepared["heldout"]
        filtered = ~first.heldout_called
        unreadable = [item.image_id for item in inputs.prepared["synthetic"].skipped]
        if unreadable:  # nothing goes out that was not looked at
            done.skipped += [SkippedImage(by_file[name], UNREADABLE) for name in unreadable]
        for number in (1, 2):
            inputs = self._filtered(inputs, filtered)
            found = look(run, inputs, detector, run.settings.planted)
            left = len(inputs.prepared["heldout"].cohort)
            told = FILTERED.format(removed=len(before.cohort) - left, total=len(before.cohort))
            found = replace(found, result=with_warning(found.result, told))
            done.looks.append(found)
            called = {by_file[file]: patient for file, patient in found.called().items()}
            done.kept = [by_file[image.image_id] for image in inputs.prepared["synthetic"].cohort.images]
            logger.info("second look: %d of %d images are called copies", len(called), len(done.kept))
            if number == 2 or not settings.remove_second:
                break
            near = self._near(found, done, called, by_file)
            surplus = self._surplus(done, {*called, *near})
            if not called and not near and not surplus:
                break
            if len(called) + len(near) == len(done.kept):
                by_itself = f", and the other {len(near)} are near patients who were copied" if near else ""
                which = f"{'' if near else 'all '}{len(called)} images"
                raise MemoError(
                    f"nothing is left to release: the second detector calls {which} copies that the first one left"
                    f"{by_itself}. Look at them, and train the generator again."
                )
            done.seconds, done.neighbours = called, near
            done.kept = [name for name in done.kept if name not in {*called, *near, *surplus}]
            if done.drawn is not None:
                done.drawn.drop(surplus)
            filtered = ~found.heldout_called
            for earlier in ("reference", "unseen"):  # of the first look
                shutil.rmtree(place / earlier, ignore_errors=True)
            files = [written[name].name for name in done.kept]
            ids = [image.image_id for image in inputs.prepared["synthetic"].cohort.images]
            inputs = narrowed(inputs, "synthetic", positions(ids, files))
        detector.save(self.output.work / "looks" / "second_detector.pt")

    def _surplus(self, done: Progressed, removed: set[str]) -> list[str]:
        """Drawn images beyond the number that was asked for, the last ones; of what is left without ``removed``."""
        if done.drawn is None or self.settings.top_up_to is None:
            return []
        left = [name for name in done.kept if name not in removed]
        drawn = [name for name in left if name in done.drawn.images]
        return drawn[len(drawn) - min(len(drawn), max(0, len(left) - self.settings.top_up_to)) :]

    def _near(
        self, found: Look, done: Progressed, called: Mapping[str, str], by_file: Mapping[str, str]
    ) -> dict[str, str]:
        """Of the other images those nearest to a patient whom either detector found copied, with the patient."""
        if not self.settings.neighbourhoods:
            return {}
        patients = {*done.choice.patients, *called.values()}
        first = {row.name: row.patient for row in done.rows}
        near: dict[str, str] = {}
        for match in found.result.matches:
            name = by_file[match.synthetic]
            nearest = (match.nearest_patient, first.get(name, ""))
            who = next((patient for patient in nearest if patient in patients), None)
            if who is not None and name not in called:
                near[name] = who
        return near

    def _filtered(self, inputs: Inputs, kept: NDArray[np.bool_]) -> Inputs:
        """Held-out images that went through the same filter as the synthetic ones."""
        found = narrowed(inputs, "heldout", kept)
        settings = self.audit.result.calibration
        if settings["mode"] == "size_matched":
            patients = found.prepared["heldout"].cohort.n_patients
            try:
                require_heldout(patients, settings["quantile"])
            except MemoError as error:
                raise type(error)(
                    f"after the same filter as the synthetic images, {patients} held-out patients are left for the "
                    f"second look: {error} Add held-out patients and audit again, or leave the second look out with "
                    "--second_look False."
                ) from error
        return found

    def _require_bound(self, statement: Statement) -> None:
        """What came after the rule (draws, unreadable images, the second look) may not undo what it promised."""
        most, left = self.settings.at_most, statement.left.copies
        if most is not None and (left is None or left > most * statement.released):
            share = "an unknown number of" if left is None else f"at most {percent(left / statement.released, 2)}"
            raise ConfigurationError(
                f"at most {percent(most, 2)} copies per released image were asked for. The threshold was lowered for "
                f"that, but after all further steps {statement.released} images are left, of which {share} can be "
                "copies. Take a higher --at_most, plant more copies (--planted), or train the generator again."
            )

    def _publish(self, rows: list[Row], done: Progressed, written: dict[str, Path], statement: Statement) -> Released:
        files = Files.of(written, done.kept)
        staging = self.output.staging()
        write_private(staging, rows, done, files, self.output.work / "looks" / "second_detector.pt")
        with self._public() as public:
            content = write_public(public.staging(), self.settings, self.audit, done, files, statement, self.tests)
            self.output.publish()  # the key first: a release without one could not be mended
            public.publish(last=MANIFEST)
            public.clear()
        return Released(self.out, self.private, content, statement, tuple(done.skipped))
