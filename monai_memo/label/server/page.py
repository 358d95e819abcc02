# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The review page beside MONAI Label's API: the same desk answers as in our own server."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse, Response

from monai_memo.label.desk import Desk


def review_routes(desk: Desk) -> APIRouter:
    """``/review/`` (the page), and what it asks for."""
    routes = APIRouter(prefix="/review", tags=["Review"])

    @routes.api_route("/{name}", methods=["GET", "POST"], include_in_schema=False)
    @routes.get("/", include_in_schema=False)
    async def page(request: Request, name: str = "") -> Response:
        kind, body = request.headers.get("content-type", ""), await request.body()
        answer = await run_in_threadpool(desk.answer, request.method, name, request.url.query, kind, body)
        return Response(answer.content, answer.status, answer.headers, media_type=answer.kind)

    return routes


def to_the_page() -> RedirectResponse:
    """``/``: MONAI Label's own start page loads scripts from elsewhere."""
    return RedirectResponse("/review/")
