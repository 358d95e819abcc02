# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Further images from the generator: each is looked up like those of the audit before it enters a release."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_memo.data.cohort import Cohort, CohortImage, Reading
from monai_memo.data.prepared import prepare
from monai_memo.data.reading import read_image
from monai_memo.data.writing import save_image
from monai_memo.errors import CohortError, ConfigurationError, MemoError, UnusableImageError
from monai_memo.files import sha256_of
from monai_memo.generators.anything import load_generator
from monai_memo.generators.bundle_model import config_file
from monai_memo.generators.diffusers import INDEX
from monai_memo.label.generator import check_bundle, sample_from_bundle
from monai_memo.progress import Progress
from monai_memo.release.looks import Look
from monai_memo.release.rules import Row
from monai_memo.sampling import Generator, Identified, require_writable, understood
from monai_memo.sealing import fingerprint, read_sealed_json, write_sealed_json

Shape = tuple[int, ...]  # (channels, *spatial)
Draw = Callable[
    [Path, int, int], Mapping[str, str]
]  # folder, number, seed; gives images that it could not write, and why
BATCH = 32
SURPLUS, LEAST_SURPLUS = 0.1, 3  # what the second look may take away again
NOT_FINITE, BLANK = "with values that are no finite numbers", "not readable or blank"
DRAWN_COPY, DRAWN_AGAIN = "drawn, above the threshold", "drawn before, or audited already"
DRAWN_OTHER = "drawn, below the threshold: a copy in part, above a lowered threshold, or near a copied patient"
DRAWN_SURPLUS = "drawn, not needed in the end"
LOOKED_UP = (DRAWN_COPY, DRAWN_AGAIN, DRAWN_OTHER, DRAWN_SURPLUS)
MOST_REASONS = 5
PATIENCE = 86_400.0  # seconds that a bundle may take for a batch of large volumes


@dataclass
class Drawn:
    """What was drawn: each image has entered, or has a reason why not.

    Attributes:
        images: those that entered.
        rows: of all that ever entered.
        rejected: the others by name, with the reason.
        seen: hashes of the audited images and of those that entered: a generator that gives few images gives them again
            and again, and equal seeds give the images of the audit.
    """

    images: dict[str, CohortImage] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    rejected: dict[str, str] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)

    @property
    def drawn(self) -> int:
        """Images in all."""
        return len(self.images) + len(self.rejected)

    def count(self, *reasons: str) -> int:
        """Images that did not enter for one of these reasons."""
        return sum(reason in reasons for reason in self.rejected.values())

    @property
    def copies(self) -> int:
        """Rejected, above the audit's threshold."""
        return self.count(DRAWN_COPY)

    @property
    def unusable(self) -> int:
        """Not finite, of another size than the audited ones, or not readable."""
        return len(self.rejected) - self.count(*LOOKED_UP)

    def drop(self, names: Sequence[str]) -> None:
        """Images that entered are not needed in the end."""
        for name in names:
            del self.images[name]
            self.rejected[name] = DRAWN_SURPLUS

    def reasons(self) -> str:
        """Why images could not be used, with counts; most frequent first."""
        found = Counter(reason for reason in self.rejected.values() if reason not in LOOKED_UP)
        return "; ".join(f"{number} {reason}" for reason, number in found.most_common(MOST_REASONS))


@dataclass(frozen=True)
class Wanted:
    """How many, and what may enter.

    Attributes:
        number: of images to let in.
        most: to draw.
        threshold: lowered one; None for the audit's.
        copied: patients whose neighbourhood stays out; empty where it may enter.
        seed: of the first batch; each further one takes the next.
        reading: how the images are read.
        shapes: of the audited images; others do not enter. Empty lets any in.
    """

    number: int
    most: int
    threshold: float | None = None
    copied: frozenset[str] = frozenset()
    seed: int = 0
    reading: Reading = field(default_factory=Reading)
    shapes: frozenset[Shape] = frozenset()


def runs_by_itself(folder: str | Path) -> bool:
    """Whether a folder is to be run as a bundle, which draws so many samples from a seed into a folder.

    Pipelines of diffusers and bundles of the model zoo, which take neither number nor seed, are asked in Python.
    """
    if (Path(folder) / INDEX).is_file():
        return False
    config = config_file(folder, "inference")
    if not config.is_file() or config_file(folder, "common").is_file():
        return True
    try:
        return config.suffix == ".json" and "n_samples" in json.loads(config.read_text(encoding="utf-8"))
    except ValueError:
        return True  # what is wrong is told when it is run


