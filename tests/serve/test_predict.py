# SPDX-License-Identifier: Apache-2.0
"""What is answered to good requests, and to those that are not."""

import http.client
import json

import cv2
import numpy as np
import pytest
import served
from image_files import bmp_header, jpeg_header

toy_bundle = pytest.importorskip("toy_bundle")
RED, GREEN, BLUE = (toy_bundle.picture(color) for color in range(3))


@pytest.mark.parametrize("color", range(3))
@pytest.mark.parametrize("kind", [".png", ".jpg", ".bmp", ".webp"])
def test_the_bytes_of_one_image_get_the_answer_of_the_formula(server, color, kind):
    answer = server.ask(toy_bundle.picture(color, kind=kind))
    (result,) = answer.said["results"]
    assert answer.status == 200
    assert result["class_ids"][0] == color
    assert result["label_names"][0] == toy_bundle.COLORS[color]
    assert result["scores"] == pytest.approx(toy_bundle.expected_scores(color), abs=0.01)
    assert result["file_name"] == "image 0"


def test_an_answer_is_the_one_of_tools_infer(server, model, tmp_path):
    rng = np.random.RandomState(0)
    for number in range(5):
        image = rng.randint(0, 256, [rng.randint(5, 90), rng.randint(5, 90), 3]).astype(np.uint8)
        path = tmp_path / f"{number}.png"
        cv2.imwrite(str(path), image)
        (expected,) = model.classifier([str(path)])
        (result,) = server.ask(*served.form((str(path), path.read_bytes()))[:1], headers=served.form()[1]).said[
            "results"
        ]
        assert result == expected


@pytest.mark.parametrize("number", [1, 2, 3, 8])
def test_the_images_of_a_form_are_answered_in_order_with_their_names(server, number):
    colors = [place * 5 % 3 for place in range(number)]
    body, headers = served.form(
        *((f"picture {place}.png", toy_bundle.picture(color)) for place, color in enumerate(colors))
    )
    answer = server.ask(body, headers=headers)
    assert answer.status == 200
    assert answer.classes == [toy_bundle.COLORS[color] for color in colors]
    assert [result["file_name"] for result in answer.said["results"]] == [f"picture {n}.png" for n in range(number)]


def test_a_bad_image_among_good_ones_is_named_and_the_others_are_answered(server):
    body, headers = served.form(("a", RED), ("b", b"no image"), ("c", BLUE))
    answer = server.ask(body, headers=headers)
    first, bad, last = answer.said["results"]
    assert answer.status == 200
    assert (first["label_names"][0], last["label_names"][0]) == ("red", "blue")
    assert bad == {"file_name": "b", "error": "b: not an image; the file starts with b'no image'"}


@pytest.mark.parametrize(
    "bad", [b"{}", b"\x89PNG\r\n\x1a\n", GREEN[:50], jpeg_header(60000, 60000), bmp_header(30000, 30000)]
)
def test_a_bad_image_alone_is_422_and_says_why(server, bad):
    answer = server.ask(bad)
    assert answer.status == 422
    assert answer.said["results"][0]["error"].startswith("image 0: ")


def test_an_image_of_more_pixels_than_the_limit_is_not_decoded(server):
    answer = server.ask(cv2.imencode(".png", np.zeros([1001, 1000], np.uint8))[1].tobytes())
    assert answer.status == 422
    assert "1000 x 1001 pixels is more than the 1000000 that this server takes" in answer.said["results"][0]["error"]


def test_a_client_that_leaves_in_the_middle_is_no_failure_of_the_server(server, caplog):
    before = server.metric("ppcls_requests_total", code="499"), server.metric("ppcls_requests_total", code="500")
    with served.connected(server.port) as stream:
        stream.sendall(b"POST /predict HTTP/1.1\r\nHost: test\r\nContent-Length: 1000\r\n\r\nabc")
        server.wait_for(lambda running: running.app.num_requests == 1)
    server.wait_for(lambda running: server.metric("ppcls_requests_total", code="499") > before[0])
    assert server.metric("ppcls_requests_total", code="500") == before[1]
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


