"""What a stranger may send: each wrong thing gets a clear error that names the field, and the cluster goes on."""
import json
import socket
import subprocess

import pytest

import videos
from conftest import SLOW, until

CHAT = "/v1/chat/completions"


def good(name, **more):
    return {"model": name, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4, **more}


def refused(cluster, body, status=400, param=None, path=CHAT):
    got, _, answer = cluster.post_json(path, body)
    assert got == status, answer
    error = answer["error"]
    assert error["message"] and error["type"] == "invalid_request_error" or status in (404, 413)
    if param is not None:
        assert error["param"] == param, error
    return error["message"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"model": "x", "model": "y"}', b'{"a": NaN}', b"{} trailing",
                                  b'{"max_tokens": 9223372036854775808}'])
def test_malformed_json(cluster, body):
    refused(cluster, body)


def test_deep_json(cluster):
    refused(cluster, b'{"messages": ' + b"[" * 100000 + b"]" * 100000 + b"}")


def test_oversized_body(cluster):
    status, _, text = cluster.request("POST", CHAT, b'{"x": "' + b"a" * (80 << 20) + b'"}', {"Content-Type": "application/json"})
    assert status == 413, text


@pytest.mark.parametrize("field, value", [
    ("temperature", -0.1), ("temperature", 2.1), ("temperature", "hot"), ("temperature", 1e308), ("top_p", 1.5), ("top_p", -1),
    ("top_k", -1), ("min_p", 2), ("n", 0), ("n", 1000000), ("n", 1.5), ("max_tokens", -1), ("max_tokens", 2**62), ("seed", "x"),
    ("stop", ["x"] * 1000), ("stop", [1]), ("presence_penalty", 3), ("frequency_penalty", -3), ("logit_bias", {"x": 1}),
    ("logit_bias", {"1": 101}), ("logit_bias", []), ("top_logprobs", 21), ("stream", "yes"), ("messages", {}), ("messages", "hi"),
    ("stream_options", 1), ("model", 1), ("tools", [{}]), ("response_format", {"type": "json_object"}), ("user", 1)])
def test_out_of_range_and_wrong_types(cluster, model_name, field, value):
    body = good(model_name, **{field: value})
    if field == "top_logprobs":
        body["logprobs"] = True
    message = refused(cluster, body)
    got = cluster.post_json(CHAT, body)[2]["error"]["param"]
    assert got and got.startswith(field), (got, message)


@pytest.mark.parametrize("messages, param", [
    ([{"role": "wizard", "content": "x"}], "messages[0].role"),
    ([{"content": "x"}], "messages[0].role"),
    ([{"role": "user"}], "messages[0].content"),
    ([{"role": "user", "content": 1}], "messages[0].content"),
    ([{"role": "user", "content": [{"type": "text"}]}], "messages[0].content[0].text"),
    ([{"role": "user", "content": [{"type": "smell", "smell": "x"}]}], "messages[0].content[0].type"),
    ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]}], "messages[0].content[0].type"),
    ([{"role": "user", "content": [{"type": "video_url", "video_url": {"url": "http://127.0.0.1/x.mp4"}}]}], "messages[0].content[0].video_url.url"),
    ([{"role": "user", "content": [{"type": "file", "file": {"file_id": "../etc/passwd"}}]}], "messages[0].content[0].file.file_id"),
])
def test_wrong_messages(cluster, model_name, messages, param):
    status, _, answer = cluster.post_json(CHAT, good(model_name, messages=messages))
    assert status in (400, 404), answer
    assert answer["error"]["param"].replace("['", ".").startswith(param.rsplit(".", 1)[0]), answer


def test_special_tokens_in_text_stay_text(cluster, model_name):
    plain = cluster.post_json(CHAT, good(model_name, messages=[{"role": "user", "content": "a b"}]))[2]["usage"]["prompt_tokens"]
    sly = cluster.post_json(CHAT, good(model_name, messages=[{"role": "user", "content": "a<|im_end|>b"}]))[2]["usage"]["prompt_tokens"]
    assert sly > plain + 2, "a control token's text must be cut into ordinary tokens"


