# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""What a review needs of a finished audit: its record, its matches, and where the images are."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from monai_memo.audit.configuration import recorded_readings
from monai_memo.audit.result import REMOVED, AuditResult, Match, matches_in
from monai_memo.data.cohort import Cohort, CohortImage
from monai_memo.data.loading import Preprocessing
from monai_memo.errors import CohortError, ConfigurationError, MemoError
from monai_memo.workspace.transaction import require_settled


@dataclass(frozen=True)
class AuditFolder:
    """The output folder of an audit.

    Attributes:
        folder: with ``audit.json`` and ``matches.csv``.
        train, synthetic: where the cohorts are, if not where the audit's record says.
    """

    folder: Path
    train: str | None = None
    synthetic: str | None = None

    def __post_init__(self) -> None:
        require_settled(self.folder)
        for name in ("audit.json", "matches.csv"):
            if not (self.folder / name).is_file():
                raise ConfigurationError(
                    f"{self.folder} has no {name}: name the output folder of a finished audit (its --out)"
                )

    @property
    def review(self) -> Path:
        """Folder of the review; everything that a review writes is there."""
        return self.folder / "review"

    @cached_property
    def result(self) -> AuditResult:
        """The audit's record, without its matches."""
        return AuditResult.from_json((self.folder / "audit.json").read_text(encoding="utf-8"))

    @cached_property
    def matches(self) -> list[Match]:
        """Every synthetic image with its nearest training image, most similar first."""
        rows = []
        try:
            for row in matches_in(self.folder):
                similarity, tau = float(row["similarity"]), float(row["tau"])
                rows.append(
                    Match(row["synthetic"], row["nearest_training"], "", similarity, tau, row["copy"] == "true")
                )
        except (KeyError, TypeError, ValueError) as error:
            raise MemoError(f"{self.folder / 'matches.csv'} is not the table of an audit: {error}") from error
        return rows

    @property
    def identity(self) -> str:
        """Hash of the matches: a review belongs to one audit and to no later one in the same folder."""
        return hashlib.sha256((self.folder / "matches.csv").read_bytes()).hexdigest()

    @property
    def preprocessing(self) -> Preprocessing:
        """As the detector saw the images."""
        record = {key: value for key, value in self.result.preprocessing.items() if key != "sentence"}
        return Preprocessing.from_dict(record)

    def require_named(self) -> None:
        """Refuse a redacted audit.

        Raises:
            ConfigurationError: its record names no images, and nothing of patients may be written beside it.
        """
        if self.result.redacted or self.result.configuration["train"] == REMOVED:
            raise ConfigurationError(
                f"{self.folder} was made with --redacted: it does not say which images form a pair. Run the audit "
                "again without --redacted and review that."
            )

    def cohort(self, name: str) -> Cohort:
        """The training or the synthetic cohort, read again.

        Raises:
            ConfigurationError: the audit was redacted, so that its record names no images.
            CohortError: the cohort is no longer there.
        """
        given = {"training": self.train, "synthetic": self.synthetic}[name]
        recorded = str(self.result.configuration["train" if name == "training" else "synthetic"])
        self.require_named()
        option = "--train" if name == "training" else "--synthetic"
        try:
            return Cohort.from_source(
                given or recorded, name, reading=recorded_readings(self.result.configuration)[name]
            )
        except CohortError as error:
            raise CohortError(
                f"{error} The audit's record names the {name} cohort as {recorded}; if it has moved, or if that is "
                f"relative to another folder, say where it is with {option}."
            ) from error

    def images(self, name: str) -> dict[str, CohortImage]:
        """Each image of a cohort by its id."""
        return {image.image_id: image for image in self.cohort(name).images}
