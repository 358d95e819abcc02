# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Each bundle passes what the model zoo asks, from a copy and without a network; what is wrong is found."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from monai_memo.__main__ import main
from monai_memo.shipped.places import bundle_names, copy_bundle
from monai_memo.shipped.zoo_checks import check_bundle

EXEMPT = {
    "weights": "exclude_verify_preferred_files_list",
    "data shape": "exclude_verify_shape_list",
    "TorchScript": "exclude_verify_torchscript_list",
}


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("tried to use the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.parametrize("name", bundle_names())
def test_a_copied_bundle_passes_the_zoos_checks(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    copy_bundle(name, tmp_path)
    with pytest.raises(SystemExit, match="0"):
        main(["bundles", "check", f"./{name}"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == name and len(lines) == 14 and "failed" not in " ".join(lines)
    exempt = {line.split("  ")[2].split(":")[0]: line for line in lines if "exempt" in line}
    assert set(exempt) == (set(EXEMPT) if name.endswith("_ldm") else {"weights", "TorchScript"})
    assert all(EXEMPT[check] in line for check, line in exempt.items())


def change(name: str, **values: Any) -> Callable[[Path], None]:
    """Set keys of a config; None takes them out."""

    def apply(bundle: Path) -> None:
        path = bundle / "configs" / name
        config = {key: value for key, value in json.loads(path.read_text()).items() if key not in values}
        path.write_text(json.dumps(config | {key: value for key, value in values.items() if value is not None}))

    return apply


def written(name: str, text: str) -> Callable[[Path], None]:
    return lambda bundle: (bundle / name).write_text(text) and None


@pytest.mark.parametrize(
    ("damage", "check", "words"),
    [
        (lambda bundle: (bundle / "LICENSE").unlink(), "files", "LICENSE is missing"),
        (lambda bundle: (bundle / "docs" / "data_license.txt").unlink(), "files", "data_license.txt is missing"),
        (written("configs/train.json", "{"), "files", "configs/train.json is no JSON"),
        (lambda bundle: (bundle / "models" / "big.pt").write_bytes(bytes(26 * 2**20)), "files", "more than 25 MB"),
        (written("large_files.yml", 'large_files: [{path: "../x.pt", url: u}]'), "weights", "outside of the bundle"),
        (change("metadata.json", version="0.9.9"), "version and changelog", "0.9.9 is not in changelog"),
        (change("metadata.json", numpy_version="new"), "requirements", "numpy_version"),
        (change("metadata.json", network_data_format=None), "metadata", "'network_data_format' is a required property"),
        (lambda bundle: (bundle / "configs" / "schema.json").unlink(), "metadata", "would download one"),
        (written("docs/README.md", "# Title\n[x](../../other.md)\n"), "README", "no heading Model Description"),
        (written("docs/README.md", "# Title\n[x](../../other.md)\n"), "README", "links to ../../other.md"),
        (change("inference.json", network_def=None), "keys", "inference.json has no network_def"),
        (change("inference.json", size=None), "each config complete in itself", "refers to size"),
        (
            change("train.json", dataset_dir="/" + "home/me/data"),
            "no personal paths",
            "train.json names a folder in /home",
        ),
        (change("train.json", train={}), "properties", "train::trainer"),
        (change("inference.json", channels=3), "data shape", "network_def does not do"),
    ],
)
def test_what_the_zoo_would_refuse_is_found(
    damage: Callable[[Path], Any], check: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = copy_bundle("memorization_detection", tmp_path)
    damage(bundle)
    problems = {finding.check: " ".join(finding.problems) for finding in check_bundle(bundle) if finding.problems}
    assert words in problems[check]


def test_a_refused_bundle_ends_with_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = copy_bundle("chest_xray_ldm", tmp_path)
    (bundle / "LICENSE").unlink()
    with pytest.raises(SystemExit, match="2"):
        main(["bundles", "check", str(bundle)])
    told = capsys.readouterr()
    assert "failed  files: LICENSE is missing" in told.out and "would refuse chest_xray_ldm" in told.err


def test_weights_that_are_linked_or_there_need_no_exemption(tmp_path: Path) -> None:
    bundle = copy_bundle("memorization_detection", tmp_path)
    (bundle / "large_files.yml").write_text(
        'large_files:\n  - path: "models/model.pt"\n    url: "https://a.example/m"\n'
    )
    assert not [finding for finding in check_bundle(bundle) if finding.exempt or finding.problems]
