# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Which DICOM files of a folder form one image, and which are no part of any."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from monai_memo.data.dicom_files import SECONDARY_CAPTURE, SliceHeader, read_header
from monai_memo.data.dicom_stack import PARALLEL, along, arrange
from monai_memo.errors import UnusableImageError
from monai_memo.files import sha256_of

FEW = 0.2  # of the slices of a series: fewer than that are set aside and are no volume of their own
FAR = 3.0  # steps by which an odd slice lies apart from the others


@dataclass(frozen=True)
class DicomImage:
    """Files that form one image.

    Attributes:
        path: the file, or the folder of a volume.
        files: of a volume, first slice to last; a damaged file that may belong to it as well.
        suffix: what tells this volume from the others of its folder; empty where there is one.
        patient: PatientID; empty where no file gives it.
        series: SeriesInstanceUID; empty where no file gives it.
        damaged: the header cannot be read, so that nothing is known of it.
    """

    path: Path
    files: tuple[Path, ...] = ()
    suffix: str = ""
    patient: str = ""
    series: str = ""
    damaged: bool = False


@dataclass(frozen=True)
class DicomFound:
    """What DICOM files hold.

    Attributes:
        images: in the order of their paths.
        set_aside: files that are no part of an image, and why.
        notes: what else is worth telling, without names.
    """

    images: tuple[DicomImage, ...]
    set_aside: tuple[tuple[Path, str], ...] = ()
    notes: tuple[str, ...] = ()


@dataclass
class _Folder:
    """What is found in one folder while it is sorted."""

    volumes: list[list[SliceHeader]] = field(default_factory=list)
    singles: list[SliceHeader] = field(default_factory=list)
    damaged: list[Path] = field(default_factory=list)


def group_dicom(paths: Iterable[Path]) -> DicomFound:
    """Sort DICOM files into images.

    A series is one volume where its slices say where they lie. Files of several frames, and files that do not say
    where they lie, are images of their own.
    """
    aside: list[tuple[Path, str]] = []
    headers: list[SliceHeader] = []
    folders: dict[Path, _Folder] = defaultdict(_Folder)
    for path in paths:
        try:
            header = read_header(path)
        except UnusableImageError:  # named with its reason when it is read
            folders[path.parent].damaged.append(path)
            continue
        if header.no_image:
            aside.append((path, f"holds {header.no_image}, no image of the patient"))
        else:
            headers.append(header)
    headers, copies = _without_copies(headers)
    series, homes, spread = _series_of(headers)
    for header in headers:
        if header.frames > 1 or not header.is_slice:
            folders[header.path.parent].singles.append(header)
    for key, slices in series.items():
        volumes, singles, odd = _split(slices)
        folder = folders[homes.get(key, slices[0].path.parent)]
        folder.volumes += volumes
        folder.singles += singles
        aside += odd
    for parts in homes.values():  # damaged slices of folders that make up one volume belong to it
        for child in [item for item in folders if item.parent == parts and not folders[item].volumes]:
            if folders[child].damaged and any(header.path.parent == child for header in headers):
                folders[parts].damaged += folders[child].damaged
                folders[child].damaged = []
    aside += _by_catches(folders)
    images = [image for folder, found in folders.items() for image in _images(folder, found)]
    notes = []
    if copies:
        notes.append(f"{copies} DICOM file{'s are copies' if copies > 1 else ' is a copy'} of another and left out")
    if spread:
        notes.append(
            f"{spread} DICOM series lie in several folders without forming one volume: each folder counts by itself"
        )
    return DicomFound(
        tuple(sorted(images, key=lambda image: (image.path, image.suffix))), tuple(sorted(aside)), tuple(notes)
    )


def _without_copies(headers: Sequence[SliceHeader]) -> tuple[list[SliceHeader], int]:
    """Leave out files of one folder that hold the very same bytes under another name."""
    alike: dict[tuple[object, ...], list[SliceHeader]] = defaultdict(list)
    for header in headers:
        key = (header.path.parent, header.sop_uid, header.position) if header.sop_uid else (header.path,)
        alike[key].append(header)
    kept, copies = [], 0
    for group in alike.values():
        seen: set[str] = set()
        for header in group:
            content = sha256_of(header.path) if len(group) > 1 else ""
            if len(group) > 1 and content in seen and header.is_slice:
                copies += 1
                continue
            seen.add(content)
            kept.append(header)
    return kept, copies


