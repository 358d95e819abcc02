# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""MONAI Label's local datastore, made for a blind reader study: nothing is lost, and nothing is given away."""

from __future__ import annotations

import logging
import os
from contextlib import nullcontext
from typing import Any

from fastapi import HTTPException
from filelock import FileLock
from monailabel.datastore.local import DataModel, LocalDatastore
from monailabel.interfaces.datastore import DefaultLabelTag

from monai_memo.errors import ConfigurationError
from monai_memo.files import write_json
from monai_memo.label.audit_folder import AuditFolder
from monai_memo.label.desk import DAMAGED
from monai_memo.label.pairs import ENDING
from monai_memo.label.prepare import DATASTORE
from monai_memo.label.ratings import DamagedRatingsError, Entry, RatedMeanwhileError
from monai_memo.label.store import RatingStore, UnknownPairError
from monai_memo.label.study import Study

logger = logging.getLogger(__name__)

FINAL_TAG, ORIGINAL_TAG = DefaultLabelTag.FINAL.value, DefaultLabelTag.ORIGINAL.value
OPEN_INFO = ("ts", "name")  # what raters may know about a pair or label


class ReviewDatastore(LocalDatastore):
    """Pairs of a review as images, ratings as their labels with the tag ``final``.

    A label is a list of ratings, to which saving adds one; see ``RatingStore``. The set of pairs does not
    change: adding and removing images or labels is refused. No answer holds a path.

    Args:
        audit: the audit's folder.
        study: plan of its review.
        blind: answer without similarities, certainties, and ratings of others.
    """

    def __init__(self, audit: AuditFolder, study: Study, blind: bool = True) -> None:
        self.study, self.blind = study, blind
        self.folder = audit.review / DATASTORE
        self.store = RatingStore(audit.review, study, float(audit.result.calibration["confidence"]), self._rated)
        self.ending = ENDING[study.spatial_dims]
        super().__init__(str(self.folder), extensions=(f"*{self.ending}",), auto_reload=False)
        # A file that is no pair of the study is not served, whoever put it there.
        for image_id in [name for name in self._datastore.objects if name not in study.by_id]:
            del self._datastore.objects[image_id]
        self._datastore.name, self._datastore.description = "review", "pairs of synthetic and training images"
        self._datastore.objects = dict(sorted(self._datastore.objects.items()))
        self._update_datastore_file()

    # Ratings

    def history(self) -> dict[str, list[Entry]]:
        """Entries of each pair."""
        return self.store.history()

    def rate(self, pair_id: str, params: dict[str, Any]) -> None:
        """Add one rating, or an undo.

        Raises:
            HTTPException: 404 for a pair that is not served, 400 for a rating that cannot be, 409 for one that would
                replace another, 500 where the file of ratings is damaged.
        """
        try:
            self.store.rate(pair_id, params)
        except UnknownPairError as error:
            raise HTTPException(404, str(error)) from error
        except RatedMeanwhileError as error:
            raise HTTPException(409, str(error)) from error
        except ConfigurationError as error:
            raise HTTPException(400, str(error)) from error
        except DamagedRatingsError as error:
            logger.error("%s", error)
            raise HTTPException(500, DAMAGED) from error

    def _rated(self, pair_id: str) -> None:
        """Let MONAI Label know of a rating."""
        with FileLock(self._lock_file):
            self._mirror(pair_id, self.store.entries(pair_id))
            self._update_datastore_file(lock=False)

    def _mirror(self, pair_id: str, entries: list[Entry]) -> None:
        """MONAI Label's own list of labels follows the files."""
        image = self._datastore.objects.get(pair_id)
        if image is None or not entries:
            return
        ratings = [vars(entry) for entry in entries]
        info = {"name": f"{pair_id}.json", "ts": entries[-1].time, "ratings": ratings}
        image.labels[FINAL_TAG] = DataModel(ext=".json", info=info)

    # What MONAI Label asks for

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        """A rating (tag ``final``: ``rating`` and ``rater`` in the parameters), or a result of an infer task."""
        tag = getattr(label_tag, "value", label_tag)
        if tag == FINAL_TAG:
            self.rate(image_id, label_info or {})
            return image_id
        if tag == ORIGINAL_TAG and "model" in (label_info or {}) and image_id in self._datastore.objects:
            return str(super().save_label(image_id, label_filename, tag, {"model": label_info["model"]}))
        raise HTTPException(400, f"the tag of a rating is {FINAL_TAG!r}")

    def get_image_info(self, image_id: str) -> dict[str, Any]:
        return self._open(super().get_image_info(image_id))

    def get_label_info(self, label_id: str, label_tag: str) -> dict[str, Any]:
        return self._open(super().get_label_info(label_id, label_tag))

    def get_label_uri(self, label_id: str, label_tag: str) -> str:
        if self.blind and getattr(label_tag, "value", label_tag) == FINAL_TAG:
            return ""
        return str(super().get_label_uri(label_id, label_tag))

    def datalist(self, full_path: bool = True) -> list[dict[str, Any]]:
        return [
            {key: os.path.basename(path) for key, path in item.items()} for item in super().datalist(full_path=True)
        ]

    def json(self) -> dict[str, Any]:
        record: dict[str, Any] = super().json()
        for item in record["objects"].values():
            for part in (item["image"], *item["labels"].values()):
                part["info"] = self._open(part["info"])
        return {key: record[key] for key in ("name", "description", "objects")}

    def _open(self, info: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in info.items() if (key in OPEN_INFO if self.blind else key != "path")}

    def update_image_info(self, image_id: str, info: dict[str, Any]) -> None:
        self._init_from_datastore_file()  # a scoring process may have written meanwhile
        super().update_image_info(image_id, info)

    def set_scores(self, scores: dict[str, dict[str, float]]) -> None:
        """Write the scores of many pairs at once."""
        self._init_from_datastore_file()
        for image_id, values in scores.items():
            if image_id in self._datastore.objects:
                self._datastore.objects[image_id].image.info.update(values)
        self._update_datastore_file()

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        raise HTTPException(403, "the pairs of a review do not change")

    def remove_image(self, image_id: str) -> None:
        raise HTTPException(403, "the pairs of a review do not change")

    def remove_label(self, label_id: str, label_tag: str) -> None:
        raise HTTPException(403, "ratings are not removed; send the rating 'undo'")

    def update_label_info(self, label_id: str, label_tag: str, info: dict[str, Any]) -> None:
        raise HTTPException(403, "ratings are not changed; send another one")

    def get_dataset_archive(self, limit_cases: int | None) -> str:
        raise HTTPException(403, "the data set is not handed out")

    def _init_from_datastore_file(self, throw_exception: bool = False) -> None:
        """As MONAI Label's; whatever another process wrote, the ratings are those of the files."""
        before = self._datastore
        super()._init_from_datastore_file(throw_exception)
        if self._datastore is not before:
            for pair_id, entries in self.history().items():
                self._mirror(pair_id, entries)

    def _update_datastore_file(self, lock: bool = True) -> None:
        """As MONAI Label's, but atomic: a kill leaves the old file or the new one."""
        with FileLock(self._lock_file) if lock else nullcontext():
            write_json(self._datastore_config_path, self._datastore.model_dump(mode="json", exclude={"base_path"}))
            self._config_ts = os.stat(self._datastore_config_path).st_mtime
