# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from monai.networks.schedulers import DDIMScheduler

from monai_memo.errors import ConfigurationError
from monai_memo.generators.schedulers import RectifiedFlow
from monai_memo.membership.attack import Group, attack_model
from monai_memo.membership.blind import blind_scores, pixel_statistics
from monai_memo.membership.denoiser import Denoiser, load_denoiser
from monai_memo.membership.scores import DENOISING, ONE_QUERY, Probe, noise_of, score_images
from monai_memo.membership.words import headline, warnings
from monai_memo.statistics.intervals import Interval
from monai_memo.statistics.membership import by_patient
from monai_memo.statistics.twins import area_under_curve
from tests.membership.conftest import LABELS, SIZE, group, images, memorizer, scheduler, told_memorizer

QUICK = Probe(levels=(0.1, 0.3), draws=2)


def test_a_perfect_memorizer_betrays_all_its_patients() -> None:
    training, heldout = group(0, 24), group(500, 24)
    found = attack_model(memorizer(training.pixels), training, heldout, probe=QUICK, progress=False)
    assert found.main == DENOISING and found.model[DENOISING].auc.value == 1 and found.model[ONE_QUERY].auc.value > 0.9
    assert found.model[DENOISING].p_value < 0.001 and found.level == "members_told"
    assert found.model[DENOISING].found_at[0].found.value == 1


def test_a_model_that_saw_neither_cohort_tells_nobody() -> None:
    """Also of itself: its own training images are told from both."""
    training, heldout, other = group(0, 24), group(500, 24), group(900, 24)
    model = memorizer(other.pixels)
    found = attack_model(model, training, heldout, probe=QUICK, progress=False)
    assert found.level == "not_shown"
    for one in found.model.values():
        assert one.auc.low <= 0.5 <= one.auc.high and one.p_value > 0.05
    assert attack_model(model, other, heldout, probe=QUICK, progress=False).model[DENOISING].auc.value == 1


def test_a_reference_model_takes_away_what_images_are_like_in_themselves() -> None:
    """Half of the training images are hard for every model: without a reference they pass for unseen ones."""
    rng = np.random.default_rng(0)
    pixels = {"training": images(0, 20), "heldout": images(500, 20), "other": images(900, 20)}
    for name in ("training", "heldout"):
        hard = np.arange(20) % 2 == 0
        noise = rng.normal(0, 0.25, pixels[name][hard].shape)
        pixels[name][hard] = np.clip(pixels[name][hard] + noise, 0, 1)
    cohorts = [Group(pixels[name], [f"{name}{i}" for i in range(20)]) for name in ("training", "heldout")]
    # Remembers its images vaguely: clouds of noise around them.
    model = memorizer(np.concatenate([pixels["training"], pixels["other"]]), spread=0.8)
    reference = memorizer(np.concatenate([images(1300, 20), pixels["other"]]), spread=0.8)
    found = attack_model(model, *cohorts, reference=reference, probe=Probe((0.3, 0.6), 2), progress=False)
    assert found.main == f"{DENOISING}, calibrated"
    assert found.model[found.main].auc.value > found.model[DENOISING].auc.value + 0.05
    assert found.reference is not None and found.reference.auc.low <= 0.5 <= found.reference.auc.high


def test_cohorts_that_pixels_alone_tell_apart_say_nothing_of_memory() -> None:
    """The held-out images come from a brighter scanner; the model saw neither cohort."""
    training, heldout = group(0, 30), group(500, 30)
    brighter = Group(np.clip(heldout.pixels * 0.6 + 0.35, 0, 1).astype(np.float32), heldout.patients)
    found = attack_model(memorizer(images(900, 30)), training, brighter, probe=QUICK, progress=False)
    assert found.pixels.auc.low > 0.9 and "pixels alone" in found.cohorts_differ
    assert found.level in ("cohorts_differ", "inconclusive")
    same = attack_model(memorizer(images(900, 30)), training, heldout, probe=QUICK, progress=False)
    assert same.pixels.auc.low <= 0.5 and not same.cohorts_differ


def test_a_reference_that_knows_the_held_out_patients_is_told_of() -> None:
    training, heldout = group(0, 24), group(500, 24)
    found = attack_model(
        memorizer(images(900, 24)), training, heldout, memorizer(heldout.pixels), probe=QUICK, progress=False
    )
    assert found.reference is not None and found.reference.auc.high < 0.5
    assert found.cohorts_differ == ["reference alone"] and found.level == "cohorts_differ"


