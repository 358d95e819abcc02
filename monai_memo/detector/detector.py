# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""A trained detector: weights and everything needed to use them rightly, in one file."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from monai_memo.data.loading import Preprocessing
from monai_memo.detector.recipe import NAMES, Recipe
from monai_memo.errors import DetectorError, MemoError
from monai_memo.files import release, write_json, write_with
from monai_memo.networks.copy_detector import CopyDetector
from monai_memo.progress import Progress
from monai_memo.sealing import DamagedError, fingerprint, is_sealed, load_torch, save_torch, write_sealed
from monai_memo.shipped.places import detector_place

KIND, FORMAT = "monai_memo detector", 1
ANEW = "Train one with: monai-memo train-detector"
DAMAGED = "is damaged: its content is not what was saved. Copy it again, or train anew."
PACKAGES = ("monai-memo", "monai", "torch")
KEEP_EVERY = 2048  # images that a killed embedding loses, unless writing takes so long that it has to pause
PAUSE = 20  # times as long as writing took


def _digest(recipe: Any, preprocessing: Any, weights: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256(json.dumps([recipe, preprocessing]).encode())
    for name, tensor in sorted(weights.items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _save_array(array: NDArray[np.generic], path: Path) -> None:
    np.save(path, array)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


NUMBERS = (
    "epochs", "images", "validation_images", "validation_loss", "mixed_precision", "learning_rate", "seed",
    "confirmed_copies", "confirmed_novel",
)  # fmt: skip
HASHES = ("started_from", "from")
VERSION = re.compile(r"\d{1,4}(\.\d{1,4}){0,3}((a|b|rc|\.post|\.dev)\d{1,4})?(\+(cpu|cu\d{1,4}))?|not installed")


def known_summary(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers and hashes that this library writes into a training summary.

    A detector can come from anywhere, and its summary ends in reports: text in it could be about patients.
    """
    found: dict[str, Any] = {}
    for key, value in summary.items():
        number = value is None or (isinstance(value, bool | int | float) and bool(np.isfinite(value)))
        digest = isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None
        if (key in NUMBERS and number) or (key in HASHES and digest):
            found[key] = value
        elif key == "fine_tuned" and isinstance(value, Mapping):
            found[key] = known_summary({name: item for name, item in value.items() if name != key})
    return found


class Detector:
    """Network, recipe, preprocessing, seed and versions.

    Args:
        network: trained, in evaluation mode.
        recipe: how it was built and trained, views included.
        preprocessing: how images have to be prepared for it.
        seed: that it was trained with.
        training_summary: epochs, images, losses.
        versions: of the packages it was trained with; the installed ones by default.
    """

    def __init__(
        self,
        network: CopyDetector,
        recipe: Recipe,
        preprocessing: Preprocessing,
        seed: int,
        training_summary: Mapping[str, Any],
        versions: Mapping[str, str] | None = None,
    ) -> None:
        self.network = network.eval()
        self.recipe, self.preprocessing, self.seed = recipe, preprocessing, seed
        self.training_summary = dict(training_summary)
        self.versions = dict(versions or {name: _version(name) for name in PACKAGES})

    @property
    def sha256(self) -> str:
        """Hash of weights, recipe and preprocessing: equal detectors have equal hashes, whenever they were saved."""
        return _digest(self.recipe.to_dict(), self.preprocessing.to_dict(), self.network.state_dict())

    @property
    def lineage(self) -> frozenset[str]:
        """Hashes of this detector and, as far as it says, of those it was trained further from."""
        summary = known_summary(self.training_summary)
        tuned = summary.get("fine_tuned", {})
        found = (self.sha256, summary.get("started_from"), tuned.get("started_from"), tuned.get("from"))
        return frozenset(value for value in found if isinstance(value, str))

    def without_free_text(self) -> Detector:
        """The same network without words that its file may hold beside it: those could be about patients.

        Raises:
            DetectorError: its preprocessing holds words that mean nothing.
        """
        axes = ("LR", "PA", "IS")
        if sorted(next((i for i, pair in enumerate(axes) if c in pair), 9) for c in self.preprocessing.orientation) != [
            0,
            1,
            2,
        ]:
            text = "the detector's file names an orientation that is none: train it again"
            raise DetectorError(text, text)
        recipe = self.recipe if self.recipe.name in NAMES else replace(self.recipe, name="custom")
        versions = {
            name: value
            for name, value in self.versions.items()
            if name in PACKAGES and isinstance(value, str) and VERSION.fullmatch(value)
        }
        summary = known_summary(self.training_summary)
        return Detector(self.network, recipe, self.preprocessing, self.seed, summary, versions)

    def save(self, path: str | Path) -> Path:
        """Write one file, atomically. It holds tensors and plain types only."""
        record = {
            "kind": KIND,
            "format": FORMAT,
            "weights": {name: tensor.detach().cpu() for name, tensor in self.network.state_dict().items()},
            "recipe": self.recipe.to_dict(),
            "preprocessing": self.preprocessing.to_dict(),
            "seed": self.seed,
            "training_summary": self.training_summary,
            "versions": self.versions,
            "sha256": self.sha256,
        }
        return write_with(path, lambda temporary: save_torch(temporary, record))

    @classmethod
    def load(cls, path: str | Path) -> Detector:
        """Read a detector file. Nothing in it is executed (``weights_only=True``).

        Args:
            path: of the file, or the name of a detector that comes with the library (``"chest_xray"``).

        Raises:
            DetectorError: missing, damaged (also by single bytes), of another kind or of a newer format.
        """
        path = detector_place(path)
        if not path.is_file():
            raise DetectorError(f"no detector file at {path}. {ANEW}", f"no such file. {ANEW}")
        try:
            record = load_torch(path)
        except DamagedError as error:
            raise DetectorError(f"{path} {DAMAGED}", DAMAGED) from error
        except Exception as error:
            reason = f"is damaged or no detector file: {error.__class__.__name__}"
            raise DetectorError(f"{path} {reason}", f"{reason}. {ANEW}") from error
        if not isinstance(record, dict) or record.get("kind") != KIND:
            raise DetectorError(f"{path} is no detector file of monai_memo. {ANEW}", f"is no detector file. {ANEW}")
        try:
            if record["format"] > FORMAT:
                raise DetectorError(
                    f"it has format {record['format']}, this version reads up to {FORMAT}: update monai_memo"
                )
            recipe = Recipe.from_dict(record["recipe"])
            network = recipe.build_network()
            network.load_state_dict(record["weights"])
            preprocessing = Preprocessing.from_dict(record["preprocessing"])
            detector = cls(
                network, recipe, preprocessing, record["seed"], record["training_summary"], record["versions"]
            )
            # The first files have no hash; they are read unchecked.
            actual = _digest(record["recipe"], record["preprocessing"], record["weights"])
            damaged = record.get("sha256", actual) != actual
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, MemoError) as error:
            reason = "is incomplete or does not fit this version"
            raise DetectorError(f"{path} {reason}: {error}", f"{reason}. {ANEW}") from error
        if damaged:
            raise DetectorError(f"{path} {DAMAGED}", DAMAGED)
        return detector

    @classmethod
    def given(cls, path: str | Path, option: str = "detector") -> Detector:
        """The detector that was named with an option of a command.

        Raises:
            DetectorError: as ``load``, with the option.
        """
        try:
            return cls.load(path)
        except DetectorError as error:
            reason = error.plain or str(error)
            raise DetectorError(f"--{option} {path}: {reason}", f"--{option}: {reason}") from error

    def check_fits(self, spatial_dims: int, channels: int, image_size: Sequence[int] | None = None) -> None:
        """Refuse a cohort that the detector was not made for.

        Raises:
            DetectorError: dimensions, channels or (if given) size differ.
        """
        expected = self.preprocessing
        if spatial_dims != expected.spatial_dims:
            raise DetectorError(
                f"the detector is for {expected.spatial_dims}D images, the cohort has {spatial_dims}D images"
            )
        if channels != expected.channels:
            raise DetectorError(f"the detector takes {expected.channels} channels, the cohort has {channels}")
        if image_size is not None and tuple(image_size) != expected.size:
            raise DetectorError(f"the detector takes images of {expected.size}, the cohort has {tuple(image_size)}")

    def check_cohort(self, preprocessing: Preprocessing) -> None:
        """Refuse cohorts that the detector was not made for, by what would fit them; colours can be made grey.

        Raises:
            DetectorError: dimensions differ, or the detector needs colours that are not there.
        """
        own = self.preprocessing.channels
        self.check_fits(preprocessing.spatial_dims, own)
        if own > preprocessing.channels:
            raise DetectorError(
                "the detector takes colours, and not all images are in colour: train one on these cohorts, or take one "
                "of grey images, to compare all in grey values"
            )

    def embed(
        self,
        pixels: NDArray[np.floating],
        batch_size: int = 64,
        device: str | torch.device = "cpu",
        progress: bool = True,
        store: str | Path | None = None,
    ) -> NDArray[np.float32]:
        """Embeddings of preprocessed images.

        Args:
            pixels: ``(n, channels, *size)`` in [0, 1], may be memory-mapped; read batch by batch.
            batch_size: images per forward pass.
            store: file (``.npy``) that keeps what is done; a call that was killed continues there. It is made again
                where it is damaged, or was made by another detector or from other images.

        Returns:
            ``(n, dim)``, centred and of length 1: inner products are Pearson correlations.

        Raises:
            DetectorError: the images do not have the shape that the detector takes.
        """
        self.check_fits(pixels.ndim - 2, pixels.shape[1], pixels.shape[2:])
        result = np.zeros((len(pixels), self.network.embedding_dim), dtype=np.float32)
        done = 0
        identity = ""
        if store is not None:
            made_from = {"detector": self.sha256, "batch_size": batch_size, "device": torch.device(device)}
            identity = fingerprint("embeddings", made_from, [pixels])
            if is_sealed(store, identity):
                found = np.load(store, allow_pickle=False)
                done = len(found)
                result[:done] = found
        network = self.network.to(device).eval()
        bar = Progress(len(pixels), "embed", done, progress)
        since, next_time = 0, 0.0
        with torch.inference_mode(), bar:
            for start in range(done, len(pixels), batch_size):
                batch = torch.from_numpy(np.ascontiguousarray(pixels[start : start + batch_size], dtype=np.float32)).to(
                    device
                )
                result[start : start + len(batch)] = network.embed(batch).cpu().numpy()
                release(pixels)
                bar.update(len(batch))
                since += len(batch)
                end = start + len(batch)
                # Often enough to lose little, seldom enough to cost nothing: what is kept grows with the cohort.
                due = since >= KEEP_EVERY and time.monotonic() >= next_time
                if store is not None and (due or end == len(pixels)):
                    began = time.monotonic()
                    write_sealed(store, partial(_save_array, result[:end]), identity)
                    since, next_time = 0, time.monotonic() + PAUSE * (time.monotonic() - began)
        self.network.to("cpu")
        return result


def write_summary(detector: Detector, path: str | Path) -> Path:
    """Write what a detector is, without its weights, as JSON for people."""
    record = {
        "recipe": detector.recipe.to_dict(),
        "preprocessing": detector.preprocessing.to_dict(),
        "seed": detector.seed,
        "training": detector.training_summary,
        "versions": detector.versions,
        "sha256": detector.sha256,
    }
    return write_json(path, record)
