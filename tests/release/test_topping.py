# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from monai_memo.data.cohort import Cohort
from monai_memo.data.phantoms import chest_phantom
from monai_memo.errors import ConfigurationError, MemoError
from monai_memo.release.release import Release
from monai_memo.release.topping import identity_of, shapes_of
from tests.audit.small import SIZE
from tests.generators.test_protocol import tiny_bundle
from tests.release.conftest import options

QUICK = {"second_look": False, "second_detector": None}


def half_copies(root: Path) -> object:
    """A generator of which every other image is a training image."""
    training = [np.asarray(Image.open(path)) / 255 for path in sorted((root / "train").iterdir())]

    def draw(seeds: Sequence[int]) -> list[np.ndarray]:
        return [
            training[seed % len(training)][None] if seed % 2 else chest_phantom(5000 + seed, SIZE) for seed in seeds
        ]

    return draw


def test_what_is_drawn_is_looked_up_before_it_enters_and_counted(clinic: Path, tmp_path: Path) -> None:
    done = Release(half_copies(clinic), **options(clinic, tmp_path / "out", top_up_to=40, **QUICK)).run()
    drawn = done.statement.drawn
    assert drawn is not None and done.statement.released == 40 == len(list((done.out / "images").iterdir()))
    assert done.statement.audited == 25
    assert drawn["released"] == 40 - (25 - sum(done.statement.removed.values()))
    assert drawn["copies"] >= drawn["drawn"] // 2, "every copy is rejected"
    assert drawn["drawn"] == sum(drawn[name] for name in drawn if name != "drawn")
    with open(done.private / "key.csv", newline="") as stream:
        sources = [row["synthetic"] for row in csv.DictReader(stream)]
    entered = [name for name in sources if name.startswith("drawn/")]
    assert len(entered) == drawn["released"]
    assert all(int(name.rpartition("/")[2].removesuffix(".png")) % 2 == 0 for name in entered), "no copy entered"
    assert f"{drawn['copies']} rejected above the threshold" in (done.out / "RELEASE.md").read_text()
    assert done.statement.left.above == sum(done.statement.removed.values()) + drawn["copies"]


def test_the_second_look_leaves_as_many_as_were_asked_for(clinic: Path, tmp_path: Path) -> None:
    done = Release(half_copies(clinic), **options(clinic, tmp_path / "out", top_up_to=40)).run()
    looked = done.statement.looks[0].images
    assert looked > 40
    assert done.statement.released == min(40, looked - done.statement.removed_by_second)


def test_a_generator_of_copies_alone_ends_with_the_counts(clinic: Path, tmp_path: Path) -> None:
    training = np.asarray(Image.open(clinic / "train" / "train00.png")) / 255
    given = options(clinic, tmp_path / "out", top_up_to=30, most_draws=20, **QUICK)
    with pytest.raises(ConfigurationError, match=r"of 20 images that were drawn 0 may enter.*20 are copies"):
        Release(lambda seeds: [training[None] for _ in seeds], **given).run()
    assert not (tmp_path / "out").exists()


def test_no_draw_is_needed_where_enough_are_left(clinic: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="are left without drawing any"):
        Release(half_copies(clinic), **options(clinic, tmp_path / "out", top_up_to=2, **QUICK)).run()


def test_a_batch_that_cannot_be_read_is_counted_and_the_next_one_is_drawn(clinic: Path, tmp_path: Path) -> None:
    def draw(seeds: Sequence[int]) -> list[np.ndarray]:
        first = seeds[0] == 32  # the seed of the first batch times its size
        return [np.zeros((1, *SIZE)) if first else chest_phantom(5000 + seed, SIZE) for seed in seeds]

    done = Release(draw, **options(clinic, tmp_path / "out", top_up_to=25, **QUICK)).run()
    drawn = done.statement.drawn
    assert drawn is not None and drawn["unusable"] == 32 and drawn["drawn"] == 60
    assert done.statement.released == 25
    with pytest.raises(ConfigurationError, match=r"of 40 images that were drawn 0 may enter.*40 cannot be used"):
        blank = options(clinic, tmp_path / "blank", top_up_to=25, most_draws=40, **QUICK)
        Release(lambda seeds: [np.zeros((1, *SIZE)) for _ in seeds], **blank).run()


def test_a_generator_of_one_image_does_not_fill_a_release_with_it(clinic: Path, tmp_path: Path) -> None:
    image = chest_phantom(7000, SIZE)
    given = options(clinic, tmp_path / "out", top_up_to=30, most_draws=64, **QUICK)
    with pytest.raises(ConfigurationError, match=r"of 64 images that were drawn 1 may enter.*63 were rejected for"):
        Release(lambda seeds: [image for _ in seeds], **given).run()


