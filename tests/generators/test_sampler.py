# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from monai_memo.data.cohort import Cohort
from monai_memo.data.reading import read_image
from monai_memo.errors import ConfigurationError, OutputError
from monai_memo.generators.latent_diffusion import LatentDiffusion, sample_seeds
from monai_memo.generators.sampler import Sampler
from monai_memo.generators.saving import newest_checkpoint
from monai_memo.sampling import FunctionGenerator
from monai_memo.workspace.locking import LOCK
from tests.generators.conftest import tiny_model


def test_writes_images_and_a_manifest_that_an_audit_can_read(model: LatentDiffusion, tmp_path: Path) -> None:
    manifest = Sampler(model, tmp_path, 6, seed=3, progress=False).run()
    with open(manifest, newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["image"] for row in rows] == [f"sample_{i:06d}.png" for i in range(6)]
    assert [int(row["seed"]) for row in rows] == sample_seeds(3, range(6))
    assert len(Cohort.from_source(manifest, "synthetic")) == len(Cohort.from_source(tmp_path, "synthetic")) == 6
    picture = np.asarray(Image.open(tmp_path / rows[4]["image"])) / 255
    np.testing.assert_allclose(picture, model.sample([int(rows[4]["seed"])])[0, 0], atol=0.51 / 255)


def test_volumes_are_written_as_nifti(tmp_path: Path) -> None:
    model = tiny_model(3)
    Sampler(model, tmp_path, 2, image_format="nii.gz", progress=False).run()
    volume, affine, _ = read_image(tmp_path / "sample_000001.nii.gz")
    assert volume.shape == (1, 16, 16, 16) and affine is not None
    np.testing.assert_allclose(volume, model.sample(sample_seeds(0, range(2)))[1], atol=1e-5)


class Killed(Exception):
    pass


def test_goes_on_after_a_kill_with_the_same_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Sampler(tiny_model(), tmp_path / "whole", 10, progress=False).run()
    model = tiny_model()
    draw, calls = model.sample, []

    def killed(seeds: list[int]) -> np.ndarray:
        calls.append(len(seeds))
        if len(calls) == 3:
            raise Killed
        return draw(seeds)

    monkeypatch.setattr(model, "sample", killed)
    with pytest.raises(Killed):
        Sampler(model, tmp_path / "killed", 10, progress=False).run()
    Sampler(model, tmp_path / "killed", 10, progress=False).run()
    assert calls == [4, 4, 2, 2]
    for path in sorted((tmp_path / "whole").iterdir()):
        assert (tmp_path / "killed" / path.name).read_bytes() == path.read_bytes(), path.name
    (tmp_path / "killed" / "sample_000005.png").unlink()
    Sampler(model, tmp_path / "killed", 10, progress=False).run()
    assert calls[4:] == [4, 2], "from the batch of the first image that is not there"


def test_samples_of_another_model_or_seed_are_left_alone(model: LatentDiffusion, tmp_path: Path) -> None:
    manifest = Sampler(model, tmp_path, 2, progress=False).run()
    before = manifest.read_bytes()
    with pytest.raises(OutputError, match="another model or another seed"):
        Sampler(model, tmp_path, 2, seed=1, progress=False).run()
    model.scale_factor = 2.0
    with pytest.raises(OutputError, match="another model or another seed"):
        Sampler(model, tmp_path, 2, progress=False).run()
    assert manifest.read_bytes() == before


def test_format_has_to_fit_the_model(model: LatentDiffusion, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="image_format must be 'png' for a 2D model"):
        Sampler(model, tmp_path, 2, image_format="nii.gz")
    with pytest.raises(ConfigurationError, match="n_samples must be at least 1, got 0"):
        Sampler(model, tmp_path, 0)


def test_two_processes_never_draw_into_one_folder(model: LatentDiffusion, tmp_path: Path) -> None:
    code = (
        "import sys; from monai_memo.workspace.locking import hold\n"
        "hold(sys.argv[1], 'sampling'); print('held', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(OutputError, match=f"process {other.pid}"):
            Sampler(model, tmp_path, 2, progress=False).run()
        with pytest.raises(OutputError, match=f"process {other.pid}"):
            newest_checkpoint(tmp_path, {"steps": 1})
    finally:
        other.communicate(timeout=30)
    Sampler(model, tmp_path, 2, progress=False).run()
    assert len(list(tmp_path.glob("*.png"))) == 2 and not (tmp_path / LOCK).exists()


RANK = """
import os, sys
import ignite.distributed as idist
import numpy as np
from monai_memo.generators.sampler import Sampler
from monai_memo.sampling import FunctionGenerator
from monai_memo.training.ranks import leave_ranks

folder, attempt = sys.argv[1:]
idist.initialize("gloo")
drawn = 0

def draw(seeds):
    global drawn
    drawn += 1
    if attempt == "killed" and idist.get_rank() == 1 and drawn == 2:
        os._exit(9)
    with open(f"{folder}_{attempt}_{idist.get_rank()}", "a") as stream:
        stream.write(f"{len(seeds)} ")
    return np.stack([np.random.default_rng(seed).random((1, 8, 8)) for seed in seeds])

sampler = Sampler(FunctionGenerator(draw), folder, 11, seed=1, progress=False, identity="noise")
sampler.batch_size = 2
sampler.run()
leave_ranks()
"""


def two_ranks(folder: Path, attempt: str) -> list[int]:
    """Exit statuses of two processes that sample together."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    environment = {**os.environ, **shared, "PYTHONPATH": str(Path(__file__).parents[2]), "CUDA_VISIBLE_DEVICES": ""}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(folder), attempt],
            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.DEVNULL,
        )
        for rank in range(2)
    ]
    try:
        return [process.wait(timeout=400) for process in processes]
    finally:
        for process in processes:
            process.kill()


@pytest.mark.slow
def test_two_ranks_share_the_batches_and_go_on_after_one_was_killed(tmp_path: Path) -> None:
    def noise(seeds: Sequence[int]) -> np.ndarray:
        return np.stack([np.random.default_rng(seed).random((1, 8, 8)) for seed in seeds])

    one = Sampler(FunctionGenerator(noise), tmp_path / "one", 11, seed=1, progress=False, identity="noise")
    one.batch_size = 2
    one.run()
    status = two_ranks(tmp_path / "two", "killed")
    assert status[0] != 0 and status[1] == 9
    assert two_ranks(tmp_path / "two", "again") == [0, 0]
    drawn = {path.name: path.read_text().split() for path in tmp_path.glob("two_*")}
    assert drawn["two_killed_1"] == ["2"], "it was killed in its second batch"
    assert drawn["two_again_0"] == ["2", "2"] and drawn["two_again_1"] == ["2", "1"], "four images were kept"
    files = [{path.name: path.read_bytes() for path in (tmp_path / name).glob("[!.]*")} for name in ("one", "two")]
    assert files[0] == files[1] and len(files[0]) == 12


def test_images_of_somebody_else_stay(model: LatentDiffusion, tmp_path: Path) -> None:
    (tmp_path / "sample_000001.png").write_bytes(b"mine")
    with pytest.raises(OutputError, match=r"holds sample_000001\.png and no manifest\.csv that names it"):
        Sampler(model, tmp_path, 3, progress=False).run()
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("sample_000001.png", b"mine")]
    (tmp_path / "sample_000001.png").rename(tmp_path / "mine.png")
    Sampler(model, tmp_path, 3, progress=False).run()
    assert (tmp_path / "mine.png").read_bytes() == b"mine" and len(list(tmp_path.iterdir())) == 5
