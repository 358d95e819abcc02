# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Columns of a table become what a network is told, in training and in another process."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from monai_memo.data.cohort import Cohort, CohortImage
from monai_memo.errors import ConfigurationError, GeneratorError
from monai_memo.generators.condition_columns import column_names
from monai_memo.generators.conditions import ConditionCode, code_of_cohort, read_conditions
from monai_memo.generators.guidance import (
    ConditionalBatch,
    ConditionedItems,
    Guided,
    conditional,
    conditional_batch,
    conditional_items,
    trained_on,
)
from monai_memo.generators.latent_diffusion import LatentDiffusion
from monai_memo.generators.rejection import RejectingGenerator
from monai_memo.generators.sampler import Sampler
from monai_memo.generators.schedulers import sampling_scheduler
from monai_memo.sealing import load_torch, save_torch
from tests.generators.conftest import tiny_autoencoder

ROWS = [
    {"label": "pneumonia", "sex": "f", "age": "2", "grade": "1"},
    {"label": "pneumonia", "sex": "m", "age": "4", "grade": "2"},
    {"label": "normal", "sex": "f", "age": "", "grade": "1"},
    {"label": "normal", "sex": "f", "age": "6", "grade": "1"},
    {"label": " ", "sex": "m", "age": "NaN", "grade": "1"},
]


def test_text_becomes_classes_and_numbers_are_standardised() -> None:
    code = ConditionCode.of(ROWS, "label,age")
    assert code.text == ("label",) and code.classes == (("",), ("normal",), ("pneumonia",)) and code.counts == (1, 2, 2)
    age = code.numbers[0]
    assert (age.mean, age.missing) == (4.0, 0.4) and age.deviation == pytest.approx(np.std([2, 4, 6]))
    assert (code.num_class_embeds, code.with_conditioning, code.cross_attention_dim) == (4, True, 4)
    told = code.encoded(ROWS)
    assert told["class_labels"].tolist() == [2, 2, 1, 1, 0]
    value, missing, left_out, which = told["context"][:, 0].T.tolist()
    np.testing.assert_allclose(value, [-2 / age.deviation, 0, 0, 2 / age.deviation, 0], rtol=1e-6)
    assert missing == [0, 0, 1, 0, 1], "what is missing is said, and no silent mean"
    assert left_out == [0] * 5 and which == [1] * 5


def test_a_class_is_a_combination_and_numbers_that_are_codes_can_be_classes() -> None:
    code = ConditionCode.of(ROWS, ["sex", "grade:class"])
    assert code.classes == (("f", "1"), ("m", "1"), ("m", "2")) and code.numbers == ()
    with pytest.raises(ConfigurationError, match=r"no training image has sex and grade f / 2; they have f / 1, m / 1"):
        code.encoded([{"sex": "f", "grade": "2"}])
    assert code.encoded([{"sex": "f", "grade": "2"}], strict=False)["class_labels"].tolist() == [3], "as if untold"


def test_without_columns_nothing_changes() -> None:
    cohort = Cohort("training", (CohortImage(Path("a.png"), "a.png", "p", {"label": "x"}),), "x", True)
    code = code_of_cohort(cohort, "none")
    assert not code and (code.num_class_embeds, code.with_conditioning, code.cross_attention_dim) == (None, False, None)
    items, batches, network = object(), object(), torch.nn.Identity()
    assert conditional_items(items, cohort, code) is items and conditional(network, code) is network
    assert conditional_batch(batches, code, 0.1) is batches and trained_on(1, items) == [1]