def test_what_was_audited_already_does_not_enter_once_more(clinic: Path, tmp_path: Path) -> None:
    audited = [np.asarray(Image.open(path)) / 255 for path in sorted((clinic / "synthetic").glob("synthetic*.png"))]

    def same_seeds(seeds: Sequence[int]) -> list[np.ndarray]:
        return [audited[s % len(audited)][None] if s % 2 else chest_phantom(5000 + s, SIZE) for s in seeds]

    done = Release(same_seeds, **options(clinic, tmp_path / "out", top_up_to=30, **QUICK)).run()
    images = {Image.open(path).tobytes() for path in (done.out / "images").iterdir()}
    assert len(images) == done.statement.released == 30, "no image is released twice"
    assert done.statement.drawn is not None and done.statement.drawn["others"] > 0
    assert "or audited already" in (done.private / "removed.csv").read_text()


def test_values_that_a_file_would_cut_off_are_refused(clinic: Path, tmp_path: Path) -> None:
    image = chest_phantom(7000, SIZE) * 300 - 100
    given = options(clinic, tmp_path / "out", top_up_to=30, **QUICK)
    with pytest.raises(ConfigurationError, match=r"has values from -100 to .*: draw images in \[0, 1\]"):
        Release(lambda seeds: [image for _ in seeds], **given).run()


def test_signed_tensors_with_gradients_enter_as_well(clinic: Path, tmp_path: Path) -> None:
    def draw(seeds: Sequence[int]) -> torch.Tensor:
        images = np.stack([chest_phantom(5000 + seed, SIZE) for seed in seeds])
        return torch.from_numpy(images).requires_grad_() * 2 - 1

    done = Release(draw, **options(clinic, tmp_path / "out", top_up_to=24, **QUICK)).run()
    assert done.statement.released == 24


def mixed(seeds: Sequence[int]) -> list[object]:
    """Of five images one has NaN, one another size, one three channels, one is text, and one is as it should be."""
    found: list[object] = []
    for seed in seeds:
        image = chest_phantom(5000 + seed, SIZE)
        found.append(
            {
                0: image,
                1: np.full_like(image, np.nan),
                2: chest_phantom(5000 + seed, (48, 40)),
                3: np.repeat(image, 3, axis=0) * [[[1]], [[0.5]], [[0]]],
                4: "no image",
            }[seed % 5]
        )
    return found


def test_images_of_another_size_or_kind_and_nan_are_left_out_by_name_with_counts(clinic: Path, tmp_path: Path) -> None:
    done = Release(mixed, **options(clinic, tmp_path / "out", top_up_to=24, **QUICK)).run()
    drawn = done.statement.drawn
    assert drawn is not None and done.statement.released == 24
    images = [np.asarray(Image.open(path)) for path in (done.out / "images").iterdir()]
    assert {image.shape for image in images} == {SIZE}, "as the audited ones, in size and channels"
    with open(done.private / "removed.csv", newline="") as stream:
        reasons = {row["synthetic"]: row["reason"] for row in csv.DictReader(stream)}
    told = {name: reason for name, reason in reasons.items() if name.startswith("drawn/")}
    by_kind = {int(name.rpartition("/")[2].removesuffix(".png")) % 5: reason for name, reason in told.items()}
    assert by_kind[1] == "with values that are no finite numbers" and by_kind[4] == "no numbers"
    assert by_kind[2] == "of the size 1 x 48 x 40, where the audited images have 1 x 32 x 32"
    assert by_kind[3] == "of the size 3 x 32 x 32, where the audited images have 1 x 32 x 32"
    unusable = [name for name in told if int(name.rpartition("/")[2].removesuffix(".png")) % 5]
    assert len(unusable) == drawn["unusable"] > 0
    assert drawn["drawn"] == sum(drawn[name] for name in drawn if name != "drawn")
    text = (done.out / "RELEASE.md").read_text()
    assert f"{drawn['unusable']} could not be used (" in text and "no finite numbers" in text


def test_a_generator_of_another_size_alone_ends_with_both_sizes(clinic: Path, tmp_path: Path) -> None:
    given = options(clinic, tmp_path / "out", top_up_to=30, most_draws=40, **QUICK)
    with pytest.raises(
        ConfigurationError, match=r"40 cannot be used \(40 of the size 1 x 16 x 16, where .* 1 x 32 x 32"
    ):
        Release(lambda seeds: [chest_phantom(seed, (16, 16)) for seed in seeds], **given).run()
    flat = options(clinic, tmp_path / "flat", top_up_to=30, most_draws=40, **QUICK)
    done = Release(lambda seeds: [chest_phantom(9000 + seed, SIZE)[0] for seed in seeds], **flat).run()
    assert done.statement.released == 30, "without an axis of channels"


