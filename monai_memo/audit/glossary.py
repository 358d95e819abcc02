# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The words of this library with the words of the field. Report and documentation take them from here.

``python -m monai_memo.audit.glossary FILE`` writes the page of the documentation; a test compares the file with it.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from monai_memo.audit.result import AuditResult
from monai_memo.files import write_text

HEAD = """# Glossary

Our word, the words that papers use for it, and what is meant. The report of an audit has the first part of this
list, with the numbers of that audit.

<!-- Made by python -m monai_memo.audit.glossary docs/glossary.md: change the words there. -->

"""
BETWEEN = """
Words of the documentation and of the interface for Python:

"""


@dataclass(frozen=True)
class Term:
    """One word.

    Attributes:
        name: our word; ``N_copies`` stands for a letter with an index.
        text: what it means.
        field: what papers call it, if they call it otherwise.
    """

    name: str
    text: str
    field: str = ""


def report_terms(result: AuditResult | None = None) -> list[Term]:
    """What a report explains: in the words of this audit, or of audits in general."""
    return [
        Term("training images", "The images that the generator was trained on, as listed for this audit.", "members"),
        Term(
            "held-out images",
            "Real images of other patients from the same source, which the generator never saw: unseen patients, the "
            "yardstick of everything here.",
            "non-members, holdout or test set",
        ),
        Term(
            "synthetic images",
            "The images that are to be shared: drawn from the generator.",
            "samples, generated images",
        ),
        Term(
            "similarity",
            f"Of two images, {_similarity(result)}: 1 is identical, 0 unrelated.",
            "correlation; as a distance: 1 - similarity",
        ),
        Term("threshold tau", _tau(result), "decision threshold, calibrated on non-members"),
        Term("copy", "A synthetic image above tau.", "memorized, replicated, regurgitated or leaked sample"),
        Term("N_copies", "Copies among the synthetic images.", "number of replicas; as a rate: replication rate"),
        Term("memorized image", "A training image that some synthetic image copies.", "extracted training image"),
        Term(
            "N_mem",
            "Memorized training images. It grows with the number of synthetic images.",
            "number of memorized samples",
        ),
        Term(
            "control",
            "What the audit reports where nothing can have been copied: held-out images stand in for synthetic ones.",
            "negative control; its rate is the false positive rate",
        ),
        Term("excess", "A rate minus that of its control: what chance does not explain.", "rate above baseline"),
        Term(
            "interval",
            f"In brackets: where {_confidence(result)} of such audits, with other patients and other images of the "
            "same generator, would have the number.",
            "confidence interval (bootstrap over patients)",
        ),
        Term(
            "p-value",
            "Of one image: the share of unseen patients that come as close to a training image.",
            "conformal p-value",
        ),
        Term(
            "list of copies",
            f"Images with p-values so small that at most {_fdr(result)} of the list are expected to be no copies.",
            "rejections at a false discovery rate (Benjamini-Hochberg)",
        ),
        Term(
            "same image, same layout",
            "A copy that agrees place by place, fine detail included; or as a whole only, with other detail.",
            "exact and near duplicate; the second also template or structural copy",
        ),
        Term(
            "copy in part",
            "A region of a training image in an image that is no copy as a whole.",
            "partial or local memorization",
        ),
        Term("look-alike", _look_alike(result), "false positive of the nearest-neighbour test"),
        Term(
            "planted copy",
            "A training image altered on purpose and looked up like a synthetic one.",
            "positive control, canary",
        ),
        Term(
            "limit of detection",
            "The strength of a change from which on planted copies are missed.",
            "sensitivity as a function of corruption severity",
        ),
        Term(
            "detector",
            "The network that finds candidates: it gives each image a vector (embedding) that stays the same when the "
            "image is altered a little.",
            "copy detection network; encoder, feature extractor",
        ),
        Term(
            "pair", "A synthetic image and its nearest training image. Its number is its row in matches.csv.", "match"
        ),
    ]


def further_terms() -> list[Term]:
    """Words that stand in the documentation only."""
    return [
        Term(
            "cohort",
            "Images of one kind (training, held-out, synthetic), with patients where they are known.",
            "data set, split",
        ),
        Term(
            "gallery",
            "The images among which others are looked up.",
            "reference set, database, index",
        ),
        Term(
            "query",
            "An image that is looked up in a gallery.",
            "probe",
        ),
        Term(
            "candidates",
            "Training images that a quick search proposes for a query, before they are aligned with it.",
            "retrieved neighbours",
        ),
        Term(
            "verification",
            "Candidates are aligned with the query and compared place by place, and as a whole.",
            "re-ranking, geometric verification",
        ),
        Term(
            "registration",
            "Finding the turn, shift, size and mirroring that lay one image over another.",
            "affine alignment",
        ),
        Term(
            "view",
            "A randomly altered version of an image on which the detector is trained. The views decide what "
            "counts as the same image.",
            "augmentation",
        ),
        Term(
            "reference control",
            "The synthetic images looked up among training and held-out patients together. Without copying, both "
            "are found in proportion to their numbers.",
            "two-sample test on nearest neighbours; target-decoy competition",
        ),
        Term(
            "matched sharpness",
            "Held-out images are blurred as much as the synthetic ones are before the threshold is set.",
            "spectrum matching",
        ),
        Term(
            "size-matched calibration",
            "Synthetic and held-out images are compared with equally many training images.",
            "matched number of comparisons",
        ),
        Term(
            "limit on the copies left",
            "After a release: at most so many copies are among the images, with 95 % confidence.",
            "upper confidence bound on missed detections",
        ),
        Term(
            "second look",
            "Another detector looks for copies that the first one missed.",
            "independent verification",
        ),
        Term(
            "review, rater",
            "People look at pairs without knowing the similarity; a rater is one of them.",
            "reader study, reader",
        ),
        Term(
            "twins",
            "Two generators, each trained on one half of the patients.",
            "shadow models; split-half control",
        ),
    ]


def _similarity(result: AuditResult | None) -> str:
    aligned = "their correlation in the places that agree best once they are aligned, or one on its scale"
    embedded = "the correlation of their embeddings"
    if result is None:
        return f"{aligned}; without verification {embedded}"
    return aligned if result.verification else embedded


def _tau(result: AuditResult | None) -> str:
    quantile = 95.0 if result is None else 100 * result.calibration["quantile"]
    below = "held-out images stay below"
    if result is not None and result.calibration["mode"] != "size_matched":
        below = "training images stay below when compared with held-out ones"
    return f"The similarity to the nearest training image that {quantile:g} % of {below}."


def _look_alike(result: AuditResult | None) -> str:
    text = "A synthetic image that is as close to a training patient as it is to unseen ones"
    with_reference = result is None or result.reference
    return f"{text}; the reference control tells how many there are." if with_reference else f"{text}."


def _confidence(result: AuditResult | None) -> str:
    return f"{100 * (0.95 if result is None else result.calibration['confidence']):g} %"


def _fdr(result: AuditResult | None) -> str:
    return f"{100 * (result.discoveries['fdr'] if result is not None and result.discoveries else 0.05):g} %"


def glossary_page() -> str:
    """The page of the documentation, in Markdown."""

    def table(terms: list[Term]) -> str:
        rows = [f"| {term.name} | {term.field or 'the same'} | {term.text} |" for term in terms]
        return "\n".join(["| our word | in the field | what it means |", "| --- | --- | --- |", *rows]) + "\n"

    return HEAD + table(report_terms()) + BETWEEN + table(further_terms())


if __name__ == "__main__":
    write_text(sys.argv[1], glossary_page())
