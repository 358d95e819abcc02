# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The memorization_detection bundle, run as a user runs it: from another folder, no file edited, no network."""

from __future__ import annotations

import inspect
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from pydoc import locate
from typing import Any

import monai
import pytest
import torch
from monai.bundle import ConfigWorkflow, verify_metadata, verify_net_in_out

from monai_memo.__main__ import main
from monai_memo.audit.configuration import AuditConfiguration
from monai_memo.data.phantoms import chest_phantom
from monai_memo.data.writing import save_image
from monai_memo.detector.command import train_detector_command
from monai_memo.detector.detector import Detector
from monai_memo.errors import TrainingError

ROOT = Path(__file__).parents[2]
BUNDLE = ROOT / "bundles" / "memorization_detection"
CONFIGS = BUNDLE / "configs"
SCHEMA = CONFIGS / "schema.json"
SIZE, EPOCHS, N_COPIES = 32, 3, 6


def files(*names: str) -> list[str]:
    return [str(CONFIGS / f"{name}.json") for name in names]


def shell(arguments: list[str], cwd: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def overrides(folder: Path, **further: Any) -> dict[str, Any]:
    common = {
        "bundle_root": BUNDLE,
        "dataset_dir": folder,
        "size": SIZE,
        "device": "cpu",
        "progress": False,
        "workers": 1,
    }
    return {key: str(value) if isinstance(value, Path) else value for key, value in {**common, **further}.items()}


def as_options(values: dict[str, Any]) -> list[str]:
    return [f"--{key}={value}" for key, value in values.items()]


def workflow(kind: str | None, *names: str, **values: Any) -> ConfigWorkflow:
    return ConfigWorkflow(config_file=files(*names), workflow_type=kind, logging_file=False, **values)


@pytest.fixture(scope="module")
def cohorts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 training, 30 held-out, 20 synthetic phantoms; the first six synthetic ones are training images, darker."""
    folder = tmp_path_factory.mktemp("cohorts")
    for name, patients in (("train", range(40)), ("heldout", range(100, 130)), ("synthetic", range(200, 220))):
        for number, patient in enumerate(patients):
            copied = name == "synthetic" and number < N_COPIES
            image = chest_phantom(number if copied else patient, (SIZE, SIZE))
            save_image(folder / name / f"{number:03d}.png", image * 0.8 if copied else image)
    return folder


@pytest.fixture(scope="module")
def trained(cohorts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a training through the command line of monai.bundle."""
    folder = tmp_path_factory.mktemp("trained")
    values = overrides(cohorts, output_dir=folder, detector_file=folder / "detector.pt", epochs=EPOCHS)
    shell(["monai.bundle", "run", f"--config_file={files('train')}", *as_options(values)], cwd=folder)
    return folder


@pytest.fixture(autouse=True)
def leave_no_trace() -> Iterator[None]:
    """Configs seed the process and ask for deterministic algorithms; other tests must not notice."""
    path = list(sys.path)
    yield
    sys.path[:] = path
    monai.utils.set_determinism(None)
    torch.use_deterministic_algorithms(False)


def test_metadata_is_valid_without_download(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("tried to download")

    monkeypatch.setattr("monai.apps.utils._download_with_progress", refuse)
    metadata = CONFIGS / "metadata.json"
    verify_metadata(meta_file=str(metadata), filepath=str(SCHEMA))
    record = json.loads(metadata.read_text(encoding="utf-8"))
    assert record["version"] in record["changelog"]
    record["network_data_format"]["inputs"]["image"].pop("num_channels")
    broken = tmp_path / "metadata.json"
    broken.write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(ValueError, match="Failed validating"):
        verify_metadata(meta_file=str(broken), filepath=str(SCHEMA))


@pytest.mark.parametrize(("dims", "shape"), [(2, [64, 64]), (3, [32, 32, 32])])
def test_network_fits_metadata(dims: int, shape: list[int]) -> None:
    values = {"spatial_dims": dims, "_meta_#network_data_format#inputs#image#spatial_shape": shape}
    arguments: dict[str, Any] = {
        "meta_file": str(CONFIGS / "metadata.json"),
        "config_file": files("inference"),
        "device": "cpu",
    }
    verify_net_in_out("network_def", **arguments, **values)
    with pytest.raises(ValueError, match="doesn't match"):
        verify_net_in_out(
            "network_def", **arguments, **values, **{"_meta_#network_data_format#outputs#pred#num_channels": 127}
        )


def components(config: Any) -> Iterator[dict[str, Any]]:
    if isinstance(config, dict) and "_target_" in config:
        yield config
    for item in config.values() if isinstance(config, dict) else config if isinstance(config, list) else ():
        yield from components(item)


@pytest.mark.parametrize("name", ["train", "multi_gpu_train", "inference", "multi_gpu_inference", "evaluate"])
def test_every_target_takes_the_arguments_it_is_given(name: str) -> None:
    found = [item for item in components(json.loads((CONFIGS / f"{name}.json").read_text())) if "." in item["_target_"]]
    assert found
    for item in found:
        target = locate(item["_target_"])
        assert callable(target), item["_target_"]
        arguments = {key: value for key, value in item.items() if not key.startswith("_")}
        inspect.signature(target).bind(**arguments)


def test_what_the_configs_share_is_the_same_in_each() -> None:
    records = [json.loads((CONFIGS / f"{name}.json").read_text()) for name in ("train", "inference", "evaluate")]
    shared = set.intersection(*map(set, records)) - {"run", "initialize"}
    assert {"network_def", "preprocessing", "train_dir", "size", "device", "settings"} <= shared
    for key in shared:
        assert records[0][key] == records[1][key] == records[2][key], key


def test_audit_has_every_option_of_the_command_line() -> None:
    given = set(json.loads((CONFIGS / "inference.json").read_text())["audit"]) - {"_target_"}
    assert given == set(AuditConfiguration.model_fields)


def test_train_has_the_properties_monai_asks_for(cohorts: Path, tmp_path: Path) -> None:
    values = overrides(cohorts, output_dir=tmp_path, detector_file=tmp_path / "detector.pt", epochs=2)
    flow = workflow("train", "train", **values)
    flow.initialize()
    assert flow.check_properties() == []
    assert flow.max_epochs == 2
    assert (len(flow.train_dataset), len(flow.val_dataset)) == (36, 4)
    assert flow.evaluator is not None and flow.train_inferer is not None


def test_infer_has_the_properties_monai_asks_for(cohorts: Path, tmp_path: Path) -> None:
    flow = workflow("infer", "inference", **overrides(cohorts, output_dir=tmp_path))
    flow.initialize()
    assert flow.check_properties() == []
    batch = torch.as_tensor(flow.dataset[0])[None]
    assert batch.shape == (1, 1, SIZE, SIZE)
    with torch.inference_mode():
        assert flow.inferer(batch, flow.network_def.eval()).shape == (1, 128)


def test_training_gives_the_detector_of_the_command_line(cohorts: Path, trained: Path, tmp_path: Path) -> None:
    mine = Detector.load(trained / "detector.pt")
    same = train_detector_command(
        train=str(cohorts / "train"),
        out=str(tmp_path),
        epochs=EPOCHS,
        size=SIZE,
        device="cpu",
        workers=1,
        progress=False,
    )
    assert mine.sha256 == Detector.load(same).sha256
    assert mine.training_summary == Detector.load(same).training_summary
    assert list((trained / "training" / "tensorboard").iterdir())


def test_training_goes_on_after_an_interruption(
    cohorts: Path, trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    values = overrides(cohorts, output_dir=tmp_path, detector_file=tmp_path / "detector.pt", epochs=EPOCHS)
    for interrupted in (False, True):
        if interrupted:
            (tmp_path / "detector.pt").unlink()
            (tmp_path / "training" / f"checkpoint_epoch={EPOCHS}.pt").unlink()
        caplog.clear()
        with caplog.at_level(logging.INFO):
            flow = workflow("train", "train", **values)
            flow.initialize()
            flow.run()
        assert any("Restored" in message for message in caplog.messages) == interrupted
        assert Detector.load(tmp_path / "detector.pt").sha256 == Detector.load(trained / "detector.pt").sha256


def test_training_needs_enough_images(cohorts: Path, tmp_path: Path) -> None:
    for number in range(5):
        save_image(tmp_path / "few" / f"{number}.png", chest_phantom(number, (SIZE, SIZE)))
    values = overrides(cohorts, train_dir=tmp_path / "few", output_dir=tmp_path / "out")
    with pytest.raises(RuntimeError) as caught:
        workflow("train", "train", **values).initialize()
    assert isinstance(caught.value.__cause__, TrainingError)
    assert "5 usable images" in str(caught.value.__cause__)


def test_audit_gives_the_result_of_the_command_line(cohorts: Path, trained: Path, tmp_path: Path) -> None:
    detector = trained / "detector.pt"
    values = overrides(cohorts, output_dir=tmp_path / "bundle", detector=detector)
    values |= {"audit#n_bootstrap": 100, "audit#planted": 20, "audit#limit_copies": 0, "audit#parts": False}
    shell(["monai.bundle", "run", f"--config_file={files('inference')}", *as_options(values)], cwd=tmp_path)
    sources = {name: cohorts / name for name in ("train", "heldout", "synthetic")}
    options = {"size": SIZE, "device": "cpu", "progress": False, "workers": 1, "n_bootstrap": 100, "planted": 20}
    options |= {"limit_copies": 0, "parts": False}
    options |= {**sources, "out": tmp_path / "command", "detector": detector}
    with pytest.raises(SystemExit, match="0"):
        main(["audit", *as_options(options)])
    records = [json.loads((tmp_path / name / "audit.json").read_text()) for name in ("bundle", "command")]
    for record in records:
        record.pop("timing")
        record["configuration"].pop("out")
    assert records[0] == records[1]
    assert (tmp_path / "bundle" / "matches.csv").read_bytes() == (tmp_path / "command" / "matches.csv").read_bytes()
    assert (tmp_path / "bundle" / "report.html").exists()
    assert not records[0]["detector"]["trained_for_this_audit"]
    # Only the brightness was changed, and preprocessing undoes that: every detector has to find these six.
    assert records[0]["n_copies"]["value"] >= N_COPIES


def test_evaluation_scores_planted_copies(cohorts: Path, trained: Path, tmp_path: Path) -> None:
    values = overrides(cohorts, output_dir=tmp_path, detector=trained / "detector.pt")
    values |= {"evaluation#per_kind": 5, "evaluation#kinds": ["flip", "noise"]}
    flow = workflow(None, "evaluate", **values)
    flow.initialize()
    flow.run()
    record = json.loads((tmp_path / "evaluation.json").read_text())
    assert record["detector"]["sha256"] == Detector.load(trained / "detector.pt").sha256
    assert (record["n_train"], record["n_negatives"]) == (40, 30)
    assert record["scores"]


@pytest.mark.slow
def test_two_ranks_train_one_detector(cohorts: Path, trained: Path, tmp_path: Path) -> None:
    values = overrides(cohorts, output_dir=tmp_path, detector_file=tmp_path / "detector.pt", epochs=2)
    values.pop("device")
    values["train#dataloader#batch_size"] = 8
    torchrun = ["torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m"]
    config = f"--config_file={files('train', 'multi_gpu_train')}"
    output = shell([*torchrun, "monai.bundle", "run", config, *as_options(values)], cwd=tmp_path)
    assert output.count("detector written to") == 1
    # One writer process: event files are named after host and process.
    assert len({path.name.split(".")[-2] for path in (tmp_path / "training" / "tensorboard").iterdir()}) == 1
    detector = Detector.load(tmp_path / "detector.pt")
    # 36 images are 18 for each rank, that is two batches of 8; one rank alone would have four.
    state = torch.load(tmp_path / "training" / "checkpoint_epoch=2.pt", weights_only=True)
    assert state["trainer"]["epoch_length"] == 2
    assert detector.training_summary["epochs"] == 2
    assert detector.sha256 != Detector.load(trained / "detector.pt").sha256