def test_a_function_that_fails_is_named_and_the_next_run_goes_on(clinic: Path, tmp_path: Path) -> None:
    def my_sampler(seeds: Sequence[int]) -> list[np.ndarray]:
        if seeds[0] >= 64:
            raise ZeroDivisionError("no more noise")
        return [np.zeros((1, *SIZE)) for _ in seeds]

    given = options(clinic, tmp_path / "out", top_up_to=25, **QUICK)
    with pytest.raises(MemoError, match=r"my_sampler, which draws images, failed for the seeds 64 to .*no more noise"):
        Release(my_sampler, **given).run()
    assert not (tmp_path / "out").exists()
    first = tmp_path / "out.private" / ".monai_memo_work" / "looks" / "first"
    stamp = (first / "pixels" / "training.f16").stat().st_mtime_ns
    done = Release(half_copies(clinic), **given).run()
    assert done.statement.released == 25 and stamp, "with what was looked up before"
    with pytest.raises(MemoError, match=r"lambda.*gave 1 images for \d+ seeds"):
        Release(lambda seeds: [0], **{**given, "out": str(tmp_path / "short")}).run()


class Named:
    """A generator that says what decides its images, fails once, and remembers what it was asked for."""

    def __init__(self, weights: str, fails_at: int = -1) -> None:
        self.weights, self.fails_at, self.asked = weights, fails_at, list[int]()

    def identity(self) -> dict[str, str]:
        return {"weights": self.weights}

    def sample(self, seeds: Sequence[int], conditions: object = None) -> np.ndarray:
        self.asked.append(seeds[0])
        if seeds[0] == self.fails_at:
            raise OSError("the node went away")
        return np.stack([chest_phantom(5000 + seed, SIZE) for seed in seeds])


def test_batches_that_were_drawn_before_an_interruption_are_not_drawn_again(clinic: Path, tmp_path: Path) -> None:
    given = options(clinic, tmp_path / "out", top_up_to=100, **QUICK)
    with pytest.raises(MemoError, match="the node went away"):
        Release(Named("a", 96), **given).run()
    drawn = tmp_path / "out.private" / ".monai_memo_work" / "looks" / "drawn"
    (drawn / "00001" / f"{64:012d}.png").write_bytes(b"damaged")
    again = Named("a")
    done = Release(again, **given).run()
    assert again.asked == [64, 96], "the whole batch is kept, the damaged one is drawn again"
    plain = Release(Named("a"), **options(clinic, tmp_path / "plain", top_up_to=100, **QUICK)).run()
    assert {**done.record["files"], "RELEASE.md": 0} == {**plain.record["files"], "RELEASE.md": 0}


def test_batches_of_another_generator_or_of_one_without_a_name_are_drawn_anew(clinic: Path, tmp_path: Path) -> None:
    given = options(clinic, tmp_path / "out", top_up_to=60, **QUICK)
    with pytest.raises(MemoError, match="the node went away"):
        Release(Named("a", 64), **given).run()
    other = Named("b", 64)
    with pytest.raises(MemoError, match="the node went away"):
        Release(other, **given).run()
    assert other.asked == [32, 64]
    asked = []

    def function(seeds: Sequence[int]) -> list[np.ndarray]:
        asked.append(seeds[0])
        return [chest_phantom(5000 + seed, SIZE) for seed in seeds]

    Release(function, **given).run()
    assert asked == [32, 64]


def test_a_bundle_is_known_by_its_files(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "zoo")
    before = identity_of(str(bundle), None)
    assert before == identity_of(str(bundle), None) and identity_of(str(bundle), len) is None
    (bundle / "models").mkdir(exist_ok=True)
    (bundle / "models" / "model.pt").write_bytes(b"other weights")
    assert identity_of(str(bundle), None) != before


def test_cohorts_of_several_sizes_let_each_of_them_in(clinic: Path, tmp_path: Path) -> None:
    shutil.copytree(clinic / "synthetic", tmp_path / "both")
    Image.fromarray((chest_phantom(1, (48, 40))[0] * 255).astype(np.uint8)).save(tmp_path / "both" / "larger.png")
    (tmp_path / "both" / "broken.png").write_bytes(b"\x89PNG no")
    images = Cohort.from_source(tmp_path / "both", "synthetic").images
    assert shapes_of(images, progress=False) == {(1, *SIZE), (1, 48, 40)}


def test_a_bundle_of_the_model_zoo_is_asked_for_images_by_its_folder(clinic: Path, tmp_path: Path) -> None:
    config = tiny_bundle(tmp_path / "zoo") / "configs" / "inference.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "num_train_timesteps": 60}))
    given = options(clinic, tmp_path / "out", top_up_to=26, most_draws=2, generator=tmp_path / "zoo", **QUICK)
    with pytest.raises(ConfigurationError, match=r"of 2 images that were drawn 0 may enter.*2 of the size 1 x 16 x 16"):
        Release(**given).run()