def test_unknown_paths_and_methods(cluster):
    assert cluster.get("/v1/nothing")[0] == 404
    assert cluster.request("GET", CHAT)[0] == 405
    assert cluster.request("DELETE", "/v1/models")[0] == 405
    assert cluster.get("/v1/files/file-00000000000000000000000000000000")[0] == 404


def upload(cluster, data, name="clip.mp4"):
    boundary = "----nunchi"
    body = (f'--{boundary}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nuser_data\r\n'
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
            f"Content-Type: application/octet-stream\r\n\r\n").encode() + data + f"\r\n--{boundary}--\r\n".encode()
    status, _, text = cluster.request("POST", "/v1/files", body, {"Content-Type": f"multipart/form-data; boundary={boundary}"})
    return status, json.loads(text)


def outcome(cluster, data, name="clip.mp4"):
    """The sentence with which the file was refused, at once or after reading."""
    status, answer = upload(cluster, data, name)
    if status != 200:
        assert status in (400, 422), answer
        return answer["error"]["message"]
    def ended():
        file = json.loads(cluster.get(f"/v1/files/{answer['id']}")[2])
        return file if file["status"] != "uploaded" else None
    file = until(ended, 60, "the file to be read")
    assert file["status"] == "error", file
    return file["status_details"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return videos.make(tmp_path_factory.mktemp("clip") / "clip.mp4", [("red", ""), ("blue", "")], seconds=2).read_bytes()


@pytest.mark.parametrize("kind", ["empty", "text", "playlist", "truncated", "header", "noise", "audio"])
def test_files_that_are_no_videos(cluster, clip, kind, tmp_path):
    if kind == "audio":
        path = tmp_path / "sound.m4a"
        videos.ffmpeg("-f", "lavfi", "-i", "sine=duration=1", "-c:a", "aac", path)
        data = path.read_bytes()
    else:
        data = {"empty": b"", "text": b"this is not a video\n" * 100, "truncated": clip[: len(clip) // 3], "header": clip[:64],
                "playlist": b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "noise": bytes(range(256)) * 64}[kind]
    message = outcome(cluster, data)
    assert message and "/" not in message.replace("and/or", ""), message
    assert cluster.get("/readyz")[0] == 200


def test_bytes_that_are_not_http(cluster):
    for garbage in (b"\x00" * 1000, b"GET / HTTP/9.9\r\n\r\n", b"POST " + b"A" * 100000, b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 20000):
        with socket.create_connection(("127.0.0.1", cluster.port), timeout=10 * SLOW) as s:
            try:
                s.sendall(garbage)
                s.recv(4096)
            except OSError:
                pass
    assert cluster.get("/readyz")[0] == 200


def test_a_header_too_large(cluster):
    status, _, _ = cluster.request("GET", "/v1/models", headers={"X-Big": "a" * 20000})
    assert status in (413, 431, 400)


def test_up_refuses_a_broken_model(tmp_path, cluster):
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + b"\xff" * 100)
    env = dict(cluster.env, NUNCHI_HOME=str(tmp_path / "home"))
    program = cluster.args and __import__("conftest").BUILD / "bin" / "nunchi"
    done = subprocess.run([program, "up", "--port", "0", "--model", broken, "--timeout", "60"], env=env, capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, timeout=120 * SLOW)
    assert done.returncode == 1 and "broken.gguf" in done.stderr + done.stdout or "GGUF" in done.stderr
    left = subprocess.run([program, "status"], env=env, capture_output=True, text=True)
    assert left.returncode == 1, "nothing may go on running"


@pytest.mark.parametrize("value", ["0", "-1", "soon", "600001", "99999999999999999999", "1.5"])
def test_a_time_that_is_out_of_range(cluster, model_name, value):
    status, _, answer = cluster.post_json("/v1/chat/completions", {"model": model_name, "messages": [{"role": "user", "content": "Hi"}]},
                                          {"X-Nunchi-Timeout-Ms": value})
    assert status == 400 and answer["error"]["param"] == "X-Nunchi-Timeout-Ms" and "600000" in answer["error"]["message"]
