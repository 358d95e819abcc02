# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""What the review server answers, to whom, and without which paths: a layer around MONAI Label's web application.

MONAI Label is made for a trusted network: it listens on all interfaces, answers scripts of any web site, takes paths of
the server in place of image ids, and returns paths. Here patients are at stake.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from typing import Any

from monai_memo.errors import ConfigurationError
from monai_memo.label.access import HEADERS, LARGEST_BODY, PAGE_ROUTES, Access, Asked, Routes
from monai_memo.label.forms import checked_form, checked_json
from monai_memo.label.uploads import RequestFiles

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

ROUTES: Routes = (
    *PAGE_ROUTES,
    (("GET",), r"/(info/?|auth/?|openapi\.json|datastore/?)"),
    (("GET", "HEAD"), r"/datastore/(image|label)"),
    (("GET",), r"/datastore/(image|label)/info"),
    (("PUT",), r"/datastore/label"),
    (("POST",), r"/(activelearning|infer)/\w+"),
    (("POST",), r"/(scoring|train)/\w+"),
    (("GET", "DELETE"), r"/(scoring|train)/?"),
)
# MONAI Label passes unknown parameters on, among them folders to load code from.
PARAMETERS = {
    "activelearning": {"rater", "client_id", "strategy"},
    "scoring": {"detector"},
    "train": {"epochs", "learning_rate", "seed", "model", "device"},
}
PLACEHOLDER = "[folder]"
ENCODED = tuple((name.encode(), value.encode()) for name, value in HEADERS)


class Guard:
    """ASGI layer: refuses what is not part of a review, and takes paths out of answers.

    Args:
        application: MONAI Label's.
        folders: paths whose text is taken out of answers.
        remote, hosts: see ``Access``.
        files: where the web application keeps uploads meanwhile.
    """

    def __init__(
        self,
        application: Application,
        folders: Iterable[str] = (),
        remote: bool = False,
        hosts: Iterable[str] = (),
        files: RequestFiles | None = None,
    ) -> None:
        self.application, self.files = application, files
        self.access = Access(ROUTES, remote, hosts)
        # Longest first: a folder's parent may be in the list as well.
        self.folders = sorted({text.rstrip("/") for text in folders if len(text) > 1}, key=len, reverse=True)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.application(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1008})
        refused = self.access.refusal(_asked(scope))
        if refused is not None:
            return await _answer(send, *refused)
        body = None if _announced(scope) > LARGEST_BODY else await _read(receive)
        if body is None:
            return await _answer(send, 413, f"at most {LARGEST_BODY} bytes are taken")
        try:
            check_body(scope["path"], _header(scope, b"content-type"), body)
        except ConfigurationError as error:
            return await _answer(send, 400, str(error))
        if self.files is None:
            return await self.application(scope, _once(body, receive), self._redacting(send))
        with self.files.request():
            return await self.application(scope, _once(body, receive), self._redacting(send))

    def redacted(self, content: bytes) -> bytes:
        """``content`` without the paths of folders."""
        for folder in self.folders:
            for text in {folder, json.dumps(folder)[1:-1]}:
                content = content.replace(text.encode("utf-8"), PLACEHOLDER.encode())
        return content

    def _redacting(self, send: Send) -> Send:
        """Hold text answers back until they are whole; let images pass."""
        start: list[Message] = []
        held: list[bytes] = []

        async def checked(message: Message) -> None:
            if message["type"] == "http.response.start":
                kept = [pair for pair in message["headers"] if not pair[0].lower().startswith(b"access-control-")]
                message["headers"] = [*kept, *ENCODED]
                kind = dict(kept).get(b"content-type", b"")
                if kind.startswith((b"application/json", b"text/plain", b"multipart/")):
                    start.append(message)
                    return
            elif start:
                held.append(message.get("body", b""))
                if message.get("more_body"):
                    return
                content = self.redacted(b"".join(held))
                first = start.pop()
                length = (b"content-length", str(len(content)).encode())
                first["headers"] = [pair for pair in first["headers"] if pair[0].lower() != b"content-length"]
                first["headers"].append(length)
                await send(first)
                message = {"type": "http.response.body", "body": content}
            await send(message)

        return checked


def check_body(path: str, content_type: str, body: bytes) -> None:
    """Refuse a body that MONAI Label would pass on unseen, or stumble over.

    Raises:
        ConfigurationError: no JSON where JSON is due, unknown parameters, or uploads that no review needs.
    """
    room = path.split("/")[1]
    if room == "infer":
        checked_form(content_type, body, {"params"})
        return
    if path == "/datastore/label":
        checked_form(content_type, body, {"params", "label"})
        return
    known = PARAMETERS.get(room)
    if known is None or not body.strip():
        return
    found = checked_json(body, "the body")
    if found is None:
        return
    unknown = sorted(set(found) - known)
    if unknown:
        shown = ", ".join(unknown)[:200]
        raise ConfigurationError(f"unknown parameter {shown}; known: {', '.join(sorted(known))}")


def _asked(scope: MutableMapping[str, Any]) -> Asked:
    return Asked(
        method=scope["method"],
        path=scope["path"],
        raw=(scope.get("raw_path") or b"").decode("latin-1"),
        headers=[(key.decode("latin-1"), value.decode("latin-1")) for key, value in scope["headers"]],
        client=str((scope.get("client") or ("",))[0]),
        server=str((scope.get("server") or ("",))[0]),
    )


def _header(scope: MutableMapping[str, Any], name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in scope["headers"] if key.lower() == name), "")


def _announced(scope: MutableMapping[str, Any]) -> int:
    """Bytes that a request says it has; the server has made sure that it is a number."""
    text = _header(scope, b"content-length")
    return int(text) if text.isdecimal() and len(text) < 20 else 0 if not text else LARGEST_BODY + 1


async def _read(receive: Receive) -> bytes | None:
    """The whole body, or None if it is too large."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return b"".join(parts)
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > LARGEST_BODY:
            return None
        if not message.get("more_body"):
            return b"".join(parts)


def _once(body: bytes, receive: Receive) -> Receive:
    """Give a body that was read already, then what else comes (the end of the connection)."""
    waiting: Sequence[Message] = [{"type": "http.request", "body": body, "more_body": False}]
    left = list(waiting)

    async def again() -> Message:
        return left.pop() if left else await receive()

    return again


async def _answer(send: Send, status: int, reason: str) -> None:
    content = json.dumps({"detail": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode()), *ENCODED]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
