# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""What is put to the test: small runs of every kind that a user may lose, and what they have to end with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from monai_memo.data.demo_cohorts import write_demo_cohorts
from monai_memo.data.loading import Preprocessing
from monai_memo.data.phantoms import chest_phantom
from monai_memo.data.writing import save_image
from monai_memo.detector.detector import Detector
from monai_memo.detector.recipe import Recipe
from monai_memo.errors import ConfigurationError
from monai_memo.files import sha256_of
from monai_memo.label.ratings import append_entry, new_entry
from monai_memo.sealing import load_torch
from monai_memo.study.configuration import GeneratorEntry
from monai_memo.study.latent_diffusion import BundleTraining
from monai_memo.study.pixel_training import PixelTraining

NOT_COMPARED = ("created", "seconds", "timing", "time")  # of a record: clocks alone
TINY: dict[str, Any] = {
    "latent_channels": 2, "autoencoder_channels": [4, 8], "autoencoder_res_blocks": 1, "autoencoder_norm_groups": 4,
    "autoencoder_batch_size": 4, "autoencoder_steps_per_epoch": 3, "autoencoder_epochs": 4, "discriminator_channels": 4,
    "discriminator_layers": 1, "diffusion_channels": [8, 8], "diffusion_attention": [False, True],
    "diffusion_head_channels": [0, 8], "diffusion_res_blocks": 1, "diffusion_norm_groups": 4, "diffusion_batch_size": 4,
    "diffusion_steps_per_epoch": 3, "num_train_timesteps": 20, "num_inference_steps": 2, "sampling_batch_size": 4,
    "latent_variants": 3, "heldout_fraction": 0.5,
}  # fmt: skip
RATERS = 40


@dataclass(frozen=True)
class Job:
    """One run.

    Attributes:
        name: as in the table.
        run: takes inputs and output folder; the same call goes on where it was stopped.
        needs: jobs whose output this one reads, by name.
    """

    name: str
    run: Callable[[Path, Path], None]
    needs: tuple[str, ...] = ()


def write_inputs(folder: Path) -> Path:
    """Phantoms: three cohorts, images and volumes for generators."""
    write_demo_cohorts(folder, "chest", 16, 21, 4, 0.5, seed=1, size=32)
    for i in range(24):
        save_image(folder / "chests" / f"p{i:02d}.png", chest_phantom(i, (16, 16)))
    write_demo_cohorts(folder / "knees", "knee", 12, 2, 2, 0.5, seed=1, size=16)
    recipe = Recipe.named("default", 2, (32, 32), epochs=1, batch_size=8)
    Detector(recipe.build_network(), recipe, Preprocessing(2, (32, 32)), 0, {}).save(folder / "detector.pt")
    return folder


def _command(*words: str) -> None:
    """As a user types it, in this process."""
    from monai_memo.__main__ import FINISHED, SKIPPED, main

    try:
        main(words)
    except SystemExit as ended:
        if ended.code not in (FINISHED, SKIPPED):
            raise


def _audit(inputs: Path, out: Path) -> None:
    cohorts = [f"--{name}={inputs / folder}" for name, folder in (
        ("train", "training"), ("heldout", "heldout"), ("synthetic", "synthetic"),
    )]  # fmt: skip
    _command(
        "audit", *cohorts, f"--out={out}", f"--detector={inputs / 'detector.pt'}", "--n_bootstrap=100", "--planted=0",
        "--limit_copies=0", "--progress=false", "--workers=1", "--device=cpu",
    )  # fmt: skip


def _detector(inputs: Path, out: Path) -> None:
    _command(
        "train-detector", f"--train={inputs / 'training'}", f"--out={out}", "--size=16", "--epochs=12", "--workers=1",
        "--progress=false", "--device=cpu",
    )  # fmt: skip


def _evaluation(inputs: Path, out: Path) -> None:
    _command(
        "evaluate", f"--train={inputs / 'training'}", f"--negatives={inputs / 'heldout'}", f"--out={out}",
        f"--detector={inputs / 'detector.pt'}", "--per_kind=4", "--kinds=noise,flip", "--workers=1",
        "--progress=false", "--device=cpu",
    )  # fmt: skip


def _fine_tuned(inputs: Path, out: Path) -> None:
    from monai_memo.detector.fine_tuning import fine_tune

    detector = Detector.load(inputs / "detector.pt")
    pixels = np.stack([chest_phantom(i, (32, 32)) for i in range(16)])
    fine_tune(detector, pixels, {2: pixels[3]}, epochs=4, seed=1, folder=out / "work").save(out / "detector.pt")


def _bundle(bundles: Path, inputs: Path, dims: int, folder: Path) -> BundleTraining:
    name, images = ("chest_xray_ldm", "chests") if dims == 2 else ("ct_angiography_ldm", "knees/training")
    entry = GeneratorEntry("latent_diffusion", TINY, bundle=str(bundles / name), profile="small")
    values = {
        "dataset_dir": str(inputs / images), "heldout_dir": None, "image_size": [16] * dims, "seed": 3, "device": "cpu",
        "workers": 1, "progress": False, "detector_file": None, "n_training_patients": None, "augmentation": True,
        "amp": False, "autoencoder_file": str(folder / "model_autoencoder.pt"),
    }  # fmt: skip
    return BundleTraining(entry, "", values)


