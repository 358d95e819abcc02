# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""A latent diffusion model of a study: the training of a bundle, as long as a run asks for."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigWorkflow
from numpy.typing import NDArray

from monai_memo.errors import ConfigurationError, MemoError
from monai_memo.files import sha256_of
from monai_memo.generators.bundle_model import config_files, load_bundle, read_bundle
from monai_memo.generators.guarded import OF_SAMPLING, guarded, load_guarded
from monai_memo.generators.latents import encode_latents
from monai_memo.generators.settings import GeneratorSettings
from monai_memo.sampling import TrainedGenerator
from monai_memo.settings.bundles import check_config
from monai_memo.study.configuration import GeneratorEntry
from monai_memo.study.grid import AUTOENCODER, DIFFUSION, bundle_values
from monai_memo.study.memorizer import ClosedFormMemorizer
from monai_memo.study.pixel_training import epochs_of

OF_THE_LOADER = ("bundle_root", "device", "num_inference_steps")  # arguments of load_bundle, no config values there


class BundleTraining:
    """Runs the configs of a generator bundle of this library.

    Args:
        entry: with bundle, profile and settings.
        network: name of the network size.
        values: config values that the study sets (sources, patients, folders, seed), over those of the entry.

    Raises:
        ConfigurationError: no such bundle, or a setting that its config does not have.
    """

    def __init__(self, entry: GeneratorEntry, network: str, values: Mapping[str, Any]) -> None:
        self.bundle, self.profile = Path(str(entry.bundle)), entry.profile
        known = bundle_values(self.bundle, self.profile)
        self.settings = entry.settings_of(network)
        unknown = sorted(set(self.settings) - set(known))
        if unknown:
            raise ConfigurationError(
                f"unknown setting {', '.join(unknown)}: {self._config(AUTOENCODER)} has no such value"
            )
        self.known = {**known, **self.settings}
        check_config(GeneratorSettings, self.settings)
        self.values = {"bundle_root": str(self.bundle), **self.settings, **values}

    def _config(self, name: str) -> Path:
        return self.bundle / "configs" / f"{name}.json"

    def _configs(self, *names: str) -> list[Path]:
        found = [path for name in names for path in config_files(self.bundle, name, self.profile)]
        return list(dict.fromkeys(found))

    def identity(self, trained: bool = False) -> dict[str, Any]:
        """What decides the result: settings, and hashes of the bundle's configs.

        Args:
            trained: what decides the weights alone; runs that differ in how they sample share a training.
        """
        configs = {path.stem: sha256_of(path) for path in self._configs(AUTOENCODER, DIFFUSION)}
        left = OF_SAMPLING if trained else ()
        return {"settings": {key: value for key, value in self.settings.items() if key not in left}, "configs": configs}

    def _run(self, name: str, **further: Any) -> None:
        files = [str(path) for path in self._configs(name)]
        with _as_before():
            try:
                flow = ConfigWorkflow(
                    config_file=files, workflow_type="train", logging_file=False, **{**self.values, **further}
                )
                flow.initialize()
                flow.run()
            except Exception as error:
                # MONAI's parser wraps what goes wrong in its own words, several times over.
                cause: BaseException | None = error
                while cause is not None and not isinstance(cause, MemoError):
                    cause = cause.__cause__
                if cause is None:
                    raise
                raise cause from None

    def train_autoencoder(self, path: Path, seed: int) -> None:
        """Train the autoencoder and write its weights; goes on where it was interrupted."""
        folders = {"output_dir": str(path.parent), "autoencoder_file": str(path)}
        self._run(AUTOENCODER, **folders, n_training_patients=None, augmentation=True, seed=seed)

    def train(self, steps: int, folder: Path) -> TrainedGenerator:
        """Train the diffusion model for so many steps, going on with a shorter training in the same folder."""
        epochs = epochs_of(steps, self.known["diffusion_steps_per_epoch"])
        self._run(DIFFUSION, **self._places(steps, folder), diffusion_epochs=epochs)
        with _as_before():
            return load_guarded(*self._sampling(), **self._overrides(steps, folder))

    def memorizer(self, steps: int, folder: Path, pixels: NDArray[np.floating]) -> TrainedGenerator:
        """The same autoencoder, sampler and switches around a diffusion model that knows nothing but these images.

        Args:
            steps, folder: of a training that was done.
            pixels: training images ``(n, channels, *spatial)`` in [0, 1].
        """
        with _as_before():
            overrides = self._overrides(steps, folder)
            model = load_bundle(*self._sampling(), **overrides)
            found = encode_latents(
                pixels, model.autoencoder, folder / "memorizer", "training", model.latent_shape,
                batch_size=model.batch_size, device=model.device, progress=False,
            )  # fmt: skip
            means = torch.from_numpy(np.asarray(found.values[:, 0, 0], dtype=np.float32)) * model.scale_factor
            model.diffusion = ClosedFormMemorizer(means, model.scheduler).to(model.device)  # type: ignore[assignment]
            return guarded(model, read_bundle(self.bundle, self.profile, **overrides))

    def _places(self, steps: int, folder: Path) -> dict[str, str]:
        return {"output_dir": str(folder), "diffusion_file": str(folder / f"model_{steps}.pt")}

    def _sampling(self) -> tuple[Path, int, int, str, str | None]:
        steps, batch = (int(self.known[name]) for name in ("num_inference_steps", "sampling_batch_size"))
        return self.bundle, steps, batch, str(self.values.get("device", "cpu")), self.profile

    def _overrides(self, steps: int, folder: Path) -> dict[str, Any]:
        kept = {key: value for key, value in self.values.items() if key not in OF_THE_LOADER}
        return {**kept, **self._places(steps, folder)}


@contextmanager
def _as_before() -> Iterator[None]:
    """A workflow of MONAI extends ``sys.path`` and lets Ignite log every epoch: neither outlasts a run."""
    path, level = list(sys.path), logging.getLogger("ignite").level
    try:
        yield
    finally:
        sys.path[:] = path
        logging.getLogger("ignite").setLevel(level)
