# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The layer in front of MONAI Label, with a web application that would answer everything."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import pytest

from monai_memo.label.guard import LARGEST_BODY, Guard
from monai_memo.label.uploads import RequestFiles

HOME = "/srv/hospital/audits/trial 7"


def call(
    guard: Guard,
    method: str,
    path: str,
    body: bytes = b"",
    client: str = "127.0.0.1",
    parts: int = 1,
    **headers: str,
) -> tuple[int, dict[str, str], bytes]:
    """One request; returns status, headers and body."""
    given = {"host": "127.0.0.1:8000", **{name.replace("_", "-"): value for name, value in headers.items()}}
    scope = {
        "type": "http", "method": method, "path": path, "raw_path": path.encode(), "client": (client, 5000),
        "server": ("10.0.0.5", 8000),
        "headers": [(name.encode(), value.encode()) for name, value in given.items()],
    }  # fmt: skip
    size = max(1, -(-len(body) // parts))
    waiting = [body[start : start + size] for start in range(0, max(1, len(body)), size)]
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        part = waiting.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(waiting)}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    asyncio.run(guard(scope, receive, send))
    found = {key.decode(): value.decode() for key, value in sent[0]["headers"]}
    return sent[0]["status"], found, b"".join(message.get("body", b"") for message in sent[1:])


class Everything:
    """Answers every request, and remembers what reached it."""

    def __init__(self, kind: str = "application/json", content: bytes = b'{"fine": true}') -> None:
        self.kind, self.content, self.reached = kind, content, [b""][:0]

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            self.reached.append(scope["type"].encode())
            return
        self.reached.append((await receive())["body"])
        headers = [
            (b"content-type", self.kind.encode()), (b"content-length", str(len(self.content)).encode()),
            (b"access-control-allow-origin", b"*"),
        ]  # fmt: skip
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        half = len(self.content) // 2
        await send({"type": "http.response.body", "body": self.content[:half], "more_body": True})
        await send({"type": "http.response.body", "body": self.content[half:]})


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/review/"), ("GET", "/review/review.js"), ("GET", "/info/"), ("GET", "/datastore/image"),
        ("PUT", "/datastore/label"), ("POST", "/activelearning/blinded"), ("POST", "/infer/evidence"),
        ("POST", "/train/detector"), ("GET", "/train/"), ("GET", "/"),
    ],
)  # fmt: skip
def test_what_a_review_needs_passes(method: str, path: str) -> None:
    status, headers, body = call(Guard(Everything()), method, path)
    assert (status, json.loads(body)) == (200, {"fine": True})
    assert headers["cache-control"] == "no-store" and "default-src 'self'" in headers["content-security-policy"]
    assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/review/../audit.json"), ("GET", "/review/..%2faudit.json"), ("GET", "/review/%2e%2e/x"),
        ("GET", "/review/..\\audit.json"), ("GET", "/review/a/b"), ("GET", "//etc/passwd"), ("GET", "/review/\0"),
        ("PUT", "/datastore/image"), ("DELETE", "/datastore/image"), ("DELETE", "/datastore/label"),
        ("PUT", "/datastore/label/info"), ("GET", "/datastore/dataset"), ("PUT", "/session/"), ("GET", "/logs/"),
        ("GET", "/proxy/dicom/wado/x"), ("GET", "/ohif/index.html"), ("GET", "/model/evidence"), ("POST", "/reload"),
        ("PUT", "/model/evidence"), ("POST", "/batch/infer/evidence"), ("POST", "/infer/wsi/evidence"),
        ("OPTIONS", "/info/"), ("GET", "/docs"), ("GET", "/static/../x"),
    ],
)  # fmt: skip
def test_everything_else_does_not(method: str, path: str) -> None:
    application = Everything()
    status, _, body = call(Guard(application), method, path)
    assert status == 404 and json.loads(body)["detail"] == "not part of a review" and application.reached == []