def test_the_patient_is_the_unit_and_not_the_image() -> None:
    """Eight images of each of ten patients: as many patients are counted, and repeating images adds no certainty."""
    training, heldout = group(0, 40, each=4), group(500, 40, each=4)
    model = memorizer(np.concatenate([training.pixels[:16], images(900, 24)]), spread=0.3)
    once = attack_model(model, training, heldout, probe=QUICK, progress=False)
    assert [len(one) for one in once.scores[DENOISING]] == [10, 10] and len(once.patients[0]) == 10
    twice = attack_model(
        model, Group(np.repeat(training.pixels, 2, axis=0), np.repeat(training.patients, 2)),
        Group(np.repeat(heldout.pixels, 2, axis=0), np.repeat(heldout.patients, 2)), probe=QUICK, progress=False,
    )  # fmt: skip
    assert twice.model[DENOISING].auc == once.model[DENOISING].auc
    assert twice.model[DENOISING].p_value == once.model[DENOISING].p_value


def test_an_image_meets_the_same_noise_in_every_batch_and_under_every_model() -> None:
    whole, names = images(0, 7), [f"image {number}" for number in range(7)]
    model = memorizer(images(900, 5))
    found = score_images(model, whole, names, QUICK, progress=False)
    assert found.shape == (7, len(QUICK.names))
    model.model.batch_size = 3
    order = [4, 0, 6]
    again = score_images(model, whole[order], [names[i] for i in order], QUICK, progress=False)
    np.testing.assert_allclose(again, found[order], rtol=1e-5)
    assert torch.equal(noise_of("a", 0, 0, (2, 3)), noise_of("a", 0, 0, (2, 3)))
    assert not torch.equal(noise_of("a", 0, 0, (2, 3)), noise_of("a", 1, 0, (2, 3)))


def labelled(first: int, count: int) -> Group:
    rows = [{"label": LABELS[number % 2], "site": "A"} for number in range(count)]
    return replace(group(first, count), conditions=rows)


def test_a_model_that_remembers_only_what_it_is_told_betrays_its_patients_to_who_knows_their_conditions() -> None:
    training, heldout = labelled(0, 24), labelled(500, 24)
    model = told_memorizer(training.pixels, training.conditions or [])
    told = attack_model(model, training, heldout, probe=QUICK, progress=False)
    assert told.model[DENOISING].auc.value == 1 and told.model[ONE_QUERY].auc.value > 0.9
    assert told.level == "members_told" and told.conditions is not None and told.conditions.auc.low <= 0.5
    untold = attack_model(
        model, replace(training, conditions=None), replace(heldout, conditions=None), probe=QUICK, progress=False
    )
    assert untold.level == "not_shown" and untold.conditions is None and untold.model[DENOISING].auc.low < 0.5
    swapped = [
        replace(one, conditions=[{"label": LABELS[row["label"] == LABELS[0]]} for row in one.conditions or []])
        for one in (training, heldout)
    ]
    wrong = attack_model(model, *swapped, probe=QUICK, progress=False)
    assert wrong.model[DENOISING].auc.value < 0.8, "told of another class it knows nobody"


def test_what_a_model_is_told_goes_with_its_image_in_every_batch_and_without_guidance() -> None:
    training = labelled(0, 7)
    names = [f"image {number}" for number in range(7)]
    model = told_memorizer(training.pixels, training.conditions or [])
    told = model.told(training.conditions or [], "training")
    assert told["class_labels"].tolist() == [0, 1, 0, 1, 0, 1, 0]
    found = score_images(model, training.pixels, names, QUICK, progress=False, told=told)
    model.model.batch_size, order = 3, [4, 3, 0, 6]
    some = {name: rows[order] for name, rows in told.items()}
    again = score_images(model, training.pixels[order], [names[i] for i in order], QUICK, progress=False, told=some)
    np.testing.assert_allclose(again, found[order], rtol=1e-5)
    for scale in (0.0, 3.0):
        guided = told_memorizer(training.pixels, training.conditions or [], scale=scale)
        np.testing.assert_array_equal(
            score_images(guided, training.pixels, names, QUICK, progress=False, told=told), found
        )
    assert not np.allclose(score_images(model, training.pixels, names, QUICK, progress=False), found)


