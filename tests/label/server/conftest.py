# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""A real MONAI Label server on a free port of this machine. Run by ``./runtests.sh --label``."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from monai_memo.label.prepare import prepare_review

if find_spec("monailabel") is None:
    collect_ignore_glob = ["test_*.py"]

ROOT = Path(__file__).resolve().parents[3]


@dataclass
class Server:
    """A running server and the audit that it serves."""

    audit: Path
    port: int
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def request(self, method: str, path: str, **further: Any) -> Any:
        import requests

        return requests.request(method, self.url + path, timeout=120, **further)

    def rate(self, pair: str, **params: Any) -> Any:
        import json

        return self.request(
            "PUT", "/datastore/label", params={"image": pair, "tag": "final"},
            data={"params": json.dumps(params)}, files={"label": ("rating.json", b"{}")},
        )  # fmt: skip

    def next(self, rater: str, strategy: str = "blinded") -> str | None:
        answer = self.request("POST", f"/activelearning/{strategy}", json={"rater": rater})
        assert answer.status_code == 200, answer.text
        found: str | None = answer.json().get("id")
        return found

    def stop(self, kill: bool = False) -> None:
        self.process.send_signal(signal.SIGKILL if kill else signal.SIGINT)
        self.process.wait(60)


def start(audit: Path, *options: str) -> Server:
    """Start ``monai-memo review-server --monai_label`` and wait until it answers."""
    import requests

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [
        sys.executable,
        "-m",
        "monai_memo",
        "review-server",
        "--audit",
        str(audit),
        "--port",
        str(port),
        "--monai_label",
        *options,
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with open(audit / "server.log", "ab") as log:
        process = subprocess.Popen(command, cwd=audit, env=environment, stdout=log, stderr=subprocess.STDOUT)
    server = Server(audit, port, process)
    for _ in range(600):
        if process.poll() is not None:
            break
        try:
            if requests.get(server.url + "/info/", timeout=5).status_code == 200:
                return server
        except requests.ConnectionError:
            time.sleep(0.3)
    server.process.kill()
    raise AssertionError((audit / "server.log").read_text(errors="replace")[-4000:])


@pytest.fixture(scope="session")
def server(finished_audit: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """2D: 12 pairs of the sample and 3 further ones; a generator bundle is at hand."""
    from tests.label.test_generator import write_bundle

    folder = tmp_path_factory.mktemp("served")
    audit = Path(shutil.copytree(finished_audit, folder / "audit"))
    prepare_review(str(audit), n=12, n_uncertain=3, progress=False)
    running = start(audit, "--generator", str(write_bundle(folder / "phantom_ldm")))
    yield running
    if running.process.poll() is None:
        running.stop()


@pytest.fixture(scope="session")
def server_3d(finished_audit_3d: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """3D, not blind, and prepared by the server itself: all 10 pairs."""
    audit = Path(shutil.copytree(finished_audit_3d, tmp_path_factory.mktemp("served3d") / "audit"))
    running = start(audit, "--noblind")
    yield running
    running.stop()