def test_other_machines_names_and_web_sites_are_refused() -> None:
    application = Everything()
    guard = Guard(application)
    assert call(guard, "GET", "/info/", client="10.1.2.3")[0] == 403
    assert call(guard, "GET", "/info/", client="")[0] == 403
    assert call(guard, "GET", "/info/", host="attacker.example:8000")[0] == 403
    assert call(guard, "GET", "/info/", origin="https://attacker.example")[0] == 403
    assert call(guard, "GET", "/datastore/image", sec_fetch_site="cross-site", sec_fetch_mode="no-cors")[0] == 403
    assert application.reached == []
    for headers in (
        {"origin": "http://127.0.0.1:8000"}, {"host": "localhost:8000"}, {"host": "[::1]:8000", "client": "::1"},
        {"client": "::ffff:127.0.0.1"}, {"sec_fetch_site": "same-origin"},
    ):  # fmt: skip
        assert call(guard, "GET", "/info/", **headers)[0] == 200, headers


def test_remote_opens_to_other_machines_under_known_names_alone() -> None:
    application = Everything()
    guard = Guard(application, remote=True, hosts=["review.hospital.example", "fd00::5"])
    far: dict[str, str] = {"client": "10.1.2.3"}
    for host in ("review.hospital.example", "REVIEW.hospital.example:8000", "10.0.0.5:8000", "[fd00::5]:8000"):
        assert call(guard, "GET", "/info/", host=host, **far)[0] == 200, host
        assert call(guard, "GET", "/info/", host=host, origin=f"http://{host}", **far)[0] == 200, host
    count = len(application.reached)
    for host in ("attacker.example", "review.hospital.example.attacker.example", "10.0.0.6", "", "localhost", "[::1]"):
        assert call(guard, "GET", "/info/", host=host, **far)[0] == 403, host
    for origin in (
        "https://a.example", "null", "", "http://review.hospital.example:1", "ftp://review.hospital.example",
        "http://review.hospital.example.a.example", "http://10.0.0.5:8000",
    ):  # fmt: skip
        status = call(guard, "PUT", "/datastore/label", host="review.hospital.example", origin=origin, **far)[0]
        assert status == 403, origin
    assert len(application.reached) == count
    assert call(guard, "GET", "/info/", host="localhost:8000")[0] == 200, "from the machine itself"


def test_headers_sent_twice_are_refused() -> None:
    application = Everything()
    sent = asked(Guard(application), [(b"host", b"127.0.0.1"), (b"Host", b"attacker.example")])
    assert sent[0]["status"] == 400 and b"host was sent twice" in sent[1]["body"] and application.reached == []


def asked(guard: Guard, headers: list[tuple[bytes, bytes]]) -> list[MutableMapping[str, Any]]:
    scope = {
        "type": "http", "method": "GET", "path": "/info/", "client": ("127.0.0.1", 1), "headers": headers,
    }  # fmt: skip
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": b""}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    asyncio.run(guard(scope, receive, send))
    return sent


def form(fields: dict[str, tuple[str | None, bytes]]) -> tuple[bytes, str]:
    """A multipart body and its content type, as browsers send them."""
    parts = []
    for name, (file, content) in fields.items():
        head = f'Content-Disposition: form-data; name="{name}"' + (f'; filename="{file}"' if file else "")
        parts.append(b"--edge\r\n" + head.encode() + b"\r\n\r\n" + content + b"\r\n")
    return b"".join(parts) + b"--edge--\r\n", "multipart/form-data; boundary=edge"


RATING = json.dumps({"rating": "copy", "rater": "Zo\u00eb", "seconds": 1.5}).encode()


