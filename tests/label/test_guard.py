# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The layer in front of MONAI Label, with a web application that would answer everything."""

from __future__ import annotations

import asyncio
import json
from collections.abc import MutableMapping
from typing import Any

import pytest

from monai_memo.label.guard import LARGEST_BODY, Guard

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


def test_remote_opens_to_other_machines_but_not_to_other_web_sites() -> None:
    guard = Guard(Everything(), remote=True)
    assert call(guard, "GET", "/info/", client="10.1.2.3", host="review.hospital.example")[0] == 200
    status = call(guard, "GET", "/info/", client="10.1.2.3", host="review.hospital.example", origin="https://a.example")
    assert status[0] == 403


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
