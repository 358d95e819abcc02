# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The MONAI Label app of a review."""

from __future__ import annotations

import atexit
import logging
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastapi import HTTPException
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.tasks.infer_v2 import InferTask
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.interfaces.tasks.train import TrainTask
from monailabel.utils.others.generic import strtobool

from monai_memo import __version__
from monai_memo.errors import MemoError
from monai_memo.label.audit_folder import AuditFolder
from monai_memo.label.desk import Desk
from monai_memo.label.guard import Guard
from monai_memo.label.prepare import STUDY, open_study, prepare_review
from monai_memo.label.ratings import RATINGS
from monai_memo.label.serve import serve_alone
from monai_memo.label.server.datastore import ReviewDatastore
from monai_memo.label.server.infers import EvidenceTask, SampleTask
from monai_memo.label.server.page import review_routes, to_the_page
from monai_memo.label.server.scoring import SimilarityScoring
from monai_memo.label.server.strategies import Adjudication, Blinded, Uncertain
from monai_memo.label.server.trainers import FineTuneTask
from monai_memo.label.uploads import RequestFiles
from monai_memo.workspace.locking import let_go

logger = logging.getLogger(__name__)


class ReviewApp(MONAILabelApp):
    """Serves the pairs of an audit to raters.

    Args:
        app_dir: folder of the app.
        studies: output folder of an audit. A review is prepared there if none has been.
        conf: ``generator`` (folder of a generator bundle), ``train`` and ``synthetic`` (where the cohorts are, if they
            have moved), ``blind`` (``false`` answers similarities and others' ratings), ``remote`` (``true`` answers
            other machines), ``hosts`` (names under which it then may be asked, with commas between).
    """

    def __init__(self, app_dir: str, studies: str, conf: dict[str, Any]) -> None:
        conf = conf or {}
        self.audit = AuditFolder(Path(studies), conf.get("train"), conf.get("synthetic"))
        if not (self.audit.review / STUDY).exists():
            prepare_review(str(studies), train=conf.get("train"), synthetic=conf.get("synthetic"), progress=False)
        self.study = open_study(self.audit)
        super().__init__(
            app_dir=app_dir,
            studies=studies,
            conf=conf,
            name="monai_memo review",
            description="Are these synthetic images copies of training patients?",
            version=__version__,
            labels=list(RATINGS),
        )
        # MONAI Label would start a process for every pair served.
        self._auto_update_scoring = False

    def _is_on(self, name: str, default: str) -> bool:
        return bool(strtobool(str(self.conf.get(name, default))))

    def init_datastore(self) -> ReviewDatastore:
        return ReviewDatastore(self.audit, self.study, blind=self._is_on("blind", "true"))

    def init_infers(self) -> dict[str, InferTask]:
        tasks: dict[str, InferTask] = {"evidence": EvidenceTask(self.study)}
        if self.conf.get("generator"):
            tasks["sample"] = SampleTask(self.conf["generator"], self.study.spatial_dims)
        return tasks

    def init_trainers(self) -> dict[str, TrainTask]:
        return {"detector": FineTuneTask(self.audit)}

    def init_strategies(self) -> dict[str, Strategy]:
        return {"blinded": Blinded(), "uncertain": Uncertain(), "adjudication": Adjudication()}

    def init_scoring_methods(self) -> dict[str, ScoringMethod]:
        return {"similarity": SimilarityScoring(self.audit)}

    def init_batch_infer(self) -> Callable[..., Any]:
        return lambda *_, **__: self._raise_batch_infer_disabled()

    def _load_sessions(self, load: bool = False) -> None:
        """No sessions: they keep what clients upload, and answer with paths."""

    def infer(self, request: dict[str, Any], datastore: Any = None) -> dict[str, Any]:
        """As MONAI Label's, for images of the datastore only: it would open any path on the server."""
        image = request.get("image")
        if not isinstance(image, str) or image not in self.study.by_id or "label" in request:
            raise HTTPException(404, "no such pair")
        if request.get("model") not in self._infers:
            raise HTTPException(404, f"no such model; there are: {', '.join(self._infers)}")
        path = self.datastore().get_image_uri(image)
        if not path:
            raise HTTPException(404, "no such pair")
        file, params = self._infers[request["model"]]({**request, "image": path})
        label = None
        if request.get("save_label") is True:
            label = self.datastore().save_label(image, file, "original", {"model": request["model"]})
        return {"label": label, "tag": "original", "file": file, "params": params}

    def infer_wsi(self, request: dict[str, Any], datastore: Any = None) -> Any:
        raise HTTPException(404, "there are no whole slide images here")

    def next_sample(self, request: dict[str, Any]) -> dict[str, Any]:
        """As MONAI Label's, without the path of the image."""
        strategy = self._strategies.get(request.get("strategy", ""))
        if strategy is None:
            raise HTTPException(404, f"no such strategy; there are: {', '.join(self._strategies)}")
        return strategy(request, self.datastore()) or {}

    def train(self, request: dict[str, Any]) -> Any:
        try:
            return super().train(request)
        except MemoError as error:
            raise HTTPException(400, str(error)) from error

    def folders(self) -> list[str]:
        """What must not stand in an answer."""
        configuration = self.audit.result.configuration
        named = [str(configuration.get(name) or "") for name in ("train", "heldout", "synthetic", "out", "detector")]
        named += [str(value) for value in self.conf.values() if "/" in str(value)]
        named += [self.app_dir, self.studies, str(Path.home()), sys.prefix, sys.base_prefix, tempfile.gettempdir()]
        absolute = [text for text in named if text.startswith("/")]
        return absolute + [str(Path(text).resolve()) for text in absolute]

    def on_init_complete(self) -> None:
        """Take the review for this server, add the page to the web application, and put the guard in front of it.

        MONAI Label calls this in the server alone, not in the processes of its tasks.
        """
        from monailabel.app import app

        if any(getattr(route, "path", "") == "/review/" for route in app.routes):
            return
        serve_alone(self.audit)
        atexit.register(let_go, self.audit.review)
        store = self.datastore().store
        app.include_router(review_routes(Desk(self.audit.review, store, self._is_on("blind", "true"))))
        app.router.routes = [route for route in app.router.routes if getattr(route, "path", "") != "/"]
        app.add_api_route("/", to_the_page, methods=["GET"], include_in_schema=False)
        # The layers of a web application cannot be added to once it has started, which is when MONAI Label makes its
        # app; the outermost one can be wrapped.
        files = RequestFiles()
        files.use()
        app.middleware_stack = Guard(  # type: ignore[assignment]
            app.middleware_stack,  # type: ignore[arg-type]
            [*self.folders(), str(files.folder)],
            remote=self._is_on("remote", "false"),
            hosts=str(self.conf.get("hosts", "")).split(","),
            files=files,
        )
        logger.info("review page: /review/")