def test_ratings_and_evidence_pass_as_clients_send_them() -> None:
    application = Everything()
    guard = Guard(application)
    for method, path, (body, kind) in (
        ("PUT", "/datastore/label", form({"params": (None, RATING), "label": ("rating.json", RATING)})),
        ("PUT", "/datastore/label", (b"params=" + b"%7B%7D", "application/x-www-form-urlencoded")),
        ("POST", "/infer/evidence", form({"params": (None, b'{"plane": "axial", "slice": 3}')})),
        ("POST", "/infer/evidence", form({"params": (None, b"")})),
        ("POST", "/infer/evidence", (b"--edge--\r\n", "multipart/form-data; boundary=edge")),
        ("POST", "/infer/evidence", (b"", "")),
    ):
        assert call(guard, method, path, body, content_type=kind)[0] == 200, (path, body)
        assert application.reached[-1] == body


@pytest.mark.parametrize(
    "bad",
    [
        b"{", b"nonsense", b"[1]", b"3", b'"text"', b"true", b"null", b'{"seconds": NaN}', b'{"seconds": Infinity}',
        b"[" * 100_000, b'{"a":' * 30 + b"1" + b"}" * 30, b'{"a":' * 90_000, b"\xff\xfe", b'{"seconds": ' + b"1" * 9000,
        b'{"seconds": ' + b"1" * 9000 + b"}", b"{'rating': 'copy'}",
    ],
    ids=range(16),
)  # fmt: skip
def test_malformed_json_is_a_clear_400_at_every_endpoint(bad: bytes) -> None:
    application = Everything()
    guard = Guard(application)
    for method, path in (("PUT", "/datastore/label"), ("POST", "/infer/evidence"), ("POST", "/infer/sample")):
        body, kind = form({"params": (None, bad)})
        status, _, answer = call(guard, method, path, body, content_type=kind)
        detail = json.loads(answer)["detail"]
        assert status == 400 and ("params must be" in detail or "form cannot" in detail) and len(answer) < 400, answer
    for path in ("/activelearning/blinded", "/scoring/similarity", "/train/detector"):
        if bad != b"null":
            status, _, answer = call(guard, "POST", path, bad)
            assert status == 400 and "the body must be" in json.loads(answer)["detail"] and len(answer) < 400, path
    assert application.reached == []


def test_uploads_and_damaged_forms_are_refused() -> None:
    application = Everything()
    guard = Guard(application)
    volume = b"\x1f\x8b" * 40_000
    for path, (body, kind), words in (
        ("/infer/evidence", form({"file": ("scan.nii.gz", volume)}), "unknown field file"),
        ("/infer/evidence", form({"label": ("scan.nii.gz", volume)}), "unknown field label"),
        ("/datastore/label", form({"params": (None, RATING), "label": ("scan.nii.gz", volume)}), "at most 65536 bytes"),
        ("/datastore/label", (form({"params": (None, RATING)})[0][:-9], "multipart/form-data; boundary=edge"), "form"),
        ("/datastore/label", (form({"params": (None, RATING)})[0], "multipart/form-data; boundary=other"), "form"),
        ("/datastore/label", (form({"params": (None, RATING)})[0], "multipart/form-data"), "form"),
        ("/datastore/label", (RATING, "application/json"), "must be a form"),
        ("/datastore/label", (RATING, "multipart/form-data; boundary=\n\nedge"), "form"),
        ("/datastore/label", (b"&".join([b"a=1"] * 5000), "application/x-www-form-urlencoded"), "form"),
    ):
        status, _, answer = call(guard, "PUT" if "label" in path else "POST", path, body, content_type=kind)
        assert status == 400 and words in json.loads(answer)["detail"], (words, answer)
    assert application.reached == []


