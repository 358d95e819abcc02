# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Our own server of the review page: what it stores, what it refuses, and what it does not tell."""

from __future__ import annotations

import http.client
import json
import logging
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from monai_memo.errors import ConfigurationError
from monai_memo.label.access import LARGEST_BODY
from monai_memo.label.native import NativePair, read_native, save_native
from monai_memo.label.pairs import AlignedPair, side_by_side
from monai_memo.label.prepare import DATASTORE, FINAL, IMAGES
from monai_memo.label.ratings import read_entries
from monai_memo.label.web import ReviewServer
from tests.label.conftest import Served, serving


def detail(content: bytes) -> str:
    return str(json.loads(content)["detail"])


def raw(served: Served, request: bytes) -> bytes:
    """What comes back for bytes as they are."""
    with socket.create_connection(("127.0.0.1", served.server.server_port), timeout=20) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        found = b""
        while part := connection.recv(65536):
            found += part
    return found


def test_a_review_is_rated_pair_by_pair_and_goes_on_after_a_restart(served: Served) -> None:
    seen = []
    for _ in range(2):
        told = served.told("/review/next?rater=anna")
        assert served.rate(told["id"], "copy", "anna", seconds=2.5, evidence=True)[0] == 200
        seen.append(told["id"])
        assert served.told("/review/next?rater=anna")["id"] == told["then"]
    entry = read_entries(served.folder / FINAL / f"{seen[0]}.json")[0]
    assert (entry.rating, entry.rater, entry.seconds, entry.evidence) == ("copy", "anna", 2.5, True)
    with serving(served.folder, served.study) as again:  # another process would read the same files
        progress = again.told("/review/progress?rater=Anna")
        assert (progress["rated"], progress["total"], progress["last"]) == (2, 6, seen[1])
        assert again.rate(seen[1], "undo", "anna")[0] == 200
        assert again.told("/review/next?rater=anna")["id"] == seen[1]
        while (pair := again.told("/review/next?rater=anna")["id"]) is not None:
            assert again.rate(pair, "novel", "anna")[0] == 200
            seen.append(pair)
        assert set(seen) == {pair.pair_id for pair in served.study.sample}
        assert again.told("/review/progress?rater=anna")["further"] == 2
        further = again.told("/review/next?rater=anna&strategy=uncertain")["id"]
        assert further == served.study.uncertain[0].pair_id
        assert again.rate(further, "copy", "anna", strategy="uncertain")[0] == 200
        assert again.told("/review/progress?rater=anna")["further"] == 1
    assert not list(served.folder.rglob("*.part")) and not list(served.folder.rglob(".pair*"))


def test_raters_who_rate_the_same_pair_at_the_same_time_lose_nothing(served: Served) -> None:
    pair = served.study.sample[0].pair_id
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: served.rate(pair, "novel", f"rater{i}")[0], range(16)))
    assert found == [200] * 16
    assert {entry.rater for entry in served.store.entries(pair)} == {f"rater{i}" for i in range(16)}


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({"Host": "review.attacker.example"}, "unknown host name"),
        ({"Host": "127.0.0.1.attacker.example:8000"}, "unknown host name"),
        ({"Host": ""}, "unknown host name"),
        ({"Origin": "http://attacker.example"}, "requests of other web sites"),
        ({"Origin": "null"}, "requests of other web sites"),
        ({"Sec-Fetch-Site": "cross-site"}, "requests of other web sites"),
    ],
)
def test_other_hosts_and_other_web_sites_are_refused(served: Served, headers: dict[str, str], said: str) -> None:
    pair = served.study.sample[0].pair_id
    for path, body in (("/review/", None), ("/review/rating", {"pair": pair, "rating": "copy", "rater": "a"})):
        status, _, content = served.ask(path, body, **headers)
        assert status == 403 and said in detail(content)
    assert served.store.entries(pair) == []


