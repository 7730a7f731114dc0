"""docker compose, for real: build, up, ask through the published port, scale, kill a container, ask again, down."""
import json
import os
import pathlib
import socket
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
sys.path[1:1] = [str(pathlib.Path(__file__).resolve().parents[1] / part) for part in ("e2e", "fault")]
import engine  # noqa: E402
import load  # noqa: E402
import videos  # noqa: E402
from conftest import until  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.timeout(3000)
ALL = ("gateway", "tokenizer-svc", "video-svc", "model-svc", "cache-svc", "redis", "redis-kv", "front")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Project:
    def __init__(self, env, folder):
        self.port = free_port()
        self.env = dict(env, NUNCHI_PORT=str(self.port), COMPOSE_PROJECT_NAME=f"nunchi{os.getpid()}", COMPOSE_HTTP_TIMEOUT="300",
                        COMPOSE_FILE=f"docker-compose.yml:{folder}/house.yml")
        plugin = subprocess.run(["docker", "compose", "version"], env=self.env, capture_output=True).returncode == 0
        self.command = ["docker", "compose"] if plugin else ["docker-compose"]
        # A house with a certificate authority and package index of its own hands both to pip inside the container.
        bundle = os.environ.get("PIP_CERT") or "/etc/ssl/certs/ca-certificates.crt"
        house = {k: v for k, v in os.environ.items() if k.startswith("PIP_") and k != "PIP_FIND_LINKS"} | {"PIP_CERT": "/etc/house-ca.crt"}
        (folder / "house.yml").write_text(json.dumps({"version": "3.8", "services": {"models": {
            "environment": house, "volumes": [f"{bundle}:/etc/house-ca.crt:ro"]}}}))

    def __call__(self, *args, check=True):
        done = subprocess.run([*self.command, *args], cwd=ROOT, env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True)
        assert not check or done.returncode == 0, f"{' '.join(args)}:\n{done.stdout[-6000:]}"
        return done.stdout

    def containers(self, service):
        return self("ps", "-q", service).split()

    def client(self):
        import openai
        return openai.OpenAI(base_url=f"http://127.0.0.1:{self.port}/v1", api_key="none", timeout=300, max_retries=0)

    def ready(self):
        import http.client
        try:
            c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
            c.request("GET", "/readyz")
            return c.getresponse().status == 200
        except OSError:
            return False

    def inspect(self, container):
        return json.loads(engine.docker("inspect", container, env=self.env).stdout)[0]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    if os.environ.get("NUNCHI_SKIP_COMPOSE") == "1":
        pytest.skip("NUNCHI_SKIP_COMPOSE=1: the containers were not tried")
    folder = tmp_path_factory.mktemp("compose")
    with engine.engine(folder) as env:
        engine.base_image(env, folder)
        p = Project(env, folder)
        try:
            p("build")
            p("up", "-d")
            until(p.ready, 300, "the cluster to be ready")
            yield p
        finally:
            if sys.exc_info()[0]:
                print(p("logs", "--tail=40", check=False))
            p("down", "-v", "--remove-orphans", check=False)


def question(project):
    client = project.client()
    return client.chat.completions.create(model=client.models.list().data[0].id, max_tokens=16, temperature=0, extra_headers={"Cache-Control": "no-store"},
                                          messages=[{"role": "user", "content": "What is 2+2?"}]).choices[0].message.content


def test_asks_through_the_published_port(project):
    assert "4" in question(project)


def test_a_video_in_containers(project, tmp_path):
    client = project.client()
    file = client.files.create(file=videos.pancake(tmp_path / "pancake.mp4").open("rb"), purpose="user_data")
    answer = client.chat.completions.create(model=client.models.list().data[0].id, max_tokens=48, temperature=0, messages=[{"role": "user", "content": [
        {"type": "file", "file": {"file_id": file.id}}, {"type": "text", "text": "What does Anna serve the pancake with?"}]}])
    assert "syrup" in answer.choices[0].message.content.lower()


def test_containers_are_locked_down(project):
    for service in ALL:
        for container in project.containers(service):
            told = project.inspect(container)
            assert told["HostConfig"]["ReadonlyRootfs"], service
            assert told["HostConfig"]["CapDrop"] == ["ALL"], service
            assert told["Config"]["User"] not in ("", "root", "0"), service
            assert "no-new-privileges:true" in told["HostConfig"]["SecurityOpt"], service


def test_every_service_becomes_healthy(project):
    def all_healthy():
        return all(project.inspect(c)["State"]["Health"]["Status"] == "healthy"
                   for s in ALL if s != "front" for c in project.containers(s))
    until(all_healthy, 120, "all health checks to pass")


def workers(project, service):
    """As one of the gateways sees them."""
    import urllib.request
    text = urllib.request.urlopen(f"http://127.0.0.1:{project.port}/metrics", timeout=10).read().decode()
    return [int(line.split()[-1]) for line in text.splitlines() if line.startswith("nunchi_gateway_workers") and f'service="{service}"' in line][0]


class Faults:
    """What is done to containers while a load runs on them."""

    def __init__(self, project, steady):
        self.project, self.steady = project, steady

    def docker(self, *args):
        done = engine.docker(*args, env=self.project.env)
        assert done.returncode == 0, done.stderr

    def go_on(self, n=20):
        """Until so many more answers have come."""
        wanted = self.steady.answered() + n
        until(lambda: self.steady.answered() >= wanted, 120, f"{n} more answers")

    def kill(self, service):
        victim = self.project.containers(service)[0]
        self.docker("kill", victim)
        self.go_on()
        self.docker("start", victim)
        self.go_on(5)

    def end(self, service):
        victim = self.project.containers(service)[0]
        self.docker("stop", "-t", "45", victim)
        self.go_on()
        self.docker("start", victim)
        self.go_on(5)


def all_there(project):
    return len(project.containers("gateway")) == 2 and workers(project, "model") == 3 and workers(project, "cache") == 2


def test_scales_and_loses_no_answer(project):
    """Two gateways behind one name, three model workers, two caches; what is killed or stopped under load changes no byte."""
    project("up", "-d", "--no-recreate", "--scale", "gateway=2", "--scale", "model-svc=3", "--scale", "cache-svc=2", "--scale", "tokenizer-svc=2")
    until(lambda: all_there(project), 120, "three model workers and two caches")
    steady = load.Load(lambda: [project.port], n_questions=12, streams=4)
    steady.learn()
    faults = Faults(project, steady)
    with steady:
        faults.kill("model-svc")
        faults.end("model-svc")
        faults.kill("cache-svc")
        faults.kill("redis-kv")
        faults.kill("tokenizer-svc")
        faults.end("gateway")
    steady.check()


def test_a_killed_gateway_takes_its_own_only(project):
    steady = load.Load(lambda: [project.port], n_questions=12, streams=4, gateway_is_killed=True)
    steady.learn()
    faults = Faults(project, steady)
    with steady:
        faults.kill("gateway")
    counts = steady.report()
    # Of each of the four streams what was in flight, and what it asked next, if the kernel still took that for the dying process.
    assert counts["wrong"] == 0 and counts["lost"] <= 8, "\n".join([str(counts), *steady.complaints])