def drawer(bundle: str | None, draw: Generator | Callable[[Sequence[int]], Any] | None, dims: int) -> Draw:
    """Writes images of a generator to a folder.

    Args:
        bundle: folder of a generator bundle, or of what else ``generators.load_generator`` takes.
        draw: a generator of Python, which goes before.
        dims: 2 or 3.

    Raises:
        ConfigurationError: no bundle, or nothing that draws.
    """
    if draw is None and not runs_by_itself(str(bundle)):
        draw = load_generator(str(bundle))
    if draw is None:
        root = check_bundle(str(bundle))

        def sample(folder: Path, number: int, seed: int) -> Mapping[str, str]:
            sample_from_bundle(root, folder, number, seed, PATIENCE)
            return {}

        return sample
    if not isinstance(draw, Generator) and not callable(draw):
        raise ConfigurationError(
            f"images are drawn by a function of seeds or by an object with a method sample(seeds), not by {draw!r}"
        )
    ending = "png" if dims == 2 else "nii.gz"

    def write(folder: Path, number: int, seed: int) -> Mapping[str, str]:
        failed: dict[str, str] = {}
        seeds = [seed * BATCH + place for place in range(number)]  # no seed in two batches
        for one, image in zip(seeds, _images(draw, seeds), strict=True):
            name = f"{one:012d}.{ending}"
            reason = _save(folder / name, image, one, dims)
            if reason is not None:
                failed[name] = reason
        return failed

    return write


def _images(draw: Generator | Callable[[Sequence[int]], Any], seeds: Sequence[int]) -> Sequence[Any]:
    """Images of a user's generator, one for each seed.

    Raises:
        MemoError: it fails, or gives another number of images; with its name.
    """
    function = draw.sample if isinstance(draw, Generator) else draw
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    kept = "What was looked up of the cohorts is kept: mend the function, and run the same again; it draws anew."
    try:
        images = list(function(seeds))
    except Exception as error:  # of whatever kind: it is not our code
        raise MemoError(
            f"{name}, which draws images, failed for the seeds {seeds[0]} to {seeds[-1]}: {type(error).__name__}: "
            f"{error}. {kept}"
        ) from error
    if len(images) != len(seeds):
        raise MemoError(f"{name}, which draws images, gave {len(images)} images for {len(seeds)} seeds. {kept}")
    with suppress(ConfigurationError):  # otherwise each of them is told of by itself
        return list(understood(images, len(seeds), name))
    return images


def _save(path: Path, image: Any, seed: int, dims: int) -> str | None:
    """Write an image that was drawn; the reason where that cannot be done."""
    try:
        values = np.asarray(image, dtype=np.float32)
    except (TypeError, ValueError):
        return "no numbers"
    if values.ndim != dims + 1:
        return f"of the shape {shown(values.shape)}, where (channels, {dims} axes) is asked for"
    if not values.size or not np.isfinite(values).all():
        return NOT_FINITE
    require_writable(values, f"the image that was drawn for seed {seed}")
    try:
        save_image(path, values)
    except ConfigurationError:
        return f"with {len(values)} channels"
    return None


def shown(shape: Sequence[int]) -> str:
    """A shape in words: ``1 x 64 x 64``."""
    return " x ".join(map(str, shape))


def with_surplus(number: int, second: bool) -> int:
    """So many that the second look can take some away again."""
    return number + max(LEAST_SURPLUS, math.ceil(SURPLUS * number)) if second else number


def identity_of(bundle: str | None, draw: object | None) -> str | None:
    """Hash of what decides the images; None for a generator of Python that does not say, whose draws cannot be kept."""
    if isinstance(draw, Identified):
        return fingerprint("draws", draw.identity())
    if draw is not None or bundle is None:
        return None
    root = Path(bundle).resolve()
    files = sorted(path for path in root.rglob("*") if path.is_file() and path.suffix != ".pyc")
    stamps = [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in files]
    return fingerprint("draws of a bundle", stamps)


def _batch(draw: Draw, place: Path, number: int, seed: int, identity: str | None) -> Mapping[str, str]:
    """Draw a batch, unless an interrupted run has drawn it from the same generator and it is whole."""
    record = place.with_suffix(".json")
    made = {"identity": identity, "number": number, "seed": seed}
    known = None if identity is None else read_sealed_json(record)
    if known is not None and known["made"] == made and known["files"] == _hashes(place):
        failed: dict[str, str] = known["failed"]
        return failed
    record.unlink(missing_ok=True)
    if place.exists():
        shutil.rmtree(place)
    place.mkdir(parents=True)
    told = dict(draw(place, number, seed))
    if identity is not None:
        write_sealed_json(record, {"made": made, "files": _hashes(place), "failed": told})
    return told


def _hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in files}