def test_its_own_page_is_no_other_web_site(served: Served) -> None:
    pair = served.study.sample[0].pair_id
    body = {"pair": pair, "rating": "copy", "rater": "a"}
    assert served.ask("/review/rating", body, Origin=served.url, Sec_Fetch_Site="same-origin")[0] == 200


def test_a_form_of_another_site_cannot_store_a_rating(served: Served) -> None:
    pair = served.study.sample[0].pair_id
    content = json.dumps({"pair": pair, "rating": "copy", "rater": "a"}).encode()
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""):
        status, _, said = served.ask("/review/rating", content, Content_Type=kind)
        assert status == 415 and "sent as application/json" in detail(said)
    assert served.store.entries(pair) == []


@pytest.mark.parametrize(
    "path",
    [
        "/review/../study.json", "/review/..%2fstudy.json", "/review/%2e%2e%2fstudy.json", "/review/..%252fstudy.json",
        "/review/..%5cstudy.json", "/review/study.json", "/review/page/review.js", "/review//etc/passwd",
        "//etc/passwd", "/etc/passwd", "/review/pixels/../../study.json", "/review/%00", "/review/images/pair_1.gz",
        "/datastore/image", "http://127.0.0.1/review/", "*", "/review/__init__.py",
    ],
)  # fmt: skip
def test_no_path_leads_out_of_the_review(served: Served, path: str) -> None:
    (served.folder / "study.json").write_text('{"similarity": 1}')
    connection = http.client.HTTPConnection("127.0.0.1", served.server.server_port, timeout=20)
    connection.request("GET", path)  # sent as it is
    answer = connection.getresponse()
    content = answer.read()
    assert answer.status == 404 and b"not part of a review" in content
    connection.close()


@pytest.mark.parametrize(
    "pair", ["pair_999", "", "../study", "..%2fstudy", "/etc/passwd", "pair_001.gz", "%00", "x" * 500]
)
def test_an_unknown_pair_is_none(served: Served, pair: str) -> None:
    for name in ("pair", "pixels"):
        status, _, content = served.ask(f"/review/{name}?pair={pair}")
        assert (status, detail(content)) == (404, "no such pair")
    assert served.rate(pair, "copy", "anna") == (404, {"detail": "no such pair"})
    assert list((served.folder / FINAL).iterdir()) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rating": "perhaps"}, "rating must be one of copy, same_patient, novel, unsure, undo, got 'perhaps'"),
        ({"rating": None}, "rating must be one of"),
        ({"rater": ""}, "rater must be a name of 1 to 40"),
        ({"rater": "<script>"}, "rater must be a name of 1 to 40"),
        ({"rater": ["anna"]}, "rater must be a name of 1 to 40"),
        ({"seconds": -1}, "seconds must be a number from 0"),
        ({"seconds": "long"}, "seconds must be a number from 0"),
        ({"strategy": "best"}, "strategy must be one of blinded, uncertain, adjudication, got 'best'"),
        ({"rating": "undo"}, "anna has no rating of this pair to undo"),
        ({"similarity": 0.9}, "unknown field similarity"),
    ],
)
def test_an_impossible_rating_is_refused_by_name(served: Served, change: dict[str, object], said: str) -> None:
    pair = served.study.sample[0].pair_id
    status, _, content = served.ask("/review/rating", {"pair": pair, "rating": "copy", "rater": "anna", **change})
    assert status == 400 and said in detail(content)
    assert served.store.entries(pair) == []


