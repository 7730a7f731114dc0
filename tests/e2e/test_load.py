"""The load generator: whole answers from the cluster, and every kind of failure from servers that misbehave."""
import contextlib
import json
import socket
import subprocess
import threading

import pytest

from conftest import BUILD, SLOW, until

HTTP_LOAD = BUILD / "tests" / "load" / "http_load"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
TEXT = b'data: {"choices":[{"delta":{"content":"word"}}]}\n\n'


def load(url, *args, code=0):
    """The numbers of a run."""
    done = subprocess.run([HTTP_LOAD, "--url", url, "--quiet", "--json", "-", *map(str, args)], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=120 * SLOW)
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout) if done.stdout else done.stderr


@contextlib.contextmanager
def server(*answers):
    """Gives each connection's first request the next of `answers`, then closes it. Yields its URL."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve():
        for answer in answers:
            try:
                with listening.accept()[0] as c:
                    c.recv(65536)
                    c.sendall(answer)
                    c.shutdown(socket.SHUT_WR)
                    while c.recv(65536):
                        pass
            except OSError:
                pass

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        listening.close()
        thread.join(5)


def test_closed_loop(cluster):
    got = load(cluster.url, "--streams", 4, "--requests", 10, "--max-tokens", 12, "--prompt-words", 20,
               "--cpu-of", cluster.pid("gateway"))
    assert got["requests"]["ok"] == got["requests"]["begun"] == 10
    assert got["tokens"]["answer"] == 120
    assert got["first_token_ms"]["n"] == got["answer_ms"]["n"] == 10
    assert 0 < got["first_token_ms"]["p50"] <= got["answer_ms"]["max"]
    assert got["tokens"]["steady_s"] > 0
    assert got["cpu_s"]["processes"][0]["name"] == "nunchi-gateway"


def test_open_loop(cluster):
    got = load(cluster.url, "--streams", 8, "--rate", 50, "--requests", 12, "--max-tokens", 4, "--seed", 5)
    assert got["requests"]["ok"] == 12
    assert got["tokens"]["steady_s"] == 0
    # one connection for all: the wait for it counts
    late = load(cluster.url, "--streams", 1, "--rate", 1000, "--requests", 12, "--max-tokens", 4, "--seed", 6)
    assert late["requests"]["ok"] == 12
    assert late["first_token_ms"]["max"] > late["wall_s"] * 1000 / 2


def test_a_slow_reader_does_not_hold_up_the_others(cluster):
    running = lambda: cluster.metric("nunchi_gateway_requests_running")
    got = load(cluster.url, "--streams", 5, "--slow", 1, "--slow-tokens", 1500, "--requests", 8, "--max-tokens", 16)
    assert got["requests"]["ok"] == got["requests"]["begun"] == 8
    until(lambda: running() == 0, 10, "the slow reader's request to end with its connection")


@pytest.mark.parametrize("kind, answer", [
    ("closed", HEAD.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n") + b"5\r\nda"),
    ("status", b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 4\r\n\r\nbusy"),
    ("event", HEAD + TEXT + b'data: {"error":{"message":"no"}}\n\n'),
    ("protocol", HEAD + TEXT),
    ("protocol", HEAD + b"data: [DONE]\n\n"),
    ("protocol", b"220 mail.example.org ESMTP\r\n"),
])
def test_failures_have_names(kind, answer):
    with server(answer) as url:
        got = load(url, "--model-name", "any", code=1)
    assert got["requests"]["failed"] == {k: int(k == kind) for k in got["requests"]["failed"]}, got["requests"]
    assert got["requests"]["first_failure"].startswith(kind)


def test_pieces_count_where_there_is_no_usage():
    with server(HEAD + TEXT * 3 + b"data: [DONE]\n\n") as url:
        got = load(url, "--model-name", "any")
    assert got["tokens"]["answer"] == 3
    assert got["gap_ms"]["n"] == 2


def test_nobody_listens():
    with socket.create_server(("127.0.0.1", 0)) as s:
        url = f"http://127.0.0.1:{s.getsockname()[1]}"
    got = load(url, "--model-name", "any", "--streams", 3, "--requests", 7, code=1)
    assert got["requests"]["failed"]["connect"] == 7
    assert f"nobody listens at {url[7:]}" in load(url, code=2)


def test_a_run_ends_by_itself():
    with socket.create_server(("127.0.0.1", 0)) as s:  # takes connections, answers nothing
        got = load(f"http://127.0.0.1:{s.getsockname()[1]}", "--model-name", "any", "--streams", 2, "--timeout", "200ms", code=1)
    assert got["requests"]["failed"]["timeout"] == 2


def test_a_mistaken_header_is_refused():
    for header in ("Cache-Control", ":x"):
        assert "--header takes 'Name: value'" in load("http://127.0.0.1:9", "--header", header, code=2)


@pytest.mark.parametrize("says, answer", [
    ("ended before the answer", b""),
    ("not HTTP/1", b"220 mail.example.org ESMTP\r\n"),
    ("JSON", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{\0"),
])
def test_no_list_of_models(says, answer):
    with server(answer) as url:
        why = load(url, code=2)
    assert "--url: " in why and says in why


def test_a_list_of_models_that_never_ends():
    over = threading.Event()

    def trickle():
        with contextlib.suppress(OSError), listening.accept()[0] as c:
            c.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            while not over.wait(0.1):
                c.sendall(b" ")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=trickle, daemon=True).start()
        try:
            assert "no answer in" in load(f"http://127.0.0.1:{listening.getsockname()[1]}", code=2)
        finally:
            over.set()


def test_what_a_server_says_is_no_command_to_the_terminal():
    with server(b"HTTP/1.1 500 No\r\nContent-Length: 9\r\n\r\nno\x1b[2J\r\n!") as url:
        got = load(url, "--model-name", "any", code=1)
    assert got["requests"]["first_failure"] == "status: 500 no [2J  !"


def test_only_this_machine_is_loaded():
    assert "--any-host" in load("http://192.0.2.1:80", "--model-name", "any", code=2)
    assert "http://" in load("https://127.0.0.1:80", "--model-name", "any", code=2)
