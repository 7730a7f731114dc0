"""Clusters for the tests: the real programs, started with our own command, each in a home of its own."""
import contextlib
import http.client
import json
import os
import pathlib
import shutil
import signal
import subprocess
import time

import pytest

BUILD = pathlib.Path(os.environ.get("NUNCHI_BUILD", pathlib.Path(__file__).resolve().parent.parent / "build"))
MODELS = pathlib.Path(os.environ.get("NUNCHI_TEST_MODELS", os.path.expanduser("~/.cache/nunchi/models")))
SMOLLM2 = MODELS / "SmolLM2-135M-Instruct.Q4_1.gguf"
GEMMA3 = MODELS / "gemma-3-270m-q4_k_m.gguf"
# Everything is slower under a sanitizer; these bounds only end a test that hangs.
SLOW = 10 if os.environ.get("NUNCHI_SANITIZER") else 1


def until(condition, seconds=30, what="a condition"):
    """Polls until condition() is true and returns its value; a deadline, never a fixed sleep."""
    end = time.monotonic() + seconds * SLOW
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds * SLOW} s for {what}")
        time.sleep(0.02)


class Cluster:
    def __init__(self, home, model=SMOLLM2, workers=1, args=(), env=None):
        self.home = pathlib.Path(home)
        self.env = dict(os.environ, NUNCHI_HOME=str(self.home), **(env or {}))
        self.env.pop("NUNCHI_URL", None)
        self.env.pop("NUNCHI_API_KEY", None)
        self.args = ["up", "--port", "0", "--model", str(model), "--workers", str(workers), "--timeout", str(120 * SLOW), *args]

    def nunchi(self, *args, timeout=240, **kw):
        return subprocess.run([BUILD / "bin" / "nunchi", *map(str, args)], env=self.env, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=timeout * SLOW, **kw)

    def up(self):
        done = self.nunchi(*self.args)
        assert done.returncode == 0, done.stderr + self.logs()
        return self

    def down(self):
        return self.nunchi("down")

    def state(self):
        return json.loads((self.home / "run" / "cluster.json").read_text())

    @property
    def port(self):
        return self.state()["port"]

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def services(self):
        return {s["name"]: s for s in self.state()["services"]}

    def pid(self, name):
        return self.services()[name]["pid"]

    def kill(self, name, signo=signal.SIGKILL):
        """Sends a signal to a service and returns the pid it had."""
        pid = self.pid(name)
        os.kill(pid, signo)
        return pid

    def wait_restarted(self, name, old_pid):
        until(lambda: self.pid(name) not in (0, old_pid), 30, f"{name} to be started again")

    def wait_ready(self):
        until(lambda: self.get("/readyz")[0] == 200, 60, "readiness")

    def request(self, method, path, body=None, headers=None, timeout=120):
        """(status, headers, bytes) of a raw HTTP request."""
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout * SLOW)
        try:
            c.request(method, path, body=body, headers=headers or {})
            r = c.getresponse()
            return r.status, dict((k.lower(), v) for k, v in r.getheaders()), r.read()
        finally:
            c.close()

    def get(self, path):
        try:
            return self.request("GET", path)
        except OSError:
            return 0, {}, b""

    def post_json(self, path, value, headers=None):
        body = value if isinstance(value, (bytes, str)) else json.dumps(value)
        status, got, text = self.request("POST", path, body, {"Content-Type": "application/json", **(headers or {})})
        return status, got, json.loads(text) if text else None

    def metric(self, name):
        """Sum of a family's series in /metrics."""
        text = self.get("/metrics")[2].decode()
        return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines()
                   if line.startswith(name) and line[len(name)] in " {")

    def openai(self, **kw):
        import openai
        return openai.OpenAI(base_url=self.url + "/v1", api_key=kw.pop("api_key", "none"), max_retries=0,
                             timeout=120 * SLOW, **kw)

    def log(self, name):
        return (self.home / "logs" / f"{name}.log").read_text(errors="replace")

    def logs(self):
        folder = self.home / "logs"
        text = [f"==> {p.name}\n{p.read_text(errors='replace')[-4000:]}" for p in sorted(folder.glob("*.log"))]
        return "\n" + "\n".join(text)


@contextlib.contextmanager
def running(home, **kw):
    c = Cluster(home, **kw)
    try:
        yield c.up()
    finally:
        done = c.down()
        logs = c.logs()
        shutil.rmtree(c.home / "redis", ignore_errors=True)
        assert done.returncode == 0, done.stderr + logs
        bad = [line for line in logs.splitlines() if "Sanitizer" in line or "check failed" in line]
        assert not bad, "\n".join(bad) + logs


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    """One cluster with one worker, for tests that do not break it."""
    with running(tmp_path_factory.mktemp("cluster")) as c:
        yield c


@pytest.fixture
def own_cluster(tmp_path):
    """A function that starts a cluster for one test, which may break it."""
    with contextlib.ExitStack() as stack:
        count = iter(range(100))
        yield lambda **kw: stack.enter_context(running(tmp_path / f"c{next(count)}", **kw))


@pytest.fixture
def client(cluster):
    return cluster.openai()


@pytest.fixture(scope="session")
def model_name(cluster):
    return cluster.openai().models.list().data[0].id