def _pixel_training(kind: str) -> Callable[[Path, Path], None]:
    def run(inputs: Path, out: Path) -> None:
        from monai_memo.generators.latent_diffusion import sample_seeds
        from monai_memo.study.gan import train_gan
        from monai_memo.study.variational_autoencoder import train_variational_autoencoder

        pixels = np.stack([chest_phantom(i, (16, 16)) for i in range(16)])
        settings: dict[str, Any] = {"channels": [8, 8], "latent_size": 4, "batch_size": 4, "steps_per_epoch": 3}
        if kind == "gan":
            settings["discriminator_channels"] = [8, 8]
        training = PixelTraining(pixels, "flips and rotations", 15, 1, out / "work", settings)
        sampling = train_gan(training) if kind == "gan" else train_variational_autoencoder(training)
        save_image(out / "samples.npy", np.concatenate(sampling.sample(sample_seeds(1, range(8)))))

    return run


def _ratings(inputs: Path, out: Path) -> None:
    """Raters at work: what was answered is kept, and the next one comes."""
    from filelock import FileLock

    from monai_memo.label.ratings import read_entries

    for number in range(RATERS):
        path, rater = out / f"pair{number % 5}.json", f"rater {number}"
        with FileLock(out.parent / f"{out.name}.lock"):
            if not any(entry.rater == rater for entry in read_entries(path)):
                append_entry(path, new_entry({"rating": "copy", "rater": rater}))


def all_jobs(bundles: Path) -> list[Job]:
    """Every kind of run.

    Args:
        bundles: folder of the generator bundles.

    Raises:
        ConfigurationError: they are not there.
    """
    if not (bundles / "chest_xray_ldm" / "configs").is_dir():
        raise ConfigurationError(f"{bundles} holds no generator bundles: name the folder bundles of this repository")
    jobs = [
        Job("audit", _audit),
        Job("train detector", _detector),
        Job("fine-tune detector", _fine_tuned),
        Job("train GAN", _pixel_training("gan")),
        Job("train variational autoencoder", _pixel_training("vae")),
        Job("ratings of the review server", _ratings),
    ]
    for dims in (2, 3):
        first, second = f"train autoencoder {dims}D", f"train diffusion {dims}D"

        def autoencoder(inputs: Path, out: Path, dims: int = dims) -> None:
            _bundle(bundles, inputs, dims, out).train_autoencoder(out / "model_autoencoder.pt", 3)

        def diffusion(inputs: Path, out: Path, dims: int = dims, first: str = first) -> None:
            _bundle(bundles, inputs, dims, inputs / "jobs" / first).train(12, out)

        def sampling(inputs: Path, out: Path, dims: int = dims, first: str = first, second: str = second) -> None:
            _sample(bundles, inputs, dims, first, second, out)

        jobs += [
            Job(first, autoencoder),
            Job(second, diffusion, (first,)),
            Job(f"sample {dims}D", sampling, (first, second)),
        ]
    jobs.append(Job("evaluate", _evaluation))
    return jobs


def needed(chosen: Sequence[Job], known: Sequence[Job]) -> list[Job]:
    """The chosen ones and those whose output they read, in an order in which they can be run."""
    names = {job.name for job in chosen} | {name for job in chosen for name in job.needs}
    return [job for job in known if job.name in names]


def _sample(bundles: Path, inputs: Path, dims: int, first: str, second: str, out: Path) -> None:
    from monai_memo.generators.bundle_model import load_bundle
    from monai_memo.generators.sampler import Sampler

    done = inputs / "jobs"
    values = {
        **TINY, "image_size": [16] * dims, "device": "cpu", "profile": "small",
        "autoencoder_file": str(done / first / "model_autoencoder.pt"),
        "diffusion_file": str(done / second / "model_12.pt"),
    }  # fmt: skip
    name = "chest_xray_ldm" if dims == 2 else "ct_angiography_ldm"
    model = load_bundle(bundles / name, batch_size=4, **values)
    Sampler(model, out, 30, 5, "png" if dims == 2 else "nii.gz", progress=False).run()


def digest(folder: Path) -> dict[str, str]:
    """Hash of every result in a folder: weights by their values, records without their clocks, other files by bytes.

    Folders of work in progress, logs and pictures of clocks are left out.
    """
    found, newest = {}, _last_checkpoints(folder)
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path.is_dir() or any(part in ("work", "tensorboard", "pixels", "latents") for part in parts):
            continue
        if path.name.startswith("checkpoint_epoch=") and path not in newest:
            continue
        if any(part.startswith(".") for part in parts) or path.suffix in (".html", ".lock"):
            continue
        found["/".join(parts)] = _content(path)
    return found


def _content(path: Path) -> str:
    try:
        if path.suffix == ".pt":
            return _hash(_plain(load_torch(path)))
        if path.suffix == ".json":
            return _hash(_plain(json.loads(path.read_text(encoding="utf-8"))))
    except Exception as error:
        return f"cannot be read: {type(error).__name__}"
    return sha256_of(path)


def _last_checkpoints(folder: Path) -> set[Path]:
    """The newest in each folder: how many are left of those before depends on when a process was killed."""
    newest: dict[Path, tuple[int, Path]] = {}
    for path in folder.rglob("checkpoint_epoch=*.pt"):
        epoch = int(path.stem.rpartition("=")[2])
        newest[path.parent] = max(newest.get(path.parent, (0, path)), (epoch, path))
    return {path for _, path in newest.values()}


def _plain(value: Any) -> Any:
    """Without clocks and seals; tensors by their values, bit for bit."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items() if key not in (*NOT_COMPARED, "out", "seal")}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "numpy"):
        return [str(value.dtype), list(value.shape), hashlib.sha256(value.contiguous().numpy().tobytes()).hexdigest()]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
