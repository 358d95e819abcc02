# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""A whole review through MONAI Label's REST API, and what the API does not give away."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from typing import Any

import pytest
from PIL import Image

from monai_memo.detector.detector import Detector
from monai_memo.label.review import review
from monai_memo.label.study import Study
from tests.label.server.conftest import ROOT, Server, start


def study_of(server: Server) -> Study:
    return Study.load(server.audit / "review" / "study.json")


def wait_for(server: Server, task: str) -> dict[str, Any]:
    for _ in range(300):
        status: dict[str, Any] = server.request("GET", f"/{task}/").json()
        if status["status"] not in ("RUNNING", "SUBMITTED"):
            return status
        time.sleep(0.5)
    raise AssertionError(f"{task} does not end")


def test_info_describes_the_app(server: Server) -> None:
    info = server.request("GET", "/info/").json()
    assert info["name"] == "monai_memo review" and set(info["models"]) == {"evidence", "sample"}
    assert set(info["strategies"]) == {"blinded", "uncertain", "adjudication"} and set(info["scoring"]) == {
        "similarity"
    }
    assert set(info["trainers"]) == {"detector"} and info["labels"] == ["copy", "same_patient", "novel", "unsure"]
    assert info["datastore"]["total"] == 15


def test_blind_answers_hold_no_score_no_path_and_no_ratings_of_others(server: Server) -> None:
    study = study_of(server)
    pair = study.sample[0].pair_id
    assert server.rate(pair, rating="novel", rater="spy").status_code == 200
    assert server.request("POST", "/scoring/similarity", params={"run_sync": True}).json() == {"scored": 15}
    kept = json.loads((server.audit / "review" / "datastore" / "datastore_v2.json").read_text())
    info = kept["objects"][pair]["image"]["info"]
    assert info["similarity"] == study.by_id[pair].similarity and 0.5 <= info["certainty"] <= 1
    answers = {
        path: server.request("GET", path).text
        for path in (
            "/info/", "/datastore/?output=all", "/datastore/?output=train", "/datastore/?output=stats",
            f"/datastore/image/info?image={pair}", f"/datastore/label/info?label={pair}&tag=final",
            f"/datastore/label?label={pair}&tag=final", "/review/progress?rater=other", "/scoring/",
            "/review/agreement", "/review/ratings.csv", f"/review/pair?pair={pair}",
        )
    }  # fmt: skip
    answers["next"] = server.request("POST", "/activelearning/blinded", json={"rater": "other"}).text
    forbidden = ['similarity":', "certainty", 'novel"', "spy", str(server.audit), "patient_", "synthetic_"]
    for path, text in answers.items():
        for word in forbidden:
            if not (path == "/info/" and word in ('novel"', 'similarity":')):
                assert word not in text, (path, word)
    assert server.rate(pair, rating="undo", rater="spy").status_code == 200


@pytest.mark.parametrize(
    "image",
    [
        "../../audit.json",
        "..%2f..%2faudit.json",
        "%2e%2e/audit.json",
        "/etc/passwd",
        "..\\audit.json",
        "study",
        "",
        "\0",
    ],
)
def test_ids_are_no_paths(server: Server, image: str) -> None:
    for method, path in (("GET", "/datastore/image"), ("GET", "/datastore/label"), ("POST", "/infer/evidence")):
        key = "label" if path.endswith("label") else "image"
        answer = server.request(method, f"{path}?{key}={image}&tag=final")
        assert answer.status_code in (400, 404, 500) and b"root:" not in answer.content
        assert b"schema_version" not in answer.content and b"similarity" not in answer.content
    assert server.rate(image, rating="copy", rater="a").status_code == 404
    assert server.request("GET", f"/datastore/image/info?image={image}").json() == {}
    for name in ("pair", "pixels"):
        assert server.request("GET", f"/review/{name}?pair={image}").status_code in (400, 404)


@pytest.mark.parametrize(
    "path",
    [
        "/review/../../audit.json", "/review/..%2f..%2faudit.json", "/review/%2e%2e%2faudit.json",
        "/review/..%252faudit.json", "/review/....//audit.json", "/review/page/review.js", "/review/study.json",
        "/review/..%5caudit.json", "/static/../../main.py", "/ohif/..%2f..%2fmain.py", "/logs/", "/session/x",
        "/proxy/dicom/x", "/model/evidence", "/datastore/dataset", "/docs",
    ],
)  # fmt: skip
def test_no_route_leads_out_of_the_review(server: Server, path: str) -> None:
    import http.client

    # requests would tidy the path up before sending it.
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request("GET", path)
    answer = connection.getresponse()
    assert answer.status == 404 and b"not part of a review" in answer.read()