Key = tuple[Path, str, str]


def _series_of(headers: Iterable[SliceHeader]) -> tuple[dict[Key, list[SliceHeader]], dict[Key, Path], int]:
    """Slices by folder, patient and series.

    Returns:
        The slices; the common folder of series that lie in several and are one volume together; the number of series
        in several folders that are not.
    """
    found: dict[Key, list[SliceHeader]] = defaultdict(list)
    for header in headers:
        if header.is_slice and header.frames == 1:
            found[header.path.parent, header.patient, header.series].append(header)
    folders: dict[tuple[str, str], list[Key]] = defaultdict(list)
    for key in found:
        if key[2]:
            folders[key[1:]].append(key)
    homes: dict[Key, Path] = {}
    spread = 0
    for keys in folders.values():
        if len(keys) < 2 or min(len(found[key]) for key in keys) < 2:
            continue  # single slices in folders of their own were picked by somebody
        uids = [header.sop_uid for key in keys for header in found[key]]
        if len(set(uids)) < len(uids):
            continue  # copies of a folder: images of their own, as files with the same content are
        together = [header for key in keys for header in found[key]]
        parents = {key[0].parent for key in keys}
        if len(parents) == 1 and _is_volume(together):
            first, *others = keys
            for key in others:
                found[first] += found.pop(key)
            homes[first] = parents.pop()
        else:
            spread += 1
    return found, homes, spread


def _is_volume(headers: Sequence[SliceHeader]) -> bool:
    try:
        arrange(headers)
    except UnusableImageError:
        return False
    return len(_clusters(headers)) == 1


def _alike(header: SliceHeader, other: SliceHeader) -> bool:
    return _difference(header, other) is None


def _difference(header: SliceHeader, other: SliceHeader) -> str | None:
    """Why a slice does not belong to the volume of another."""
    if header.is_localizer != other.is_localizer:
        return "a localizer" if header.is_localizer else "no localizer as the others of its series"
    if _apart_by(header.orientation, other.orientation) > PARALLEL:
        return "another orientation than the other slices of its series"
    if (header.rows, header.columns) != (other.rows, other.columns):
        return "another size than the other slices of its series"
    if header.is_derived != other.is_derived:
        return "a derived image beside original ones" if header.is_derived else "an original image beside derived ones"
    if header.colour != other.colour:
        return "in colour beside grey slices" if header.colour else "grey beside slices in colour"
    if _apart_by(header.spacing, other.spacing) > 0.01 * max(other.spacing or (1.0,)):
        return "another pixel spacing than the other slices of its series"
    return None


def _apart_by(values: Sequence[float] | None, others: Sequence[float] | None) -> float:
    """Largest difference; infinite where only one is given. Plain numbers: this is done for every slice."""
    if values is None or others is None:
        return 0.0 if values is others else float("inf")
    return max(abs(a - b) for a, b in zip(values, others, strict=True))


def _clusters(headers: Iterable[SliceHeader]) -> list[list[SliceHeader]]:
    clusters: list[list[SliceHeader]] = []
    for header in headers:
        for cluster in clusters:
            if _alike(header, cluster[0]):
                cluster.append(header)
                break
        else:
            clusters.append([header])
    # The volume that counts first: a localizer is none as long as there is another.
    return sorted(clusters, key=lambda cluster: (len(cluster) < 2, cluster[0].is_localizer, -len(cluster)))


def _split(
    headers: Sequence[SliceHeader],
) -> tuple[list[list[SliceHeader]], list[SliceHeader], list[tuple[Path, str]]]:
    """Sort the slices of one series.

    Returns:
        Volumes, slices that stand alone, and odd ones with the reason.
    """
    main, *others = _clusters(headers)
    if len(main) == 1:
        return [], list(headers), []
    if not main[0].series and (others or len(main) < 3 or not _is_volume(main)):
        return [], list(headers), []  # nothing says that they belong together
    odd: list[tuple[Path, str]] = []
    volumes = [main]
    for cluster in others:
        if len(cluster) < 3 or len(cluster) < FEW * len(main) or cluster[0].is_localizer:
            odd += [(header.path, f"{_difference(header, main[0])}") for header in cluster]
        else:
            volumes.append(cluster)
    kept = []
    for volume in volumes:
        apart = _apart(volume)
        if apart is not None:
            volume = [header for header in volume if header is not apart]
            odd.append((apart.path, "far from the other slices of its series"))
        order = np.argsort(along(volume), kind="stable")
        kept.append([volume[i] for i in order])
    return kept, [], odd


