# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The review page, served beside MONAI Label's API, and the two answers that it needs on top of that."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from fastapi import APIRouter, HTTPException
from fastapi.responses import RedirectResponse, Response

from monai_memo.errors import ConfigurationError
from monai_memo.label.pairs import PLANES
from monai_memo.label.pictures import pair_slice
from monai_memo.label.ratings import STRATEGIES, checked_rater
from monai_memo.label.server.datastore import ReviewDatastore

# By name, so that no path of a request ever meets the disk.
FILES = {"review.js": "text/javascript", "review.css": "text/css"}


def _static(name: str) -> bytes:
    return files("monai_memo.label").joinpath("page", name).read_bytes()


def review_routes(datastore: ReviewDatastore) -> APIRouter:
    """``/review/`` (the page), ``/review/progress`` and ``/review/slice``."""
    routes = APIRouter(prefix="/review", tags=["Review"])

    @routes.get("/", include_in_schema=False)
    def page() -> Response:
        return Response(_static("index.html"), media_type="text/html; charset=utf-8")

    @routes.get("/progress", summary="How far a rater is, and what is shown")
    def progress(rater: str, strategy: str = "blinded") -> dict[str, Any]:
        try:
            name = checked_rater(rater)
        except ConfigurationError as error:
            raise HTTPException(400, str(error)) from error
        if strategy not in STRATEGIES:
            raise HTTPException(400, f"strategy must be one of {', '.join(STRATEGIES)}")
        study = datastore.study
        return {
            **datastore.progress(name, strategy),
            "dimension": study.spatial_dims,
            "planes": dict(zip(PLANES, study.shape, strict=True)) if study.spatial_dims == 3 else {},
            "further": len(study.uncertain),
        }

    @routes.get("/slice", summary="One slice through both volumes of a pair (3D), as PNG")
    def one_slice(pair: str, plane: str, index: int) -> Response:
        path = datastore.get_image_uri(pair)
        if not path or datastore.study.spatial_dims != 3:
            raise HTTPException(404, "no such volume")
        try:
            return Response(pair_slice(path, datastore.study.shape, plane, index), media_type="image/png")
        except ValueError as error:
            raise HTTPException(400, str(error)) from error

    @routes.get("/{name}", include_in_schema=False)
    def static(name: str) -> Response:
        if name not in FILES:
            raise HTTPException(404, "not part of a review")
        return Response(_static(name), media_type=f"{FILES[name]}; charset=utf-8")

    return routes


def to_the_page() -> RedirectResponse:
    """``/``: MONAI Label's own start page loads scripts from elsewhere."""
    return RedirectResponse("/review/")