def test_params_cannot_name_another_image_or_tag(server: Server) -> None:
    pair = study_of(server).sample[0].pair_id
    answer = server.request(
        "POST", "/infer/evidence", params={"image": pair}, data={"params": json.dumps({"image": "/etc/passwd"})}
    )
    assert answer.status_code == 404
    for tag in ("../../x", "original", "other"):
        answer = server.request(
            "PUT", "/datastore/label", params={"image": pair, "tag": tag},
            data={"params": json.dumps({"rating": "copy", "rater": "a"})}, files={"label": ("x.json", b"{}")},
        )  # fmt: skip
        assert answer.status_code == 400
    uploaded = server.request("POST", "/infer/evidence", files={"file": ("x.png", b"x")})
    assert uploaded.status_code == 400 and "unknown field file" in uploaded.json()["detail"]
    assert server.request("PUT", "/datastore/image", files={"file": ("x.png", b"x")}).status_code == 404
    assert server.request("GET", "/info/", headers={"Origin": "http://attacker.example"}).status_code == 403
    assert server.request("GET", "/info/", headers={"Host": "attacker.example"}).status_code == 403
    assert server.rate(pair, rating="perhaps", rater="a").json()["detail"].startswith("rating must be one of")
    for name in ("best", "..%2f"):
        assert server.request("POST", f"/activelearning/{name}", json={"rater": "a"}).status_code == 404
    assert server.request("POST", "/activelearning/blinded", json={}).status_code == 400


def test_the_desk_answers_as_in_our_own_server(server: Server) -> None:
    study = study_of(server)
    pair = study.sample[0].pair_id
    told = server.request("GET", f"/review/pair?pair={pair}").json()
    assert told["shape"] == [32, 32] and told["id"] == pair
    assert len(server.request("GET", f"/review/pixels?pair={pair}").content) == 2 * 2 * 32 * 32
    body = {"pair": pair, "rating": "copy", "rater": "desk"}
    assert server.request("POST", "/review/rating", data=json.dumps(body)).status_code == 415
    assert server.request("POST", "/review/rating", json={**body, "rating": "perhaps"}).status_code == 400
    assert server.request("POST", "/review/rating", json=body).status_code == 200
    label = server.request("GET", f"/datastore/label/info?label={pair}&tag=final").json()
    assert label["name"] == f"{pair}.json", "MONAI Label's own list of labels follows"
    assert server.rate(pair, rating="undo", rater="desk").status_code == 200, "its clients share the files"
    assert server.request("GET", "/review/progress?rater=desk").json()["rated"] == 0


def test_evidence_and_a_new_sample(server: Server) -> None:
    pair = study_of(server).sample[0].pair_id
    answer = server.request("POST", "/infer/evidence", params={"image": pair, "output": "image"})
    assert Image.open(io.BytesIO(answer.content)).size == (512, 512)
    drawn = server.request(
        "POST", "/infer/sample", params={"image": pair, "output": "image"}, data={"params": json.dumps({"seed": 3})}
    )
    assert drawn.status_code == 200 and Image.open(io.BytesIO(drawn.content)).size == (32, 32)
    refused = server.request(
        "POST", "/infer/sample", params={"image": pair}, data={"params": json.dumps({"seed": "../x"})}
    )
    assert refused.status_code == 400 and refused.json()["detail"].startswith("seed must be")