def _apart(volume: Sequence[SliceHeader]) -> SliceHeader | None:
    """A slice that lies far beyond one end and is none of the sequence: its number does not fit its place."""
    if len(volume) < 5:
        return None
    places = along(volume)
    order = np.argsort(places, kind="stable")
    steps = np.diff(places[order])
    step = float(np.median(steps))
    if step <= 0:
        return None
    for end, neighbour, distance in ((0, 1, steps[0]), (-1, -2, steps[-1])):
        if distance <= FAR * step:
            continue
        odd, last = volume[order[end]], volume[order[neighbour]]
        if odd.number is None or last.number is None:
            continue
        expected = distance / step
        if abs(abs(odd.number - last.number) - expected) > 0.25 * expected:
            return odd
    return None


def _by_catches(folders: Mapping[Path, _Folder]) -> list[tuple[Path, str]]:
    """Set aside what lies beside volumes and would make the cohort one of pictures: localizers, screenshots, ..."""
    aside: list[tuple[Path, str]] = []
    singles = [header for found in folders.values() for header in found.singles]
    volumes = [volume for found in folders.values() for volume in found.volumes if not volume[0].is_localizer]
    enhanced = [
        header.frames for header in singles if header.frames > 1 and header.enhanced and not header.is_localizer
    ]
    if not volumes and not enhanced:
        return aside
    slices = sum(map(len, volumes)) + sum(enhanced)
    captures = sum(1 for header in singles if header.sop_class.startswith(SECONDARY_CAPTURE))
    for found in folders.values():
        here = sum(len(volume) for volume in found.volumes if not volume[0].is_localizer)
        alone = sum(1 for header in found.singles if header.frames == 1)
        for volume in [volume for volume in found.volumes if volume[0].is_localizer]:
            aside += [(header.path, "a localizer") for header in volume]
            found.volumes.remove(volume)
        kept = []
        for header in found.singles:
            if header.is_localizer:
                aside.append((header.path, "a localizer"))
            elif header.frames > 1:
                kept.append(header)
            elif header.sop_class.startswith(SECONDARY_CAPTURE) and captures < slices:
                aside.append((header.path, "a screenshot (secondary capture) beside volumes"))
            elif alone < here:
                aside.append((header.path, "a single image beside the slices of a volume"))
            else:
                kept.append(header)
        found.singles = kept
    return aside


def _images(folder: Path, found: _Folder) -> list[DicomImage]:
    singles = [DicomImage(header.path, patient=header.patient, series=header.series) for header in found.singles]
    if not found.volumes:
        return [*singles, *(DicomImage(path, damaged=True) for path in found.damaged)]
    # A damaged file may be a slice of any volume beside it: none of them may silently lack it.
    damaged = tuple(sorted(found.damaged))
    names = _suffixes(folder, [volume[0].series for volume in found.volumes])
    return singles + [
        DicomImage(folder, (*(header.path for header in volume), *damaged), name, volume[0].patient, volume[0].series)
        for volume, name in zip(found.volumes, names, strict=True)
    ]


def _suffixes(folder: Path, series: Sequence[str]) -> list[str]:
    """Names of the volumes of one folder: the last parts of the series' UIDs that tell them apart."""
    if len(series) == 1:
        return [""]
    parts = {uid: re.sub(r"[^\w.-]", "_", uid or "series").split(".") for uid in series}
    tails: dict[str, str] = {}
    for length in range(1, max(map(len, parts.values())) + 1):
        tails = {uid: ".".join(part[-length:]) for uid, part in parts.items()}
        if len(set(tails.values())) == len(tails) and not any((folder / tail).exists() for tail in tails.values()):
            break
    repeated = Counter(series)
    seen: Counter[str] = Counter()
    names = []
    for uid in series:
        seen[uid] += 1
        names.append(f"{tails[uid]}-{seen[uid]}" if repeated[uid] > 1 else tails[uid])
    return names