def test_bodies_that_are_no_rating_are_refused(served: Served) -> None:
    for body in (b"", b"{", b"[1]", b"null", b'"copy"', b'{"rating": NaN}', b"\xff\xfe", b"[" * 5000,
                 b'{"rating": "copy", "rating": "novel"}'):  # fmt: skip
        status, _, content = served.ask("/review/rating", body, method="POST")
        assert status == 400 and "must be" in detail(content), body
    assert served.ask("/review/rating", b" " * (LARGEST_BODY + 1))[0] == 413
    head = b"POST /review/rating HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    assert b" 411 " in raw(served, head + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n").split(b"\r\n")[0]
    for length in (b"-1", b"1e3", b"\xb2", b"9" * 30):
        answer = raw(served, head + b"Content-Length: " + length + b"\r\n\r\n{}")
        assert answer.split(b"\r\n")[0].split()[1] in (b"400", b"413")
    assert b"shorter than it says" in raw(served, head + b"Content-Length: 50\r\n\r\n{}")
    twice = raw(served, head + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}")
    assert b"was sent twice" in twice and twice.count(b"HTTP/1.1 ") == 1
    assert served.told("/review/next?rater=anna")["id"], "the server goes on"


def test_methods_and_broken_requests(served: Served) -> None:
    for method in ("PUT", "DELETE", "OPTIONS", "PATCH"):
        assert served.ask("/review/", method=method)[0] == 404
    assert served.ask("/review/progress?rater=a", {}, method="POST")[0] == 404
    status, headers, content = served.ask("/review/review.js", method="HEAD")
    assert status == 200 and content == b"" and int(headers["content-length"]) > 1000
    status, headers, content = served.ask("/review/icon.svg")
    assert status == 200 and headers["content-type"] == "image/svg+xml"
    for request in (
        b"BREW /review/ HTTP/1.1\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"GET / HTTP/9\r\n\r\n",
        b"\x16\x03\x01\x02\r\n\r\n",
    ):
        answer = raw(served, request)
        assert b"Traceback" not in answer and b"<html" not in answer
    assert served.ask("/review/progress?rater=a&rater=b")[0] == 400
    assert served.ask("/review/progress")[0] == 400 and served.ask("/review/next?rater=a&strategy=x")[0] == 400
    assert served.told("/review/next?rater=anna")["id"]


def test_the_first_address_leads_to_the_page_and_the_page_loads_nothing_from_elsewhere(served: Served) -> None:
    status, headers, content = served.ask("/")
    assert status == 200 and b"Review of synthetic images" in content
    assert (
        headers["content-security-policy"].startswith("default-src 'self'") and headers["cache-control"] == "no-store"
    )
    assert headers["server"] == "monai-memo", "no version of Python is told"
    for name in ("", "review.js", "viewer.js", "planes.js", "review.css"):
        text = served.ask(f"/review/{name}")[2].decode()
        assert "://" not in text
        assert "Apache-2.0" in text or name in ("", "review.css")


def test_images_come_at_their_own_resolution(served: Served) -> None:
    pair = served.study.sample[0].pair_id
    told = served.told(f"/review/pair?pair={pair}")
    assert told == {
        "id": pair, "shape": [30, 40], "extent": [0.75, 1.0], "oriented": False, "channels": 1,
        "grey": {"lowest": -0.5, "levels": 4096, "most": 8192},
    }  # fmt: skip
    content = served.ask(f"/review/pixels?pair={pair}")[2]
    values = np.frombuffer(content, "<u2").reshape(2, 30, 40) / 4096 - 0.5
    stored = read_native(served.folder / IMAGES, pair)
    np.testing.assert_allclose(values[0], stored.synthetic, atol=1e-6)
    np.testing.assert_allclose(values[1], np.indices((30, 40))[0] / 30, atol=1 / 4096)


