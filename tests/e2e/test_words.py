"""POST /tokenize and /detokenize: a model's ids of a text, and their text again."""
import json
import urllib.error
import urllib.request

import pytest

from conftest import SMOLLM2, Cluster

TEXTS = ["The capital of France is", "오늘 아침에는 비가 조금 내렸지만", "a\n\n\t b  1234", "<|im_end|>", "é👍🏽\u0000x", " "]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    c = Cluster(tmp_path_factory.mktemp("words") / "home", model=SMOLLM2)
    try:
        yield c.up()
    finally:
        c.down()


def post(cluster, path, body):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    q = urllib.request.Request(f"http://127.0.0.1:{cluster.port}{path}", raw, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(q, timeout=60) as r:
            return r.status, json.load(r)
    except urllib.error.HTTPError as e:
        return e.code, json.load(e)["error"]


def test_there_and_back(cluster):
    for text in TEXTS:
        status, ids = post(cluster, "/tokenize", {"model": "smollm2-135m-instruct", "prompt": text})
        assert status == 200 and ids["count"] == len(ids["tokens"]) > 0 and ids["max_model_len"] == 8192
        status, back = post(cluster, "/detokenize", {"model": "smollm2-135m-instruct", "tokens": ids["tokens"]})
        assert (status, back) == (200, {"prompt": text})
    status, ids = post(cluster, "/tokenize", {"model": "smollm2-135m-instruct", "prompt": "The capital of France is", "add_special_tokens": False})
    assert ids["tokens"] == [504, 3575, 282, 4649, 314]


@pytest.mark.parametrize("path, body, status, param", [
    ("/tokenize", {"model": "none", "prompt": "x"}, 404, "model"),
    ("/tokenize", {"prompt": "x"}, 400, "model"),
    ("/tokenize", {"model": "smollm2-135m-instruct"}, 400, "prompt"),
    ("/tokenize", {"model": "smollm2-135m-instruct", "prompt": 7}, 400, "prompt"),
    ("/tokenize", {"model": "smollm2-135m-instruct", "prompt": ""}, 400, "prompt"),
    ("/tokenize", {"model": "smollm2-135m-instruct", "prompt": "x", "messages": []}, 400, "messages"),
    ("/tokenize", {"model": "smollm2-135m-instruct", "prompt": "x " * 9000}, 400, "prompt"),
    ("/detokenize", {"model": "smollm2-135m-instruct", "tokens": []}, 400, "tokens"),
    ("/detokenize", {"model": "smollm2-135m-instruct", "tokens": [-1]}, 400, "tokens[0]"),
    ("/detokenize", {"model": "smollm2-135m-instruct", "tokens": [1, 10**6]}, 400, "ids"),
    ("/detokenize", {"model": "smollm2-135m-instruct", "tokens": [1] * 131073}, 400, "tokens"),
    ("/detokenize", b"[", 400, None), ("/tokenize", b"", 400, None), ("/tokenize", b"x" * ((1 << 20) + 1), 413, None),
])
def test_wrong_bodies(cluster, path, body, status, param):
    got, error = post(cluster, path, body)
    assert got == status, error
    assert error["message"] and (param is None or error["param"] == param)
