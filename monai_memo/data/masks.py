# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Masks that lie beside images: read as images, they would be training images that no patient has."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from monai_memo.data.formats import ending_of
from monai_memo.errors import CohortError

WORDS = "seg|segm|segs|segmentation|segmentations|mask|masks|label|labels|labelmap|roi|gt|ground_?truth|annotation|dseg"
MASK_FILE = re.compile(rf"(?:(?P<stem>.*)[-_. ])?(?:{WORDS})(?:[-_. ]?(?P<number>\d{{1,5}}))?", re.IGNORECASE)
NUMBERED_IMAGE = re.compile(r"(?:image|img|scan|slice|volume|input|x)[-_. ]?(\d{1,5})", re.IGNORECASE)
MASK_FOLDER = re.compile(rf"(?:labels?(tr|ts|val|va)|(?:.*[-_ ])?(?:{WORDS}|annotations))", re.IGNORECASE)
IMAGE_FOLDER = re.compile(r"images?(tr|ts|val|va)?|imgs?|scans?|volumes?|pictures?|data|raw", re.IGNORECASE)


def _stem(name: str) -> str:
    """Without folder, ending, and the number of a channel that nnU-Net puts behind (``case_0000``)."""
    name = name.rpartition("/")[2]
    stem = name[: len(name) - len(ending_of(name))]
    return re.sub(r"_0\d{3}$", "", stem).lower()


def _mask_folders(ids: Iterable[str]) -> tuple[str, str, int] | None:
    """A folder of images, the folder of their masks beside it, and how many masks lie there; None if there are none.

    Folders are told by their names; where the other is not called "images" or the like, its files have to bear the
    names of the masks.
    """
    inside: dict[str, set[str]] = defaultdict(set)  # folder -> stems below it
    children: dict[str, set[str]] = defaultdict(set)
    direct: dict[str, set[str]] = defaultdict(set)  # folder -> stems right in it
    for image_id in ids:
        stem = _stem(image_id)
        parts = image_id.split("/")[:-1]
        direct["/".join(parts)].add(stem)
        for depth in range(len(parts)):
            parent, child = "/".join(parts[:depth]), "/".join(parts[: depth + 1])
            children[parent].add(child)
            inside[child].add(stem)
    for parent, folders in sorted(children.items()):
        masks = [folder for folder in sorted(folders) if MASK_FOLDER.fullmatch(folder.rpartition("/")[2])]
        for mask in masks:
            for other in sorted(folders - set(masks)):
                if IMAGE_FOLDER.fullmatch(other.rpartition("/")[2]) or _mostly(inside[mask], inside[other]):
                    return other, mask, len(inside[mask])
            if _mostly(inside[mask], direct[parent]):
                return parent, mask, len(inside[mask])
    return None


def _mostly(masks: set[str], images: set[str]) -> bool:
    """Whether at least half of the masks have an image of the same name, but for what says that they are masks."""
    bare = {found["stem"] if (found := MASK_FILE.fullmatch(stem)) and found["stem"] else stem for stem in masks}
    return 2 * len(bare & images) >= len(bare)


def _mask_files(ids: Iterable[str]) -> tuple[list[str], int, int]:
    """Masks of other files in the same folder, by their names; how many images have one; how many there are."""
    by_folder: dict[str, list[str]] = defaultdict(list)
    for image_id in ids:
        by_folder[image_id.rpartition("/")[0]].append(image_id)
    masks: list[str] = []
    covered = total = 0
    for names in by_folder.values():
        plain: dict[str, set[str]] = {}  # stem of an image -> stems that its mask may have
        marked: dict[str, str] = {}
        for name in names:
            stem = _stem(name)
            match = MASK_FILE.fullmatch(stem)
            if match is None:
                # "x_t1" may have "x_t1_seg" or, as in BraTS, "x_seg"; "image_7" and "image" have "mask_7" and "mask".
                starts = {stem, *(stem[: found.start()] for found in re.finditer(r"[-_. ]", stem))}
                number = NUMBERED_IMAGE.fullmatch(stem)
                plain[name] = starts | {f"#{number[1]}" if number else "", ""}
            else:
                marked[name] = match["stem"] or (f"#{match['number']}" if match["number"] else "")
        wanted = set().union(*plain.values())
        masks += [name for name, stem in marked.items() if stem in wanted]
        given = set(marked.values())
        covered += sum(1 for stems in plain.values() if stems & given)
        total += len(plain)
    return masks, covered, total


def check_masks(folder: Path, name: str, ids: list[str]) -> list[str]:
    """Refuse a folder that holds images and their masks.

    Args:
        folder: as the user named it.
        name: of the cohort.
        ids: the images' paths in it.

    Returns:
        What a person has to see where it is no more than a suspicion, without names.

    Raises:
        CohortError: most images have a mask there; the message says what to name instead.
    """
    pair = _mask_folders(ids)
    if pair:
        images, masks = ((folder / part).as_posix() for part in pair[:2])
        if "/" in pair[0] or not pair[0]:  # masks in the folder of each patient, or below the images themselves
            remedy = "List the images alone in a CSV (column image)"
        else:
            remedy = f"Name {images}"
            if (folder / "dataset.json").is_file():
                remedy += f", or the list {(folder / 'dataset.json').as_posix()}:training"
        raise CohortError(
            f"the {name} folder {folder} holds images ({images}) and {pair[2]} masks of them ({masks}): the masks "
            f"would be taken for images. {remedy}."
        )
    masks_beside, covered, total = _mask_files(ids)
    if covered and 2 * covered >= total:
        raise CohortError(
            f"the {name} folder {folder} holds {total} images and {len(masks_beside)} masks of them beside them, for "
            f"example {masks_beside[0]}: the masks would be taken for images. List the images alone in a CSV "
            "(column image)."
        )
    warnings = []
    if masks_beside:
        number = len(masks_beside)
        warnings.append(
            f"{number} image{'' if number == 1 else 's'} may be {'a mask' if number == 1 else 'masks'} of others by "
            f"{'its name' if number == 1 else 'their names'} and {'was' if number == 1 else 'were'} read as "
            f"{'an image' if number == 1 else 'images'}"
        )
    if MASK_FOLDER.fullmatch(folder.resolve().name):
        warnings.append("the folder's name says that it holds masks: they were read as images")
    tops = {image_id.partition("/")[0].lower() for image_id in ids if "/" in image_id}
    if {"imagestr", "imagests"} <= tops:
        warnings.append(
            "imagesTr and imagesTs were both read: the second holds the test images, of which a generator was probably "
            "not trained"
        )
    return warnings