def test_nothing_tells_of_the_similarity_of_others_or_of_patients(served: Served) -> None:
    pair = served.study.sample[0].pair_id
    served.rate(pair, "same_patient", "spy")
    served.rate(pair, "novel", "other")
    paths = [f"/review/{name}" for name in ("", "review.js", "agreement", "ratings.csv", "icon.svg")]
    paths += [f"/review/{name}?rater=other" for name in ("progress", "next", "progress", "agreement")]
    paths += [f"/review/{name}?pair={pair}" for name in ("pair", "pixels")]
    paths += ["/review/next?rater=new&strategy=uncertain", "/review/next?rater=new&strategy=adjudication"]
    answers = [served.ask(path) for path in paths]
    answers.append(served.ask("/review/rating", {"pair": pair, "rating": "copy", "rater": "other"}))
    forbidden = ["similarity", "certainty", "spy", "synthetic_", "patient_", str(served.folder), "tau", "stratum"]
    scores = [f"{item.similarity}" for item in served.study.pairs]
    for path, (_, headers, content) in zip([*paths, "rating"], answers, strict=True):
        text = content.decode("latin-1") + str(headers)
        for word in [*forbidden, *(scores if "review.js" not in path else [])]:
            page = path in ("/review/", "/review/review.js")
            assert word not in text or (page and word in ("same_patient", "patient_")), (path, word)
        assert "same_patient" not in text or path in ("/review/", "/review/review.js")
    # Sizes of what is stored follow the images alone: these differ in grey values only.
    assert {read_native(served.folder / IMAGES, item.pair_id).synthetic.shape for item in served.study.pairs} == {
        (30, 40)
    }


def test_a_review_of_an_earlier_version_goes_on_with_its_smaller_pictures(served: Served) -> None:
    from dataclasses import replace

    pair = served.study.sample[0].pair_id
    for path in (served.folder / IMAGES).glob(f"{pair}*"):
        path.unlink()
    values = np.linspace(0, 1, 16 * 20, dtype=np.float32).reshape(16, 20)
    both = side_by_side(AlignedPair(values, values[::-1]))[0]
    (served.folder / DATASTORE).mkdir(exist_ok=True)
    Image.fromarray(np.round(both * 255).astype(np.uint8)).save(served.folder / DATASTORE / f"{pair}.png")
    with serving(served.folder, replace(served.study, shape=(16, 20))) as again:
        told = again.told(f"/review/pair?pair={pair}")
        assert told["channels"] == 1
        assert told["shape"] == [16, 20] and told["extent"] == [0.8, 1.0]
        content = again.ask(f"/review/pixels?pair={pair}")[2]
        found = np.frombuffer(content, "<u2").reshape(2, 16, 20) / 4096 - 0.5
        np.testing.assert_allclose(found[0], values, atol=0.005)
        np.testing.assert_allclose(found[1], values[::-1], atol=0.005)


def test_the_size_of_an_answer_does_not_say_whether_a_pair_is_a_copy(served: Served) -> None:
    """Packed, a copy beside its original takes half, and an image that was not moved takes less than one that was."""
    values = np.random.default_rng(1).random((2, 30, 40), dtype=np.float32)
    flat = np.full((30, 40), 0.5, dtype=np.float32)
    found = []
    for pair, images in zip(served.study.sample, ((values[0], values[0]), values, (flat, flat)), strict=False):
        save_native(served.folder / IMAGES, pair.pair_id, NativePair(*images, (30.0, 40.0)))
        status, headers, content = served.ask(f"/review/pixels?pair={pair.pair_id}")
        assert status == 200 and "content-encoding" not in headers and int(headers["content-length"]) == len(content)
        told = served.ask(f"/review/pair?pair={pair.pair_id}")[2]
        found.append((len(content), len(told)))
    assert set(found) == {(4 * 30 * 40, found[0][1])}


