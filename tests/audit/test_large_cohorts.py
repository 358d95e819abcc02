# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""No step of an audit before the search reads a cohort as a whole: it may be larger than the memory."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from monai_memo.audit.audit import Audit
from monai_memo.audit.contact_sheet import contact_sheet
from monai_memo.audit.record import _sample
from monai_memo.audit.self_check import positive_control
from monai_memo.audit.sharpness import Softening, match_sharpness, partly_soft_warning
from monai_memo.data.cohort import Cohort, CohortImage
from monai_memo.data.intensity_check import find_negatives
from monai_memo.data.orientation_check import compare_orientation
from monai_memo.data.phantoms import chest_phantom
from monai_memo.data.prepared import PreparedCohort
from monai_memo.detector.detector import Detector
from monai_memo.files import BYTES_AT_ONCE, release, rows_at_once
from monai_memo.sealing import array_sha256
from monai_memo.training.batches import PixelDataset
from tests.audit.small import settings, untrained, write_cohorts

N = 6000
SMALL = np.stack([chest_phantom(number, (32, 32)) for number in range(100)]).astype(np.float16)


class Guarded:
    """Images that are only given out some at a time.

    Attributes:
        most: images in one piece.
        read: images given out so far.
    """

    ndim = 4

    def __init__(self, n: int, most: int, images: NDArray[np.float16] = SMALL) -> None:
        self.n, self.most, self.images, self.read = n, most, images, 0
        self.dtype, self.shape = images.dtype, (n, *images.shape[1:])

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, key: Any) -> NDArray[np.float16]:
        places = np.arange(self.n)[key]
        assert places.size <= self.most, f"{places.size} images were asked for in one piece"
        self.read += places.size
        return self.images[places % len(self.images)]

    def __array__(self, *_: Any, **__: Any) -> NDArray[np.float16]:
        raise AssertionError("all images were asked for in one piece")


def guarded(n: int = N, most: int = 256, images: NDArray[np.float16] = SMALL) -> tuple[Guarded, NDArray[np.float16]]:
    found = Guarded(n, most, images)
    return found, cast("NDArray[np.float16]", found)


def cohort(name: str, pixels: NDArray[np.float16]) -> PreparedCohort:
    images = tuple(CohortImage(Path(f"{i}.png"), f"{i}.png", f"p{i}") for i in range(len(pixels)))
    return PreparedCohort(Cohort(name, images, name, True), pixels, (), (), "0" * 64)


def test_a_cohort_that_is_guarded_cannot_be_read_as_a_whole() -> None:
    _, pixels = guarded()
    for step in (lambda: np.asarray(pixels), lambda: pixels[:], lambda: pixels[np.ones(N, bool)], lambda: pixels[:257]):
        with pytest.raises(AssertionError, match="in one piece"):
            step()
    assert len(pixels[:256]) == 256


@pytest.mark.parametrize("step", ["orientation", "negatives", "contact sheet", "sharpness"])
def test_comparisons_of_cohorts_look_at_samples(step: str) -> None:
    (training, pixels), (synthetic, others) = guarded(), guarded()
    if step == "orientation":
        assert compare_orientation(cohort("training", pixels), cohort("synthetic", others)).status == "same"
    elif step == "negatives":
        assert find_negatives(("training", "synthetic"), pixels, others) is None
    elif step == "contact sheet":
        sheet = contact_sheet({"training": cohort("training", pixels), "synthetic": cohort("synthetic", others)})
        assert [column.n_images for column in sheet] == [N, N]
    else:
        assert match_sharpness(others, pixels) is None and partly_soft_warning(others, pixels) == []
    assert 0 < training.read < N and 0 < synthetic.read < N


def test_the_positive_control_reads_the_images_that_it_copies() -> None:
    training, pixels = guarded()
    found = positive_control(lambda images: np.ones(len(images)), pixels, 0.5, 40, seed=0)
    assert found is not None and found["planted"] == training.read == 40


