# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Every argument of ``monai-memo review-prepare``, ``review-server``, ``review-export`` and ``review``."""

from __future__ import annotations

import re
from typing import Annotated, Self

from pydantic import model_validator

from monai_memo.settings import Amount, Boolean, File, Folder, Quantity, Seed, Settings, Source, Text, Whole, require

HOST = re.compile(r"[A-Za-z0-9._:%-]+")


class ReviewPrepareSettings(Settings):
    """Draw the pairs of a review and write their pictures to ``AUDIT/review``.

    Attributes:
        audit: output folder of a finished audit.
        n: pairs of the sample; all synthetic images if there are fewer.
        n_uncertain: further pairs, those closest to the threshold; they do not enter the estimates.
        seed: of the draw and of the order in which each rater sees the pairs.
        train, synthetic: where the cohorts are, if not where the audit's record says.
        restart: set an earlier review aside (``review.old``, ``review.old.2``, ...), ratings included.
        progress: show a progress bar.
    """

    audit: Folder
    n: Quantity = 100
    n_uncertain: Amount = 20
    seed: Seed = 0
    train: Source | None = None
    synthetic: Source | None = None
    restart: Boolean = False
    progress: Boolean = True


class ReviewServerSettings(Settings):
    """Serve the pairs of an audit to raters, and do not return.

    Attributes:
        audit: output folder of an audit. A review with default settings is prepared if none has been.
        host: address to listen on.
        port: to listen on.
        remote: answer other machines too. There is no login: whoever reaches the port sees patient images.
        hosts: with ``remote``, names by which raters reach this machine (``review.hospital.example``), with commas
            between. Its address works without. Any other name is refused, so that no web site can point one here.
        blind: answer without similarities and without the ratings of others.
        monai_label: serve with MONAI Label, whose clients can then take part; it has to be installed.
        generator: with ``monai_label``, folder of a generator bundle, for the infer task ``sample``.
        train, synthetic: where the cohorts are, if not where the audit's record says.
    """

    audit: Folder
    host: Annotated[str, Text(255)] = "127.0.0.1"
    port: Annotated[int, Whole(1, 65_535)] = 8000
    remote: Boolean = False
    hosts: Annotated[str, Text(2000)] | None = None
    blind: Boolean = True
    monai_label: Boolean = False
    generator: Folder | None = None
    train: Source | None = None
    synthetic: Source | None = None

    @model_validator(mode="after")
    def _an_address(self) -> Self:
        require(HOST.fullmatch(self.host) is not None, f"host must be a name or an address, got {self.host!r}")
        require(
            self.monai_label or self.generator is None,
            "generator is for an infer task of MONAI Label: add --monai_label, or leave it out",
        )
        return self


class ReviewExportSettings(Settings):
    """Write the ratings of a review as a table (CSV), one row for each rating that counts.

    Attributes:
        audit: output folder of an audit whose pairs have been rated.
        out: the table. An earlier table of ratings is replaced, nothing else.
        redacted: number raters and pairs, and name no images.
    """

    audit: Folder
    out: File = "ratings.csv"
    redacted: Boolean = False


class ReviewSettings(Settings):
    """Evaluate the ratings of a review: ``AUDIT/review.json``, and a chapter in ``AUDIT/report.html``.

    Attributes:
        audit: output folder of an audit whose pairs have been rated.
        redacted: number the raters and name no images; always so if the audit's report is redacted.
    """

    audit: Folder
    redacted: Boolean = False
