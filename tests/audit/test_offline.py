# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Nothing leaves the machine: docs/privacy.md promises it."""

from __future__ import annotations

import socket
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from monai_memo import Audit

CALLS = ("connect", "connect_ex", "sendto", "sendmsg")
LOOK_UPS = ("getaddrinfo", "gethostbyname", "create_connection")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every attempt to reach something over a socket, by whatever library; none gets through."""
    seen: list[str] = []

    def refused(name: str) -> Any:
        def call(*arguments: object, **further: object) -> None:
            seen.append(name)
            raise OSError(f"{name}: there is no network here")

        return call

    for name in CALLS:
        monkeypatch.setattr(socket.socket, name, refused(name))
    for name in LOOK_UPS:
        monkeypatch.setattr(socket, name, refused(name))
    return seen


def test_an_audit_opens_no_connection_and_looks_up_no_host(
    asked: list[str], demo_folder: Path, detector_file: Path, tmp_path: Path
) -> None:
    cohorts = {"train": "training", "heldout": "heldout", "synthetic": "synthetic"}
    result = Audit(
        **{option: str(demo_folder / name) for option, name in cohorts.items()},
        out=str(tmp_path / "out"), detector=str(detector_file), limit_copies=0, planted=0, parts=False,
        n_bootstrap=100, progress=False,
    ).run()  # fmt: skip
    assert result.n_copies.value > 0 and (tmp_path / "out" / "report.html").is_file()
    assert asked == []


def test_the_watch_sees_libraries_that_ask(asked: list[str]) -> None:
    with pytest.raises(OSError, match="no network here"):
        urllib.request.urlopen("http://127.0.0.1:9")
    assert asked