def test_what_is_no_form_with_images_is_refused_and_says_why(server):
    body, headers = served.form(("a", RED))
    boundary = headers["Content-Type"]
    for status, sent, named in [
        (400, b"", {}),
        (400, *served.form()),
        (400, *served.form(("a", RED), end=False)),
        (400, body, {"Content-Type": "multipart/form-data"}),
        (400, body, {"Content-Type": "multipart/form-data; boundary=other"}),
        (400, body, {"Content-Type": f"multipart/form-data; boundary={'x' * 71}"}),
        (400, body.replace(b"form-data", b"attachment"), {"Content-Type": boundary}),
        (400, body.replace(b"\r\n\r\n", b"\r\n"), {"Content-Type": boundary}),
        (400, body.replace(b'name="image"', b"x" * 5000), {"Content-Type": boundary}),
        (415, body, {"Content-Type": boundary.replace("form-data", "mixed")}),
        (415, RED, {"Content-Encoding": "gzip"}),
        (413, *served.form(*(("a", RED) for _ in range(9)))),
        (413, b"x" * ((1 << 20) + 1), {}),
    ]:
        answer = server.ask(sent, headers=named, method="POST")
        assert (answer.status, list(answer.said)) == (status, ["error"]), (sent[:200], named)


def test_a_chunked_request_is_read_up_to_the_limit(server):
    assert server.ask(iter([RED[:10], RED[10:]])).classes == ["red"]
    chunk = b"10000\r\n" + bytes(0x10000) + b"\r\n"
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert served.send(server.port, head, *[chunk] * 17).startswith(b"HTTP/1.1 413 ")


def test_a_client_that_asks_first_is_told_before_it_sends(server):
    with served.connected(server.port) as stream:
        stream.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\nExpect: 100-continue\r\n\r\n")
        assert served.read_response(stream).startswith(b"HTTP/1.1 413 ")
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(RED)}\r\nExpect: 100-continue\r\n\r\n"
    with served.connected(server.port) as stream:
        stream.sendall(head.encode())
        assert stream.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        stream.sendall(RED)
        assert b'"red"' in served.read_response(stream)


def test_one_connection_answers_many_requests(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=served.PATIENCE)
    for color in (0, 1, 2, 0):
        connection.request("POST", "/predict", toy_bundle.picture(color))
        assert json.loads(connection.getresponse().read())["results"][0]["class_ids"][0] == color
    connection.close()


def test_other_paths_and_methods_say_what_there_is(server):
    assert server.ask(path="/nothing").status == 404
    wrong = server.ask(path="/predict")
    assert (wrong.status, wrong.headers["Allow"]) == (405, "POST")
    assert "POST /predict" in wrong.said["error"]


def test_health_says_ready(server):
    answer = server.ask(path="/healthz")
    assert (answer.status, answer.said) == (200, {"status": "ready"})


def test_metadata_says_what_the_model_is_and_not_where(server, bundle):
    import hashlib

    answer = server.ask(path="/metadata")
    said = answer.said
    assert said["model"] == "ToyColors"
    assert said["classes"] == list(toy_bundle.COLORS)
    assert said["input"] == {"shape": [3, 32, 32], "dtype": "float32"}
    assert said["bundle_sha256"] == hashlib.sha256((bundle / "manifest.json").read_bytes()).hexdigest()
    assert said["parity"] == {"note": "toy"}
    assert said["engine"].startswith("ONNX Runtime")
    assert str(bundle.parent).encode() not in answer.body


def test_metrics_count_what_was_asked(start):
    server = start()
    body, headers = served.form(("a", RED), ("b", b"?"))
    for _ in range(3):
        server.ask(body, headers=headers)
    server.ask(b"?")
    served.send(server.port, b"nonsense\r\n\r\n")
    answer = server.ask(path="/metrics")
    lines = dict(line.rsplit(" ", 1) for line in answer.body.decode().splitlines() if not line.startswith("#"))
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert float(lines['ppcls_requests_total{code="200"}']) == 3
    assert float(lines['ppcls_requests_total{code="422"}']) == 1
    assert float(lines['ppcls_requests_total{code="400"}']) == 1
    assert float(lines['ppcls_images_total{outcome="answered"}']) == 3
    assert float(lines['ppcls_images_total{outcome="bad"}']) == 4
    assert float(lines["ppcls_batch_size_sum"]) == 3
    assert float(lines["ppcls_request_seconds_count"]) == 3
    assert float(lines["ppcls_queue_images"]) == 0