def test_a_reference_model_is_told_as_well() -> None:
    """Each image is hard for a model that is not told its class, whoever was in the training."""
    training, heldout, others = labelled(0, 20), labelled(500, 20), labelled(900, 20)
    reference = told_memorizer(others.pixels, others.conditions or [])
    asked: list[list[int]] = []
    plain = reference.noise_in
    reference.noise_in = lambda noisy, level, told=None: (  # type: ignore[method-assign]
        asked.append(told["class_labels"].tolist()) or plain(noisy, level, told)  # type: ignore[index,func-returns-value]
    )
    model = told_memorizer(training.pixels, training.conditions or [])
    found = attack_model(model, training, heldout, reference, probe=QUICK, progress=False)
    assert found.main == f"{DENOISING}, calibrated" and found.model[found.main].auc.value == 1
    assert found.reference is not None and found.reference.auc.low <= 0.5 <= found.reference.auc.high
    assert [0, 1] * 8 in asked and {label for batch in asked for label in batch} == {0, 1}


def test_conditions_that_a_model_cannot_be_told_are_refused_or_left_untold() -> None:
    training, heldout = labelled(0, 12), labelled(500, 12)
    model = told_memorizer(training.pixels, training.conditions or [])

    def attack(ours: Any, theirs: Any) -> Any:
        groups = (replace(training, conditions=ours), replace(heldout, conditions=theirs))
        return attack_model(model, *groups, probe=QUICK, progress=False)

    with pytest.raises(ConfigurationError, match=r"the heldout images: no image has label, .*--conditions untold"):
        attack(training.conditions, [{"label": " "}] * 12)
    with pytest.raises(ConfigurationError, match=r"the training images: no training image has label tumour.*untold"):
        attack([{"label": "tumour"}] * 12, heldout.conditions)
    with pytest.raises(ConfigurationError, match=r"of both groups, or of none: the heldout group has none"):
        attack(training.conditions, None)
    rare = [{"label": "tumour"}, *(heldout.conditions or [])[1:]]
    assert model.told(rare, "heldout", strict=False)["class_labels"].tolist()[:2] == [2, 1], "untold"
    assert model.code.unheard(rare) == 1 and model.code.unheard(training.conditions or []) == 0
    assert attack(training.conditions, rare).model[DENOISING].auc.value == 1


def test_classes_that_are_more_common_in_one_cohort_say_nothing_of_memory() -> None:
    training, heldout = labelled(0, 30), labelled(500, 30)
    model = told_memorizer(images(900, 30), training.conditions or [])
    well, ill = ([{"label": LABELS[(number % 10 != 0) == ill]} for number in range(30)] for ill in (False, True))
    groups = replace(training, conditions=well), replace(heldout, conditions=ill)
    found = attack_model(model, *groups, probe=QUICK, progress=False)
    assert found.conditions is not None and found.conditions.auc.low > 0.5
    assert found.cohorts_differ == ["conditions alone"] and found.level in ("cohorts_differ", "inconclusive")


def test_seeds_decide_and_another_seed_is_another_noise() -> None:
    training, heldout, model = group(0, 12), group(500, 12), memorizer(images(900, 12))
    first, second = (attack_model(model, training, heldout, probe=QUICK, progress=False) for _ in range(2))
    assert first.model == second.model
    other = attack_model(model, training, heldout, probe=Probe((0.1, 0.3), 2, seed=1), progress=False)
    assert not np.array_equal(other.scores[DENOISING][0], first.scores[DENOISING][0])


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample", "rflow"])
def test_whatever_a_network_predicts_is_turned_into_the_noise_that_was_added(kind: str) -> None:
    noise: Any = RectifiedFlow(100) if kind == "rflow" else scheduler(prediction_type=kind)
    denoiser = memorizer(images(0, 4), scheduler())
    clean, drawn = denoiser.latents(images(0, 4)), torch.randn(4, 1, *SIZE)

    class Knows(torch.nn.Module):
        def forward(self, x: torch.Tensor, timesteps: torch.Tensor, **_: Any) -> torch.Tensor:
            if kind == "sample":
                return clean
            if kind == "rflow":
                return clean - drawn
            alpha = torch.as_tensor(noise.alphas_cumprod)[timesteps].view(-1, 1, 1, 1)
            return drawn if kind == "epsilon" else alpha.sqrt() * drawn - (1 - alpha).sqrt() * clean

    denoiser.model.diffusion, denoiser.model.scheduler, denoiser.process = Knows(), noise, kind
    noisy = denoiser.noisy(clean, drawn, 30)
    torch.testing.assert_close(denoiser.noise_in(noisy, 30), drawn, rtol=1e-3, atol=1e-3)