def test_what_a_request_leaves_in_the_temporary_folder_is_removed(tmp_path: Path) -> None:
    left = subprocess.Popen([sys.executable, "-c", ""])
    left.wait()
    dead, foreign = tmp_path / f"monai-memo-review-{left.pid}-x", tmp_path / "monai-memo-review-notes"
    for folder in (dead, foreign):
        folder.mkdir()
        (folder / "scan.nii.gz").write_bytes(b"patient")
    files = RequestFiles(tmp_path)
    assert not dead.exists() and (foreign / "scan.nii.gz").exists()
    assert files.folder.stat().st_mode & 0o077 == 0, "nobody else can look into it"
    seen: list[int] = []

    class Uploading(Everything):
        async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
            with tempfile.NamedTemporaryFile(suffix=".nii.gz", delete=False) as stream:
                stream.write(b"patient")
            (files.folder / "sub").mkdir(exist_ok=True)
            seen.append(len(list(files.folder.iterdir())))
            if scope["method"] == "PUT":
                raise RuntimeError("no such pair")
            await super().__call__(scope, receive, send)

    before = tempfile.tempdir
    try:
        files.use()
        guard = Guard(Uploading(), files=files)
        assert call(guard, "GET", "/info/")[0] == 200 and list(files.folder.iterdir()) == []
        body, kind = form({"params": (None, RATING)})
        with pytest.raises(RuntimeError):
            call(guard, "PUT", "/datastore/label", body, content_type=kind)
        assert list(files.folder.iterdir()) == [] and seen == [2, 2]
        with files.request():
            (files.folder / "answer.png").write_bytes(b"x")
            assert call(guard, "GET", "/info/")[0] == 200
            assert (files.folder / "answer.png").exists(), "another request still sends it"
        assert list(files.folder.iterdir()) == []
    finally:
        files.close()
        tempfile.tempdir = before
    assert not files.folder.exists()


def test_parameters_that_monai_label_would_pass_on_unseen_are_checked() -> None:
    application = Everything()
    guard = Guard(application)
    body = json.dumps({"bundle_path": "/evil", "epochs": 2}).encode()
    status, _, answer = call(guard, "POST", "/train/detector", body)
    assert status == 400 and "unknown parameter bundle_path" in json.loads(answer)["detail"]
    for bad in (b"{", b"[1]"):
        assert call(guard, "POST", "/activelearning/blinded", bad)[0] == 400
    assert application.reached == []
    good = json.dumps({"rater": "anna"}).encode()
    assert call(guard, "POST", "/activelearning/blinded", good, parts=3)[0] == 200 and application.reached == [good]
    assert call(guard, "POST", "/scoring/similarity", b"null")[0] == 200


def test_large_bodies_are_refused() -> None:
    application = Everything()
    assert call(Guard(application), "PUT", "/datastore/label", b"x" * (LARGEST_BODY + 1), parts=5)[0] == 413
    for length in (str(LARGEST_BODY + 1), "9" * 5000, "-1", "x"):
        assert call(Guard(application), "PUT", "/datastore/label", b"x", content_length=length)[0] == 413, length
    assert application.reached == []


def test_paths_are_taken_out_of_text_and_images_pass_untouched() -> None:
    folders = ["/srv/hospital", HOME, "/homes/anna", "/", ""]
    text = json.dumps({"details": [f"cannot open {HOME}/audit.json", "/srv/hospital/x", "/homes/annabel is another"]})
    status, headers, body = call(Guard(Everything(content=text.encode()), folders), "GET", "/train/")
    assert status == 200 and int(headers["content-length"]) == len(body)
    assert b"/srv" not in body and b"[folder]/audit.json" in body and json.loads(body)["details"][1] == "[folder]/x"
    picture = b"\x89PNG" + HOME.encode()
    assert call(Guard(Everything("image/png", picture), folders), "GET", "/datastore/image")[2] == picture


def test_other_protocols() -> None:
    application = Everything()
    guard = Guard(application)
    sent: list[MutableMapping[str, Any]] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    asyncio.run(guard({"type": "websocket"}, None, send))  # type: ignore[arg-type]
    assert sent == [{"type": "websocket.close", "code": 1008}] and application.reached == []
    asyncio.run(guard({"type": "lifespan"}, None, send))  # type: ignore[arg-type]
    assert application.reached == [b"lifespan"]