def test_pairs_in_colour_come_in_colour_and_all_with_the_same_size(served: Served) -> None:
    """A copy, two patients, a grey picture and flat ones: images, and what is told of them, are equally long."""
    values = np.random.default_rng(1).random((2, 3, 30, 40), dtype=np.float32)
    grey, flat = np.repeat(values[0, :1], 3, axis=0), np.full((3, 30, 40), 0.5, dtype=np.float32)
    found = set()
    kinds = ((values[0], values[0]), (values[0], values[1]), (values[0], grey), (flat, flat))
    for pair, images in zip(served.study.sample, kinds, strict=False):
        save_native(served.folder / IMAGES, pair.pair_id, NativePair(*images, (30.0, 40.0)))
        content = served.ask(f"/review/pixels?pair={pair.pair_id}")[2]
        told = served.ask(f"/review/pair?pair={pair.pair_id}")[2]
        found.add((len(content), len(told), json.loads(told)["channels"]))
        stored = np.frombuffer(content, "<u2").reshape(2, 3, 30, 40) / 4096 - 0.5
        np.testing.assert_allclose(stored, images, atol=1 / 4096)
    assert len(found) == 1 and found.pop()[::2] == (12 * 30 * 40, 3)


def test_a_pair_in_colour_with_the_pixels_of_a_grey_one_is_damaged(served: Served) -> None:
    pair = served.study.sample[0].pair_id
    told = json.loads((served.folder / IMAGES / f"{pair}.json").read_text())
    (served.folder / IMAGES / f"{pair}.json").write_text(json.dumps({**told, "channels": 3}))
    assert served.ask(f"/review/pair?pair={pair}")[0] == 500


def test_what_a_killed_writer_left_is_removed_at_the_next_start(served: Served) -> None:
    pair = served.study.sample[0].pair_id
    assert served.rate(pair, "copy", "anna")[0] == 200
    half = served.folder / FINAL / f".{pair}.x1y2.json"
    half.write_text("[{")
    served.store.remove_leftovers()
    assert [path.name for path in (served.folder / FINAL).iterdir()] == [f"{pair}.json"]


def test_damaged_files_are_told_to_whoever_runs_the_server_and_not_to_raters(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    pair = served.study.sample[0].pair_id
    (served.folder / FINAL / f"{pair}.json").write_text("{broken")
    (served.folder / IMAGES / f"{pair}.json").write_text("[]")
    with caplog.at_level(logging.ERROR):
        status, _, content = served.ask(f"/review/pair?pair={pair}")
        assert status == 500 and str(served.folder) not in content.decode()
        assert served.rate(pair, "copy", "anna")[0] == 500
    assert str(served.folder / FINAL / f"{pair}.json") in caplog.text and "holds no ratings" in caplog.text
    assert (served.folder / FINAL / f"{pair}.json").read_text() == "{broken", "nothing is written over it"


def test_a_port_that_is_taken_and_a_name_that_is_none_are_refused(served: Served) -> None:
    with pytest.raises(ConfigurationError, match=rf"port {served.server.server_port}: .*Choose another --port"):
        ReviewServer(served.server.desk, ("127.0.0.1", served.server.server_port))
    with pytest.raises(ConfigurationError, match=r"cannot listen on 192\.0\.2\.1"):  # of no machine
        ReviewServer(served.server.desk, ("192.0.2.1", 0))


def test_other_machines_are_answered_with_remote_alone_and_under_known_names(served: Served) -> None:
    class Elsewhere(ReviewServer):
        def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
            connection, _ = super().get_request()
            return connection, ("10.0.0.9", 5000)

    for remote, host, expected in (
        (False, "127.0.0.1", 403), (True, "review.hospital.example:8000", 200), (True, "other.example", 403),
        (True, "127.0.0.1", 200), (True, "localhost", 403),
    ):  # fmt: skip
        server = Elsewhere(served.server.desk, ("127.0.0.1", 0), remote, ["review.hospital.example"])
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        status = Served(served.folder, served.study, server).ask("/review/", Host=host)[0]
        thread.join()
        server.server_close()
        assert status == expected, (remote, host)


def test_one_slow_connection_holds_nobody_up(served: Served) -> None:
    with socket.create_connection(("127.0.0.1", served.server.server_port)) as slow:
        slow.sendall(b"POST /review/rating HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n{")
        assert served.told("/review/next?rater=anna")["id"]
