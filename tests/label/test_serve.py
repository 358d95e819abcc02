# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

import pytest

from monai_memo.errors import ConfigurationError, OutputError
from monai_memo.label import serve
from monai_memo.label.audit_folder import AuditFolder
from monai_memo.label.prepare import open_study, prepare_review
from monai_memo.label.web import ReviewServer
from monai_memo.workspace.locking import LOCK, FolderLock, let_go
from monai_memo.workspace.output_folder import OutputFolder

SERVE = "import sys, time; from pathlib import Path; from monai_memo.label.audit_folder import AuditFolder; "
SERVE += "from monai_memo.label.serve import serve_alone; serve_alone(AuditFolder(Path(sys.argv[1]))); "
SERVE += "print('served', flush=True); time.sleep(60)"


def test_an_address_of_the_network_needs_a_word(audit: Path) -> None:
    for host in ("0.0.0.0", "10.0.0.5", "review.hospital.example", "::"):
        with pytest.raises(ConfigurationError, match="--remote"):
            serve.review_server(str(audit), host=host)


def test_without_monai_label_it_says_how_to_get_it(audit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"constraints-label\.txt"):
        serve.review_server(str(audit), monai_label=True)
    assert not (audit / "review").exists()


def test_our_own_server_needs_no_monai_label(
    audit: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(serve, "find_spec", lambda name: None)
    found: list[bytes] = []

    def once(server: ReviewServer, poll_interval: float) -> None:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        with urllib.request.urlopen(
            f"http://127.0.0.1:{server.server_port}/review/next?rater=anna", timeout=60
        ) as answer:
            found.append(answer.read())
        thread.join()
        with pytest.raises(OutputError, match="is serving it to raters"), FolderLock(audit / "review", "other"):
            pass

    monkeypatch.setattr(ReviewServer, "serve_forever", once)
    serve.review_server(str(audit), port=free_port())
    study = open_study(AuditFolder(audit))
    assert json.loads(found[0])["id"] in {pair.pair_id for pair in study.sample}
    assert "review page: http://127.0.0.1:" in capsys.readouterr().out
    with FolderLock(audit / "review", "other"):  # given back at the end
        pass


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_the_server_writes_into_the_audits_folder_only(audit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[str, list[str], dict[str, str]]] = []
    monkeypatch.setattr(serve, "find_spec", lambda name: object())
    monkeypatch.setattr(os, "execve", lambda *arguments: started.append(arguments))
    serve.review_server(str(audit), port=8123, blind=False, monai_label=True)
    program, command, environment = started[0]
    assert command[:4] == [program, "-m", "monailabel.main", "start_server"]
    options = dict(zip(command[4::2], command[5::2], strict=False))
    assert options["--host"] == "127.0.0.1" and options["--port"] == "8123" and options["--studies"] == str(audit)
    assert Path(options["--app"]) == audit / "review" / "app" and (audit / "review" / "app" / "main.py").exists()
    assert command[-6:] == ["--conf", "blind", "false", "--conf", "remote", "false"]
    serve.review_server(
        str(audit), host="0.0.0.0", remote=True, hosts="review.hospital.example, review", monai_label=True
    )
    assert started[1][1][-3:] == ["--conf", "hosts", "review.hospital.example,review"]
    serve.review_server(str(audit), host="10.0.0.5", remote=True, monai_label=True)
    assert started[2][1][-3:] == ["--conf", "hosts", "10.0.0.5"]
    with pytest.raises(ConfigurationError, match="add --remote"):
        serve.review_server(str(audit), hosts="review")
    for name in ("http://review", "*", "a/b", "*.hospital.example"):
        with pytest.raises(ConfigurationError, match="hosts must be names or addresses"):
            serve.review_server(str(audit), remote=True, hosts=name)
    assert environment["PATH"].split(os.pathsep)[0] == str(Path(program).parent)
    assert (audit / "review" / "study.json").exists()


def test_bundle_and_moved_cohorts_are_handed_on(audit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "find_spec", lambda name: object())
    with pytest.raises(ConfigurationError, match="no generator bundle"):
        serve.review_server(str(audit), generator=str(tmp_path), monai_label=True)
    with pytest.raises(ConfigurationError, match="generator is for an infer task of MONAI Label: add --monai_label"):
        serve.review_server(str(audit), generator=str(tmp_path))
    command, _ = serve.server_command(AuditFolder(audit), "127.0.0.1", 1, [("train", "x")])
    assert command[-3:] == ["--conf", "train", "x"]


def test_a_review_is_served_by_one_server_and_stays_where_it_is_meanwhile(
    audit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []
    monkeypatch.setattr(serve, "find_spec", lambda name: object())
    monkeypatch.setattr(os, "execve", lambda program, *_: started.append(program))
    study = prepare_review(str(audit), n=4, progress=False)
    process = subprocess.Popen([sys.executable, "-c", SERVE, str(audit)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "served\n"
        said = rf"review is in use: process {process.pid} \(monai-memo review-server\), started 20.* End it first"
        with pytest.raises(OutputError, match=said):
            serve.review_server(str(audit), monai_label=True)
        with pytest.raises(OutputError, match=said):
            serve.review_server(str(audit))
        with pytest.raises(OutputError, match=said):
            prepare_review(str(audit), n=4, restart=True, progress=False)
        with pytest.raises(OutputError, match=said), OutputFolder(audit, "audit"):  # it would move the review away
            pass
        assert started == [] and not list(audit.glob("review.old*")) and not (audit / "earlier").exists()
        written = ["review.json", "report.html"]
        with OutputFolder(audit, "review", writes=written, shared=["report.html"]) as output:  # how far raters are
            output.clear()
    finally:
        process.kill()
        process.wait()
    serve.review_server(str(audit), monai_label=True)
    assert len(started) == 1, "a server that was killed blocks nobody"
    assert not (audit / "review" / LOCK).exists() and not (audit / LOCK).exists()
    assert prepare_review(str(audit), n=4, restart=True, progress=False) == study


def test_no_server_starts_while_an_audit_writes(audit: Path) -> None:
    prepare_review(str(audit), n=4, progress=False)
    with FolderLock(audit, "audit"), pytest.raises(OutputError, match=r"\(monai-memo audit\), started .* is writing"):
        serve.serve_alone(AuditFolder(audit))
    serve.serve_alone(AuditFolder(audit))
    let_go(audit / "review")
    assert not (audit / "review" / LOCK).exists()