def top_up(first: Look, draw: Draw, wanted: Wanted, folder: Path, identity: str | None = None) -> Drawn:
    """Draw, look up, and let in what is no copy.

    Args:
        first: the look of the audit's detector.
        folder: for the images. Batches of an interrupted run that lie there whole are not drawn again.
        identity: of the generator; None draws all of them anew.

    Raises:
        ConfigurationError: after so many draws too few have entered.
    """
    audited = np.asarray(first.inputs.prepared["synthetic"].pixels)
    found, batch = Drawn(seen={_content(image) for image in audited}), 0
    with Progress(wanted.number, "top up", shown=first.run.settings.progress) as bar:
        while len(found.images) < wanted.number and found.drawn < wanted.most:
            number = min(BATCH, wanted.most - found.drawn)
            place = folder / f"{batch:05d}"
            failed = _batch(draw, place, number, wanted.seed + batch, identity)
            _leave_out(found, place, failed)
            before = len(found.images)
            if len(failed) < number:
                _let_in(first, place, wanted, found)
            bar.update(len(found.images) - before)
            batch += 1
    if len(found.images) < wanted.number:
        why = f" ({found.reasons()})" if found.unusable else ""
        others = found.count(DRAWN_OTHER, DRAWN_AGAIN)
        raise ConfigurationError(
            f"of {found.drawn} images that were drawn {len(found.images)} may enter, and {wanted.number} are missing: "
            f"{found.copies} are copies, {others} were rejected for other reasons, {found.unusable} cannot be "
            f"used{why}. Ask for fewer with --top_up_to, draw more with --most_draws, or train the generator again."
        )
    return found


def _let_in(first: Look, place: Path, wanted: Wanted, found: Drawn) -> None:
    searched, training = first.searched, first.inputs.training.cohort
    cohort = Cohort.from_source(place, "synthetic", reading=wanted.reading)
    settings = first.run.settings
    cohort = _alike(cohort, place, wanted, found)
    if not len(cohort):
        return
    try:
        prepared = prepare(
            cohort, searched.detector.preprocessing, place.with_name(f"{place.name}_prepared"), settings.workers, False
        )
    except CohortError:  # not one of this batch: counted like any other, the next one may do
        _leave_out(found, place, {image.image_id: BLANK for image in cohort.images})
        return
    _leave_out(found, place, {item.image_id: item.reason for item in prepared.skipped})
    pixels = np.asarray(prepared.pixels)
    if searched.search is not None:
        matches = searched.search.search(pixels)
        similarity = matches.similarity[:, 0]
        patients = [training.images[int(one)].patient_id for one in matches.candidates[:, 0]]
    else:
        similarity, patients = searched.similarity_of(pixels), [""] * len(pixels)
    called = ~(similarity <= first.tau)  # what is no number is not let in
    other = ~(similarity <= (first.tau if wanted.threshold is None else wanted.threshold))
    other |= np.array([patient in wanted.copied for patient in patients], dtype=bool)
    rest = ~(called | other)
    if first.in_part is not None and rest.any():
        other[rest] = first.in_part.contain(pixels[rest])
    for image, array, value, patient, copy, out in zip(
        prepared.cohort.images, pixels, similarity, patients, called, other, strict=True
    ):
        content = _content(array)
        name = f"drawn/{place.name}/{image.image_id}"
        if copy:
            found.rejected[name] = DRAWN_COPY
        elif out or content in found.seen:
            found.rejected[name] = DRAWN_OTHER if out else DRAWN_AGAIN
        elif len(found.images) < wanted.number:
            found.seen.add(content)
            found.images[name] = image
            found.rows.append(Row(name, patient, float(value), copy=False, listed=False))
        else:
            found.rejected[name] = DRAWN_SURPLUS


def _content(prepared: NDArray[np.floating]) -> str:
    return hashlib.sha256(np.ascontiguousarray(prepared).tobytes()).hexdigest()


def _alike(cohort: Cohort, place: Path, wanted: Wanted, found: Drawn) -> Cohort:
    """Without images of another size or number of channels than the audited ones: who gets the release would see which
    were drawn later."""
    reasons = {item.image_id: item.reason for item in cohort.skipped}
    kept = []
    for position, image in enumerate(cohort.images):
        try:
            shape = read_image(image).array.shape
        except UnusableImageError as error:
            reasons[image.image_id] = error.reason
            continue
        if wanted.shapes and shape not in wanted.shapes:
            whole = " or ".join(shown(one) for one in sorted(wanted.shapes)[:MOST_REASONS])
            reasons[image.image_id] = f"of the size {shown(shape)}, where the audited images have {whole}"
            continue
        kept.append(position)
    _leave_out(found, place, reasons)
    return replace(cohort.subset(kept), skipped=())


def _leave_out(found: Drawn, place: Path, reasons: Mapping[str, str]) -> None:
    found.rejected |= {f"drawn/{place.name}/{name}": reason for name, reason in reasons.items()}


def shapes_of(images: Sequence[CohortImage], progress: bool = True) -> frozenset[Shape]:
    """``(channels, *spatial)`` of images, those that cannot be read left out."""
    found: set[Shape] = set()
    with Progress(len(images), "compare sizes", shown=progress) as bar:
        for image in images:
            with suppress(UnusableImageError):
                found.add(tuple(read_image(image).array.shape))
            bar.update(1)
    return frozenset(found)
