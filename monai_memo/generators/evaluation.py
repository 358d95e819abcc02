# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Evaluate a generator: reconstruction, distance from held-out images, diversity, and sheets to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_memo.data.writing import save_image
from monai_memo.detector.detector import Detector
from monai_memo.errors import ConfigurationError
from monai_memo.files import write_json, write_text
from monai_memo.generators.cohorts import GeneratorData
from monai_memo.generators.latent_diffusion import LatentDiffusion, sample_seeds
from monai_memo.generators.scores import distribution_distances, diversity, features, reconstruction_scores

COLUMNS = {2: 8, 3: 4}
SHORTEST = 64  # pixels of a slice on a sheet, at least


def sheet(images: NDArray[np.floating]) -> NDArray[np.float32]:
    """A grid of images to look at, ``(1, rows, columns)``; of volumes the middle slices of all three axes.

    Small images are enlarged by a whole number, pixel by pixel.

    Args:
        images: ``(n, 1, *spatial)`` in [0, 1].
    """
    columns, zoom = COLUMNS[images.ndim - 2], -(-SHORTEST // min(images.shape[2:]))
    pictures = [_picture(np.asarray(image[0], dtype=np.float32)) for image in images]
    blank = np.zeros_like(pictures[0])
    pictures += [blank] * (-len(pictures) % columns)
    rows = [np.concatenate(pictures[i : i + columns], axis=1) for i in range(0, len(pictures), columns)]
    whole: NDArray[np.float32] = np.concatenate(rows, axis=0)[None]
    return whole.repeat(zoom, axis=1).repeat(zoom, axis=2)


def _picture(image: NDArray[np.float32]) -> NDArray[np.float32]:
    if image.ndim == 2:
        return image
    x, y, z = (length // 2 for length in image.shape)
    slices = [np.rot90(image[x]), np.rot90(image[:, y]), np.rot90(image[:, :, z])]  # sagittal, coronal, axial
    height = max(part.shape[0] for part in slices)
    beside = np.concatenate([np.pad(part, ((0, height - part.shape[0]), (0, 0))) for part in slices], axis=1)
    return np.pad(beside, ((0, 1), (0, 2)))  # a dark line between one volume and the next


class GeneratorEvaluation:
    """Reconstruction of held-out images, FID and MMD against them, MS-SSIM diversity.

    Beside the distance of the samples from the held-out images stands that of the training images: what a perfect
    generator would reach with as many images.

    Args:
        model: to evaluate.
        data: training and held-out images at the model's size.
        detector_file: copy detector of the training cohort, whose network gives the features.
        output_dir: for ``evaluation.json``, ``evaluation.md``, ``samples.png`` and ``reconstructions.png``.
        n_samples: to draw; at most as many real images are used for the distances.
        pairs: for the diversity.
        seed: of samples and pairs.
    """

    def __init__(
        self,
        model: LatentDiffusion,
        data: GeneratorData,
        detector_file: str | Path | None,
        output_dir: str | Path,
        n_samples: int = 200,
        pairs: int = 200,
        seed: int = 0,
    ) -> None:
        if detector_file is None:
            raise ConfigurationError(
                "FID and MMD need a local feature network: name a copy detector with detector_file (make one with "
                "monai-memo train-detector)"
            )
        self.model, self.data, self.output_dir = model, data, Path(output_dir)
        self.detector = Detector.load(detector_file)
        self.n_samples, self.pairs, self.seed = n_samples, pairs, seed

    def _drawn(self, pixels: NDArray[np.floating]) -> NDArray[np.float32]:
        """Random images, at most as many as samples: cohorts are sorted by id, the first ones are often of one kind."""
        order = np.random.default_rng([self.seed, len(pixels)]).permutation(len(pixels))[: self.n_samples]
        return np.asarray(pixels[np.sort(order)], dtype=np.float32)

    def run(self) -> dict[str, Any]:
        """Evaluate, write, and return the record."""
        heldout = self._drawn(self.data.heldout.pixels)
        training = self._drawn(self.data.training.pixels)
        samples = self.model.sample(sample_seeds(self.seed, range(self.n_samples)))
        rebuilt = self.model.round_trip(heldout)
        reference = features(self.detector, heldout)
        sets = {"samples": samples, "reconstructions": rebuilt, "training": training}
        distances = {
            name: distribution_distances(features(self.detector, images), reference) for name, images in sets.items()
        }
        record = {
            "n_samples": len(samples),
            "n_heldout": len(heldout),
            "n_training": len(training),
            "seed": self.seed,
            "detector_sha256": self.detector.sha256,
            "reconstruction": reconstruction_scores(heldout, rebuilt),
            "distance_from_heldout": distances,
            "diversity_ms_ssim": {
                name: diversity(images, self.pairs, self.seed)
                for name, images in {"samples": samples, "heldout": heldout}.items()
            },
        }
        write_json(self.output_dir / "evaluation.json", record)
        write_text(self.output_dir / "evaluation.md", _table(record))
        save_image(self.output_dir / "samples.png", sheet(samples[:24]))
        step = COLUMNS[heldout.ndim - 2]
        starts = range(0, min(len(heldout), 2 * step), step)
        both = np.concatenate([row for start in starts for row in _rows(heldout, rebuilt, start, step)])
        save_image(self.output_dir / "reconstructions.png", sheet(both))
        return record


def _rows(
    images: NDArray[np.floating], rebuilt: NDArray[np.floating], start: int, step: int
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """A row of images and, below it, their reconstructions; short rows are filled up with black."""
    short = max(0, start + step - len(images))
    padding = ((0, short), *((0, 0),) * (images.ndim - 1))
    return np.pad(images[start : start + step], padding), np.pad(rebuilt[start : start + step], padding)


def _table(record: dict[str, Any]) -> str:
    rebuilt = record["reconstruction"]
    lines = [
        f"Held-out reconstruction: PSNR {rebuilt['psnr']:.1f} dB (sd {rebuilt['psnr_sd']:.1f}), "
        f"MS-SSIM {rebuilt['ms_ssim']:.3f} (sd {rebuilt['ms_ssim_sd']:.3f}).",
        "",
        "| compared with held-out images | FID | MMD |",
        "| --- | --- | --- |",
    ]
    for name, distance in record["distance_from_heldout"].items():
        lines.append(f"| {name} | {distance['fid']:.3g} | {distance['mmd']:.3g} |")
    similar = record["diversity_ms_ssim"]
    lines += [
        "",
        f"MS-SSIM of random pairs: {similar['samples']:.3f} among samples, {similar['heldout']:.3f} among held-out "
        "images.",
    ]
    return "\n".join(lines) + "\n"
