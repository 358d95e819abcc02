# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from monai_memo.data.phantoms import chest_phantom
from monai_memo.detector import detector as module
from monai_memo.detector.detector import Detector
from monai_memo.errors import DetectorError

PIXELS = np.stack([chest_phantom(i, (32, 32)) for i in range(50)])


def test_file_holds_everything_and_loads_weights_only(detector_file: Path, tmp_path: Path) -> None:
    record = torch.load(detector_file, weights_only=True)
    assert {"weights", "recipe", "preprocessing", "seed", "versions", "training_summary"} <= set(record)
    assert record["recipe"]["views"]["rotation"] == 15.0 and "torch" in record["versions"]
    detector = Detector.load(detector_file)
    again = Detector.load(detector.save(tmp_path / "again.pt"))
    assert again.sha256 == detector.sha256 and again.preprocessing == detector.preprocessing
    np.testing.assert_array_equal(again.embed(PIXELS, progress=False), detector.embed(PIXELS, progress=False))


def test_damaged_and_foreign_files_are_refused(detector_file: Path, tmp_path: Path) -> None:
    with pytest.raises(DetectorError, match="no detector file at"):
        Detector.load(tmp_path / "nothing.pt")
    (tmp_path / "cut.pt").write_bytes(detector_file.read_bytes()[:2000])
    with pytest.raises(DetectorError, match="damaged or no detector file"):
        Detector.load(tmp_path / "cut.pt")
    torch.save({"state_dict": {}}, tmp_path / "other.pt")
    with pytest.raises(DetectorError, match="no detector file of monai_memo"):
        Detector.load(tmp_path / "other.pt")
    record = torch.load(detector_file, weights_only=True)
    torch.save({**record, "format": 99}, tmp_path / "newer.pt")
    with pytest.raises(DetectorError, match="has format 99"):
        Detector.load(tmp_path / "newer.pt")
    for key in set(record) - {"kind", "sha256"}:
        torch.save({name: value for name, value in record.items() if name != key}, tmp_path / "less.pt")
        with pytest.raises(DetectorError, match=f"incomplete or does not fit .*'{key}'"):
            Detector.load(tmp_path / "less.pt")
    record["weights"].popitem()
    torch.save(record, tmp_path / "lacking.pt")
    with pytest.raises(DetectorError, match="incomplete or does not fit"):
        Detector.load(tmp_path / "lacking.pt")


def test_equal_detectors_are_equal_files(detector_file: Path, tmp_path: Path) -> None:
    detector = Detector.load(detector_file)
    saved = {detector.save(tmp_path / name).read_bytes() for name in ("detector.pt", "other.pt", "detector.pt")}
    assert len(saved) == 1 and Detector.load(tmp_path / "other.pt").sha256 == detector.sha256


def test_single_changed_bytes_are_noticed(detector_file: Path, tmp_path: Path) -> None:
    content = bytearray(detector_file.read_bytes())
    for share in (0.3, 0.5, 0.7):  # in the weights, where torch.load itself notices nothing
        changed = bytearray(content)
        changed[int(share * len(content))] ^= 1
        (tmp_path / "changed.pt").write_bytes(changed)
        assert torch.load(tmp_path / "changed.pt", weights_only=True)["kind"]
        with pytest.raises(DetectorError, match="is damaged: its content is not what was saved"):
            Detector.load(tmp_path / "changed.pt")


class _Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return (exec, ("raise SystemExit('ran')",))


def test_a_file_cannot_run_code(tmp_path: Path) -> None:
    (tmp_path / "evil.pt").write_bytes(pickle.dumps(_Evil()))
    with pytest.raises(DetectorError):
        Detector.load(tmp_path / "evil.pt")


def test_cohorts_that_do_not_fit_are_refused(detector_file: Path) -> None:
    detector = Detector.load(detector_file)
    with pytest.raises(DetectorError, match="for 2D images, the cohort has 3D"):
        detector.check_fits(3, 1)
    with pytest.raises(DetectorError, match="takes 1 channels, the cohort has 3"):
        detector.check_fits(2, 3)
    with pytest.raises(DetectorError, match=r"images of \(32, 32\), the cohort has \(64, 64\)"):
        detector.embed(np.zeros((2, 1, 64, 64)), progress=False)


def test_embeddings_do_not_depend_on_batches_and_go_on_after_a_stop(
    detector_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = Detector.load(detector_file)
    whole = detector.embed(PIXELS, batch_size=50, progress=False)
    assert whole.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(whole.mean(axis=1), 0, atol=1e-6)
    np.testing.assert_allclose(detector.embed(PIXELS, batch_size=7, progress=False), whole, atol=1e-5)
    store = tmp_path / "store.npy"
    seen: list[int] = []
    original = detector.network.embed

    def counting(images: torch.Tensor) -> torch.Tensor:
        seen.append(len(images))
        if seen == [10] * 3:
            raise KeyboardInterrupt
        return original(images)

    monkeypatch.setattr(module, "KEEP_EVERY", 20)
    detector.network.embed = counting  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        detector.embed(PIXELS, batch_size=10, store=store, progress=False)
    assert len(np.load(store)) == 20
    resumed = detector.embed(PIXELS, batch_size=10, store=store, progress=False)
    detector.network.embed = original  # type: ignore[method-assign]
    np.testing.assert_array_equal(resumed, detector.embed(PIXELS, batch_size=10, progress=False))
    assert sum(seen[3:]) == 30 and len(np.load(store)) == 50
    # What was changed since, or made from other images, is made again.
    content = store.read_bytes()
    store.write_bytes(content[:1000] + bytes([content[1000] ^ 1]) + content[1001:])
    np.testing.assert_array_equal(detector.embed(PIXELS, batch_size=10, store=store, progress=False), resumed)
    others = PIXELS[::-1]
    np.testing.assert_allclose(detector.embed(others, store=store, progress=False), whole[::-1], atol=1e-5)


def test_copies_are_nearer_than_other_patients(detector_file: Path) -> None:
    detector = Detector.load(detector_file)
    training = detector.embed(np.stack([chest_phantom(1_000_000 + i, (32, 32)) for i in range(60)]), progress=False)
    noisy = np.stack([chest_phantom(1_000_000 + i, (32, 32)) for i in range(60)])
    noisy = np.clip(noisy + 0.03 * np.random.default_rng(0).standard_normal(noisy.shape), 0, 1).astype(np.float32)
    similarity = detector.embed(noisy, progress=False) @ training.T
    assert (similarity.argmax(axis=1) == np.arange(60)).mean() > 0.9