def test_large_images_are_compared_in_smaller_pieces() -> None:
    large = np.repeat(np.repeat(SMALL[:12], 16, axis=2), 16, axis=3)  # 512 x 512
    _, pixels = guarded(80, rows_at_once((1, 512, 512)), large)
    assert rows_at_once((1, 512, 512)) * 512 * 512 * 4 <= BYTES_AT_ONCE
    assert compare_orientation(cohort("training", pixels), cohort("synthetic", pixels)).status in (
        "same",
        "cannot_tell",
    )
    assert len(array_sha256(pixels)) == 64


def test_the_hash_of_an_array_does_not_depend_on_the_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    _, pixels = guarded(100)
    whole = array_sha256(SMALL)
    monkeypatch.setattr("monai_memo.files.AT_ONCE", 7)
    assert array_sha256(pixels) == whole


def test_softened_cohorts_are_written_in_pieces_and_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("monai_memo.files.AT_ONCE", 16)
    softening = Softening(np.array([0.2]), np.linspace(1, 0.2, 2 * 46).reshape(2, 46), 0.1, 0.2)
    _, pixels = guarded(100, most=16)
    kept = softening.cohort(cohort("heldout", pixels), tmp_path)
    in_memory = softening.cohort(cohort("heldout", SMALL))
    assert kept.content_sha256 == in_memory.content_sha256
    assert isinstance(kept.pixels, np.memmap) and kept.pixels.dtype == np.float16
    np.testing.assert_array_equal(kept.pixels, in_memory.pixels)
    assert not np.array_equal(kept.pixels, SMALL)


def test_embedding_and_training_read_batches(detector_file: Path, tmp_path: Path) -> None:
    detector = Detector.load(detector_file)
    training, pixels = guarded(300, most=256)
    found = detector.embed(pixels, batch_size=50, progress=False, store=tmp_path / "store.npy")
    np.testing.assert_array_equal(found[:100], detector.embed(SMALL, batch_size=50, progress=False))
    assert training.read == 2 * 300  # once for the fingerprint of the file that keeps them
    training.most = 1
    assert PixelDataset(pixels)[150]["image"].shape == (1, 32, 32)


def test_what_is_written_does_not_list_the_training_images(tmp_path: Path) -> None:
    detector = untrained(tmp_path / "detector.pt")
    written = []
    for number in (20, 90):
        root = write_cohorts(tmp_path / str(number), train=number)
        Audit(**settings(root, tmp_path / f"out{number}", detector)).run()
        record = json.loads((tmp_path / f"out{number}" / "audit.json").read_text())
        assert record.pop("n_train") == number
        for name in ("distributions", "timing"):  # at most 5,000 numbers of each kind
            record.pop(name)
        texts = [json.dumps(record)] + [
            (tmp_path / f"out{number}" / name).read_text() for name in ("matches.csv", "report.html")
        ]
        named = set(re.findall(r"train\d{2,}\.png", " ".join(texts)))
        assert 1 <= len(named) <= record["n_synthetic"] == 8
        written.append(texts)
    assert abs(len(written[1][0]) - len(written[0][0])) < 500
    assert written[0][1].count("\n") == written[1][1].count("\n") == 9


def test_distributions_in_the_record_are_samples() -> None:
    values = np.random.default_rng(0).random(100_000)
    kept = _sample(values)
    assert len(kept) == 5000 and kept[0] == round(values.min(), 6) and kept[-1] == round(values.max(), 6)
    assert kept[2500] == pytest.approx(np.median(values), abs=1e-3)


def mapped() -> int:
    """Bytes of mapped files that count as memory of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssFile"))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells how much is mapped")
def test_pages_of_a_mapped_cohort_are_let_go(tmp_path: Path) -> None:
    path = tmp_path / "training.f16"
    np.resize(SMALL, (8192, 1, 64, 64)).tofile(path)  # 64 MB
    pixels = np.memmap(path, dtype=np.float16, mode="r", shape=(8192, 1, 64, 64))
    before = mapped()
    array_sha256(pixels)
    assert mapped() - before < 16e6
    assert float(pixels.max()) <= 1 and mapped() - before > 60e6  # read again, and all of it at once
    own = np.memmap(path, dtype=np.float16, mode="c", shape=pixels.shape)
    own[0] = 0.5
    release(own)
    assert (own[0] == 0.5).all()
