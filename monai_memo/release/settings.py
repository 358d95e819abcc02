# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Every argument of ``monai-memo release``."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import model_validator

from monai_memo.settings import (
    Boolean,
    Choice,
    Device,
    Epochs,
    File,
    Folder,
    Seed,
    Settings,
    Share,
    Source,
    Title,
    Whole,
    Workers,
    require,
)

RULES = ("tau", "list", "bound")


class ReleaseSettings(Settings):
    """From an audit to a folder that can be given away, without the copies that were found.

    The released images are audited again by a second detector. The key to them lies beside the folder, in OUT.private.

    Attributes:
        audit: output folder of a finished audit (not a redacted one). A review in it counts.
        out: folder to give away; empty or new. What may not be given away goes to ``<out>.private``.
        rule: what is removed. ``"tau"``: every image above the audit's threshold (column copy of matches.csv);
            ``"list"``: fewer, only those that the audit lists as copies nearly for sure (column listed), so that copies
            above the threshold can stay; ``"bound"``: more, with a lower threshold, until at most ``at_most`` copies
            can be left.
        at_most: for the rule bound: copies left per released image, at most.
        parts: remove copies in part too (column in_part of partial.csv).
        neighbourhoods: for the careful: once an image is removed as a copy of a patient, remove every other image that
            resembles this patient more than any other too, also after the second look.
        keep_novel: keep images that every rater who decided calls novel, although the rule would remove them. What a
            rater calls a copy, or the same patient, is always removed.
        second_look: audit what is to be released by a second detector that took no part so far.
        second_detector: its file; by default one is trained with another seed and other views.
        remove_second: remove what the second detector calls a copy, and look once more.
        second_epochs: of the second detector's training; by default as many as the audit's.
        planted: training images that are altered and looked up as a test: the share that is found says how many copies
            can have been missed. With more of them the bound gets lower, and it takes longer.
        top_up_to: draw further images from the generator until so many are released; each is looked up like the others
            before it enters.
        generator: for ``top_up_to``: folder of a generator bundle, of one of the model zoo, or of a pipeline of
            diffusers.
        most_draws: for ``top_up_to``: images that are drawn at most; by default ten for each that is missing.
        train, heldout, synthetic: where the cohorts are, if not where the audit's record says.
        title: name of the data set.
        weights: file of the diffusion model that drew the images, if it was trained with differential privacy:
            RELEASE.md and the card then say what that guarantees.
        seed: of the second detector and its look, and of draws; by default that of the audit plus one.
        device: ``"auto"`` (a GPU if there is one), ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ...
        workers: threads that read images; one per core by default.
        progress: show how far it is.
    """

    audit: Folder
    out: Folder
    rule: Annotated[str, Choice(*RULES)] = "tau"
    at_most: Share | None = None
    parts: Boolean = True
    neighbourhoods: Boolean = False
    keep_novel: Boolean = False
    second_look: Boolean = True
    second_detector: File | None = None
    remove_second: Boolean = True
    second_epochs: Epochs | None = None
    planted: Annotated[int, Whole(20, 10_000)] = 200
    top_up_to: Annotated[int, Whole(1, 1_000_000)] | None = None
    generator: Folder | None = None
    most_draws: Annotated[int, Whole(1, 10_000_000)] | None = None
    train: Source | None = None
    heldout: Source | None = None
    synthetic: Source | None = None
    title: Title | None = None
    weights: File | None = None
    seed: Seed | None = None
    device: Device = "auto"
    workers: Workers | None = None
    progress: Boolean = True

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        require(
            (self.rule == "bound") == (self.at_most is not None),
            "rule bound and at_most belong together: name both, for example --rule bound --at_most 0.02",
        )
        require(
            self.second_look or self.second_detector is None,
            "second_detector is of no use without the second look: leave second_look on, or second_detector off",
        )
        require(
            self.second_detector is None or self.second_epochs is None,
            "second_epochs is for training a second detector, and second_detector brings one along: leave one off",
        )
        require(
            self.generator is None or self.top_up_to is not None,
            "generator is for top_up_to: name that as well, or leave generator off",
        )
        require(
            self.most_draws is None or self.top_up_to is not None,
            "most_draws limits top_up_to: name that as well, or leave most_draws off",
        )
        return self
