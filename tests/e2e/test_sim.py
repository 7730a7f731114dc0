"""A gateway with sixty-four simulated workers: every answer is what its prompt must be answered with, also when workers die meanwhile."""
import json
import os
import pathlib
import signal
import subprocess

import pytest

from conftest import until

BUILD = pathlib.Path(os.environ.get("NUNCHI_BUILD", "build")).resolve()


@pytest.fixture
def gateway(tmp_path):
    """Its HTTP port and the endpoint for workers."""
    log = tmp_path / "gateway.log"
    endpoint = f"ipc://{tmp_path}/bus"
    process = subprocess.Popen([BUILD / "bin" / "nunchi-gateway", "--http", "127.0.0.1:0", "--bind", endpoint, "--requests-max", "4096",
                                "--queue-max", "4096"], stdin=subprocess.DEVNULL, stderr=log.open("w"))

    def port():
        ready = [json.loads(line) for line in log.read_text().splitlines() if '"msg":"ready"' in line]
        return ready and ready[0]["port"]
    try:
        yield until(port, 20, "the gateway to listen"), endpoint
    finally:
        process.kill()
        process.wait()


def sim(endpoint, *args):
    return subprocess.Popen([BUILD / "tests" / "load" / "sim_workers", "--gateways", endpoint, *args], stdin=subprocess.DEVNULL)


def load(port, *args):
    done = subprocess.run([BUILD / "tests" / "load" / "http_load", "--url", f"http://127.0.0.1:{port}", "--check-words", "--json", "-", *args],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)
    return done.returncode, json.loads(done.stdout)


def ready(port):
    import http.client
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    c.request("GET", "/readyz")
    r = c.getresponse()
    return r.status == 200 and json.loads(r.read())["workers"]


def test_five_hundred_streams(gateway):
    port, endpoint = gateway
    workers = sim(endpoint, "--workers", "64", "--step-ms", "5", "--prefill-rate", "100000")
    try:
        until(lambda: (ready(port) or {}).get("model") == 64, 30, "64 workers")
        code, result = load(port, "--streams", "500", "--requests", "1000", "--max-tokens", "20")
        assert code == 0 and result["requests"]["ok"] == 1000, result["requests"]
    finally:
        workers.kill()
        workers.wait()


def test_workers_die_under_them(gateway):
    port, endpoint = gateway
    lasting = sim(endpoint, "--workers", "4", "--step-ms", "20")
    dying = sim(endpoint, "--workers", "4", "--tokenizers", "0", "--step-ms", "20")
    try:
        until(lambda: (ready(port) or {}).get("model") == 8, 30, "8 workers")
        running = subprocess.Popen([BUILD / "tests" / "load" / "http_load", "--url", f"http://127.0.0.1:{port}", "--check-words", "--quiet", "--streams", "40",
                                    "--requests", "80", "--max-tokens", "60"], stdin=subprocess.DEVNULL)
        until(lambda: answers_running(port) >= 30, 30, "answers under way")
        dying.send_signal(signal.SIGKILL)
        assert running.wait(120) == 0
        assert counter(port, "nunchi_gateway_retries_total") > 0
    finally:
        for p in (lasting, dying):
            p.kill()
            p.wait()


def counter(port, name):
    import urllib.request
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode()
    return [float(line.split()[-1]) for line in text.splitlines() if line.startswith(name + " ")][0]


def answers_running(port):
    return counter(port, "nunchi_gateway_requests_running")


def test_a_wrong_answer_is_seen(gateway):
    port, endpoint = gateway
    workers = sim(endpoint, "--step-ms", "5", "--stamps")
    try:
        until(lambda: ready(port), 30, "a worker")
        code, result = load(port, "--streams", "2", "--requests", "4", "--max-tokens", "5")
        assert code == 1 and result["requests"]["failed"]["wrong"] == 4
    finally:
        workers.kill()
        workers.wait()