@pytest.mark.parametrize(
    ("rows", "columns", "words"),
    [
        (ROWS, "lable", "has no column 'lable'; it has age, grade, label, sex"),
        ([{"age": "3"}, {"age": "old"}], "age", "1 numbers and 1 texts, for example 'old'. .*write age:class"),
        ([{"age": ""}, {"age": "n/a"}], "age", "is empty: leave it out"),
        ([{"age": "inf"}, {"age": "1"}], "age", "'inf'"),
        (ROWS, "label,label", "stands there twice"),
        (ROWS, "seed", "a column of its own"),
    ],
)
def test_columns_that_cannot_be_conditions_are_refused(rows: Any, columns: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        ConditionCode.of(rows, columns, "train.csv")


def test_constant_columns_and_classes_of_one_image_are_named(caplog: pytest.LogCaptureFixture) -> None:
    rows = [{"site": "A", "dose": "5", "label": label} for label in ("x", "x", "rare")]
    with caplog.at_level(logging.WARNING):
        ConditionCode.of(rows, "site,dose,label")
    assert "the column site has one value, 'A'" in caplog.text and "dose is constant (5)" in caplog.text
    assert "1 of 2 classes have one image: A / rare" in caplog.text


def test_another_process_takes_the_code_from_the_weights(tmp_path: Path) -> None:
    code = ConditionCode.of(ROWS, "label,sex,age")
    save_torch(tmp_path / "weights.pt", {"conditions": code.record()})
    again = ConditionCode.of_record(load_torch(tmp_path / "weights.pt")["conditions"])
    assert again == code
    for name, rows in code.encoded(ROWS).items():
        assert torch.equal(again.encoded(ROWS)[name], rows)
    assert ConditionCode.of_record(None) == ConditionCode()
    with pytest.raises(GeneratorError, match="describes its conditions in another way"):
        ConditionCode.of_record({"text": ["label"]})


def test_a_column_may_have_a_space_in_its_name() -> None:
    for columns in ("tumour grade, age", ["tumour grade", "age"], "['tumour grade', 'age']", ("tumour grade,age",)):
        code = ConditionCode.of([{"tumour grade": "high", "age": str(50 + n)} for n in range(9)], columns)
        assert [row["tumour grade"] for row in code.resolved(None, [1])] == ["high"]
    assert column_names("tumour grade:class") == column_names("[tumour grade:class]") == [("tumour grade", True)]


def test_what_is_not_given_is_drawn_as_the_training_images_have_it() -> None:
    rows = [{"label": "rare" if i < 10 else "often", "age": str(i)} for i in range(100)]
    code = ConditionCode.of(rows, "label,age")
    drawn = code.resolved(None, range(2000))
    shares = Counter(row["label"] for row in drawn)
    assert 0.08 < shares["rare"] / 2000 < 0.12
    ages = [float(row["age"]) for row in drawn]
    assert 45 < np.mean(ages) < 54 and min(ages) >= np.quantile(range(100), 0.05), "no single patient's extreme"
    assert code.resolved(None, [7])[0] == drawn[7], "by the image's own seed"
    fixed = code.resolved({"label": ["rare", "often"]}, [1, 2])
    assert [row["label"] for row in fixed] == ["rare", "often"] and fixed[0]["age"] == drawn[1]["age"]
    assert all(row["age"] for row in drawn)
    with pytest.raises(ConfigurationError, match="every training image has age"):
        code.encoded([{"label": "rare", "age": ""}])
    with pytest.raises(ConfigurationError, match="takes the conditions label, age, got 'lable'"):
        code.resolved({"lable": ["rare"]}, [1])
    with pytest.raises(ConfigurationError, match="one value for each of the 2 images, got 1"):
        code.resolved({"label": ["rare"]}, [1, 2])


def test_numbers_far_from_all_training_images_are_drawn_and_told(caplog: pytest.LogCaptureFixture) -> None:
    code = ConditionCode.of([{"age": str(age)} for age in range(20, 60)], "age")
    with caplog.at_level("WARNING"):
        code.resolved({"age": ["19", "70", ""]}, range(3))
        assert not caplog.messages
        code.resolved({"age": ["30", "400"]}, range(2))
    assert len(caplog.messages) == 1 and "1 of 2 values of age" in caplog.messages[0] and "400" in caplog.messages[0]


def test_some_images_come_without_their_conditions() -> None:
    code = ConditionCode.of(ROWS, "label,age")
    told = code.encoded(ROWS * 200)

    def plain(batch: Any, device: Any, non_blocking: bool) -> Any:
        assert list(batch) == ["image"], "what is inside knows nothing of conditions"
        return batch["image"], 0, (), {"timesteps": 1}

    items = ConditionedItems([{"image": torch.zeros(1)}] * 1000, told)
    batch = {"image": torch.zeros(1000, 1), **{name: torch.stack([items[i][name] for i in range(1000)])
                                               for name in ("told class_labels", "told context")}}  # fmt: skip
    torch.manual_seed(0)
    _, _, _, further = ConditionalBatch(plain, code, 0.25)(batch)
    without = further["class_labels"] == 3
    assert 0.2 < without.float().mean() < 0.3 and further["timesteps"] == 1
    assert torch.equal(without, further["condition"][:, 0, 2] == 1), "class and numbers go together"
    assert torch.equal(further["condition"][~without], told["context"][~without])
    assert not further["condition"][without, 0, :2].any()
    _, _, _, all_told = ConditionalBatch(plain, code, 0.0)(batch)
    assert torch.equal(all_told["class_labels"], told["class_labels"])


class Shifted(torch.nn.Module):
    """Says 1 for the class normal, 3 for pneumonia and 0 where it is told nothing."""

    def forward(self, x: torch.Tensor, timesteps: torch.Tensor, class_labels: torch.Tensor) -> torch.Tensor:
        said = torch.tensor([1.0, 3.0, 0.0])[class_labels]
        return torch.zeros_like(x) + said.view(-1, *(1,) * (x.ndim - 1))


def test_guidance_goes_so_many_times_from_nothing_to_the_condition() -> None:
    code = ConditionCode.of([{"label": "normal"}, {"label": "pneumonia"}], "label")
    x = torch.zeros(2, 1, 2, 2)
    for scale, expected in ((0.0, [0, 0]), (1.0, [1, 3]), (3.0, [3, 9])):
        network = Guided(Shifted(), code, scale)
        network.choose({"label": ["normal", "pneumonia", "normal"]}, range(2), [5, 6, 7])
        assert network(x, torch.zeros(1)).mean(dim=(1, 2, 3)).tolist() == expected, scale
        network.forget()
        assert network(x, torch.zeros(1)).mean(dim=(1, 2, 3)).tolist() == [0, 0], "nothing chosen, nothing told"


def small_model(code: ConditionCode, scale: float = 1.0) -> LatentDiffusion:
    torch.manual_seed(0)
    scheduler = sampling_scheduler("ddim", 20, "epsilon", 0.0015, 0.02)
    return LatentDiffusion(tiny_autoencoder(), Guided(Shifted(), code, scale), scheduler, 1.0, (2, 8, 8), 2, 3)


def test_the_manifest_says_what_each_sample_was_drawn_for_and_a_resumed_run_agrees(tmp_path: Path) -> None:
    code = ConditionCode.of([{"label": "normal"}] * 3 + [{"label": "pneumonia"}], "label")
    model = small_model(code)
    identity = Sampler(model, tmp_path, 7, 1).model_sha256
    manifest = Sampler(model, tmp_path, 7, 1, progress=False).run()
    text, pictures = manifest.read_text(), [(tmp_path / f"sample_{i:06d}.png").read_bytes() for i in range(7)]
    assert text.splitlines()[0] == "image,seed,model_sha256,sha256,label"
    cohort = Cohort.from_source(manifest, "synthetic")
    labels = [image.columns["label"] for image in cohort.images]
    assert Counter(labels).keys() <= {"normal", "pneumonia"}
    (tmp_path / "sample_000004.png").unlink()
    Sampler(model, tmp_path, 7, 1, progress=False).run()
    assert manifest.read_text() == text
    assert [(tmp_path / f"sample_{i:06d}.png").read_bytes() for i in range(7)] == pictures
    assert Sampler(model, tmp_path, 7, 1).model_sha256 == identity, "what was drawn last is no part of the model"
    assert Sampler(small_model(code, 3.0), tmp_path, 7, 1).model_sha256 != identity
    with pytest.raises(Exception, match="or for other conditions"):
        Sampler(model, tmp_path, 7, 1, progress=False, conditions={"label": ["pneumonia"] * 7}).run()
    other = tmp_path / "other"
    Sampler(model, other, 7, 1, progress=False, conditions={"label": labels}).run()
    assert (other / "manifest.csv").read_text() == text, "the same conditions by hand are the same samples"


def test_samples_that_are_drawn_again_keep_their_conditions() -> None:
    code = ConditionCode.of([{"label": "normal"}, {"label": "pneumonia"}], "label")
    asked: list[Any] = []

    class Spy:
        def conditions_of(self, seeds: Any, conditions: Any = None) -> Any:
            return {"label": [row["label"] for row in code.resolved(conditions, seeds)]}

        def sample(self, seeds: Any, conditions: Any = None) -> Any:
            asked.append(list(conditions["label"]))
            return np.zeros((len(seeds), 1, 2, 2), dtype=np.float32)

    answers = iter([np.array([0.0, 1.0, 1.0]), np.array([0.0, 0.0])])
    RejectingGenerator(Spy(), lambda images: next(answers), 0.5).sample([1, 2, 3])
    assert asked[1] == asked[0][1:]


def test_a_table_of_conditions_is_gone_through_again(tmp_path: Path) -> None:
    table = tmp_path / "wanted.csv"
    table.write_text("\ufefflabel;age\nnormal;3\npneumonia;\n", encoding="utf-8")
    assert read_conditions(table, 3) == {"label": ["normal", "pneumonia", "normal"], "age": ["3", "", "3"]}
    assert read_conditions(None, 3) is None
    table.write_text("image,seed\na.png,1\n")
    with pytest.raises(ConfigurationError, match="needs a line with names of conditions"):
        read_conditions(table, 3)
    with pytest.raises(ConfigurationError, match="cannot read"):
        read_conditions(tmp_path / "none.csv", 3)


def test_numbers_with_a_decimal_comma_are_no_classes() -> None:
    """Each image would have a class of its own, which makes a generator copy."""
    rows = [{"age": f"{number},5"} for number in range(6)]
    with pytest.raises(ConfigurationError, match=r"decimal comma, for example '0,5', which would be 6 classes: write"):
        ConditionCode.of(rows, "age")
    assert len(ConditionCode.of(rows, "age:class").classes) == 6


def test_a_table_of_conditions_says_one_thing_of_each_sample(tmp_path: Path) -> None:
    table = tmp_path / "wanted.csv"
    for text, words in (("label,label\na,b\n", "the column label twice"), ("label,age\na,3,4\n", "with more cells")):
        table.write_text(text)
        with pytest.raises(ConfigurationError, match=words):
            read_conditions(table, 2)
    table.write_text('label,age\n"two\nlines",3\n')
    assert read_conditions(table, 1) == {"label": ["two\nlines"], "age": ["3"]}