def test_a_classifier_of_pixels_is_never_asked_about_patients_that_it_was_fitted_on() -> None:
    """One patient's images are all alike: folds of images would tell the cohorts apart, folds of patients do not."""
    rng = np.random.default_rng(0)
    pixels = [np.repeat(rng.random((12, 1, 8, 8)), 6, axis=0) for _ in range(2)]
    patients = [[f"{name}{number // 6}" for number in range(72)] for name in ("a", "b")]
    scores = blind_scores(*(pixel_statistics(one) for one in pixels), (patients[0], patients[1]))
    ours, theirs = (by_patient(one, names)[0] for one, names in zip(scores, patients, strict=True))
    assert area_under_curve(ours, theirs) < 0.75
    three = pixel_statistics(rng.random((3, 1, 8, 8, 8)))
    assert three.shape[0] == 3 and np.isfinite(three).all()


def test_what_only_draws_images_is_refused_and_told_what_to_do(tmp_path: Any) -> None:
    for model in (lambda seeds: seeds, object()):
        with pytest.raises(
            ConfigurationError, match=r"needs the weights of a diffusion model, got .*audit its samples"
        ):
            Denoiser(model)  # type: ignore[arg-type]
    (tmp_path / "model_index.json").write_text("{}")
    with pytest.raises(
        ConfigurationError, match=r"--bundle .* is no bundle.*monai-memo audit, whose reference control"
    ):
        load_denoiser(tmp_path)
    strange = DDIMScheduler(10)
    strange.prediction_type = "score"
    denoiser = memorizer(images(0, 2))
    denoiser.model.scheduler = strange
    with pytest.raises(ConfigurationError, match="prediction_type must be one of epsilon, v_prediction, sample, rflow"):
        Denoiser(denoiser.model)


def test_swapped_cohorts_are_no_sign_that_weights_can_be_shared() -> None:
    training, heldout = group(0, 24), group(500, 24)
    found = attack_model(memorizer(heldout.pixels), training, heldout, probe=QUICK, progress=False)
    assert found.level == "inconclusive"
    assert headline(found).startswith("No memory is seen, but the cohorts themselves differ")
    (said,) = [text for text in warnings(found, {}, (1.0, 1.0)) if "swapped" in text]
    assert "AUC 0.00" in said and "Check --train and --heldout" in said


def test_cohorts_that_differ_do_not_pass_for_a_model_without_memory() -> None:
    """Held-out images of another scanner may hide what the model remembers."""
    training, heldout = group(0, 24), group(500, 24)
    brighter = Group(np.clip(heldout.pixels * 0.5 + 0.4, 0, 1), heldout.patients)
    found = attack_model(memorizer(images(900, 24)), training, brighter, probe=QUICK, progress=False)
    assert "pixels alone" in found.cohorts_differ and found.level in ("inconclusive", "cohorts_differ")
    assert "says nothing of the model's memory" in headline(found)


def test_the_headline_names_the_score_that_decided() -> None:
    training, heldout = group(0, 24), group(500, 24)
    found = attack_model(memorizer(training.pixels), training, heldout, probe=QUICK, progress=False)
    chance = replace(found.model[ONE_QUERY], auc=Interval(0.5, 0.4, 0.6), p_value=0.4)
    other = replace(found, model={**found.model, found.main: chance}, p_any=0.01)
    assert other.shown and "p = 0.01 after paying for the choice" in headline(other)
    assert "the one that was chosen beforehand: AUC 0.50 (0.40 to 0.60), p = 0.4." in headline(other)
    # Two questions at the whole level would be answered yes by chance alone in more than 5 %.
    assert not replace(other, p_any=0.04).shown and replace(other, p_any=0.04).level == "not_shown"