def test_a_review_survives_a_kill_and_becomes_a_chapter(server: Server) -> None:
    study = study_of(server)
    orders: dict[str, list[str]] = {"anna": [], "bert": []}

    def rate(rater: str, pair: str) -> None:
        copy = study.by_id[pair].copy
        rating = "copy" if copy else "novel"
        assert server.rate(pair, rating=rating, rater=rater, seconds=2.5).status_code == 200
        orders[rater].append(pair)

    for _ in range(5):
        rate("anna", server.next("anna") or "")
    server.stop(kill=True)
    again = start(server.audit, "--generator", str(server.audit.parent / "phantom_ldm"))
    server.process, server.port = again.process, again.port
    progress = server.request("GET", "/review/progress", params={"rater": "Anna"}).json()
    assert (progress["rated"], progress["total"], progress["last"]) == (5, 12, orders["anna"][-1])
    for rater in orders:
        while (pair := server.next(rater)) is not None:
            rate(rater, pair)
    assert sorted(orders["anna"]) == sorted(orders["bert"]) and orders["anna"] != orders["bert"]
    assert set(orders["anna"]) == {pair.pair_id for pair in study.sample}
    further = [pair.pair_id for pair in study.uncertain]
    assert server.next("anna", "uncertain") == further[0]
    assert server.rate(further[0], rating="unsure", rater="anna", strategy="uncertain").status_code == 200
    assert server.next("anna", "uncertain") == further[1]
    # A second thought: another entry, then an undo, which is one more.
    pair = orders["anna"][0]
    assert server.rate(pair, rating="unsure", rater="anna").status_code == 409, "by mistake nothing is replaced"
    kept = json.loads((server.audit / "review" / "datastore" / "labels" / "final" / f"{pair}.json").read_text())
    first = next(entry["time"] for entry in kept if entry["rater"] == "anna")
    assert server.rate(pair, rating="unsure", rater="anna", replaces=first).status_code == 200
    assert server.rate(pair, rating="undo", rater="anna").status_code == 200
    entries = json.loads((server.audit / "review" / "datastore" / "labels" / "final" / f"{pair}.json").read_text())
    assert [entry["rating"] for entry in entries if entry["rater"] == "anna"][-2:] == ["unsure", "undo"]
    result = review(str(server.audit))
    rates = result.record["detector"]["copy_or_same_patient"]["consensus"]
    assert rates["pairs"] == 12 and rates["specificity"]["value"] == 1
    assert result.record["agreement"]["four"]["cohen"][0]["kappa"]["value"] == 1
    assert "<h2>What raters say</h2>" in (server.audit / "report.html").read_text()


def test_a_second_server_is_refused_while_the_first_goes_on(server: Server) -> None:
    command = [sys.executable, "-m", "monai_memo", "review-server", "--audit", str(server.audit), "--port", "1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    second = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert second.returncode == 2 and "Traceback" not in second.stderr
    assert f"is in use: process {server.process.pid} (monai-memo review-server), started 20" in second.stderr
    assert server.request("GET", "/info/").status_code == 200


def test_the_detector_is_fine_tuned_and_scores_again(server: Server) -> None:
    study = study_of(server)
    for pair in study.sample:
        server.rate(pair.pair_id, rating="copy" if pair.copy else "novel", rater="carla")
    refused = server.request("POST", "/train/detector", json={"bundle_path": "x"})
    assert refused.status_code == 400
    assert server.request("POST", "/train/detector", json={"epochs": 1, "device": "cpu"}).status_code == 200
    status = wait_for(server, "train")
    assert status["status"] == "DONE", status
    assert str(server.audit) not in json.dumps(status) and "[folder]" in json.dumps(status)
    tuned = Detector.load(server.audit / "review" / "detector" / "detector.pt")
    assert tuned.training_summary["fine_tuned"]["confirmed_novel"] > 0
    answer = server.request("POST", "/scoring/similarity", params={"run_sync": True}, json={"detector": "fine_tuned"})
    assert answer.json() == {"scored": 15}


def test_a_server_that_is_not_blind_tells_scores_and_ratings_but_no_paths(server_3d: Server) -> None:
    study = study_of(server_3d)
    assert len(study.sample) == 10 and server_3d.request("GET", "/info/").json()["datastore"]["total"] == 10
    pair = study.sample[0].pair_id
    assert server_3d.rate(pair, rating="copy", rater="anna").status_code == 200
    assert server_3d.request("POST", "/scoring/similarity", params={"run_sync": True}).status_code == 200
    info = server_3d.request("GET", f"/datastore/image/info?image={pair}").json()
    assert info["similarity"] == study.by_id[pair].similarity and "path" not in info
    label = server_3d.request("GET", f"/datastore/label/info?label={pair}&tag=final").json()
    assert label["ratings"][0]["rater"] == "anna"
    assert str(server_3d.audit) not in server_3d.request("GET", "/datastore/?output=all").text
